//! The texts about a sizing that several verbs share: which units are sized or why none is, what was set by hand, a
//! profile in one line, and what PyPNM's own sizing would give.

use anyhow::anyhow;
use pypnm_sizing::command::Program;
use pypnm_sizing::config::UnitConfig;
use pypnm_sizing::limits::Amount;
use pypnm_sizing::limits::host::Host;
use pypnm_sizing::names::{ENV_FILE, LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use pypnm_sizing::overrides::{Effect, Override};
use pypnm_sizing::parse::quantity::Gib;
use pypnm_sizing::policy::{DEFAULT_MAX_WORKERS, LimitStep, WorkersStep};
use pypnm_sizing::problem::Source;
use pypnm_sizing::pypnm::{Numbers, default_numbers};
use pypnm_sizing::sizing::{Hypothetical, SizedUnit, Sizing};
use pypnm_sizing::units::{self, State};

use crate::page::Page;
use crate::service::launch::Launch;

/// The units to report: all that are sized, or only the requested one.
pub(crate) fn chosen<'a>(sizing: &'a Sizing, asked: Option<&str>) -> anyhow::Result<Vec<&'a SizedUnit>> {
    let Some(asked) = asked else {
        return Ok(sizing.units.iter().collect());
    };
    if let Some(unit) = sizing.units.iter().find(|unit| unit.name == asked) {
        return Ok(vec![unit]);
    }
    let why = turned_off(sizing).or_else(|| not_sized(sizing, asked)).unwrap_or_else(|| {
        let names: Vec<&str> = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
        format!("Units= in sizing.conf(5) lists {}", names.join(" "))
    });
    Err(anyhow!("--unit={asked}: not sized: {why}"))
}

/// Why sizing is turned off altogether, and where that is set.
pub(crate) fn turned_off(sizing: &Sizing) -> Option<String> {
    match sizing.kernel_switch {
        Some((false, file)) => Some(format!("turned off by pypnm.sizing= in {file}")),
        _ if sizing.config.is_enabled() => None,
        _ => Some(format!("turned off by {}", enabled(&sizing.config.for_unit("")))),
    }
}

/// Why a unit in the configuration is not sized.
pub(crate) fn not_sized(sizing: &Sizing, unit: &str) -> Option<String> {
    let named = sizing.config.units().iter().any(|name| name == unit);
    let config = sizing.config.for_unit(unit);
    (named && !config.is_enabled()).then(|| format!("turned off by {}", enabled(&config)))
}

fn enabled(config: &UnitConfig) -> String {
    config.enabled.as_ref().map_or_else(|| "Enabled=no".to_owned(), |set| set_at("Enabled=no", &set.source))
}

/// A setting and its source, without repeating the key.
fn set_at(setting: &str, source: &Source) -> String {
    format!("{setting}, {}", source.place())
}

/// A setting of the operator.
pub(crate) struct ConfigSetting {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) source: Source,
}

impl ConfigSetting {
    /// Whether it differs from the default.
    pub(crate) fn matters(&self) -> bool {
        self.value != "auto" && self.key != "Enabled"
    }
}

impl std::fmt::Display for ConfigSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&set_at(&format!("{}={}", self.key, self.value), &self.source))
    }
}

/// The settings of a unit in sizing.conf(5).
pub(crate) fn settings(config: &UnitConfig) -> Vec<ConfigSetting> {
    let set = config.set_keys().into_iter();
    set.map(|(key, set)| ConfigSetting { key, value: set.value, source: set.source }).collect()
}

