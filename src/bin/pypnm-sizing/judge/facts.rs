//! Gathers the facts for a verdict from systemd and from files of the running machine. Nothing is changed, and no privileges
//! are needed; what only root may read remains unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use pypnm_sizing::command::PREFIXES;
use pypnm_sizing::limits::host::Host;
use pypnm_sizing::limits::{self, Amount, Limit, Scope};
use pypnm_sizing::overrides::{Effect, Override, Overrides, Stage};
use pypnm_sizing::parse::quantity::{Cpus, Gib, in_cpus};
use pypnm_sizing::problem::{Problem, ProblemKind, Source};
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::reasons;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::sizing::{Hypothetical, Request, size};
use rustix::io::Errno;

use super::live::{self, Live};
use crate::service::container;
use crate::service::generated;
use crate::service::generator::Generator;
use crate::service::moment;
use crate::service::process;
use crate::service::pypnm::{Installations, LostProgram};
use crate::service::running::Running;
use crate::service::systemctl::{self, LoadedUnit, SystemctlError};
use crate::wording::{self, PypnmDefault};

/// A service that systemd has restarted is watched until it has been running for this long: one that keeps exiting is active
/// for most of the time.
const TIME_TO_SETTLE: Duration = Duration::from_secs(5);

/// The maximum number of words of the commands that may name a script.
const MAX_SCRIPTS: usize = 64;

/// All facts about a unit.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) unit: String,
    /// What fits the machine now. `Err`: why it is not sized.
    pub(crate) expected: Result<Expected, String>,
    /// What the limits in force allow, if that is less: the limits of the running service's cgroup, and those that
    /// systemd has loaded. `env` applies them at each start.
    pub(crate) in_force: Option<InForce>,
    /// The path of the generated drop-in, and its variables if it exists.
    pub(crate) drop_in: String,
    pub(crate) generated: Option<BTreeMap<String, String>>,
    /// Whether the generator has written a drop-in for any unit since it was installed.
    pub(crate) generator_has_run: bool,
    pub(crate) generator: Generator,
    pub(crate) loaded: LoadedUnit,
    /// A file of the drop-in's name that systemd prefers to the generated one, and whether it has any content.
    pub(crate) rival: Option<(String, bool)>,
    /// Environment files that the caller may not read.
    pub(crate) hidden_files: Vec<String>,
    /// The file that `PYPNM_SERVE_ENV_FILE=` names if that is not ours, and its text, or why it cannot be read.
    pub(crate) foreign_file: Option<(String, Result<String, ReadError>)>,
    pub(crate) live: Live,
    /// The process that serves, if it is in a container: the settings loaded by systemd are those of the container engine.
    pub(crate) contained: Option<u32>,
    /// Time since the boot, on the clock of systemd's timestamps.
    pub(crate) now: Duration,
    /// Whether systemd has restarted it since it was first judged.
    pub(crate) was_restarted_meanwhile: bool,
    /// A unit that it requires and that has failed, if the service has not been started since boot.
    pub(crate) failed_requirement: Option<String>,
    /// Mistakes in sizing.conf(5).
    pub(crate) mistakes: Vec<String>,
    /// A file or directory of sizing.conf(5) that the caller is not permitted to read.
    pub(crate) hidden_configuration: Option<String>,
    /// Other units that run PyPNM and are not sized.
    pub(crate) other_units: Vec<String>,
    /// A PyPNM that is in no service of the system, as a text; not one in a container, which may be sized by `exec`.
    pub(crate) other_process: Option<String>,
    /// Whether systemd was reloaded after the profile file was written: a start that was in progress meanwhile has the
    /// numbers of both.
    pub(crate) was_reloaded_since_profile: bool,
    /// A file that the start of the service depends on, and that has changed since: its script, or a file of
    /// `EnvironmentFile=`.
    pub(crate) changed_since_start: Option<String>,
    /// Settings of the unit because of which its program is not found.
    pub(crate) lost_program: Vec<LostProgram>,
    /// The `setup` command for an installation of PyPNM that the unit does not find.
    pub(crate) setup: Option<String>,
}

/// All facts about a process that is not a unit, or that a unit runs in a container.
#[derive(Debug)]
pub(crate) struct ProcessFacts {
    /// What fits its limits. `Err`: why it is not sized.
    pub(crate) expected: Result<Expected, String>,
    pub(crate) running: Running,
    /// The user and the group that it runs as, which the caller needs in order to read its environment.
    pub(super) user: Option<(u32, u32)>,
    /// Mistakes in sizing.conf(5), as the process sees it.
    pub(super) mistakes: Vec<String>,
}

