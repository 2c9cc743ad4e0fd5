//! Data of bounded size for a watch of unbounded length: a series that thins itself out, a histogram, a sparkline. Pure.

use std::collections::{BTreeMap, VecDeque};

/// The maximum number of points that a sparkline is drawn from. With a sample every two seconds, the series of a day has a
/// point every 384 or 768 s.
pub const POINTS: usize = 240;

/// A value at a point in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The time in seconds.
    pub at: f64,
    /// The value.
    pub value: f64,
}

/// A series of fewer than `MOST` items. When it is full, every second item is dropped, and only every second one is added from
/// then on, so that the remaining ones are spread evenly.
#[derive(Clone, Debug)]
pub struct Series<T, const MOST: usize> {
    items: Vec<T>,
    /// One in this number of items is added.
    stride: u32,
    /// The number of items to skip before the next one is added.
    pass: u32,
}

impl<T, const MOST: usize> Default for Series<T, MOST> {
    fn default() -> Self {
        Self { items: Vec::new(), stride: 1, pass: 0 }
    }
}

impl<T, const MOST: usize> Series<T, MOST> {
    /// Adds an item, or skips it.
    pub fn push(&mut self, item: T) {
        if self.pass > 0 {
            self.pass -= 1;
            return;
        }
        self.items.push(item);
        self.pass = self.stride - 1;
        if self.items.len() >= MOST {
            let mut keep = false;
            self.items.retain(|_| {
                keep = !keep;
                keep
            });
            // The last item was dropped, so the next one is due after the old interval.
            self.stride = self.stride.saturating_mul(2);
        }
    }

    /// The items in the series.
    pub fn items(&self) -> &[T] {
        &self.items
    }
}

/// A histogram of numbers. Its size is proportional to their range, so use coarse units (MiB, whole CPUs).
#[derive(Clone, Debug, Default)]
pub struct Tally {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Tally {
    /// Counts a number.
    pub fn add(&mut self, number: u64) {
        *self.counts.entry(number).or_default() += 1;
        self.total += 1;
    }

    /// The number of values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest number that at least this percentage of values does not exceed (nearest rank).
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(number, count)| {
            seen += count;
            (seen >= rank).then_some(*number)
        })
    }
}

/// The latest `MOST` items.
#[derive(Clone, Debug)]
pub struct Latest<T, const MOST: usize> {
    items: VecDeque<T>,
}

impl<T, const MOST: usize> Default for Latest<T, MOST> {
    fn default() -> Self {
        Self { items: VecDeque::new() }
    }
}

impl<T, const MOST: usize> Latest<T, MOST> {
    /// Adds an item, and drops the oldest one if necessary.
    pub fn push(&mut self, item: T) {
        if self.items.len() >= MOST {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    /// Removes and returns the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    /// Removes and returns the newest item.
    pub fn pop_newest(&mut self) -> Option<T> {
        self.items.pop_back()
    }
}

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const LETTERS: [char; 8] = ['_', '.', ',', '-', '=', '+', '*', '#'];

/// A line of `width` characters, each for the maximum in a period of time, scaled between the minimum and the maximum.
/// Uses letters if the terminal has no block characters.
pub fn sparkline(points: &[Point], width: usize, letters: bool) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return String::new();
    };
    let width = width.min(points.len());
    let mut columns: Vec<Option<f64>> = vec![None; width];
    let step = ((last.at - first.at) / super::number(width as u64)).max(f64::MIN_POSITIVE);
    for point in points {
        let column = usize::try_from(super::to_u64(((point.at - first.at) / step).floor())).unwrap_or(0);
        if let Some(highest) = columns.get_mut(column.min(width.saturating_sub(1))) {
            *highest = Some(highest.map_or(point.value, |so_far| so_far.max(point.value)));
        }
    }
    let bottom = points.iter().map(|point| point.value).fold(f64::INFINITY, f64::min);
    let top = points.iter().map(|point| point.value).fold(f64::NEG_INFINITY, f64::max);
    let marks = if letters { LETTERS } else { BLOCKS };
    // Differences below one percent are not shown.
    let range = (top - bottom).max(top.abs() / 100.0).max(f64::MIN_POSITIVE);
    let mut previous = bottom;
    columns
        .into_iter()
        .map(|column| {
            previous = column.unwrap_or(previous);
            let level = super::to_u64((previous - bottom) / range * 7.0);
            usize::try_from(level).ok().and_then(|level| marks.get(level)).copied().unwrap_or(' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Latest, POINTS, Point, Series, Tally, sparkline};
    use crate::watch::number;

    fn points(values: &[u64]) -> Vec<Point> {
        values.iter().zip(0u64..).map(|(v, n)| Point { at: number(n), value: number(*v) }).collect()
    }

    #[test]
    fn a_series_is_bounded_and_evenly_spaced() {
        let mut series = Series::<Point, POINTS>::default();
        for n in 0..1_000_000u64 {
            series.push(Point { at: number(n), value: 0.0 });
            assert!(series.items().len() <= POINTS);
        }
        let kept = series.items();
        assert!(kept.len() >= POINTS / 2 - 1, "{}", kept.len());
        let gaps: Vec<f64> =
            kept.iter().zip(kept.iter().skip(1)).map(|(earlier, later)| later.at - earlier.at).collect();
        assert!(gaps.iter().all(|gap| gaps.first() == Some(gap)), "{gaps:?}");
        assert_eq!(kept.first().map(|point| point.at), Some(0.0));
        assert!(kept.last().is_some_and(|point| point.at > 980_000.0));
    }

    #[test]
    fn percentiles_by_the_nearest_rank() {
        let mut tally = Tally::default();
        assert_eq!(tally.percentile(95), None);
        (1..=20).for_each(|n| tally.add(n));
        let of = |tally: &Tally, percents: [u64; 4]| percents.map(|percent| tally.percentile(percent));
        assert_eq!(of(&tally, [0, 50, 95, 100]), [Some(1), Some(10), Some(19), Some(20)]);
        tally.add(21);
        assert_eq!((tally.percentile(100), tally.total()), (Some(21), 21));
    }

    #[test]
    fn the_latest_few() {
        let mut latest = Latest::<u32, 2>::default();
        (0..5).for_each(|n| latest.push(n));
        assert_eq!((latest.pop(), latest.pop(), latest.pop()), (Some(3), Some(4), None));
        (5..8).for_each(|n| latest.push(n));
        assert_eq!((latest.pop_newest(), latest.pop_newest(), latest.pop_newest()), (Some(7), Some(6), None));
    }

    #[test]
    fn sparklines() {
        assert_eq!(sparkline(&points(&[0, 1, 2, 3, 4, 5, 6, 7]), 8, false), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&points(&[0, 7, 0, 7]), 2, true), "##");
        assert_eq!(sparkline(&points(&[100_000, 100_001]), 8, true), "__", "no hill");
        assert_eq!(sparkline(&points(&[5]), 8, true), "_");
        assert_eq!(sparkline(&[], 8, true), "");
        assert_eq!(sparkline(&points(&[1, 2]), 0, true), "");
    }
}
