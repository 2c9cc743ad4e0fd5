//! The operator's configuration, sizing.conf(5): which files are read, in which order, and what their keys mean.
//!
//! Which files count, and in which order, is [`crate::conf_files`]; what a key does to the profile is [`crate::policy`]'s.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use crate::conf_files;
use crate::names;
use crate::parse::boolean::boolean;
use crate::parse::quantity::{Size, decimal, milli_cpus, size};
use crate::parse::syntax::{Fault, Item, items};
use crate::policy::PolicySettings;
use crate::problem::{FileName, Problem, ProblemKind, Source, Sourced};
use crate::root::{ReadError, Root};

/// Where the main file is, the strongest first.
const MAIN_FILES: [&str; 4] = [
    "/etc/pypnm/sizing.conf",
    "/run/pypnm/sizing.conf",
    "/usr/local/lib/pypnm/sizing.conf",
    "/usr/lib/pypnm/sizing.conf",
];
/// The directories of its drop-ins, likewise.
const DIRECTORIES: [&str; 4] = [
    "/etc/pypnm/sizing.conf.d",
    "/run/pypnm/sizing.conf.d",
    "/usr/local/lib/pypnm/sizing.conf.d",
    "/usr/lib/pypnm/sizing.conf.d",
];
/// The section for all units.
const GENERAL: &str = "Sizing";
/// The unit that is sized where nobody says otherwise.
pub const DEFAULT_UNIT: &str = "pypnm.service";
/// More units than this on one host are a mistake.
const MOST_UNITS: usize = 64;
/// More workers than this are a mistake (the kernel's CPUs end at 8192, PyPNM's use long before).
pub const MOST_WORKERS: u32 = 1024;
/// A file with more faults than this is no configuration file; nor are all of them read by anybody.
const MOST_FAULTS: usize = 50;
const SKIPPED: &str = "the key is skipped";

/// What may be said of one unit, and in `[Sizing]` of all. `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitConfig {
    /// `Enabled=`
    pub enabled: Option<Sourced<bool>>,
    /// `Workers=`; `auto` is `None` inside.
    pub workers: Option<Sourced<Option<u32>>>,
    /// `LimitMaxRequests=`; `auto` is `None` inside.
    pub limit_max_requests: Option<Sourced<Option<u32>>>,
    /// `MaxWorkers=`
    pub max_workers: Option<Sourced<u32>>,
    /// `ReserveMemory=`
    pub reserve_memory: Option<Sourced<Size>>,
    /// `ReserveCPUs=` in milli-CPUs.
    pub reserve_cpus: Option<Sourced<u64>>,
    /// `MemoryPerWorker=` in bytes.
    pub memory_per_worker: Option<Sourced<u64>>,
    /// `InvestigateMemoryCreep=`
    pub investigate_memory_creep: Option<Sourced<bool>>,
}

impl UnitConfig {
    /// The settings of the policy that it says.
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
        }
    }

    /// The variables of the drop-in whose value it decides, and where.
    pub fn decided_variables(&self) -> Vec<(&'static str, Source)> {
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

/// All that the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The files that were read, in order; later ones win.
    pub files: Vec<String>,
    /// `Units=`, never empty.
    units: Option<Sourced<Vec<String>>>,
    general: UnitConfig,
    /// Per unit: where its first section begins, and what it says.
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

    /// Whether the operator named them.
    pub fn names_units(&self) -> bool {
        self.units.is_some()
    }

    /// Whether `unit` is one of them.
    fn is_sized(&self, unit: &str) -> bool {
        match &self.units {
            Some(set) => set.value.iter().any(|one| one == unit),
            None => unit == DEFAULT_UNIT,
        }
    }

    /// Whether anything is sized at all.
    pub fn is_enabled(&self) -> bool {
        self.general.is_enabled()
    }

    /// What is said of `unit`: its own section, else `[Sizing]`, key by key.
    pub fn for_unit(&self, unit: &str) -> UnitConfig {
        let own = self.by_unit.get(unit).map(|(_, own)| own.clone()).unwrap_or_default();
        let all = self.general.clone();
        UnitConfig {
            enabled: own.enabled.or(all.enabled),
            workers: own.workers.or(all.workers),
            limit_max_requests: own.limit_max_requests.or(all.limit_max_requests),
            max_workers: own.max_workers.or(all.max_workers),
            reserve_memory: own.reserve_memory.or(all.reserve_memory),
            reserve_cpus: own.reserve_cpus.or(all.reserve_cpus),
            memory_per_worker: own.memory_per_worker.or(all.memory_per_worker),
            investigate_memory_creep: own.investigate_memory_creep.or(all.investigate_memory_creep),
        }
    }
}

