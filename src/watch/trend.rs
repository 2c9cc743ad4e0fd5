//! Growth as a slope with its uncertainty. Pure.
//!
//! - The slope of a worker is that of Theil and Sen: the median of the slopes of all pairs of points, which is not affected by
//!   up to 29% of outliers. The common slope of several workers is the median of their slopes.
//! - The uncertainty is computed from the residuals of all workers, summed for each period of time: noise that all workers
//!   share (a burst of requests, the host reclaiming memory) counts once, not once per worker (Driscoll and Kraay, "Consistent
//!   covariance matrix estimation with spatially dependent panel data", 1998).
//! - Successive values of memory are correlated. The variance is multiplied by 1+2r/(1−p), where r is the correlation of adjacent
//!   residuals and p the ratio of the correlation at distance two to r, corrected for their bias in short series (Marriott and
//!   Pope, 1954); the interval is Student's, with as many degrees of freedom as there are independent periods.

use super::number;

/// A measurement of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Seconds on a monotonic clock.
    pub at: f64,
    /// The CPU time that the worker has used by then, in seconds.
    pub cpu: f64,
    /// Bytes.
    pub value: f64,
}

/// A slope in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The estimate.
    pub per_second: f64,
    /// The lower bound of the 95% confidence interval.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
    /// Growth is significant (99.9%) and continues: the second half grows like the first, which is true of a leak but not of a
    /// cache that fills or of a single step.
    pub lasting: bool,
    /// It is also certain (95%) that the second half grows like the first.
    pub steady: bool,
}

const Z_90: f64 = 1.644_853_626_951_473;
const Z_95: f64 = 1.959_963_984_540_054;
const Z_999: f64 = 3.290_526_731_491_896;
/// The minimum number of points of a history.
pub const MIN_POINTS: usize = 12;
/// The variance of the median of medians relative to that of least squares, for normally distributed noise.
const OF_MEDIANS: f64 = 1.25;
/// The maximum correlation of adjacent residuals.
const MAX_CORRELATION: f64 = 0.97;
/// The second half must show this fraction of the first half's growth.
const GOES_ON: f64 = 0.75;
/// The same for growth that is certain to continue.
const GOES_ON_STEADILY: f64 = 0.9;
/// The maximum number of steps that are removed from a history.
const MAX_STEPS: usize = 4;
/// The minimum height of a step, in median differences between adjacent points.
const STEP: f64 = 6.0;
/// The number of points on each side whose medians give the height of a step; at least two at an end of the history.
const AROUND_STEP: usize = 4;

/// The common slope of these histories; `None` if none has enough points.
pub fn slope(histories: &[&[Measurement]]) -> Option<Slope> {
    slope_along(histories, |point| point.at)
}

/// The same relative to the work done, in CPU seconds, at the mean pace of the work: growth caused by requests is uniform in
/// this measure, by day and by night.
pub fn slope_of_work(histories: &[&[Measurement]]) -> Option<Slope> {
    let pace = |points: &&[Measurement]| {
        let (first, last) = points.first().zip(points.last())?;
        Some((last.cpu - first.cpu) / (last.at - first.at).max(f64::MIN_POSITIVE))
    };
    let pace = median(&mut histories.iter().filter_map(pace).collect::<Vec<f64>>())?;
    let by_work = slope_along(histories, |point| point.cpu)?;
    Some(Slope {
        per_second: by_work.per_second * pace,
        low: by_work.low * pace,
        high: by_work.high * pace,
        lasting: by_work.lasting,
        steady: by_work.steady,
    })
}

/// The independent variable: time, or the work done.
type Axis = fn(&Measurement) -> f64;

