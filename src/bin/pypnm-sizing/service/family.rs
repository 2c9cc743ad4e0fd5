//! The processes of a service: its main process, all descendants of it, and the other processes of its unit.
//!
//! Owns which processes belong to the service, and how the dead among them ended.

use std::collections::BTreeMap;

use pypnm_sizing::root::{ReadError, Root};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, test_kill_process};

use super::process;

/// More processes than this are no PyPNM.
const MOST: usize = 4096;

/// A service, as the processes that it consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// The main process of a unit of systemd: its cgroup belongs to the service as a whole.
    Unit(u32),
    /// A process that somebody started: its cgroup may hold anything else of that session.
    Tree(u32),
}

impl Service {
    pub(crate) fn main(self) -> u32 {
        match self {
            Self::Unit(pid) | Self::Tree(pid) => pid,
        }
    }
}

/// Whether a process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Running,
    /// It exists, and /proc does not show it to the caller (`hidepid=` in proc(5), `ProtectProc=` in systemd.exec(5)).
    Hidden,
    Ended,
}

/// Whether a process is there; a zombie has ended.
pub(crate) fn presence(machine: &Root, pid: u32) -> Presence {
    if let Some(stat) = Stat::of(machine, pid) {
        return if stat.has_ended() { Presence::Ended } else { Presence::Running };
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(test_kill_process) {
        Some(Ok(()) | Err(Errno::PERM)) => Presence::Hidden,
        _ => Presence::Ended,
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    pub(crate) parent: u32,
    /// Of a process that has ended and is not yet reaped: its status as wait(2) returns it. 0 where the caller may not
    /// know.
    exit: i32,
}

impl Stat {
    fn of(machine: &Root, pid: u32) -> Option<Self> {
        machine.with_bytes(&format!("/proc/{pid}/stat"), Self::parse).ok().flatten()
    }

    /// The name in the second field may hold anything, so the fields are counted from its end.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(bytes.get(end + 1..)?).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let exit = fields.nth(47).and_then(|field| field.parse().ok()).unwrap_or(0);
        Some(Self { state, parent, exit })
    }

    pub(crate) fn has_ended(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it ended because it failed: with a status of its own other than 0, or of a signal that says so. SIGKILL
    /// and SIGTERM come from others: the kernel when memory is short, or uvicorn's parent, which kills a worker that does
    /// not respond for 5 s, as on an overloaded machine.
    pub(crate) fn has_failed(self) -> bool {
        let signal = self.exit & 0x7f;
        let sent_by_others = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
        self.has_ended() && self.exit != 0 && sent_by_others.iter().all(|other| signal != other.as_raw())
    }
}

/// The processes of a service, zombies too.
pub(crate) fn processes(machine: &Root, service: Service) -> BTreeMap<u32, Stat> {
    let mut family = BTreeMap::new();
    let mut waiting = vec![service.main()];
    if let Service::Unit(main) = service {
        waiting.extend(of_unit(machine, main));
    }
    let own = std::process::id();
    while let Some(pid) = waiting.pop() {
        if family.len() >= MOST {
            break;
        }
        if pid != own
            && !family.contains_key(&pid)
            && let Some(stat) = Stat::of(machine, pid)
        {
            family.insert(pid, stat);
            waiting.extend(children(machine, pid));
        }
    }
    family
}

/// The processes of the unit that a process is in; none where its cgroup is no unit's.
fn of_unit(machine: &Root, pid: u32) -> Vec<u32> {
    let Ok(text) = machine.text(&format!("/proc/{pid}/cgroup")) else {
        return Vec::new();
    };
    let mut paths = text.lines().filter_map(|line| {
        let (_, hierarchy) = line.split_once(':')?;
        let (controllers, path) = hierarchy.split_once(':')?;
        (matches!(controllers, "" | "name=systemd") && path.ends_with(".service")).then_some(path)
    });
    paths.next().map(|path| process::pids_of_cgroup(machine, path)).unwrap_or_default()
}

/// The children of a process: those of all of its threads.
fn children(machine: &Root, pid: u32) -> Vec<u32> {
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

/// The children of a process, found by a look at every process.
fn children_by_parent(machine: &Root, parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| Stat::of(machine, *pid).is_some_and(|stat| stat.parent == parent);
    everybody(machine).into_iter().filter(is_child).collect()
}

/// All processes that /proc shows.
pub(crate) fn everybody(machine: &Root) -> Vec<u32> {
    let entries = machine.entries("/proc").unwrap_or_default();
    entries.iter().filter_map(|entry| entry.name.parse().ok()).collect()
}

/// The processes that led to this one: its parent, and so on up to PID 1.
pub(crate) fn ancestors(machine: &Root, pid: u32) -> Vec<u32> {
    let mut ancestors = Vec::new();
    let mut next = Stat::of(machine, pid);
    while let Some(Stat { parent, .. }) = next
        && parent != 0
        && ancestors.len() < MOST
    {
        ancestors.push(parent);
        next = Stat::of(machine, parent);
    }
    ancestors
}

/// The effective user of a process. `None`: it is gone or hidden.
pub(crate) fn user(machine: &Root, pid: u32) -> Option<u32> {
    let text = machine.bytes(&format!("/proc/{pid}/status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name of a process (`comm` in proc(5)), without control characters.
pub(crate) fn name(machine: &Root, pid: u32) -> Option<String> {
    let bytes = machine.bytes(&format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(bytes.trim_ascii_end()).escape_debug().to_string())
}

/// The words of a process's command line; a zombie has none.
pub(crate) fn command_line(machine: &Root, pid: u32) -> Vec<String> {
    let bytes = machine.bytes(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::Stat;

    fn stat(name: &str, state: char, exit: i32) -> Option<Stat> {
        let zeros = "0 ".repeat(47);
        Stat::parse(format!("12 ({name}) {state} 7 {zeros}{exit}\n").as_bytes())
    }

    #[test]
    fn a_process_whatever_its_name() {
        for name in ["python3", "a) R 1 2 3", ") S (", "", "\u{1b}[2J"] {
            assert_eq!(stat(name, 'S', 0), Some(Stat { state: b'S', parent: 7, exit: 0 }), "{name}");
        }
        for wrong in ["", ")", "12 (python3)", "12 (python3) S", "12 (python3) S x"] {
            assert_eq!(Stat::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Stat::parse(b"12 (python3) S 7"), Some(Stat { state: b'S', parent: 7, exit: 0 }));
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
