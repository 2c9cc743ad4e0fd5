//! What a watch has seen so far: who works, lives and recycles, and the evidence for advice, kept apart for each number
//! of workers and each limit, since what four workers did says nothing about two. Pure, and of bounded size however long
//! it runs. Live samples and recorded ones go the same way.

use std::collections::BTreeMap;

use super::block::{Block, PRESSED, WAITING};
use super::history::{Latest, Series, Tally};
use super::line::{Line, Process};
use super::lives::{EndedLives, Life};
use super::role::Role;
use super::trend::{Estimate, Slope, mean, median, slope};
use super::{MIB, number, whole};

/// A block's length unless somebody says otherwise, in seconds: ten minutes.
pub const BLOCK: f64 = 600.0;
/// Blocks within a day that prove something.
const PROOF: usize = 3;
const DAY: f64 = 86_400.0;
/// Lasting growth takes so many blocks to be told from a warm-up: an hour.
const BLOCKS_OF_GROWTH: f64 = 6.0;
/// Blocks with demand that are remembered with their times.
const MARKED: usize = 4096;
/// Conditions that are kept apart at the most.
const CONDITIONS: usize = 64;
/// A worker that lived for fewer seconds than PyPNM needs to start has not served its limit.
const SHORT_LIFE: f64 = 10.0;
/// A worker whose successor serves finishes its requests in so many seconds, five minutes, and its start.
const HANDOVER: f64 = 330.0;
/// A service that goes within so many seconds of replacing a worker was being stopped already.
const STOPPING: f64 = 10.0;
/// Ages at recycling that are kept.
const AGES: usize = 512;

/// Blocks of one kind.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// When each began and ended, the latest of them.
    pub times: Vec<(f64, f64)>,
    /// Where three of them lay within a day: the beginning of the first block and the end of the last.
    pub proven: Option<(f64, f64)>,
}

impl Blocks {
    fn add(&mut self, block: &Block) {
        self.count += 1;
        if self.times.len() >= MARKED {
            self.times.drain(..MARKED / 2);
        }
        self.times.push((block.from, block.until));
        let first_of_three = self.times.len().checked_sub(PROOF).and_then(|first| self.times.get(first));
        if let Some((from, _)) = first_of_three
            && block.until - from <= DAY
        {
            self.proven = Some((self.proven.map_or(*from, |(from, _)| from), block.until));
        }
    }
}

/// What was seen under the same conditions: as many workers and the same limits.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    /// Workers.
    pub workers: u64,
    /// When it was first and last so.
    pub from: f64,
    /// See `from`.
    pub until: f64,
    /// Samples with a worker whose CPU is known.
    pub samples: u64,
    /// The time they stand for.
    pub seconds: f64,
    /// Of these: all workers busy.
    pub all_busy: f64,
    /// Of these: connections waited to be accepted.
    pub queued: f64,
    /// The most that waited.
    pub queue_peak: u64,
    /// Of these: no CPU was left.
    pub cpu_full: f64,
    /// Of these: memory above nine tenths of the limit.
    pub memory_tight: f64,
    /// Of these: tasks waited for memory.
    pub memory_stalled: f64,
    /// Blocks in which requests waited.
    pub demand: Blocks,
    /// Of these, what CPUs were free.
    pub free_cpus: Tally,
    /// Of these, under pressure for memory.
    pub demand_under_pressure: u64,
    /// Blocks in which tasks waited for memory.
    pub stalled: Blocks,
    /// Blocks in which the service held nearly all of its memory.
    pub tight: Blocks,
    /// Blocks in which no CPU was left.
    pub full: Blocks,
    /// The block with most waiting: the part of its time, and when.
    pub busiest: Option<(f64, f64, f64)>,
    /// Processes killed for want of memory, and when.
    pub oom_kills: u64,
    /// The first and the last of them.
    pub killed: Option<(f64, f64)>,
    /// What 95 % of a worker's samples did not exceed in the block where that was most, in bytes.
    pub worker_memory: u64,
    /// Samples that rests on.
    pub memory_samples: u64,
    /// The most bytes of one worker.
    pub worker_peak: u64,
    /// The most bytes of all processes.
    pub total_peak: u64,
    /// The most bytes of those that are no workers.
    pub others_peak: u64,
    /// The fewest bytes that the service could have had: its own and what the host had left.
    pub within_reach: Option<u64>,
    /// CPU seconds of the workers.
    pub worker_cpu: f64,
    /// Seconds of life of the workers.
    pub worker_seconds: f64,
}

