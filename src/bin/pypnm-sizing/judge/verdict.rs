//! Determines from the facts whether the profile that systemd has loaded, and the one in use, fit. Pure.
//!
//! ```text
//!  expected    what fits the machine now
//!  generated   what the generator wrote at the last reload      ≠ expected: reload
//!  loaded      what systemd has merged, with what overrides it  ≠ generated: the operator's override
//!  in use      what the running processes use                   ≠ loaded: restart
//! ```

use pypnm_sizing::pypnm::{self, Numbers};

use super::facts::{Expected, Facts};
use super::in_use::InUse;
use super::topic::{Finding, State, Topic};
use crate::service::generator::Generator;
use crate::service::launch::Launch;
use crate::wording::brief;

pub(super) const APPLY: &str = "pypnm-sizing apply";

/// The verdict on a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        Self { findings: vec![finding], next_start: None, in_use: None, needs_restart: false }
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
    let mut judge = Judge { facts, findings: Vec::new() };
    let mut next_start = None;
    let mut in_use = None;
    let mut needs_restart = false;
    judge.lost_program();
    let is_known = judge.service(must_run);
    match &facts.expected {
        _ if !is_known => {}
        // The settings loaded by systemd are those of the container engine; the process itself is judged.
        _ if facts.contained.is_some() => {}
        Err(why) => judge.not_sized(why),
        Ok(_) if facts.hidden_configuration.is_some() => judge.hidden_configuration(),
        Ok(expected) if judge.is_in_force() => {
            let (numbers, loaded) = judge.next_start(expected);
            judge.generated(expected, numbers, loaded);
            let numbers = judge.lowered_at_start(expected, numbers);
            next_start = Some(numbers);
            (in_use, needs_restart) = judge.running(expected, numbers);
        }
        Ok(expected) => judge.report_fallback(expected),
    }
    judge.mistakes();
    Verdict { findings: judge.findings, next_start, in_use, needs_restart }
}

/// A unit being judged.
pub(super) struct Judge<'a> {
    pub(super) facts: &'a Facts,
    pub(super) findings: Vec<Finding>,
}

