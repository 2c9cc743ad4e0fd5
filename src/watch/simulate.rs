//! Simulated services with known properties: requests that arrive at random, workers that serve them, and memory that behaves as
//! specified. The tests in `simulate/` compare the findings with these properties.
//!
//! `cargo test` runs a few of each kind. With `PYPNM_SIZING_SIMULATE=N` in the environment, each kind is run N times
//! and the figures are printed (`cargo test --release simulate -- --nocapture`), see benches/RESULTS.md.

use super::advice::{Advice, AdviceTopic, PresentSizing, findings};
use super::evidence::{BLOCK, Evidence};
use super::line::{Line, LineKind, ProcessSample, SCHEMA};
use super::role::Role;
use super::{MIB, number, to_u64};
use crate::policy::PolicySettings;

mod chance;
mod tests;

use chance::{Chance, Noise};

const HOUR: f64 = 3600.0;
const DAY: f64 = 24.0 * HOUR;

/// The properties of a service. Memory in MiB, times in seconds.
#[derive(Clone)]
struct World {
    seed: u64,
    workers: usize,
    cpus: u64,
    memory: f64,
    interval: f64,
    base: f64,
    /// Memory of each worker, and shared memory.
    own: Noise,
    shared: Noise,
    /// Heavy requests per hour and worker, the memory that each adds, and for how long.
    spikes: (f64, f64, f64),
    /// Memory that comes and goes, and its period; a cache in each worker, and how fast it fills.
    saw: (f64, f64),
    cache: (f64, f64),
    /// Requests per hour and worker that retain memory, and how much.
    steps: (f64, f64),
    /// MiB per hour and MiB per request; only in the first worker.
    leak: f64,
    leak_of_first: f64,
    leak_a_request: f64,
    leak_a_request_of_first: f64,
    /// The recycle limit; 0: never.
    limit: u64,
    /// The total number of requests per second, as a function of time.
    arrivals: fn(f64) -> f64,
    /// The mean duration of a request in seconds, and the fraction of it that takes CPU.
    service: f64,
    cpu_part: f64,
    /// Other programs' memory in MiB and CPUs, and the percentage of time stalled for memory, as functions of time.
    others: fn(f64) -> f64,
    others_cpu: fn(f64) -> f64,
    stalled: fn(f64) -> f64,
    /// When the service is restarted, and with how many workers.
    restarts: Vec<(f64, usize)>,
    /// When processes are killed.
    kills: Vec<f64>,
}

impl World {
    /// Four idle workers on 16 CPUs and 64 GiB.
    fn new(seed: u64) -> Self {
        Self {
            seed,
            workers: 4,
            cpus: 16,
            memory: 65_536.0,
            interval: 10.0,
            base: 235.0,
            own: Noise { sigma: 2.0, tau: 0.0 },
            shared: Noise::default(),
            spikes: (0.0, 0.0, 0.0),
            saw: (0.0, 1.0),
            cache: (0.0, 1.0),
            steps: (0.0, 0.0),
            leak: 0.0,
            leak_of_first: 0.0,
            leak_a_request: 0.0,
            leak_a_request_of_first: 0.0,
            limit: 0,
            arrivals: |_| 0.0,
            service: 1.0,
            cpu_part: 1.0,
            others: |_| 1000.0,
            others_cpu: |_| 0.0,
            stalled: |_| 0.0,
            restarts: Vec::new(),
            kills: Vec::new(),
        }
    }
}

struct Worker {
    pid: u64,
    born: f64,
    requests: u64,
    cpu: f64,
    busy_until: f64,
    /// Busy seconds in this interval.
    busy: f64,
    noise: f64,
    kept: f64,
    spike_until: f64,
    phase: f64,
    peak: u64,
}

/// A running service.
struct SimulatedService {
    world: World,
    chance: Chance,
    at: f64,
    next_arrival: f64,
    waiting: u64,
    workers: Vec<Worker>,
    parent: (u64, f64),
    pids: u64,
    shared: f64,
    recycles: u64,
    restarts: u64,
    /// Kills because the service itself exceeded the memory.
    overflows: u64,
    /// Growth of recycled workers because of leaks, in MiB.
    leaked_lives: Vec<f64>,
}

impl SimulatedService {
    fn new(world: &World) -> Self {
        let mut running = Self {
            chance: Chance::new(world.seed),
            world: world.clone(),
            at: 0.0,
            next_arrival: 0.0,
            waiting: 0,
            workers: Vec::new(),
            parent: (100, -10.0),
            pids: 100,
            shared: 0.0,
            recycles: 0,
            restarts: 0,
            overflows: 0,
            leaked_lives: Vec::new(),
        };
        for _ in 0..world.workers {
            // It has already run for an hour, so that the warm-up is over unless the test is about the warm-up.
            let worker = running.worker(-HOUR);
            running.workers.push(worker);
        }
        running.parent.1 = -HOUR;
        running
    }

