//! Determines whether the profile that systemd has loaded, and the one in use, fit the machine: gathers facts, then judges them.
//!
//! ```text
//!  facts, live  the state of systemd, the files and the processes             read files
//!  verdict      the findings that follow (also: active, next_start, running)  pure
//!  topic        the topics of findings, and their meanings
//!  process      the same for a process that is not a unit
//!  judged       the result; summary: as a line of a monitoring plugin
//! ```

mod active;
mod facts;
mod judged;
mod live;
mod next_start;
pub(crate) mod process;
mod running;
pub(crate) mod summary;
#[cfg(test)]
mod tests;
mod topic;
mod verdict;

use pypnm_sizing::root::Root;
use pypnm_sizing::sized::Sizing;

use crate::service::systemctl::SystemctlError;
use crate::wording::is_a_template;
pub(crate) use facts::Facts;
use facts::gather;
pub(crate) use judged::Judged;
use judged::{PAUSE, judged_when_complete};
pub(crate) use live::{Live, server};
pub(crate) use topic::{Finding, State, Topic};
pub(crate) use verdict::Verdict;

/// What is judged, and how.
pub(crate) struct Question<'a> {
    pub(crate) root: &'a Root,
    pub(crate) sizing: &'a Sizing,
    /// Whether a service that is not active is critical even if an operator stopped it.
    pub(crate) must_run: bool,
}

/// The units to judge: those in the configuration, or only the requested one.
pub(crate) fn names(sizing: &Sizing, asked: Option<&str>) -> Vec<String> {
    asked.map_or_else(|| sizing.names.clone(), |asked| vec![asked.to_owned()])
}

impl Question<'_> {
    /// Judges the units `names`.
    pub(crate) fn judge_all(&self, names: &[String]) -> Vec<Judged> {
        names.iter().map(|name| self.judge(name)).collect()
    }

    /// Judges a unit, and again while only a worker seems to be missing, or if the service has just been restarted.
    pub(crate) fn judge(&self, name: &str) -> Judged {
        let mut restarts = None;
        let mut judge = || {
            let judged = self.judge_once(name, restarts);
            restarts = restarts.or(judged.facts.as_ref().map(|facts| facts.loaded.automatic_restarts));
            judged
        };
        let mut judged = judged_when_complete(&mut judge, |judged| &judged.verdict);
        while judged.facts.as_ref().is_some_and(Facts::is_unsettled) {
            std::thread::sleep(PAUSE);
            judged = judge();
        }
        judged
    }

    /// `restarts`: the number of automatic restarts when the unit was first judged.
    fn judge_once(&self, name: &str, restarts: Option<u64>) -> Judged {
        let unit = name.to_owned();
        let without_facts = |topic, text| {
            let verdict = Verdict::only(Finding::new(topic, State::Unknown, text));
            Judged { unit: unit.clone(), facts: None, process: None, verdict }
        };
        if let Some((stem, _)) = name.split_once("@.") {
            return without_facts(Topic::Template, format!("it {}", is_a_template(stem)));
        }
        let facts = match gather(self.root, self.sizing, name, restarts) {
            Ok(facts) => facts,
            Err(error) => {
                let hint = match error {
                    SystemctlError::NoSystemctl | SystemctlError::NotRunning(_) => {
                        "; without it, 'pypnm-sizing env --write FILE' writes PyPNM's profile"
                    }
                    _ => "",
                };
                return without_facts(Topic::NoSystemd, format!("{error}{hint}"));
            }
        };
        let verdict = verdict::verdict(&facts, self.must_run);
        match facts.contained {
            // The unit's environment is the engine's, not PyPNM's.
            Some(pid) => process::judge_contained(self.root, pid, facts, verdict),
            None => Judged { unit, facts: Some(facts), process: None, verdict },
        }
    }
}

/// The worst state of all units; without any, all is well.
pub(crate) fn worst(judged: &[Judged]) -> State {
    judged.iter().map(Judged::state).max().unwrap_or(State::Ok)
}
