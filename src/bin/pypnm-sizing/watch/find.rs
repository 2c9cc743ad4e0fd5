//! Which processes are watched: those of a unit's cgroup, or a process and its descendants.

use std::process::{Command, Stdio};

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::role::{Candidate, main_process};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// Where systemd keeps its cgroups: version 2, hybrid, version 1 (systemd fixes these places).
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// More processes than this are no PyPNM.
const MOST: usize = 4096;

/// What is watched.
#[derive(Debug)]
pub(super) enum Target {
    /// A unit of systemd, with what systemd last said of it.
    Unit(Unit),
    /// A process and its descendants.
    Tree(u32),
}

/// A unit, as `systemctl show` tells it.
#[derive(Debug, Default)]
pub(super) struct Unit {
    name: String,
    load: String,
    active: String,
    cgroup: String,
    main: u32,
    /// NRestarts.
    pub(super) automatic_restarts: Option<u64>,
}

impl Unit {
    /// Asks systemd. `None`: no systemd answers here.
    fn ask(name: &str) -> Option<Self> {
        let output = Command::new("systemctl")
            .args(["show", "--property=LoadState,ActiveState,ControlGroup,MainPID,NRestarts", "--", name])
            .stdin(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let mut unit = Self { name: name.to_owned(), ..Self::default() };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match line.split_once('=') {
                Some(("LoadState", value)) => value.clone_into(&mut unit.load),
                Some(("ActiveState", value)) => value.clone_into(&mut unit.active),
                Some(("ControlGroup", value)) => value.clone_into(&mut unit.cgroup),
                Some(("MainPID", value)) => unit.main = value.parse().unwrap_or(0),
                Some(("NRestarts", value)) => unit.automatic_restarts = value.parse().ok(),
                _ => {}
            }
        }
        Some(unit)
    }

    /// All processes of its cgroup and of those below. Empty: it is down.
    fn processes(&self, machine: &Root) -> Vec<u32> {
        let mut pids = Vec::new();
        // The root cgroup is everybody's.
        if self.cgroup.len() > 1 {
            for hierarchy in HIERARCHIES {
                if pids.is_empty() {
                    processes_below(machine, &format!("{hierarchy}{}", self.cgroup), 0, &mut pids);
                }
            }
        }
        pids
    }
}

/// The processes of a cgroup and of those below it.
fn processes_below(machine: &Root, dir: &str, depth: u32, pids: &mut Vec<u32>) {
    if let Ok(text) = machine.text(&format!("{dir}/cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(MOST));
    }
    // A service without Delegate= has no cgroups below; a container's engine may make some.
    if depth < 4
        && let Ok(entries) = machine.entries(dir)
    {
        for entry in entries.iter().filter(|entry| !entry.name.contains('.') && !entry.link) {
            processes_below(machine, &format!("{dir}/{}", entry.name), depth + 1, pids);
        }
    }
}

impl Target {
    /// The process given, else the unit where systemd has it, else the only PyPNM there is. Second: a remark.
    pub(super) fn find(
        machine: &Root,
        pid: Option<u32>,
        name: &str,
    ) -> Result<(Self, Option<String>), String> {
        if let Some(pid) = pid {
            return Self::of_process(pid);
        }
        let why_not = match Unit::ask(name) {
            None => "no systemd answers here".to_owned(),
            Some(unit) if unit.load != "loaded" => format!("systemd knows no {name} ({})", unit.load),
            Some(unit) if unit.processes(machine).is_empty() && unit.main == 0 => {
                format!("{name} is not running ({})", unit.active)
            }
            Some(unit) => return Ok((Self::Unit(unit), None)),
        };
        match servers()?.as_slice() {
            [] => Err(format!("{why_not}, and no process here looks like a PyPNM; --pid=PID names one")),
            [only] => Ok((
                Self::Tree(*only),
                Some(format!("{why_not}; watching process {only}, found by its command line")),
            )),
            several => {
                let list: Vec<String> = several.iter().map(u32::to_string).collect();
                Err(format!(
                    "{why_not}, and several processes look like a PyPNM: choose with --pid={}",
                    list.join(" or ")
                ))
            }
        }
    }

    /// A process given by hand; of a worker, its parent.
    fn of_process(pid: u32) -> Result<(Self, Option<String>), String> {
        let system = everybody()?;
        let Some(process) = system.process(sysinfo::Pid::from_u32(pid)) else {
            return Err(format!("--pid={pid}: there is no such process, or /proc hides it"));
        };
        let arguments = arguments(process);
        let parent = process.parent().map_or(0, sysinfo::Pid::as_u32);
        let is_worker = Candidate { pid, parent, arguments: &arguments }.is_spawned();
        if is_worker && parent > 1 {
            return Ok((
                Self::Tree(parent),
                Some(format!("{pid} is a worker; watching its parent {parent}")),
            ));
        }
        Ok((Self::Tree(pid), None))
    }

    /// The name to show.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unit(unit) => unit.name.clone(),
            Self::Tree(pid) => format!("process {pid}"),
        }
    }

    /// systemd's count of automatic restarts.
    pub(super) fn automatic_restarts(&self) -> Option<u64> {
        match self {
            Self::Unit(unit) => unit.automatic_restarts,
            Self::Tree(_) => None,
        }
    }

    /// The pids of this moment. `None`: the process is gone for good; empty: the service is down for now.
    pub(super) fn pids(&mut self, machine: &Root) -> Option<Vec<u32>> {
        match self {
            Self::Tree(pid) => {
                let pids = tree(machine, *pid);
                (!pids.is_empty()).then_some(pids)
            }
            Self::Unit(unit) => {
                let pids = unit.processes(machine);
                if !pids.contains(&unit.main) {
                    // Down, or up anew: systemd knows where.
                    if let Some(now) = Unit::ask(&unit.name) {
                        *unit = now;
                    }
                    return Some(unit.processes(machine));
                }
                Some(pids)
            }
        }
    }
}