/// Reads the configuration below `root`.
pub fn read(root: &Root, problems: &mut Vec<Problem>) -> Config {
    let mut config = Config::default();
    for main in MAIN_FILES {
        if take_file(root, main.into(), &mut config, problems) {
            break;
        }
    }
    conf_files::each_drop_in(root, &DIRECTORIES, problems, &mut |path, problems| {
        take_file(root, path.to_owned().into(), &mut config, problems)
    });
    let without_effect = config.by_unit.iter().filter(|(name, _)| !config.is_sized(name));
    for (name, (source, _)) in without_effect.take(MOST_FAULTS) {
        let expected = "one of the units in Units=";
        problems.push(Problem::bad_value(source.clone(), name, expected, "the section has no effect"));
    }
    config
}

/// Reads one file into `config`. Whether there is such a file; one that others than root could have written does not count.
fn take_file(root: &Root, path: FileName, config: &mut Config, problems: &mut Vec<Problem>) -> bool {
    // An empty file only hides others.
    let taken = root.with_trusted_bytes(&path, |text| {
        parse_into(&path, text, config, problems);
        !text.is_empty()
    });
    match taken {
        Ok(has_text) => {
            if has_text {
                config.files.push(path.to_string());
            }
            true
        }
        Err(ReadError::Missing) => false,
        Err(error) => {
            let hides = conf_files::hides(&error);
            problems.push(Problem::unreadable(path, error, "the file is skipped"));
            hides
        }
    }
}

/// Which section a line stands in.
enum Section {
    None,
    General,
    Unit(String, Source),
    Unknown,
}