/// What fits the machine now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) numbers: Numbers,
    pub(crate) cpus: u64,
    pub(crate) gib: String,
    /// The memory that it may use, in bytes.
    pub(crate) memory: u64,
    /// The settings in sizing.conf(5) that determine the profile.
    pub(crate) set_by_hand: Vec<String>,
    /// Settings in the unit's files that override the drop-in.
    pub(crate) overrides: Overrides,
    /// The result of PyPNM's own sizing.
    pub(crate) default: Numbers,
}

impl Facts {
    /// Whether the service has just been restarted automatically, and is active or starting: it may be about to exit again.
    pub(super) fn is_unsettled(&self) -> bool {
        let loaded = &self.loaded;
        let since = match loaded.active.as_str() {
            "active" => loaded.main_started,
            "activating" if !loaded.sub.starts_with("auto-restart") => loaded.state_changed,
            _ => return false,
        };
        let is_young = self.now.saturating_sub(Duration::from_micros(since)) < TIME_TO_SETTLE;
        loaded.automatic_restarts > 0 && is_young && !self.was_restarted_meanwhile
    }
}

/// The profile that the limits in force allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) numbers: Numbers,
    /// The tightest limits.
    pub(crate) why: String,
}

/// Gathers the facts about the unit `name`. `restarts`: the number of automatic restarts when it was first judged.
pub(crate) fn gather(
    root: &Root,
    sizing: &Sizing,
    name: &str,
    restarts: Option<u64>,
) -> Result<Facts, SystemctlError> {
    let loaded = systemctl::show(name)?;
    let unit = generated::names_of(name).find_map(|name| sizing.units.iter().find(|unit| unit.name == name));
    let sized_name = unit.map_or(name, |unit| unit.name.as_str());
    let generated = generated::drop_in(root, sized_name, name).map(|drop_in| drop_in.environment());
    let cant_read = |path: &&String| !matches!(root.bytes(path), Ok(_) | Err(ReadError::Missing));
    let hidden_files = loaded.environment_files.iter().filter(cant_read).cloned().collect();
    let expected = match unit {
        Some(unit) => Ok(expected(&sizing.host, unit)),
        None => Err(wording::not_sized(sizing, name)
            .unwrap_or_else(|| "not listed in Units= in sizing.conf(5)".to_owned())),
    };
    let ours = generated.as_ref().and_then(|generated| generated.get(pypnm::ENV_FILE));
    let foreign_file = unit
        .and_then(|unit| assigned_at_start(unit, &loaded))
        .or_else(|| loaded.environment.get(pypnm::ENV_FILE))
        .filter(|path| Some(*path) != ours)
        .map(|path| (path.clone(), process::text_of_file(root, path)));
    let live = Live::read(root, &loaded, ours);
    let in_force = unit.and_then(|unit| in_force(root, unit, &loaded));
    let contained = match &live {
        Live::Running(_) => live::server(root, &loaded).filter(|pid| container::is_contained(root, *pid)),
        Live::Inactive | Live::Hidden => None,
    };
    let (other_units, other_process) = match &live {
        Live::Inactive => {
            let mut sized = sizing.config.units();
            sized.push(name.to_owned());
            (live::other_units(root, &sized), live::other_process(root))
        }
        Live::Running(_) | Live::Hidden => (Vec::new(), None),
    };
    let definition = unit.and_then(|unit| unit.definition.as_ref());
    let definition = definition.filter(|_| generated::foreign_fragment(root, definition, name).is_none());
    let installations = definition.map(|definition| Installations::find(root, name, Some(definition)));
    let is_loaded = loaded.load == "loaded";
    let lost_program = installations.iter().flat_map(|all| all.lost_program(is_loaded)).collect();
    let setup = installations.as_ref().and_then(Installations::out_of_reach);
    Ok(Facts {
        unit: name.to_owned(),
        expected,
        generator: Generator::find(root),
        generator_has_run: generated::exists_for_any(root),
        in_force,
        drop_in: generated::path(sized_name),
        rival: generated::rival(root, sized_name),
        hidden_files,
        foreign_file,
        live,
        contained,
        now: live::now(),
        was_restarted_meanwhile: restarts.is_some_and(|before| loaded.automatic_restarts > before),
        failed_requirement: loaded.is_due_since_boot().then(|| systemctl::failed_requirement(name)).flatten(),
        mistakes: mistakes(&sizing.problems),
        hidden_configuration: hidden_configuration(&sizing.problems),
        other_units,
        other_process,
        was_reloaded_since_profile: ours.is_some_and(|profile| {
            let written = moment::changed(root, profile);
            written.is_some() && written < moment::changed(root, &generated::path(sized_name))
        }),
        changed_since_start: changed_since_start(root, &loaded),
        lost_program,
        setup,
        generated,
        loaded,
    })
}

