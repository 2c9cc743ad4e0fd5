//! Reads one sample. Everything may vanish between two reads: what is gone is left out of the sample.
//!
//! Adding up page tables for smaps_rollup takes the kernel milliseconds a worker, so shares are read only as often as
//! keeps that below a fixed part of one CPU, whatever the machine and the number of workers.

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::ledger::{Process, Sample, Shares};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::role::{Candidate, Role, flag, roles};
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::cost::Cost;
use super::find::{Target, arguments, main_of, processes};

/// The part of one CPU that reading shares may take.
const SHARES_BUDGET: f64 = 0.004;

/// Reads samples, one after another.
pub(super) struct Reader {
    machine: Root,
    system: System,
    next_shares: f64,
    /// Why shares could not be read of some worker.
    pub(super) no_shares: Option<ReadError>,
    /// The recycle limit of the running service, where that is known.
    pub(super) limit_max_requests: Option<u32>,
    /// The process for which that was found out.
    main: Option<u32>,
    /// The directory of the service's cgroup.
    cgroup: Option<String>,
}

impl Reader {
    pub(super) fn new() -> Result<Self, String> {
        Ok(Self {
            machine: Root::machine(),
            system: processes()?,
            next_shares: 0.0,
            no_shares: None,
            limit_max_requests: None,
            main: None,
            cgroup: None,
        })
    }

    /// The sample of this moment, `at` seconds after the first. `None`: what was watched is gone for good.
    pub(super) fn sample(&mut self, target: &mut Target, at: f64) -> Option<Sample> {
        let pids: Vec<Pid> = target.pids(&self.machine)?.into_iter().map(Pid::from_u32).collect();
        let what = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            // Always: a wrapper's shell becomes PyPNM by exec.
            .with_cmd(UpdateKind::Always)
            .without_tasks();
        // Those that were watched before and are gone must go from sysinfo's list too.
        let known: Vec<Pid> = self.system.processes().keys().copied().collect();
        let asked: Vec<Pid> =
            pids.iter().copied().chain(known.into_iter().filter(|pid| !pids.contains(pid))).collect();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&asked), true, what);

        let alive: Vec<&sysinfo::Process> = pids
            .iter()
            .filter_map(|pid| self.system.process(*pid))
            .filter(|process| !matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead))
            .collect();
        let told: Vec<(u32, u32, Vec<String>)> = alive
            .iter()
            .map(|p| (p.pid().as_u32(), p.parent().map_or(0, Pid::as_u32), arguments(p)))
            .collect();
        let candidates: Vec<Candidate<'_>> = told
            .iter()
            .map(|(pid, parent, arguments)| Candidate { pid: *pid, parent: *parent, arguments })
            .collect();
        let roles = roles(&candidates);

        let with_shares = at >= self.next_shares;
        let mut cost = Cost::default();
        let mut no_shares = None;
        let mut processes = Vec::with_capacity(alive.len());
        for (process, role) in alive.iter().zip(roles) {
            let pid = process.pid().as_u32();
            let shares = with_shares.then(|| cost.of(|| shares(&self.machine, pid)));
            if role == Role::Worker
                && let Some(Err(error)) = &shares
                && *error != ReadError::Missing
            {
                no_shares = Some(*error);
            }
            processes.push(Process {
                pid,
                started: process.start_time(),
                role,
                age: number(process.run_time()),
                rss: process.memory(),
                shares: shares.and_then(Result::ok),
                peak: if role == Role::Worker { peak(&self.machine, pid) } else { None },
                cpu_ms: process.accumulated_cpu_time(),
            });
        }
        if with_shares {
            self.no_shares = no_shares;
            self.next_shares = at + cost.seconds() / SHARES_BUDGET;
        }
        let main = main_of(&told);
        if main != self.main {
            self.main = main;
            self.cgroup = main.and_then(|pid| cgroup_of(&self.machine, pid));
            let arguments =
                told.iter().find(|(pid, _, _)| Some(*pid) == main).map(|(_, _, arguments)| arguments);
            self.limit_max_requests = match (main, arguments) {
                (Some(pid), Some(arguments)) => limit_in_effect(&self.machine, pid, arguments),
                _ => None,
            };
        }
        let mut sample = Sample {
            at,
            processes,
            host_idle_ms: host_idle(&self.machine),
            automatic_restarts: target.automatic_restarts(),
            ..Sample::default()
        };
        self.cgroup_figures(&mut sample);
        Some(sample)
    }

    /// What the service's cgroup tells, else the host's pressure.
    fn cgroup_figures(&self, sample: &mut Sample) {
        let text = |path: String| self.machine.text(&path).ok();
        let dir = self.cgroup.as_deref();
        // In a container the root is the container's, and has files; on a machine it has none of these.
        let in_v2 = |file: &str| text(format!("/sys/fs/cgroup{}/{file}", dir?));
        // The root of version 1 has files, and they are the machine's.
        let below = dir.filter(|dir| !dir.is_empty());
        let in_v1 =
            |controller: &str, file: &str| text(format!("/sys/fs/cgroup/{controller}{}/{file}", below?));
        let stall = |pressure: Option<String>| pressure.as_deref().and_then(stalled);
        sample.memory_stall_us =
            stall(in_v2("memory.pressure")).or_else(|| stall(text("/proc/pressure/memory".to_owned())));
        sample.cpu_stall_us =
            stall(in_v2("cpu.pressure")).or_else(|| stall(text("/proc/pressure/cpu".to_owned())));
        let keyed = |text: Option<String>, key: &str| text.as_deref().and_then(|text| value_of(text, key));
        sample.throttled_us = keyed(in_v2("cpu.stat"), "throttled_usec")
            .or_else(|| keyed(in_v1("cpu", "cpu.stat"), "throttled_time").map(|ns| ns / 1000));
        sample.oom_kills = keyed(in_v2("memory.events"), "oom_kill")
            .or_else(|| keyed(in_v1("memory", "memory.oom_control"), "oom_kill"));
        let amount = |text: Option<String>| text.and_then(|text| text.trim_end().parse::<u64>().ok());
        sample.cgroup_memory =
            amount(in_v2("memory.current")).or_else(|| amount(in_v1("memory", "memory.usage_in_bytes")));
        sample.cgroup_peak =
            amount(in_v2("memory.peak")).or_else(|| amount(in_v1("memory", "memory.max_usage_in_bytes")));
    }
}

