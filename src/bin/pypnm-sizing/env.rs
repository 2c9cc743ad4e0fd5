//! `env`: PyPNM's four lines. As `ExecStartPre=` of the generated drop-in it writes the file that PyPNM reads, from
//! the environment that systemd has resolved for this start, so that whatever an operator set there reaches PyPNM.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use pypnm_sizing::parse::quantity::{Gib, decimal};
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Instead, size};
use pypnm_sizing::write;

use crate::args::Env;
use crate::{Outcome, answer, remark};

pub(crate) fn run(root: &Root, arguments: &Env) -> Outcome {
    let text = lines(root, arguments);
    match &arguments.write {
        None => answer(&text?),
        Some(path) => {
            let done = text.and_then(|text| put(path, &text));
            if done.is_err() {
                // A stale profile would be worse than none: without the file PyPNM sizes itself.
                let _ = std::fs::remove_file(path);
            }
            done.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// A key of PyPNM's, its sized value, what it takes, and that in words.
type Key = (&'static str, String, fn(&str) -> bool, &'static str);

/// The four lines: what the environment says where that is sane, else the sized value.
fn lines(root: &Root, arguments: &Env) -> Result<String, String> {
    let instead = arguments.machine.instead();
    let sizing = size(root, None, &instead);
    sizing.problems.iter().for_each(|problem| remark(problem));
    let unit = sizing
        .units
        .iter()
        .find(|unit| unit.name == arguments.unit)
        .or(sizing.units.first())
        .ok_or("sizing is turned off (Enabled=no or pypnm.sizing=no)")?;
    let cpus = unit.capacity.whole_cpus();
    let keys: [Key; 4] = [
        ("PYPNM_SERVE_CPU_COUNT", cpus.to_string(), is_count, "a whole number from 1"),
        ("PYPNM_SERVE_TOTAL_MEMORY_GIB", Gib(unit.capacity.memory.amount).to_string(), is_gib, "a number"),
        ("PYPNM_SERVE_WORKERS", unit.profile.workers.to_string(), is_count, "a whole number from 1"),
        (
            "PYPNM_SERVE_LIMIT_MAX_REQUESTS",
            unit.profile.limit_max_requests.to_string(),
            is_limit,
            "a whole number from 0",
        ),
    ];
    // A machine to try, or one below --root, has nothing to do with this process's environment.
    let resolved = root.is_machine() && instead == Instead::default();
    let mut text = String::new();
    for (key, sized, is_sane, expected) in keys {
        let value = match std::env::var(key) {
            Ok(value) if resolved && is_sane(&value) => value,
            Ok(value) if resolved => {
                remark(&format!("{key}={value}: expected {expected}; using the sized {sized} instead"));
                sized
            }
            _ => sized,
        };
        // Writing into a string can't fail.
        let _ = writeln!(text, "{key}={value}");
    }
    Ok(text)
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("--write={}: expected the path of a file", path.display()));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    write::replace(dir, name, text).map_err(|error| error.to_string())
}

/// What PyPNM's `int()` takes, less what would start no worker.
fn is_count(value: &str) -> bool {
    decimal::<u32>(value).is_some_and(|n| n >= 1)
}

fn is_limit(value: &str) -> bool {
    decimal::<u32>(value).is_some()
}

/// Digits with at most one point between them: what bash, systemd and PyPNM's `float()` read alike.
fn is_gib(value: &str) -> bool {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    decimal::<u64>(whole).is_some() && decimal::<u64>(fraction).is_some()
}