impl Epoch {
    fn absorb(&mut self, block: &Block, length: f64) {
        if self.workers == 0 {
            self.from = block.from;
        }
        self.workers = block.workers;
        self.until = block.until;
        self.samples += block.samples;
        self.seconds += block.seconds;
        self.all_busy += block.all_busy;
        self.queued += block.queued;
        self.queue_peak = self.queue_peak.max(block.queue_peak);
        self.cpu_full += block.cpu_full;
        self.memory_tight += block.memory_tight;
        self.memory_stalled += block.memory_stalled;
        self.worker_cpu += block.worker_cpu;
        self.worker_seconds += block.worker_seconds;
        self.worker_peak = self.worker_peak.max(block.worker_peak);
        self.total_peak = self.total_peak.max(block.total_peak);
        self.others_peak = self.others_peak.max(block.others_peak);
        self.within_reach = match (self.within_reach, block.within_reach) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
        if block.oom_kills > 0 {
            self.oom_kills += block.oom_kills;
            self.killed = Some((self.killed.map_or(block.from, |(from, _)| from), block.until));
        }
        if !block.counts(length) {
            return;
        }
        self.memory_samples += block.memory_samples();
        self.worker_memory = self.worker_memory.max(block.worker_memory().unwrap_or(0));
        let pressed = |seconds: f64| seconds >= PRESSED * block.seconds;
        let waiting = block.waiting();
        if waiting >= WAITING {
            self.demand.add(block);
            self.free_cpus.add(block.free_cpus());
            self.demand_under_pressure +=
                u64::from(pressed(block.memory_stalled) || pressed(block.memory_tight));
        }
        if self.busiest.is_none_or(|(most, _, _)| waiting > most) {
            self.busiest = Some((waiting, block.from, block.until));
        }
        for (blocks, seconds) in [
            (&mut self.stalled, block.memory_stalled),
            (&mut self.tight, block.memory_tight),
            (&mut self.full, block.cpu_full),
        ] {
            if pressed(seconds) {
                blocks.add(block);
            }
        }
    }

    /// Percent of one CPU that a worker used on average.
    pub fn mean_worker_cpu(&self) -> f64 {
        if self.worker_seconds <= 0.0 { 0.0 } else { self.worker_cpu * 100.0 / self.worker_seconds }
    }
}

/// Growth of the workers since the service was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// By the clock, what the workers have in common.
    pub all: Slope,
    /// What a worker had at the beginning, in bytes.
    pub baseline: u64,
    /// In a whole life, from recycle to recycle, where such were seen.
    pub a_life: Option<Estimate>,
    /// The one worker that grows while the others don't.
    pub single: Option<Single>,
    /// When it was watched.
    pub from: f64,
    /// See `from`.
    pub until: f64,
}

/// One worker that grows apart from the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Single {
    /// Its pid.
    pub pid: u64,
    /// Its growth.
    pub slope: Slope,
    /// What the others have in common, in bytes a second.
    pub others: f64,
}

/// What is known of the service between two of its starts.
#[derive(Clone, Debug, Default)]
struct Run {
    main: Option<(u64, f64)>,
    from: Option<f64>,
    until: f64,
    ended: EndedLives,
    /// Ages at recycling, in seconds.
    ages: Vec<f64>,
}

