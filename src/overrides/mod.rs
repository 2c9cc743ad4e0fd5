//! What the operator's units and the manager's configuration do to the generated drop-in: which of its values others
//! replace, and what goes past it.
//!
//! The drop-in sets variables, so an `Environment=` that systemd reads after it wins, as does any `EnvironmentFile=`, and
//! flags of `ExecStart=` win over both. Where the operator sets a variable that the drop-in would replace, the operator
//! wins all the same: what the operator's own unit sets, a drop-in that sorts before ours, or the manager's configuration, is
//! repeated ([`Overrides::repeated`]), and `UVICORN_WORKERS` is left out where `WEB_CONCURRENCY` is set
//! ([`Overrides::is_left_out`]). A package's unit, below /usr/lib, is replaced, and what sizing.conf(5) decides wins over all
//! but the files that systemd reads later.
//!
//! All this is data; `explain` and `check` print it, and the generator asks it whether a single worker may run.

mod commands;
mod environment;

use std::fmt;

use crate::command::Program;
use crate::config::MOST_WORKERS;
use crate::manager::Manager;
use crate::names::{self, DROP_IN};
use crate::parse::cpu_list::MAX_CPUS;
use crate::parse::quantity::decimal;
use crate::problem::{Problem, Source};
use crate::root::Root;
use crate::units::{Assignment, Unit};

use environment::Environment;

/// One thing that the operator set, and that holds instead of what the drop-in says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it is set.
    pub source: Source,
    /// What it does.
    pub effect: Effect,
}

/// What an override does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One of the drop-in's variables ([`names::VARIABLES`]), or `WEB_CONCURRENCY`, has this value.
    Variable {
        /// Its name.
        key: &'static str,
        /// The value in effect.
        value: String,
    },
    /// A variable is set, but something else decides.
    Ineffective {
        /// Its name.
        key: &'static str,
        /// The value that has no effect.
        value: String,
        /// What decides instead.
        because: String,
    },
    /// One of the drop-in's variables is taken away: by an empty `Environment=`, or by `UnsetEnvironment=`.
    Unset {
        /// Its name.
        key: &'static str,
    },
    /// One of the drop-in's variables is taken away, and then taken from PID 1's environment if it is there.
    Passed {
        /// Its name.
        key: &'static str,
    },
    /// The command line has a flag, which PyPNM and uvicorn prefer to their environment.
    Flag {
        /// `--workers` or `--limit-max-requests`
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// The command starts neither `pypnm serve` nor uvicorn directly: what it does with the numbers is not known.
    UnknownCommand {
        /// The program that it starts.
        program: String,
    },
    /// `Restart=` is not `always` any more, whatever the drop-in says.
    Restart {
        /// The value in effect.
        value: String,
    },
    /// `ExecStartPre=` is reset, so nobody writes the file that PyPNM reads its profile from: PyPNM sizes itself.
    NoHandOver,
    /// A file of the drop-in's own name in a stronger directory: systemd reads that one instead.
    Replaced,
    /// A file of `EnvironmentFile=` that was not looked at: it may set any of the variables.
    NotRead {
        /// Its path, or the pattern for several.
        path: String,
    },
}

impl Effect {
    /// The variable or flag that it is about.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Variable { key, .. }
            | Self::Ineffective { key, .. }
            | Self::Unset { key }
            | Self::Passed { key } => Some(key),
            Self::Flag { flag, .. } => Some(flag),
            Self::UnknownCommand { .. }
            | Self::Restart { .. }
            | Self::NoHandOver
            | Self::Replaced
            | Self::NotRead { .. } => None,
        }
    }
}

/// `file:line: key: what it does`
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.effect {
            Effect::Variable { key, value } => write!(f, "{key}={value} is in effect"),
            Effect::Ineffective { key, value, because } => {
                write!(f, "{key}={value} has no effect: {because}")
            }
            Effect::Unset { key } => write!(f, "{key} is removed"),
            Effect::Passed { key } => write!(f, "{key} is taken from PID 1's environment"),
            Effect::Flag { flag, value } => write!(f, "{flag} {value} on the command line is in effect"),
            Effect::UnknownCommand { program } => {
                write!(f, "what {program} starts is unknown; it may run a single worker")
            }
            Effect::Restart { value } => write!(f, "Restart={value} is in effect"),
            Effect::NoHandOver => {
                f.write_str("the profile is not passed to PyPNM, which falls back to its own sizing")
            }
            Effect::Replaced => f.write_str("is read instead of the generated drop-in"),
            Effect::NotRead { path } => write!(f, "{path} was not read and may set anything"),
        }
    }
}