fn slope_along(histories: &[&[Measurement]], axis: Axis) -> Option<Slope> {
    let longest = histories.iter().map(|points| span(points)).fold(0.0, f64::max);
    let histories: Vec<&[Measurement]> = histories
        .iter()
        .copied()
        .filter(|points| points.len() >= MIN_POINTS && span(points) * 2.0 >= longest)
        .collect();
    let common = |histories: &[&[Measurement]]| {
        let slopes = histories.iter().filter_map(|points| median_slope(points, axis));
        median(&mut slopes.collect::<Vec<f64>>())
    };
    let (first, second): (Vec<&[Measurement]>, Vec<&[Measurement]>) =
        histories.iter().map(|points| points.split_at(points.len() / 2)).unzip();
    // The error of each half is computed from its own points: curvature does not fit a single line, but is not noise.
    let of_half = |half: &[&[Measurement]]| Some((common(half)?, standard_error(half, axis)?.0));
    let (early, late) = (of_half(&first), of_half(&second));
    let per_second = common(&histories)?;
    let (error, freedom) = standard_error(&histories, axis)?;
    let width = quantile(Z_95, freedom) * error;
    let goes_on = early.zip(late).is_some_and(|((early, early_error), (late, late_error))| {
        let uncertain = Z_90 * late_error.hypot(GOES_ON * early_error);
        late >= GOES_ON * early - uncertain && late >= per_second / 2.0 && early > 0.0
    });
    let certainly_goes_on = early.zip(late).is_some_and(|((early, early_error), (late, late_error))| {
        late - GOES_ON_STEADILY * early >= Z_90 * late_error.hypot(GOES_ON_STEADILY * early_error)
    });
    let lasting = per_second > quantile(Z_999, freedom) * error && goes_on;
    let steady = lasting && certainly_goes_on;
    Some(Slope { per_second, low: per_second - width, high: per_second + width, lasting, steady })
}

/// The points without upward steps, such as the memory that a large request leaves behind: the points after a step are lowered by
/// its height. Growth that remains is not due to the steps. `None`: there are none.
pub fn without_steps(points: &[Measurement]) -> Option<Vec<Measurement>> {
    let mut level: Vec<Measurement> = points.to_vec();
    let mut removed = 0;
    while removed < MAX_STEPS
        && let Some((at, height)) = highest_step(&level)
    {
        level.iter_mut().skip(at).for_each(|point| point.value -= height);
        removed += 1;
    }
    (removed > 0).then_some(level)
}

/// The index of the first point after the highest upward step, and its height. A step is abrupt, and several times higher than
/// points usually differ from one to the next.
fn highest_step(points: &[Measurement]) -> Option<(usize, f64)> {
    let mut differences: Vec<f64> =
        points.iter().zip(points.iter().skip(1)).map(|(a, b)| (b.value - a.value).abs()).collect();
    let usual = median(&mut differences)?;
    let level =
        |points: &[Measurement]| median(&mut points.iter().map(|point| point.value).collect::<Vec<f64>>());
    let step = |at: usize| {
        let before = points.get(at.saturating_sub(AROUND_STEP)..at)?;
        let after = points.get(at..(at + AROUND_STEP).min(points.len()))?;
        if before.len() < 2 || after.len() < 2 {
            return None;
        }
        let height = level(after)? - level(before)?;
        let at_once = after.first()?.value - before.last()?.value;
        (height > STEP * usual && at_once * 2.0 > height).then_some((at, height))
    };
    (0..points.len()).filter_map(step).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn span(points: &[Measurement]) -> f64 {
    points.first().zip(points.last()).map_or(0.0, |(first, last)| last.at - first.at)
}

/// The median of the slopes of all pairs.
pub fn median_slope(points: &[Measurement], axis: impl Fn(&Measurement) -> f64) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, a) in points.iter().enumerate() {
        for b in points.iter().skip(index + 1) {
            let step = axis(b) - axis(a);
            if step > 0.0 {
                slopes.push((b.value - a.value) / step);
            }
        }
    }
    median(&mut slopes)
}

