//! Proves by a sequential test that requests wait for a worker. Pure.
//!
//! Busy blocks occur by chance: with requests of 20 s, every week has hours that look like a service in need of workers. Page's
//! cumulative sum ("Continuous inspection schemes", Biometrika 41, 1954) takes this into account. Each block adds the amount by
//! which it exceeds the middle of a range, and the sum never falls below 0. It proves demand once it exceeds what blocks that
//! vary this much reach by chance. So a busy hour is enough where requests are short; where they are long, it takes longer.
//!
//! Two quantities are tested: waiting as observed, which includes event loops that block without using the CPU, and the mean
//! use of the workers, which does not depend on the interval between samples. They are tested separately, because the larger of
//! two estimates is biased.

use crate::watch::block::{Block, COMPUTED_FROM, erlang_c};

/// The fraction of the time in which requests may wait without a need for more workers.
const FEW: f64 = 0.10;
/// The fraction at which more workers are needed. Four workers reach it at 49% of their capacity.
const MANY: f64 = 0.16;
/// The same for the mean use of one or two workers, of whose requests many wait at any use.
const MANY_USED: f64 = 0.33;
/// Demand is proven where the product of the sum and the range exceeds the variance this many times, plus the logarithm of the
/// number of blocks: the chance that a block exceeds it falls exponentially, and a longer watch has more blocks.
const EVIDENCE: f64 = 8.0;
/// The variance of a block that is assumed at the beginning, which is that of requests of 5 s, and the number of blocks whose
/// weight it has.
const ASSUMED: (f64, f64) = (0.0026, 4.0);
/// Waiting hardly varies while there is little of it, which says nothing about busier times: a variance below this one, of
/// requests of 10 s, is not relied on.
const MIN_OBSERVED: f64 = 0.0052;

/// The test of both quantities.
#[derive(Clone, Debug, Default)]
pub(super) struct Test {
    observed: Sum,
    used: Sum,
}

impl Test {
    /// Takes a block. Returns the start of the period that proves demand, if there is one.
    pub(super) fn take(&mut self, block: &Block) -> Option<f64> {
        let few = used_at(block.workers, FEW).max(COMPUTED_FROM);
        let many = used_at(block.workers, MANY).max(MANY_USED);
        // Of the requests to a single worker, more wait at the same use.
        let waits = (FEW.max(erlang_c(block.workers, few)), MANY.max(erlang_c(block.workers, many)));
        let observed = self.observed.add(block.from, block.observed(), waits, MIN_OBSERVED);
        let used = self.used.add(block.from, block.totals.used(), (few, many), 0.0);
        match (observed, used) {
            (Some(observed), Some(used)) => Some(observed.min(used)),
            (observed, used) => observed.or(used),
        }
    }
}

/// Page's sum for one quantity.
#[derive(Clone, Debug, Default)]
struct Sum {
    total: f64,
    /// Since when it has been above 0.
    from: f64,
    last: Option<f64>,
    /// The squares of the differences between successive blocks, and their number.
    squares: f64,
    differences: f64,
}

impl Sum {
    fn add(&mut self, at: f64, value: f64, (few, many): (f64, f64), least_variance: f64) -> Option<f64> {
        if let Some(last) = self.last.replace(value) {
            // Half of the mean square of successive differences is the variance, without slow changes such as day and night
            // (von Neumann, 1941).
            self.squares += (value - last).powi(2) / 2.0;
            self.differences += 1.0;
        }
        if self.total <= 0.0 {
            self.from = at;
        }
        self.total = (self.total + value - few.midpoint(many)).max(0.0);
        let (assumed, weight) = ASSUMED;
        let variance = (self.squares + assumed * weight) / (self.differences + weight);
        let evidence = EVIDENCE + (self.differences + 1.0).ln();
        (self.total * (many - few) >= evidence * variance.max(least_variance)).then_some(self.from)
    }
}

/// The mean use at which this fraction of the requests waits for one of `workers`.
fn used_at(workers: u64, waiting: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..30 {
        let middle = f64::midpoint(low, high);
        if erlang_c(workers, middle) < waiting {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::{FEW, MANY, Sum, used_at};
    use crate::watch::number;

    /// The block at which the sum proves demand, and since when.
    fn proven(values: impl IntoIterator<Item = f64>) -> Option<(u64, f64)> {
        let mut sum = Sum::default();
        (0..).zip(values).find_map(|(n, value)| Some((n, sum.add(number(n), value, (FEW, MANY), 0.0)?)))
    }

    #[test]
    fn the_more_blocks_vary_the_longer_it_takes() {
        let alternating = |by: f64| (0..1000).map(move |n| if n % 2 == 0 { 0.18 - by } else { 0.18 + by });
        let steady = proven(alternating(0.0)).map(|(block, _)| block);
        let varying = proven(alternating(0.1)).map(|(block, _)| block);
        assert!(steady.is_some_and(|block| block < 12), "{steady:?}");
        assert!(varying > Some(60) && varying < Some(160), "{varying:?}");
        assert_eq!(proven((0..1000).map(|n| if n % 2 == 0 { 0.0 } else { 0.24 })), None, "12% on average");
    }

    #[test]
    fn the_period_of_proof_begins_with_the_sum() {
        let quiet = std::iter::repeat_n(0.02, 50);
        let busy = std::iter::repeat_n(0.5, 50);
        let found = proven(quiet.chain(busy));
        assert!(found.is_some_and(|(block, from)| block < 54 && (from - 50.0).abs() < 0.1), "{found:?}");
    }

    #[test]
    fn the_utilization_at_which_requests_wait() {
        for (workers, waiting, used) in [(1, 0.3, 0.3), (4, 0.1739, 0.5), (2, 0.7111, 0.8)] {
            assert!((used_at(workers, waiting) - used).abs() < 1e-3, "{workers}");
        }
    }
}
