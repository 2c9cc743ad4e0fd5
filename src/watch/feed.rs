//! A service made of numbers, for the tests: what its processes do is said here, and it is sampled like a real one.

use super::ledger::{Bounds, ENOUGH, Ledger, Process, Sample, Shares};
use super::role::Role;
use super::{MIB, number, whole};

/// A simulated service.
pub(super) struct Feed {
    pub(super) ledger: Ledger,
    /// Seconds between samples.
    pub(super) interval: f64,
    /// Percent of a CPU each worker uses.
    pub(super) cpu: f64,
    /// Bytes a second each worker grows by.
    pub(super) growth: f64,
    /// Idle milli-CPUs of the host.
    pub(super) idle: f64,
    /// Percent of the time spent waiting for memory.
    pub(super) memory_stall: f64,
    /// Seconds after which a worker is recycled; 0: never.
    pub(super) life: f64,
    /// Processes killed so far.
    pub(super) oom_kills: u64,
    sample: Sample,
    born: Vec<f64>,
    next_pid: u32,
    noise: u64,
}

impl Feed {
    /// So many workers on so many CPUs and GiB, all at rest.
    pub(super) fn new(workers: u32, cpus: u64, gib: u64) -> Self {
        let mut feed = Self {
            ledger: Ledger::new(Bounds { cpu: cpus * 1000, memory: gib << 30 }, ENOUGH),
            interval: 2.0,
            cpu: 0.1,
            growth: 0.0,
            idle: number(cpus) * 1000.0,
            memory_stall: 0.0,
            life: 0.0,
            oom_kills: 0,
            sample: Sample {
                idle_ms: Some(0),
                memory_stall_us: Some(0),
                oom_kills: Some(0),
                ..Sample::default()
            },
            born: Vec::new(),
            next_pid: 100,
            noise: 1,
        };
        feed.sample.processes.push(process(1, Role::Parent, 0.0));
        for index in 0..workers {
            // Started before the watch, at different times, so that they aren't recycled together.
            feed.start(0.0 - 100.0 - number(u64::from(index)) * 7.0);
        }
        feed
    }

    fn start(&mut self, at: f64) {
        self.next_pid += 1;
        self.sample.processes.push(process(self.next_pid, Role::Worker, at));
        self.born.push(at);
    }

    /// A number from 0 to 1 that looks like chance.
    fn chance(&mut self) -> f64 {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        number(self.noise >> 40) / number(1 << 24)
    }

    /// Goes on for so many samples.
    pub(super) fn run(&mut self, samples: u64) {
        for _ in 0..samples {
            self.sample.at += self.interval;
            let at = self.sample.at;
            let counter = |counter: &mut Option<u64>, by: f64| *counter = counter.map(|c| c + whole(by));
            counter(&mut self.sample.idle_ms, self.idle * self.interval);
            counter(&mut self.sample.memory_stall_us, self.memory_stall * self.interval * 10_000.0);
            self.sample.oom_kills = Some(self.oom_kills);
            let ended: Vec<bool> = self.born.iter().map(|b| self.life > 0.0 && at - b >= self.life).collect();
            if ended.contains(&true) {
                let mut kept = ended.iter();
                self.sample
                    .processes
                    .retain(|process| process.role != Role::Worker || !kept.next().copied().unwrap_or(false));
                let mut kept = ended.iter();
                self.born.retain(|_| !kept.next().copied().unwrap_or(false));
                ended.iter().filter(|ended| **ended).for_each(|_| self.start(at));
            }
            let mut workers = self.born.clone().into_iter();
            for index in 0..self.sample.processes.len() {
                let jitter = self.chance() * 65_536.0;
                let (growth, cpu, interval) = (self.growth, self.cpu, self.interval);
                let Some(process) = self.sample.processes.get_mut(index) else { continue };
                if process.role == Role::Worker {
                    let age = at - workers.next().unwrap_or(at);
                    process.age = age;
                    process.rss = whole(number(200 * MIB) + growth * age + jitter);
                    process.shares =
                        Some(Shares { pss: process.rss - 50 * MIB, uss: process.rss - 80 * MIB });
                    process.cpu_ms += whole(cpu * interval * 10.0);
                }
            }
            self.ledger.take(self.sample.clone());
        }
    }

    /// The service is started anew: all pids change. `by_systemd`: of itself.
    pub(super) fn restart(&mut self, by_systemd: bool) {
        let workers = self.born.len();
        self.born.clear();
        self.sample.processes.clear();
        // Down for one sample.
        self.sample.at += self.interval;
        let before = self.sample.automatic_restarts.unwrap_or(0);
        self.ledger.take(self.sample.clone());
        self.sample.automatic_restarts = Some(before + u64::from(by_systemd));
        self.next_pid += 1;
        let at = self.sample.at;
        if workers > 1 {
            self.sample.processes.push(process(self.next_pid, Role::Parent, at));
        }
        (0..workers).for_each(|_| self.start(at));
    }

    /// Makes it a service of one process, which serves itself.
    pub(super) fn single(mut self) -> Self {
        self.sample.processes.retain(|process| process.role == Role::Worker);
        self.sample.automatic_restarts = Some(0);
        self
    }
}

fn process(pid: u32, role: Role, at: f64) -> Process {
    Process {
        pid,
        started: u64::from(pid),
        role,
        age: 0.0 - at.min(0.0),
        rss: 60 * MIB,
        shares: Some(Shares { pss: 40 * MIB, uss: 30 * MIB }),
        peak: None,
        cpu_ms: 0,
    }
}
