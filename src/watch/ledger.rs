//! What a watch has seen so far: the lives of the workers, their peaks, recycles, and the evidence for advice.
//! Pure, and of bounded size however long it runs.

use super::history::{Latest, Series, Tally, thinned};
use super::role::Role;
use super::slope::{Point, Slope, slope};
use super::{MIB, number};

/// A worker at or above this share of one CPU is busy, in percent. Python holds one lock a process, so one worker's
/// analysis can't use much more than one CPU.
pub const BUSY_PERCENT: f64 = 70.0;
/// A worker below this share of one CPU, in percent, does no work worth measuring its memory by.
const ACTIVE_PERCENT: f64 = 2.0;
/// Time that makes evidence unless somebody says otherwise, in seconds: ten minutes.
pub const ENOUGH: f64 = 600.0;
/// The peak of each such part of it counts as one: by default a minute's.
const WINDOWS: f64 = 10.0;
/// A worker that lived for fewer seconds than PyPNM needs to start has not served its limit.
const SHORT_LIFE: f64 = 10.0;
/// A service that goes within so many seconds of replacing a worker was being stopped already.
const STOPPING: f64 = 10.0;
/// A worker younger than this, in seconds, has not warmed up.
const WARM_UP: f64 = 60.0;
/// Ended lives of which the growth is kept, and the points of each.
const LIVES: usize = 16;
const POINTS_OF_A_LIFE: usize = 60;
/// Ages at recycling that are kept.
const AGES: usize = 64;

/// One process in one sample.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its pid and its start time (in any unit): together they name it.
    pub pid: u32,
    /// When it started.
    pub started: u64,
    /// What it is.
    pub role: Role,
    /// Seconds since it started.
    pub age: f64,
    /// Resident bytes.
    pub rss: u64,
    /// Its share of the resident bytes, and those it alone has, where they were read this time.
    pub shares: Option<Shares>,
    /// The most resident bytes it ever had, where readable.
    pub peak: Option<u64>,
    /// Milliseconds of CPU time since it started.
    pub cpu_ms: u64,
}

/// smaps_rollup of proc(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Proportional set size in bytes.
    pub pss: u64,
    /// Unique set size in bytes.
    pub uss: u64,
}

/// All that was read at one moment. Counters count from any beginning.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Seconds on a clock that never jumps.
    pub at: f64,
    /// The service's processes.
    pub processes: Vec<Process>,
    /// Idle milliseconds of the CPUs that the service may run on, added up.
    pub idle_ms: Option<u64>,
    /// Microseconds in which some task waited for memory (PSI).
    pub memory_stall_us: Option<u64>,
    /// Microseconds in which some task waited for a CPU (PSI).
    pub cpu_stall_us: Option<u64>,
    /// Microseconds for which the service's CPU quota held it back.
    pub throttled_us: Option<u64>,
    /// Processes that the kernel killed for want of memory in the service's cgroup.
    pub oom_kills: Option<u64>,
    /// Bytes charged to the service's cgroup, page cache included.
    pub cgroup_memory: Option<u64>,
    /// The most that ever was charged to it.
    pub cgroup_peak: Option<u64>,
    /// systemd's NRestarts.
    pub automatic_restarts: Option<u64>,
}

/// What the service may use, as sized.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Milli-CPUs; 0: not known.
    pub cpu: u64,
    /// Bytes; 0: not known.
    pub memory: u64,
}

/// A live worker.
#[derive(Clone, Debug)]
pub struct Life {
    /// As last seen.
    pub now: Process,
    /// Percent of one CPU since the sample before; `None` at first sight.
    pub cpu: Option<f64>,
    /// The last shares read.
    pub shares: Option<Shares>,
    /// Its growth when last reckoned.
    pub growth: Option<Slope>,
    /// Resident bytes that count for others, from the last shares.
    shared: u64,
    /// Whether its life began under our eyes; then its first quarter is warming up.
    born: bool,
    history: Series,
    window: Window,
}

#[derive(Clone, Debug, Default)]
struct Window {
    peak: u64,
    cpu_ms_before: u64,
    began: f64,
}

/// Any other process.
#[derive(Clone, Debug)]
pub struct Companion {
    /// As last seen.
    pub now: Process,
    /// Percent of one CPU since the sample before.
    pub cpu: Option<f64>,
    /// The last shares read.
    pub shares: Option<Shares>,
    shared: u64,
}

