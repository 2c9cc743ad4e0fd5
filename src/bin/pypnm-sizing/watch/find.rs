//! Which processes are watched: those of a unit's cgroup, or a process and its descendants.

use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::role::{Candidate, main_process};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::service::{process, systemctl};

/// More processes than this are no PyPNM.
const MOST: usize = 4096;

/// What is watched.
#[derive(Debug)]
pub(super) enum Target {
    /// A unit of systemd, with what systemd last said of it.
    Unit(Unit),
    /// A process and its descendants.
    Tree(Tree),
}

/// A process, with the descendants last seen.
#[derive(Debug)]
pub(super) struct Tree {
    pid: u32,
    seen: Vec<u32>,
}

impl Tree {
    fn of(pid: u32) -> Self {
        Self { pid, seen: Vec::new() }
    }
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
        let names = ["LoadState", "ActiveState", "ControlGroup", "MainPID", "NRestarts"];
        let properties = systemctl::properties(name, &names).ok()?;
        let word = |name: &str| properties.get(name).cloned().unwrap_or_default();
        let number = |name: &str| properties.get(name)?.parse().ok();
        let unit = Self {
            name: name.to_owned(),
            load: word("LoadState"),
            active: word("ActiveState"),
            cgroup: word("ControlGroup"),
            main: number("MainPID").and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            automatic_restarts: number("NRestarts"),
        };
        Some(unit)
    }

    /// All processes of its cgroup and of those below. Empty: it is down.
    fn processes(&self, machine: &Root) -> Vec<u32> {
        process::pids_of_cgroup(machine, &self.cgroup)
    }
}

impl Target {
    /// The process given, else the unit; where no systemd answers and no unit was named, the only PyPNM there is. Second:
    /// a remark. `waits`: a unit that does not run yet is waited for.
    pub(super) fn find(
        machine: &Root,
        pid: Option<u32>,
        named: Option<&str>,
        default: &str,
        waits: bool,
    ) -> Result<(Self, Option<String>), String> {
        if let Some(pid) = pid {
            return Self::of_process(pid);
        }
        let name = named.unwrap_or(default);
        let Some(unit) = Unit::ask(name) else {
            if named.is_some() {
                return Err(format!("{name}: no systemd answers here; --pid=PID watches a process"));
            }
            return Self::only_server();
        };
        let why_not = if unit.load != "loaded" {
            format!("systemd knows no {name} ({})", unit.load)
        } else if unit.processes(machine).is_empty() && unit.main == 0 && !waits {
            format!("{name} is not running ({})", unit.active)
        } else {
            return Ok((Self::Unit(unit), None));
        };
        let others = servers().unwrap_or_default();
        let hint = match others.as_slice() {
            [] => String::new(),
            [first, ..] => format!("; a PyPNM runs as process {first}: --pid={first} watches it"),
        };
        Err(format!("{why_not}{hint}"))
    }

    fn only_server() -> Result<(Self, Option<String>), String> {
        let why_not = "no systemd answers here";
        match servers()?.as_slice() {
            [] => Err(format!("{why_not}, and no process here looks like a PyPNM; --pid=PID names one")),
            [only] => Ok((
                Self::Tree(Tree::of(*only)),
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
                Self::Tree(Tree::of(parent)),
                Some(format!("{pid} is a worker; watching its parent {parent}")),
            ));
        }
        Ok((Self::Tree(Tree::of(pid)), None))
    }

    /// The name to show.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unit(unit) => unit.name.clone(),
            Self::Tree(tree) => format!("process {}", tree.pid),
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
            Self::Tree(Tree { pid, seen }) => {
                let mut pids = tree(machine, *pid);
                if pids.is_empty() {
                    return None;
                }
                overlooked(machine, seen, &mut pids);
                seen.clone_from(&pids);
                Some(pids)
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

/// Adds the descendants seen before that are still there: a list of children may lack some while others of them end
/// (proc_pid_task_children in proc(5)).
fn overlooked(machine: &Root, seen: &[u32], pids: &mut Vec<u32>) {
    loop {
        let before = pids.len();
        for pid in seen {
            let is_ours = |stat: Stat| pids.contains(&stat.parent);
            if !pids.contains(pid) && Stat::of(machine, *pid).is_some_and(is_ours) {
                pids.push(*pid);
            }
        }
        if pids.len() == before {
            return;
        }
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its parent.
    pub(super) parent: u32,
    /// When it started, in hundredths of a second since the boot (USER_HZ is 100 wherever systemd runs). Unlike
    /// seconds of the calendar it never changes while the process lives.
    pub(super) started: u64,
}

impl Stat {
    pub(super) fn of(machine: &Root, pid: u32) -> Option<Self> {
        // A name may be no UTF-8, and may hold anything.
        let bytes = machine.bytes(&format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        let (_, after_the_name) = text.rsplit_once(") ")?;
        let mut fields = after_the_name.split_ascii_whitespace();
        Some(Self { parent: fields.nth(1)?.parse().ok()?, started: fields.nth(17)?.parse().ok()? })
    }
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

#[cfg(test)]
mod tests {
    use super::{Root, Stat, Unit, overlooked};

    fn put(dir: &tempfile::TempDir, path: &str, text: &str) {
        let path = dir.path().join(path.trim_start_matches('/'));
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
    }

    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let root = Root::below(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        (dir, root)
    }

    #[test]
    fn a_units_processes_in_every_version_of_cgroups() {
        let unit = Unit { cgroup: "/system.slice/pypnm.service".to_owned(), ..Unit::default() };
        for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
            let (dir, root) = machine();
            assert!(unit.processes(&root).is_empty(), "down");
            put(&dir, &format!("{hierarchy}/system.slice/pypnm.service/cgroup.procs"), "7\n9\n");
            put(&dir, &format!("{hierarchy}/system.slice/pypnm.service/inner/cgroup.procs"), "11\njunk\n");
            assert_eq!(unit.processes(&root), [7, 9, 11], "{hierarchy}");
        }
        let (dir, root) = machine();
        put(&dir, "/sys/fs/cgroup/cgroup.procs", "1\n2\n");
        for cgroup in ["", "/"] {
            let unit = Unit { cgroup: cgroup.to_owned(), ..Unit::default() };
            assert!(unit.processes(&root).is_empty(), "the root cgroup is everybody's");
        }
    }

    #[test]
    fn children_that_a_list_lacks_are_found_again() {
        let (dir, root) = machine();
        let stat = |pid: u32, parent: u32| {
            let fields = format!("{pid} (x) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 77\n");
            put(&dir, &format!("/proc/{pid}/stat"), &fields);
        };
        stat(5, 1);
        stat(6, 5);
        stat(7, 6);
        stat(8, 99);
        let mut pids = vec![5];
        // 7 hangs on 6; 8 is another's by now, 9 is gone.
        overlooked(&root, &[5, 7, 6, 8, 9], &mut pids);
        assert_eq!(pids, [5, 6, 7]);
    }

    #[test]
    fn a_recorded_stat_whatever_the_name() {
        let of = |name: &str| {
            format!(
                "3197 ({name}) S 3196 3197 3196 0 -1 4194304 9523 6052 0 0 61 13 2 1 20 0 1 0 61834 8052736 441 \
                 18446744073709551615 1 1 0 0 0 0 65536 3686404 1266761467 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
            )
        };
        for name in ["bash", "a) R 1 2 3", ") S (", ""] {
            assert_eq!(Stat::parse(&of(name)), Some(Stat { parent: 3196, started: 61_834 }), "{name}");
        }
        assert_eq!(Stat::parse("3197 (bash) S 3196 1"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
