//! Turns a sample into a line: counters become rates since the previous sample. Pure.

use super::line::{ByteInterval, Line, LineKind, ProcessSample, SCHEMA, rounded};
use super::role::Role;
use super::{number, to_u64};

/// The data of a process.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Its process ID and start time (in any unit), which together identify it.
    pub pid: u32,
    /// Its start time.
    pub started: u64,
    /// Its role.
    pub role: Role,
    /// Seconds since it started.
    pub age: f64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// PSS and USS, if they were read this time.
    pub shares: Option<Shares>,
    /// The maximum resident memory, if it can be read.
    pub peak: Option<u64>,
    /// Milliseconds of CPU time since it started.
    pub cpu_ms: u64,
}

/// Values from smaps_rollup (proc_pid_smaps(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Proportional set size in bytes.
    pub pss: u64,
    /// Unique set size in bytes.
    pub uss: u64,
}

/// The data of a sample. Counters may start at any value.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Seconds on a monotonic clock.
    pub at: f64,
    /// The service's processes.
    pub processes: Vec<Reading>,
    /// The total idle time of the CPUs that the service may run on, in milliseconds.
    pub idle_ms: Option<u64>,
    /// Microseconds in which some task waited for memory (PSI).
    pub memory_stall_us: Option<u64>,
    /// Microseconds in which some task waited for a CPU (PSI).
    pub cpu_stall_us: Option<u64>,
    /// Microseconds in which the service was throttled by its CPU quota.
    pub throttled_us: Option<u64>,
    /// Processes in the service's cgroup that the kernel killed because memory ran out.
    pub oom_kills: Option<u64>,
    /// Bytes charged to the service's cgroup, page cache included.
    pub cgroup_memory: Option<u64>,
    /// The maximum that was ever charged to it.
    pub cgroup_peak: Option<u64>,
    /// systemd's NRestarts.
    pub automatic_restarts: Option<u64>,
    /// Memory that the host could still give to programs, in bytes.
    pub memory_available: Option<u64>,
    /// Connections waiting to be accepted.
    pub accept_queue: Option<u64>,
    /// Connections dropped because a queue was full.
    pub listen_drops: Option<u64>,
}

/// The resources that the service may use, as sized.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Milli-CPUs; 0: unknown.
    pub cpu: u64,
    /// Bytes; 0: unknown.
    pub memory: u64,
}

/// The previous data of a process.
#[derive(Clone, Debug)]
struct Known {
    reading: Reading,
    shares: Option<Shares>,
    /// Resident bytes that are attributed to other processes, according to the last PSS.
    shared: u64,
}

/// Turns samples into lines.
#[derive(Debug, Default)]
pub struct Meter {
    began: Option<f64>,
    last: Option<Sample>,
    known: Vec<Known>,
    oom_kills: u64,
    listen_drops: u64,
    memory_peak: u64,
}

impl Meter {
    /// The line for a sample, and the seconds since the previous one (0: there was none). `None`: it is not later than
    /// that.
    pub fn line(&mut self, sample: Sample, bounds: Bounds) -> Option<(Line, f64)> {
        let elapsed = self.last.as_ref().map_or(0.0, |last| sample.at - last.at);
        if !sample.at.is_finite() || self.last.is_some() && elapsed <= 0.0 {
            return None;
        }
        let began = *self.began.get_or_insert(sample.at);
        let before = std::mem::take(&mut self.known);
        let mut processes: Vec<(ProcessSample, u64)> = Vec::with_capacity(sample.processes.len());
        for reading in &sample.processes {
            let known = before
                .iter()
                .find(|known| (known.reading.pid, known.reading.started) == (reading.pid, reading.started));
            let shares = reading.shares.or(known.and_then(|known| known.shares));
            let others = match reading.shares {
                Some(shares) => reading.rss.saturating_sub(shares.pss),
                None => known.map_or(0, |known| known.shared),
            };
            let used = known.map(|known| reading.cpu_ms.saturating_sub(known.reading.cpu_ms));
            let cpu = used.filter(|_| elapsed > 0.0).map(|ms| number(ms) / elapsed / 10.0);
            let process = ProcessSample {
                pid: u64::from(reading.pid),
                role: reading.role,
                age_seconds: rounded(reading.age, 2),
                rss: reading.rss,
                // The last PSS, plus what the resident memory has grown since.
                pss: shares.map(|_| reading.rss.saturating_sub(others)),
                uss: shares.map(|shares| shares.uss),
                peak_rss: reading.peak,
                cpu_percent: cpu.map(|percent| rounded(percent, 1)),
                cpu_ms: Some(reading.cpu_ms),
                growth_per_hour: None,
            };
            processes.push((process, reading.started));
            self.known.push(Known { reading: reading.clone(), shares, shared: others });
        }
        processes.sort_by_key(|(process, started)| {
            let is_worker = process.role == Role::Worker;
            (!is_worker, if is_worker { *started } else { 0 }, process.role, process.pid)
        });
        let processes: Vec<ProcessSample> = processes.into_iter().map(|(process, _)| process).collect();
        let memory = processes.iter().map(ProcessSample::memory).sum();
        let workers = processes.iter().filter(|process| process.role == Role::Worker);
        let has_shares = workers.clone().all(|worker| worker.pss.is_some());
        self.memory_peak = self.memory_peak.max(memory);
        let last = self.last.as_ref();
        let rose = |counter: fn(&Sample) -> Option<u64>| {
            Some(counter(&sample)?.saturating_sub(counter(last.filter(|_| elapsed > 0.0)?)?))
        };
        let of_time = |counter: fn(&Sample) -> Option<u64>| {
            rose(counter).map(|us| rounded((number(us) / elapsed / 10_000.0).min(100.0), 2))
        };
        self.oom_kills += rose(|sample| sample.oom_kills).unwrap_or(0);
        self.listen_drops += rose(|sample| sample.listen_drops).unwrap_or(0);
        let cpu: f64 = processes.iter().filter_map(|process| process.cpu_percent).sum();
        let line = Line {
            schema: SCHEMA,
            kind: LineKind::Sample,
            seconds: Some(rounded(sample.at - began, 3)),
            workers: workers.count() as u64,
            memory,
            memory_is: if has_shares && !processes.is_empty() { "pss" } else { "rss" }.to_owned(),
            memory_peak: self.memory_peak,
            memory_limit: bounds.memory,
            memory_available: sample.memory_available,
            cgroup_memory: sample.cgroup_memory,
            cgroup_memory_peak: sample.cgroup_peak,
            cpu_milli: to_u64(cpu * 10.0),
            cpu_milli_limit: bounds.cpu,
            idle_milli: rose(|sample| sample.idle_ms).map(|ms| to_u64(number(ms) / elapsed)),
            pressure_memory_percent: of_time(|sample| sample.memory_stall_us),
            pressure_cpu_percent: of_time(|sample| sample.cpu_stall_us),
            throttled_percent: of_time(|sample| sample.throttled_us),
            accept_queue: sample.accept_queue,
            listen_drops: sample.listen_drops.map(|_| self.listen_drops),
            oom_kills: self.oom_kills,
            automatic_restarts: sample.automatic_restarts,
            processes,
            ..Line::default()
        };
        self.last = Some(sample);
        Some((line, elapsed))
    }
}

