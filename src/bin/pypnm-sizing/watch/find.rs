//! Determines which processes to watch: those in a unit's cgroup, or a process and its descendants.

use std::collections::BTreeMap;

use anyhow::bail;
use pypnm_sizing::root::Root;

use crate::service::process::{self, Process, Stat};
use crate::service::{family, systemctl};

/// The target of a watch.
#[derive(Debug)]
pub(super) enum WatchTarget {
    /// A unit, as last reported by systemd.
    Unit(WatchedUnit),
    /// A process and its descendants.
    Tree(Tree),
}

/// A process, and its descendants in the last sample.
#[derive(Debug)]
pub(super) struct Tree {
    pid: u32,
    seen: Vec<u32>,
}

impl Tree {
    fn new(pid: u32) -> Self {
        Self { pid, seen: Vec::new() }
    }
}

/// A unit, as reported by `systemctl show`.
#[derive(Debug, Default)]
pub(super) struct WatchedUnit {
    name: String,
    load: String,
    active: String,
    cgroup: String,
    main: u32,
    /// NRestarts.
    pub(super) automatic_restarts: Option<u64>,
}

impl WatchedUnit {
    /// Queries systemd. `None`: systemd cannot be queried here.
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

    /// All processes in its cgroup and in those below it. Empty: it is down.
    fn processes(&self, machine: &Root) -> Vec<u32> {
        process::pids_of_cgroup(machine, &self.cgroup)
    }
}

impl WatchTarget {
    /// The target: the given process, or the unit. Without systemd and without a named unit, it is the only PyPNM on
    /// the machine. Also returns a remark. `waits`: whether to wait for a unit that is not running yet.
    pub(super) fn find(
        machine: &Root,
        pid: Option<u32>,
        named: Option<&str>,
        default: &str,
        waits: bool,
    ) -> anyhow::Result<(Self, Option<String>)> {
        if let Some(pid) = pid {
            return Self::with_process(machine, pid);
        }
        let name = named.unwrap_or(default);
        let Some(unit) = WatchedUnit::ask(name) else {
            if named.is_some() {
                bail!("{name}: systemd cannot be queried; use --pid=PID to watch a process");
            }
            return Self::only_server(machine);
        };
        let why_not = if unit.load != "loaded" {
            format!("systemd does not know {name} ({})", unit.load)
        } else if unit.processes(machine).is_empty() && unit.main == 0 && !waits {
            format!("{name} is not running ({})", unit.active)
        } else {
            return Ok((Self::Unit(unit), None));
        };
        let others = servers(machine);
        let hint = match others.as_slice() {
            [] => String::new(),
            [first, ..] => format!("; PyPNM is running as process {first}: use --pid={first} to watch it"),
        };
        bail!("{why_not}{hint}")
    }

    fn only_server(machine: &Root) -> anyhow::Result<(Self, Option<String>)> {
        let why_not = "systemd cannot be queried";
        match servers(machine).as_slice() {
            [] => bail!("{why_not}, and no process here looks like PyPNM; specify one with --pid=PID"),
            [only] => Ok((
                Self::Tree(Tree::new(*only)),
                Some(format!("{why_not}; watching process {only}, found by its command line")),
            )),
            several => {
                let list: Vec<String> = several.iter().map(u32::to_string).collect();
                bail!(
                    "{why_not}, and several processes look like PyPNM: choose one with --pid={}",
                    list.join(" or ")
                )
            }
        }
    }

    /// A process given on the command line, or its parent if it is a worker.
    fn with_process(machine: &Root, pid: u32) -> anyhow::Result<(Self, Option<String>)> {
        let found = process::read(machine, &[pid]);
        let Some(process) = found.first() else {
            bail!("--pid={pid}: no such process, or /proc hides it");
        };
        let parent = process.parent;
        if process.candidate().is_spawned() && parent > 1 {
            return Ok((
                Self::Tree(Tree::new(parent)),
                Some(format!("{pid} is a worker; watching its parent {parent}")),
            ));
        }
        Ok((Self::Tree(Tree::new(pid)), None))
    }

    /// The name to display.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unit(unit) => unit.name.clone(),
            Self::Tree(tree) => format!("process {}", tree.pid),
        }
    }

    /// The name of the unit. `None`: it is a process.
    pub(super) fn unit(&self) -> Option<&str> {
        match self {
            Self::Unit(unit) => Some(&unit.name),
            Self::Tree(_) => None,
        }
    }

    /// The number of automatic restarts that systemd has counted.
    pub(super) fn automatic_restarts(&self) -> Option<u64> {
        match self {
            Self::Unit(unit) => unit.automatic_restarts,
            Self::Tree(_) => None,
        }
    }

    /// The current processes, including zombies. `None`: the process is gone for good; empty: the service is down at
    /// the moment.
    pub(super) fn processes(&mut self, machine: &Root) -> Option<BTreeMap<u32, Stat>> {
        let pids = match self {
            Self::Tree(Tree { pid, seen }) => {
                let mut found = family::processes(machine, family::Service::Tree(*pid));
                if found.is_empty() {
                    return None;
                }
                overlooked(machine, seen, &mut found);
                *seen = found.keys().copied().collect();
                return Some(found);
            }
            Self::Unit(unit) => {
                let pids = unit.processes(machine);
                if pids.contains(&unit.main) {
                    pids
                } else {
                    // Down or restarted; systemd knows its new cgroup.
                    if let Some(now) = WatchedUnit::ask(&unit.name) {
                        *unit = now;
                    }
                    unit.processes(machine)
                }
            }
        };
        Some(pids.into_iter().filter_map(|pid| Some((pid, Stat::read(machine, pid)?))).collect())
    }
}

/// Adds descendants from the previous sample that still exist: a list of children may be incomplete while some of them
/// end (proc_pid_task_children in proc(5)).
fn overlooked(machine: &Root, seen: &[u32], found: &mut BTreeMap<u32, Stat>) {
    loop {
        let before = found.len();
        for pid in seen {
            if !found.contains_key(pid)
                && let Some(stat) = Stat::read(machine, *pid)
                && found.contains_key(&stat.parent)
            {
                found.insert(*pid, stat);
            }
        }
        if found.len() == before {
            return;
        }
    }
}

/// The processes that look like a PyPNM; of each tree, only the topmost.
fn servers(machine: &Root) -> Vec<u32> {
    let servers: Vec<Process> = process::all(machine).into_iter().filter(Process::is_pypnm).collect();
    let is_topmost = |server: &&Process| !servers.iter().any(|other| other.pid == server.parent);
    servers.iter().filter(is_topmost).map(|server| server.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Root, Stat, WatchedUnit, overlooked};

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
        let unit = WatchedUnit { cgroup: "/system.slice/pypnm.service".to_owned(), ..WatchedUnit::default() };
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
            let unit = WatchedUnit { cgroup: cgroup.to_owned(), ..WatchedUnit::default() };
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
        let mut found: BTreeMap<u32, Stat> = Stat::read(&root, 5).map(|stat| (5, stat)).into_iter().collect();
        // 7 is a child of 6; 8 now belongs to another process, and 9 is gone.
        overlooked(&root, &[5, 7, 6, 8, 9], &mut found);
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [5, 6, 7]);
    }
}