/// A file that is read when the service starts, and that has changed since its main process started.
fn changed_since_start(root: &Root, loaded: &LoadedUnit) -> Option<String> {
    let words = loaded.exec_start.iter().flat_map(|command| command.split_ascii_whitespace());
    let scripts = words.map(|word| word.trim_start_matches(PREFIXES));
    let files = scripts.filter(|word| word.starts_with('/')).take(MAX_SCRIPTS).map(str::to_owned);
    let mut files = files.chain(loaded.environment_files.iter().cloned());
    files.find(|file| live::has_changed_since_start(root, loaded, file))
}

pub(super) fn expected(host: &Host, unit: &SizedUnit) -> Expected {
    let settings = wording::settings(&unit.config).into_iter().filter(wording::ConfigSetting::matters);
    Expected {
        numbers: Numbers::from(&unit.profile),
        cpus: unit.capacity.whole_cpus(),
        gib: Gib(unit.capacity.memory.amount).to_string(),
        memory: unit.capacity.memory.amount,
        set_by_hand: settings.map(|setting| setting.to_string()).collect(),
        overrides: unit.overrides.clone(),
        default: PypnmDefault::new(host, &Hypothetical::default()).numbers,
    }
}

/// What the limits in force allow `unit`, if that is less than the generator would write.
fn in_force(root: &Root, unit: &SizedUnit, loaded: &LoadedUnit) -> Option<InForce> {
    let of_systemd = |key, value: Option<u64>| {
        let source = Source::key("systemctl show", 0, key);
        Some(Limit { scope: Scope::Process, amount: Amount::Memory(value?), source, shared_by: 1 })
    };
    let limits = [of_systemd("MemoryMax", loaded.memory_max), of_systemd("MemoryHigh", loaded.memory_high)];
    let pids = process::pids_of_cgroup(root, &loaded.cgroup);
    let sizing = size(&Request {
        extra_unit: Some(&unit.name),
        process: pids.first().map(|pid| limits::process::LimitedProcess::Pid(*pid)),
        loaded: limits.into_iter().flatten().collect(),
        ..Request::new(root)
    });
    let sized = sizing.units.iter().find(|sized| sized.name == unit.name)?;
    let (now, then) = (&sized.profile, &unit.profile);
    let request_limit = |limit: u32| if limit == 0 { u32::MAX } else { limit };
    let is_lower = now.workers < then.workers
        || request_limit(now.limit_max_requests) < request_limit(then.limit_max_requests);
    is_lower.then(|| InForce {
        numbers: Numbers {
            workers: now.workers.min(then.workers).into(),
            limit_max_requests: now.limit_max_requests.into(),
        },
        why: format!(
            "{} by {}, {} GiB by {}",
            in_cpus(Cpus(sized.capacity.cpu.amount)),
            reasons::cpu_reason(sized),
            Gib(sized.capacity.memory.amount),
            reasons::memory_reason(sized)
        ),
    })
}

/// The problems with files of sizing.conf(5).
fn configuration_problems(problems: &[Problem]) -> impl Iterator<Item = &Problem> {
    problems.iter().filter(|problem| problem.is_in_configuration)
}

/// The problems that an operator can correct; not files that could not be read.
pub(super) fn mistakes(problems: &[Problem]) -> Vec<String> {
    let is_mistake = |problem: &&Problem| !matches!(problem.kind, ProblemKind::Unreadable(_));
    configuration_problems(problems).filter(is_mistake).map(ToString::to_string).collect()
}

/// The first file or directory of the configuration that the caller is not permitted to read.
fn hidden_configuration(problems: &[Problem]) -> Option<String> {
    let denied = ProblemKind::Unreadable(ReadError::Os(Errno::ACCESS));
    configuration_problems(problems)
        .find(|problem| problem.kind == denied)
        .map(|problem| problem.source.place())
}

/// The profile file that is named where systemd reads it only at a start: on the command line, through env(1), or in a file
/// of `EnvironmentFile=`.
fn assigned_at_start<'a>(unit: &'a SizedUnit, loaded: &LoadedUnit) -> Option<&'a String> {
    let is_of_a_file =
        |found: &&Override| loaded.environment_files.iter().any(|file| *file == *found.source.file);
    let found = unit.overrides.get(pypnm::ENV_FILE);
    let found = found.filter(|found| found.stage == Stage::Command || is_of_a_file(found))?;
    match &found.effect {
        Effect::Variable { value, .. } => Some(value),
        _ => None,
    }
}
