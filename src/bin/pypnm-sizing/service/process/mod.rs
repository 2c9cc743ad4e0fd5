//! The processes of the running machine. This is the only module that reads /proc/PID: their identity in this file, their
//! resource use in [`usage`], and their sockets in [`sockets`].
//!
//! Every read is bounded, is below a root, and distinguishes "gone" from "not permitted". sysinfo does not, so it is used only
//! for the measurements of `watch` on the running machine. What a process is, is determined in `pypnm_sizing::watch::role` and
//! `service::launch`.

pub(crate) mod sockets;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::ffi::CString;

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::role::Candidate;
use rustix::io::Errno;
use rustix::process::Signal;

/// Where systemd mounts its cgroups: version 2, hybrid, version 1.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// The maximum number of processes of a service.
pub(super) const MAX_PROCESSES: usize = 4096;
/// The maximum number of cgroups below a service's own that are read: a service without `Delegate=` has none, a container
/// engine creates some.
const MAX_LEVELS: u32 = 4;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its parent; 0: the kernel.
    pub(crate) parent: u32,
    /// Its arguments, the command first; bytes that are not UTF-8 are replaced. Empty for a kernel thread or a zombie.
    pub(crate) arguments: Vec<String>,
}

impl Process {
    /// The data that determines its role in a service.
    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate { pid: self.pid, parent: self.parent, arguments: &self.arguments }
    }

    /// Whether it looks like the main process of PyPNM.
    pub(crate) fn is_pypnm(&self) -> bool {
        let candidate = self.candidate();
        let names_pypnm = self.arguments.iter().any(|argument| argument.contains("pypnm"));
        names_pypnm && candidate.is_server() && !candidate.is_spawned()
    }
}

/// The content of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    pub(crate) parent: u32,
    /// When it started, in hundredths of a second since the boot (USER_HZ is 100 wherever systemd runs). Unlike a wall-clock
    /// time, it never changes.
    pub(crate) started: u64,
    /// For a process that has ended but has not been reaped: its status as returned by wait(2). 0 if the caller is not
    /// permitted to read it.
    exit: i32,
}

impl Stat {
    pub(crate) fn read(machine: &Root, pid: u32) -> Option<Self> {
        machine.with_bytes(&format!("/proc/{pid}/stat"), Self::parse).ok().flatten()
    }

    /// The name in the second field may contain any characters, so the fields are counted from its end.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(bytes.get(end + 1..)?).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let mut number = |nth| fields.nth(nth).and_then(|field| field.parse::<i64>().ok()).unwrap_or(0);
        let started = u64::try_from(number(17)).unwrap_or(0);
        let exit = i32::try_from(number(29)).unwrap_or(0);
        Some(Self { state, parent, started, exit })
    }

    pub(crate) fn has_ended(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it failed: it exited with a status other than 0, or was killed by a signal that indicates a fault. SIGKILL and
    /// SIGTERM come from elsewhere: from the kernel when memory is short, or from uvicorn's parent, which kills a worker that
    /// does not respond for 5 s, as may happen on an overloaded machine.
    pub(crate) fn has_failed(self) -> bool {
        let signal = self.exit & 0x7f;
        let sent_by_others = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
        self.has_ended() && self.exit != 0 && sent_by_others.iter().all(|other| signal != other.as_raw())
    }
}

/// The processes of `pids` that still exist, in the same order.
pub(crate) fn read(machine: &Root, pids: &[u32]) -> Vec<Process> {
    let process = |pid: &u32| {
        let stat = Stat::read(machine, *pid)?;
        Some(Process { pid: *pid, parent: stat.parent, arguments: arguments(machine, *pid) })
    };
    pids.iter().filter_map(process).collect()
}

/// The data that determines the roles of processes in a service.
pub(crate) fn candidates(processes: &[Process]) -> Vec<Candidate<'_>> {
    processes.iter().map(Process::candidate).collect()
}

/// Every process that the caller can see.
pub(crate) fn all(machine: &Root) -> Vec<Process> {
    read(machine, &all_pids(machine))
}