/// The standard error of the common slope, and its degrees of freedom.
fn standard_error(histories: &[&[Measurement]], axis: Axis) -> Option<(f64, f64)> {
    let step = histories
        .iter()
        .map(|points| span(points) / number(points.len() as u64 - 1))
        .fold(f64::MIN_POSITIVE, f64::max);
    // For each period of time: the residuals weighted by their distance from the middle, the residuals, and their number.
    let mut stretches: std::collections::BTreeMap<i64, (f64, f64, f64)> = std::collections::BTreeMap::new();
    let mut weight = 0.0;
    for points in histories {
        let slope = median_slope(points, axis)?;
        let count = number(points.len() as u64);
        let middle = points.iter().map(axis).sum::<f64>() / count;
        let mut offsets: Vec<f64> = points.iter().map(|p| p.value - slope * (axis(p) - middle)).collect();
        let offset = median(&mut offsets)?;
        for point in *points {
            let distance = axis(point) - middle;
            let residual = point.value - slope * distance - offset;
            let stretch = stretches.entry(index(point.at / step)).or_default();
            stretch.0 += distance * residual;
            stretch.1 += residual;
            stretch.2 += 1.0;
            weight += distance * distance;
        }
    }
    let count = number(stretches.len() as u64);
    if weight <= 0.0 || count < 6.0 {
        return None;
    }
    let squares: f64 = stretches.values().map(|(score, _, _)| score * score).sum();
    let residuals: Vec<f64> = stretches.values().map(|(_, sum, of)| sum / of).collect();
    let widened = widening(&residuals);
    let variance = squares / (weight * weight) * count / (count - 2.0) * widened * OF_MEDIANS;
    Some((variance.sqrt(), (count / widened - 2.0).max(2.0)))
}

#[expect(clippy::cast_possible_truncation, reason = "saturates; a number of a stretch of time")]
fn index(number: f64) -> i64 {
    number.floor() as i64
}

/// The variance of the mean of these values relative to that of as many independent values. White noise added to slow noise
/// reduces the correlation of adjacent values; the correlation at distance two shows how slow the noise is (an ARMA(1,1) process).
fn widening(values: &[f64]) -> f64 {
    let count = number(values.len() as u64);
    let mean = values.iter().sum::<f64>() / count;
    let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if spread <= 0.0 {
        return 1.0;
    }
    let correlation = |apart: usize| {
        let pairs = values.iter().zip(values.iter().skip(apart));
        let alike = pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / spread;
        (alike + (1.0 + 4.0 * alike) / count).clamp(0.0, MAX_CORRELATION)
    };
    let (first, second) = (correlation(1), correlation(2));
    let by_chance = 2.0 / count.sqrt();
    let kept = if first > by_chance { (second / first).clamp(first, MAX_CORRELATION) } else { first };
    1.0 + 2.0 * first / (1.0 - kept)
}

/// Student's quantile from that of the normal distribution (Hill, "Algorithm 396", 1970: the expansion by Fisher and Cornish).
pub fn quantile(z: f64, freedom: f64) -> f64 {
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}

/// An estimate with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// The mean of successive measurements of `together` workers at a time. Workers that ran at the same time share their noise,
/// so they count as one; fewer than three such groups give no interval.
pub fn mean(values: &[f64], together: usize) -> Option<Estimate> {
    let groups: Vec<f64> = values
        .chunks_exact(together.max(1))
        .map(|group| group.iter().sum::<f64>() / number(group.len() as u64))
        .collect();
    let count = number(groups.len() as u64);
    if groups.len() < 3 {
        return None;
    }
    let value = groups.iter().sum::<f64>() / count;
    let variance = groups.iter().map(|group| (group - value).powi(2)).sum::<f64>() / (count - 1.0);
    // One less than if the groups were fully independent.
    let width = quantile(Z_95, (count - 2.0).max(2.0)) * (variance / (count - 1.0)).sqrt();
    Some(Estimate { value, low: value - width, high: value + width })
}