/// All overrides of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In this order: the drop-in as a whole, variables, flags, commands, the rest.
    pub list: Vec<Override>,
    /// What the operator sets where the drop-in would win, and which it must not replace: variable, value, where.
    repeated: Vec<(&'static str, String, Source)>,
    /// Variables that the drop-in must not set, so that another one of the operator's takes effect.
    left_out: Vec<&'static str>,
    /// A single worker cannot be ruled out, whatever the numbers say: by a command that is not known, by an environment
    /// file that a generator cannot read.
    may_be_one_worker: bool,
    /// `Type=oneshot`
    refuses_restart: bool,
}

/// Whether a single worker runs; at its recycle limit the whole service ends, with status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleWorker {
    /// It does.
    Certain,
    /// It cannot be ruled out.
    Possible,
}

/// A number in effect, and who set it where that was not the sizing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The number.
    pub value: u32,
    /// `None`: the sized one.
    pub set_by: Option<&'a Override>,
}

impl Overrides {
    /// What holds for a variable or a flag instead of the drop-in's.
    pub fn get(&self, key: &str) -> Option<&Override> {
        let is_effective = |effect: &Effect| !matches!(effect, Effect::Ineffective { .. });
        self.list.iter().find(|o| o.effect.key() == Some(key) && is_effective(&o.effect))
    }

    /// The value that the drop-in has for a variable because the operator sets it, and where.
    pub fn repeated(&self, key: &str) -> Option<(&str, &Source)> {
        self.repeated
            .iter()
            .find(|(name, ..)| *name == key)
            .map(|(_, value, source)| (value.as_str(), source))
    }

    /// Whether the drop-in leaves a variable out, because the operator sets another that it would win over.
    pub fn is_left_out(&self, key: &str) -> bool {
        self.left_out.contains(&key)
    }

    /// The workers that `pypnm serve` will have. An invalid value is replaced by the sized one, as `env --write` does.
    pub fn workers(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::WORKERS_FLAG, names::WORKERS], 1, sized)
    }

    /// The recycle limit that `pypnm serve` will have; 0: never.
    pub fn limit_max_requests(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::LIMIT_MAX_REQUESTS_FLAG, names::LIMIT_MAX_REQUESTS], 0, sized)
    }

    /// The workers that `uvicorn` will have: 1 where nothing says otherwise.
    pub fn uvicorn_workers(&self, sized: u32) -> Effective<'_> {
        let removed = self.get(names::UVICORN_WORKERS).filter(|o| matches!(o.effect, Effect::Unset { .. }));
        if !self.is_left_out(names::UVICORN_WORKERS) && removed.is_none() {
            return self.effective_number([names::WORKERS_FLAG, names::UVICORN_WORKERS], 1, sized);
        }
        let set = self.effective_number([names::WORKERS_FLAG, names::UVICORN_WORKERS], 1, 1);
        if set.set_by.is_some() {
            return set;
        }
        let concurrency = self.effective_number([names::WEB_CONCURRENCY; 2], 1, 1);
        Effective { value: concurrency.value, set_by: concurrency.set_by.or(removed) }
    }

    /// The recycle limit that `uvicorn` will have; 0: never.
    pub fn uvicorn_limit_max_requests(&self, sized: u32) -> Effective<'_> {
        let removed = self.get(names::UVICORN_LIMIT_MAX_REQUESTS);
        let removed = removed.filter(|o| matches!(o.effect, Effect::Unset { .. }));
        let sized = if removed.is_some() { 0 } else { sized };
        let keys = [names::LIMIT_MAX_REQUESTS_FLAG, names::UVICORN_LIMIT_MAX_REQUESTS];
        let set = self.effective_number(keys, 0, sized);
        Effective { set_by: set.set_by.or(removed), ..set }
    }

    /// Whether the service may end for good at its recycle limit, because a single worker runs: by `pypnm serve` or by
    /// uvicorn. The answer is the same for whoever asks, the generator or the helper.
    pub fn single_worker(&self, sized_workers: u32, sized_limit: u32) -> Option<SingleWorker> {
        let ends = |workers: Effective<'_>, limit: Effective<'_>| workers.value == 1 && limit.value > 0;
        if self.refuses_restart {
            return None;
        }
        if ends(self.workers(sized_workers), self.limit_max_requests(sized_limit))
            || ends(self.uvicorn_workers(sized_workers), self.uvicorn_limit_max_requests(sized_limit))
        {
            return Some(SingleWorker::Certain);
        }
        self.may_be_one_worker.then_some(SingleWorker::Possible)
    }

    /// Whether systemd would refuse the unit with `Restart=always` (`Type=oneshot`).
    pub fn refuses_restart(&self) -> bool {
        self.refuses_restart
    }

    /// The first of `keys` with a valid number, `least` or more; else the sized one.
    pub fn effective_number(&self, keys: [&str; 2], least: u32, sized: u32) -> Effective<'_> {
        let set = keys.into_iter().find_map(|key| {
            let set_by = self.get(key)?;
            let (Effect::Variable { value, .. } | Effect::Flag { value, .. }) = &set_by.effect else {
                return None;
            };
            let value = decimal::<u32>(value).filter(|value| *value >= least)?;
            Some(Effective { value, set_by: Some(set_by) })
        });
        set.unwrap_or(Effective { value: sized, set_by: None })
    }
}

