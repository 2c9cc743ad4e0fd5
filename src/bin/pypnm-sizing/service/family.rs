//! The processes of a service: its main process, all descendants of it, and the other processes of its unit.
//!
//! Determines which processes belong to the service, and how those that have ended did so.

use std::collections::BTreeMap;

use pypnm_sizing::root::Root;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::process::{self, MAX_PROCESSES, Stat};

/// A service, identified by its main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// The main process of a unit of systemd: its cgroup belongs to the service as a whole.
    Unit(u32),
    /// A process that was started by hand: its cgroup may contain other processes of that session.
    Tree(u32),
}

impl Service {
    pub(crate) fn main(self) -> u32 {
        match self {
            Self::Unit(pid) | Self::Tree(pid) => pid,
        }
    }
}

/// Whether a process exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Running,
    /// It exists, and /proc does not show it to the caller (`hidepid=` in proc(5), `ProtectProc=` in systemd.exec(5)).
    Hidden,
    Ended,
}

/// Whether a process exists. A zombie has ended.
pub(crate) fn presence(machine: &Root, pid: u32) -> Presence {
    if let Some(stat) = Stat::read(machine, pid) {
        return if stat.has_ended() { Presence::Ended } else { Presence::Running };
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match pid.map(test_kill_process) {
        Some(Ok(()) | Err(Errno::PERM)) => Presence::Hidden,
        _ => Presence::Ended,
    }
}

/// The processes of a service, including zombies.
pub(crate) fn processes(machine: &Root, service: Service) -> BTreeMap<u32, Stat> {
    let mut family = BTreeMap::new();
    let mut waiting = vec![service.main()];
    if let Service::Unit(main) = service {
        waiting.extend(process::pids_of_unit(machine, main));
    }
    let own = std::process::id();
    while let Some(pid) = waiting.pop() {
        if family.len() >= MAX_PROCESSES {
            break;
        }
        if pid != own
            && !family.contains_key(&pid)
            && let Some(stat) = Stat::read(machine, pid)
        {
            family.insert(pid, stat);
            waiting.extend(process::children(machine, pid));
        }
    }
    family
}

/// The ancestors of a process, up to PID 1.
pub(crate) fn ancestors(machine: &Root, pid: u32) -> Vec<u32> {
    let mut ancestors = Vec::new();
    let mut next = Stat::read(machine, pid);
    while let Some(Stat { parent, .. }) = next
        && parent != 0
        && ancestors.len() < MAX_PROCESSES
    {
        ancestors.push(parent);
        next = Stat::read(machine, parent);
    }
    ancestors
}