/// The median; the slice is reordered.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (lower, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return Some(upper);
    }
    let lower = lower.iter().copied().max_by(f64::total_cmp)?;
    Some(lower.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use super::{Measurement, Slope, median, median_slope, quantile, slope, without_steps};
    use crate::watch::number;

    fn series(count: u64, value: impl Fn(u64) -> f64) -> Vec<Measurement> {
        (0..count).map(|n| Measurement { at: number(n) * 30.0, cpu: 0.0, value: value(n) }).collect()
    }

    fn found(points: &[Measurement]) -> Slope {
        slope(&[points]).unwrap_or_else(|| panic!("no slope"))
    }

    #[test]
    fn the_median_of_all_pairs() {
        // 10, 15, 14, 20 at 1, 2, 3, 4 has the slopes 5, 2, 10/3, -1, 2.5 and 6.
        let points: Vec<Measurement> = [(1.0, 10.0), (2.0, 15.0), (3.0, 14.0), (4.0, 20.0)]
            .map(|(at, value)| Measurement { at, cpu: 0.0, value })
            .to_vec();
        assert_eq!(median_slope(&points, |point| point.at), Some(2.5f64.midpoint(10.0 / 3.0)));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn students_quantiles() {
        // From the tables.
        for (freedom, t) in [(3.0, 3.182), (5.0, 2.571), (10.0, 2.228), (30.0, 2.042), (1e6, 1.960)] {
            assert!((quantile(super::Z_95, freedom) - t).abs() < 0.05, "{freedom}");
        }
    }

    #[test]
    fn a_cache_that_fills_and_a_single_step_do_not_last() {
        let jitter = |n: u64| number(n * 7919 % 13) * 1e4;
        let leak = found(&series(100, |n| 2e8 + number(n) * 1e5 + jitter(n)));
        assert!(leak.lasting && leak.low < 1e5 / 30.0 && 1e5 / 30.0 < leak.high, "{leak:?}");
        let cache = found(&series(100, |n| 2e8 + 8e7 * (1.0 - (-number(n) / 15.0).exp()) + jitter(n)));
        assert!(!cache.lasting, "{cache:?}");
        for at in [10, 30, 50, 70, 90] {
            let step = found(&series(100, |n| if n < at { 2e8 } else { 4e8 } + jitter(n)));
            assert!(!step.lasting, "{at}: {step:?}");
        }
    }

    #[test]
    fn steps_are_removed_and_nothing_else() {
        let jitter = |n: u64| number(n * 7919 % 13) * 1e5;
        let step = |n: u64, at: u64| if n < at { 0.0 } else { 6e7 };
        for at in [2, 30, 50, 70, 98] {
            let points = series(100, |n| 2e8 + number(n) * 8e5 + step(n, at) + jitter(n));
            let level = without_steps(&points).unwrap_or_default();
            let slope = found(&level);
            assert!(slope.lasting && (slope.per_second * 30.0 / 8e5 - 1.0).abs() < 0.1, "{at}: {slope:?}");
            let points = series(100, |n| 2e8 + step(n, at) + step(n, 40) + jitter(n));
            let slope = found(&without_steps(&points).unwrap_or_default());
            assert!(!slope.lasting && slope.per_second.abs() * 100.0 < 1e5, "{at}: {slope:?}");
        }
        let leak = series(100, |n| 2e8 + number(n) * 8e5 + jitter(n));
        let falls_at_once = series(100, |n| 2e8 + number(n % 25) * 4e6 + jitter(n));
        let cache = series(100, |n| 2e8 + 8e7 * (1.0 - (-number(n) / 5.0).exp()) + jitter(n));
        for points in [leak, falls_at_once, cache, series(3, number), Vec::new()] {
            assert_eq!(without_steps(&points), None);
        }
    }

    #[test]
    fn constant_series_have_no_growth_and_short_ones_no_slope() {
        let flat = found(&series(50, |_| 1e8));
        assert_eq!((flat.per_second, flat.low, flat.high, flat.lasting), (0.0, 0.0, 0.0, false));
        assert_eq!(slope(&[&series(11, number)]), None);
        assert_eq!(slope(&[]), None);
        // A clock that does not advance gives no pairs.
        let stuck: Vec<Measurement> =
            (0..20).map(|n| Measurement { at: 1.0, cpu: 0.0, value: number(n) }).collect();
        assert_eq!(slope(&[&stuck]), None);
    }
}