/// Where systemd reads a file of the unit, as against the generated drop-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Before,
    /// Instead of it: a file of the same name in a stronger directory.
    Replacing,
    After,
}

/// The position of one of `unit`'s files: drop-ins of all directories are read in the order of their names.
fn position(unit: &Unit, file: &str) -> Position {
    if unit.fragment.as_deref() == Some(file) {
        return Position::Before;
    }
    let (_, name) = file.rsplit_once('/').unwrap_or_default();
    match name.cmp(DROP_IN) {
        std::cmp::Ordering::Less => Position::Before,
        std::cmp::Ordering::Greater => Position::After,
        std::cmp::Ordering::Equal => Position::Replacing,
    }
}

/// Whether a value can be handed to PyPNM or uvicorn as it is; neither starts with one that cannot.
pub fn is_valid_value(key: &str, value: &str) -> bool {
    let count = |most: u32| decimal::<u32>(value).is_some_and(|number| (1..=most).contains(&number));
    match key {
        names::LIMIT_MAX_REQUESTS => decimal::<u32>(value).is_some(),
        // What bash, systemd and PyPNM's `float()` read alike.
        names::TOTAL_MEMORY_GIB => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
            decimal::<u64>(whole).is_some() && decimal::<u64>(fraction).is_some()
        }
        // Nothing in it that a unit file would have to quote.
        names::ENV_FILE => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:@+,".contains(&b);
            value.starts_with('/') && value.bytes().all(plain)
        }
        names::UVICORN_LIMIT_MAX_REQUESTS => count(u32::MAX),
        names::CPU_COUNT => count(MAX_CPUS),
        // As sizing.conf has it.
        _ => count(MOST_WORKERS),
    }
}

/// Whether a file is the operator's, not a package's.
fn is_by_hand(file: &str) -> bool {
    !["/usr/lib/", "/lib/"].iter().any(|packaged| file.starts_with(packaged))
}

/// Finds the overrides among what `unit` says and what its manager adds; reads its environment files below `root`.
/// `decided`: the variables that sizing.conf(5) decides, and where.
pub fn read(
    root: &Root,
    unit: &Unit,
    manager: &Manager,
    decided: &[(&'static str, Source)],
    problems: &mut Vec<Problem>,
) -> Overrides {
    let mut overrides = Overrides::default();
    let replaced = unit.drop_ins.iter().find(|file| position(unit, file) == Position::Replacing);
    if let Some(file) = replaced {
        overrides.list.push(Override { source: Source::file(file.clone()), effect: Effect::Replaced });
    }
    let commands = commands::find(unit);
    let mut environment = Environment::new(commands.iter().flat_map(commands::Command::expanded_words));
    environment.inherit(root, unit, manager);
    environment.assign(unit, replaced.is_none(), decided, problems);
    environment.read_files(root, unit, problems);
    environment.unset(unit);
    environment.assign_by_commands(commands::assignments(&commands, &environment));
    let program = commands::program(&commands);
    environment.settle_concurrency(program, decided, problems);
    environment.report(&mut overrides);
    let commands_known = commands::flags(&commands, &environment, &mut overrides.list, problems);
    restart_and_hand_over(unit, &mut overrides.list);
    overrides.may_be_one_worker = environment.has_late_files || !commands_known;
    overrides.refuses_restart =
        unit.assignments_of("Type").next_back().is_some_and(|last| last.value == "oneshot");
    overrides.list.append(&mut environment.not_read);
    overrides.repeated = environment.repeated;
    overrides.left_out = environment.left_out;
    overrides
}

/// `Restart=` and `ExecStartPre=` after the drop-in.
fn restart_and_hand_over(unit: &Unit, list: &mut Vec<Override>) {
    const RESTART: [&str; 7] =
        ["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"];
    let after = |assignment: &&Assignment| position(unit, &assignment.source.file) == Position::After;
    let restart =
        unit.assignments_of("Restart").rfind(|assignment| RESTART.contains(&assignment.value.as_str()));
    if let Some(restart) = restart.filter(after).filter(|restart| restart.value != "always") {
        let effect = Effect::Restart { value: restart.value.clone() };
        list.push(Override { source: restart.source.clone(), effect });
    }
    let reset =
        unit.assignments_of("ExecStartPre").filter(after).rfind(|assignment| assignment.value.is_empty());
    if let Some(reset) = reset {
        list.push(Override { source: reset.source.clone(), effect: Effect::NoHandOver });
    }
}

/// What the unit's commands start: the one program that all of them start, if it is known.
pub fn program(unit: &Unit) -> Program {
    commands::program(&commands::find(unit))
}
