//! The lives of workers: their memory as an envelope of bounded size, and the growth in lives that have ended. Pure.

use super::line::ProcessSample;
use super::number;
use super::trend::{Measurement, Slope, median, median_slope, slope};

/// The maximum number of points in an envelope.
const POINTS: usize = 120;
/// The maximum number of ended lives.
pub const LIVES: usize = 512;
/// A worker that is younger than this in its first sample, in seconds, started while watched; its first quarter is the
/// warm-up.
const NEWBORN: f64 = 60.0;

/// The lower envelope of a worker's memory: the minimum of each group of samples. Memory used by heavy requests is above it;
/// memory that is retained raises it. When it is full, adjacent groups are merged in pairs, so that it covers any length of time
/// evenly.
#[derive(Clone, Debug)]
pub struct Envelope {
    points: Vec<Measurement>,
    /// The number of samples per point.
    stride: u32,
    open: Option<(Measurement, u32)>,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, open: None }
    }
}

impl Envelope {
    /// Adds the next sample.
    pub fn push(&mut self, point: Measurement) {
        let (lowest, count) = match self.open {
            Some((open, count)) => (Measurement { value: open.value.min(point.value), ..open }, count + 1),
            None => (point, 1),
        };
        self.open = Some((lowest, count));
        if count < self.stride {
            return;
        }
        self.points.push(lowest);
        self.open = None;
        if self.points.len() >= POINTS {
            let joined = |pair: &[Measurement]| {
                let value = pair.iter().map(|point| point.value).fold(f64::INFINITY, f64::min);
                pair.first().map(|first| Measurement { value, ..*first })
            };
            self.points = self.points.chunks(2).filter_map(joined).collect();
            self.stride = self.stride.saturating_mul(2);
        }
    }

    /// The points of all complete groups.
    pub fn points(&self) -> &[Measurement] {
        &self.points
    }
}

/// A live worker.
#[derive(Clone, Debug)]
pub struct Life {
    /// The process ID.
    pub pid: u64,
    /// Its age in the last sample, in seconds.
    pub age: f64,
    /// The CPU time it has used, in seconds.
    pub cpu: f64,
    /// CPU use since the previous sample, in percent of one CPU; `None` in the first sample.
    pub busy: Option<f64>,
    /// Its growth as last computed.
    pub growth: Option<Slope>,
    /// Whether it started while watched.
    born: bool,
    /// Whether all its CPU time is known, because it is counted from its start or it started while watched.
    cpu_known: bool,
    envelope: Envelope,
}

impl Life {
    /// A worker in its first sample.
    pub fn new(process: &ProcessSample, at: f64) -> Self {
        let born = process.age_seconds < NEWBORN;
        let mut life = Self {
            pid: process.pid,
            age: process.age_seconds,
            cpu: process.cpu_ms.map_or(0.0, |ms| number(ms) / 1000.0),
            busy: None,
            growth: None,
            born,
            cpu_known: born || process.cpu_ms.is_some(),
            envelope: Envelope::default(),
        };
        life.remember(process, at);
        life
    }

    /// Whether this process is this worker: the process ID may have been reused.
    pub fn is(&self, process: &ProcessSample) -> bool {
        self.pid == process.pid && process.age_seconds >= self.age - 1.0
    }

    /// Adds a sample.
    pub fn go_on(&mut self, process: &ProcessSample, at: f64, elapsed: f64) {
        let counted = process.cpu_ms.map(|ms| number(ms) / 1000.0);
        let by_count = counted.map(|cpu| (cpu - self.cpu).max(0.0) * 100.0 / elapsed.max(f64::MIN_POSITIVE));
        self.busy = process.cpu_percent.or(by_count);
        self.cpu = counted.unwrap_or_else(|| self.cpu + self.busy.unwrap_or(0.0) / 100.0 * elapsed);
        self.age = process.age_seconds;
        self.remember(process, at);
    }

    fn remember(&mut self, process: &ProcessSample, at: f64) {
        self.envelope.push(Measurement { at, cpu: self.cpu, value: number(process.rss) });
    }

    /// The time for which it has been watched, in seconds.
    pub fn watched(&self) -> f64 {
        let points = self.envelope.points();
        points.first().zip(points.last()).map_or(0.0, |(first, last)| last.at - first.at)
    }

    /// Its history without the warm-up.
    pub fn settled(&self) -> &[Measurement] {
        let points = self.envelope.points();
        let skipped = if self.born { points.len() / 4 } else { 0 };
        points.get(skipped..).unwrap_or_default()
    }

    /// Computes its growth, which takes up to a millisecond.
    pub fn compute_growth(&mut self) {
        self.growth = slope(&[self.settled()]);
    }

