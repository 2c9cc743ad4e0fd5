//! What was seen under the same conditions, added up from blocks. Pure, and of bounded size.

use super::demand;
use crate::watch::block::{Block, PRESSED, WAITING};
use crate::watch::history::Tally;

/// Blocks within a day that prove pressure, and blocks with demand in the period that proves it.
pub(super) const PROOF: usize = 3;
const DAY: f64 = 86_400.0;
/// Blocks with demand that are remembered with their times.
const MARKED: usize = 4096;

/// Blocks of one kind.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// How many.
    pub count: u64,
    /// When each began and ended, the latest of them.
    pub times: Vec<(f64, f64)>,
    /// Where they prove something: the beginning of the first block and the end of the last.
    pub proven: Option<(f64, f64)>,
}

impl Blocks {
    fn add(&mut self, block: &Block) {
        self.count += 1;
        if self.times.len() >= MARKED {
            self.times.drain(..MARKED / 2);
        }
        self.times.push((block.from, block.until));
    }

    /// The beginning of the third block from the end.
    fn first_of_three(&self) -> Option<f64> {
        let first = self.times.len().checked_sub(PROOF)?;
        self.times.get(first).map(|(from, _)| *from)
    }

    fn prove(&mut self, from: f64, until: f64) {
        self.proven = Some((self.proven.map_or(from, |(first, _)| first), until));
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
    /// Blocks in which requests waited; proven by a sequential test, in periods with at least three of them.
    pub demand: Blocks,
    demand_test: demand::Test,
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
    /// Processes killed because memory ran out, and when.
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
    pub(super) fn absorb(&mut self, block: &Block, length: f64) {
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
        if let Some((from, third)) = self.demand_test.take(block).zip(self.demand.first_of_three())
            && third >= from
        {
            self.demand.prove(from, block.until);
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
                if let Some(from) = blocks.first_of_three().filter(|from| block.until - from <= DAY) {
                    blocks.prove(from, block.until);
                }
            }
        }
    }

    /// Percent of one CPU that a worker used on average.
    pub fn mean_worker_cpu(&self) -> f64 {
        if self.worker_seconds <= 0.0 { 0.0 } else { self.worker_cpu * 100.0 / self.worker_seconds }
    }
}
