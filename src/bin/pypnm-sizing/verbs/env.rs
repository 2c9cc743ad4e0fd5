//! `env`: PyPNM's four lines. As `ExecStartPre=` of the generated drop-in it writes the file that PyPNM reads, from
//! the environment that systemd has resolved for this start, so that whatever an operator set there reaches PyPNM.
//!
//! The file is right for PyPNM, for bash's `source` and for `EnvironmentFile=` at once: KEY=value, nothing else.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use pypnm_sizing::overrides::is_valid_value;
use pypnm_sizing::parse::quantity::Gib;
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::pypnm::{CPU_COUNT, LIMIT_MAX_REQUESTS, TOTAL_MEMORY_GIB, WORKERS};
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Hypothetical, Request, SizedUnit, size};
use pypnm_sizing::write;

use crate::cli::{Env, Target};
use crate::output::{Outcome, answer, remark};
use crate::service::pypnm;

pub(crate) fn run(root: &Root, arguments: &Env) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&Request {
        hypothetical: hypothetical.clone(),
        extra_unit: arguments.unit.as_deref(),
        ..Request::new(root)
    });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let wanted = |unit: &&SizedUnit| arguments.unit.as_ref().is_none_or(|name| unit.name == *name);
    // A machine to try, or one below --root, has nothing to do with this process's environment.
    let resolved = root.is_machine() && hypothetical == Hypothetical::default();
    let text = sizing.units.iter().find(wanted).map(|unit| lines(unit, resolved));

    match (arguments.target(), text) {
        (Target::File(path), None) => {
            is_replaceable(path)?;
            remark(&format!("sizing is turned off; {}", removed(path)?));
            Ok(ExitCode::SUCCESS)
        }
        (_, None) => {
            remark(&"sizing is turned off (Enabled=no or pypnm.sizing=no): PyPNM sizes itself");
            Ok(ExitCode::SUCCESS)
        }
        (Target::Stdout, Some(text)) => answer(&text),
        (Target::File(path), Some(text)) => {
            put(path, &text)?;
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

/// The four lines: what the environment says where it is `resolved` and sane, else the sized value.
fn lines(unit: &SizedUnit, resolved: bool) -> String {
    let cpus = unit.capacity.whole_cpus();
    // A key of PyPNM's, its sized value, what it takes in words.
    let keys = [
        (CPU_COUNT, cpus.to_string(), "a whole number from 1"),
        (TOTAL_MEMORY_GIB, Gib(unit.capacity.memory.amount).to_string(), "a number"),
        (WORKERS, unit.profile.workers.to_string(), "a whole number from 1"),
        (LIMIT_MAX_REQUESTS, unit.profile.limit_max_requests.to_string(), "a whole number from 0"),
    ];
    let mut text = String::new();
    for (key, sized, expected) in keys {
        let set = if resolved { std::env::var_os(key) } else { None };
        let value = match set {
            None => sized,
            Some(set) => match set.to_str() {
                Some(value) if is_valid_value(key, value) => value.to_owned(),
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
    text
}

/// Writes the file, or else removes it: a stale profile would be worse than none, without one PyPNM sizes itself.
fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    is_replaceable(path)?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        bail!("--write={}: expected the path of a file", path.display());
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let written = write::make_directories(dir).and_then(|()| write::replace(dir, name, text));
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
        bail!("--write={}: expected a file, or nothing yet; left as it is", path.display());
    }
    Ok(())
}

/// Removes what an earlier start has written, and says what follows.
fn removed(path: &Path) -> anyhow::Result<&'static str> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok("removed the old file, so PyPNM sizes itself"),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok("PyPNM sizes itself")
        }
        Err(error) => Err(anyhow!("and {}, which is out of date, can't be removed: {error}", path.display())),
    }
}
