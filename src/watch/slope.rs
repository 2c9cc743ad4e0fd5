//! Growth as a robust slope with its uncertainty. Pure.
//!
//! - The slope is Theil's and Sen's: the median of the slopes of all pairs of points. Up to 29 % of the points may
//!   be anything (spikes of heavy requests) without moving it.
//! - Several lives of workers are pooled as Hirsch, Slack and Smith pool seasons ("Techniques of trend analysis for
//!   monthly water quality data", 1982): pairs are made within a life only, the variances of Kendall's S are added.
//! - The interval is Sen's ("Estimates of the regression coefficient based on Kendall's tau", 1968), from the
//!   variance of S with its correction for ties.
//! - Memory is a process with a memory: neighbouring points are alike, and the interval would be too narrow. The
//!   variance is widened by the autocorrelation of the residuals' ranks (Hamed and Rao, 1998), never narrowed.

use super::number;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds on a clock that never jumps.
    pub at: f64,
    /// The value, in bytes here.
    pub value: f64,
}

/// A slope in bytes a second, with the bounds of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The estimate.
    pub per_second: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// The standard normal's 97.5 % quantile.
const Z_95: f64 = 1.959_963_984_540_054;
/// A block of fewer points says nothing.
const FEWEST_POINTS: usize = 6;

/// The slope common to all blocks; `None` where no block has enough points.
pub fn slope(blocks: &[&[Point]]) -> Option<Slope> {
    let blocks: Vec<&[Point]> = blocks.iter().copied().filter(|b| b.len() >= FEWEST_POINTS).collect();
    let mut slopes: Vec<f64> = Vec::new();
    for block in &blocks {
        pairs(block, &mut slopes);
    }
    let middle = median(&mut slopes)?;
    let variance: f64 =
        blocks.iter().map(|block| variance_of_s(block) * widening(block, middle)).sum::<f64>();

    let count = number(slopes.len() as u64);
    let half_width = Z_95 * variance.sqrt();
    // Ranks from 1: the lower bound's from the bottom, the upper's one above its mirror; past the ends nothing is
    // known.
    let mut rank = |rank: f64, outside: f64| {
        let place = usize::try_from(super::whole(rank - 1.0)).unwrap_or(usize::MAX);
        if rank < 1.0 || place >= slopes.len() {
            return outside;
        }
        *slopes.select_nth_unstable_by(place, f64::total_cmp).1
    };
    let low = rank(((count - half_width) / 2.0).floor(), f64::NEG_INFINITY);
    let high = rank(count.midpoint(half_width).ceil() + 1.0, f64::INFINITY);
    // With an interval of no width both ranks straddle the median.
    Some(Slope { per_second: middle, low: low.min(middle), high: high.max(middle) })
}

