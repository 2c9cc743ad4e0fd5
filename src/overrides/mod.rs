//! How the operator's units and the manager's configuration override the generated drop-in.
//!
//! The drop-in sets variables, so an `Environment=` that systemd reads later takes precedence, and so does any
//! `EnvironmentFile=`; flags in `ExecStart=` take precedence over both. If the operator sets a variable in a place that the
//! drop-in would override (the operator's own unit, a drop-in that sorts before ours, or the manager's configuration), the
//! drop-in repeats that value ([`Overrides::repeated`]). It omits `UVICORN_WORKERS` if the operator sets `WEB_CONCURRENCY`
//! ([`Overrides::is_left_out`]). Values in a package's unit, below /usr/lib, are replaced. Settings in sizing.conf(5) take
//! precedence over all files except those that systemd reads later.
//!
//! The result is data: `explain` and `check` print it, and the generator uses it to determine whether a single worker may
//! run.

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

/// A setting of the operator that overrides the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it is set.
    pub source: Source,
    /// Its effect.
    pub effect: Effect,
}

/// The effect of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One of the drop-in's variables ([`names::VARIABLES`]), or `WEB_CONCURRENCY`, has this value.
    Variable {
        /// Its name.
        key: &'static str,
        /// The value in effect.
        value: String,
    },
    /// A variable is set, but something else takes precedence.
    Ineffective {
        /// Its name.
        key: &'static str,
        /// The value that has no effect.
        value: String,
        /// The reason.
        because: String,
    },
    /// One of the drop-in's variables is removed by an empty `Environment=` or by `UnsetEnvironment=`.
    Unset {
        /// Its name.
        key: &'static str,
    },
    /// One of the drop-in's variables is removed, and is then taken from PID 1's environment if it is set there.
    Passed {
        /// Its name.
        key: &'static str,
    },
    /// The command line has a flag, which takes precedence over the environment for PyPNM and uvicorn.
    Flag {
        /// `--workers` or `--limit-max-requests`
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// The command does not start `pypnm serve` or uvicorn directly, so it is unknown whether it uses the numbers.
    UnknownCommand {
        /// The program that it starts.
        program: String,
    },
    /// `Restart=` is set to something other than `always`, overriding the drop-in.
    Restart {
        /// The value in effect.
        value: String,
    },
    /// `ExecStartPre=` is reset, so PyPNM's profile file is not written, and PyPNM sizes itself.
    NoHandOver,
    /// The command takes the variable away that names the profile file (env(1) `-i` or `-u`): PyPNM sizes itself.
    Withheld,
    /// A file of the same name in a directory with higher precedence replaces the drop-in.
    Replaced,
    /// A file of `EnvironmentFile=` that was not read. It may set any of the variables.
    NotRead {
        /// Its path, or the pattern for several.
        path: String,
    },
}

impl Effect {
    /// The variable or flag that is overridden.
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
            | Self::Withheld
            | Self::Replaced
            | Self::NotRead { .. } => None,
        }
    }
}

/// `file:line: key: effect`
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
            Effect::Withheld => {
                write!(f, "{} is not passed on to PyPNM, which falls back to its own sizing", names::ENV_FILE)
            }
            Effect::Replaced => f.write_str("is read instead of the generated drop-in"),
            Effect::NotRead { path } => write!(f, "{path} was not read and may set anything"),
        }
    }
}

/// All overrides of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In this order: the drop-in as a whole, variables, flags, commands, others.
    pub list: Vec<Override>,
    /// Settings of the operator that the drop-in repeats instead of overriding them: variable, value, source.
    repeated: Vec<(&'static str, String, Source)>,
    /// Variables that the drop-in omits, so that another variable set by the operator takes effect.
    left_out: Vec<&'static str>,
    /// A single worker cannot be ruled out, regardless of the numbers, because of an unknown command or an environment file
    /// that a generator cannot read.
    may_be_one_worker: bool,
    /// `Type=oneshot`
    refuses_restart: bool,
}

