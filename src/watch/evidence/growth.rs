//! The growth that live and ended workers show together. Pure.

use super::Evidence;
use super::epoch::PROOF;
use crate::watch::lives::{Ended, Life};
use crate::watch::to_u64;
use crate::watch::trend::{Estimate, Point, Slope, mean, median, slope};

/// Lasting growth takes so many blocks to be told from a warm-up: an hour.
const BLOCKS_OF_GROWTH: f64 = 6.0;

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

impl Evidence {
    /// The growth that the workers have in common since the last restart (or before it, while that is not yet long ago).
    /// `None`: not watched for long enough.
    pub fn growth(&self) -> Option<Growth> {
        let enough = self.block_length * BLOCKS_OF_GROWTH;
        let from = self.run.from?;
        if self.run.until - from < enough * 0.98 {
            return self.growth_before.clone();
        }
        let settled: Vec<&[Point]> = self.workers.iter().map(Life::settled).collect();
        let ended = self.run.ended.all();
        let together = self.workers.len().max(1);
        let of = |value: fn(&Ended) -> f64| ended.iter().map(value).collect::<Vec<f64>>();
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
            baseline: to_u64(median(&mut baselines)?),
            a_life,
            single: if is_recycled { None } else { self.single(&settled) },
            from,
            until: self.run.until,
        })
    }

    /// A worker that grows for certain, and apart from the others.
    fn single(&self, settled: &[&[Point]]) -> Option<Single> {
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
