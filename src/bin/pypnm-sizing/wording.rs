//! The texts about a sizing that several verbs share: which units are sized or why none is, what was set by hand, a
//! profile in one line, the numbers in use, and what PyPNM's own sizing would give.

use anyhow::anyhow;
use pypnm_sizing::command::Program;
use pypnm_sizing::config::UnitConfig;
use pypnm_sizing::limits::Amount;
use pypnm_sizing::limits::host::Host;
use pypnm_sizing::names::{
    ENV_FILE, LIMIT_MAX_REQUESTS, LIMIT_MAX_REQUESTS_FLAG, TOTAL_MEMORY_GIB, UVICORN_LIMIT_MAX_REQUESTS,
    UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG,
};
use pypnm_sizing::overrides::{Effect, Override};
use pypnm_sizing::parse::quantity::{Gib, in_cpus};
use pypnm_sizing::policy::{DEFAULT_MAX_WORKERS, LimitStep, WorkersStep};
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::pypnm::{Numbers, default_numbers};
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::sizing::Hypothetical;
use pypnm_sizing::units::{self, LoadState};

use crate::page::Page;
use crate::service::in_use::{InUse, Origin};
use crate::service::launch::Launch;

/// The units to report: all that are sized, or only the requested one.
pub(crate) fn chosen<'a>(sizing: &'a Sizing, asked: Option<&str>) -> anyhow::Result<Vec<&'a SizedUnit>> {
    let Some(asked) = asked else {
        return Ok(sizing.units.iter().collect());
    };
    if let Some(unit) = sizing.units.iter().find(|unit| unit.name == asked) {
        return Ok(vec![unit]);
    }
    let why = not_sized(sizing, asked).unwrap_or_else(|| {
        let names: Vec<&str> = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
        format!("Units= in sizing.conf(5) lists {}", names.join(" "))
    });
    Err(anyhow!("--unit={asked}: not sized: {why}"))
}

/// The requested unit, or the first one that is sized.
pub(crate) fn requested<'a>(sizing: &'a Sizing, asked: Option<&str>) -> Option<&'a SizedUnit> {
    sizing.units.iter().find(|unit| asked.is_none_or(|asked| unit.name == asked))
}

/// Why sizing is turned off altogether, and where that is set.
pub(crate) fn turned_off(sizing: &Sizing) -> Option<String> {
    match sizing.kernel_switch {
        Some((false, file)) => Some(format!("turned off by pypnm.sizing= in {file}")),
        _ if sizing.config.is_enabled() => None,
        _ => Some(format!("turned off by {}", enabled(&sizing.config.for_unit("")))),
    }
}

/// Why a unit is not sized, if sizing is turned off, altogether or for this unit of the configuration.
pub(crate) fn not_sized(sizing: &Sizing, unit: &str) -> Option<String> {
    let is_listed = sizing.config.units().iter().any(|name| name == unit);
    let config = sizing.config.for_unit(unit);
    let of_unit =
        || (is_listed && !config.is_enabled()).then(|| format!("turned off by {}", enabled(&config)));
    turned_off(sizing).or_else(of_unit)
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

/// `1 worker`, `4 workers`.
pub(crate) fn workers_text(number: i64) -> String {
    if number == 1 { "1 worker".to_owned() } else { format!("{number} workers") }
}

/// `2 workers, each recycled after 2000 requests`.
pub(crate) fn profile(numbers: Numbers) -> String {
    let workers = workers_text(numbers.workers);
    let each = if numbers.workers == 1 { "" } else { "each " };
    match numbers.limit_max_requests {
        0 => format!("{workers}, never recycled"),
        limit => format!("{workers}, {each}recycled after {limit} requests"),
    }
}

/// `2 workers (limit 2000)`: a short form for use within a sentence.
pub(crate) fn brief(numbers: Numbers) -> String {
    let workers = workers_text(numbers.workers);
    match numbers.limit_max_requests {
        0 => format!("{workers} (no limit)"),
        limit => format!("{workers} (limit {limit})"),
    }
}

/// The numbers in use that are known.
pub(crate) fn in_use(in_use: InUse) -> String {
    match (in_use.workers, in_use.limit_max_requests) {
        (Some(workers), Some(limit_max_requests)) => brief(Numbers { workers, limit_max_requests }),
        (Some(workers), None) => workers_text(workers),
        (None, _) => "unknown numbers".to_owned(),
    }
}

/// Where the numbers in use come from, to follow them.
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Pypnm => "as PyPNM reports",
        Origin::Flag => "from flags on its command line",
        Origin::File => "from its profile file",
        Origin::Environment => "from its environment",
        Origin::Itself => "from PyPNM's own sizing",
        Origin::Unknown => "by counting its workers",
    }
}

