//! The evidence collected by a watch: the workers, their lives and recycles, and the data for advice, separately for each number
//! of workers and each limit, because what four workers did says nothing about two. Pure, and of bounded size regardless of the
//! length of the watch. Live samples and recorded ones are processed in the same way.

mod demand;
mod epoch;
mod growth;

use std::collections::BTreeMap;

use super::block::Block;
use super::history::{Latest, Series};
use super::line::{Line, Process};
use super::lives::{EndedLives, Life};
use super::role::Role;
use super::trend::median;
use super::{MIB, number};
pub use epoch::{Blocks, Epoch};
pub use growth::{ALLOWED, BLOCKS_TO_TELL, Growth, Single};

/// A block's length unless somebody says otherwise, in seconds: ten minutes.
pub const BLOCK: f64 = 600.0;
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
    /// Processes killed because memory ran out.
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
