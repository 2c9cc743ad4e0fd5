//! Data that a report shows in addition to the evidence: figures for each hour, and series for plots. Pure, and of bounded size:
//! hours older than a year are dropped, and if there are too many columns of a plot, they are merged in pairs.

use std::collections::BTreeMap;

use super::line::{Line, ProcessSample};
use super::{MIB, least, number};
use crate::watch::block::BUSY_PERCENT;

/// The number of hours to keep: a year.
const HOURS: usize = 366 * 24;
/// The maximum number of columns in a plot.
const COLUMNS: usize = 720;
/// The initial width of a column, in seconds.
const COLUMN: f64 = 60.0;
/// The maximum number of workers in a plot.
const LIVES: usize = 1500;

/// An hour.
#[derive(Clone, Debug, Default)]
pub struct Hour {
    /// The number of seconds that were watched.
    pub seconds: f64,
    /// Of these, the seconds in which requests waited: all workers busy, or connections in the queue.
    pub waiting: f64,
    /// CPU seconds.
    pub cpu: f64,
    /// The maximum memory of the service, in bytes.
    pub memory_peak: u64,
    /// The maximum memory of a worker, in bytes.
    pub worker_peak: u64,
    /// The maximum number of workers.
    pub workers: u64,
    /// The longest queue.
    pub queue_peak: u64,
    /// Seconds in which tasks waited for memory.
    pub stalled: f64,
    /// Events in this hour.
    pub recycles: u64,
    /// See `recycles`.
    pub restarts: u64,
    /// See `recycles`.
    pub oom_kills: u64,
}

impl Hour {
    /// The CPUs used on average.
    pub fn cpus(&self) -> f64 {
        self.cpu / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The fraction of the time in which requests waited.
    pub fn waiting_part(&self) -> f64 {
        self.waiting / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Adds the figures of another hour.
    pub fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.waiting += other.waiting;
        self.cpu += other.cpu;
        self.memory_peak = self.memory_peak.max(other.memory_peak);
        self.worker_peak = self.worker_peak.max(other.worker_peak);
        self.workers = self.workers.max(other.workers);
        self.queue_peak = self.queue_peak.max(other.queue_peak);
        self.stalled += other.stalled;
        self.recycles += other.recycles;
        self.restarts += other.restarts;
        self.oom_kills += other.oom_kills;
    }
}

/// A column of a plot.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// The number of seconds that were watched.
    pub seconds: f64,
    /// CPU seconds.
    pub cpu: f64,
    /// The maximum memory of the service, in bytes.
    pub memory: u64,
    /// The limits at that time, in bytes and milli-CPUs.
    pub memory_limit: u64,
    /// See `memory_limit`.
    pub cpu_limit: u64,
    /// The minimum memory available on the host, in bytes.
    pub available: Option<u64>,
    /// The longest queue.
    pub queue: Option<u64>,
    /// The maximum percentage of the time in which tasks waited for memory.
    pub pressure: f64,
}

impl Column {
    /// Adds the figures of a later column, or of a sample.
    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.cpu += other.cpu;
        self.memory = self.memory.max(other.memory);
        self.memory_limit = other.memory_limit;
        self.cpu_limit = other.cpu_limit;
        self.available = least(self.available, other.available);
        self.queue = self.queue.max(other.queue);
        self.pressure = self.pressure.max(other.pressure);
    }
}

/// A worker's memory by column, in MiB.
#[derive(Clone, Debug, Default)]
pub struct WorkerLife {
    /// Its age in the last sample.
    age: f64,
    /// The minimum and the maximum in each column: memory that is retained, and memory that comes and goes.
    pub columns: BTreeMap<i64, (f64, f64)>,
}

/// The hours and columns of a recording.
#[derive(Clone, Debug)]
pub struct Days {
    /// By hours since 1970, UTC.
    pub hours: BTreeMap<i64, Hour>,
    /// The width of a column in seconds.
    pub width: f64,
    /// By number of column since 1970.
    pub columns: BTreeMap<i64, Column>,
    /// By process ID and number of the life.
    pub lives: BTreeMap<(u64, u64), WorkerLife>,
    counts: (u64, u64, u64),
}

impl Default for Days {
    fn default() -> Self {
        Self {
            hours: BTreeMap::new(),
            width: COLUMN,
            columns: BTreeMap::new(),
            lives: BTreeMap::new(),
            counts: (0, 0, 0),
        }
    }
}

