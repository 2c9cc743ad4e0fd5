//! Reads a sample. Any process may end between two reads; it is then missing from the sample.
//!
//! Reading smaps_rollup takes the kernel milliseconds per worker, because it walks the page tables. PSS is therefore
//! read only as often as this takes a fixed fraction of one CPU, regardless of the machine and the number of workers.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS};
use pypnm_sizing::parse::quantity::kibibytes_of;
use pypnm_sizing::pypnm::{self, ProfileFile};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::meter::{Reading, Sample};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::role::{Candidate, Role, main_process, roles};

use super::cgroups::ProcessCgroups;
use super::cost::{Cost, seconds_since_boot};
use super::find::WatchTarget;
use super::queue::Queue;
use crate::service::container;
use crate::service::launch::Launch;
use crate::service::process::usage::{Meter, Usage, peak, shares};
use crate::service::process::{self, Process, Stat};

/// The fraction of a CPU that reading PSS may take.
const SHARES_BUDGET: f64 = 0.004;

/// Reads samples.
pub(super) struct SampleReader {
    machine: Root,
    meter: Meter,
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
            meter: Meter::new()?,
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
            let shares = with_shares.then(|| cost.of(|| shares(&self.machine, pid)));
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
            let cgroups = cost.of(|| ProcessCgroups::read(&self.machine, server.process.pid));
            if still_exists(&self.machine, server) {
                self.cgroups = cgroups;
            }
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
            self.limit_max_requests =
                server.and_then(|server| limit_in_effect(&self.machine, &server.process));
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
    Stat::of(machine, usage.process.pid)
        .is_some_and(|stat| stat.started == usage.started && !stat.has_ended())
}

/// The recycle limit that a server was started with: its flag, or the value from its profile or environment. 0: never.
fn limit_in_effect(machine: &Root, server: &Process) -> Option<u32> {
    let launch = Launch::of_arguments(&server.arguments);
    if let Some(value) = launch.flag(LIMIT_MAX_REQUESTS_FLAG) {
        return value.parse().ok();
    }
    let environment = process::environment(machine, server.pid)?;
    if launch.program() == Program::Uvicorn {
        return environment.get(UVICORN_LIMIT_MAX_REQUESTS).map_or(Some(0), |value| value.parse().ok());
    }
    // Relative to the root of the process, which may be that of a container.
    let files = container::Files::of(machine, server.pid).ok()?;
    let path = environment.get(pypnm::ENV_FILE)?;
    let text = container::profile_text(machine, &files, &[server.pid], path).ok()?;
    match pypnm::read_profile_file(&text) {
        ProfileFile::Taken(numbers) => u32::try_from(numbers.limit_max_requests).ok(),
        _ => None,
    }
}