/// Everything seen so far.
#[derive(Clone, Debug)]
pub struct Evidence {
    block_length: f64,
    first_at: Option<f64>,
    last_at: f64,
    /// Seconds watched, gaps left out.
    watched: f64,
    last: Line,
    /// The limits that were last known: milli-CPUs, bytes, requests.
    limits: (u64, u64, Option<u64>),
    /// The live workers, the oldest first.
    pub workers: Vec<Life>,
    run: Run,
    /// The growth found in the run before, until this one has been watched for long enough.
    growth_before: Option<Growth>,
    /// The age of the only worker, where it is the service.
    single_age: Option<f64>,
    /// systemd's NRestarts when the service was last seen, or the recycles that a recorded line counted.
    automatic_restarts: Option<u64>,
    block: Option<Block>,
    epochs: BTreeMap<(u64, u64, u64), Epoch>,
    current: Option<(u64, u64, u64)>,
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
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Ages of workers that went and have not been replaced yet.
    gone: Latest<f64>,
    /// When workers appeared while none was missing: successors, of pypnm-sizing-handover(7), of workers that end later.
    successors: Latest<f64>,
    /// When workers were last replaced.
    replaced_at: Latest<f64>,
}

impl Evidence {
    /// None yet; a block is `block_length` seconds.
    pub fn new(block_length: f64) -> Self {
        Self {
            block_length,
            first_at: None,
            last_at: 0.0,
            watched: 0.0,
            last: Line::default(),
            limits: (0, 0, None),
            workers: Vec::new(),
            run: Run::default(),
            growth_before: None,
            single_age: None,
            automatic_restarts: None,
            block: None,
            epochs: BTreeMap::new(),
            current: None,
            memory: Series::default(),
            memory_peak: 0,
            recycles: 0,
            restarts: 0,
            short_lives: 0,
            oom_kills: 0,
            gone: Latest::new(AGES),
            successors: Latest::new(AGES),
            replaced_at: Latest::new(AGES),
        }
    }

    /// The length of a block in seconds.
    pub fn block_length(&self) -> f64 {
        self.block_length
    }

    /// Seconds watched, gaps left out.
    pub fn watched(&self) -> f64 {
        self.watched
    }

    /// The times of the first and the last sample.
    pub fn range(&self) -> Option<(f64, f64)> {
        self.first_at.map(|from| (from, self.last_at))
    }

    /// The last sample.
    pub fn last(&self) -> &Line {
        &self.last
    }

    /// The limits that were last known: milli-CPUs and bytes (0: unknown), and the recycle limit.
    pub fn limits(&self) -> (u64, u64, Option<u64>) {
        self.limits
    }

    /// What was seen under the present conditions.
    pub fn epoch(&self) -> Epoch {
        let open = self.block.as_ref().filter(|block| block.workers > 0);
        let key = match open {
            // The first seconds after a restart say nothing about how many workers there will be.
            Some(block) if block.counts(self.block_length) || self.current.is_none() => Some(key(block)),
            _ => self.current,
        };
        let mut epoch = key.and_then(|key| self.epochs.get(&key)).cloned().unwrap_or_default();
        if let Some(block) = open
            && Some(self::key(block)) == key
        {
            epoch.absorb(block, self.block_length);
        }
        epoch
    }

    /// What was seen under other conditions before.
    pub fn earlier(&self) -> impl Iterator<Item = &Epoch> {
        let current = self.current;
        self.epochs.iter().filter(move |(key, _)| Some(**key) != current).map(|(_, epoch)| epoch)
    }

    /// The median age at recycling in seconds.
    pub fn recycle_age(&self) -> Option<f64> {
        median(&mut self.run.ages.clone())
    }