    fn worker(&mut self, born: f64) -> Worker {
        self.pids += 1;
        Worker {
            pid: self.pids,
            born,
            requests: 0,
            cpu: 3.0,
            busy_until: self.at,
            busy: 0.0,
            noise: 0.0,
            kept: 0.0,
            spike_until: f64::NEG_INFINITY,
            phase: self.chance.even(),
            peak: 0,
        }
    }

    /// Serves the requests that arrive before `until`: the next one goes to the first free worker.
    fn serve(&mut self, until: f64) {
        let step_began = self.at;
        for worker in &mut self.workers {
            worker.busy = (worker.busy_until - step_began).clamp(0.0, until - step_began);
        }
        loop {
            let rate = (self.world.arrivals)(self.at);
            if rate <= 0.0 {
                self.next_arrival = until;
                break;
            }
            if self.next_arrival < step_began {
                self.next_arrival = step_began;
            }
            self.next_arrival += self.chance.exponential(1.0 / rate);
            if self.next_arrival > until {
                // Arrivals are memoryless, so one that has not happened by now is drawn again.
                self.next_arrival = until;
                break;
            }
            let arrival = self.next_arrival;
            let took = self.chance.exponential(self.world.service);
            let first_free = self.workers.iter_mut().min_by(|a, b| a.busy_until.total_cmp(&b.busy_until));
            let Some(worker) = first_free else { break };
            let begins = worker.busy_until.max(arrival);
            worker.busy_until = begins + took;
            worker.busy += (worker.busy_until.min(until) - begins.max(step_began)).max(0.0);
            worker.requests += 1;
        }
        // A request waits for a worker that is still busy: these are the requests whose start is later than now.
        let late: f64 =
            self.workers.iter().map(|w| (w.busy_until - until).max(0.0)).fold(f64::INFINITY, f64::min);
        self.waiting = if late.is_finite() && late > 0.0 && !self.workers.is_empty() {
            let backlog: f64 = self.workers.iter().map(|w| (w.busy_until - until).max(0.0)).sum();
            to_u64((backlog / self.world.service - number(self.workers.len() as u64)).max(0.0))
        } else {
            0
        };
    }

    fn recycle(&mut self) {
        if self.world.limit == 0 {
            return;
        }
        for index in 0..self.workers.len() {
            let Some(worker) = self.workers.get(index).filter(|worker| worker.requests >= self.world.limit)
            else {
                continue;
            };
            self.leaked_lives.push(
                self.world.leak_a_request * number(worker.requests)
                    + self.world.leak * (self.at - worker.born) / HOUR,
            );
            let successor = self.worker(self.at);
            self.recycles += 1;
            if let Some(place) = self.workers.get_mut(index) {
                *place = successor;
            }
        }
    }

    fn restart(&mut self) {
        let Some((_, workers)) = self.world.restarts.first().copied().filter(|(when, _)| self.at >= *when)
        else {
            return;
        };
        self.world.restarts.remove(0);
        self.restarts += 1;
        self.pids += 1;
        self.parent = (self.pids, self.at);
        self.workers.clear();
        for _ in 0..workers {
            let worker = self.worker(self.at);
            self.workers.push(worker);
        }
    }

