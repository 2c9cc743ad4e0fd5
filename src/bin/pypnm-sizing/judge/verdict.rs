//! Determines from the facts whether the profile that systemd has loaded, and the one in use, fit. Pure.
//!
//! ```text
//!  expected    what fits the machine now
//!  generated   what the generator wrote at the last reload      ≠ expected: reload
//!  loaded      what systemd has merged, with what overrides it  ≠ generated: the operator's override
//!  in use      what the running processes use                   ≠ loaded: restart
//! ```

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG};
use pypnm_sizing::overrides::{Effect, Override, Overrides};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::{Expected, Facts};
use super::in_use::InUse;
use super::live::Live;
use super::topic::{Finding, State, Topic};
use crate::service::generated::Generated;
use crate::service::generator::Generator;
use crate::service::launch::{Keys, Launch};
use crate::wording::{brief, override_text};

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

/// The profile file that PyPNM gets.
enum Given {
    Ours,
    /// That of the operator, with these numbers.
    Numbers(Numbers),
    /// None, or one that it does not accept.
    Nothing,
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

    /// What the service gets at its next start, with and without a reload: the expected numbers, or those that override them.
    fn next_start(&mut self, expected: &Expected) -> (Numbers, Numbers) {
        for setting in &expected.set_by_hand {
            self.report(Topic::SetByHand, State::Ok, setting.clone(), None);
        }
        let (program, keys) = self.launched(&expected.overrides);
        if program != Program::Uvicorn {
            match self.profile_file(expected) {
                Given::Ours => {}
                Given::Numbers(numbers) => return (numbers, numbers),
                Given::Nothing => return (expected.default, expected.default),
            }
        }
        let generated =
            self.facts.generated.as_ref().and_then(Generated::numbers).unwrap_or(expected.numbers);
        let (workers, loaded_workers) = if program == Program::Uvicorn && leaves_workers_open(expected) {
            self.open_workers(expected)
        } else {
            self.effective(expected, keys.workers, 1, expected.numbers.workers, generated.workers)
        };
        let (limit, loaded_limit) = self.effective(
            expected,
            keys.limit,
            0,
            expected.numbers.limit_max_requests,
            generated.limit_max_requests,
        );
        (
            Numbers { workers, limit_max_requests: limit },
            Numbers { workers: loaded_workers, limit_max_requests: loaded_limit },
        )
    }

    /// The workers with and without a reload, if a file that cannot be read determines them: as many as there are.
    fn open_workers(&mut self, expected: &Expected) -> (i64, i64) {
        let is_not_read = |found: &&Override| matches!(found.effect, Effect::NotRead { .. });
        for found in expected.overrides.list.iter().filter(is_not_read) {
            self.report(Topic::Override, State::Ok, override_text(found), None);
        }
        let loaded = self.facts.loaded.environment.get(UVICORN_WORKERS);
        if let Some(loaded) = loaded.and_then(|value| value.parse::<i64>().ok()) {
            return (1, loaded);
        }
        let alive = match &self.facts.live {
            Live::Running(running) => i64::try_from(running.workers).unwrap_or(i64::MAX).max(1),
            Live::Not | Live::Hidden(_) => 1,
        };
        (alive, alive)
    }

    /// The numbers after `env` has run at the start, which lowers those that were not set by hand to what the limits in force
    /// allow. It cannot change the environment of a unit that starts uvicorn directly.
    fn lowered_at_start(&mut self, expected: &Expected, next_start: Numbers) -> Numbers {
        let Some(in_force) = &self.facts.in_force else {
            return next_start;
        };
        let (program, keys) = self.launched(&expected.overrides);
        let set_by_hand = |keys| expected.overrides.effective_number(keys, 0, 0).set_by.is_some();
        let allowed = in_force.numbers;
        let lowered = Numbers {
            workers: if set_by_hand(keys.workers) { next_start.workers } else { allowed.workers },
            limit_max_requests: if set_by_hand(keys.limit) {
                next_start.limit_max_requests
            } else {
                allowed.limit_max_requests
            },
        };
        if lowered == next_start {
            return next_start;
        }
        let text = format!("the limits in force allow {}: {}", numbers_text(lowered), in_force.why);
        if program == Program::Uvicorn {
            let text = format!("{text}; uvicorn is started directly and uses {}", numbers_text(next_start));
            self.report(Topic::LimitsInForce, State::Warning, text, None);
            return next_start;
        }
        // If it is running, what it uses is compared with the lowered numbers.
        let (state, fix) = match &self.facts.live {
            Live::Running(_) => (State::Ok, None),
            Live::Not | Live::Hidden(_) => {
                (State::Warning, Some(format!("systemctl restart {}", self.facts.unit)))
            }
        };
        let text = format!("{text}; {} is lowered to this at each start", numbers_text(next_start));
        self.report(Topic::LimitsInForce, state, text, fix.as_deref());
        lowered
    }

