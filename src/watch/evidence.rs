//! The evidence collected by a watch: the workers, their lives and recycles, and the data for advice. It is kept separately for
//! each number of workers and each limit, because the behavior of four workers says nothing about that of two. Pure, and of
//! bounded size regardless of the length of the watch. Live samples and recorded ones are processed in the same way.

mod demand;
mod epoch;
mod growth;

use std::collections::BTreeMap;

use super::block::Block;
use super::history::{Latest, POINTS, Point, Series};
use super::line::{Line, ProcessSample};
use super::lives::Life;
use super::role::Role;
use super::trend::median;
use super::{MIB, number};
pub use epoch::{Blocks, Epoch};
use growth::Run;
pub use growth::{ALLOWED, Growth, LEAK_BLOCKS, Single, UNEVEN_LEAK_BLOCKS};

/// The default length of a block, in seconds: ten minutes.
pub const BLOCK: f64 = 600.0;
/// The maximum number of conditions.
const CONDITIONS: usize = 64;
/// A worker that lived for fewer seconds than PyPNM needs to start did not end because of its recycle limit.
const SHORT_LIFE: f64 = 10.0;
/// The maximum time in seconds in which a retired worker finishes its requests: five minutes, and the start of its successor.
const HANDOVER: f64 = 330.0;
/// If the service ends within this number of seconds after a worker was replaced, it was already being stopped.
const STOPPING: f64 = 10.0;
/// The maximum number of ages at recycling.
const AGES: usize = 512;

/// All evidence so far.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    block_length: f64,
    first_at: Option<f64>,
    last_at: f64,
    /// The number of seconds watched, without gaps.
    watched: f64,
    last: Line,
    /// The latest known limits: milli-CPUs, bytes, requests.
    limits: (u64, u64, Option<u64>),
    /// The live workers, from the oldest.
    pub workers: Vec<Life>,
    run: Run,
    /// The growth in the previous run, until this run has been watched for long enough.
    growth_before: Option<Growth>,
    /// The age of the only worker, if that worker is the service.
    single_age: Option<f64>,
    /// systemd's NRestarts in the previous sample, or the number of recycles in the previous recorded line.
    automatic_restarts: Option<u64>,
    block: Option<Block>,
    epochs: BTreeMap<(u64, u64, u64), Epoch>,
    current: Option<(u64, u64, u64)>,
    /// The memory of the service over time, in bytes.
    pub memory: Series<Point, POINTS>,
    /// The maximum of that memory.
    pub memory_peak: u64,
    /// The number of workers that were replaced under the same parent or, with one worker, by an automatic restart.
    pub recycles: u64,
    /// The number of other restarts of the service.
    pub restarts: u64,
    /// The number of workers that ended within seconds of their start.
    pub short_lives: u64,
    /// The number of processes killed by the OOM killer.
    pub oom_kills: u64,
    /// The ages of workers that have ended and have not been replaced yet.
    gone: Latest<f64, AGES>,
    /// When workers were added while none was missing: successors (pypnm-sizing-handover(7)) of workers that end later.
    successors: Latest<f64, AGES>,
    /// When workers were replaced most recently.
    replaced_at: Latest<f64, AGES>,
}

impl Evidence {
    /// No evidence yet. The length of a block is `block_length` seconds.
    pub fn new(block_length: f64) -> Self {
        Self { block_length, ..Self::default() }
    }

    /// The length of a block in seconds.
    pub fn block_length(&self) -> f64 {
        self.block_length
    }

    /// The number of seconds watched, without gaps.
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

    /// The latest known limits: milli-CPUs and bytes (0: unknown), and the recycle limit.
    pub fn limits(&self) -> (u64, u64, Option<u64>) {
        self.limits
    }

    /// The evidence under the present conditions.
    pub fn epoch(&self) -> Epoch {
        let open = self.block.as_ref().filter(|block| block.workers > 0);
        let key = match open {
            // The first seconds after a restart do not show how many workers there will be.
            Some(block) if block.is_long_enough(self.block_length) || self.current.is_none() => {
                Some(key(block))
            }
            _ => self.current,
        };
        let mut epoch = key.and_then(|key| self.epochs.get(&key)).cloned().unwrap_or_default();
        if let Some(block) = open
            && Some(self::key(block)) == key
        {
            epoch.add(block, self.block_length);
        }
        epoch
    }

    /// The evidence under earlier conditions.
    pub fn earlier(&self) -> impl Iterator<Item = &Epoch> {
        let current = self.current;
        self.epochs.iter().filter(move |(key, _)| Some(**key) != current).map(|(_, epoch)| epoch)
    }