/// Whether a single worker runs. When it reaches its recycle limit, the whole service exits with status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleWorker {
    /// A single worker runs.
    Certain,
    /// A single worker cannot be ruled out.
    Possible,
}

/// A number in effect, and the override that sets it, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The number.
    pub value: u32,
    /// `None`: it is the sized value.
    pub set_by: Option<&'a Override>,
}

impl Overrides {
    /// The override of a variable or flag.
    pub fn get(&self, key: &str) -> Option<&Override> {
        let is_effective = |effect: &Effect| !matches!(effect, Effect::Ineffective { .. });
        self.list.iter().find(|o| o.effect.key() == Some(key) && is_effective(&o.effect))
    }

    /// Whether PyPNM finds the profile that is written for it, as far as the unit decides that.
    pub fn is_handed_over(&self) -> bool {
        let is_in_the_way = |effect: &Effect| matches!(effect, Effect::NoHandOver | Effect::Withheld);
        self.get(names::ENV_FILE).is_none() && !self.list.iter().any(|o| is_in_the_way(&o.effect))
    }

    /// The operator's value of a variable that the drop-in repeats, and its source.
    pub fn repeated(&self, key: &str) -> Option<(&str, &Source)> {
        self.repeated
            .iter()
            .find(|(name, ..)| *name == key)
            .map(|(_, value, source)| (value.as_str(), source))
    }

    /// Whether the drop-in omits a variable, because it would take precedence over another one that the operator sets.
    pub fn is_left_out(&self, key: &str) -> bool {
        self.left_out.contains(&key)
    }

    /// The number of workers that `pypnm serve` will start. An invalid value is replaced by the sized one, as in
    /// `env --write`.
    pub fn workers(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::WORKERS_FLAG, names::WORKERS], 1, sized)
    }

    /// The recycle limit that `pypnm serve` will use; 0: never.
    pub fn limit_max_requests(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::LIMIT_MAX_REQUESTS_FLAG, names::LIMIT_MAX_REQUESTS], 0, sized)
    }

    /// The number of workers that `uvicorn` will start; 1 by default.
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

    /// The recycle limit that `uvicorn` will use; 0: never.
    pub fn uvicorn_limit_max_requests(&self, sized: u32) -> Effective<'_> {
        let removed = self.get(names::UVICORN_LIMIT_MAX_REQUESTS);
        let removed = removed.filter(|o| matches!(o.effect, Effect::Unset { .. }));
        let sized = if removed.is_some() { 0 } else { sized };
        let keys = [names::LIMIT_MAX_REQUESTS_FLAG, names::UVICORN_LIMIT_MAX_REQUESTS];
        let set = self.effective_number(keys, 0, sized);
        Effective { set_by: set.set_by.or(removed), ..set }
    }

    /// Whether the service may exit at its recycle limit because a single worker runs, for `pypnm serve` or uvicorn. The
    /// generator and the helper use the same answer.
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

    /// The first of `keys` that is overridden with a valid number, at least `least`; otherwise the sized number.
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

/// The position of a file of the unit relative to the generated drop-in, in the order in which systemd reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Before,
    /// Instead of it: a file of the same name in a directory with higher precedence.
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

/// Whether PyPNM or uvicorn accepts a value. They do not start with an invalid one.
pub fn is_valid_value(key: &str, value: &str) -> bool {
    let count = |most: u32| decimal::<u32>(value).is_some_and(|number| (1..=most).contains(&number));
    match key {
        names::LIMIT_MAX_REQUESTS => decimal::<u32>(value).is_some(),
        // Only what bash, systemd and PyPNM's `float()` interpret in the same way.
        names::TOTAL_MEMORY_GIB => {
            let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
            decimal::<u64>(whole).is_some() && decimal::<u64>(fraction).is_some()
        }
        // Only characters that need no quotes in a unit file.
        names::ENV_FILE => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:@+,".contains(&b);
            value.starts_with('/') && value.bytes().all(plain)
        }
        names::UVICORN_LIMIT_MAX_REQUESTS => count(u32::MAX),
        names::CPU_COUNT => count(MAX_CPUS),
        // As in sizing.conf.
        _ => count(MOST_WORKERS),
    }
}

