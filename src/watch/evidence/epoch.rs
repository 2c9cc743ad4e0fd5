//! The evidence of all blocks with the same number of workers and the same limits. Pure, and of bounded size.

use super::demand;
use crate::watch::block::{Block, PRESSED, Totals, WAITING};
use crate::watch::history::Tally;

/// The number of blocks within a day that prove pressure, and the minimum number of blocks with demand that prove it.
pub(super) const PROOF: usize = 3;
const DAY: f64 = 86_400.0;
/// The maximum number of blocks of a kind whose times are kept.
const MARKED: usize = 4096;

/// The blocks of a kind.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// Their number.
    pub count: u64,
    /// The beginning and the end of each of the latest blocks.
    pub times: Vec<(f64, f64)>,
    /// The period in which they are proof: the beginning of the first block and the end of the last one.
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

    /// The beginning of the last block but two.
    fn first_of_three(&self) -> Option<f64> {
        let first = self.times.len().checked_sub(PROOF)?;
        self.times.get(first).map(|(from, _)| *from)
    }

    fn prove(&mut self, from: f64, until: f64) {
        self.proven = Some((self.proven.map_or(from, |(first, _)| first), until));
    }
}

/// The evidence of a period with the same number of workers and the same limits.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    /// The number of workers.
    pub workers: u64,
    /// The beginning of its first block.
    pub from: f64,
    /// The end of its last block.
    pub until: f64,
    /// The figures of all blocks.
    pub totals: Totals,
    /// Blocks in which requests had to wait. A sequential test proves demand, in periods with at least [`PROOF`] of them.
    pub demand: Blocks,
    demand_test: demand::Test,
    /// The numbers of free CPUs in these blocks.
    pub free_cpus: Tally,
    /// The number of these blocks that were under memory pressure.
    pub demand_under_pressure: u64,
    /// Blocks in which tasks waited for memory.
    pub stalled: Blocks,
    /// Blocks in which the service used nearly all of its memory.
    pub tight: Blocks,
    /// Blocks in which no CPU was available.
    pub full: Blocks,
    /// The block with the most waiting: the fraction of its time, its beginning and its end.
    pub busiest: Option<(f64, f64, f64)>,
    /// Whether its waiting follows from the use of the workers, and less of it was observed.
    pub busiest_is_computed: bool,
    /// The beginning of the first and the end of the last block in which processes were killed.
    pub killed: Option<(f64, f64)>,
    /// The maximum over all blocks of the 95th percentile of the memory of a worker, in bytes.
    pub worker_memory: u64,
    /// The number of samples that this is based on.
    pub memory_samples: u64,
}

impl Epoch {
    pub(super) fn add(&mut self, block: &Block, length: f64) {
        if self.workers == 0 {
            self.from = block.from;
        }
        self.workers = block.workers;
        self.until = block.until;
        self.totals.add(&block.totals);
        if block.totals.oom_kills > 0 {
            self.killed = Some((self.killed.map_or(block.from, |(from, _)| from), block.until));
        }
        if !block.is_long_enough(length) {
            return;
        }
        self.memory_samples += block.memory_samples();
        self.worker_memory = self.worker_memory.max(block.worker_memory().unwrap_or(0));
        let pressed = |seconds: f64| seconds >= PRESSED * block.totals.seconds;
        let waiting = block.waiting();
        if waiting >= WAITING {
            self.demand.add(block);
            self.free_cpus.add(block.free_cpus());
            self.demand_under_pressure +=
                u64::from(pressed(block.totals.memory_stalled) || pressed(block.totals.memory_tight));
        }
        if let Some((from, third)) = self.demand_test.take(block).zip(self.demand.first_of_three())
            && third >= from
        {
            self.demand.prove(from, block.until);
        }
        if self.busiest.is_none_or(|(most, _, _)| waiting > most) {
            self.busiest = Some((waiting, block.from, block.until));
            self.busiest_is_computed = waiting > block.observed();
        }
        for (blocks, seconds) in [
            (&mut self.stalled, block.totals.memory_stalled),
            (&mut self.tight, block.totals.memory_tight),
            (&mut self.full, block.totals.cpu_full),
        ] {
            if pressed(seconds) {
                blocks.add(block);
                if let Some(from) = blocks.first_of_three().filter(|from| block.until - from <= DAY) {
                    blocks.prove(from, block.until);
                }
            }
        }
    }

    /// The mean CPU use of a worker, in percent of a CPU.
    pub fn mean_worker_cpu(&self) -> f64 {
        self.totals.used() * 100.0
    }
}
