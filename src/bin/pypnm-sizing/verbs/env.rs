//! `env`: prints or writes the four lines of PyPNM's profile. As `ExecStartPre=` of the generated drop-in, it writes the file
//! that PyPNM reads, from the environment that systemd has resolved for this start, so that an operator's variables reach
//! PyPNM.
//!
//! When the service starts, it also checks the limits once more: its cgroup is that of the service, where limits set since the
//! generator ran are visible (by other generators, `systemctl set-property` or sysctl.d(5)). Numbers that were not set by
//! hand are lowered to what fits now, and never raised. If systemd would not restart the unit after a clean exit, they are
//! never lowered to a single worker with a recycle limit: see [`final_numbers`].
//!
//! The file can be read by PyPNM, by bash's `source` and by `EnvironmentFile=`: it contains only KEY=value lines.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::overrides::{Effect, is_valid_value};
use pypnm_sizing::parse::quantity::{Cpus, Gib, in_cpus};
use pypnm_sizing::pypnm::{CPU_COUNT, LIMIT_MAX_REQUESTS, Numbers, TOTAL_MEMORY_GIB, WORKERS};
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::SizedUnit;
use pypnm_sizing::sizing::{Hypothetical, Request, size};
use pypnm_sizing::write::{Directory, WriteError};

use crate::cli::{Env, EnvTarget};
use crate::output::{Outcome, answer, remark};
use crate::service::unit_file::last_value;
use crate::service::{generated, own, pypnm};
use crate::wording;

