//! What the watch itself costs.

use rustix::time::{ClockId, clock_gettime};

/// CPU seconds added up.
#[derive(Debug, Default)]
pub(super) struct Cost(f64);

impl Cost {
    /// Runs `work` and adds what it took.
    pub(super) fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = cpu_seconds();
        let done = work();
        self.0 += cpu_seconds() - before;
        done
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0
    }
}

/// CPU seconds of this process since it started.
#[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds of one process")]
pub(super) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
