//! What the watch itself costs, and the kernel's clocks.

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
pub(super) fn cpu_seconds() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// Seconds since the machine booted, time asleep included; what sets the calendar doesn't move it.
pub(super) fn seconds_since_boot() -> f64 {
    seconds(ClockId::Boottime)
}

#[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds since a boot")]
fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
