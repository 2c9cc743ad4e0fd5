//! Reads one sample. Everything may vanish between two reads: what is gone is left out of the sample.
//!
//! Adding up page tables for smaps_rollup takes the kernel milliseconds a worker, so shares are read only as often as
//! keeps that below a fixed part of one CPU, whatever the machine and the number of workers.

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::meter::{Reading, Sample, Shares};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::role::{Candidate, Role, flag, roles};
use sysinfo::{Pid, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

use super::cost::{Cost, seconds_since_boot};
use super::find::{Stat, Target, arguments, main_of, processes};
use super::place::{Place, value_of};
use super::queue::Queue;
use crate::service::container;

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
    /// Where that process is.
    pub(super) place: Place,
    queue: Queue,
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
            place: Place::default(),
            queue: Queue::default(),
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

        let since_boot = seconds_since_boot();
        let with_shares = at >= self.next_shares;
        let mut cost = Cost::default();
        let mut no_shares = None;
        let mut processes = Vec::with_capacity(alive.len());
        for (process, role) in alive.iter().zip(roles) {
            let pid = process.pid().as_u32();
            // sysinfo's are whole seconds: too coarse for a name, and for a worker that dies young.
            let Some(Stat { started, .. }) = Stat::of(&self.machine, pid) else { continue };
            let shares = with_shares.then(|| cost.of(|| shares(&self.machine, pid)));
            if role == Role::Worker
                && let Some(Err(error)) = &shares
                // Not one that ended in the meantime.
                && Stat::of(&self.machine, pid).is_some_and(|stat| stat.started == started)
            {
                no_shares = Some(error.clone());
            }
            processes.push(Reading {
                pid,
                started,
                role,
                age: (since_boot - number(started) / 100.0).max(0.0),
                rss: process.memory(),
                shares: shares.and_then(Result::ok),
                peak: if role == Role::Worker { peak(&self.machine, pid) } else { None },
                cpu_ms: process.accumulated_cpu_time(),
            });
        }
        let main = main_of(&told);
        let (mut accept_queue, mut listen_drops) = (None, None);
        // While it is down what held last still holds.
        if let Some(pid) = main.filter(|_| with_shares || main != self.main) {
            self.place = cost.of(|| Place::of(&self.machine, pid));
        }
        if let Some(pid) = main {
            let workers = processes.iter().filter(|process| process.role == Role::Worker);
            let holders: Vec<u32> = std::iter::once(pid).chain(workers.map(|worker| worker.pid)).collect();
            let read = cost.of(|| self.queue.read(&self.machine, &holders, with_shares));
            (accept_queue, listen_drops) = read;
        }
        if with_shares {
            self.no_shares = no_shares;
            self.next_shares = at + cost.seconds() / SHARES_BUDGET;
        }
        if main != self.main {
            self.main = main;
            let arguments =
                told.iter().find(|(pid, _, _)| Some(*pid) == main).map(|(_, _, arguments)| arguments);
            self.limit_max_requests = match (main, arguments) {
                (Some(pid), Some(arguments)) => limit_in_effect(&self.machine, pid, arguments),
                _ => None,
            };
        }
        let available = self.machine.text("/proc/meminfo").ok();
        let mut sample = Sample {
            at,
            processes,
            automatic_restarts: target.automatic_restarts(),
            memory_available: available.and_then(|text| kb(&text, "MemAvailable")),
            accept_queue,
            listen_drops,
            ..Sample::default()
        };
        self.place.counters(&self.machine, &mut sample);
        Some(sample)
    }
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
    // Below the process's own root, which may be a container's.
    let files = container::Files::of(machine, pid).ok()?;
    let text = container::profile_text(machine, &files, &[pid], &file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("PYPNM_SERVE_LIMIT_MAX_REQUESTS="))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::kb;

    #[test]
    fn figures_of_recorded_files() {
        let rollup = "55f0-7ffd ---p 00000000 00:00 0   [rollup]\nRss:   237052 kB\nPss_Dirty: 1 kB\nPss:    178493 kB\n";
        assert_eq!(kb(rollup, "Pss"), Some(178_493 << 10));
        assert_eq!(kb(rollup, "Uss"), None);
        assert_eq!(kb("Pss: x kB", "Pss"), None);
        assert_eq!(kb("Pss:\t99999999999999999999 kB", "Pss"), None);
        assert_eq!(kb("Pss: 18446744073709551615 kB", "Pss"), None);
    }
}
