//! Determines from the facts whether the profile that systemd has loaded, and the one in use, fit. Pure.
//!
//! ```text
//!  expected    what fits the machine now
//!  generated   what the generator wrote at the last reload      ≠ expected: reload
//!  loaded      what systemd has merged, with what overrides it  ≠ generated: the operator's override
//!  in use      what the running processes use                   ≠ loaded: restart
//! ```

use pypnm_sizing::parse::quantity::in_cpus;
use pypnm_sizing::pypnm::{self, Numbers};

use super::facts::{Expected, Facts};
use super::topic::{Finding, State, Topic};
use crate::service::generator::Generator;
use crate::service::in_use::InUse;
use crate::service::launch::Launch;
use crate::wording::brief;

pub(super) const APPLY: &str = "pypnm-sizing apply";

/// The verdict on a unit or a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// What the service gets at its next start, after a reload.
    pub(crate) next_start: Option<Numbers>,
    pub(crate) in_use: Option<InUse>,
    /// Whether all that is needed is a restart.
    pub(crate) needs_restart: bool,
}

impl Verdict {
    /// A verdict with a single finding, if nothing else can be judged.
    pub(crate) fn only(finding: Finding) -> Self {
        Self { findings: vec![finding], ..Self::default() }
    }

    pub(super) fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Reports the first mistake in sizing.conf(5), and the number of others.
    pub(super) fn report_mistakes(&mut self, mistakes: &[String]) {
        let Some((first, others)) = mistakes.split_first() else { return };
        let others = match others.len() {
            0 => String::new(),
            1 => " (and 1 more mistake)".to_owned(),
            number => format!(" (and {number} more mistakes)"),
        };
        let text = format!("{first}{others}");
        self.report(Finding::new(Topic::ConfigurationIgnored, State::Warning, text));
    }

    /// The worst of the findings.
    pub(crate) fn state(&self) -> State {
        self.findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
    }

    /// The first of the worst findings. `None`: all is well.
    pub(crate) fn leading(&self) -> Option<&Finding> {
        let state = self.state();
        self.findings.iter().find(|finding| finding.state == state && state != State::Ok)
    }

    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.findings.iter().any(|finding| finding.topic == topic)
    }
}

/// Judges a unit. `must_run`: a service that is not active is critical, even if an operator stopped it.
pub(crate) fn verdict(facts: &Facts, must_run: bool) -> Verdict {
    let mut judge = Judge { facts, must_run, verdict: Verdict::default() };
    judge.lost_program();
    let is_known = judge.service();
    match &facts.expected {
        _ if !is_known => {}
        // The settings loaded by systemd are those of the container engine; the process itself is judged.
        _ if facts.contained.is_some() => {}
        Err(why) => judge.not_sized(why),
        Ok(expected) => judge.sized(expected),
    }
    judge.verdict.report_mistakes(&facts.mistakes);
    judge.verdict
}

/// A unit being judged.
pub(super) struct Judge<'a> {
    pub(super) facts: &'a Facts,
    pub(super) must_run: bool,
    pub(super) verdict: Verdict,
}