    /// Its growth during its whole life, after it has ended; `None`: too little of it was observed.
    pub fn ended(&self, at: f64) -> Option<Ended> {
        // A worker grows because of work, and requests take CPU time. Only if it did nothing is time used instead.
        let by_cpu = self.cpu_known && self.cpu >= 1.0;
        let lifetime = if by_cpu { self.cpu } else { self.age };
        let all = self.envelope.points();
        let began = all.first()?.at - (self.age - (at - all.first()?.at)).max(0.0);
        let progress = |point: &Measurement| if by_cpu { point.cpu } else { point.at - began };
        let skip = if self.born { lifetime / 4.0 } else { 0.0 };
        let points: Vec<Measurement> = all.iter().filter(|point| progress(point) >= skip).copied().collect();
        if points.len() < 8 {
            return None;
        }
        let part = (points.len() / 6).max(1);
        let around = |points: Option<&[Measurement]>| {
            let points = points?;
            let at = points.iter().map(progress).sum::<f64>() / number(points.len() as u64);
            let mut values: Vec<f64> = points.iter().map(|point| point.value).collect();
            Some((at, median(&mut values)?))
        };
        let first = around(points.get(..part))?;
        let start = (points.len() - part) / 2;
        let middle = around(points.get(start..start + part))?;
        let last = around(points.get(points.len() - part..))?;
        let rate = |from: (f64, f64), to: (f64, f64)| {
            (to.0 > from.0).then(|| (to.1 - from.1) / (to.0 - from.0) * lifetime)
        };
        Some(Ended {
            growth: rate(first, last)?,
            early: rate(first, middle)?,
            late: rate(middle, last)?,
            per_second: median_slope(&points, |point| point.at)?,
            baseline: first.1,
        })
    }
}

/// A life that has ended: its growth in bytes during its whole life, at the average rates of the whole and of each
/// half, without the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// During the whole life.
    pub growth: f64,
    /// During the whole life at the rate of the first half.
    pub early: f64,
    /// During the whole life at the rate of the second half.
    pub late: f64,
    /// With time instead of CPU time as the measure.
    pub per_second: f64,
    /// Its memory after the warm-up.
    pub baseline: f64,
}

#[cfg(test)]
mod tests {
    use super::{Envelope, Life, Measurement, POINTS};
    use crate::watch::line::ProcessSample;
    use crate::watch::{number, to_u64};

    #[test]
    fn an_envelope_is_bounded_evenly_spaced_and_minimal() {
        let mut envelope = Envelope::default();
        for n in 0..1_000_000u64 {
            // One sample in two is taken during a heavy request.
            envelope.push(Measurement { at: number(n), cpu: 0.0, value: number(n) + number(n % 2) * 1e9 });
            assert!(envelope.points().len() <= POINTS);
        }
        let points = envelope.points();
        assert!(points.len() >= POINTS / 2, "{}", points.len());
        assert!(points.iter().all(|point| point.value <= point.at + 1e-9), "{points:?}");
        assert!(points.last().is_some_and(|point| point.at > 950_000.0));
    }

    #[test]
    fn growth_in_a_life_is_relative_to_cpu_time() {
        // 50 MB in 100 CPU seconds, two thirds of which are in the last quarter of the time.
        let mut life = Life::new(
            &ProcessSample { pid: 1, rss: 100_000_000, cpu_ms: Some(0), ..ProcessSample::default() },
            0.0,
        );
        for n in 1..=1000u64 {
            let cpu = if n <= 750 { number(n) / 22.5 } else { 33.3 + number(n - 750) / 3.75 };
            let process = ProcessSample {
                pid: 1,
                age_seconds: number(n),
                rss: to_u64(1e8 + cpu * 5e5),
                cpu_ms: Some(to_u64(cpu * 1000.0)),
                ..ProcessSample::default()
            };
            life.go_on(&process, number(n), 1.0);
        }
        let ended = life.ended(1000.0);
        assert!(ended.is_some_and(|ended| (ended.growth - 5e7).abs() < 2e6), "{ended:?}");
    }

    #[test]
    fn a_life_of_one_sample_has_no_growth() {
        let process = ProcessSample { pid: 1, rss: 5, ..ProcessSample::default() };
        let life = Life::new(&process, 0.0);
        assert_eq!(life.ended(0.5), None);
        assert!(life.is(&process) && !life.is(&ProcessSample { pid: 2, ..process.clone() }));
        let old = Life::new(&ProcessSample { age_seconds: 500.0, ..process.clone() }, 0.0);
        assert!(!old.is(&process), "the PID was reused");
    }
}
