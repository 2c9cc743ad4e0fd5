//! Whether the workers keep failing before one has answered. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::service::process::Stat;

/// A service is given up when its workers have failed this many times each before the first answer.
const FAILURES: usize = 3;

/// The workers seen so far: the processes that uvicorn's parent starts by Python's multiprocessing.
#[derive(Debug, Default)]
pub(super) struct Workers {
    seen: BTreeSet<u32>,
    /// Those that failed, as the kernel says while they are not yet reaped.
    pub(super) failed: BTreeSet<u32>,
    /// The most that were alive at one time.
    most: usize,
}

impl Workers {
    pub(super) fn look(
        &mut self,
        family: &BTreeMap<u32, Stat>,
        main: u32,
        command_line: &dyn Fn(u32) -> Vec<String>,
    ) {
        for (pid, stat) in family {
            if stat.has_failed() && self.seen.contains(pid) {
                self.failed.insert(*pid);
            } else if !stat.has_ended()
                && *pid != main
                && !self.seen.contains(pid)
                && command_line(*pid).iter().any(|word| word.contains("spawn_main"))
            {
                self.seen.insert(*pid);
            }
        }
        let alive = family.iter().filter(|(pid, stat)| !stat.has_ended() && self.seen.contains(pid)).count();
        self.most = self.most.max(alive);
    }

    /// Whether each of them has failed several times. Those that others killed don't count: an overloaded machine is slow,
    /// not broken.
    pub(super) fn keep_failing(&self) -> bool {
        self.most > 0 && self.failed.len() >= FAILURES * self.most
    }
}