    /// Takes the next sample, at `at` seconds, which stands for `elapsed` seconds before it: 0 where the sample before
    /// was another watch's, or there is none. One that is not later than the last is passed over.
    pub fn take(&mut self, mut line: Line, at: f64, elapsed: f64) {
        if !at.is_finite() || self.first_at.is_some() && at <= self.last_at {
            return;
        }
        let elapsed = if elapsed.is_finite() { elapsed.max(0.0) } else { 0.0 };
        let first = self.first_at.is_none();
        self.first_at.get_or_insert(at);
        let main = main_of(&line);
        // A recording without the parent: the service is the same as long as one of its workers is.
        let goes_on = main.is_none_or(|(pid, _)| pid != ANONYMOUS)
            || self.workers.is_empty()
            || line.workers().any(|worker| self.workers.iter().any(|life| life.is(worker)));
        let same_main = goes_on && is_same(self.run.main, main);
        if !first && !same_main {
            self.taken_back(at);
            if !self.workers.is_empty() {
                self.growth_before = self.growth();
            }
        }
        self.lives_that_ended(&line, same_main, at);
        if !same_main {
            self.restarted(&line, main, at);
        } else if let Some(main) = main {
            self.seen_again(&line, main, at);
        }
        for process in line.workers() {
            if let Some(life) = self.workers.iter_mut().find(|life| life.is(process)) {
                life.go_on(process, at, elapsed);
                if elapsed <= 0.0 {
                    life.busy = None;
                }
            } else {
                if same_main && !first {
                    self.replaced(at);
                }
                self.workers.push(Life::new(process, at));
            }
        }
        self.workers.sort_by(|a, b| b.age.total_cmp(&a.age));
        // Where another watch begins its count begins anew.
        let killed = if elapsed > 0.0 { line.oom_kills.saturating_sub(self.last.oom_kills) } else { 0 };
        self.oom_kills += killed;
        self.weigh(&line, at, elapsed, killed);
        if !self.workers.is_empty() {
            self.memory_peak = self.memory_peak.max(line.memory);
            self.memory.push(at, number(line.memory));
        }
        self.watched += elapsed;
        self.last_at = at;
        if line.cpu_milli_limit > 0 {
            self.limits.0 = line.cpu_milli_limit;
        }
        if line.memory_limit > 0 {
            self.limits.1 = line.memory_limit;
        }
        self.limits.2 = line.limit_max_requests.or(self.limits.2);
        // What was seen is counted here once, for live lines and for recorded ones that count otherwise.
        (line.recycles, line.restarts) = (self.recycles, self.restarts);
        self.last = line;
    }

    /// Adds the sample to its block.
    fn weigh(&mut self, line: &Line, at: f64, elapsed: f64, killed: u64) {
        let ends = |block: &Block| {
            at - block.from >= self.block_length
                || block.workers > 0 && block.memory_limit != line.memory_limit && line.memory_limit > 0
        };
        if self.block.as_ref().is_some_and(ends) {
            self.close_block();
        }
        let began = at - elapsed.min(self.block_length);
        let busy: Vec<Option<f64>> = self.workers.iter().map(|life| life.busy).collect();
        let block = self.block.get_or_insert_with(|| Block::new(began));
        block.take(line, at, elapsed.min(self.block_length), &busy, killed);
    }

