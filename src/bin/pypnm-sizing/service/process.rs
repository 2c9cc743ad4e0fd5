//! The processes of the running machine, from /proc/PID. `family` reads which of them belong together and how they ended,
//! `sockets` what they hold.
//!
//! sysinfo reads parents and arguments; what it does not tell apart (an environment that is empty from one that may not
//! be read) is read through [`Root`], which bounds every read. Owns no opinion on what a process is: see
//! `pypnm_sizing::watch::role` and `service::launch`.

use std::collections::BTreeMap;

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::role::Candidate;
use rustix::fs::{FileType, Mode, OFlags};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// Where systemd keeps its cgroups: version 2, hybrid, version 1 (systemd fixes these places).
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// More processes than this are no PyPNM.
const MOST_PROCESSES: usize = 4096;
/// Cgroups below a service's own that are looked into: a service without `Delegate=` has none, an engine may make some.
const MOST_LEVELS: u32 = 4;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its parent; 0: none that can be seen.
    pub(crate) parent: u32,
    /// Its arguments, the command first; bytes that are not UTF-8 are replaced. Empty for a kernel thread or a zombie.
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// What tells its role in a service.
    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate { pid: self.pid, parent: self.parent, arguments: &self.arguments }
    }
}

/// The processes of `pids` that are still there, in their order.
pub(crate) fn of_pids(pids: &[u32]) -> Vec<Process> {
    let known: Vec<Pid> = pids.iter().map(|pid| Pid::from_u32(*pid)).collect();
    let Some(system) = refreshed(ProcessesToUpdate::Some(&known)) else {
        return Vec::new();
    };
    known.iter().filter_map(|pid| system.process(*pid)).map(process).collect()
}

/// Every process that the caller can see, in the order of their pids.
pub(crate) fn all() -> Vec<Process> {
    let Some(system) = refreshed(ProcessesToUpdate::All) else {
        return Vec::new();
    };
    let mut processes: Vec<Process> = system.processes().values().map(process).collect();
    processes.sort_unstable_by_key(|process| process.pid);
    processes
}

/// `None`: this machine has no /proc that sysinfo can read.
fn refreshed(which: ProcessesToUpdate<'_>) -> Option<System> {
    let mut system = System::new().ok()?;
    let what = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks();
    system.refresh_processes_specifics(which, true, what);
    Some(system)
}

fn process(process: &sysinfo::Process) -> Process {
    Process {
        pid: process.pid().as_u32(),
        parent: process.parent().map_or(0, Pid::as_u32),
        arguments: process.cmd().iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
    }
}

/// The pids of a unit's cgroup (`ControlGroup=` of systemd) and of those below it. Empty: it is down.
pub(crate) fn pids_of_cgroup(machine: &Root, cgroup: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    // The root cgroup is everybody's.
    if cgroup.len() > 1 {
        for hierarchy in HIERARCHIES {
            if pids.is_empty() {
                pids_below(machine, &format!("{hierarchy}{cgroup}"), 0, &mut pids);
            }
        }
    }
    pids
}

fn pids_below(machine: &Root, directory: &str, level: u32, pids: &mut Vec<u32>) {
    if let Ok(text) = machine.text(&format!("{directory}/cgroup.procs")) {
        let room = MOST_PROCESSES.saturating_sub(pids.len());
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    }
    if level < MOST_LEVELS
        && pids.len() < MOST_PROCESSES
        && let Ok(entries) = machine.entries(directory)
    {
        for entry in entries.iter().filter(|entry| !entry.name.contains('.') && !entry.link) {
            pids_below(machine, &format!("{directory}/{}", entry.name), level + 1, pids);
        }
    }
}

/// The unit of systemd's that a process runs in, from its cgroup: the last step of the path that is a service, as
/// `systemctl status PID` finds it. `None`: in none, or it can't be seen.
pub(crate) fn unit_of(machine: &Root, pid: u32) -> Option<String> {
    let text = machine.text(&format!("/proc/{pid}/cgroup")).ok()?;
    let of_systemd = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
    let path = text.lines().find(of_systemd)?.rsplit_once(':')?.1;
    path.rsplit('/').find(|step| step.ends_with(".service")).map(str::to_owned)
}

/// The environment that a process was started with. `None`: the caller may not know it, or the process is gone.
pub(crate) fn environment(machine: &Root, pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = machine.bytes(&format!("/proc/{pid}/environ")).ok()?;
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let text = String::from_utf8_lossy(variable);
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    Some(variables.collect())
}

/// The text of a file whose name came from a process. Whoever runs the service chose that name, and root must not open
/// what they put there: what it is shows through a descriptor that reads nothing (`O_PATH`), and a FIFO, a device or a
/// socket is left alone.
pub(crate) fn text_of_file(machine: &Root, path: &str) -> Result<String, ReadError> {
    regular(path)?;
    machine.text(path)
}

fn regular(path: &str) -> Result<(), ReadError> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(ReadError::Directory),
        _ => Err(ReadError::NotText),
    }
}
