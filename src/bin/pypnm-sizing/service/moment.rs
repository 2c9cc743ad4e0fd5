//! Moments on the wall clock, in nanoseconds since 1970: when a file was last changed, and when a process started.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pypnm_sizing::root::Root;
use rustix::time::{ClockId, clock_gettime};

use super::process::Stat;

/// The unit of start times in /proc (USER_HZ in proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// When a file was last changed. `None`: it cannot be examined.
pub(crate) fn changed(root: &Root, path: &str) -> Option<i128> {
    let stat = root.stat(path)?;
    #[allow(clippy::useless_conversion, reason = "their types differ between architectures")]
    Some(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
}

/// When a process started: the end of the tick in which it did. `None`: it is gone or hidden.
pub(crate) fn started(machine: &Root, pid: u32) -> Option<i128> {
    let ticks = u32::try_from(Stat::read(machine, pid)?.started).ok()?;
    ago(on_clock(ClockId::Boottime).saturating_sub(TICK * ticks.saturating_add(1)))
}

/// The moment `age` ago.
pub(crate) fn ago(age: Duration) -> Option<i128> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i128::try_from(now.checked_sub(age)?.as_nanos()).ok()
}

/// The time on a clock of the kernel.
pub(crate) fn on_clock(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