/// What advice rests on; times are in seconds.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Samples with a worker whose CPU is known.
    pub samples: u64,
    /// The time they stand for.
    pub seconds: f64,
    /// Of these: all workers busy.
    pub all_busy: f64,
    /// Whole CPUs free for the service while all workers were busy.
    pub free_cpus_when_busy: Tally,
    /// The most bytes the service had while all workers were busy.
    pub most_memory_when_busy: u64,
    /// No CPU was left: the service used all it may use, or the better half of them while others had the rest, or its
    /// quota held it back.
    pub cpu_full: f64,
    /// The service held above nine tenths of the memory it may use.
    pub memory_tight: f64,
    /// Tasks waited for memory a tenth of the time or more.
    pub memory_stalled: f64,
    /// Processes killed for want of memory while watched.
    pub oom_kills: u64,
    /// Peaks in MiB of workers at work, one a window.
    pub peaks: Tally,
    /// CPU milliseconds of the workers while watched.
    pub worker_cpu_ms: u64,
    /// Seconds of life of the workers while watched, added up.
    pub worker_seconds: f64,
}

/// Rates of the last interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Milli-CPUs that the service used.
    pub cpu: u64,
    /// Milli-CPUs among those it may run on that nobody used.
    pub idle: Option<u64>,
    /// Percent of the time in which some task waited for memory.
    pub memory_stall: Option<f64>,
    /// Percent of the time in which some task waited for a CPU.
    pub cpu_stall: Option<f64>,
    /// Percent of the time for which the quota held the service back.
    pub throttled: Option<f64>,
}

/// The growth that all lives have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Over all points after the warm-up.
    pub all: Slope,
    /// Whether the first and the second half of each life grow by themselves: a leak goes on, a step doesn't.
    pub goes_on: bool,
    /// What a worker had at the beginning, in bytes: the median of the lives.
    pub baseline: u64,
}

/// Everything seen so far.
#[derive(Debug)]
pub struct Ledger {
    bounds: Bounds,
    enough: f64,
    began: Option<f64>,
    last: Option<Sample>,
    main: Option<(u32, u64)>,
    /// The age of the only worker, where it is the service.
    single_age: Option<f64>,
    /// systemd's NRestarts when the service was last seen.
    automatic_restarts: Option<u64>,
    /// The live workers, by pid.
    pub workers: Vec<Life>,
    /// The live other processes.
    pub companions: Vec<Companion>,
    /// What the evidence is so far.
    pub evidence: Evidence,
    /// The last interval.
    pub rates: Rates,
    /// The service's memory (bytes) over time.
    pub memory: Series,
    /// The most of it.
    pub memory_peak: u64,
    /// Workers that were replaced under the same parent (or, with one, by an automatic restart).
    pub recycles: u64,
    /// Times the service came up anew otherwise.
    pub restarts: u64,
    /// Workers that died within seconds of their start.
    pub short_lives: u64,
    /// Ages at recycling in seconds.
    ages: Latest<f64>,
    /// Ages of workers that went and have not been replaced yet.
    gone: Latest<f64>,
    /// When workers were last replaced.
    replaced_at: Latest<f64>,
    ended: Latest<Vec<Point>>,
}

impl Ledger {
    /// An empty one; `enough` is the time in seconds that makes evidence.
    pub fn new(bounds: Bounds, enough: f64) -> Self {
        Self {
            bounds,
            enough,
            began: None,
            last: None,
            main: None,
            single_age: None,
            automatic_restarts: None,
            workers: Vec::new(),
            companions: Vec::new(),
            evidence: Evidence::default(),
            rates: Rates::default(),
            memory: Series::default(),
            memory_peak: 0,
            recycles: 0,
            restarts: 0,
            short_lives: 0,
            ages: Latest::new(AGES),
            gone: Latest::new(AGES),
            replaced_at: Latest::new(AGES),
            ended: Latest::new(LIVES),
        }
    }

    /// What the service may use.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// From now on it may use this much.
    pub fn rebound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// The time in seconds that makes evidence.
    pub fn enough(&self) -> f64 {
        self.enough
    }

    /// Seconds from the first sample to the last.
    pub fn watched(&self) -> f64 {
        match (self.began, &self.last) {
            (Some(began), Some(last)) => last.at - began,
            _ => 0.0,
        }
    }

    /// The last sample.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    /// The service's memory now, in bytes: shares where they could be read, else resident bytes.
    pub fn memory_now(&self) -> u64 {
        self.workers.iter().map(Life::memory).sum::<u64>() + self.overhead()
    }