    /// A number with and without a reload.
    fn effective(
        &mut self,
        expected: &Expected,
        keys: [&'static str; 2],
        least: u32,
        fitting: i64,
        generated: i64,
    ) -> (i64, i64) {
        let number = |value: &str| value.parse::<u32>().ok().filter(|value| *value >= least).map(i64::from);
        for found in keys.into_iter().filter_map(|key| expected.overrides.get(key)) {
            let text = override_text(found);
            let text = match &found.effect {
                Effect::Variable { value, .. } if number(value).is_none() => {
                    format!("{text}, is not a whole number of at least {least}: the sized value is used")
                }
                _ => text,
            };
            self.report(Topic::Override, State::Ok, text, None);
        }
        // Variables that are removed last are still among those that systemd has loaded.
        let is_taken_away = |found: &Override| {
            let is_last = matches!(&*found.source.key, "ExecStart" | "UnsetEnvironment");
            matches!(found.effect, Effect::Unset { .. }) && is_last
        };
        let [flag, variable] = keys;
        if expected.overrides.get(flag).is_none()
            && expected.overrides.get(variable).is_some_and(is_taken_away)
        {
            let overrides = &expected.overrides;
            let remaining = if flag == WORKERS_FLAG {
                overrides.uvicorn_workers(1).value
            } else {
                overrides.uvicorn_limit_max_requests(0).value
            };
            return (remaining.into(), remaining.into());
        }
        let effective = expected.overrides.effective_number(keys, least, u32::MAX);
        let is_removed = |found: &Override| matches!(found.effect, Effect::Unset { .. });
        let after_reload = match (variable, effective.set_by) {
            (_, Some(_)) => i64::from(effective.value),
            // uvicorn's own default.
            (UVICORN_WORKERS, None) if expected.overrides.get(variable).is_some_and(is_removed) => 1,
            (_, None) => fitting,
        };
        // Flags and environment files take effect without a reload.
        let is_read_at_start = |found: &Override| {
            matches!(found.effect, Effect::Flag { .. })
                || self.facts.loaded.environment_files.iter().any(|file| *file == *found.source.file)
        };
        if effective.set_by.is_some_and(is_read_at_start) {
            return (after_reload, after_reload);
        }
        let loaded = |key| self.facts.loaded.environment.get(key);
        let loaded = match variable {
            // uvicorn reads the other variable, possibly from its own file, only if the first is not set.
            UVICORN_WORKERS | WEB_CONCURRENCY => match loaded(UVICORN_WORKERS).or(loaded(WEB_CONCURRENCY)) {
                Some(value) => number(value).unwrap_or(generated),
                None if variable == WEB_CONCURRENCY => after_reload,
                None => 1,
            },
            _ => loaded(variable).and_then(|value| number(value)).unwrap_or(generated),
        };
        (after_reload, loaded)
    }

    /// Whether PyPNM reads our profile file, that of the operator, or none.
    fn profile_file(&mut self, expected: &Expected) -> Given {
        let facts = self.facts;
        let at = expected.overrides.get(pypnm::ENV_FILE);
        let at = at.map_or_else(String::new, |found| format!(", {}", found.source.place()));
        let name = pypnm::ENV_FILE;
        let is_withheld = |found: &&Override| found.effect == Effect::Withheld;
        let withheld = expected.overrides.list.iter().find(is_withheld);
        let why = match &facts.foreign_file {
            _ if withheld.is_some() => {
                let place = withheld.map(|found| found.source.place()).unwrap_or_default();
                format!("the command does not pass {name}= on, {place}")
            }
            None if facts.loaded.environment.contains_key(name) => {
                if facts.loaded.exec_start_pre.iter().any(|command| command.contains("pypnm-sizing")) {
                    return Given::Ours;
                }
                "nothing writes the profile for PyPNM: an empty ExecStartPre= in the unit removes the command that does"
                    .to_owned()
            }
            None => format!("an empty Environment= in the unit removes {name}="),
            Some((path, Ok(text))) => match pypnm::read_profile_file(text) {
                ProfileFile::Taken(numbers) => {
                    self.report(Topic::Override, State::Ok, format!("{name}={path}{at}"), None);
                    return Given::Numbers(numbers);
                }
                ProfileFile::Ignored(key) => format!("{name}={path}{at}: the file has no {key}"),
                ProfileFile::Crashes(key, value) => {
                    format!("{name}={path}{at}: PyPNM cannot start with its {key}={value}")
                }
            },
            Some((path, Err(why))) => format!("{name}={path}{at}: {why}"),
        };
        let text = format!(
            "{why}; PyPNM falls back to its own sizing; expected: {}",
            numbers_text(expected.numbers)
        );
        self.report(Topic::NotRead, State::Warning, text, None);
        Given::Nothing
    }

    /// The program that is running or would be started, and the names that determine its numbers. The operator's
    /// `WEB_CONCURRENCY` determines uvicorn's workers if `UVICORN_WORKERS` is not set.
    fn launched(&self, overrides: &Overrides) -> (Program, Keys) {
        let launch = match &self.facts.live {
            Live::Running(running) => Launch::of_arguments(&running.arguments),
            Live::Not | Live::Hidden(_) => self.command(),
        };
        let mut keys = launch.keys();
        let [flag, variable] = keys.workers;
        if variable == UVICORN_WORKERS
            && overrides.get(variable).is_none()
            && overrides.get(WEB_CONCURRENCY).is_some()
        {
            keys.workers = [flag, WEB_CONCURRENCY];
        }
        (launch.program(), keys)
    }

    /// The last command of `ExecStart=`.
    pub(super) fn command(&self) -> Launch<'_> {
        Launch::of_command(self.facts.loaded.exec_start.last().map_or("", String::as_str))
    }
}

/// Whether a file that cannot be read determines uvicorn's workers.
fn leaves_workers_open(expected: &Expected) -> bool {
    let overrides = &expected.overrides;
    let is_set = |key: &str| overrides.get(key).is_some();
    overrides.is_left_out(UVICORN_WORKERS) && !is_set(WEB_CONCURRENCY) && !is_set(WORKERS_FLAG)
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

/// Whether two values differ by less than 5 %: MemTotal varies slightly from boot to boot.
fn is_near(then: &str, now: &str) -> bool {
    match (then.parse::<f64>(), now.parse::<f64>()) {
        (Ok(then), Ok(now)) => (then - now).abs() <= 0.05 * now,
        _ => false,
    }
}

pub(super) fn numbers_text(numbers: Numbers) -> String {
    brief(numbers.workers, Some(numbers.limit_max_requests))
}
