//! The cost of watching, and the kernel's clocks.

use rustix::time::{ClockId, clock_gettime};

/// An accumulator of CPU time in seconds.
#[derive(Debug, Default)]
pub(super) struct Cost(f64);

impl Cost {
    /// Runs `work` and adds its CPU time.
    pub(super) fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let before = cpu_seconds();
        let done = work();
        self.0 += cpu_seconds() - before;
        done
    }

    pub(super) fn seconds(&self) -> f64 {
        self.0
    }
}

/// The CPU time of this process in seconds.
pub(super) fn cpu_seconds() -> f64 {
    seconds(ClockId::ProcessCPUTime)
}

/// Seconds since the machine booted, including time asleep. Setting the wall clock does not affect it.
pub(super) fn seconds_since_boot() -> f64 {
    seconds(ClockId::Boottime)
}

#[expect(clippy::cast_precision_loss, reason = "seconds and nanoseconds since a boot")]
fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
