//! `exec`: sizes PyPNM to what this process may use, and executes the command in its place. For containers, where no generator
//! runs and limits are visible only in the process's own cgroup.
//!
//! Reads the limits, decides ([`environment`]), provides a profile file, prints a line, and calls execvp(3). The command is
//! always executed: if anything fails before, PyPNM is started without its numbers.

mod environment;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use pypnm_sizing::command::Program;
use pypnm_sizing::limits::process::LimitedProcess;
use pypnm_sizing::names::RUNTIME_DIRECTORY;
use pypnm_sizing::names::{LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use pypnm_sizing::parse::quantity::{Cpus, Gib, in_cpus};
use pypnm_sizing::pypnm::{ENV_FILE, LIMIT_MAX_REQUESTS, Numbers, WORKERS, integer};
use pypnm_sizing::reasons;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::write::Directory;
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

use crate::cli::Exec;
use crate::output::remark;
use crate::service::exec_profile;
use crate::service::launch::Launch;
use crate::wording;
use environment::{Decision, Number, OperatorFile, SizedValues, decide, variables};

/// Exit statuses as those of env(1), nohup(1) and timeout(1): failure of the program itself, a command that cannot be
/// executed, a command that was not found.
pub(crate) const OWN_FAILURE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The profile's file name in [`RUNTIME_DIRECTORY`].
const PROFILE: &str = "pypnm.env";

pub(crate) fn run(root: &Root, arguments: &Exec) -> ExitCode {
    let Some((program, rest)) = arguments.command.split_first() else {
        return ExitCode::from(OWN_FAILURE);
    };
    let sizing = size(&Request {
        extra_unit: arguments.unit.as_deref(),
        process: Some(LimitedProcess::Own),
        ..Request::new(root)
    });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let mut command = Command::new(program);
    command.args(rest);
    match wording::requested(&sizing, arguments.unit.as_deref()) {
        Some(unit) => hand_over(&mut command, unit, &arguments.command),
        None => remark(&format!("{}: the command is started unchanged", not_sized(&sizing, arguments))),
    }

    // This returns only on failure. The action for SIGPIPE, which Rust changes at startup, is reset to the default.
    let error = command.exec();
    remark(&format!("{}: {error}", Path::new(program).display()));
    let status = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    ExitCode::from(status)
}

/// Why the unit is not sized.
fn not_sized(sizing: &Sizing, arguments: &Exec) -> String {
    let unit = arguments.unit.clone().or_else(|| sizing.config.units().into_iter().next());
    wording::not_sized(sizing, &unit.unwrap_or_default()).unwrap_or_else(|| "nothing to size".to_owned())
}

/// Sets the environment of the command, provides its profile file, and reports both.
fn hand_over(command: &mut Command, unit: &SizedUnit, words: &[OsString]) {
    let set: BTreeMap<&'static str, String> = variables()
        .filter_map(|key| Some((key, std::env::var_os(key)?.to_string_lossy().into_owned())))
        .collect();
    let sized = SizedValues {
        cpu_count: unit.capacity.whole_cpus().to_string(),
        total_memory_gib: Gib(unit.capacity.memory.amount).to_string(),
        workers: unit.profile.workers,
        limit_max_requests: unit.profile.limit_max_requests,
    };
    let configured = std::env::var_os(ENV_FILE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let name = configured.as_deref().unwrap_or(Path::new("")).to_string_lossy();
    let (text, writable) = match configured.as_deref().map(operators_file) {
        Some(Ok(Some(text))) => (Some(text), None),
        Some(Ok(None)) => (None, configured.as_deref()),
        Some(Err(why)) => {
            not_used(Path::new(&*name), &why);
            (None, None)
        }
        None => (None, None),
    };
    let file = text.as_deref().map(|text| OperatorFile { path: &name, text });
    let decision = decide(&set, file.as_ref(), &sized);
    decision.problems.iter().for_each(|problem| remark(problem));

    for (key, value) in &decision.changes {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let outcome = match &decision.profile {
        None => format!("profile in {name}"),
        Some(profile) => {
            let numbers = [WORKERS, LIMIT_MAX_REQUESTS].into_iter().zip(&decision.serve);
            let by_hand = numbers.filter_map(|(key, number)| Some((key, number.set_by.as_deref()?)));
            match written(writable, &exec_profile::text(profile, by_hand)) {
                Ok(path) => {
                    let outcome = format!("profile in {}", path.display());
                    command.env(ENV_FILE, path);
                    outcome
                }
                Err(error) => {
                    format!("no profile file ({error:#}), so 'pypnm serve' falls back to its own sizing")
                }
            }
        }
    };
    remark(&line(unit, &decision, words, &outcome));
}

/// The text of the operator's file at the path in `PYPNM_SERVE_ENV_FILE`, relative to the working directory as for PyPNM.
/// `None`: there is no file, or it is from an earlier start, so that it can be written. `Err`: why it is left unchanged.
fn operators_file(path: &Path) -> anyhow::Result<Option<String>> {
    // Only a regular file is opened: opening a device or a FIFO may have side effects.
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        bail!("it is not a regular file");
    }
    match Root::machine().text(path.to_str().context("its name is not UTF-8")?) {
        Ok(text) => Ok(Some(text).filter(|text| !exec_profile::is_ours(text))),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn not_used(path: &Path, why: &impl Display) {
    remark(&format!("{ENV_FILE}={}: {why}; another file is used", path.display()));
}

/// Writes the profile to the operator's file, to the runtime directory, or to memory. Returns its path.
fn written(configured: Option<&Path>, text: &str) -> anyhow::Result<PathBuf> {
    let default = Path::new(RUNTIME_DIRECTORY).join(PROFILE);
    for path in configured.into_iter().chain([default.as_path()]) {
        match Directory::create_for(path).and_then(|(directory, name)| directory.replace(name, text)) {
            Ok(()) => return Ok(path.to_owned()),
            Err(error) if configured == Some(path) => not_used(path, &error),
            Err(_) => {}
        }
    }
    let file = in_memory(text).context("memfd_create")?;
    // The descriptor stays open in the command. The process ID remains the same, so that workers can read the file by the same
    // path; /proc/self would be a different process in each of them.
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    if !path.exists() {
        bail!("nothing is writable, and there is no /proc");
    }
    let _stays_open = file.into_raw_fd();
    Ok(path)
}

/// A sealed file in memory, which anybody can read and nobody can change.
fn in_memory(text: &str) -> std::io::Result<File> {
    // No close-on-exec. With vm.memfd_noexec, the file must not be executable; kernels before 6.3 do not support that flag.
    let plain = MemfdFlags::ALLOW_SEALING;
    let file = match rustix::fs::memfd_create(PROFILE, plain | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(PROFILE, plain),
        other => other,
    };
    let mut file = File::from(file?);
    file.write_all(text.as_bytes())?;
    // The service may run as another user, who opens the file by its path in /proc.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o444))?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// The message: the numbers, the reasons, the file, and what happens when a single worker reaches its limit.
fn line(unit: &SizedUnit, decision: &Decision, words: &[OsString], outcome: &str) -> String {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let launch = Launch::from_arguments(&words);
    let numbers = if launch.program() == Program::Uvicorn { &decision.uvicorn } else { &decision.serve };
    let [workers, limit] = numbers.clone();
    // Flags of the command take precedence.
    let workers = flag(&launch, WORKERS_FLAG).unwrap_or(workers);
    let limit = flag(&launch, LIMIT_MAX_REQUESTS_FLAG).unwrap_or(limit);

    let mut reasons = Vec::new();
    match &workers.set_by {
        Some(set_by) => reasons.push(format!("workers set by {set_by}")),
        None => reasons.push(reasons::workers_reason(unit)),
    }
    if let Some(set_by) = &limit.set_by {
        reasons.push(format!("limit set by {set_by}"));
    }
    if workers.set_by.is_none() {
        let (cpus, memory) = (in_cpus(Cpus(unit.capacity.cpu.amount)), Gib(unit.capacity.memory.amount));
        reasons.push(format!("{cpus} by {}", reasons::cpu_reason(unit)));
        reasons.push(format!("{memory} GiB by {}", reasons::memory_reason(unit)));
    }
    let end = if workers.value <= 1 && limit.value > 0 {
        let requests = limit.value;
        format!(
            "; the service ends with status 0 after {requests} requests, so it needs 'restart: always' or \
             'unless-stopped'"
        )
    } else {
        String::new()
    };
    let numbers = Numbers { workers: workers.value, limit_max_requests: limit.value };
    format!("{} ({}); {outcome}{end}", wording::profile(numbers), reasons.join("; "))
}

/// The value of a flag on the command line.
fn flag(launch: &Launch<'_>, name: &str) -> Option<Number> {
    let value = launch.flag(name).and_then(integer)?;
    Some(Number { value, set_by: Some(name.to_owned()) })
}