/// A process and its descendants, itself first; empty where it is gone.
fn tree(machine: &Root, pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        match children(machine, pid) {
            Ok(children) => {
                pids.extend(children.into_iter().filter(|child| !pids.contains(child)).collect::<Vec<_>>());
            }
            Err(Gone::Process) if next == 0 => return Vec::new(),
            Err(Gone::Process) => {}
            Err(Gone::File) => return tree_of_everybody(pid),
        }
        next += 1;
        if pids.len() > MOST {
            break;
        }
    }
    pids
}

enum Gone {
    Process,
    /// A kernel without CONFIG_PROC_CHILDREN.
    File,
}

/// The children of a process: those of its threads.
fn children(machine: &Root, pid: u32) -> Result<Vec<u32>, Gone> {
    let threads = machine.entries(&format!("/proc/{pid}/task")).map_err(|_| Gone::Process)?;
    let mut children = Vec::new();
    for thread in threads {
        let file = format!("/proc/{pid}/task/{}/children", thread.name);
        match machine.text(&file) {
            Ok(text) => {
                children.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<u32>().ok()));
            }
            Err(ReadError::Missing)
                if machine.has_directory(&format!("/proc/{pid}/task/{}", thread.name)) =>
            {
                return Err(Gone::File);
            }
            // The thread ended just now.
            Err(_) => {}
        }
    }
    Ok(children)
}

/// The slow way to the same tree.
fn tree_of_everybody(pid: u32) -> Vec<u32> {
    let Ok(system) = everybody() else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = system
        .process(sysinfo::Pid::from_u32(pid))
        .map(|process| process.pid().as_u32())
        .into_iter()
        .collect();
    let mut next = 0;
    while let Some(parent) = pids.get(next).copied() {
        let children =
            system.processes().values().filter(|p| p.parent().is_some_and(|p| p.as_u32() == parent));
        pids.extend(children.map(|child| child.pid().as_u32()));
        next += 1;
    }
    pids
}

/// Every process here, with its arguments.
fn everybody() -> Result<System, String> {
    let mut system = processes()?;
    let what = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    Ok(system)
}

/// sysinfo's list of processes, empty at first.
pub(super) fn processes() -> Result<System, String> {
    System::new().map_err(|error| format!("can't read processes: {error:?}"))
}

/// The arguments of a process as text.
pub(super) fn arguments(process: &sysinfo::Process) -> Vec<String> {
    process.cmd().iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The processes that look like a PyPNM, of each tree the topmost.
fn servers() -> Result<Vec<u32>, String> {
    let system = everybody()?;
    let mut servers: Vec<(u32, u32, Vec<String>)> = system
        .processes()
        .values()
        .map(|p| (p.pid().as_u32(), p.parent().map_or(0, sysinfo::Pid::as_u32), arguments(p)))
        .filter(|(pid, parent, arguments)| {
            let candidate = Candidate { pid: *pid, parent: *parent, arguments };
            let pypnm = arguments.iter().any(|argument| argument.contains("pypnm"));
            pypnm && candidate.is_server() && !candidate.is_spawned()
        })
        .collect();
    servers.sort_unstable();
    Ok(servers
        .iter()
        .filter(|(_, parent, _)| !servers.iter().any(|(pid, _, _)| pid == parent))
        .map(|(pid, _, _)| *pid)
        .collect())
}

/// The process that serves, or whose children do.
pub(super) fn main_of(processes: &[(u32, u32, Vec<String>)]) -> Option<u32> {
    let candidates: Vec<Candidate<'_>> = processes
        .iter()
        .map(|(pid, parent, arguments)| Candidate { pid: *pid, parent: *parent, arguments })
        .collect();
    main_process(&candidates)
}