/// Growth in the format of a line.
pub fn per_hour(slope: &super::trend::Slope) -> ByteInterval {
    let bytes = |per_second: f64| Some(rounded(per_second * 3600.0, 0)).filter(|bytes| bytes.is_finite());
    ByteInterval { bytes: bytes(slope.per_second), low: bytes(slope.low), high: bytes(slope.high) }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Meter, Reading, Role, Sample, Shares};
    use crate::watch::MIB;

    fn reading(pid: u32, role: Role, cpu_ms: u64) -> Reading {
        let shares = Some(Shares { pss: 150 * MIB, uss: 120 * MIB });
        Reading { pid, started: 1, role, age: 9.0, rss: 200 * MIB, shares, peak: None, cpu_ms }
    }

    #[test]
    fn counters_become_rates() {
        let mut meter = Meter::default();
        let bounds = Bounds { cpu: 4000, memory: 8 << 30 };
        let sample = |at, cpu_ms, stalled, killed, dropped| Sample {
            at,
            processes: vec![reading(1, Role::Parent, 0), reading(2, Role::Worker, cpu_ms)],
            idle_ms: Some(cpu_ms * 2),
            memory_stall_us: Some(stalled),
            oom_kills: Some(killed),
            listen_drops: Some(dropped),
            accept_queue: Some(3),
            ..Sample::default()
        };
        let (first, elapsed) = meter.line(sample(10.0, 5000, 7, 4, 90), bounds).unwrap_or_default();
        let worker = first.workers().next().cloned().unwrap_or_default();
        assert_eq!((elapsed, worker.cpu_percent, first.idle_milli), (0.0, None, None), "no rate yet");
        assert_eq!((first.oom_kills, first.listen_drops, first.memory), (0, Some(0), 300 * MIB));
        let (second, elapsed) = meter.line(sample(12.0, 6000, 500_007, 5, 93), bounds).unwrap_or_default();
        let worker = second.workers().next().cloned().unwrap_or_default();
        assert_eq!((elapsed, worker.cpu_percent, worker.cpu_ms), (2.0, Some(50.0), Some(6000)));
        assert_eq!((second.cpu_milli, second.idle_milli), (500, Some(1000)));
        assert_eq!((second.pressure_memory_percent, second.oom_kills), (Some(25.0), 1));
        assert_eq!((second.listen_drops, second.accept_queue, second.seconds), (Some(3), Some(3), Some(2.0)));
        assert_eq!(meter.line(sample(12.0, 0, 0, 0, 0), bounds), None, "time that does not advance");
        let (fallen, _) = meter.line(sample(13.0, 0, 0, 0, 0), bounds).unwrap_or_default();
        assert_eq!(
            (fallen.oom_kills, fallen.cpu_milli),
            (1, 0),
            "a counter that was reset has not increased"
        );
    }

    #[test]
    fn pss_is_extrapolated_and_rss_is_used_without_it() {
        let mut meter = Meter::default();
        let mut worker = reading(2, Role::Worker, 0);
        let at = |at, worker: &Reading| Sample { at, processes: vec![worker.clone()], ..Sample::default() };
        let _ = meter.line(at(0.0, &worker), Bounds::default());
        (worker.shares, worker.rss) = (None, 230 * MIB);
        let line = meter.line(at(1.0, &worker), Bounds::default()).map(|(line, _)| line).unwrap_or_default();
        assert_eq!((line.memory, line.memory_is.as_str()), (180 * MIB, "pss"));
        worker.pid = 3;
        let line = meter.line(at(2.0, &worker), Bounds::default()).map(|(line, _)| line).unwrap_or_default();
        assert_eq!((line.memory, line.memory_is.as_str()), (230 * MIB, "rss"));
    }
}
