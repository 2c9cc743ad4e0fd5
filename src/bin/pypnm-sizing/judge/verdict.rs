//! Whether what systemd has loaded, and what runs, fits: facts in, findings out. Pure.
//!
//! ```text
//!  sized      what the machine's files say now
//!  generated  what the generator wrote at the last reload      ≠ sized: reload
//!  loaded     what systemd has merged, with what overrides it  ≠ generated: the operator's word
//!  running    what the live processes use                      ≠ loaded: restart
//! ```

use std::collections::BTreeMap;

use pypnm_sizing::overrides::{Effect, Override, Overrides};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};
use pypnm_sizing::watch::role::flag;

use crate::service::generated::Generated;
use crate::service::launch;
use crate::service::systemctl::Loaded;
use crate::wording::{
    Keys, OF_PYPNM, OF_UVICORN, UVICORN_LIMIT, UVICORN_WORKERS, brief, override_text, place,
};

const APPLY: &str = "pypnm-sizing apply";

/// All that is known of one unit.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) unit: String,
    /// What fits the machine now. `Err`: it is not sized, and why.
    pub(crate) sized: Result<Sized, String>,
    /// The generated drop-in's path, and what it says where it is there.
    pub(crate) drop_in: String,
    pub(crate) generated: Option<Generated>,
    pub(crate) generator: Generator,
    pub(crate) loaded: Loaded,
    /// A file of the drop-in's name that systemd prefers to the generated one, and whether it says anything.
    pub(crate) rival: Option<(String, bool)>,
    /// Environment files that the caller may not read.
    pub(crate) hidden_files: Vec<String>,
    /// The file that `PYPNM_SERVE_ENV_FILE=` names where that is not ours, and its text or why there is none.
    pub(crate) foreign_file: Option<(String, Result<String, String>)>,
    pub(crate) live: Live,
}

/// What fits the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sized {
    pub(crate) numbers: Numbers,
    pub(crate) cpus: u64,
    pub(crate) gib: String,
    /// The operator's keys in sizing.conf(5) that decided.
    pub(crate) by_hand: Vec<String>,
    /// What the unit's files set instead of the drop-in.
    pub(crate) overrides: Overrides,
    /// What PyPNM would take for itself.
    pub(crate) own: Numbers,
}

/// The generator's file, as systemd looks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Generator {
    Installed,
    Missing,
    /// By an empty file or a link to /dev/null, here.
    Masked(String),
    NotExecutable(String),
}

/// The service's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// It does not run, or is only starting.
    Not,
    /// Its processes are not to be seen.
    Hidden(String),
    Is(Running),
}

/// A service that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// Workers alive.
    pub(crate) workers: usize,
    /// One process serves by itself, without a parent over workers.
    pub(crate) alone: bool,
    /// Arguments of the process that serves or whose children do.
    pub(crate) arguments: Vec<String>,
    /// Its environment; `None`: not permitted.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    /// What PyPNM says to its workers of the profile in effect (`PYPNM_ACTIVE_…`).
    pub(crate) active: Option<Numbers>,
    /// The profile file that it reads, where one is known: its path, and its text or why there is none.
    pub(crate) file: Option<(String, Result<String, String>)>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Fits,
    Differs,
    Unknown,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A word for programs.
    pub(crate) topic: &'static str,
    pub(crate) status: Status,
    pub(crate) text: String,
    /// The one command that mends it.
    pub(crate) mend: Option<String>,
}

/// Where the running numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// PyPNM's own word to its workers.
    Pypnm,
    /// A flag on its command line.
    Flag,
    /// The profile file.
    File,
    /// The environment (uvicorn).
    Environment,
    /// PyPNM sized itself.
    Itself,
    /// Not known.
    Unknown,
}

impl By {
    /// For a person.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Pypnm => "by PyPNM's own word",
            Self::Flag => "by flags on its command line",
            Self::File => "by its profile file",
            Self::Environment => "by its environment",
            Self::Itself => "by PyPNM's own sizing",
            Self::Unknown => "counted",
        }
    }

    /// For a program.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pypnm => "pypnm",
            Self::Flag => "flag",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Itself => "itself",
            Self::Unknown => "unknown",
        }
    }
}

/// What the processes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) workers: Option<i64>,
    pub(crate) limit_max_requests: Option<i64>,
    pub(crate) by: By,
}