const FALLS_BACK: &str = "PyPNM falls back to its own sizing";

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
    // The environment of this process does not apply to a hypothetical machine or to one below --root.
    let resolved = root.is_machine() && hypothetical == Hypothetical::default();
    let text = wording::requested(&sizing, arguments.unit.as_deref()).map(|unit| {
        // A unit that Units= no longer lists is not sized after the next reload; until then it keeps its numbers.
        let listed = sizing.config.units();
        let is_listed = generated::names_of(&unit.name).any(|name| listed.contains(&name));
        let generated = generated::drop_in(root, &unit.name, &unit.name).filter(|_| is_listed);
        lines(root, unit, resolved, &generated.unwrap_or_default())
    });

    let Some(text) = text else {
        match arguments.target() {
            EnvTarget::File(path) => remark(&format!("sizing is turned off; {}", remove_profile(path)?)),
            EnvTarget::Stdout | EnvTarget::WherePypnmLooks => {
                remark(&format!("sizing is turned off (Enabled=no or pypnm.sizing=no): {FALLS_BACK}"));
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    match arguments.target() {
        EnvTarget::Stdout => return answer(&text),
        EnvTarget::File(path) => {
            write_profile(path, &text)?;
            if arguments.machine.is_seed() {
                // The same message as that of PyPNM's own script, which its callers look for.
                return answer(&format!("Wrote PyPNM worker profile to {}\n", path.display()));
            }
        }
        EnvTarget::WherePypnmLooks => {
            answer(&text)?;
            if !root.is_machine() {
                bail!("not written: PyPNM's own profile file is unknown with --root; use --write PATH");
            }
            let path = pypnm::profile_file().context("not written")?;
            write_profile(&path, &text)?;
            let path = std::path::absolute(&path).unwrap_or(path);
            remark(&format!("wrote {}", path.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The four lines: the value in the environment if it is `resolved` and valid, otherwise the sized value. A value from the
/// `generated` drop-in is lowered to the sized one.
fn lines(root: &Root, unit: &SizedUnit, resolved: bool, generated: &DropIn) -> String {
    let sized = [
        (CPU_COUNT, unit.capacity.whole_cpus().to_string()),
        (TOTAL_MEMORY_GIB, Gib(unit.capacity.memory.amount).to_string()),
        (WORKERS, unit.profile.workers.to_string()),
        (LIMIT_MAX_REQUESTS, unit.profile.limit_max_requests.to_string()),
    ];
    let generated_environment = generated.environment();
    let mut values = sized.map(|(key, sized)| {
        let Some(set) = std::env::var_os(key).filter(|_| resolved) else {
            return LoweredValue { key, before: sized.clone(), now: sized };
        };
        match set.to_str() {
            Some(value) if is_valid_value(key, value) => {
                let is_generated = generated_environment.get(key).is_some_and(|set| set == value);
                let is_lowered = is_generated && !is_by_hand(unit, key) && is_lower(key, &sized, value);
                let now = if is_lowered { sized } else { value.to_owned() };
                LoweredValue { key, before: value.to_owned(), now }
            }
            _ => {
                remark(&wording::bad_variable(key, &set.to_string_lossy(), &sized));
                LoweredValue { key, before: sized.clone(), now: sized }
            }
        }
    });
    final_numbers(root, unit, &mut values, generated);
    values.map(|value| format!("{}={}\n", value.key, value.now)).concat()
}

/// A value before and after it was lowered.
struct LoweredValue {
    key: &'static str,
    before: String,
    now: String,
}

/// Completes the check of the limits, with a remark if a number is lower than before. If a single worker would end the service
/// for good at its recycle limit, because the unit lacks `Restart=always`, a sized limit becomes 0; if the limit is the
/// operator's, two workers are kept.
fn final_numbers(root: &Root, unit: &SizedUnit, values: &mut [LoweredValue; 4], generated: &DropIn) {
    let [_, _, workers, limit] = values;
    if workers.now == "1" && workers.before != "1" && limit.now != "0" && !comes_back(root, unit, generated) {
        if is_by_hand(unit, LIMIT_MAX_REQUESTS) {
            "2".clone_into(&mut workers.now);
        } else {
            "0".clone_into(&mut limit.now);
        }
    }
    let changed = [&*workers, &*limit].into_iter().filter(|value| value.before != value.now);
    let before: Vec<String> = changed.map(|value| format!("{} {}", value.key, value.before)).collect();
    if !before.is_empty() {
        let number = |text: &str| text.parse().unwrap_or_default();
        let never = limit.now == "0" && limit.before != "0";
        remark(&format!(
            "lowered to {}, from {} at the last reload: {} by {}, {} GiB by {}{}",
            wording::profile(Numbers {
                workers: number(&workers.now),
                limit_max_requests: number(&limit.now)
            }),
            before.join(" and "),
            in_cpus(Cpus(unit.capacity.cpu.amount)),
            reasons::cpu_reason(unit),
            Gib(unit.capacity.memory.amount),
            reasons::memory_reason(unit),
            if never { "; without Restart=always the service would end at its recycle limit" } else { "" },
        ));
    }
}

/// Whether systemd restarts the unit when its only worker exits at the recycle limit, with status 0. If another generator
/// creates the unit, systemd reads that file instead of a packaged one (systemd.unit(5)); all generators have run by now.
fn comes_back(root: &Root, unit: &SizedUnit, generated: &DropIn) -> bool {
    let foreign_fragment = generated::foreign_fragment(root, unit.definition.as_ref(), &unit.name);
    let fragment = unit.definition.as_ref().and_then(|unit| unit.fragment.as_deref());
    let mut settings = unit.definition.iter().flat_map(|unit| unit.assignments_of("Restart"));
    let is_replaced = |file: &str| foreign_fragment.is_some() && fragment == Some(file);
    let last = settings.rfind(|restart| !is_replaced(&restart.source.file)).map(|last| last.value.clone());
    let last = last.or_else(|| last_value(root, &foreign_fragment, "Restart"));
    let is_always = last.is_some_and(|restart| restart == "always");
    let is_overridden = unit.overrides.list.iter().any(|o| matches!(o.effect, Effect::Restart { .. }));
    !unit.overrides.refuses_restart() && !is_overridden && (generated.restart.is_some() || is_always)
}

/// Whether a file of the operator sets `key`, even if to the same value as the drop-in.
fn is_by_hand(unit: &SizedUnit, key: &str) -> bool {
    unit.overrides.get(key).is_some() || unit.overrides.repeated(key).is_some()
}

/// Whether a value of `key` is less than another. Both are valid.
fn is_lower(key: &str, value: &str, than: &str) -> bool {
    let number = |text: &str| match text.parse::<f64>().ok()? {
        // Never recycled.
        0.0 if key == LIMIT_MAX_REQUESTS => Some(f64::INFINITY),
        number => Some(number),
    };
    number(value) < number(than)
}

/// Writes the file, or removes it on failure: without a profile PyPNM sizes itself, which is better than with a stale one.
fn write_profile(path: &Path, text: &str) -> anyhow::Result<()> {
    let (directory, name) =
        Directory::create_for(path).map_err(|error| anyhow!("{error}; nothing was written"))?;
    let Err(error) = directory.replace(name, text) else { return Ok(()) };
    if error.error.kind() == ErrorKind::InvalidInput {
        bail!("{error}");
    }
    match removed(&directory, name) {
        Ok(what) => bail!("{error}; {what}"),
        Err(stale) => {
            bail!("{error}; and {}, which is out of date, cannot be removed: {}", path.display(), stale.error)
        }
    }
}

/// Removes the file, if there is one. Returns a text that describes the consequence.
fn remove_profile(path: &Path) -> anyhow::Result<&'static str> {
    match Directory::open_for(path) {
        Ok((directory, name)) => Ok(removed(&directory, name)?),
        Err(error) if error.error.kind() == ErrorKind::NotFound => Ok(FALLS_BACK),
        Err(error) => bail!("{error}; nothing was removed"),
    }
}

/// Removes a file from an earlier start. Returns a text that describes the consequence.
fn removed(directory: &Directory, name: &OsStr) -> Result<&'static str, WriteError> {
    let was_there = directory.remove(name)?;
    Ok(if was_there { "removed the old file, so PyPNM falls back to its own sizing" } else { FALLS_BACK })
}
