//! The limits of one process: its own cgroup at every level in sight, and its affinity.
//!
//! They count where the process is the service already, or becomes it: `exec` in a container, the last look of
//! `ExecStartPre=`, `check` at a process that runs. Never for the generator or a shell, whose cgroup is another.
//! In a unit the affinity adds nothing: it is what PID 1 hands down or what `CPUAffinity=` says, and both count already.
//! Where the kernel shows what the unit files or PID 1's cgroup say as well, that counts once more, which changes nothing.

use crate::limits::{Limit, Scope, cgroup, host};
use crate::problem::Problem;
use crate::root::Root;

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The one that asks, in a container without systemd.
    Own,
    /// The one that asks, in a unit: its cgroup only.
    InUnit,
    /// The cgroup of another one in a unit, by its PID.
    Pid(u32),
    /// The cgroup and the affinity of another one, in no unit, by its PID.
    OutsideUnits(u32),
}

impl Process {
    /// Its directory in /proc (proc(5)).
    fn directory(self) -> String {
        match self {
            Self::Own | Self::InUnit => "/proc/self".to_owned(),
            Self::Pid(pid) | Self::OutsideUnits(pid) => format!("/proc/{pid}"),
        }
    }
}

/// Reads the limits of `process` below `root`. A file that is not there grants everything (an image has no /proc); one
/// that can't be read grants the least, with a problem.
pub fn read(root: &Root, process: Process, problems: &mut Vec<Problem>) -> Vec<Limit> {
    let directory = process.directory();
    let mut limits = cgroup::read_process(root, &format!("{directory}/cgroup"), problems);
    if matches!(process, Process::Own | Process::OutsideUnits(_)) {
        limits.extend(host::affinity(root, &format!("{directory}/status"), Scope::Process, problems));
    }
    limits
}