/// Takes the lines of one file into `config`.
pub fn parse_into(path: &str, text: &[u8], config: &mut Config, problems: &mut Vec<Problem>) {
    // Most files are comments, and nothing stands in them.
    let file = LazyCell::new(|| FileName::found(path));
    let mut section = Section::None;
    let before = problems.len();
    for item in items(text) {
        let at = |line, key: &str| Source::key((*file).clone(), line, key.to_owned());
        if problems.len() - before >= MOST_FAULTS {
            let (Item::Section { line, .. } | Item::Assignment { line, .. } | Item::Fault { line, .. }) =
                item;
            let instead = "the rest of the file is skipped".into();
            problems.push(Problem {
                source: at(line, ""),
                kind: ProblemKind::TooManyFaults,
                consequence: instead,
            });
            return;
        }
        match item {
            Item::Fault { fault, line } => {
                let rest = fault == Fault::BrokenSection;
                let instead = if rest { "the rest of the file is skipped" } else { "the line is skipped" };
                problems.push(Problem {
                    source: at(line, ""),
                    kind: ProblemKind::Syntax(fault),
                    consequence: instead.into(),
                });
            }
            Item::Section { name, line } => {
                section = if name == GENERAL {
                    Section::General
                } else if is_unit_name(&name) {
                    Section::Unit(name.clone().into_owned(), at(line, &format!("[{name}]")))
                } else if name.starts_with("X-") {
                    Section::Unknown
                } else {
                    problems.push(Problem {
                        source: at(line, &format!("[{name}]")),
                        kind: ProblemKind::UnknownSection { expected: "[Sizing] or the name of a unit" },
                        consequence: "the section is skipped".into(),
                    });
                    Section::Unknown
                };
            }
            Item::Assignment { key, value, line } => {
                let source = at(line, &key);
                match &section {
                    Section::Unknown => {}
                    Section::None => problems.push(Problem {
                        source,
                        kind: ProblemKind::UnknownSection { expected: "[Sizing] above it" },
                        consequence: SKIPPED.into(),
                    }),
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

/// A reader of values: what it is for, and what it expects in words.
struct Expect<T>(fn(&str) -> Option<T>, &'static str);

const BOOLEAN: Expect<bool> = Expect(boolean, "a boolean (yes or no)");
const WORKERS: Expect<Option<u32>> = Expect(
    |text| {
        if text == "auto" { Some(None) } else { count(text).map(Some) }
    },
    "a whole number from 1 to 1024, or auto",
);
const REQUESTS: Expect<Option<u32>> = Expect(
    |text| {
        if text == "auto" { Some(None) } else { decimal(text).map(Some) }
    },
    "a whole number, or auto",
);
const COUNT: Expect<u32> = Expect(count, "a whole number from 1 to 1024");
const MEMORY: Expect<Size> =
    Expect(size, "bytes (with K, M, G, T to the base 1024) or a percentage up to 100%");
const BYTES: Expect<u64> = Expect(
    |text| match size(text) {
        Some(Size::Bytes(bytes)) if bytes > 0 => Some(bytes),
        _ => None,
    },
    "bytes above 0 (with K, M, G, T to the base 1024)",
);
const CPUS: Expect<u64> = Expect(milli_cpus, "a number of CPUs with at most three decimals");

fn count(text: &str) -> Option<u32> {
    decimal(text).filter(|n| (1..=MOST_WORKERS).contains(n))
}

const KEYS: [&str; 9] = [
    "Enabled",
    "Units",
    "Workers",
    "LimitMaxRequests",
    "MaxWorkers",
    "ReserveMemory",
    "ReserveCPUs",
    "MemoryPerWorker",
    "InvestigateMemoryCreep",
];

impl UnitConfig {
    /// Takes one assignment; an empty value takes an earlier one back.
    fn set(&mut self, key: &str, value: &str, source: Source, problems: &mut Vec<Problem>) {
        match key {
            "Enabled" => assign(&mut self.enabled, &BOOLEAN, value, source, problems),
            "Workers" => assign(&mut self.workers, &WORKERS, value, source, problems),
            "LimitMaxRequests" => assign(&mut self.limit_max_requests, &REQUESTS, value, source, problems),
            "MaxWorkers" => assign(&mut self.max_workers, &COUNT, value, source, problems),
            "ReserveMemory" => assign(&mut self.reserve_memory, &MEMORY, value, source, problems),
            "ReserveCPUs" => assign(&mut self.reserve_cpus, &CPUS, value, source, problems),
            "MemoryPerWorker" => assign(&mut self.memory_per_worker, &BYTES, value, source, problems),
            "InvestigateMemoryCreep" => {
                assign(&mut self.investigate_memory_creep, &BOOLEAN, value, source, problems);
            }
            _ if key.starts_with("X-") => {}
            _ => problems.push(Problem {
                source,
                kind: ProblemKind::UnknownKey { nearest: nearest(key) },
                consequence: SKIPPED.into(),
            }),
        }
    }
}

fn assign<T>(
    slot: &mut Option<Sourced<T>>,
    expect: &Expect<T>,
    value: &str,
    source: Source,
    problems: &mut Vec<Problem>,
) {
    if value.is_empty() {
        *slot = None;
        return;
    }
    match (expect.0)(value) {
        Some(value) => *slot = Some(Sourced { value, source }),
        None => problems.push(Problem::bad_value(source, value, expect.1, SKIPPED)),
    }
}

/// `Units=`: names of services, separated by spaces; each once; an empty value goes back to the default.
fn set_units(config: &mut Config, value: &str, source: Source, problems: &mut Vec<Problem>) {
    let mut units: Vec<String> = Vec::new();
    let before = problems.len();
    for name in value.split_ascii_whitespace() {
        if problems.len() - before >= MOST_FAULTS {
            break;
        }
        // A dot in it is of a service's suffix or of another file's; an instance may have what it likes.
        let is_other_file = !name.ends_with(".service") && !name.contains('@') && name.contains('.');
        match service_name(name).filter(|_| !is_other_file && units.len() < MOST_UNITS) {
            None => {
                let expected = "the name of a service, at most 64 of them";
                problems.push(Problem::bad_value(source.clone(), name, expected, "the name is skipped"));
            }
            Some(name) if units.contains(&name) => {}
            Some(name) => units.push(name),
        }
    }
    if value.is_empty() {
        config.units = None;
    } else if !units.is_empty() {
        config.units = Some(Sourced { value: units, source });
    }
}

/// The name of a service, with `.service` added to a name without a suffix of systemd's, as systemctl(1) does.
pub fn service_name(name: &str) -> Option<String> {
    const SUFFIXES: [&str; 11] = [
        ".service",
        ".socket",
        ".device",
        ".mount",
        ".automount",
        ".swap",
        ".target",
        ".path",
        ".timer",
        ".slice",
        ".scope",
    ];
    let has_suffix = SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    let name = if has_suffix { name.to_owned() } else { format!("{name}.service") };
    is_unit_name(&name).then_some(name)
}

/// The name of a service (systemd.unit(5)): never a path, so it is safe to make a file name of.
pub fn is_unit_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    name.len() <= 255
        && name.strip_suffix(".service").is_some_and(|stem| {
            !stem.is_empty() && !stem.starts_with(['.', '@']) && stem.bytes().all(allowed)
        })
}

/// The known key that was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    let far =
        |known: &str| strsim::damerau_levenshtein(&known.to_ascii_lowercase(), &key.to_ascii_lowercase());
    if key.len() > 64 {
        return None;
    }
    KEYS.into_iter()
        .map(|known| (far(known), known))
        .min()
        .filter(|(far, _)| *far <= 3)
        .map(|(_, known)| known)
}