/// `1 CPU`, `4 CPUs`.
pub(crate) fn cpus(number: u64) -> String {
    if number == 1 { "1 CPU".to_owned() } else { format!("{number} CPUs") }
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

/// `2 workers (limit 2000)`: a short form for use within a sentence.
pub(crate) fn brief(workers: i64, limit: Option<i64>) -> String {
    let number = if workers == 1 { "worker" } else { "workers" };
    match limit {
        Some(0) => format!("{workers} {number} (no limit)"),
        Some(limit) => format!("{workers} {number} (limit {limit})"),
        None => format!("{workers} {number}"),
    }
}

fn is_uvicorn(unit: &SizedUnit) -> bool {
    let command = unit.definition.iter().flat_map(|unit| unit.assignments_of("ExecStart")).next_back();
    Launch::of_command(command.map_or("", |command| &command.value)).program() == Program::Uvicorn
}

/// Whether PyPNM does not get its profile, and its flags do not give all of its numbers.
fn falls_back(unit: &SizedUnit) -> bool {
    let (workers, limit) = (unit.overrides.get(WORKERS_FLAG), unit.overrides.get(LIMIT_MAX_REQUESTS_FLAG));
    // The contents of the operator's own profile file are not known here.
    let has_other_file = unit
        .overrides
        .get(ENV_FILE)
        .is_some_and(|found| matches!(found.effect, Effect::Variable { .. } | Effect::Passed { .. }));
    !is_uvicorn(unit)
        && !unit.overrides.is_handed_over()
        && !has_other_file
        && (workers.is_none() || limit.is_none())
}

/// The numbers that a unit starts with: the sized ones, or those that override them.
pub(crate) fn effective(unit: &SizedUnit) -> Numbers {
    let (profile, overrides) = (&unit.profile, &unit.overrides);
    let (workers, limit) = if is_uvicorn(unit) {
        let limit = overrides.uvicorn_limit_max_requests(profile.limit_max_requests);
        (overrides.uvicorn_workers(profile.workers), limit)
    } else {
        (overrides.workers(profile.workers), overrides.limit_max_requests(profile.limit_max_requests))
    };
    Numbers { workers: workers.value.into(), limit_max_requests: limit.value.into() }
}

/// The unit and the profile that it starts with.
pub(crate) fn headline(unit: &SizedUnit) -> String {
    let sized = Numbers {
        workers: unit.profile.workers.into(),
        limit_max_requests: unit.profile.limit_max_requests.into(),
    };
    let in_brief = brief(sized.workers, Some(sized.limit_max_requests));
    if falls_back(unit) {
        return format!("{}: PyPNM falls back to its own sizing; sized: {in_brief}", unit.name);
    }
    let numbers = effective(unit);
    let but = if numbers == sized { String::new() } else { format!(", set by hand; sized: {in_brief}") };
    format!("{}: {}{but}", unit.name, profile(numbers.workers, numbers.limit_max_requests))
}

/// Adds the units that are configured but not sized to the page.
pub(crate) fn unsized_units(page: &mut Page, sizing: &Sizing) {
    if !sizing.is_enabled() {
        return;
    }
    for name in sizing.config.units() {
        if let Some(why) = not_sized(sizing, &name) {
            page.heading(&format!("{name}: not sized, {why}"));
        }
    }
}

/// Warnings about the operator's settings, which are used nevertheless.
pub(crate) fn doubts(unit: &SizedUnit) -> Vec<String> {
    let mut doubts = Vec::new();
    let profile = &unit.profile;
    let allowed =
        profile.cpu_target.min(profile.guardrail.workers).min(profile.per_worker_target.unwrap_or(u32::MAX));
    if profile.workers_step == WorkersStep::Operator && profile.workers > allowed.max(1) {
        doubts.push(format!(
            "Workers={} is more than the {} that CPUs and memory allow here",
            profile.workers,
            allowed.max(1)
        ));
    }
    for (key, available) in [("ReserveCPUs", unit.capacity.cpu), ("ReserveMemory", unit.capacity.memory)] {
        if available.reserved > 0 && available.amount == 0 {
            doubts.push(format!("{key}= reserves everything, so the minimum is assumed"));
        }
    }
    doubts
}

/// A short description of an override.
pub(crate) fn override_text(found: &Override) -> String {
    let at = found.source.place();
    match &found.effect {
        Effect::Variable { key, value } => format!("{key}={value}, {at}"),
        Effect::Flag { flag, value } => format!("{flag} {value}, {at}"),
        Effect::Restart { value } => format!("Restart={value}, {at}"),
        _ => found.to_string(),
    }
}

/// The text that the unit does not find an installation of PyPNM, with the command that changes this.
pub(crate) fn out_of_reach(unit: &str, command: &str) -> String {
    format!("{unit} does not find it; '{command}' prints a drop-in that changes this")
}

/// What is wrong with the files of a unit. `None`: nothing.
pub(crate) fn state(definition: &units::Unit) -> Option<&'static str> {
    match definition.state {
        State::Loaded => None,
        State::NotFound => Some(
            "no file of this name; if another generator creates it (a quadlet), its limits are applied at each start",
        ),
        State::Masked => Some("masked, so it cannot be started"),
        State::Bad => Some("its file cannot be read"),
    }
}