/// The PIDs in a unit's cgroup (systemd's `ControlGroup`) and in those below it. Empty: the unit is not running.
pub(crate) fn pids_of_cgroup(machine: &Root, cgroup: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    // The root cgroup contains all processes.
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
        let room = MAX_PROCESSES.saturating_sub(pids.len());
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    }
    if level < MAX_LEVELS
        && pids.len() < MAX_PROCESSES
        && let Ok(entries) = machine.entries(directory)
    {
        for entry in entries.iter().filter(|entry| !entry.name.contains('.') && !entry.link) {
            pids_below(machine, &format!("{directory}/{}", entry.name), level + 1, pids);
        }
    }
}

/// The PIDs of the unit that a process is in; none if its cgroup is not that of a unit.
pub(crate) fn pids_of_unit(machine: &Root, pid: u32) -> Vec<u32> {
    let path = cgroup(machine, pid).filter(|path| path.ends_with(".service"));
    path.map(|path| pids_of_cgroup(machine, &path)).unwrap_or_default()
}

/// The service that a process runs in: the last component of its cgroup's path that is a service, as in `systemctl status
/// PID`. `None`: it is in no service, or the cgroup is not visible.
pub(crate) fn unit_of(machine: &Root, pid: u32) -> Option<String> {
    let path = cgroup(machine, pid)?;
    path.rsplit('/').find(|step| step.ends_with(".service")).map(str::to_owned)
}

/// The manager of a user that a process belongs to, such as `user@1000.service`; its units have cgroups below its own.
pub(crate) fn user_manager_of(machine: &Root, pid: u32) -> Option<String> {
    let path = cgroup(machine, pid)?;
    let is_manager = |step: &&str| step.starts_with("user@") && step.ends_with(".service");
    path.split('/').find(is_manager).map(str::to_owned)
}