impl Days {
    /// Adds a sample at `at` seconds since 1970 that covers `elapsed` seconds. `counts`: recycles, restarts and kills
    /// so far.
    pub fn take(&mut self, line: &Line, at: f64, elapsed: f64, counts: (u64, u64, u64)) {
        let hour = self.hours.entry(index(at / 3600.0)).or_default();
        let used: Vec<f64> = line.workers().filter_map(|worker| worker.cpu_percent).collect();
        let busy = !used.is_empty() && used.iter().all(|percent| *percent >= BUSY_PERCENT);
        let waits = busy || line.accept_queue.is_some_and(|queue| queue > 0);
        let stalled = line.pressure_memory_percent.unwrap_or(0.0);
        let cpu = number(line.cpu_milli) / 1000.0 * elapsed;
        hour.add(&Hour {
            seconds: elapsed,
            waiting: if waits { elapsed } else { 0.0 },
            cpu,
            memory_peak: line.memory,
            worker_peak: line.workers().map(ProcessSample::memory).max().unwrap_or(0),
            workers: line.workers,
            queue_peak: line.accept_queue.unwrap_or(0),
            stalled: elapsed * stalled / 100.0,
            recycles: counts.0.saturating_sub(self.counts.0),
            restarts: counts.1.saturating_sub(self.counts.1),
            oom_kills: counts.2.saturating_sub(self.counts.2),
        });
        self.counts = counts;
        if self.hours.len() > HOURS {
            self.hours.pop_first();
        }

        let place = index(at / self.width);
        self.columns.entry(place).or_default().add(&Column {
            seconds: elapsed,
            cpu,
            memory: line.memory,
            memory_limit: line.memory_limit,
            cpu_limit: line.cpu_milli_limit,
            available: line.memory_available,
            queue: line.accept_queue,
            pressure: stalled,
        });
        for worker in line.workers() {
            let latest = self.lives.range((worker.pid, 0)..=(worker.pid, u64::MAX)).next_back();
            let same = latest.filter(|(_, life)| worker.age_seconds >= life.age - 1.0).map(|(key, _)| *key);
            let next = || (worker.pid, latest.map_or(0, |((_, number), _)| number + 1));
            let key = same.unwrap_or_else(next);
            if same.is_none() && self.lives.len() >= LIVES {
                continue;
            }
            let known = self.lives.entry(key).or_default();
            known.age = worker.age_seconds;
            let mib = number(worker.memory()) / number(MIB);
            let (lowest, highest) = known.columns.entry(place).or_insert((mib, mib));
            (*lowest, *highest) = (lowest.min(mib), highest.max(mib));
        }
        while self.columns.len() > COLUMNS {
            self.join();
        }
    }

    /// Merges the columns in pairs.
    fn join(&mut self) {
        self.width *= 2.0;
        for (place, column) in std::mem::take(&mut self.columns) {
            self.columns.entry(place.div_euclid(2)).or_default().add(&column);
        }
        for life in self.lives.values_mut() {
            for (place, value) in std::mem::take(&mut life.columns) {
                let (lowest, highest) = life.columns.entry(place.div_euclid(2)).or_insert(value);
                (*lowest, *highest) = (lowest.min(value.0), highest.max(value.1));
            }
        }
    }

    /// The hour with the most waiting, or else with the most CPU time, out of those that were watched for at least half
    /// of it.
    pub fn busiest(&self) -> Option<(i64, &Hour)> {
        self.hours
            .iter()
            .filter(|(_, hour)| hour.seconds >= 1800.0)
            .map(|(place, hour)| (*place, hour))
            .max_by(|(_, a), (_, b)| {
                a.waiting_part().total_cmp(&b.waiting_part()).then(a.cpus().total_cmp(&b.cpus()))
            })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "saturates; a number of an hour or of a column")]
fn index(number: f64) -> i64 {
    number.floor() as i64
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Days, Line, ProcessSample};
    use crate::watch::number;
    use crate::watch::role::Role;

    #[test]
    fn a_year_takes_bounded_memory_and_the_totals_are_right() {
        let mut days = Days::default();
        for n in 0..=366 * 24u64 * 6 {
            let worker = ProcessSample {
                pid: 7 + n / 1000 % 3,
                role: Role::Worker,
                age_seconds: number(n % 1000),
                rss: 1 << 28,
                ..ProcessSample::default()
            };
            let line =
                Line { memory: n, workers: 1, cpu_milli: 500, processes: vec![worker], ..Line::default() };
            days.take(&line, 1.7e9 + number(n) * 600.0, 600.0, (n / 1000, 0, 0));
        }
        assert!(
            days.hours.len() <= super::HOURS
                && days.columns.len() <= COLUMNS
                && days.lives.len() <= super::LIVES
        );
        let hours: f64 = days.hours.values().map(|hour| hour.seconds).sum();
        let columns: f64 = days.columns.values().map(|column| column.seconds).sum();
        assert!(
            (columns - 366.0 * 86_400.0).abs() < 1e4 && (hours - columns).abs() < 1e4,
            "{hours} {columns}"
        );
        assert_eq!(days.hours.values().map(|hour| hour.recycles).sum::<u64>(), 52);
        assert_eq!(days.lives.len(), 53);
    }
}