/// The verdict on one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) unit: String,
    /// The first one is the one to speak of.
    pub(crate) findings: Vec<Finding>,
    /// What the service gets at its next start.
    pub(crate) due: Option<Numbers>,
    pub(crate) in_use: Option<InUse>,
    /// Only a restart is missing.
    pub(crate) restart_is_due: bool,
}

impl Verdict {
    pub(crate) fn status(&self) -> Status {
        let any = |status| self.findings.iter().any(|finding| finding.status == status);
        match (any(Status::Differs), any(Status::Unknown)) {
            (true, _) => Status::Differs,
            (_, true) => Status::Unknown,
            _ => Status::Fits,
        }
    }

    /// The finding that decided the status.
    pub(crate) fn leading(&self) -> Option<&Finding> {
        let status = self.status();
        self.findings.iter().find(|finding| finding.status == status && status != Status::Fits)
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

/// Judges one unit.
pub(crate) fn verdict(facts: &Facts) -> Verdict {
    let mut judge = Judge { facts, findings: Vec::new() };
    let mut due = None;
    let mut in_use = None;
    let mut restart_is_due = false;
    match &facts.sized {
        Err(why) => judge.not_sized(why),
        Ok(sized) if judge.is_in_force() => {
            let (numbers, loaded) = judge.due(sized);
            judge.generated(sized, numbers, loaded);
            due = Some(numbers);
            (in_use, restart_is_due) = judge.running(sized, numbers);
        }
        Ok(sized) => judge.self_sized(sized),
    }
    Verdict { unit: facts.unit.clone(), findings: judge.findings, due, in_use, restart_is_due }
}

struct Judge<'a> {
    facts: &'a Facts,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(&mut self, topic: &'static str, status: Status, text: String, mend: Option<&str>) {
        self.findings.push(Finding { topic, status, text, mend: mend.map(str::to_owned) });
    }

    fn not_sized(&mut self, why: &str) {
        if self.facts.generated.is_some() {
            let text = format!("it is {why}, but systemd still has the profile from before that");
            self.find("turned-off", Status::Differs, text, Some(APPLY));
        } else {
            self.find("turned-off", Status::Fits, format!("it is {why}; PyPNM sizes itself"), None);
        }
    }

    /// Whether systemd has our drop-in; else a finding says why not.
    fn is_in_force(&mut self) -> bool {
        let facts = self.facts;
        if let Some((path, says_something)) = &facts.rival {
            let (topic, what) = if *says_something {
                ("drop-in-replaced", "replaced by")
            } else {
                ("drop-in-masked", "masked by")
            };
            let text = format!("the generated drop-in is {what} {path}");
            self.find(topic, Status::Differs, text, Some(&format!("rm {path} && {APPLY}")));
            return false;
        }
        match &facts.generator {
            Generator::Installed => {}
            Generator::Missing => {
                let text = "the generator is not installed (no pypnm-sizing-generator in system-generators/)";
                let mend = "install the package pypnm-sizing anew";
                self.find("generator-missing", Status::Differs, text.to_owned(), Some(mend));
            }
            Generator::Masked(path) => {
                let mend = format!("rm {path} && {APPLY}");
                self.find(
                    "generator-masked",
                    Status::Differs,
                    format!("the generator is masked by {path}"),
                    Some(&mend),
                );
            }
            Generator::NotExecutable(path) => {
                let mend = format!("chmod +x {path} && {APPLY}");
                let text = format!("the generator can't be executed, {path}");
                self.find("generator-masked", Status::Differs, text, Some(&mend));
            }
        }
        let is_loaded = facts.loaded.drop_ins.contains(&facts.drop_in);
        if !is_loaded && self.findings.is_empty() {
            let text = "systemd has no profile for it: the generator has not run since it was installed or turned \
                        on, or failed (journalctl -k -g pypnm-sizing)";
            self.find("not-generated", Status::Differs, text.to_owned(), Some(APPLY));
        }
        is_loaded
    }

    /// Without our drop-in PyPNM counts for itself.
    fn self_sized(&mut self, sized: &Sized) {
        let text = format!("PyPNM is left to size itself; right: {}", say(sized.numbers));
        self.find("sizes-itself", Status::Differs, text, None);
    }