/// States that systemd loads the unit from the file at `path`, which another generator creates.
pub(crate) fn made_by_another_generator(path: &str) -> String {
    format!(
        "systemd loads {path}, which another generator creates (from a quadlet, for example); its limits are applied at \
         each start, and can lower these numbers"
    )
}

/// What PyPNM starts without a profile: it considers the machine's CPUs and memory, but no tighter limits.
pub(crate) struct PypnmDefault {
    cpus: u64,
    memory: u64,
    pub(crate) numbers: Numbers,
}

impl PypnmDefault {
    /// On `host`, or on the hypothetical machine.
    pub(crate) fn new(host: &Host, hypothetical: &Hypothetical) -> Self {
        let online = host.limits.iter().find_map(|limit| match &limit.amount {
            Amount::Cpus(set) => Some(u64::from(set.count())),
            _ => None,
        });
        let cpus = hypothetical.cpu.map_or(online.unwrap_or(1), |(milli, _)| (milli / 1000).max(1));
        let memory = hypothetical.memory.map_or(host.memory_total.unwrap_or(0), |(bytes, _)| bytes);
        Self { cpus, memory, numbers: default_numbers(cpus, memory) }
    }

    /// What it would start instead of the unit's profile, and why that differs.
    pub(crate) fn against(&self, unit: &SizedUnit) -> (String, Vec<String>) {
        let sized = &unit.profile;
        let own = self.numbers;
        let itself = profile(own.workers, own.limit_max_requests);
        let same_workers = own.workers == i64::from(sized.workers);
        let same_limit = own.limit_max_requests == i64::from(sized.limit_max_requests);
        if same_workers && same_limit {
            return ("would start the same".to_owned(), Vec::new());
        }
        let mut why = Vec::new();
        let (cpus, memory) = (unit.capacity.whole_cpus(), unit.capacity.memory.amount);
        // Its table applied to what is actually available.
        let here = default_numbers(cpus, memory);
        if here != own {
            why.push(format!(
                "It assumes the machine's {} and {} GiB; {} and {} GiB are available.",
                self::cpus(self.cpus),
                Gib(self.memory),
                self::cpus(cpus),
                Gib(memory)
            ));
        }
        let by_hand = |same: bool, operator: bool| !same && operator;
        if by_hand(
            same_workers,
            matches!(sized.workers_step, WorkersStep::Operator | WorkersStep::Incomplete),
        ) || by_hand(same_limit, matches!(sized.limit_step, LimitStep::Operator | LimitStep::Incomplete))
        {
            why.push("It does not read sizing.conf.".to_owned());
        } else if !same_workers && here.workers != i64::from(sized.workers) {
            let steps = here.workers < i64::from(sized.workers) && sized.workers <= DEFAULT_MAX_WORKERS;
            why.push(if steps {
                "Its steps are 6, 12 and 24 GiB (2^30 bytes); those of the guide are GB (10^9).".to_owned()
            } else {
                "It ignores MaxWorkers= and MemoryPerWorker=.".to_owned()
            });
        }
        if !same_limit && here.limit_max_requests != i64::from(sized.limit_max_requests) {
            why.extend(match (sized.limit_step, here.limit_max_requests) {
                (LimitStep::Operator | LimitStep::Incomplete, _) => None,
                (LimitStep::MemoryCreep, _) => Some("It ignores InvestigateMemoryCreep=.".to_owned()),
                (_, 1000) => Some(
                    "Its table has 1000 below 12 GiB; the guide has 2000 for 4 cores and 8 GB."
                        .to_owned(),
                ),
                (_, 4000) => Some(
                    "Its table has 4000 for 8 CPUs and 64 GiB or more; the guide has 2000-4000, of which the lower is used."
                        .to_owned(),
                ),
                _ => Some("Its table has 2000 for 12 GiB or more.".to_owned()),
            });
        }
        (format!("would start {itself}"), why)
    }
}
