//! The evidence of ten minutes. A busy quarter of an hour thus has the same weight in a recording of an hour and in one of a
//! week, regardless of the interval between samples. Pure.

use super::history::Tally;
use super::line::Line;
use super::{MIB, least, number, to_u64};

/// A worker that uses at least this percentage of a CPU is busy. A Python process has a global lock, so a worker cannot use
/// much more than one CPU.
pub const BUSY_PERCENT: f64 = 70.0;
/// A block shows demand if requests would have had to wait in this fraction of it. Four workers reach it at 45% of their
/// capacity (M/M/4: 9% of the requests wait at 40%, 17% at 50%).
pub const WAITING: f64 = 0.13;
/// Waiting is not derived from a mean use of the workers below this, which may be work other than requests.
pub const COMPUTED_FROM: f64 = 0.25;
/// A block counts as under pressure if it was for this fraction of its time.
pub const PRESSED: f64 = 0.2;
/// The resolution of measured memory, in bytes.
const STEP: u64 = 4 * MIB;

/// Figures of a block, or of several.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Seconds for which the CPU use of workers is known.
    pub seconds: f64,
    /// The number of samples in these seconds.
    pub samples: u64,
    /// Seconds in which every worker was busy.
    pub all_busy: f64,
    /// Seconds in which connections waited to be accepted.
    pub queued: f64,
    /// The maximum number of connections that waited.
    pub queue_peak: u64,
    /// CPU seconds of the workers.
    pub worker_cpu: f64,
    /// The total running time of the workers, in seconds.
    pub worker_seconds: f64,
    /// Seconds in which no CPU was available: the service used all CPUs that it may use, or at least half of them while other
    /// programs used the rest, or it was throttled by its quota.
    pub cpu_full: f64,
    /// Seconds in which tasks waited for memory at least a tenth of the time.
    pub memory_stalled: f64,
    /// Seconds in which the service used at least nine tenths of its memory limit.
    pub memory_tight: f64,
    /// The number of processes killed by the OOM killer.
    pub oom_kills: u64,
    /// The peak memory of a worker, in bytes.
    pub worker_peak: u64,
    /// The peak memory of all processes, in bytes.
    pub total_peak: u64,
    /// The peak memory of all processes other than workers, in bytes.
    pub others_peak: u64,
    /// The minimum of the memory that the service could have used, in bytes: its own plus that available on the host.
    pub within_reach: Option<u64>,
}

impl Totals {
    /// Adds the figures of another block.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.samples += other.samples;
        self.all_busy += other.all_busy;
        self.queued += other.queued;
        self.queue_peak = self.queue_peak.max(other.queue_peak);
        self.worker_cpu += other.worker_cpu;
        self.worker_seconds += other.worker_seconds;
        self.cpu_full += other.cpu_full;
        self.memory_stalled += other.memory_stalled;
        self.memory_tight += other.memory_tight;
        self.oom_kills += other.oom_kills;
        self.worker_peak = self.worker_peak.max(other.worker_peak);
        self.total_peak = self.total_peak.max(other.total_peak);
        self.others_peak = self.others_peak.max(other.others_peak);
        self.within_reach = least(self.within_reach, other.within_reach);
    }

    /// The mean use of the workers, as a fraction of a CPU each.
    pub fn used(&self) -> f64 {
        self.worker_cpu / self.worker_seconds.max(f64::MIN_POSITIVE)
    }
}

/// The evidence of a period of time.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its beginning.
    pub from: f64,
    /// Its end.
    pub until: f64,
    /// The maximum number of workers at once.
    pub workers: u64,
    /// What it has in common with the evidence of several blocks.
    pub totals: Totals,
    /// Seconds in which every worker was busy or connections waited.
    waiting: f64,
    /// Milli-CPU seconds that were free for the service.
    free: f64,
    /// The memory of individual workers, in units of [`STEP`].
    memory_of_workers: Tally,
    /// The CPU limit in force, in milli-CPUs.
    pub cpu_limit: u64,
    /// The memory limit in force, in bytes.
    pub memory_limit: u64,
}

impl Block {
    /// An empty block that begins at `at`.
    pub fn new(at: f64) -> Self {
        Self { from: at, until: at, ..Self::default() }
    }

