//! The limits of a process: its own cgroup at every visible level, and its affinity.
//!
//! They apply if the process is the service, or will execute it: `exec` in a container, `env` in `ExecStartPre=`, and
//! `check` and `watch` of a running process. They are never used by the generator or for a shell, which run in other
//! cgroups. In a unit, the affinity adds nothing: it is inherited from PID 1 or set by `CPUAffinity=`, and both are taken
//! into account already. Limits that are also in the unit files or in PID 1's cgroup occur twice, which does not change the
//! minimum.

use crate::limits::cgroup::Hierarchy;
use crate::limits::{Limit, Scope, cgroup, host};
use crate::problem::Problem;
use crate::root::Root;

/// The process whose limits are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedProcess {
    /// This process, in a container without systemd.
    Own,
    /// This process, in a unit: only its cgroup.
    InUnit,
    /// Another process in a unit, by its PID: only its cgroup.
    Pid(u32),
    /// Another process that is not in a unit, by its PID: its cgroup and its affinity.
    OutsideUnits(u32),
}

impl LimitedProcess {
    /// Its directory in /proc (proc(5)).
    fn directory(self) -> String {
        match self {
            Self::Own | Self::InUnit => "/proc/self".to_owned(),
            Self::Pid(pid) | Self::OutsideUnits(pid) => format!("/proc/{pid}"),
        }
    }
}

/// Reads the limits of `process` below `root`. A missing file means that there is no limit (an image has no /proc). If a
/// file cannot be read, the limit is assumed to be minimal, with a problem.
pub fn read(root: &Root, process: LimitedProcess, problems: &mut Vec<Problem>) -> Vec<Limit> {
    let directory = process.directory();
    let mut limits = cgroup::read_process(root, &format!("{directory}/cgroup"), problems);
    if matches!(process, LimitedProcess::Own | LimitedProcess::OutsideUnits(_)) {
        limits.extend(host::affinity(root, &format!("{directory}/status"), Scope::Process, problems));
    }
    limits
}

/// Finds the cgroup of `process` in the hierarchy of each of the controllers: the directories whose limits [`read`] returns,
/// and that contain its counters as well.
pub fn cgroups<const N: usize>(
    root: &Root,
    process: LimitedProcess,
    controllers: [&str; N],
) -> [Option<Hierarchy>; N] {
    cgroup::find_process(root, &format!("{}/cgroup", process.directory()), controllers)
}