/// Whether a file belongs to the operator and not to a package.
fn is_by_hand(file: &str) -> bool {
    !["/usr/lib/", "/lib/"].iter().any(|packaged| file.starts_with(packaged))
}

/// Finds the overrides in the settings of `unit` and of its manager, and reads its environment files below `root`.
/// `decided`: the variables that sizing.conf(5) sets, with their sources.
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
    let env_file = format!("{}/{}.env", names::RUNTIME_DIRECTORY, unit.name);
    let program = commands::program(&commands);
    environment.change_by_commands(commands::changes(&commands, &environment), program, &env_file);
    environment.settle_concurrency(program, decided, problems);
    environment.report(&mut overrides);
    let commands_known = commands::flags(&commands, &environment, &mut overrides.list, problems);
    restart_and_hand_over(unit, &mut overrides.list);
    // What PyPNM finds in another profile file, or makes of the machine without one, is not known.
    let has_other_profile = program != Program::Uvicorn && !overrides.is_handed_over();
    overrides.may_be_one_worker = environment.has_late_files || !commands_known || has_other_profile;
    overrides.refuses_restart =
        unit.assignments_of("Type").next_back().is_some_and(|last| last.value == "oneshot");
    overrides.list.append(&mut environment.not_read);
    overrides.repeated = environment.repeated;
    overrides.left_out = environment.left_out;
    overrides
}

/// Adds overrides by `Restart=` and `ExecStartPre=` that systemd reads after the drop-in.
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

/// The program that all commands of the unit start, if it is known.
pub fn program(unit: &Unit) -> Program {
    commands::program(&commands::find(unit))
}

#[cfg(test)]
mod tests {
    use super::{Overrides, SingleWorker, is_valid_value};
    use crate::names::{
        CPU_COUNT, ENV_FILE, LIMIT_MAX_REQUESTS, TOTAL_MEMORY_GIB, UVICORN_LIMIT_MAX_REQUESTS,
        UVICORN_WORKERS, WORKERS,
    };
    use crate::root::Root;
    use crate::sizing::{Request, size};

    /// The overrides of a unit on a machine for four workers.
    fn overrides(unit: &str) -> Overrides {
        with_drop_in(unit, "")
    }