    /// Adds a sample that covers the `elapsed` seconds before it. `busy` is the CPU use of each worker in percent, if known,
    /// and `oom_kills` the number of processes killed since the previous sample.
    pub fn take(&mut self, line: &Line, at: f64, elapsed: f64, busy: &[Option<f64>], oom_kills: u64) {
        self.until = at;
        self.totals.oom_kills += oom_kills;
        self.workers = self.workers.max(busy.len() as u64);
        if line.memory_limit > 0 {
            self.memory_limit = line.memory_limit;
        }
        if line.cpu_milli_limit > 0 {
            self.cpu_limit = line.cpu_milli_limit;
        }
        self.memory(line);
        let known: Vec<f64> = busy.iter().filter_map(|busy| *busy).collect();
        if known.is_empty() || elapsed <= 0.0 {
            return;
        }
        self.totals.samples += 1;
        self.totals.seconds += elapsed;
        let when = |is: bool| if is { elapsed } else { 0.0 };
        let all_busy = known.len() == busy.len() && known.iter().all(|busy| *busy >= BUSY_PERCENT);
        let queue = line.accept_queue.unwrap_or(0);
        self.totals.all_busy += when(all_busy);
        self.totals.queued += when(queue > 0);
        self.totals.queue_peak = self.totals.queue_peak.max(queue);
        self.waiting += when(all_busy || queue > 0);
        self.totals.worker_cpu += known.iter().sum::<f64>() / 100.0 * elapsed;
        self.totals.worker_seconds += number(known.len() as u64) * elapsed;
        let limit = line.cpu_milli_limit;
        let free = limit.saturating_sub(line.cpu_milli);
        self.free += number(line.idle_milli.map_or(free, |idle| free.min(idle))) * elapsed;
        let used_up = line.cpu_milli.saturating_mul(100) >= limit.saturating_mul(95);
        let nothing_left =
            line.idle_milli.is_some_and(|idle| idle.saturating_mul(100) <= limit.saturating_mul(5));
        let full = used_up || (nothing_left && line.cpu_milli.saturating_mul(2) >= limit);
        let held_back = line.throttled_percent.is_some_and(|percent| percent >= 10.0);
        self.totals.cpu_full += when((limit > 0 && full) || held_back);
        self.totals.memory_stalled +=
            when(line.pressure_memory_percent.is_some_and(|percent| percent >= 10.0));
        self.totals.memory_tight += when(line.memory_limit > 0 && line.memory / 9 * 10 >= line.memory_limit);
    }

    fn memory(&mut self, line: &Line) {
        let mut of_workers = 0;
        for worker in line.workers() {
            let bytes = worker.memory();
            of_workers += bytes;
            self.memory_of_workers.add(bytes.div_ceil(STEP));
            // The kernel's own mark includes peaks between two samples. Shared memory is assumed to be the same at the peak as
            // now.
            let shared = worker.rss.saturating_sub(bytes);
            let mark = worker.peak_rss.map_or(0, |peak| peak.saturating_sub(shared));
            self.totals.worker_peak = self.totals.worker_peak.max(bytes).max(mark);
        }
        let total = if line.memory > 0 { line.memory } else { of_workers };
        self.totals.total_peak = self.totals.total_peak.max(total);
        self.totals.others_peak = self.totals.others_peak.max(total.saturating_sub(of_workers));
        let reach = line.memory_available.map(|available| total.saturating_add(available));
        self.totals.within_reach = least(self.totals.within_reach, reach);
    }

    /// Whether enough of its time is known for fractions of it to be meaningful.
    pub fn is_long_enough(&self, length: f64) -> bool {
        self.totals.seconds * 2.0 >= length
    }

    /// The fraction of the time in which connections waited in the accept queue, or all workers were busy.
    pub fn observed(&self) -> f64 {
        self.waiting / self.totals.seconds.max(f64::MIN_POSITIVE)
    }

    /// The fraction of the time in which a request would have had to wait: as observed, or as implied by the mean use
    /// (Erlang's formula for a queue), which does not depend on the interval between samples.
    pub fn waiting(&self) -> f64 {
        let used = self.totals.used();
        if used >= COMPUTED_FROM {
            self.observed().max(erlang_c(self.workers, used))
        } else {
            self.observed()
        }
    }

    /// The number of CPUs that were free for another worker, on average. A CPU that is free for three quarters of the time is
    /// sufficient.
    pub fn free_cpus(&self) -> u64 {
        (to_u64(self.free / self.totals.seconds.max(f64::MIN_POSITIVE)) + 250) / 1000
    }

    /// The 95th percentile of the memory of a worker, in bytes, rounded up to [`STEP`] but not above the peak.
    pub fn worker_memory(&self) -> Option<u64> {
        self.memory_of_workers.percentile(95).map(|steps| (steps * STEP).min(self.totals.worker_peak))
    }

    /// The number of samples of the memory of individual workers.
    pub fn memory_samples(&self) -> u64 {
        self.memory_of_workers.total()
    }
}

/// The fraction of requests that find all of `workers` busy if each is busy for the fraction `used` of the time (Erlang, 1917).
pub fn erlang_c(workers: u64, used: f64) -> f64 {
    if used >= 1.0 {
        return 1.0;
    }
    let offered = number(workers) * used;
    // Erlang B by its recursion, then Erlang C from it.
    let lost = (1..=workers.min(1000)).fold(1.0, |lost, n| offered * lost / (number(n) + offered * lost));
    lost / (1.0 - used * (1.0 - lost))
}

#[cfg(test)]
mod tests {
    use super::erlang_c;

    #[test]
    fn erlang_c_matches_published_tables() {
        // Four workers at 50%: 0.1739; one at 30%: 0.3; two at 80%: 0.7111.
        for (workers, used, waits) in [(4, 0.5, 0.1739), (1, 0.3, 0.3), (2, 0.8, 0.7111), (4, 1.2, 1.0)] {
            assert!((erlang_c(workers, used) - waits).abs() < 1e-3, "{workers} {used}");
        }
    }
}