fn is_uvicorn(unit: &SizedUnit) -> bool {
    let command = unit.definition.iter().flat_map(|unit| unit.assignments_of("ExecStart")).next_back();
    Launch::from_command(command.map_or("", |command| &command.value)).program() == Program::Uvicorn
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
    let sized = Numbers::from(&unit.profile);
    if falls_back(unit) {
        return format!("{}: PyPNM falls back to its own sizing; sized: {}", unit.name, brief(sized));
    }
    let numbers = effective(unit);
    let but =
        if numbers == sized { String::new() } else { format!(", set by hand; sized: {}", brief(sized)) };
    format!("{}: {}{but}", unit.name, profile(numbers))
}

/// What is said of a template; `stem`: its name up to the `@`.
pub(crate) fn is_a_template(stem: &str) -> String {
    format!("is a template; name an instance: --unit={stem}@NAME.service")
}

/// A flag of a running process.
pub(crate) fn flag_text(flag: &str, value: &str) -> String {
    format!("{flag} {value} on its command line")
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
pub(crate) fn warnings(unit: &SizedUnit) -> Vec<String> {
    let mut warnings = Vec::new();
    let profile = &unit.profile;
    let allowed = profile.lowest_target.max(1);
    if profile.workers_step == WorkersStep::Operator && profile.workers > allowed {
        warnings.push(format!(
            "Workers={} is more than the {allowed} that CPUs and memory allow here",
            profile.workers
        ));
    }
    for (key, available) in [("ReserveCPUs", unit.capacity.cpu), ("ReserveMemory", unit.capacity.memory)] {
        if available.reserved > 0 && available.amount == 0 {
            warnings.push(format!("{key}= reserves everything, so the minimum is assumed"));
        }
    }
    warnings
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
        LoadState::Loaded => None,
        LoadState::NotFound => Some(
            "no unit file was found; if another generator creates one (from a quadlet, for example), its limits are applied at \
             each start",
        ),
        LoadState::Masked => Some("masked, so it cannot be started"),
        LoadState::Bad => Some("its file cannot be read"),
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
        let (own, sized) = (self.numbers, Numbers::from(&unit.profile));
        if own == sized {
            return ("would start the same".to_owned(), Vec::new());
        }
        let mut why = Vec::new();
        let (cpus, memory) = (unit.capacity.whole_cpus(), unit.capacity.memory.amount);
        // Its table applied to what is actually available.
        let here = default_numbers(cpus, memory);
        if here != own {
            why.push(format!(
                "It assumes the machine's {} and {} GiB; {} and {} GiB are available.",
                in_cpus(self.cpus),
                Gib(self.memory),
                in_cpus(cpus),
                Gib(memory)
            ));
        }
        let (workers_step, limit_step) = (unit.profile.workers_step, unit.profile.limit_step);
        let are_workers_by_hand = matches!(workers_step, WorkersStep::Operator | WorkersStep::Incomplete);
        let is_limit_by_hand = matches!(limit_step, LimitStep::Operator | LimitStep::Incomplete);
        let has_other_workers = own.workers != sized.workers;
        let has_other_limit = own.limit_max_requests != sized.limit_max_requests;
        if has_other_workers && are_workers_by_hand || has_other_limit && is_limit_by_hand {
            why.push("It does not read sizing.conf.".to_owned());
        } else if has_other_workers && here.workers != sized.workers {
            let is_step = here.workers < sized.workers && sized.workers <= i64::from(DEFAULT_MAX_WORKERS);
            why.push(if is_step {
                "Its thresholds are 6, 12 and 24 GiB (2^30 bytes); those of the guide are GB (10^9)."
                    .to_owned()
            } else {
                "It ignores MaxWorkers= and MemoryPerWorker=.".to_owned()
            });
        }
        if has_other_limit && !is_limit_by_hand && here.limit_max_requests != sized.limit_max_requests {
            let reason = match (limit_step, here.limit_max_requests) {
                (LimitStep::MemoryCreep, _) => "It ignores InvestigateMemoryCreep=.",
                (_, 1000) => "Its table has 1000 below 12 GiB; the guide has 2000 for 4 cores and 8 GB.",
                (_, 4000) => {
                    "Its table has 4000 for 8 CPUs and 64 GiB or more; the guide has 2000-4000, and the lower value is used."
                }
                _ => "Its table has 2000 for 12 GiB or more.",
            };
            why.push(reason.to_owned());
        }
        (format!("would start {}", profile(own)), why)
    }
}

/// A variable of the environment whose value would make the program exit.
pub(crate) fn bad_variable(key: &'static str, value: &str, sized: &str) -> Problem {
    let source = Source::key("the environment", 0, key);
    Problem::bad_value(source, value, expected_value(key), format!("the sized {sized} is used"))
}

/// What a program expects as the value of a variable.
pub(crate) fn expected_value(key: &str) -> &'static str {
    match key {
        TOTAL_MEMORY_GIB => "a number",
        UVICORN_WORKERS | WEB_CONCURRENCY => "a whole number",
        LIMIT_MAX_REQUESTS | UVICORN_LIMIT_MAX_REQUESTS => "a whole number of at least 0",
        _ => "a whole number of at least 1",
    }
}