/// The cgroup of a process in systemd's hierarchy: that of version 2, or systemd's own of version 1.
fn cgroup(machine: &Root, pid: u32) -> Option<String> {
    let text = machine.text(&format!("/proc/{pid}/cgroup")).ok()?;
    let mut paths = text.lines().filter_map(|line| {
        let (_, hierarchy) = line.split_once(':')?;
        let (controllers, path) = hierarchy.split_once(':')?;
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    paths.find(|path| *path != "/").map(str::to_owned)
}

/// The children of all threads of a process.
pub(crate) fn children(machine: &Root, pid: u32) -> Vec<u32> {
    let Ok(threads) = machine.entries(&format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for thread in threads {
        match machine.text(&format!("/proc/{pid}/task/{}/children", thread.name)) {
            Ok(text) => {
                children.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            }
            // A kernel without CONFIG_PROC_CHILDREN.
            Err(ReadError::Missing)
                if machine.has_directory(&format!("/proc/{pid}/task/{}", thread.name)) =>
            {
                return children_by_parent(machine, pid);
            }
            // The thread has ended.
            Err(_) => {}
        }
    }
    children
}

/// The children of a process, found by examining every process.
fn children_by_parent(machine: &Root, parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| Stat::read(machine, *pid).is_some_and(|stat| stat.parent == parent);
    all_pids(machine).into_iter().filter(is_child).collect()
}

/// The PIDs that /proc shows.
pub(crate) fn all_pids(machine: &Root) -> Vec<u32> {
    let entries = machine.entries("/proc").unwrap_or_default();
    entries.iter().filter_map(|entry| entry.name.parse().ok()).collect()
}

/// The value of a field of `/proc/PID/status`. The name of the process may not be UTF-8.
fn status(machine: &Root, pid: u32, field: &str) -> Option<String> {
    let bytes = machine.bytes(&format!("/proc/{pid}/status")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.filter(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned()).next()
}

/// The effective user of a process. `None`: it is gone or hidden.
pub(crate) fn user(machine: &Root, pid: u32) -> Option<u32> {
    status(machine, pid, "Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The effective group of a process, likewise.
pub(crate) fn group(machine: &Root, pid: u32) -> Option<u32> {
    status(machine, pid, "Gid")?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The PIDs of a process in the caller's namespace and in each nested one, down to its own (`NSpid` in proc_pid_status(5)).
pub(crate) fn namespace_pids(machine: &Root, pid: u32) -> Vec<u32> {
    let pids = status(machine, pid, "NSpid").unwrap_or_default();
    pids.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The namespace of a process (`self`: this one), as a name to compare. `kind`: its file in `/proc/PID/ns`.
pub(crate) fn namespace(pid: &str, kind: &str) -> Result<CString, Errno> {
    rustix::fs::readlink(format!("/proc/{pid}/ns/{kind}"), Vec::new())
}

/// The name of a process (`comm` in proc(5)), without control characters.
pub(crate) fn name(machine: &Root, pid: u32) -> Option<String> {
    let bytes = machine.bytes(&format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(bytes.trim_ascii_end()).escape_debug().to_string())
}

/// The arguments of a process, the command first; bytes that are not UTF-8 are replaced. Zombies and kernel threads have
/// none.
pub(crate) fn arguments(machine: &Root, pid: u32) -> Vec<String> {
    let bytes = machine.bytes(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The environment that a process was started with. `None`: the caller is not permitted to read it, or the process is
/// gone.
pub(crate) fn environment(machine: &Root, pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = machine.bytes(&format!("/proc/{pid}/environ")).ok()?;
    let variables = bytes.split(|byte| *byte == 0).filter_map(|variable| {
        let text = String::from_utf8_lossy(variable);
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    Some(variables.collect())
}

/// The text of a file whose name is from a process. The user of the service chose that name, so root must be careful:
/// [`Root`] reads only regular files that the kernel does not provide, and checks that before it opens one.
pub(crate) fn text_of_file(machine: &Root, path: &str) -> Result<String, ReadError> {
    if path.starts_with('/') { machine.foreign_text(path) } else { Err(ReadError::Missing) }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    fn stat(name: &str, state: char, exit: i32) -> Option<Stat> {
        let (before, after) = ("0 ".repeat(17), "0 ".repeat(29));
        Stat::parse(format!("12 ({name}) {state} 7 {before}61834 {after}{exit}\n").as_bytes())
    }

    #[test]
    fn process_names_with_special_characters() {
        for name in ["python3", "a) R 1 2 3", ") S (", "", "\u{1b}[2J"] {
            assert_eq!(
                stat(name, 'S', 0),
                Some(Stat { state: b'S', parent: 7, started: 61_834, exit: 0 }),
                "{name}"
            );
        }
        for wrong in ["", ")", "12 (python3)", "12 (python3) S", "12 (python3) S x"] {
            assert_eq!(Stat::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(
            Stat::parse(b"12 (python3) S 7"),
            Some(Stat { state: b'S', parent: 7, started: 0, exit: 0 })
        );
    }

    #[test]
    fn a_recorded_process() {
        let line =
            b"3197 (bash) S 3196 3197 3196 0 -1 4194304 9523 6052 0 0 61 13 2 1 20 0 1 0 61834 8052736 441 \
            18446744073709551615 1 1 0 0 0 0 65536 3686404 1266761467 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(Stat::parse(line), Some(Stat { state: b'S', parent: 3196, started: 61_834, exit: 0 }));
    }

    #[test]
    fn how_a_process_ended() {
        let failed = |state, exit| stat("python3", state, exit).is_some_and(Stat::has_failed);
        assert!(failed('Z', 1 << 8), "status 1");
        assert!(failed('Z', 11) && failed('Z', 31 | 0x80), "SIGSEGV; SIGSYS with a core dump");
        assert!(!failed('Z', 0), "status 0, or not for the caller to know");
        assert!(!failed('Z', 9) && !failed('Z', 15), "killed by somebody else");
        assert!(!failed('S', 1 << 8), "it runs");
    }
}
