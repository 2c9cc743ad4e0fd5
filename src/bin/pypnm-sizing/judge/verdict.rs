//! Whether what systemd has loaded, and what runs, fits: facts in, findings out. Pure.
//!
//! ```text
//!  expected    what the machine's files say now
//!  generated   what the generator wrote at the last reload      ≠ expected: reload
//!  loaded      what systemd has merged, with what overrides it  ≠ generated: the operator's override
//!  in use      what the live processes use                      ≠ loaded: restart
//! ```

use std::time::Duration;

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use pypnm_sizing::overrides::{Effect, Override};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::{Expected, Facts, Generator, Live};
use super::in_use::{InUse, Origin, Running, in_use};
use super::topic::{Finding, State, Topic};
use crate::service::generated::Generated;
use crate::service::handover;
use crate::service::launch::{Keys, Launch};
use crate::wording::{brief, override_text, place};

const APPLY: &str = "pypnm-sizing apply";
/// A service whose main process lives shorter than this does not end at its recycle limit.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// A single worker that has ended at its recycle limit is back within this time.
const TIME_TO_RECYCLE: Duration = Duration::from_mins(1);

/// The verdict on one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) findings: Vec<Finding>,
    /// What the service gets at its next start, after a reload.
    pub(crate) next_start: Option<Numbers>,
    pub(crate) in_use: Option<InUse>,
    /// Only a restart is missing.
    pub(crate) needs_restart: bool,
}

impl Verdict {
    /// That nothing can be judged, and why.
    pub(crate) fn only(finding: Finding) -> Self {
        Self { findings: vec![finding], next_start: None, in_use: None, needs_restart: false }
    }

    /// The worst of the findings.
    pub(crate) fn state(&self) -> State {
        self.findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
    }

    /// The first of the worst findings; `None`: all is well.
    pub(crate) fn leading(&self) -> Option<&Finding> {
        let state = self.state();
        self.findings.iter().find(|finding| finding.state == state && state != State::Ok)
    }

    pub(crate) fn has(&self, topic: Topic) -> bool {
        self.findings.iter().any(|finding| finding.topic == topic)
    }
}

/// The profile file that PyPNM is given.
enum Given {
    Ours,
    /// The operator's, with these numbers.
    Numbers(Numbers),
    /// None that it takes.
    Nothing,
}

/// Judges one unit. `must_run`: a service that is not active is critical, whoever stopped it.
pub(crate) fn verdict(facts: &Facts, must_run: bool) -> Verdict {
    let mut judge = Judge { facts, findings: Vec::new() };
    let mut next_start = None;
    let mut in_use = None;
    let mut needs_restart = false;
    let is_known = judge.service(must_run);
    match &facts.expected {
        _ if !is_known => {}
        Err(why) => judge.not_sized(why),
        Ok(expected) if judge.is_in_force() => {
            let (numbers, loaded) = judge.next_start(expected);
            judge.generated(expected, numbers, loaded);
            let numbers = judge.last_look(expected, numbers);
            next_start = Some(numbers);
            (in_use, needs_restart) = judge.running(expected, numbers);
        }
        Ok(expected) => judge.report_fallback(expected),
    }
    judge.mistakes();
    Verdict { findings: judge.findings, next_start, in_use, needs_restart }
}

