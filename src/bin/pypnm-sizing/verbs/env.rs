//! `env`: PyPNM's four lines. As `ExecStartPre=` of the generated drop-in it writes the file that PyPNM reads, from
//! the environment that systemd has resolved for this start, so that whatever an operator set there reaches PyPNM.
//!
//! There it also takes a last look: its cgroup is the service's, and what other generators, `systemctl set-property` or
//! sysctl.d(5) have limited since the generator ran shows in it. A number that nobody set by hand is lowered to what
//! fits now, never raised.
//!
//! The file is right for PyPNM, for bash's `source` and for `EnvironmentFile=` at once: KEY=value, nothing else.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use pypnm_sizing::overrides::is_valid_value;
use pypnm_sizing::parse::quantity::{Cpus, Gib};
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::pypnm::{CPU_COUNT, LIMIT_MAX_REQUESTS, TOTAL_MEMORY_GIB, WORKERS};
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Hypothetical, Request, SizedUnit, size};
use pypnm_sizing::{reasons, write};

use crate::cli::{Env, Target};
use crate::output::{Outcome, answer, remark};
use crate::service::generated::{self, Generated};
use crate::service::{own, pypnm};
use crate::wording;

pub(crate) fn run(root: &Root, arguments: &Env) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&Request {
        hypothetical: hypothetical.clone(),
        extra_unit: arguments.unit.as_deref(),
        process: arguments
            .unit
            .as_deref()
            .map_or_else(|| own::without_systemd(root), |unit| own::within_unit(root, unit)),
        ..Request::new(root)
    });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let wanted = |unit: &&SizedUnit| arguments.unit.as_ref().is_none_or(|name| unit.name == *name);
    // A machine to try, or one below --root, has nothing to do with this process's environment.
    let resolved = root.is_machine() && hypothetical == Hypothetical::default();
    let text = sizing.units.iter().find(wanted).map(|unit| {
        let generated = generated::read(root, &unit.name, &unit.name).ok().flatten().unwrap_or_default();
        lines(unit, resolved, &generated)
    });

    match (arguments.target(), text) {
        (Target::File(path), None) => {
            is_replaceable(path)?;
            remark(&format!("sizing is turned off; {}", removed(path)?));
            Ok(ExitCode::SUCCESS)
        }
        (_, None) => {
            remark(
                &"sizing is turned off (Enabled=no or pypnm.sizing=no): PyPNM falls back to its own sizing",
            );
            Ok(ExitCode::SUCCESS)
        }
        (Target::Stdout, Some(text)) => answer(&text),
        (Target::File(path), Some(text)) => {
            put(path, &text)?;
            if arguments.machine.is_seed() {
                // As PyPNM's own script reports it; whoever calls that looks for this line.
                return answer(&format!("Wrote PyPNM worker profile to {}\n", path.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        (Target::WherePypnmLooks, Some(text)) => {
            answer(&text)?;
            if !root.is_machine() {
                bail!("not written: where PyPNM looks below --root is not known; --write PATH says it");
            }
            let path = pypnm::profile_file().context("not written")?;
            put(&path, &text)?;
            let path = std::path::absolute(&path).unwrap_or(path);
            remark(&format!("wrote {}", path.display()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The four lines: what the environment says where it is `resolved` and valid, else the sized value. A value of the
/// `generated` drop-in is lowered to the sized one.
fn lines(unit: &SizedUnit, resolved: bool, generated: &Generated) -> String {
    let cpus = unit.capacity.whole_cpus();
    // A key of PyPNM's, its sized value, what it takes in words.
    let keys = [
        (CPU_COUNT, cpus.to_string(), "a whole number from 1"),
        (TOTAL_MEMORY_GIB, Gib(unit.capacity.memory.amount).to_string(), "a number"),
        (WORKERS, unit.profile.workers.to_string(), "a whole number from 1"),
        (LIMIT_MAX_REQUESTS, unit.profile.limit_max_requests.to_string(), "a whole number from 0"),
    ];
    let mut text = String::new();
    let mut lowered = Vec::new();
    for (key, sized, expected) in keys {
        let set = if resolved { std::env::var_os(key) } else { None };
        let value = match set {
            None => sized,
            Some(set) => match set.to_str() {
                Some(value) if is_valid_value(key, value) => {
                    let is_generated = generated.environment.get(key).is_some_and(|set| set == value);
                    if is_generated && !is_by_hand(unit, key) && is_lower(key, &sized, value) {
                        lowered.push((key, value.to_owned()));
                        sized
                    } else {
                        value.to_owned()
                    }
                }
                _ => {
                    let source = Source::key("the environment", 0, key);
                    let instead = format!("the sized {sized} is used");
                    remark(&Problem::bad_value(source, &set.to_string_lossy(), expected, instead));
                    sized
                }
            },
        };
        // Writing into a string can't fail.
        let _ = writeln!(text, "{key}={value}");
    }
    let numbers: Vec<String> = lowered
        .iter()
        .filter(|(key, _)| [WORKERS, LIMIT_MAX_REQUESTS].contains(key))
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    if !numbers.is_empty() {
        remark(&format!(
            "lowered to {}, from {} at the last reload: {} CPUs by {}, {} GiB by {}",
            wording::profile(unit.profile.workers, unit.profile.limit_max_requests),
            numbers.join(" and "),
            Cpus(unit.capacity.cpu.amount),
            reasons::cpu_reason(unit),
            Gib(unit.capacity.memory.amount),
            reasons::memory_reason(unit),
        ));
    }
    text
}

/// Whether a file of the operator's sets `key`, be it to what the drop-in says.
fn is_by_hand(unit: &SizedUnit, key: &str) -> bool {
    unit.overrides.get(key).is_some() || unit.overrides.repeated(key).is_some()
}

/// Whether one value of `key` is less than another; both are valid.
fn is_lower(key: &str, value: &str, than: &str) -> bool {
    let number = |text: &str| match text.parse::<f64>().ok()? {
        // Never recycled.
        0.0 if key == LIMIT_MAX_REQUESTS => Some(f64::INFINITY),
        number => Some(number),
    };
    number(value) < number(than)
}

/// Writes the file, or else removes it: a stale profile would be worse than none, without one PyPNM sizes itself.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    is_replaceable(path)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        bail!("--write={}: expected the path of a file", path.display());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let written = write::create_directories(dir).and_then(|()| write::replace(dir, name, text));
    written.map_err(|error| match removed(path) {
        Ok(what) => anyhow!("{error}; {what}"),
        Err(stale) => anyhow!("{error}; {stale}"),
    })
}

/// A rename would put a file in the place of a device as well, and of /dev's links to devices; any other link is
/// replaced itself.
fn is_replaceable(path: &Path) -> anyhow::Result<()> {
    let is_other = path.metadata().is_ok_and(|there| !there.is_file());
    if is_other || path.parent() == Some(Path::new("/dev")) {
        bail!("--write={}: not a regular file; left as it is", path.display());
    }
    Ok(())
}

/// Removes what an earlier start has written, and says what follows.
fn removed(path: &Path) -> anyhow::Result<&'static str> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok("removed the old file, so PyPNM falls back to its own sizing"),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok("PyPNM falls back to its own sizing")
        }
        Err(error) => Err(anyhow!("and {}, which is out of date, can't be removed: {error}", path.display())),
    }
}
