//! Determines whether workers keep failing before any of them has answered. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pypnm_sizing::watch::role::Candidate;

use crate::service::process::Stat;

/// A start has failed when each worker has failed this many times before the first answer.
const FAILURES: usize = 3;

/// The workers seen so far: the processes that uvicorn's parent starts with Python's multiprocessing.
#[derive(Debug, Default)]
pub(super) struct Workers {
    seen: BTreeSet<u32>,
    /// Those that failed, according to the exit status that the kernel shows until they are reaped.
    pub(super) failed: BTreeSet<u32>,
    /// The maximum number that were alive at once.
    most: usize,
}

impl Workers {
    pub(super) fn update(
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
                && (Candidate { pid: *pid, parent: stat.parent, arguments: &command_line(*pid) }).is_spawned()
            {
                self.seen.insert(*pid);
            }
        }
        let alive = family.iter().filter(|(pid, stat)| !stat.has_ended() && self.seen.contains(pid)).count();
        self.most = self.most.max(alive);
    }

    /// Whether each of them has failed several times. Workers that were killed by another process are not counted, as on an
    /// overloaded machine.
    pub(super) fn keep_failing(&self) -> bool {
        self.most > 0 && self.failed.len() >= FAILURES * self.most
    }
}
