//! The operator's configuration, sizing.conf(5): parses its files into settings for each unit.
//!
//! The order of files is determined in [`crate::conf_files`], and the effect of settings on the profile in
//! [`crate::policy`].

mod keys;

use std::collections::BTreeMap;

use crate::conf_files;
use crate::names;
use crate::parse::syntax::{Fault, Item, items};
use crate::policy::PolicySettings;
use crate::problem::{FileName, Problem, ProblemKind, Source, Sourced};
use crate::root::Root;
use crate::units::name::service_name;

use keys::SKIPPED;
pub use keys::{KEYS, MAX_SETTABLE_WORKERS, UnitConfig};

/// The main file, relative to a configuration directory; drop-ins are in the directory of the same name with `.d`.
const FILE: &str = "pypnm/sizing.conf";
/// The section for all units.
const GENERAL: &str = "Sizing";
/// The unit that is sized by default.
pub const DEFAULT_UNIT: &str = "pypnm.service";
/// The maximum number of units; more on one host are a mistake.
const MAX_UNITS: usize = 64;
/// The rest of a file with more errors than this is skipped: it is probably not a configuration file.
const MAX_FAULTS: usize = 50;
/// The consequence of a file that exists and cannot be read.
const UNREAD: &str = "assuming 1 worker unless a later file sets Workers=";

impl UnitConfig {
    /// The settings for the policy.
    pub fn policy_settings(&self) -> PolicySettings {
        let default = PolicySettings::default();
        PolicySettings {
            workers: self.workers.as_ref().and_then(|set| set.value),
            limit_max_requests: self.limit_max_requests.as_ref().and_then(|set| set.value),
            max_workers: self.max_workers.as_ref().map_or(default.max_workers, |set| set.value),
            memory_per_worker: self.memory_per_worker.as_ref().map(|set| set.value),
            investigate_memory_creep: self
                .investigate_memory_creep
                .as_ref()
                .map_or(default.investigate_memory_creep, |set| set.value),
            is_incomplete: self.unread.is_some(),
        }
    }

    /// The variables of the drop-in that these settings determine, with their sources.
    pub fn decided_variables(&self) -> BTreeMap<&'static str, Source> {
        let workers = self.workers.as_ref().filter(|set| set.value.is_some());
        let limit = self.limit_max_requests.as_ref().filter(|set| set.value.is_some());
        let decided = [
            (names::WORKERS, workers),
            (names::UVICORN_WORKERS, workers),
            (names::LIMIT_MAX_REQUESTS, limit),
            (names::UVICORN_LIMIT_MAX_REQUESTS, limit),
        ];
        decided.into_iter().filter_map(|(name, set)| Some((name, set?.source.clone()))).collect()
    }

    /// Whether the unit is sized at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled.as_ref().is_none_or(|set| set.value)
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The files that were read, in order; later ones take precedence.
    pub files: Vec<String>,
    /// `Units=`, never empty.
    units: Option<Sourced<Vec<String>>>,
    general: UnitConfig,
    /// For each unit, the line of its first section, and its settings.
    by_unit: BTreeMap<String, (Source, UnitConfig)>,
}

impl Config {
    /// The units to size, in the order given.
    pub fn units(&self) -> Vec<String> {
        match &self.units {
            Some(set) => set.value.clone(),
            None => vec![DEFAULT_UNIT.to_owned()],
        }
    }

    /// Where `Units=` is set. `None`: it is not.
    pub fn units_source(&self) -> Option<&Source> {
        self.units.as_ref().map(|set| &set.source)
    }

    /// Whether anything is sized at all.
    pub fn is_enabled(&self) -> bool {
        self.general.is_enabled()
    }

    /// Takes back the settings of all units, except `Enabled=`.
    fn forget(&mut self, source: &Source) {
        self.general.forget(source);
        self.by_unit.values_mut().for_each(|(_, own)| own.forget(source));
    }

