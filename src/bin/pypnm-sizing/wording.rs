//! What the verbs say of a sizing in the same words: which units, why none, what was set by hand, a profile in a line.

use anyhow::anyhow;
use pypnm_sizing::config::UnitConfig;
use pypnm_sizing::overrides::{Effect, Override};
use pypnm_sizing::parse::quantity::{Cpus, Gib, Size};
use pypnm_sizing::problem::Source;
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::sizing::{SizedUnit, Sizing};
use pypnm_sizing::units::{self, State};

/// The units to speak of: all that are sized, or the one that was asked for.
pub(crate) fn chosen<'a>(sizing: &'a Sizing, asked: Option<&str>) -> anyhow::Result<Vec<&'a SizedUnit>> {
    let Some(asked) = asked else {
        return Ok(sizing.units.iter().collect());
    };
    if let Some(unit) = sizing.units.iter().find(|unit| unit.name == asked) {
        return Ok(vec![unit]);
    }
    let why = turned_off(sizing).or_else(|| not_sized(sizing, asked)).unwrap_or_else(|| {
        let names: Vec<&str> = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
        format!("Units= in sizing.conf(5) names {}", names.join(" "))
    });
    Err(anyhow!("--unit={asked}: it is not sized: {why}"))
}

/// Why nothing is sized at all, and where that stands.
pub(crate) fn turned_off(sizing: &Sizing) -> Option<String> {
    match sizing.kernel_switch {
        Some((false, file)) => Some(format!("turned off by pypnm.sizing= in {file}")),
        _ if sizing.config.is_enabled() => None,
        _ => Some(format!("turned off by {}", enabled(&sizing.config.for_unit("")))),
    }
}

/// Why one of the units that the configuration names is not sized.
pub(crate) fn not_sized(sizing: &Sizing, unit: &str) -> Option<String> {
    let named = sizing.config.units().iter().any(|name| name == unit);
    let config = sizing.config.for_unit(unit);
    (named && !config.is_enabled()).then(|| format!("turned off by {}", enabled(&config)))
}

fn enabled(config: &UnitConfig) -> String {
    config.enabled.as_ref().map_or_else(|| "Enabled=no".to_owned(), |set| set_at("Enabled=no", &set.source))
}

/// A setting and where it stands, without the key twice.
fn set_at(setting: &str, source: &Source) -> String {
    format!("{setting}, {}", place(source))
}

/// The file and the line of a source.
pub(crate) fn place(source: &Source) -> String {
    if source.line == 0 { source.file.to_string() } else { format!("{}:{}", source.file, source.line) }
}

/// Something that the operator set.
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

impl Setting {
    /// Whether it says anything else than the default.
    pub(crate) fn matters(&self) -> bool {
        self.value != "auto" && self.key != "Enabled"
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&set_at(&format!("{}={}", self.key, self.value), &self.source))
    }
}

/// What sizing.conf(5) sets for a unit.
pub(crate) fn settings(config: &UnitConfig) -> Vec<Setting> {
    let boolean = |value: &bool| if *value { "yes" } else { "no" }.to_owned();
    let number = |value: &Option<u32>| value.map_or_else(|| "auto".to_owned(), |number| number.to_string());
    let bytes = |bytes: u64| format!("{} GiB", Gib(bytes));
    let mut found = Vec::new();
    let mut put = |key, set: Option<(String, &Source)>| {
        found.extend(set.map(|(value, source)| Setting { key, value, source: source.clone() }));
    };
    put("Enabled", config.enabled.as_ref().map(|set| (boolean(&set.value), &set.source)));
    put("Workers", config.workers.as_ref().map(|set| (number(&set.value), &set.source)));
    put("LimitMaxRequests", config.limit_max_requests.as_ref().map(|set| (number(&set.value), &set.source)));
    put("MaxWorkers", config.max_workers.as_ref().map(|set| (set.value.to_string(), &set.source)));
    put(
        "ReserveMemory",
        config.reserve_memory.as_ref().map(|set| {
            let value = match set.value {
                Size::Bytes(size) => bytes(size),
                Size::Permyriad(share) => format!("{}%", f64::from(share) / 100.0),
            };
            (value, &set.source)
        }),
    );
    put("ReserveCPUs", config.reserve_cpus.as_ref().map(|set| (Cpus(set.value).to_string(), &set.source)));
    put("MemoryPerWorker", config.memory_per_worker.as_ref().map(|set| (bytes(set.value), &set.source)));
    put(
        "InvestigateMemoryCreep",
        config.investigate_memory_creep.as_ref().map(|set| (boolean(&set.value), &set.source)),
    );
    found
}

