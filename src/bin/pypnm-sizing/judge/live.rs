//! The processes of a service, and the numbers that they were started with. Reads /proc; [`super::in_use`] interprets the
//! result.

use std::time::Duration;

use pypnm_sizing::names;
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::root::Root;
use pypnm_sizing::watch::role::{Candidate, Role, main_process, roles};

use super::in_use::Running;
use crate::service::container;
use crate::service::generated;
use crate::service::process::{self, Process};
use crate::service::systemctl::LoadedUnit;

/// The processes of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// It is not active.
    Not,
    /// It is active, but the caller cannot see its processes.
    Hidden,
    Running(Running),
}

impl Live {
    /// The processes of a unit. `ours`: the profile file in the generated drop-in.
    pub(super) fn of(root: &Root, loaded: &LoadedUnit, ours: Option<&String>) -> Self {
        if !matches!(loaded.active.as_str(), "active" | "reloading" | "refreshing") || loaded.sub == "exited"
        {
            return Self::Not;
        }
        let processes = of_unit(root, loaded);
        let Some(main) = main_process(&candidates(&processes)) else {
            return Self::Hidden;
        };
        let mut running = running(root, &processes, main);
        let path = match &running.environment {
            Some(environment) => environment.get(pypnm::ENV_FILE),
            // The caller may not read the environment, which is most probably the one that systemd has loaded.
            None => loaded.environment.get(pypnm::ENV_FILE).or(ours),
        };
        if let Some(path) = path.cloned() {
            running.file_has_changed = Some(&path) != ours && has_changed_since_start(root, loaded, &path);
            let text = text(root, &path);
            running.file = Some((path, text));
        }
        Self::Running(running)
    }
}

/// A service from its processes, without its profile file. `main`: the process that serves, or whose children do.
pub(super) fn running(root: &Root, processes: &[Process], main: u32) -> Running {
    let candidates = candidates(processes);
    let roles = roles(&candidates);
    let of_role = |role| roles.iter().zip(&candidates).filter(move |(known, _)| **known == role);
    // The newest worker: during a handover, an older one may still be finishing requests with the previous profile.
    let worker = of_role(Role::Worker).map(|(_, worker)| worker.pid).filter(|pid| *pid != main).max();
    let arguments = processes.iter().find(|process| process.pid == main).map(|main| main.arguments.clone());
    Running {
        workers: i64::try_from(of_role(Role::Worker).count()).unwrap_or(i64::MAX),
        is_single: of_role(Role::Parent).next().is_none(),
        arguments: arguments.unwrap_or_default(),
        environment: process::environment(root, main),
        active: worker.and_then(|pid| active_numbers(root, pid)),
        file: None,
        file_has_changed: false,
    }
}

pub(super) fn candidates(processes: &[Process]) -> Vec<Candidate<'_>> {
    processes.iter().map(Process::candidate).collect()
}

/// The process of a unit that serves requests, or whose children do.
pub(crate) fn server(root: &Root, loaded: &LoadedUnit) -> Option<u32> {
    main_process(&candidates(&of_unit(root, loaded)))
}

fn of_unit(root: &Root, loaded: &LoadedUnit) -> Vec<Process> {
    process::of_pids(root, &process::pids_of_cgroup(root, &loaded.cgroup))
}

/// The profile in effect, which PyPNM passes to its workers.
fn active_numbers(root: &Root, worker: u32) -> Option<Numbers> {
    generated::numbers_in(&process::environment(root, worker)?, names::ACTIVE_VARIABLES)
}

/// The text of a profile file, or why it cannot be read.
pub(super) fn text(root: &Root, path: &str) -> Result<String, String> {
    process::text_of_file(root, path).map_err(|error| error.to_string())
}

/// The services that run PyPNM, other than `names`.
pub(super) fn other_units(root: &Root, names: &[String]) -> Vec<String> {
    let processes = process::all(root);
    let servers = processes.iter().filter(|process| process.is_pypnm());
    let mut units: Vec<String> = servers
        .filter(|server| process::user_manager_of(root, server.pid).is_none())
        .filter_map(|server| process::unit_of(root, server.pid))
        .filter(|unit| !generated::names_of(unit).any(|name| names.contains(&name)))
        .collect();
    units.sort();
    units.dedup();
    units
}

/// A PyPNM on this machine that is in no service of the system manager: in one of a user, in a scope, or started by hand.
pub(super) fn other_process(root: &Root) -> Option<String> {
    let is_contained = |process: &Process| container::is_contained(root, process.pid);
    let servers = process::all(root).into_iter().filter(Process::is_pypnm);
    let mut texts = servers.filter(|server| !is_contained(server)).filter_map(|server| {
        let pid = server.pid;
        match (process::user_manager_of(root, pid), process::unit_of(root, pid)) {
            (Some(manager), Some(unit)) if manager != unit => Some(format!(
                "PyPNM runs as {unit} of {manager}, which is not sized: only system services are"
            )),
            (Some(_), _) | (None, None) => {
                Some(format!("PyPNM runs as process {pid}, outside any systemd service, and is not sized"))
            }
            (None, Some(_)) => None,
        }
    });
    texts.next()
}

/// When a file was last changed, in nanoseconds since 1970. `None`: it cannot be examined.
pub(super) fn changed(root: &Root, path: &str) -> Option<i128> {
    let stat = root.stat(path)?;
    #[allow(clippy::useless_conversion, reason = "their types differ between architectures")]
    Some(i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec))
}

/// Whether a file has changed since the main process started.
pub(super) fn has_changed_since_start(root: &Root, loaded: &LoadedUnit, path: &str) -> bool {
    started(loaded).zip(changed(root, path)).is_some_and(|(started, changed)| changed > started)
}

/// When the main process started, in nanoseconds since 1970. `None`: it has not been started.
fn started(loaded: &LoadedUnit) -> Option<i128> {
    let age = now().checked_sub(Duration::from_micros(loaded.main_started))?;
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let started = i128::try_from(since_1970.checked_sub(age)?.as_nanos()).ok()?;
    (loaded.main_started > 0).then_some(started)
}

pub(super) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