impl Judge<'_> {
    pub(super) fn report(&mut self, finding: Finding) {
        self.verdict.report(finding);
    }

    fn not_sized(&mut self, why: &str) {
        self.report(if self.facts.generated.is_some() {
            let text = format!("it is {why}, but systemd still has the earlier profile");
            Finding::new(Topic::TurnedOff, State::Warning, text).fixed_by(APPLY)
        } else {
            Finding::new(Topic::TurnedOff, State::Ok, format!("it is {why}; PyPNM sizes itself"))
        });
    }

    fn sized(&mut self, expected: &Expected) {
        if let Some(file) = &self.facts.hidden_configuration {
            // It is unknown what the service should have.
            self.report(Finding::hidden(format!("{file} cannot be read by this user")));
        } else if self.is_in_force() {
            let (next_start, loaded) = self.next_start(expected);
            self.generated(expected, next_start, loaded);
            let next_start = self.lowered_at_start(expected, next_start);
            self.verdict.next_start = Some(next_start);
            self.running(expected, next_start);
        } else {
            let text = format!("PyPNM falls back to its own sizing; expected: {}", brief(expected.numbers));
            self.report(Finding::new(Topic::SizesItself, State::Warning, text));
        }
    }

    /// Whether systemd has our drop-in. Otherwise reports why not.
    fn is_in_force(&mut self) -> bool {
        let facts = self.facts;
        if let Some((path, has_content)) = &facts.rival {
            let (topic, what) = match has_content {
                true => (Topic::DropInReplaced, "replaced"),
                false => (Topic::DropInMasked, "masked"),
            };
            let text = format!("the generated drop-in is {what} by {path}");
            self.report(Finding::new(topic, State::Warning, text).fixed_by(format!("rm {path} && {APPLY}")));
            return false;
        }
        let is_loaded = facts.loaded.drop_ins.contains(&facts.drop_in);
        let (topic, text, fix) = match &facts.generator {
            Generator::Installed if is_loaded => return true,
            Generator::Installed => {
                let why = if facts.generator_has_run && facts.generated.is_none() {
                    "it was added to Units=, or its sizing was enabled, after the last reload"
                } else {
                    "the generator has not run since it was installed or turned on, or it failed (journalctl -k -g \
                     pypnm-sizing)"
                };
                let text = format!("systemd has no profile for it: {why}");
                (Topic::NotGenerated, text, APPLY.to_owned())
            }
            Generator::Missing => {
                let text = "the generator is not installed (no pypnm-sizing-generator in system-generators/)";
                (Topic::GeneratorMissing, text.to_owned(), "reinstall the package pypnm-sizing".to_owned())
            }
            Generator::Masked(path) => {
                let text = format!("the generator is masked by {path}");
                (Topic::GeneratorMasked, text, format!("rm {path} && {APPLY}"))
            }
            Generator::NotExecutable(path) => {
                let text = format!("the generator is not executable: {path}");
                (Topic::GeneratorMasked, text, format!("chmod +x {path} && {APPLY}"))
            }
        };
        self.report(Finding::new(topic, State::Warning, text).fixed_by(fix));
        is_loaded
    }

    /// Compares what was generated at the last reload with what fits the machine now, if nothing overrides it.
    fn generated(&mut self, expected: &Expected, next_start: Numbers, loaded: Numbers) {
        let environment = self.facts.generated.as_ref();
        let then = |key| environment.and_then(|environment| environment.get(key)).map_or("?", String::as_str);
        let (cpus, gib) = (then(pypnm::CPU_COUNT), then(pypnm::TOTAL_MEMORY_GIB));
        let is_same_machine = cpus == expected.cpus.to_string() && is_near(gib, &expected.gib);
        let change = format!(
            "it may use {}, {} GiB now; at the last reload: {}, {gib} GiB",
            in_cpus(expected.cpus),
            expected.gib,
            in_cpus(cpus)
        );
        if next_start == loaded {
            if !is_same_machine {
                let text = format!("{change}; same profile");
                self.report(Finding::new(Topic::MachineChanged, State::Ok, text));
            }
            return;
        }
        let (topic, why) = if is_same_machine {
            (Topic::ConfigurationChanged, "the configuration has changed since the last reload".to_owned())
        } else {
            (Topic::MachineChanged, change)
        };
        let text = format!("{why}; expected: {}, loaded: {}", brief(next_start), brief(loaded));
        self.report(Finding::new(topic, State::Warning, text).fixed_by(APPLY));
    }

    /// The last command of `ExecStart=`.
    pub(super) fn command(&self) -> Launch<'_> {
        Launch::from_command(self.facts.loaded.exec_start.last().map_or("", String::as_str))
    }
}

/// Whether two values differ by less than 5%: MemTotal varies slightly from boot to boot.
fn is_near(then: &str, now: &str) -> bool {
    match (then.parse::<f64>(), now.parse::<f64>()) {
        (Ok(then), Ok(now)) => (then - now).abs() <= 0.05 * now,
        _ => false,
    }
}