    /// The common growth of the workers since the last restart, or before it until this run has been watched for long enough.
    /// `None`: not watched for long enough.
    pub fn growth(&self) -> Option<Growth> {
        self.run.growth(&self.workers, self.block_length, self.growth_before.as_ref())
    }

    /// The median age at recycling, in seconds.
    pub fn recycle_age(&self) -> Option<f64> {
        median(&mut self.run.ages.clone())
    }

    /// Adds the sample taken at `at` seconds, which covers the `elapsed` seconds before it: 0 if the previous sample is of another
    /// watch, or if there is none. A sample that is not later than the previous one is ignored.
    pub fn take(&mut self, mut line: Line, at: f64, elapsed: f64) {
        if !at.is_finite() || self.first_at.is_some() && at <= self.last_at {
            return;
        }
        let elapsed = if elapsed.is_finite() { elapsed.max(0.0) } else { 0.0 };
        let first = self.first_at.is_none();
        self.first_at.get_or_insert(at);
        let main = main_of(&line);
        // In a recording without the parent, the service is the same as long as one of its workers is.
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
        // Each watch counts from 0.
        let killed = if elapsed > 0.0 { line.oom_kills.saturating_sub(self.last.oom_kills) } else { 0 };
        self.oom_kills += killed;
        self.weigh(&line, at, elapsed, killed);
        if !self.workers.is_empty() {
            self.memory_peak = self.memory_peak.max(line.memory);
            self.memory.push(Point { at, value: number(line.memory) });
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
        // Events are counted here, in the same way for live samples and for recorded ones, whose counts may differ.
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
        if block.is_long_enough(self.block_length) || self.current.is_none() {
            self.current = Some(key);
        }
        if self.epochs.len() >= CONDITIONS && !self.epochs.contains_key(&key) {
            let oldest = self.epochs.iter().min_by(|a, b| a.1.until.total_cmp(&b.1.until));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.epochs.remove(&oldest);
            }
        }
        self.epochs.entry(key).or_default().add(&block, self.block_length);
    }

    /// The workers that have ended.
    fn lives_that_ended(&mut self, line: &Line, same_main: bool, at: f64) {
        let is_there = |life: &Life| line.workers().any(|process| life.is(process));
        let (stay, gone): (Vec<Life>, Vec<Life>) =
            std::mem::take(&mut self.workers).into_iter().partition(is_there);
        self.workers = stay;
        for life in gone {
            // The first process, before it started its workers.
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

    /// Whether the service has been restarted since the previous sample.
    fn restarted(&mut self, line: &Line, main: Option<(u64, f64)>, at: f64) {
        let Some(main) = main else {
            return;
        };
        if self.run.main.is_some() {
            // If a single worker reaches its limit, the service exits, and systemd restarts it.
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
                    // Its blocks say nothing about the next run.
                    self.close_block();
                }
            }
            self.gone = Latest::default();
            self.successors = Latest::default();
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

    /// A new worker under the same parent: it replaces one that has ended, if any.
    fn replaced(&mut self, at: f64) {
        match self.gone.pop() {
            Some(age) => self.recycled(age, at),
            None => self.successors.push(at),
        }
    }

    /// Whether a worker that has ended already had a successor, which is then counted.
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

    /// systemd stops a service by sending a signal to all its processes. If the parent receives it after its workers, it first
    /// replaces them. These are not recycles.
    fn taken_back(&mut self, at: f64) {
        while self.replaced_at.pop_newest().is_some_and(|replaced| at - replaced < STOPPING) {
            let was_short = self.run.ages.pop().is_some_and(|age| age < SHORT_LIFE);
            self.recycles = self.recycles.saturating_sub(1);
            self.short_lives = self.short_lives.saturating_sub(u64::from(was_short));
        }
        self.replaced_at = Latest::default();
    }

    /// Computes the growth of each worker. Not called for every sample, because it takes up to a millisecond per worker.
    pub fn compute_growth(&mut self) {
        self.workers.iter_mut().for_each(Life::compute_growth);
    }
}

/// The conditions: the number of workers, MiB, milli-CPUs.
fn key(block: &Block) -> (u64, u64, u64) {
    (block.workers, block.memory_limit / MIB, block.cpu_limit)
}

/// The parent of several workers whose parent is unknown.
const ANONYMOUS: u64 = 0;

/// The process that identifies the service, and its age: uvicorn's parent, or the only worker.
fn main_of(line: &Line) -> Option<(u64, f64)> {
    let identity = |process: &ProcessSample| (process.pid, process.age_seconds);
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