    /// The settings of `unit`: those in its own section, and those in `[Sizing]` for other keys.
    pub fn for_unit(&self, unit: &str) -> UnitConfig {
        match self.by_unit.get(unit) {
            Some((_, own)) => own.clone().or(&self.general),
            None => self.general.clone(),
        }
    }
}

/// Reads the configuration below `root`.
pub fn read(root: &Root, problems: &mut Vec<Problem>) -> Config {
    let mut config = Config::default();
    let before = problems.len();
    let unread = conf_files::each(root, FILE, problems, &mut |path, read, problems| match read {
        Ok(text) => {
            parse_into(path, text, &mut config, problems);
            // An empty file only masks others.
            if !text.is_empty() {
                config.files.push(path.to_owned());
            }
        }
        Err(error) if conf_files::hides(&error) => {
            config.forget(&Source::file(path));
            problems.push(Problem::unreadable(path, error, UNREAD));
        }
        Err(error) => problems.push(Problem::unreadable(path, error, "the file is skipped")),
    });
    if let Some(directory) = unread {
        // Its files may have any names, so they may come last.
        config.forget(&Source::file(directory));
    }
    let units = config.units();
    let without_effect = config.by_unit.iter().filter(|(name, _)| !units.contains(name));
    for (name, (source, _)) in without_effect.take(MAX_FAULTS) {
        let expected = "one of the units in Units=";
        problems.push(Problem::bad_value(source.clone(), name, expected, "the section has no effect"));
    }
    problems.iter_mut().skip(before).for_each(|problem| problem.is_in_configuration = true);
    config
}

/// The section of a line.
enum Section {
    None,
    General,
    Unit(String, Source),
    Unknown,
}

/// Parses the lines of a file into `config`.
pub fn parse_into(path: &str, text: &[u8], config: &mut Config, problems: &mut Vec<Problem>) {
    let file = FileName::from(path);
    let mut section = Section::None;
    let before = problems.len();
    for item in items(text) {
        let at = |line, key: &str| Source::key(file.clone(), line, key.to_owned());
        if problems.len() - before >= MAX_FAULTS {
            let (Item::Section { line, .. } | Item::Assignment { line, .. } | Item::Fault { line, .. }) =
                item;
            let consequence = "the rest of the file is skipped";
            problems.push(Problem::new(at(line, ""), ProblemKind::TooManyFaults, consequence));
            return;
        }
        match item {
            Item::Fault { fault, line } => {
                let rest = fault == Fault::BrokenSection;
                let consequence =
                    if rest { "the rest of the file is skipped" } else { "the line is skipped" };
                problems.push(Problem::new(at(line, ""), ProblemKind::Syntax(fault), consequence));
            }
            Item::Section { name, line } => {
                section = if name == GENERAL {
                    Section::General
                } else if let Some(unit) = unit_of_section(&name) {
                    Section::Unit(unit, at(line, &format!("[{name}]")))
                } else if name.starts_with("X-") {
                    Section::Unknown
                } else {
                    problems.push(Problem::new(
                        at(line, &format!("[{name}]")),
                        ProblemKind::UnknownSection { expected: "[Sizing] or the name of a unit" },
                        "the section is skipped",
                    ));
                    Section::Unknown
                };
            }
            Item::Assignment { key, value, line } => {
                let source = at(line, &key);
                match &section {
                    Section::Unknown => {}
                    Section::None => problems.push(Problem::new(
                        source,
                        ProblemKind::UnknownSection { expected: "[Sizing] above it" },
                        SKIPPED,
                    )),
                    Section::General if key == "Units" => set_units(config, &value, source, problems),
                    Section::General => config.general.set(&key, &value, source, problems),
                    Section::Unit(name, header) => {
                        let known = config.by_unit.entry(name.clone());
                        let (_, own) = known.or_insert_with(|| (header.clone(), UnitConfig::default()));
                        own.set(&key, &value, source, problems);
                    }
                }
            }
        }
    }
}

