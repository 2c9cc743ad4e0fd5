//! The evidence between two starts of the service, and the common growth of its live and ended workers. Pure.

use super::epoch::PROOF;
use crate::watch::history::Series;
use crate::watch::lives::{Ended, LIVES, Life};
use crate::watch::to_u64;
use crate::watch::trend::{Estimate, Measurement, Slope, mean, median, slope, slope_of_work, without_steps};

/// The number of blocks after which growth is known: an hour.
const BLOCKS_OF_GROWTH: f64 = 6.0;

/// The number of blocks after which a leak whose growth is certain to continue is distinguished from a cache that fills: three
/// hours.
pub const LEAK_BLOCKS: f64 = 18.0;
/// The number of blocks after which any growth that has lasted is a leak: eight hours.
pub const UNEVEN_LEAK_BLOCKS: f64 = 48.0;
/// A worker may grow by a quarter of its initial memory before it is recycled.
pub const ALLOWED: f64 = 0.25;
/// The fraction of the growth in the first half of a life that the second half must show.
const GOES_ON: f64 = 0.75;

/// Growth of the workers since the service was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The common growth over time.
    pub all: Slope,
    /// The initial memory of a worker, in bytes.
    pub baseline: u64,
    /// The growth in a whole life, from recycle to recycle, if any lives were observed.
    pub a_life: Option<Estimate>,
    /// If some lives grew by more than [`ALLOWED`] and kept growing while the others did not: their number, the number of all
    /// lives, and their growth in bytes.
    pub some_lives: Option<(usize, usize, f64)>,
    /// The worker that grows while the others do not.
    pub single: Option<Single>,
    /// The number of seconds for which the worker that was observed longest has been observed.
    pub seen: f64,
    /// The beginning of the observation.
    pub from: f64,
    /// Its end.
    pub until: f64,
}

/// A worker that grows independently of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Single {
    /// Its process ID.
    pub pid: u64,
    /// Its growth.
    pub slope: Slope,
    /// The common growth of the others, in bytes per second.
    pub others: f64,
}

/// The evidence of the service between two of its starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) main: Option<(u64, f64)>,
    pub(super) from: Option<f64>,
    pub(super) until: f64,
    pub(super) ended: Series<Ended, LIVES>,
    /// Ages at recycling, in seconds.
    pub(super) ages: Vec<f64>,
}

impl Run {
    /// The common growth of these workers since the run began. `before`: the growth in the previous run, which is used until
    /// this one has been watched for long enough. `None`: not watched for long enough.
    pub(super) fn growth(
        &self,
        workers: &[Life],
        block_length: f64,
        before: Option<&Growth>,
    ) -> Option<Growth> {
        let enough = block_length * BLOCKS_OF_GROWTH;
        let from = self.from?;
        let watched = self.until - from;
        // A run that was watched for longer says more, until this one is long enough to distinguish a leak from a cache.
        let is_shorter = before.is_some_and(|before| before.seen > watched);
        if watched < enough * 0.98 || is_shorter && watched < block_length * LEAK_BLOCKS {
            return before.cloned();
        }
        let settled: Vec<&[Measurement]> = workers.iter().map(Life::settled).collect();
        let ended = self.ended.items();
        let together = workers.len().max(1);
        let of = |value: fn(&Ended) -> f64| ended.iter().map(value).collect::<Vec<f64>>();
        let by_lives = mean(&of(|life| life.per_second), together);
        // Complete lives are the best evidence; without any, the live workers are used.
        let is_recycled = by_lives.is_some() && self.ages.len() >= PROOF;
        let lasts = |lives: &Estimate| {
            let early = median(&mut of(|life| life.early)).unwrap_or(0.0);
            let late = median(&mut of(|life| life.late)).unwrap_or(0.0);
            lives.low > 0.0 && early > 0.0 && late >= early * GOES_ON
        };
        let a_life = if is_recycled { mean(&of(|life| life.growth), together) } else { None };
        let all = match by_lives.filter(|_| is_recycled) {
            Some(by_clock) => Slope {
                per_second: by_clock.value,
                low: by_clock.low,
                high: by_clock.high,
                lasting: a_life.as_ref().is_some_and(lasts),
                steady: false,
            },
            None => slope_of_workers(&settled)?,
        };
        let mut baselines = of(|life| life.baseline);
        baselines.extend(settled.iter().filter_map(|points| points.first()).map(|point| point.value));
        let baseline = median(&mut baselines)?;
        let is_leak = |life: &&Ended| {
            life.growth > baseline * ALLOWED && life.early > 0.0 && life.late >= life.early * GOES_ON
        };
        let mut leaks: Vec<f64> = ended.iter().filter(is_leak).map(|life| life.growth).collect();
        let some_lives = (is_recycled && leaks.len() >= PROOF && leaks.len() * 10 >= ended.len())
            .then(|| Some((leaks.len(), ended.len(), median(&mut leaks)?)))
            .flatten();
        Some(Growth {
            all,
            baseline: to_u64(baseline),
            a_life,
            some_lives,
            single: if is_recycled { None } else { single(workers, &settled) },
            seen: workers.iter().map(Life::watched).fold(0.0, f64::max),
            from,
            until: self.until,
        })
    }
}

/// A worker that certainly grows, and independently of the others.
fn single(workers: &[Life], settled: &[&[Measurement]]) -> Option<Single> {
    let slopes: Vec<Option<Slope>> = settled.iter().map(|points| slope_of_workers(&[points])).collect();
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
    let pid = workers.get(index)?.pid;
    is_apart.then_some(Single { pid, slope: steepest, others })
}

/// The growth over time; or, if growth continues only relative to them, over the work done or between steps.
fn slope_of_workers(settled: &[&[Measurement]]) -> Option<Slope> {
    let by_clock = slope(settled)?;
    let by_work = || slope_of_work(settled);
    let between_steps = || {
        let level: Vec<Option<Vec<Measurement>>> =
            settled.iter().map(|points| without_steps(points)).collect();
        let points = |(level, settled)| Option::as_deref(level).unwrap_or(settled);
        let histories: Vec<&[Measurement]> = level.iter().zip(settled.iter().copied()).map(points).collect();
        if level.iter().any(Option::is_some) { slope(&histories) } else { None }
    };
    let lasting = |slope: &Slope| slope.lasting;
    let otherwise = || by_work().filter(lasting).or_else(|| between_steps().filter(lasting));
    if by_clock.lasting { Some(by_clock) } else { Some(otherwise().unwrap_or(by_clock)) }
}