    /// The same with a drop-in of the operator's that is read after the generated one.
    fn with_drop_in(unit: &str, drop_in: &str) -> Overrides {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        for (path, text) in [
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("proc/1/status", "Cpus_allowed_list:\t0-7\n"),
            ("proc/meminfo", "MemTotal: 65852000 kB\n"),
            ("etc/systemd/system/pypnm.service", &format!("[Service]\n{unit}")),
            ("etc/systemd/system/pypnm.service.d/50.conf", &format!("[Service]\n{drop_in}")),
        ] {
            let path = directory.path().join(path);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
        }
        let root = Root::below(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        size(&Request::new(&root)).units.pop().map(|unit| unit.overrides).unwrap_or_default()
    }

    fn texts(unit: &str) -> Vec<String> {
        let list = overrides(unit).list;
        list.iter().map(|o| o.to_string().replace("/etc/systemd/system/pypnm.service:", "")).collect()
    }

    #[test]
    fn values_that_can_be_handed_over() {
        for (key, valid, invalid) in [
            (WORKERS, &["1", "1024"][..], &["0", "-1", "1025", "2.0", "", " 1"][..]),
            (UVICORN_WORKERS, &["1"], &["0", "x"]),
            (LIMIT_MAX_REQUESTS, &["0", "1", "4294967295"], &["-1", "1.5", "4294967296", ""]),
            (UVICORN_LIMIT_MAX_REQUESTS, &["1", "4294967295"], &["0", "4294967296"]),
            (
                TOTAL_MEMORY_GIB,
                &["0", "15.62", "8", "8192.0"],
                &[".5", "5.", "1e3", "-1", "1.x", "x.1", "", "nan"],
            ),
            (CPU_COUNT, &["1", "8192"], &["0", "8193", "1.5"]),
            (ENV_FILE, &["/run/a-b_c/d@e:1.env", "/a"], &["a", "", "/a b", "a/b", "/a%n", "/a\n"]),
        ] {
            for value in valid {
                assert!(is_valid_value(key, value), "{key}={value}");
            }
            for value in invalid {
                assert!(!is_valid_value(key, value), "{key}={value}");
            }
        }
    }

    #[test]
    fn variables_removed_by_env_are_missing() {
        let withheld =
            "ExecStart: PYPNM_SERVE_ENV_FILE is not passed on to PyPNM, which falls back to its own sizing";
        for clears in
            ["-i", "-", "-u PYPNM_SERVE_ENV_FILE", "--unset=PYPNM_SERVE_ENV_FILE", "-i PYPNM_SERVE_WORKERS=3"]
        {
            let unit = format!("ExecStart=/usr/bin/env {clears} /opt/pypnm/bin/pypnm serve\n");
            let found = texts(&unit);
            assert_eq!(found, [format!("2: {withheld}")], "{clears}");
            assert_eq!(overrides(&unit).single_worker(4, 2000), Some(SingleWorker::Possible), "{clears}");
        }
        for passes in ["A=1", "-u A", "-i PYPNM_SERVE_ENV_FILE=/run/pypnm-sizing/%n.env"] {
            let unit = format!("ExecStart=/usr/bin/env {passes} /opt/pypnm/bin/pypnm serve\n");
            let found = texts(&unit);
            assert!(!found.iter().any(|text| text.contains("PYPNM_SERVE_ENV_FILE")), "{passes}: {found:?}");
            assert_eq!(overrides(&unit).single_worker(4, 2000), None, "{passes}");
        }
        let in_the_file = overrides("ExecStart=/usr/bin/env PYPNM_SERVE_WORKERS=3 pypnm serve\n");
        assert_eq!(in_the_file.workers(4).value, 4, "PyPNM reads the file, which is written before");
        let other = overrides("ExecStart=/usr/bin/env PYPNM_SERVE_ENV_FILE=/etc/x pypnm serve\n");
        assert!(!other.is_handed_over());
        assert_eq!(other.single_worker(4, 2000), Some(SingleWorker::Possible), "what is in it is not known");

        // uvicorn reads its own variables, and needs no file.
        let cleared = overrides("ExecStart=/usr/bin/env -i uvicorn a:b\n");
        assert_eq!(
            (cleared.uvicorn_workers(4).value, cleared.uvicorn_limit_max_requests(2000).value),
            (1, 0)
        );
        assert!(cleared.uvicorn_limit_max_requests(2000).set_by.is_some());
        assert_eq!(cleared.single_worker(4, 2000), None, "it is never recycled");
        let own = overrides(
            "ExecStart=/usr/bin/env -i UVICORN_WORKERS=2 UVICORN_LIMIT_MAX_REQUESTS=9 uvicorn a:b\n",
        );
        assert_eq!((own.uvicorn_workers(4).value, own.uvicorn_limit_max_requests(2000).value), (2, 9));
        let concurrency = overrides("ExecStart=/usr/bin/env -i WEB_CONCURRENCY=3 uvicorn a:b\n");
        assert_eq!(concurrency.uvicorn_workers(4).value, 3);
        let unset = overrides("ExecStart=/usr/bin/env -u UVICORN_LIMIT_MAX_REQUESTS uvicorn a:b\n");
        assert_eq!((unset.uvicorn_workers(4).value, unset.uvicorn_limit_max_requests(2000).value), (4, 0));
    }

    #[test]
    fn what_the_unit_takes_away() {
        let serve = "ExecStart=uvicorn a:b\n";
        let with = |lines: &str| texts(&format!("{serve}{lines}")).join("; ");
        assert_eq!(
            with("UnsetEnvironment=UVICORN_WORKERS\n"),
            "3: UnsetEnvironment: UVICORN_WORKERS is removed"
        );
        assert_eq!(with("UnsetEnvironment=UVICORN_WORKERS\nUnsetEnvironment=\n"), "");
        assert_eq!(with("UnsetEnvironment=UVICORN_WORKERS=4\n"), "", "not the value that it has");
        let concurrency = |taken: &str| {
            let unit = format!("{serve}Environment=WEB_CONCURRENCY=2\nUnsetEnvironment={taken}\n");
            overrides(&unit).uvicorn_workers(4).value
        };
        assert_eq!((concurrency(""), concurrency("WEB_CONCURRENCY=3")), (2, 2));
        assert_eq!((concurrency("WEB_CONCURRENCY"), concurrency("WEB_CONCURRENCY=2")), (4, 4));
    }

    #[test]
    fn what_the_unit_sets_after_the_drop_in() {
        let serve = "ExecStart=/opt/pypnm/bin/pypnm serve\n";
        assert_eq!(texts(serve), [""; 0]);
        let refuses = |type_of: &str| overrides(&format!("{serve}{type_of}")).refuses_restart();
        assert!(
            refuses("Type=oneshot\n") && !refuses("Type=exec\n") && !refuses("Type=oneshot\nType=exec\n")
        );
        assert_eq!(
            texts("ExecStart=/opt/pypnm/bin/pypnm serve --workers 2 --limit-max-requests 0\n"),
            [
                "2: ExecStart: --workers 2 on the command line is in effect",
                "2: ExecStart: --limit-max-requests 0 on the command line is in effect"
            ]
        );
        let with_variable = |prefix: &str| {
            texts(&format!(
                "Environment=N=3\nExecStart={prefix}/opt/pypnm/bin/pypnm serve --workers $N --limit-max-requests 0\n"
            ))
        };
        assert_eq!(
            with_variable("").first().map(String::as_str),
            Some("2: Environment: --workers 3 on the command line is in effect")
        );
        assert_eq!(
            with_variable(":").first().map(String::as_str),
            Some("3: ExecStart: --workers $N on the command line is in effect")
        );
        let twice = texts(&format!("Type=oneshot\nEnvironment=WEB_CONCURRENCY=2\n{serve}{serve}"));
        assert!(twice.iter().any(|text| text.ends_with("pypnm serve does not read it")), "{twice:?}");
        let different =
            texts(&format!("Type=oneshot\nEnvironment=WEB_CONCURRENCY=2\n{serve}ExecStart=uvicorn a:b\n"));
        assert!(!different.iter().any(|text| text.contains("does not read it")), "{different:?}");
        let after = |drop_in: &str| {
            let list = with_drop_in(&format!("{serve}Restart=no\nExecStartPre=\n"), drop_in).list;
            list.iter()
                .map(|o| o.to_string().replace("/etc/systemd/system/", ""))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(after(""), "", "what comes before the drop-in is replaced");
        assert_eq!(
            after("Restart=on-failure\nRestart=sometimes\n"),
            "pypnm.service.d/50.conf:2: Restart: Restart=on-failure is in effect"
        );
        assert_eq!(after("Restart=no\nRestart=always\n"), "");
        assert_eq!(
            after("ExecStartPre=\n"),
            "pypnm.service.d/50.conf:2: ExecStartPre: the profile is not passed to PyPNM, which falls back to its own sizing"
        );
        assert_eq!(after("ExecStartPre=/bin/true\n"), "");
        assert_eq!(
            texts("ExecStart=/usr/bin/sudo -u x pypnm serve\n"),
            ["2: ExecStart: what /usr/bin/sudo starts is unknown; it may run a single worker"]
        );
    }
}