/// `2 workers, each recycled after 2000 requests`.
pub(crate) fn profile(workers: impl Into<i64>, limit: impl Into<i64>) -> String {
    let (workers, limit) = (workers.into(), limit.into());
    let (number, each) = if workers == 1 { ("worker", "") } else { ("workers", "each ") };
    match limit {
        0 => format!("{workers} {number}, never recycled"),
        limit => format!("{workers} {number}, {each}recycled after {limit} requests"),
    }
}

/// `2 workers (limit 2000)`: the same within a sentence.
pub(crate) fn brief(workers: i64, limit: Option<i64>) -> String {
    let number = if workers == 1 { "worker" } else { "workers" };
    match limit {
        Some(0) => format!("{workers} {number} (no limit)"),
        Some(limit) => format!("{workers} {number} (limit {limit})"),
        None => format!("{workers} {number}"),
    }
}

/// Environment of units that start uvicorn itself.
pub(crate) const UVICORN_WORKERS: &str = "UVICORN_WORKERS";
pub(crate) const UVICORN_LIMIT: &str = "UVICORN_LIMIT_MAX_REQUESTS";

/// What counts for the program that the unit starts: a flag before a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) workers: [&'static str; 2],
    pub(crate) limit: [&'static str; 2],
}

pub(crate) const OF_PYPNM: Keys = Keys {
    workers: ["--workers", pypnm::WORKERS],
    limit: ["--limit-max-requests", pypnm::LIMIT_MAX_REQUESTS],
};
pub(crate) const OF_UVICORN: Keys =
    Keys { workers: ["--workers", UVICORN_WORKERS], limit: ["--limit-max-requests", UVICORN_LIMIT] };

impl Keys {
    /// Of a process.
    pub(crate) fn of_arguments(arguments: &[String]) -> Self {
        Self::of_words(&arguments.iter().map(String::as_str).collect::<Vec<&str>>())
    }

    /// Of a command line in a unit.
    pub(crate) fn of_command(command: &str) -> Self {
        Self::of_words(&command.split_ascii_whitespace().collect::<Vec<&str>>())
    }

    /// uvicorn's own, unless PyPNM's `serve` is among the words.
    fn of_words(words: &[&str]) -> Self {
        let is_uvicorn = words.iter().any(|word| word.rsplit('/').next() == Some("uvicorn"));
        if is_uvicorn && !words.contains(&"serve") { OF_UVICORN } else { OF_PYPNM }
    }
}

/// What a unit gets in the end: sized, or what its own files say instead.
pub(crate) fn effective(unit: &SizedUnit) -> Numbers {
    let command = unit.definition.iter().flat_map(|unit| unit.assignments_of("ExecStart")).next_back();
    let keys = command.map_or(OF_PYPNM, |command| Keys::of_command(&command.value));
    let (profile, overrides) = (&unit.profile, &unit.overrides);
    let (workers, limit) = if keys == OF_UVICORN {
        let limit = overrides.uvicorn_limit_max_requests(profile.limit_max_requests);
        (overrides.uvicorn_workers(profile.workers), limit)
    } else {
        (overrides.workers(profile.workers), overrides.limit_max_requests(profile.limit_max_requests))
    };
    Numbers { workers: workers.value.into(), limit_max_requests: limit.value.into() }
}

/// An override in a few words.
pub(crate) fn override_text(one: &Override) -> String {
    let at = place(&one.source);
    match &one.effect {
        Effect::Variable { key, value } => format!("{key}={value}, {at}"),
        Effect::Flag { flag, value } => format!("{flag} {value}, {at}"),
        Effect::Restart { value } => format!("Restart={value}, {at}"),
        Effect::Ineffective { .. }
        | Effect::UnknownCommand { .. }
        | Effect::Unset { .. }
        | Effect::Passed { .. }
        | Effect::NoHandOver
        | Effect::Replaced
        | Effect::NotRead { .. } => one.to_string(),
    }
}

/// What is the matter with a unit's files; `None`: nothing.
pub(crate) fn state(definition: &units::Unit) -> Option<&'static str> {
    match definition.state {
        State::Loaded => None,
        State::NotFound => Some("there is none of this name, or another generator makes it"),
        State::Masked => Some("it is masked, and can't be started"),
        State::Bad => Some("its file can't be read"),
    }
}
