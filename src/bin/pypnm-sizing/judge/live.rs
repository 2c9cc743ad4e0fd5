//! The processes of a unit, other PyPNMs on the machine, and what has changed since a unit started. Reads /proc.

use std::time::Duration;

use pypnm_sizing::pypnm;
use pypnm_sizing::root::Root;
use pypnm_sizing::watch::role::main_process;
use rustix::time::ClockId;

use crate::service::container::{self, ProcessFiles};
use crate::service::process::{self, Process};
use crate::service::running::Running;
use crate::service::systemctl::LoadedUnit;
use crate::service::{generated, moment};

/// The processes of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// It is not active.
    Inactive,
    /// It is active, but the caller cannot see its processes.
    Hidden,
    Running(Running),
}

impl Live {
    /// The processes of a unit. `ours`: the profile file in the generated drop-in.
    pub(super) fn read(root: &Root, loaded: &LoadedUnit, ours: Option<&String>) -> Self {
        if !matches!(loaded.active.as_str(), "active" | "reloading" | "refreshing") || loaded.sub == "exited"
        {
            return Self::Inactive;
        }
        let processes = unit_processes(root, loaded);
        let Some(main) = main_process(&process::candidates(&processes)) else {
            return Self::Hidden;
        };
        let files = ProcessFiles::Same;
        let mut running = Running::read(root, &files, &processes, main);
        if running.environment.is_none()
            && let Some(path) = loaded.environment.get(pypnm::ENV_FILE).or(ours)
        {
            // Most probably, the environment is the one that systemd has loaded.
            running.read_profile(root, &files, &processes, path);
        }
        running.compare_times(root, &files, main, ours.map(String::as_str));
        Self::Running(running)
    }
}

/// The process of a unit that serves requests, or whose children do.
pub(crate) fn server(root: &Root, loaded: &LoadedUnit) -> Option<u32> {
    main_process(&process::candidates(&unit_processes(root, loaded)))
}

fn unit_processes(root: &Root, loaded: &LoadedUnit) -> Vec<Process> {
    process::read(root, &process::pids_of_cgroup(root, &loaded.cgroup))
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

/// Whether a file has changed since the main process started.
pub(super) fn has_changed_since_start(root: &Root, loaded: &LoadedUnit, path: &str) -> bool {
    started(loaded).zip(moment::changed(root, path)).is_some_and(|(started, changed)| changed > started)
}

/// When the main process started, in nanoseconds since 1970. `None`: it has not been started.
fn started(loaded: &LoadedUnit) -> Option<i128> {
    let started = moment::ago(now().checked_sub(Duration::from_micros(loaded.main_started))?)?;
    (loaded.main_started > 0).then_some(started)
}

/// The time since the boot, on the clock of systemd's timestamps.
pub(super) fn now() -> Duration {
    moment::on_clock(ClockId::Monotonic)
}