    /// What was generated at the last reload against the machine now, as far as nothing overrides it.
    fn generated(&mut self, sized: &Sized, due: Numbers, loaded: Numbers) {
        let environment = self.facts.generated.as_ref().map(|generated| &generated.environment);
        let then = |key| environment.and_then(|environment| environment.get(key)).map_or("?", String::as_str);
        let (cpus, gib) = (then(pypnm::CPU_COUNT), then(pypnm::TOTAL_MEMORY_GIB));
        let same_machine = cpus == sized.cpus.to_string() && is_near(gib, &sized.gib);
        let change = format!(
            "it may use {} CPUs, {} GiB now, at the last reload it was {cpus} CPUs, {gib} GiB",
            sized.cpus, sized.gib
        );
        if due == loaded {
            if !same_machine {
                self.find("machine-changed", Status::Fits, format!("{change}: the same profile"), None);
            }
            return;
        }
        let (topic, why) = if same_machine {
            ("configuration-changed", "the configuration has changed since the last reload".to_owned())
        } else {
            ("machine-changed", change)
        };
        let text = format!("{why}; due: {}, loaded: {}", say(due), say(loaded));
        self.find(topic, Status::Differs, text, Some(APPLY));
    }

    /// What the service gets at its next start, after a reload and without one: sized, or what overrides it.
    fn due(&mut self, sized: &Sized) -> (Numbers, Numbers) {
        for setting in &sized.by_hand {
            self.find("set-by-hand", Status::Fits, setting.clone(), None);
        }
        let keys = self.keys();
        if keys == OF_PYPNM {
            match self.foreign_file(sized) {
                Given::Ours => {}
                Given::Numbers(numbers) => return (numbers, numbers),
                Given::Nothing => return (sized.own, sized.own),
            }
        }
        let generated = self.facts.generated.as_ref().and_then(Generated::numbers).unwrap_or(sized.numbers);
        let numbers = [
            self.of_keys(sized, keys.workers, 1, sized.numbers.workers, generated.workers),
            self.of_keys(
                sized,
                keys.limit,
                0,
                sized.numbers.limit_max_requests,
                generated.limit_max_requests,
            ),
        ];
        let [(workers, loaded_workers), (limit, loaded_limit)] = numbers;
        (
            Numbers { workers, limit_max_requests: limit },
            Numbers { workers: loaded_workers, limit_max_requests: loaded_limit },
        )
    }