/// The cgroup of a process as its version 2 line names it, without a final slash; systemd keeps the paths of all
/// hierarchies alike.
fn cgroup_of(machine: &Root, pid: u32) -> Option<String> {
    let text = machine.text(&format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(|path| path.trim_end_matches('/').to_owned())
}

/// PSI: microseconds in which some task waited.
fn stalled(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// The number after `key` at the beginning of a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    let mut words = text.lines().filter_map(|line| line.split_once([' ', ':', '\t']));
    words.find(|(name, _)| *name == key)?.1.split_ascii_whitespace().next()?.parse().ok()
}

/// A value in kB of a file of proc(5), in bytes.
fn kb(text: &str, key: &str) -> Option<u64> {
    value_of(text, key)?.checked_mul(1024)
}

fn shares(machine: &Root, pid: u32) -> Result<Shares, ReadError> {
    let text = machine.text(&format!("/proc/{pid}/smaps_rollup"))?;
    let of = |key| kb(&text, key).ok_or(ReadError::Missing);
    Ok(Shares { pss: of("Pss")?, uss: of("Private_Clean")?.saturating_add(of("Private_Dirty")?) })
}

fn peak(machine: &Root, pid: u32) -> Option<u64> {
    kb(&machine.text(&format!("/proc/{pid}/status")).ok()?, "VmHWM")
}

/// Milliseconds for which the host's CPUs were idle, added up (proc_stat(5): in hundredths of a second).
fn host_idle(machine: &Root) -> Option<u64> {
    let text = machine.text("/proc/stat").ok()?;
    let mut fields = text.lines().next()?.split_ascii_whitespace().skip(4);
    let idle: u64 = fields.next()?.parse().ok()?;
    let waiting: u64 = fields.next()?.parse().ok()?;
    idle.checked_add(waiting)?.checked_mul(10)
}

/// The recycle limit that a server was started with: its flag, else what its way of starting reads. 0: never.
fn limit_in_effect(machine: &Root, pid: u32, arguments: &[String]) -> Option<u32> {
    if let Some(value) = flag(arguments, "--limit-max-requests") {
        return value.parse().ok();
    }
    let environment = machine.bytes(&format!("/proc/{pid}/environ")).ok()?;
    let variable = |key: &str| {
        environment.split(|byte| *byte == 0).find_map(|pair| {
            String::from_utf8_lossy(pair)
                .split_once('=')
                .filter(|(name, _)| *name == key)
                .map(|(_, v)| v.to_owned())
        })
    };
    if arguments.iter().any(|argument| argument == "uvicorn" || argument.ends_with("/uvicorn")) {
        return variable("UVICORN_LIMIT_MAX_REQUESTS").map_or(Some(0), |value| value.parse().ok());
    }
    let file = variable("PYPNM_SERVE_ENV_FILE").filter(|path| path.starts_with('/'))?;
    let text = machine.text(&format!("/proc/{pid}/root{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("PYPNM_SERVE_LIMIT_MAX_REQUESTS="))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{kb, stalled, value_of};

    #[test]
    fn figures_of_recorded_files() {
        let psi = "some avg10=30.44 avg60=10.34 avg300=2.47 total=18839947\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(psi), Some(18_839_947));
        assert_eq!(stalled(""), None);
        assert_eq!(value_of("usage_usec 5\nthrottled_usec 12\n", "throttled_usec"), Some(12));
        let rollup = "55f0-7ffd ---p 00000000 00:00 0   [rollup]\nRss:   237052 kB\nPss_Dirty: 1 kB\nPss:    178493 kB\n";
        assert_eq!(kb(rollup, "Pss"), Some(178_493 << 10));
        assert_eq!(kb(rollup, "Uss"), None);
        assert_eq!(kb("Pss: x kB", "Pss"), None);
        assert_eq!(kb("Pss:\t99999999999999999999 kB", "Pss"), None);
        assert_eq!(kb("Pss: 18446744073709551615 kB", "Pss"), None);
    }
}