/// Applies `Units=`: names of services, separated by spaces. Duplicates are ignored, and an empty value resets the list.
fn set_units(config: &mut Config, value: &str, source: Source, problems: &mut Vec<Problem>) {
    let mut units: Vec<String> = Vec::new();
    let before = problems.len();
    for name in value.split_ascii_whitespace() {
        if problems.len() - before >= MAX_FAULTS {
            break;
        }
        // A dot belongs to the suffix of a service or of another file; only instances may contain others.
        let is_other_file = !name.ends_with(".service") && !name.contains('@') && name.contains('.');
        let mut ignore = |expected| {
            problems.push(Problem::bad_value(source.clone(), name, expected, "the name is ignored"));
        };
        match service_name(name).filter(|_| !is_other_file) {
            None => ignore("the name of a service"),
            Some(name) if units.contains(&name) => {}
            Some(_) if units.len() >= MAX_UNITS => ignore("one of the first 64 units"),
            Some(name) => units.push(name),
        }
    }
    if value.is_empty() {
        config.units = None;
    } else if !units.is_empty() {
        config.units = Some(Sourced { value: units, source });
    }
}

/// The unit of a section. The name must have its suffix, so that a mistyped `[Sizing]` is not taken for a unit.
fn unit_of_section(name: &str) -> Option<String> {
    service_name(name).filter(|_| name.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::{Config, DEFAULT_UNIT, MAX_FAULTS, MAX_UNITS, parse_into};
    use crate::root::Root;
    use crate::sizing::{Request, size};

    #[test]
    fn which_problems_are_in_the_configuration() {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        for (path, text) in [
            ("etc/pypnm/sizing.conf", "[Sizing]\nWorkrs=2\nReserveCPUs=9\n[other.service]\n"),
            ("etc/systemd/system/pypnm.service", "[Service]\nEnvironmentFile=/srv/pypnm/sizing.conf\n"),
            // Not the file of the configuration.
            ("srv/pypnm/sizing.conf", "# a comment\\\nUVICORN_WORKERS=3\n"),
            ("sys/devices/system/cpu/online", "0-1\n"),
            ("proc/1/status", "Cpus_allowed_list:\t0-1\n"),
            ("proc/meminfo", "MemTotal: 8000000 kB\n"),
        ] {
            let path = directory.path().join(path);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
        }
        let root = Root::below(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        let problems = size(&Request::new(&root)).problems;
        let places = |is_in_configuration| {
            let found = problems.iter().filter(|problem| problem.is_in_configuration == is_in_configuration);
            found.map(|problem| problem.source.place()).collect::<Vec<_>>()
        };
        assert_eq!(places(true), ["/etc/pypnm/sizing.conf:2", "/etc/pypnm/sizing.conf:3"]);
        assert_eq!(places(false), ["/srv/pypnm/sizing.conf:1"]);
    }

    fn parse(text: &str) -> (Config, Vec<String>) {
        let (mut config, mut problems) = (Config::default(), Vec::new());
        parse_into("/x", text.as_bytes(), &mut config, &mut problems);
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn which_units_are_sized() {
        let (config, _) = parse("");
        assert_eq!(config.units(), [DEFAULT_UNIT]);
        assert_eq!((config.units(), config.units_source()), (vec![DEFAULT_UNIT.to_owned()], None));
        let (config, problems) = parse("[Sizing]\nUnits=a.service b  a.service\n");
        assert_eq!(
            (config.units(), problems.len()),
            (vec!["a.service".to_owned(), "b.service".to_owned()], 0)
        );
        assert!(config.units_source().is_some());
        assert_eq!(parse("[Sizing]\nUnits=a\nUnits=\n").0.units(), [DEFAULT_UNIT]);
        let (config, problems) = parse("[Sizing]\nUnits=a\nUnits=/ a.socket\n");
        assert_eq!(
            (config.units(), problems.len()),
            (vec!["a.service".to_owned()], 2),
            "the earlier one stays"
        );
    }

    #[test]
    fn bounds_on_units_and_on_faults() {
        let names = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>().join(" ");
        let (config, problems) = parse(&format!("[Sizing]\nUnits={}\n", names(MAX_UNITS)));
        assert_eq!((config.units().len(), problems.len()), (MAX_UNITS, 0));
        let (config, problems) = parse(&format!("[Sizing]\nUnits={}\n", names(MAX_UNITS + 1)));
        assert_eq!((config.units().len(), problems.len()), (MAX_UNITS, 1));
        let (_, problems) = parse(&format!("[Sizing]\nUnits={}\n", names(10_000)));
        assert_eq!(problems.len(), MAX_FAULTS);
        let (_, problems) = parse(&format!("[Sizing]\n{}", "Workers=x\n".repeat(MAX_FAULTS)));
        assert_eq!(problems.len(), MAX_FAULTS, "all of them");
        let (config, problems) =
            parse(&format!("[Sizing]\n{}MaxWorkers=7\n", "Workers=x\n".repeat(MAX_FAULTS)));
        assert_eq!(problems.len(), MAX_FAULTS + 1);
        assert!(
            problems.last().is_some_and(|last| last.starts_with("/x:52: too many errors")),
            "{problems:?}"
        );
        assert!(config.for_unit(DEFAULT_UNIT).max_workers.is_none());
    }

    #[test]
    fn enabled_for_all_units_and_for_a_single_one() {
        let text = "[Sizing]\nEnabled=no\n[b.service]\nEnabled=yes\nMaxWorkers=2\n[Sizing]\nMaxWorkers=3\n";
        let (config, problems) = parse(text);
        assert!(problems.is_empty() && !config.is_enabled());
        assert!(!config.for_unit("a.service").is_enabled() && config.for_unit("b.service").is_enabled());
        let most = |unit| config.for_unit(unit).max_workers.map(|set| set.value);
        assert_eq!((most("a.service"), most("b.service")), (Some(3), Some(2)));
        assert!(Config::default().is_enabled());
        let (_, problems) = parse("[a]\nEnabled=no\n[X-a]\nEnabled=maybe\n[Sizing]\nX-b=c\n");
        assert_eq!(problems.len(), 1, "a section's name has a type: {problems:?}");
    }

    #[test]
    fn each_file_has_its_own_share_of_faults() {
        let text = format!("[Sizing]\n{}Workers=3\n", "MaxWorkers=x\n".repeat(MAX_FAULTS - 1));
        let (mut config, mut problems) = (Config::default(), Vec::new());
        for _ in 0..2 {
            super::parse_into("/x", text.as_bytes(), &mut config, &mut problems);
        }
        assert_eq!(problems.len(), 2 * (MAX_FAULTS - 1), "none is skipped");
        let bad = format!("[Sizing]\nUnits={}\n", "/ ".repeat(MAX_FAULTS - 1));
        super::parse_into("/y", bad.as_bytes(), &mut config, &mut problems);
        assert_eq!(problems.len(), 3 * (MAX_FAULTS - 1), "nor a name");
    }

    #[test]
    fn an_empty_file_hides_others_and_is_not_listed() {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        for (path, text) in
            [("etc/pypnm/sizing.conf", ""), ("usr/lib/pypnm/sizing.conf", "[Sizing]\nWorkers=2\n")]
        {
            let path = directory.path().join(path);
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
        }
        let root = crate::root::Root::below(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut problems = Vec::new();
        let config = super::read(&root, &mut problems);
        assert!(config.files.is_empty() && problems.is_empty(), "{:?} {problems:?}", config.files);
        assert!(config.for_unit(DEFAULT_UNIT).workers.is_none());
        let removed = std::fs::remove_file(directory.path().join("etc/pypnm/sizing.conf"));
        assert!(removed.is_ok());
        let config = super::read(&root, &mut problems);
        assert_eq!(config.files, ["/usr/lib/pypnm/sizing.conf"]);
    }
}
