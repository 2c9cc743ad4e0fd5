//! The result of judging a unit or a process.

use std::time::Duration;

use super::facts::{Expected, Facts, ProcessFacts};
use super::live::Live;
use super::topic::{State, Topic};
use super::verdict::Verdict;
use crate::service::running::Running;

/// A worker that ends at its recycle limit is replaced within about a second. One is missing if it still is after this many
/// attempts.
const ATTEMPTS: u32 = 4;
/// The time between two attempts.
pub(super) const PAUSE: Duration = Duration::from_millis(700);

/// A judged unit or process.
pub(crate) struct Judged {
    pub(crate) unit: String,
    /// `None`: systemd could not be queried.
    pub(crate) facts: Option<Facts>,
    /// For a process that is not a unit, or a unit whose PyPNM runs in a container.
    pub(crate) process: Option<ProcessFacts>,
    pub(crate) verdict: Verdict,
}

impl Judged {
    pub(crate) fn state(&self) -> State {
        self.verdict.state()
    }

    /// What fits the machine now, if that is known.
    pub(crate) fn expected(&self) -> Option<&Result<Expected, String>> {
        let of_process = self.process.as_ref().map(|facts| &facts.expected);
        of_process.or(self.facts.as_ref().map(|facts| &facts.expected))
    }

    /// Its processes, if it is running and they are visible.
    pub(crate) fn running(&self) -> Option<&Running> {
        match (&self.process, &self.facts) {
            (Some(process), _) => Some(&process.running),
            (None, Some(Facts { live: Live::Running(running), .. })) => Some(running),
            (None, _) => None,
        }
    }

    /// The number of workers that are alive, if that is known.
    pub(crate) fn workers_alive(&self) -> Option<i64> {
        let is_stopped = self.facts.as_ref().is_some_and(|facts| facts.live == Live::Inactive);
        self.running().map(|running| running.workers).or(is_stopped.then_some(0))
    }
}

/// Calls `judge`, and again while the leading finding is that workers are missing.
pub(super) fn judged_when_complete<T>(judge: &mut impl FnMut() -> T, verdict: impl Fn(&T) -> &Verdict) -> T {
    let mut judged = judge();
    for _ in 1..ATTEMPTS {
        if verdict(&judged).leading().is_none_or(|finding| finding.topic != Topic::WorkersMissing) {
            break;
        }
        std::thread::sleep(PAUSE);
        judged = judge();
    }
    judged
}