struct Judge<'a> {
    facts: &'a Facts,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn report(&mut self, topic: Topic, state: State, text: String, fix: Option<&str>) {
        self.findings.push(Finding { topic, state, text, fix: fix.map(str::to_owned) });
    }

    /// Whether systemd has the unit, and in which state. Whether there is more to say.
    fn service(&mut self, must_run: bool) -> bool {
        let facts = self.facts;
        let (unit, loaded) = (&facts.unit, &facts.loaded);
        match loaded.load.as_str() {
            "loaded" => {}
            "not-found" => {
                let text = "systemd has no such unit".to_owned();
                self.report(Topic::UnitMissing, State::Critical, text, None);
                self.other_units();
                return false;
            }
            "masked" => {
                let state = if must_run { State::Critical } else { State::Unknown };
                let fix = format!("systemctl unmask {unit}");
                self.report(Topic::UnitMasked, state, "the unit is masked".to_owned(), Some(&fix));
                self.other_units();
                return false;
            }
            other => {
                let text = format!("systemd cannot load the unit ({other})");
                let fix = format!("systemctl status {unit}");
                self.report(Topic::UnitMissing, State::Critical, text, Some(&fix));
                return false;
            }
        }
        let log = format!("journalctl -u {unit}");
        match loaded.active.as_str() {
            "reloading" if self.is_handed_over() => {
                let text = "a reload is in progress: workers are being replaced".to_owned();
                self.report(Topic::Reloading, State::Ok, text, None);
            }
            "active" | "reloading" | "refreshing" => {}
            "failed" => {
                let text = format!("the service has failed ({})", loaded.result);
                self.report(Topic::Failed, State::Critical, text, Some(&log));
            }
            "activating" if self.is_looping() => {
                let times = match loaded.automatic_restarts {
                    0 => String::new(),
                    1 => ", restarted once".to_owned(),
                    times => format!(", restarted {times} times"),
                };
                let text = format!("the service keeps ending and is started again and again{times}");
                self.report(Topic::Looping, State::Critical, text, Some(&log));
            }
            "activating" => {
                let text = format!("the service is being started ({})", loaded.sub);
                self.report(Topic::Starting, State::Ok, text, None);
            }
            state => {
                let (topic, text, own) = if loaded.conditions_met == Some(false) && state == "inactive" {
                    let text =
                        "the service was not started: a condition of its unit is not met; for the packaged \
                                unit, PyPNM is not installed where the unit looks for it"
                            .to_owned();
                    (Topic::ConditionFailed, text, State::Warning)
                } else {
                    (Topic::NotRunning, format!("the service is not running ({state})"), State::Ok)
                };
                let fix = match topic {
                    Topic::ConditionFailed => format!("systemctl status {unit}"),
                    _ => format!("systemctl start {unit}"),
                };
                let found = if must_run { State::Critical } else { own };
                self.report(topic, found, text, (found != State::Ok).then_some(&fix));
            }
        }
        if facts.live == Live::Not {
            self.other_units();
        }
        true
    }

    /// Whether a service that is being started ends soon after each start. A single worker that has ended at its recycle
    /// limit is started again as well: it lived longer, it ended with success, and it is soon active again.
    fn is_looping(&self) -> bool {
        let loaded = &self.facts.loaded;
        let since = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        let now = u64::try_from(self.facts.now.as_micros()).unwrap_or(u64::MAX);
        if loaded.sub.starts_with("auto-restart") {
            let had_short_life = loaded.main_exited >= loaded.main_started
                && since(loaded.main_started, loaded.main_exited) < SHORT_LIFE;
            return loaded.result != "success" || had_short_life;
        }
        let was_never_active = loaded.active_entered == 0;
        let is_long_inactive = since(loaded.active_exited, now) > TIME_TO_RECYCLE;
        loaded.automatic_restarts > 1 && (was_never_active || is_long_inactive)
    }

    /// A PyPNM that runs under another unit's name, where this one does not run.
    fn other_units(&mut self) {
        for unit in &self.facts.other_units {
            let text = format!("PyPNM runs as {unit}, which is not sized; in sizing.conf(5): Units={unit}");
            self.report(Topic::OtherUnit, State::Warning, text, Some(APPLY));
        }
    }

    fn mistakes(&mut self) {
        let Some((first, more)) = self.facts.mistakes.split_first() else {
            return;
        };
        let more = match more.len() {
            0 => String::new(),
            1 => " (and 1 more mistake)".to_owned(),
            number => format!(" (and {number} more mistakes)"),
        };
        self.report(Topic::ConfigurationIgnored, State::Warning, format!("{first}{more}"), None);
    }

    fn not_sized(&mut self, why: &str) {
        if self.facts.generated.is_some() {
            let text = format!("it is {why}, but systemd still has the profile from before that");
            self.report(Topic::TurnedOff, State::Warning, text, Some(APPLY));
        } else {
            let text = format!("it is {why}; PyPNM sizes itself");
            self.report(Topic::TurnedOff, State::Ok, text, None);
        }
    }

    /// Whether systemd has our drop-in; else a finding says why not.
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
                    "systemd has no profile for it: it was added to Units= after the last reload"
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

    /// Without our drop-in PyPNM falls back to its own sizing.
    fn report_fallback(&mut self, expected: &Expected) {
        let text = format!("PyPNM falls back to its own sizing; expected: {}", say(expected.numbers));
        self.report(Topic::SizesItself, State::Warning, text, None);
    }

    /// What was generated at the last reload against the machine now, where nothing overrides it.
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
        let text = format!("{why}; expected: {}, loaded: {}", say(next_start), say(loaded));
        self.report(topic, State::Warning, text, Some(APPLY));
    }

    /// What the service gets at its next start, after a reload and without one: expected, or what overrides it.
    fn next_start(&mut self, expected: &Expected) -> (Numbers, Numbers) {
        for setting in &expected.set_by_hand {
            self.report(Topic::SetByHand, State::Ok, setting.clone(), None);
        }
        let (program, keys) = self.launched();
        if program != Program::Uvicorn {
            match self.profile_file(expected) {
                Given::Ours => {}
                Given::Numbers(numbers) => return (numbers, numbers),
                Given::Nothing => return (expected.default, expected.default),
            }
        }
        let generated =
            self.facts.generated.as_ref().and_then(Generated::numbers).unwrap_or(expected.numbers);
        let (workers, loaded_workers) =
            self.effective(expected, keys.workers, 1, expected.numbers.workers, generated.workers);
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

    /// What the last look at a start makes of the numbers that nobody set by hand: it lowers them to what the limits in
    /// force allow. It cannot change the environment of a unit that starts uvicorn directly.
    fn last_look(&mut self, expected: &Expected, next_start: Numbers) -> Numbers {
        let Some(in_force) = &self.facts.in_force else {
            return next_start;
        };
        let (program, keys) = self.launched();
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
        let text = format!("the limits in force allow {}: {}", say(lowered), in_force.why);
        if program == Program::Uvicorn {
            let text = format!("{text}; started directly, uvicorn takes {}", say(next_start));
            self.report(Topic::LimitsInForce, State::Warning, text, None);
            return next_start;
        }
        // Where it runs, what it uses is compared with the lowered numbers.
        let (state, fix) = match &self.facts.live {
            Live::Running(_) => (State::Ok, None),
            Live::Not | Live::Hidden(_) => {
                (State::Warning, Some(format!("systemctl restart {}", self.facts.unit)))
            }
        };
        let text = format!("{text}; the last look at a start lowers {}", say(next_start));
        self.report(Topic::LimitsInForce, state, text, fix.as_deref());
        lowered
    }

    /// One number, after a reload and without one.
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
        let effective = expected.overrides.effective_number(keys, least, u32::MAX);
        let after_reload = if effective.set_by.is_some() { i64::from(effective.value) } else { fitting };
        // Flags, and what an environment file says, need no reload.
        let is_read_at_start = |found: &Override| {
            matches!(found.effect, Effect::Flag { .. })
                || self.facts.loaded.environment_files.iter().any(|file| *file == *found.source.file)
        };
        if effective.set_by.is_some_and(is_read_at_start) {
            return (after_reload, after_reload);
        }
        let loaded = keys.into_iter().find_map(|key| self.facts.loaded.environment.get(key));
        (after_reload, loaded.and_then(|value| number(value)).unwrap_or(generated))
    }

    /// Whether PyPNM is pointed to our file, to the operator's, or to none.
    fn profile_file(&mut self, expected: &Expected) -> Given {
        let facts = self.facts;
        let at = expected.overrides.get(pypnm::ENV_FILE);
        let at = at.map_or_else(String::new, |found| format!(", {}", place(&found.source)));
        let name = pypnm::ENV_FILE;
        let why = match &facts.foreign_file {
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
        let text = format!("{why}; PyPNM falls back to its own sizing; expected: {}", say(expected.numbers));
        self.report(Topic::NotRead, State::Warning, text, None);
        Given::Nothing
    }

    /// What runs, else what would be started, and what decides its numbers.
    fn launched(&self) -> (Program, Keys) {
        let launch = match &self.facts.live {
            Live::Running(running) => Launch::of_arguments(&running.arguments),
            Live::Not | Live::Hidden(_) => self.command(),
        };
        (launch.program(), launch.keys())
    }

    /// The last command of `ExecStart=`.
    fn command(&self) -> Launch<'_> {
        Launch::of_command(self.facts.loaded.exec_start.last().map_or("", String::as_str))
    }

    /// The live processes against what they get at the next start. Second: whether a restart fixes it.
    fn running(&mut self, expected: &Expected, next_start: Numbers) -> (Option<InUse>, bool) {
        let running = match &self.facts.live {
            Live::Not => return (None, false),
            Live::Hidden(why) => {
                self.report(Topic::Hidden, State::Unknown, why.clone(), Some("run it as root"));
                return (None, false);
            }
            Live::Running(running) => running,
        };
        let in_use = in_use(running, expected.default);
        let mut differs = false;
        for (flag, used, due, of) in [
            (WORKERS_FLAG, in_use.workers, next_start.workers, (|n| n.workers) as fn(&Numbers) -> i64),
            (LIMIT_MAX_REQUESTS_FLAG, in_use.limit_max_requests, next_start.limit_max_requests, |n| {
                n.limit_max_requests
            }),
        ] {
            if used.is_none_or(|used| used == due) {
                continue;
            }
            match self.standing_flag(running, flag, due, of) {
                Some(value) => {
                    let text = format!("{flag} {value} on its command line");
                    self.report(Topic::Override, State::Ok, text, None);
                }
                None => differs = true,
            }
        }
        // Where it sizes itself, it has the right numbers by chance.
        let is_other = differs || in_use.origin == Origin::Itself;
        let is_reported = self.findings.iter().any(|finding| finding.topic == Topic::NotRead);
        let mut restart = is_other && !is_reported && self.other_numbers(running, in_use, next_start);
        self.alive(running, in_use, &mut restart);
        (Some(in_use), restart)
    }

    /// A flag on the command line of the running process that its next start will have as well. Where the unit starts
    /// PyPNM or uvicorn itself, the sizing has found every such flag; what only the process has is from before a change.
    /// A script adds flags of its own: a fixed one, or one from the profile that it was started with.
    fn standing_flag(
        &self,
        running: &Running,
        flag: &str,
        next_start: i64,
        of: fn(&Numbers) -> i64,
    ) -> Option<String> {
        if self.command().program() != Program::Unknown {
            return None;
        }
        let value = Launch::of_arguments(&running.arguments).flag(flag)?.to_owned();
        let started_with = match running.profile() {
            Some(ProfileFile::Taken(numbers)) => Some(of(&numbers)),
            _ => None,
        };
        let is_fixed = started_with == Some(next_start) || self.command().flag(flag).is_some();
        is_fixed.then_some(value)
    }

    /// Why the running service uses other numbers. Whether a restart fixes it.
    fn other_numbers(&mut self, running: &Running, in_use: InUse, next_start: Numbers) -> bool {
        let facts = self.facts;
        let uses = in_use.workers.map_or_else(
            || "numbers that are not known".to_owned(),
            |workers| brief(workers, in_use.limit_max_requests),
        );
        let fix = format!("systemctl restart {}", facts.unit);
        if in_use.origin == Origin::Itself {
            let has_variable =
                running.environment.as_ref().is_none_or(|all| all.contains_key(pypnm::ENV_FILE));
            let text = match (&running.file, has_variable) {
                (_, false) => "it was started before it was sized".to_owned(),
                (None, true) => "PyPNM has no profile file".to_owned(),
                (Some((path, Err(why))), true) => format!("PyPNM cannot read its profile: {path}: {why}"),
                (Some((path, Ok(text))), true) => match pypnm::read_profile_file(text) {
                    ProfileFile::Ignored(key) => format!("PyPNM ignores its profile: {path} has no {key}"),
                    ProfileFile::Taken(_) | ProfileFile::Crashes(..) => {
                        format!("PyPNM does not take its profile from {path}")
                    }
                },
            };
            let text = format!("{text}; it sizes itself: {uses}; expected: {}", say(next_start));
            self.report(Topic::NotRead, State::Warning, text, Some(&fix));
            return true;
        }
        if !facts.hidden_files.is_empty() {
            let files = facts.hidden_files.join(", ");
            let text = format!(
                "it runs {uses}, loaded: {}; {files}, which this user may not read, can override that",
                say(next_start)
            );
            self.report(Topic::Hidden, State::Unknown, text, Some("run it as root"));
            return false;
        }
        let text = if self.findings.iter().any(|finding| finding.state == State::Warning) {
            format!("it runs {uses}")
        } else {
            format!("it runs {uses} from before the last reload or change; loaded: {}", say(next_start))
        };
        self.report(Topic::NotRestarted, State::Warning, text, Some(&fix));
        true
    }

    /// Whether the service runs under the launcher of pypnm-sizing-handover(7).
    fn is_handed_over(&self) -> bool {
        matches!(&self.facts.live, Live::Running(running) if handover::is_launcher(&running.arguments))
    }

    /// The workers that are really there.
    fn alive(&mut self, running: &Running, in_use: InUse, restart: &mut bool) {
        let (Some(wanted), alive) = (in_use.workers, running.workers) else {
            return;
        };
        let alive = i64::try_from(alive).unwrap_or(i64::MAX);
        let has_warning = self.findings.iter().any(|finding| finding.state >= State::Warning);
        if alive == wanted || has_warning {
            return;
        }
        // A worker that starts, or finishes its requests, while another one serves in its place.
        let is_successor = alive == wanted.saturating_add(1) && self.is_handed_over();
        if is_successor || self.findings.iter().any(|finding| finding.topic == Topic::Reloading) {
            return;
        }
        if running.is_single && wanted > 1 {
            let text = format!(
                "PyPNM runs as one process although its profile says {wanted} workers: it does not read it (PyPNM \
                 before 1.6 does not)"
            );
            self.report(Topic::NotRead, State::Warning, text, None);
        } else {
            let text = format!("{alive} of {wanted} workers are alive");
            let fix = format!("journalctl -u {}", self.facts.unit);
            self.report(Topic::WorkersMissing, State::Warning, text, Some(&fix));
        }
        *restart = false;
    }
}

/// Within 5 %: MemTotal is never quite the same from boot to boot.
fn is_near(then: &str, now: &str) -> bool {
    match (then.parse::<f64>(), now.parse::<f64>()) {
        (Ok(then), Ok(now)) => (then - now).abs() <= 0.05 * now,
        _ => false,
    }
}

fn say(numbers: Numbers) -> String {
    brief(numbers.workers, Some(numbers.limit_max_requests))
}
