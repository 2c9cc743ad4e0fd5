//! The resource use of processes: resident memory and CPU time, from sysinfo, and PSS, USS and the peak, which sysinfo does
//! not provide. The evaluation of these figures is in the library.

use std::collections::BTreeMap;

use anyhow::anyhow;
use pypnm_sizing::parse::quantity::{kibibytes, kibibytes_of};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::meter::Shares;
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::{Process, Stat, status};

/// Measures processes, one time after another.
pub(crate) struct UsageMeter {
    system: System,
}

/// A process that has not ended, and its resource use.
pub(crate) struct Usage {
    pub(crate) process: Process,
    /// When it started, as in [`Stat`]. sysinfo provides whole seconds, which are too coarse to identify a process, and for a
    /// worker that dies early.
    pub(crate) started: u64,
    /// Resident memory, in bytes.
    pub(crate) rss: u64,
    /// CPU time since it started, in milliseconds.
    pub(crate) cpu_ms: u64,
}

impl UsageMeter {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let system = System::new().map_err(|error| anyhow!("cannot read processes: {error:?}"))?;
        Ok(Self { system })
    }

    /// Measures these processes, except those that have ended.
    pub(crate) fn read(&mut self, processes: &BTreeMap<u32, Stat>) -> Vec<Usage> {
        let what = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            // Every time: a wrapper's shell becomes PyPNM by exec.
            .with_cmd(UpdateKind::Always)
            .without_tasks();
        // Processes that have ended must be removed from sysinfo's list too.
        let known = self.system.processes().keys().copied();
        let mut asked: Vec<Pid> = known.filter(|pid| !processes.contains_key(&pid.as_u32())).collect();
        asked.extend(processes.keys().copied().map(Pid::from_u32));
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&asked), true, what);
        let usage = |(pid, stat): (&u32, &Stat)| {
            let process = self.system.process(Pid::from_u32(*pid))?;
            let has_ended = matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead);
            let words = process.cmd().iter().map(|word| word.to_string_lossy().into_owned());
            (!has_ended).then(|| Usage {
                process: Process { pid: *pid, parent: stat.parent, arguments: words.collect() },
                started: stat.started,
                rss: process.memory(),
                cpu_ms: process.accumulated_cpu_time(),
            })
        };
        processes.iter().filter_map(usage).collect()
    }
}

/// The proportional and the unique share of memory of a process, in bytes (`smaps_rollup` in proc_pid_smaps(5)).
pub(crate) fn shares(machine: &Root, pid: u32) -> Result<Shares, ReadError> {
    let text = machine.text(&format!("/proc/{pid}/smaps_rollup"))?;
    let field = |key| kibibytes_of(&text, key).ok_or(ReadError::Missing);
    Ok(Shares { pss: field("Pss")?, uss: field("Private_Clean")?.saturating_add(field("Private_Dirty")?) })
}

/// The peak resident memory of a process, in bytes. `None`: unknown.
pub(crate) fn peak(machine: &Root, pid: u32) -> Option<u64> {
    kibibytes(&status(machine, pid, "VmHWM")?)
}