    /// The memory of all that is no worker.
    pub fn overhead(&self) -> u64 {
        self.companions.iter().map(|other| other.now.rss.saturating_sub(other.shared)).sum()
    }

    /// Whether shares could be read of every worker.
    pub fn has_shares(&self) -> bool {
        !self.workers.is_empty() && self.workers.iter().all(|life| life.shares.is_some())
    }

    /// Percent of one CPU that a worker used on average.
    pub fn mean_worker_cpu(&self) -> f64 {
        let seconds = self.evidence.worker_seconds;
        if seconds <= 0.0 { 0.0 } else { number(self.evidence.worker_cpu_ms) / seconds / 10.0 }
    }

    /// The median age at recycling in seconds.
    pub fn recycle_interval(&self) -> Option<f64> {
        let mut ages: Vec<f64> = self.ages.iter().copied().collect();
        super::slope::median(&mut ages)
    }

    /// Takes the next sample. One that is not later than the last is passed over.
    pub fn take(&mut self, sample: Sample) {
        let elapsed = self.last.as_ref().map(|last| sample.at - last.at);
        if !sample.at.is_finite() || elapsed.is_some_and(|seconds| seconds <= 0.0) {
            return;
        }
        self.began.get_or_insert(sample.at);
        let main = main_of(&sample);
        if main != self.main {
            self.taken_back(sample.at);
        }
        self.lives_that_ended(&sample, main);
        let same_main = main == self.main;
        self.restarted(&sample, main);
        let (before, companions) = (std::mem::take(&mut self.workers), std::mem::take(&mut self.companions));
        let first = self.last.is_none();
        for process in &sample.processes {
            if process.role == Role::Worker {
                let known = before.iter().find(|life| life.is(process)).cloned();
                let life = if let Some(life) = known {
                    life.on(process, sample.at, elapsed)
                } else {
                    if same_main {
                        self.replaced(sample.at);
                    }
                    Life::new(process, sample.at, !first || process.age < WARM_UP)
                };
                self.workers.push(life);
            } else {
                let known = companions.iter().find(|other| same(&other.now, process));
                self.companions.push(Companion::of(process, known, elapsed));
            }
        }
        self.workers.sort_by_key(|life| (life.now.started, life.now.pid));
        self.companions.sort_by_key(|other| (other.now.role, other.now.pid));
        for life in &mut self.workers {
            life.window_closes(sample.at, self.enough / WINDOWS, &mut self.evidence);
        }
        if !self.workers.is_empty() {
            let memory = self.memory_now();
            self.memory_peak = self.memory_peak.max(memory);
            self.memory.push(Point { at: sample.at, value: number(memory) });
        }
        if let (Some(last), Some(seconds)) = (&self.last, elapsed) {
            self.rates = rates(last, &sample, seconds, &self.workers, &self.companions);
            self.evidence.oom_kills += rise(last.oom_kills, sample.oom_kills).unwrap_or(0);
            self.weigh(seconds);
        }
        self.last = Some(sample);
    }

    /// The workers that are no longer there.
    fn lives_that_ended(&mut self, sample: &Sample, main: Option<(u32, u64)>) {
        let is_there = |life: &Life| sample.processes.iter().any(|process| life.is(process));
        let (stay, gone): (Vec<Life>, Vec<Life>) =
            std::mem::take(&mut self.workers).into_iter().partition(is_there);
        self.workers = stay;
        for life in gone {
            let became_parent = sample.processes.iter().any(|process| same(&life.now, process));
            if became_parent {
                // The first process before it had started its workers.
                continue;
            }
            if main.is_some() && main == self.main {
                self.gone.push(life.now.age);
            }
            self.ended.push(thinned(life.settled(), POINTS_OF_A_LIFE));
        }
    }

    /// Whether the service came up anew since it was last seen.
    fn restarted(&mut self, sample: &Sample, main: Option<(u32, u64)>) {
        if let (Some(before), Some(now)) = (self.main, main)
            && before != now
        {
            // A single worker that meets its limit ends the service, and systemd brings it back.
            let by_systemd =
                rise(self.automatic_restarts, sample.automatic_restarts).is_some_and(|by| by > 0);
            match self.single_age.take() {
                Some(age) if by_systemd => {
                    self.recycles += 1;
                    self.ages.push(age);
                    self.short_lives += u64::from(age < SHORT_LIFE);
                }
                _ => self.restarts += 1,
            }
            self.gone = Latest::new(AGES);
        }
        if main.is_some() {
            let single = !sample.processes.iter().any(|process| process.role == Role::Parent);
            let worker = sample.processes.iter().find(|process| single && process.role == Role::Worker);
            self.single_age = worker.map(|process| process.age);
            self.automatic_restarts = sample.automatic_restarts;
            self.main = main;
        }
    }