    /// One number, after a reload and without one.
    fn of_keys(
        &mut self,
        sized: &Sized,
        keys: [&'static str; 2],
        least: u32,
        fits: i64,
        generated: i64,
    ) -> (i64, i64) {
        let number = |value: &str| value.parse::<u32>().ok().filter(|value| *value >= least).map(i64::from);
        for one in keys.into_iter().filter_map(|key| sized.overrides.get(key)) {
            let text = override_text(one);
            let text = match &one.effect {
                Effect::Variable { value, .. } if number(value).is_none() => {
                    format!("{text}, is no whole number from {least}: the sized one is used")
                }
                _ => text,
            };
            self.find("override", Status::Fits, text, None);
        }
        let none = u32::MAX;
        let effective = sized.overrides.effective_number(keys, least, none);
        let due = if effective.set_by.is_some() { i64::from(effective.value) } else { fits };
        // Flags, and what stands in an environment file, need no reload.
        let at_start = |one: &Override| {
            matches!(one.effect, Effect::Flag { .. })
                || self.facts.loaded.environment_files.iter().any(|file| *file == *one.source.file)
        };
        if effective.set_by.is_some_and(at_start) {
            return (due, due);
        }
        let loaded = keys.into_iter().find_map(|key| self.facts.loaded.environment.get(key));
        (due, loaded.and_then(|value| number(value)).unwrap_or(generated))
    }

    /// Whether PyPNM is pointed to our file, to the operator's, or to none.
    fn foreign_file(&mut self, sized: &Sized) -> Given {
        let facts = self.facts;
        let at = sized.overrides.get(pypnm::ENV_FILE);
        let at = at.map_or_else(String::new, |one| format!(", {}", place(&one.source)));
        let name = pypnm::ENV_FILE;
        let why = match &facts.foreign_file {
            None if facts.loaded.environment.contains_key(name) => {
                if facts.loaded.exec_start_pre.contains("pypnm-sizing") {
                    return Given::Ours;
                }
                "nothing writes the profile for PyPNM: an empty ExecStartPre= in the unit took ours away"
                    .to_owned()
            }
            None => format!("an empty Environment= in the unit took {name}= away"),
            Some((path, Ok(text))) => match pypnm::read_profile_file(text) {
                ProfileFile::Taken(numbers) => {
                    self.find("override", Status::Fits, format!("{name}={path}{at}"), None);
                    return Given::Numbers(numbers);
                }
                ProfileFile::Ignored(key) => format!("{name}={path}{at}: the file has no {key}"),
                ProfileFile::Crashes(key, value) => {
                    format!("{name}={path}{at}: PyPNM can't start with its {key}={value}")
                }
            },
            Some((path, Err(why))) => format!("{name}={path}{at}: {why}"),
        };
        let text = format!("{why}; PyPNM is left to size itself; right: {}", say(sized.numbers));
        self.find("not-read", Status::Differs, text, None);
        Given::Nothing
    }

    /// By what runs, else by what would be started.
    fn keys(&self) -> Keys {
        match &self.facts.live {
            Live::Is(running) => Keys::of_arguments(&running.arguments),
            Live::Not | Live::Hidden(_) => Keys::of_command(&self.facts.loaded.exec_start),
        }
    }

    /// What the live processes use against what is due. Second: whether a restart mends it.
    fn running(&mut self, sized: &Sized, due: Numbers) -> (Option<InUse>, bool) {
        let facts = self.facts;
        let running = match &facts.live {
            Live::Not => {
                let state = &facts.loaded.active;
                self.find("not-running", Status::Fits, format!("it does not run ({state})"), None);
                return (None, false);
            }
            Live::Hidden(why) => {
                self.find("hidden", Status::Unknown, why.clone(), Some("run it as root"));
                return (None, false);
            }
            Live::Is(running) => running,
        };
        let in_use = in_use(running, sized);

        // A flag that came with the profile that is due stays with the next start: whoever starts PyPNM sets it.
        let given = running
            .file
            .as_ref()
            .and_then(|(_, text)| text.as_ref().ok())
            .map(|text| pypnm::read_profile_file(text));
        let given = |of: fn(&Numbers) -> i64| match &given {
            Some(ProfileFile::Taken(numbers)) => of(numbers) == of(&due),
            _ => false,
        };
        let mut other = false;
        for (name, used, due, given) in [
            ("--workers", in_use.workers, due.workers, given(|numbers| numbers.workers)),
            (
                "--limit-max-requests",
                in_use.limit_max_requests,
                due.limit_max_requests,
                given(|numbers| numbers.limit_max_requests),
            ),
        ] {
            match flag(&running.arguments, name) {
                _ if used.is_none_or(|used| used == due) => {}
                Some(value) if given || facts.loaded.exec_start.contains(name) => {
                    self.find("override", Status::Fits, format!("{name} {value} on its command line"), None);
                }
                _ => other = true,
            }
        }
        // By itself, it has the right numbers by chance.
        let is_otherwise = other || in_use.by == By::Itself;
        let said = self.findings.iter().any(|finding| finding.topic == "not-read");
        let mut restart = is_otherwise && !said && self.other_numbers(running, in_use, due);
        self.alive(running, in_use, &mut restart);
        (Some(in_use), restart)
    }

    /// The running service uses other numbers: why. Whether a restart mends it.
    fn other_numbers(&mut self, running: &Running, in_use: InUse, due: Numbers) -> bool {
        let facts = self.facts;
        let uses = in_use.workers.map_or_else(
            || "numbers that are not known".to_owned(),
            |workers| brief(workers, in_use.limit_max_requests),
        );
        let mend = format!("systemctl restart {}", facts.unit);
        if in_use.by == By::Itself {
            let knows_file = running.environment.as_ref().is_none_or(|e| e.contains_key(pypnm::ENV_FILE));
            let text = match (&running.file, knows_file) {
                (_, false) => "it was started before it was sized".to_owned(),
                (None, true) => "PyPNM is given no profile file".to_owned(),
                (Some((path, Err(why))), true) => format!("PyPNM can't read its profile: {path}: {why}"),
                (Some((path, Ok(text))), true) => match pypnm::read_profile_file(text) {
                    ProfileFile::Ignored(key) => {
                        format!("PyPNM passes over its profile: {path} has no {key}")
                    }
                    ProfileFile::Taken(_) | ProfileFile::Crashes(..) => {
                        format!("PyPNM does not take its profile from {path}")
                    }
                },
            };
            let text = format!("{text}; it sizes itself: {uses}; right: {}", say(due));
            self.find("not-read", Status::Differs, text, Some(&mend));
            return true;
        }
        if !facts.hidden_files.is_empty() {
            let files = facts.hidden_files.join(", ");
            let text = format!(
                "it runs {uses}, loaded: {}; {files}, which you may not read, can override that",
                say(due)
            );
            self.find("hidden", Status::Unknown, text, Some("run it as root"));
            return false;
        }
        let text = if self.findings.iter().any(|finding| finding.status == Status::Differs) {
            format!("it runs {uses}")
        } else {
            format!("it runs {uses} from before the last reload; due and loaded: {}", say(due))
        };
        self.find("not-restarted", Status::Differs, text, Some(&mend));
        true
    }

    /// The workers that are really there.
    fn alive(&mut self, running: &Running, in_use: InUse, restart: &mut bool) {
        let (Some(wanted), alive) = (in_use.workers, running.workers) else {
            return;
        };
        let alive = i64::try_from(alive).unwrap_or(i64::MAX);
        if self.facts.loaded.active == "reloading" {
            let text = format!("a reload is in progress, {alive} workers are alive");
            self.find("reloading", Status::Fits, text, None);
            return;
        }
        // A worker that is starting or finishing while another one serves in its place.
        if launch::is_launcher(&running.arguments) && alive == wanted.saturating_add(1) {
            return;
        }
        if alive == wanted || self.findings.iter().any(|finding| finding.status == Status::Differs) {
            return;
        }
        if running.alone && wanted > 1 {
            let text = format!(
                "PyPNM runs as one process although its profile says {wanted} workers: it does not read it (PyPNM \
                 before 1.6 doesn't)"
            );
            self.find("not-read", Status::Differs, text, None);
        } else {
            let text = format!("{alive} of {wanted} workers are alive; its log says why");
            let mend = format!("journalctl -u {}", self.facts.unit);
            self.find("workers-missing", Status::Differs, text, Some(&mend));
        }
        *restart = false;
    }
}

/// What the processes use, from the surest source there is.
fn in_use(running: &Running, sized: &Sized) -> InUse {
    let number = |name| flag(&running.arguments, name).and_then(|value| value.parse::<i64>().ok());
    let (workers, limit) = (number("--workers"), number("--limit-max-requests"));
    if Keys::of_arguments(&running.arguments) == OF_UVICORN {
        let environment = running.environment.as_ref();
        let of = |key| environment.and_then(|e| e.get(key)).and_then(|value| value.parse::<i64>().ok());
        let alive = i64::try_from(running.workers).ok();
        return InUse {
            workers: workers.or_else(|| of(UVICORN_WORKERS)).or_else(|| of("WEB_CONCURRENCY")).or(alive),
            limit_max_requests: limit.or_else(|| of(UVICORN_LIMIT)).or(environment.map(|_| 0)),
            by: match (workers, environment) {
                (Some(_), _) => By::Flag,
                (None, Some(_)) => By::Environment,
                (None, None) => By::Unknown,
            },
        };
    }
    if let (Some(workers), Some(limit)) = (workers, limit) {
        return InUse { workers: Some(workers), limit_max_requests: Some(limit), by: By::Flag };
    }
    let taken = match &running.file {
        Some((_, Ok(text))) => match pypnm::read_profile_file(text) {
            ProfileFile::Taken(numbers) => Some(numbers),
            ProfileFile::Ignored(_) | ProfileFile::Crashes(..) => None,
        },
        _ => None,
    };
    let (numbers, by) = match (running.active, taken) {
        // What is in effect, but whether by the file or by itself only the file tells.
        (Some(active), taken) => (active, if taken.is_some() { By::Pypnm } else { By::Itself }),
        (None, Some(numbers)) => (numbers, By::File),
        (None, None) => (sized.own, By::Itself),
    };
    let alive = i64::try_from(running.workers).unwrap_or(i64::MAX);
    if by == By::Itself && running.active.is_none() && workers.is_none() && alive != numbers.workers {
        // It counted otherwise than can be told from here.
        return InUse { workers: Some(alive), limit_max_requests: limit, by };
    }
    InUse {
        workers: Some(workers.unwrap_or(numbers.workers)),
        limit_max_requests: Some(limit.unwrap_or(numbers.limit_max_requests)),
        by,
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