impl Judge<'_> {
    pub(super) fn report(&mut self, topic: Topic, state: State, text: String, fix: Option<&str>) {
        self.findings.push(Finding { topic, state, text, fix: fix.map(str::to_owned) });
    }

    fn mistakes(&mut self) {
        if let Some(text) = mistakes_text(&self.facts.mistakes) {
            self.report(Topic::ConfigurationIgnored, State::Warning, text, None);
        }
    }

    fn not_sized(&mut self, why: &str) {
        if self.facts.generated.is_some() {
            let text = format!("it is {why}, but systemd still has the earlier profile");
            self.report(Topic::TurnedOff, State::Warning, text, Some(APPLY));
        } else {
            let text = format!("it is {why}; PyPNM sizes itself");
            self.report(Topic::TurnedOff, State::Ok, text, None);
        }
    }

    /// Reports that it is unknown what the service should have.
    fn hidden_configuration(&mut self) {
        if let Some(file) = &self.facts.hidden_configuration {
            let text = format!("{file} cannot be read by this user");
            self.report(Topic::Hidden, State::Unknown, text, Some("run it as root"));
        }
    }

    /// Whether systemd has our drop-in. Otherwise reports why not.
    fn is_in_force(&mut self) -> bool {
        let facts = self.facts;
        if let Some((path, has_content)) = &facts.rival {
            let (topic, what) = if *has_content {
                (Topic::DropInReplaced, "replaced by")
            } else {
                (Topic::DropInMasked, "masked by")
            };
            let text = format!("the generated drop-in is {what} {path}");
            self.report(topic, State::Warning, text, Some(&format!("rm {path} && {APPLY}")));
            return false;
        }
        let is_loaded = facts.loaded.drop_ins.contains(&facts.drop_in);
        match &facts.generator {
            Generator::Installed if is_loaded => {}
            Generator::Installed => {
                let text = if facts.generator_has_run && facts.generated.is_none() {
                    "systemd has no profile for it: it was added to Units= after the last reload, or turned on since"
                } else {
                    "systemd has no profile for it: the generator has not run since it was installed or turned on, or it \
                     failed (journalctl -k -g pypnm-sizing)"
                };
                self.report(Topic::NotGenerated, State::Warning, text.to_owned(), Some(APPLY));
            }
            Generator::Missing => {
                let text = "the generator is not installed (no pypnm-sizing-generator in system-generators/)";
                let fix = "reinstall the package pypnm-sizing";
                self.report(Topic::GeneratorMissing, State::Warning, text.to_owned(), Some(fix));
            }
            Generator::Masked(path) => {
                let fix = format!("rm {path} && {APPLY}");
                let text = format!("the generator is masked by {path}");
                self.report(Topic::GeneratorMasked, State::Warning, text, Some(&fix));
            }
            Generator::NotExecutable(path) => {
                let fix = format!("chmod +x {path} && {APPLY}");
                let text = format!("the generator is not executable: {path}");
                self.report(Topic::GeneratorMasked, State::Warning, text, Some(&fix));
            }
        }
        is_loaded
    }

    /// Reports that PyPNM falls back to its own sizing without our drop-in.
    fn report_fallback(&mut self, expected: &Expected) {
        let text =
            format!("PyPNM falls back to its own sizing; expected: {}", numbers_text(expected.numbers));
        self.report(Topic::SizesItself, State::Warning, text, None);
    }

    /// Compares what was generated at the last reload with what fits the machine now, if nothing overrides it.
    fn generated(&mut self, expected: &Expected, next_start: Numbers, loaded: Numbers) {
        let environment = self.facts.generated.as_ref().map(|generated| &generated.environment);
        let then = |key| environment.and_then(|environment| environment.get(key)).map_or("?", String::as_str);
        let (cpus, gib) = (then(pypnm::CPU_COUNT), then(pypnm::TOTAL_MEMORY_GIB));
        let is_same_machine = cpus == expected.cpus.to_string() && is_near(gib, &expected.gib);
        let change = format!(
            "it may use {} CPUs, {} GiB now; at the last reload: {cpus} CPUs, {gib} GiB",
            expected.cpus, expected.gib
        );
        if next_start == loaded {
            if !is_same_machine {
                self.report(Topic::MachineChanged, State::Ok, format!("{change}; same profile"), None);
            }
            return;
        }
        let (topic, why) = if is_same_machine {
            (Topic::ConfigurationChanged, "the configuration has changed since the last reload".to_owned())
        } else {
            (Topic::MachineChanged, change)
        };
        let text = format!("{why}; expected: {}, loaded: {}", numbers_text(next_start), numbers_text(loaded));
        self.report(topic, State::Warning, text, Some(APPLY));
    }

    /// The last command of `ExecStart=`.
    pub(super) fn command(&self) -> Launch<'_> {
        Launch::of_command(self.facts.loaded.exec_start.last().map_or("", String::as_str))
    }
}

/// The first mistake, and the number of others. `None`: there is none.
pub(super) fn mistakes_text(mistakes: &[String]) -> Option<String> {
    let (first, more) = mistakes.split_first()?;
    let more = match more.len() {
        0 => String::new(),
        1 => " (and 1 more mistake)".to_owned(),
        number => format!(" (and {number} more mistakes)"),
    };
    Some(format!("{first}{more}"))
}

/// Whether two values differ by less than 5%: MemTotal varies slightly from boot to boot.
fn is_near(then: &str, now: &str) -> bool {
    match (then.parse::<f64>(), now.parse::<f64>()) {
        (Ok(then), Ok(now)) => (then - now).abs() <= 0.05 * now,
        _ => false,
    }
}

pub(super) fn numbers_text(numbers: Numbers) -> String {
    brief(numbers.workers, Some(numbers.limit_max_requests))
}