    /// The next sample.
    fn line(&mut self) -> Line {
        let (world, elapsed) = (self.world.clone(), self.world.interval);
        let until = self.at + elapsed;
        self.serve(until);
        self.at = until;
        self.recycle();
        self.restart();
        self.shared = world.shared.next(self.shared, elapsed, &mut self.chance);
        let mut processes = vec![ProcessSample {
            pid: self.parent.0,
            role: Role::Parent,
            age_seconds: self.at - self.parent.1,
            rss: 60 * MIB,
            pss: Some(30 * MIB),
            cpu_percent: Some(0.0),
            cpu_ms: Some(900),
            ..ProcessSample::default()
        }];
        let mut busy = 0.0;
        let (at, shared) = (self.at, self.shared);
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let chance = &mut self.chance;
            worker.noise = world.own.next(worker.noise, elapsed, chance);
            if chance.even() < world.spikes.0 * elapsed / HOUR {
                worker.spike_until = at + world.spikes.2;
            }
            if chance.even() < world.steps.0 * elapsed / HOUR {
                worker.kept = world.steps.1;
            }
            let age = at - worker.born;
            let first = if index == 0 { 1.0 } else { 0.0 };
            let leak = world.leak + first * world.leak_of_first;
            let a_request = world.leak_a_request + first * world.leak_a_request_of_first;
            let mib = world.base
                + worker.noise
                + shared
                + worker.kept
                + if at < worker.spike_until { world.spikes.1 } else { 0.0 }
                + world.saw.0 * ((at / world.saw.1 + worker.phase).fract())
                + world.cache.0 * (1.0 - (-age / world.cache.1).exp())
                + leak * age / HOUR
                + a_request * number(worker.requests);
            let rss = to_u64((mib.max(20.0)) * number(MIB));
            worker.peak = worker.peak.max(rss);
            let cpu = worker.busy * world.cpu_part + 0.001 * elapsed;
            worker.cpu += cpu;
            busy += cpu / elapsed;
            processes.push(ProcessSample {
                pid: worker.pid,
                role: Role::Worker,
                age_seconds: age,
                rss,
                pss: Some(rss.saturating_sub(45 * MIB)),
                uss: Some(rss.saturating_sub(60 * MIB)),
                peak_rss: Some(worker.peak),
                cpu_percent: Some(cpu / elapsed * 100.0),
                cpu_ms: Some(to_u64(worker.cpu * 1000.0)),
                growth_per_hour: None,
            });
        }
        let memory: u64 = processes.iter().map(ProcessSample::memory).sum();
        let limit = to_u64(world.memory * number(MIB));
        let others = to_u64((world.others)(at) * number(MIB));
        self.overflows += u64::from(memory + others > limit);
        let killed = world.kills.iter().filter(|when| **when <= at).count() as u64;
        let idle = (number(world.cpus) - busy - (world.others_cpu)(at)).max(0.0);
        Line {
            schema: SCHEMA,
            kind: LineKind::Sample,
            unix_seconds: Some(1_764_000_000.0 + at),
            seconds: Some(at - elapsed),
            service: "pypnm.service".to_owned(),
            workers: self.workers.len() as u64,
            processes,
            memory,
            memory_is: "pss".to_owned(),
            memory_limit: limit,
            memory_available: Some(limit.saturating_sub(memory + others)),
            cpu_milli: to_u64(busy * 1000.0),
            cpu_milli_limit: world.cpus * 1000,
            idle_milli: Some(to_u64(idle * 1000.0)),
            pressure_memory_percent: Some((world.stalled)(at)),
            accept_queue: Some(self.waiting),
            oom_kills: killed,
            recycles: self.recycles,
            restarts: self.restarts,
            limit_max_requests: Some(world.limit),
            ..Line::default()
        }
    }
}

/// The result of a simulation that was watched for this number of seconds.
struct Watched {
    evidence: Evidence,
    findings: Vec<Advice>,
    leaked_lives: Vec<f64>,
    overflows: u64,
}

impl World {
    fn watched(&self, seconds: f64) -> Watched {
        self.watched_with(seconds, PolicySettings::default())
    }

    fn watched_with(&self, seconds: f64, settings: PolicySettings) -> Watched {
        let mut running = SimulatedService::new(self);
        let mut evidence = Evidence::new(BLOCK);
        let samples = to_u64(seconds / self.interval);
        for n in 0..samples {
            let line = running.line();
            let elapsed = if n == 0 { 0.0 } else { self.interval };
            evidence.take(line, running.at, elapsed);
        }
        let setup = PresentSizing {
            cpus: self.cpus,
            memory: to_u64(self.memory * number(MIB)),
            settings,
            limit_max_requests: u32::try_from(self.limit).ok(),
        };
        let findings = findings(&evidence, Some(&setup), None);
        Watched { evidence, findings, leaked_lives: running.leaked_lives, overflows: running.overflows }
    }
}

impl Watched {
    fn lines(&self) -> Vec<&str> {
        self.findings.iter().filter_map(|finding| finding.line.as_deref()).collect()
    }

    fn about(&self, topic: AdviceTopic) -> String {
        let reasons = self.findings.iter().filter(|finding| finding.topic == topic);
        reasons.map(|finding| finding.reason.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// MiB per hour, with the bounds.
    fn growth(&self) -> Option<(f64, f64, f64)> {
        let growth = self.evidence.growth()?.all;
        let mib = |per_second: f64| per_second * HOUR / number(MIB);
        Some((mib(growth.per_second), mib(growth.low), mib(growth.high)))
    }

    /// The number of workers if the advice is followed.
    fn workers_advised(&self) -> Option<usize> {
        self.lines().iter().find_map(|line| {
            line.strip_prefix("MaxWorkers=").or_else(|| line.strip_prefix("Workers="))?.parse().ok()
        })
    }
}
