//! Reads a sample. Any process may end between two reads; it is then missing from the sample.
//!
//! Reading smaps_rollup takes the kernel milliseconds per worker, because it walks the page tables. PSS is therefore
//! read only as often as this takes a fixed fraction of one CPU, regardless of the machine and the number of workers.

use pypnm_sizing::parse::quantity::kibibytes_of;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::meter::{Reading, Sample};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::role::{Candidate, Role, main_process, roles};

use super::cgroups::ProcessCgroups;
use super::cost::{Cost, seconds_since_boot};
use super::find::WatchTarget;
use super::queue::Queue;
use crate::service::container::{self, ProcessFiles};
use crate::service::generated;
use crate::service::in_use::in_use;
use crate::service::process::usage::{Usage, UsageMeter, peak, shares};
use crate::service::process::{Process, Stat};
use crate::service::running::Running;

/// The fraction of a CPU that reading PSS may take.
const SHARES_BUDGET: f64 = 0.004;

/// Reads samples.
pub(super) struct SampleReader {
    machine: Root,
    meter: UsageMeter,
    next_shares: f64,
    /// Why the PSS of a worker could not be read.
    pub(super) no_shares: Option<ReadError>,
    /// The recycle limit of the running service, if it is known.
    pub(super) limit_max_requests: Option<u32>,
    /// The process for which it was determined.
    main: Option<u32>,
    /// The cgroups of that process.
    pub(super) cgroups: ProcessCgroups,
    queue: Queue,
}

impl SampleReader {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            machine: Root::machine(),
            meter: UsageMeter::new()?,
            next_shares: 0.0,
            no_shares: None,
            limit_max_requests: None,
            main: None,
            cgroups: ProcessCgroups::default(),
            queue: Queue::default(),
        })
    }

    /// Reads a sample, `at` seconds after the first one. `None`: the target is gone for good.
    pub(super) fn sample(&mut self, target: &mut WatchTarget, at: f64) -> Option<Sample> {
        let found = target.processes(&self.machine)?;
        let usages = self.meter.read(&found);
        let candidates: Vec<Candidate<'_>> = usages.iter().map(|usage| usage.process.candidate()).collect();
        let roles = roles(&candidates);

        let since_boot = seconds_since_boot();
        let with_shares = at >= self.next_shares;
        let mut cost = Cost::default();
        let mut no_shares = None;
        let mut processes = Vec::with_capacity(usages.len());
        for (usage, role) in usages.iter().zip(roles) {
            let pid = usage.process.pid;
            let shares = with_shares.then(|| cost.measure(|| shares(&self.machine, pid)));
            if role == Role::Worker
                && let Some(Err(error)) = &shares
                && still_exists(&self.machine, usage)
            {
                no_shares = Some(error.clone());
            }
            processes.push(Reading {
                pid,
                started: usage.started,
                role,
                age: (since_boot - number(usage.started) / 100.0).max(0.0),
                rss: usage.rss,
                shares: shares.and_then(Result::ok),
                peak: if role == Role::Worker { peak(&self.machine, pid) } else { None },
                cpu_ms: usage.cpu_ms,
            });
        }
        let main = main_process(&candidates);
        let (mut accept_queue, mut listen_drops) = (None, None);
        // While the service is down, the last values remain valid.
        let server = usages.iter().find(|usage| Some(usage.process.pid) == main);
        if let Some(server) = server.filter(|_| with_shares || main != self.main) {
            let cgroups = cost.measure(|| ProcessCgroups::read(&self.machine, server.process.pid));
            if still_exists(&self.machine, server) {
                self.cgroups = cgroups;
            }
        }
        if let Some(pid) = main {
            let workers = processes.iter().filter(|process| process.role == Role::Worker);
            let holders: Vec<u32> = std::iter::once(pid).chain(workers.map(|worker| worker.pid)).collect();
            let read = cost.measure(|| self.queue.read(&self.machine, &holders, with_shares));
            (accept_queue, listen_drops) = read;
        }
        // When its process is first seen, PyPNM may not have been executed yet, or may not have started its workers.
        if main != self.main || with_shares && self.limit_max_requests.is_none() {
            self.main = main;
            self.limit_max_requests = main.and_then(|main| {
                let processes: Vec<Process> = usages.iter().map(|usage| usage.process.clone()).collect();
                cost.measure(|| limit_in_use(&self.machine, target.unit(), &processes, main))
            });
        }
        if with_shares {
            self.no_shares = no_shares;
            self.next_shares = at + cost.seconds() / SHARES_BUDGET;
        }
        let available = self.machine.text("/proc/meminfo").ok();
        let mut sample = Sample {
            at,
            processes,
            automatic_restarts: target.automatic_restarts(),
            memory_available: available.and_then(|text| kibibytes_of(&text, "MemAvailable")),
            accept_queue,
            listen_drops,
            ..Sample::default()
        };
        self.cgroups.counters(&self.machine, &mut sample);
        Some(sample)
    }
}

/// Whether a process that was measured has not ended in the meantime.
fn still_exists(machine: &Root, usage: &Usage) -> bool {
    Stat::read(machine, usage.process.pid)
        .is_some_and(|stat| stat.started == usage.started && !stat.has_ended())
}

/// The recycle limit that a running service uses; 0: never. `None`: it is unknown, or PyPNM sized itself and does not report
/// it. `unit`: its unit.
fn limit_in_use(machine: &Root, unit: Option<&str>, processes: &[Process], main: u32) -> Option<u32> {
    let files = ProcessFiles::find(machine, main).unwrap_or(ProcessFiles::Denied);
    let mut running = Running::read(machine, &files, processes, main);
    if let Some(unit) = unit.filter(|_| !container::is_contained(machine, main)) {
        let ours = generated::profile_file(machine, unit);
        running.compare_times(machine, &files, main, ours.as_deref());
    }
    u32::try_from(in_use(&running, None).limit_max_requests?).ok()
}
