//! Determines whether what systemd has loaded, and what is running, fits the machine: first gathers facts, then judges them.
//!
//! ```text
//!  facts    what systemd, the processes and the files say         reads files
//!  in_use   the numbers that the processes use                    pure
//!  verdict  the findings that follow (also: active, running)      pure
//!  topic    the topics of findings, and their meanings
//!  process  the same for a process that is not a unit
//!  summary  verdicts as a line of a monitoring plugin
//! ```

mod active;
mod facts;
mod in_use;
pub(crate) mod process;
mod running;
pub(crate) mod summary;
#[cfg(test)]
mod tests;
mod topic;
mod verdict;

use std::time::Duration;

use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::Sizing;

use crate::service::systemctl::SystemctlError;
pub(crate) use facts::{Expected, Facts, Live, server};
use facts::{gather, other_process, other_units};
pub(crate) use topic::{Finding, State, Topic};
pub(crate) use verdict::Verdict;

/// A worker that ends at its limit is replaced within a second or so; only what stays is a finding.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(700);

/// A service that systemd has restarted is watched until it has been running for this long: one that keeps exiting is active
/// for most of the time.
const TIME_TO_SETTLE: Duration = Duration::from_secs(5);

/// One unit judged.
pub(crate) struct Judged {
    pub(crate) unit: String,
    /// `None`: systemd could not be asked.
    pub(crate) facts: Option<Facts>,
    /// Of a process that is no unit, or of a unit whose PyPNM runs in a container.
    pub(crate) process: Option<process::ProcessFacts>,
    pub(crate) verdict: Verdict,
}

impl Judged {
    pub(crate) fn state(&self) -> State {
        self.verdict.state()
    }

    /// What fits the machine now, where that is known.
    pub(crate) fn expected(&self) -> Option<&Result<Expected, String>> {
        let of_process = self.process.as_ref().map(|facts| &facts.expected);
        of_process.or(self.facts.as_ref().map(|facts| &facts.expected))
    }

    /// Its processes.
    pub(crate) fn live(&self) -> Option<&Live> {
        let of_process = self.process.as_ref().map(|facts| &facts.live);
        of_process.or(self.facts.as_ref().map(|facts| &facts.live))
    }
}

/// What is judged, and how.
pub(crate) struct Question<'a> {
    pub(crate) root: &'a Root,
    pub(crate) sizing: &'a Sizing,
    /// Whether a service that is not active is critical even if an operator stopped it.
    pub(crate) must_run: bool,
}

/// The units to judge: those of the configuration, or the one that was asked for.
pub(crate) fn names(sizing: &Sizing, asked: Option<&str>) -> Vec<String> {
    asked.map_or_else(|| sizing.names.clone(), |asked| vec![asked.to_owned()])
}

impl Question<'_> {
    /// Judges the units `names`.
    pub(crate) fn judge_all(&self, names: &[String]) -> Vec<Judged> {
        names.iter().map(|name| self.judge(name)).collect()
    }

    /// Judges one unit; looks again where only a worker seems to be missing, or where the service has just been restarted.
    pub(crate) fn judge(&self, name: &str) -> Judged {
        let mut judged = self.judge_once(name, None);
        let restarts = judged.facts.as_ref().map(|facts| facts.loaded.automatic_restarts);
        for _ in 1..LOOKS {
            if judged.verdict.leading().is_none_or(|finding| finding.topic != Topic::WorkersMissing) {
                break;
            }
            std::thread::sleep(PAUSE);
            judged = self.judge_once(name, restarts);
        }
        while judged.facts.as_ref().is_some_and(Facts::is_unsettled) {
            std::thread::sleep(PAUSE);
            judged = self.judge_once(name, restarts);
        }
        judged
    }

    /// `restarts`: the number of automatic restarts at the first look.
    fn judge_once(&self, name: &str, restarts: Option<u64>) -> Judged {
        let unit = name.to_owned();
        let without_facts = |topic, text| {
            let finding = Finding { topic, state: State::Unknown, text, fix: None };
            Judged { unit: unit.clone(), facts: None, process: None, verdict: Verdict::only(finding) }
        };
        if let Some((stem, _)) = name.split_once("@.") {
            let text = format!("it is a template; name an instance: --unit={stem}@NAME.service");
            return without_facts(Topic::Template, text);
        }
        let mut facts = match gather(self.root, self.sizing, name) {
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
        facts.was_restarted_meanwhile =
            restarts.is_some_and(|before| facts.loaded.automatic_restarts > before);
        if facts.live == Live::Not {
            let mut sized = self.sizing.config.units();
            sized.push(unit.clone());
            facts.other_units = other_units(self.root, &sized);
            facts.other_process = other_process(self.root);
        }
        let verdict = verdict::verdict(&facts, self.must_run);
        match facts.contained {
            // The unit's environment is the engine's, not PyPNM's.
            Some(pid) => process::judge_contained(self.root, pid, facts, verdict),
            None => Judged { unit, facts: Some(facts), process: None, verdict },
        }
    }
}

/// The worst state of all; of no unit at all it is fine.
pub(crate) fn worst(judged: &[Judged]) -> State {
    judged.iter().map(Judged::state).max().unwrap_or(State::Ok)
}