    /// A new worker under the same parent: where one went before, it takes its place.
    fn replaced(&mut self, at: f64) {
        if let Some(age) = self.gone.pop() {
            self.recycles += 1;
            self.ages.push(age);
            self.short_lives += u64::from(age < SHORT_LIFE);
            self.replaced_at.push(at);
        }
    }

    /// systemd stops a service with a signal to all its processes, and a parent that hears it a moment after its workers
    /// first replaces them. Those were no recycles.
    fn taken_back(&mut self, at: f64) {
        while self.replaced_at.pop_newest().is_some_and(|replaced| at - replaced < STOPPING) {
            let was_short = self.ages.pop_newest().is_some_and(|age| age < SHORT_LIFE);
            self.recycles = self.recycles.saturating_sub(1);
            self.short_lives = self.short_lives.saturating_sub(u64::from(was_short));
        }
        self.replaced_at = Latest::new(AGES);
    }

    /// Adds the last interval to the evidence.
    fn weigh(&mut self, seconds: f64) {
        let known: Vec<f64> = self.workers.iter().filter_map(|life| life.cpu).collect();
        if known.is_empty() {
            return;
        }
        let memory = self.memory_now();
        let (bounds, rates, evidence) = (self.bounds, self.rates, &mut self.evidence);
        evidence.samples += 1;
        evidence.seconds += seconds;
        evidence.worker_seconds += seconds * number(known.len() as u64);
        evidence.worker_cpu_ms += super::whole(known.iter().sum::<f64>() * seconds * 10.0);
        if known.len() == self.workers.len() && known.iter().all(|cpu| *cpu >= BUSY_PERCENT) {
            let free = bounds.cpu.saturating_sub(rates.cpu);
            let free = rates.idle.map_or(free, |idle| free.min(idle));
            evidence.all_busy += seconds;
            // A CPU that is free three quarters of the time has room for a busy worker.
            evidence.free_cpus_when_busy.add((free + 250) / 1000);
            evidence.most_memory_when_busy = evidence.most_memory_when_busy.max(memory);
        }
        let used_up = rates.cpu * 100 >= bounds.cpu * 95;
        let nothing_left = rates.idle.is_some_and(|idle| idle * 100 <= bounds.cpu * 5);
        let full = used_up || (nothing_left && rates.cpu * 2 >= bounds.cpu);
        if bounds.cpu > 0 && full || rates.throttled.is_some_and(|throttled| throttled >= 10.0) {
            evidence.cpu_full += seconds;
        }
        if bounds.memory > 0 && memory / 9 * 10 >= bounds.memory {
            evidence.memory_tight += seconds;
        }
        if rates.memory_stall.is_some_and(|stall| stall >= 10.0) {
            evidence.memory_stalled += seconds;
        }
    }

    /// Reckons each worker's growth anew; not for every sample, it costs up to a millisecond a worker.
    pub fn reckon_growth(&mut self) {
        for life in &mut self.workers {
            life.growth = slope(&[life.settled()]);
        }
    }

    /// The growth that the lives have in common. `None`: too few points.
    pub fn growth(&self) -> Option<Growth> {
        let live = self.workers.iter().map(Life::settled);
        let blocks: Vec<&[Point]> =
            live.chain(self.ended.iter().map(Vec::as_slice)).filter(|block| block.len() >= 12).collect();
        let all = slope(&blocks)?;
        let halves: Vec<(&[Point], &[Point])> =
            blocks.iter().map(|block| block.split_at(block.len() / 2)).collect();
        let early = slope(&halves.iter().map(|(half, _)| *half).collect::<Vec<_>>())?;
        let late = slope(&halves.iter().map(|(_, half)| *half).collect::<Vec<_>>())?;
        let mut firsts: Vec<f64> = blocks.iter().filter_map(|b| b.first()).map(|p| p.value).collect();
        let goes_on =
            all.low > 0.0 && early.low > 0.0 && late.low > 0.0 && late.per_second >= early.per_second / 4.0;
        Some(Growth { all, goes_on, baseline: super::whole(super::slope::median(&mut firsts)?) })
    }
}