/// The slopes of all pairs of one block.
fn pairs(block: &[Point], slopes: &mut Vec<f64>) {
    for (index, a) in block.iter().enumerate() {
        for b in block.iter().skip(index + 1) {
            if b.at > a.at {
                slopes.push((b.value - a.value) / (b.at - a.at));
            }
        }
    }
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

/// The variance of Kendall's S under no trend, with the correction for tied values.
fn variance_of_s(block: &[Point]) -> f64 {
    let mut values: Vec<f64> = block.iter().map(|point| point.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let term = |n: u64| number(n) * (number(n) - 1.0) * (2.0 * number(n) + 5.0);
    let tied: f64 =
        values.chunk_by(|a, b| a.total_cmp(b).is_eq()).map(|group| term(group.len() as u64)).sum();
    (term(values.len() as u64) - tied) / 18.0
}

/// By how much neighbours that are alike widen the variance; at least 1.
fn widening(block: &[Point], slope: f64) -> f64 {
    let residuals: Vec<f64> = block.iter().map(|point| point.value - slope * point.at).collect();
    let ranks = ranks(&residuals);
    let count = number(ranks.len() as u64);
    let mean = ranks.iter().sum::<f64>() / count;
    let spread: f64 = ranks.iter().map(|rank| (rank - mean).powi(2)).sum();
    if spread <= 0.0 {
        return 1.0;
    }
    let significant = Z_95 / count.sqrt();
    let mut sum = 0.0;
    // The lags up to the first that is no longer significant: beyond it there is only noise.
    for lag in 1..ranks.len().saturating_sub(2) {
        let covariance: f64 =
            ranks.iter().zip(ranks.iter().skip(lag)).map(|(a, b)| (a - mean) * (b - mean)).sum();
        let correlation = covariance / spread;
        if correlation <= significant {
            break;
        }
        let rest = count - number(lag as u64);
        sum += rest * (rest - 1.0) * (rest - 2.0) * correlation;
    }
    (1.0 + 2.0 * sum / (count * (count - 1.0) * (count - 2.0))).max(1.0)
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_unstable_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0u64;
    for group in order.chunk_by(|a, b| a.1.total_cmp(&b.1).is_eq()) {
        let size = group.len() as u64;
        let shared = number(before) + number(size).midpoint(1.0);
        for (index, _) in group {
            if let Some(rank) = ranks.get_mut(*index) {
                *rank = shared;
            }
        }
        before += size;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::{Point, Slope, median, ranks, slope};
    use crate::watch::number;

    /// A small generator of reproducible noise in 0..1 (an LCG of Knuth's MMIX).
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            number(self.0 >> 40) / number(1 << 24)
        }
    }

    fn series(count: u64, mut value: impl FnMut(u64) -> f64) -> Vec<Point> {
        (0..count).map(|n| Point { at: number(n) * 2.0, value: value(n) }).collect()
    }

    fn found(points: &[Point]) -> Slope {
        slope(&[points]).unwrap_or(Slope { per_second: f64::NAN, low: f64::NAN, high: f64::NAN })
    }

    #[test]
    fn the_median_of_all_pairs() {
        // 10, 15, 14, 20 at 1, 2, 3, 4 has the slopes 5, 2, 10/3, -1, 2.5 and 6.
        let mut slopes = vec![5.0, 2.0, 10.0 / 3.0, -1.0, 2.5, 6.0];
        assert_eq!(median(&mut slopes), Some(2.5f64.midpoint(10.0 / 3.0)));
        assert_eq!(median(&mut []), None);
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn a_known_slope_lies_within_its_interval_in_19_of_20_cases() {
        let truth = 300.0;
        let mut within = 0;
        for seed in 0..200 {
            let mut noise = Noise(seed);
            let points = series(100, |n| 1e8 + truth * number(n) * 2.0 + 20_000.0 * noise.next());
            let got = found(&points);
            assert!((got.per_second - truth).abs() < 60.0, "{got:?}");
            if got.low <= truth && truth <= got.high {
                within += 1;
            }
        }
        assert!((182..=200).contains(&within), "{within} of 200");
    }

    #[test]
    fn spikes_do_not_move_it() {
        let mut noise = Noise(7);
        let points = series(120, |n| {
            let spike = if n % 5 == 0 { 4e8 * noise.next() } else { 0.0 };
            2e8 + 1000.0 * number(n) * 2.0 + spike
        });
        let got = found(&points);
        assert!((got.per_second - 1000.0).abs() < 250.0, "{got:?}");
        assert!(got.low <= 1000.0 && got.high >= 1000.0, "{got:?}");
    }

    #[test]
    fn a_walk_without_a_trend_is_hardly_ever_taken_for_growth() {
        // Neighbours alike (0.9): without the widening about half of these would look significant.
        let mut wrong = 0;
        for seed in 0..200 {
            let mut noise = Noise(seed + 1000);
            let mut state = 0.0;
            let points = series(120, |_| {
                state = 0.9 * state + noise.next() - 0.5;
                2e8 + 1e6 * state
            });
            let got = found(&points);
            if got.low > 0.0 || got.high < 0.0 {
                wrong += 1;
            }
        }
        assert!(wrong <= 40, "{wrong} of 200");
    }

    #[test]
    fn lives_are_pooled_without_pairs_across_them() {
        // Each life starts anew at the bottom: joined they would look flat.
        let first = series(40, |n| 1e8 + 500.0 * number(n) * 2.0);
        let second: Vec<Point> = first.iter().map(|p| Point { at: p.at + 200.0, ..*p }).collect();
        let got = slope(&[&first, &second]).map(|s| (s.per_second, s.low, s.high));
        assert_eq!(got, Some((500.0, 500.0, 500.0)));
    }

    #[test]
    fn constant_short_and_degenerate() {
        let flat = found(&series(50, |_| 1e8));
        assert_eq!((flat.per_second, flat.low, flat.high), (0.0, 0.0, 0.0));
        assert_eq!(slope(&[&series(5, number)]), None);
        assert_eq!(slope(&[]), None);
        // A clock that stands still gives no pair at all.
        let stuck: Vec<Point> = (0..20).map(|n| Point { at: 1.0, value: number(n) }).collect();
        assert_eq!(slope(&[&stuck]), None);
    }
}