    fn close_block(&mut self) {
        let Some(block) = self.block.take().filter(|block| block.workers > 0) else {
            return;
        };
        let key = key(&block);
        if block.counts(self.block_length) || self.current.is_none() {
            self.current = Some(key);
        }
        if self.epochs.len() >= CONDITIONS && !self.epochs.contains_key(&key) {
            let oldest = self.epochs.iter().min_by(|a, b| a.1.until.total_cmp(&b.1.until));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.epochs.remove(&oldest);
            }
        }
        self.epochs.entry(key).or_default().absorb(&block, self.block_length);
    }

    /// The workers that are no longer there.
    fn lives_that_ended(&mut self, line: &Line, same_main: bool, at: f64) {
        let is_there = |life: &Life| line.workers().any(|process| life.is(process));
        let (stay, gone): (Vec<Life>, Vec<Life>) =
            std::mem::take(&mut self.workers).into_iter().partition(is_there);
        self.workers = stay;
        for life in gone {
            // The first process, before it had started its workers.
            if line.processes.iter().any(|process| life.is(process)) {
                continue;
            }
            if same_main && !self.was_succeeded(life.age, at) {
                self.gone.push(life.age);
            }
            if let Some(ended) = life.ended(at.min(self.last_at)) {
                self.run.ended.push(ended);
            }
        }
    }

    /// Whether the service came up anew since it was last seen.
    fn restarted(&mut self, line: &Line, main: Option<(u64, f64)>, at: f64) {
        let Some(main) = main else {
            return;
        };
        if self.run.main.is_some() {
            // A single worker that meets its limit ends the service, and systemd brings it back.
            let counted = line.automatic_restarts.or(Some(line.recycles));
            let by_systemd = counted.zip(self.automatic_restarts).is_some_and(|(now, before)| now > before);
            match self.single_age.take() {
                Some(age) if by_systemd => {
                    self.recycles += 1;
                    self.run.ages.push(age);
                    self.short_lives += u64::from(age < SHORT_LIFE);
                }
                _ => {
                    self.restarts += 1;
                    self.run = Run::default();
                    // Its blocks say nothing of what comes now.
                    self.close_block();
                }
            }
            self.gone = Latest::new(AGES);
            self.successors = Latest::new(AGES);
        }
        self.run.from.get_or_insert(at);
        self.seen_again(line, main, at);
    }

    fn seen_again(&mut self, line: &Line, main: (u64, f64), at: f64) {
        let single = !line.processes.iter().any(|process| process.role == Role::Parent);
        let worker = line.workers().next().filter(|_| single);
        self.single_age = worker.map(|process| process.age_seconds);
        self.automatic_restarts = line.automatic_restarts.or(Some(line.recycles));
        self.run.main = Some(main);
        self.run.until = at;
    }

    /// A new worker under the same parent: where one went before, it takes its place.
    fn replaced(&mut self, at: f64) {
        match self.gone.pop() {
            Some(age) => self.recycled(age, at),
            None => self.successors.push(at),
        }
    }

    /// Whether a worker that has ended had its successor already; then it is counted.
    fn was_succeeded(&mut self, age: f64, at: f64) -> bool {
        while let Some(appeared) = self.successors.pop() {
            if at - appeared <= HANDOVER {
                self.recycled(age, at);
                return true;
            }
        }
        false
    }

    fn recycled(&mut self, age: f64, at: f64) {
        self.recycles += 1;
        if self.run.ages.len() >= AGES {
            self.run.ages.drain(..AGES / 2);
        }
        self.run.ages.push(age);
        self.short_lives += u64::from(age < SHORT_LIFE);
        self.replaced_at.push(at);
    }

    /// systemd stops a service with a signal to all its processes, and a parent that gets it a moment after its workers
    /// first replaces them. Those were no recycles.
    fn taken_back(&mut self, at: f64) {
        while self.replaced_at.pop_newest().is_some_and(|replaced| at - replaced < STOPPING) {
            let was_short = self.run.ages.pop().is_some_and(|age| age < SHORT_LIFE);
            self.recycles = self.recycles.saturating_sub(1);
            self.short_lives = self.short_lives.saturating_sub(u64::from(was_short));
        }
        self.replaced_at = Latest::new(AGES);
    }

    /// Computes each worker's growth; not for every sample, it costs up to a millisecond a worker.
    pub fn compute_growth(&mut self) {
        self.workers.iter_mut().for_each(Life::compute_growth);
    }

    /// The growth that the workers have in common since the last restart (or before it, while that is not yet long ago).
    /// `None`: not watched for long enough.
    pub fn growth(&self) -> Option<Growth> {
        let enough = self.block_length * BLOCKS_OF_GROWTH;
        let from = self.run.from?;
        if self.run.until - from < enough * 0.98 {
            return self.growth_before.clone();
        }
        let settled: Vec<&[super::trend::Point]> = self.workers.iter().map(Life::settled).collect();
        let ended = self.run.ended.all();
        let together = self.workers.len().max(1);
        let of = |value: fn(&super::lives::Ended) -> f64| ended.iter().map(value).collect::<Vec<f64>>();
        let by_lives = mean(&of(|life| life.per_second), together);
        // Lives seen from beginning to end say most; where there are none yet, the live workers do.
        let is_recycled = by_lives.is_some() && self.run.ages.len() >= PROOF;
        let lasts = |lives: &Estimate| {
            let early = median(&mut of(|life| life.early)).unwrap_or(0.0);
            let late = median(&mut of(|life| life.late)).unwrap_or(0.0);
            lives.low > 0.0 && early > 0.0 && late >= early * 0.75
        };
        let a_life = if is_recycled { mean(&of(|life| life.growth), together) } else { None };
        let all = match by_lives.filter(|_| is_recycled) {
            Some(by_clock) => Slope {
                per_second: by_clock.value,
                low: by_clock.low,
                high: by_clock.high,
                lasting: a_life.as_ref().is_some_and(lasts),
            },
            None => slope(&settled)?,
        };
        let mut baselines = of(|life| life.baseline);
        baselines.extend(settled.iter().filter_map(|points| points.first()).map(|point| point.value));
        Some(Growth {
            all,
            baseline: whole(median(&mut baselines)?),
            a_life,
            single: if is_recycled { None } else { self.single(&settled) },
            from,
            until: self.run.until,
        })
    }

    /// A worker that grows for certain, and apart from the others.
    fn single(&self, settled: &[&[super::trend::Point]]) -> Option<Single> {
        let slopes: Vec<Option<Slope>> = settled.iter().map(|points| slope(&[points])).collect();
        let (index, steepest) = slopes
            .iter()
            .enumerate()
            .filter_map(|(index, slope)| Some((index, (*slope)?)))
            .max_by(|a, b| a.1.per_second.total_cmp(&b.1.per_second))?;
        let mut others: Vec<f64> = slopes
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != index)
            .filter_map(|(_, s)| Some((*s)?.per_second))
            .collect();
        let others = median(&mut others)?;
        let is_apart = steepest.lasting && others < steepest.low / 3.0;
        let pid = self.workers.get(index)?.pid;
        is_apart.then_some(Single { pid, slope: steepest, others })
    }
}

/// Conditions that are told apart: workers, whole MiB, milli-CPUs.
fn key(block: &Block) -> (u64, u64, u64) {
    (block.workers, block.memory_limit / MIB, block.cpu_limit)
}

/// What several workers without a parent are the workers of.
const ANONYMOUS: u64 = 0;

/// The process that makes the service one and the same, and its age: uvicorn's parent, or the only worker.
fn main_of(line: &Line) -> Option<(u64, f64)> {
    let identity = |process: &Process| (process.pid, process.age_seconds);
    let parent = line.processes.iter().find(|process| process.role == Role::Parent);
    let mut workers = line.workers();
    match (parent, workers.next(), workers.next()) {
        (Some(parent), _, _) => Some(identity(parent)),
        (None, Some(_), Some(_)) => Some((ANONYMOUS, f64::MAX)),
        (None, only, _) => only.map(identity),
    }
}

fn is_same(before: Option<(u64, f64)>, now: Option<(u64, f64)>) -> bool {
    match (before, now) {
        (Some((pid, age)), Some((pid_now, age_now))) => pid == pid_now && age_now >= age - 1.0,
        (before, now) => before.is_none() && now.is_none(),
    }
}

#[cfg(test)]
mod tests;