impl Life {
    fn new(process: &Process, at: f64, born: bool) -> Self {
        let mut life = Self {
            now: process.clone(),
            cpu: None,
            shares: None,
            growth: None,
            shared: 0,
            born,
            history: Series::default(),
            window: Window { cpu_ms_before: process.cpu_ms, began: at, ..Window::default() },
        };
        life.remember(process, at, None);
        life
    }

    /// The same life, one sample on.
    fn on(mut self, process: &Process, at: f64, elapsed: Option<f64>) -> Self {
        self.cpu = elapsed.map(|seconds| percent(self.now.cpu_ms, process.cpu_ms, seconds));
        let peak_before = self.now.peak;
        self.remember(process, at, peak_before);
        self
    }

    fn remember(&mut self, process: &Process, at: f64, peak_before: Option<u64>) {
        if let Some(shares) = process.shares {
            self.shared = process.rss.saturating_sub(shares.pss);
            self.shares = Some(shares);
        }
        self.history.push(Point { at, value: number(process.rss) });
        self.window.peak = self.window.peak.max(process.rss.saturating_sub(self.shared));
        // A peak between two samples: the kernel's mark has risen.
        if let (Some(before), Some(now)) = (peak_before, process.peak)
            && now > before
        {
            self.window.peak = self.window.peak.max(now.saturating_sub(self.shared));
        }
        self.now = process.clone();
    }

    fn window_closes(&mut self, at: f64, length: f64, evidence: &mut Evidence) {
        if at - self.window.began < length {
            return;
        }
        if percent(self.window.cpu_ms_before, self.now.cpu_ms, at - self.window.began) >= ACTIVE_PERCENT {
            evidence.peaks.add(self.window.peak.div_ceil(MIB));
        }
        self.window = Window { cpu_ms_before: self.now.cpu_ms, began: at, ..Window::default() };
    }

    fn is(&self, process: &Process) -> bool {
        process.role == Role::Worker && same(&self.now, process)
    }

    /// The memory it adds to the service, in bytes: its share where that was read, carried on by what it has grown
    /// since; else its resident bytes.
    pub fn memory(&self) -> u64 {
        self.now.rss.saturating_sub(self.shared)
    }

    /// Its history without the warm-up.
    fn settled(&self) -> &[Point] {
        let points = self.history.points();
        let warm_up = if self.born { points.len() / 4 } else { 0 };
        points.get(warm_up..).unwrap_or_default()
    }
}

impl Companion {
    fn of(process: &Process, before: Option<&Self>, elapsed: Option<f64>) -> Self {
        let shared = match process.shares {
            Some(read) => process.rss.saturating_sub(read.pss),
            None => before.map_or(0, |before| before.shared),
        };
        let cpu =
            before.zip(elapsed).map(|(before, seconds)| percent(before.now.cpu_ms, process.cpu_ms, seconds));
        Self {
            now: process.clone(),
            cpu,
            shares: process.shares.or(before.and_then(|before| before.shares)),
            shared,
        }
    }
}

fn same(a: &Process, b: &Process) -> bool {
    (a.pid, a.started) == (b.pid, b.started)
}

/// The process that makes the service one and the same: uvicorn's parent, or the only worker.
fn main_of(sample: &Sample) -> Option<(u32, u64)> {
    let of = |role| sample.processes.iter().find(|process| process.role == role);
    of(Role::Parent).or_else(|| of(Role::Worker)).map(|process| (process.pid, process.started))
}

/// Percent of one CPU.
fn percent(before_ms: u64, now_ms: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { number(now_ms.saturating_sub(before_ms)) / seconds / 10.0 }
}

/// By how much a counter rose; one that fell began anew.
fn rise(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

fn rates(last: &Sample, now: &Sample, seconds: f64, workers: &[Life], companions: &[Companion]) -> Rates {
    let of_time = |before, now| rise(before, now).map(|us| (number(us) / seconds / 10_000.0).min(100.0));
    let cpu: f64 = workers.iter().filter_map(|life| life.cpu).sum::<f64>()
        + companions.iter().filter_map(|other| other.cpu).sum::<f64>();
    Rates {
        cpu: super::whole(cpu * 10.0),
        idle: rise(last.idle_ms, now.idle_ms).map(|ms| super::whole(number(ms) / seconds)),
        memory_stall: of_time(last.memory_stall_us, now.memory_stall_us),
        cpu_stall: of_time(last.cpu_stall_us, now.cpu_stall_us),
        throttled: of_time(last.throttled_us, now.throttled_us),
    }
}

#[cfg(test)]
mod tests;
