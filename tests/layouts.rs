//! What the library makes of files in unusual places: units behind aliases and templates, cgroups and memory nodes that lack
//! a file. tests/oracle compares the units with systemd at random; here is a case for each rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pypnm_sizing::limits::process::Process;
use pypnm_sizing::limits::{Amount, Resource, cgroup, nodes, process};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::problem::Problem;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::units::{Index, State, Unit};

/// A root with these files; a text that begins with `->` is the target of a symbolic link.
fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("->") {
            Some(target) => symlink(Path::new(target), path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    let root = Root::below(directory.path()).unwrap();
    (directory, root)
}

/// The unit, as it is loaded where these files are below `/etc/systemd/system`, or where their path says.
fn unit(name: &str, files: &[(&str, &str)]) -> Unit {
    let places: Vec<(String, &str)> = files
        .iter()
        .map(|(path, text)| match path.strip_prefix('/') {
            Some(path) => (path.to_owned(), *text),
            None => (format!("etc/systemd/system/{path}"), *text),
        })
        .collect();
    let places: Vec<(&str, &str)> = places.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let (_directory, root) = root(&places);
    let names = [name.to_owned()];
    let mut problems = Vec::new();
    let index = Index::read(&root, &names, "", &mut problems);
    let unit = index.load(name, &mut problems).unwrap();
    assert_eq!(problems, []);
    unit
}

const SERVICE: &str = "[Service]\nExecStart=/bin/true\n";

#[test]
fn an_alias_of_an_instance_leads_to_the_template() {
    let loaded = unit("a@x.service", &[("a@x.service", "->p@x.service"), ("p@.service", SERVICE)]);
    assert_eq!((loaded.state, loaded.name.as_str()), (State::Loaded, "p@x.service"));
    let other = unit("a@x.service", &[("a@x.service", "->p@y.service"), ("p@.service", SERVICE)]);
    assert_eq!(other.state, State::NotFound, "an alias of another instance is none");
}

#[test]
fn the_target_of_an_alias_is_looked_up_in_the_order_of_the_directories() {
    let loaded = unit(
        "a.service",
        &[
            ("a.service", "->b.service"),
            ("b.service", SERVICE),
            ("/usr/lib/systemd/system/b.service", "->c.service"),
            ("/usr/lib/systemd/system/c.service", SERVICE),
        ],
    );
    assert_eq!(loaded.fragment.as_deref(), Some("/etc/systemd/system/b.service"));
}

#[test]
fn a_link_to_a_file_below_a_unit_directory_is_an_alias() {
    let below = "/usr/lib/systemd/system/more/b.service";
    let loaded = unit("a.service", &[("a.service", &format!("->{below}")), (below, SERVICE)]);
    assert_eq!(loaded.state, State::NotFound, "of b.service, which there is not");
    let outside = "/usr/lib/systemd/system-more/b.service";
    let loaded = unit("a.service", &[("a.service", &format!("->{outside}")), (outside, SERVICE)]);
    assert_eq!(loaded.state, State::Loaded, "it is the unit's own file");
}

#[test]
fn drop_ins_of_aliases_apply_and_those_of_other_links_do_not() {
    let drop_ins = |name: &str, files: &[(&str, &str)]| unit(name, files).drop_ins.join(" ");
    let files = [
        ("p.service", SERVICE),
        ("other.service", SERVICE),
        ("a.service", "->p.service"),
        ("b.service", "->other.service"),
        ("a.service.d/1.conf", SERVICE),
        ("b.service.d/2.conf", SERVICE),
    ];
    assert_eq!(drop_ins("p.service", &files), "/etc/systemd/system/a.service.d/1.conf");
    let files = [
        ("p@.service", SERVICE),
        ("a@.service", "->p@.service"),
        ("a@x.service.d/1.conf", SERVICE),
        ("a@y.service.d/2.conf", SERVICE),
    ];
    assert_eq!(drop_ins("p@x.service", &files), "/etc/systemd/system/a@x.service.d/1.conf");
    let elsewhere = [&files[..], &[("a@x.service", "->q@x.service"), ("q@.service", SERVICE)]].concat();
    assert_eq!(drop_ins("p@x.service", &elsewhere), "", "the instance has a link of its own");
    let both = [&files[..3], &[("a@x.service", "->p@x.service")]].concat();
    assert_eq!(unit("p@x.service", &both).aliases, ["a@x.service"], "by two links, once");
    let of_a_template =
        [("p.service", SERVICE), ("a@.service", "->p.service"), ("a@.service.d/1.conf", SERVICE)];
    assert_eq!(
        drop_ins("p.service", &of_a_template),
        "",
        "a template is no alias of a unit without an instance"
    );
    let of_a_type = [("p.service", SERVICE), ("service.d/1.conf", SERVICE), ("target.d/2.conf", SERVICE)];
    assert_eq!(drop_ins("p.service", &of_a_type), "/etc/systemd/system/service.d/1.conf");
    assert_eq!(drop_ins("p.slice", &[("slice.d/1.conf", SERVICE)]), "/etc/systemd/system/slice.d/1.conf");
}

#[test]
fn specifiers_in_the_units_file_are_those_of_the_name_that_was_asked_for() {
    let loaded = unit(
        "a.service",
        &[("a.service", "->p.service"), ("p.service", SERVICE), ("p.service.d/1.conf", SERVICE)],
    );
    let names = loaded.assignments.iter().map(|assignment| loaded.name_at(assignment).unwrap().text);
    assert_eq!(names.collect::<Vec<_>>(), ["a.service", "p.service"]);
}

#[test]
fn only_the_first_line_that_is_not_understood_is_reported() {
    let text = "[Service]\nfirst\nsecond\nExecStart=/bin/true\n[broken\nthird\n";
    let (_directory, root) = root(&[("etc/systemd/system/p.service", text)]);
    let names = ["p.service".to_owned()];
    let mut problems = Vec::new();
    let loaded = Index::read(&root, &names, "", &mut problems).load("p.service", &mut problems).unwrap();
    let lines = problems.iter().map(|problem| problem.source.to_string()).collect::<Vec<_>>();
    assert_eq!(lines, ["/etc/systemd/system/p.service:2", "/etc/systemd/system/p.service:5"]);
    assert_eq!(loaded.assignments.len(), 1);
}

#[test]
fn a_masked_instance_has_no_alias() {
    let masked = unit("p@x.service", &[("p@.service", "->/dev/null")]);
    assert_eq!((masked.state, masked.name.as_str()), (State::Masked, "p@x.service"));
    assert_eq!(masked.aliases, [""; 0]);
}

const V2: &str = "24 21 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const V1_MEMORY: &str = "25 21 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

/// The unknown limits and the files of the problems, where PID 1 is in `membership` and sees `mounts`.
fn cgroup(membership: &str, mounts: &str, files: &[(&str, &str)]) -> (Vec<Resource>, Vec<String>) {
    let files = [&[("proc/1/cgroup", membership), ("proc/1/mountinfo", mounts)], files].concat();
    let (_directory, root) = root(&files);
    let mut problems = Vec::new();
    let limits = cgroup::read(&root, &mut problems).limits;
    let unknown = limits.iter().filter_map(|limit| match limit.amount {
        Amount::Unknown(resource) => Some(resource),
        _ => None,
    });
    (unknown.collect(), problems.iter().map(|problem| problem.source.to_string()).collect())
}

#[test]
fn a_controller_that_is_on_has_its_files() {
    let all = [
        ("sys/fs/cgroup/c/cgroup.events", ""),
        ("sys/fs/cgroup/c/cgroup.controllers", "cpu memory\n"),
        ("sys/fs/cgroup/c/memory.max", "max\n"),
        ("sys/fs/cgroup/c/memory.high", "max\n"),
        ("sys/fs/cgroup/c/cpu.max", "max 100000\n"),
    ];
    assert_eq!(cgroup("0::/c/init.scope\n", V2, &all), (vec![], vec![]));
    for (missing, resource) in [(2, Resource::Memory), (3, Resource::Memory), (4, Resource::Cpu)] {
        let mut files = all.to_vec();
        let (path, _) = files.remove(missing);
        let expected = (vec![resource], vec![format!("/{path}")]);
        assert_eq!(cgroup("0::/c/init.scope\n", V2, &files), expected);
    }
    let own = |path: &str| (vec![Resource::Memory, Resource::Cpu], vec![path.to_owned(); 2]);
    assert_eq!(cgroup("0::/c/d/init.scope\n", V2, &all), own("/sys/fs/cgroup/c/d"));
    // In a container, the topmost level that is visible has its files.
    let inside = all.map(|(path, text)| (path.replace("/c/", "/"), text));
    let inside: Vec<_> = inside.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(cgroup("0::/d/init.scope\n", V2, &inside), own("/sys/fs/cgroup/d"));
    let off = [("sys/fs/cgroup/c/cgroup.events", ""), ("sys/fs/cgroup/c/cgroup.controllers", "pids\n")];
    assert_eq!(cgroup("0::/c/init.scope\n", V2, &off), (vec![], vec![]));
}

#[test]
fn the_real_root_lacks_all_files_but_those_of_cpuset() {
    let root = ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n");
    let cpus = ("sys/fs/cgroup/cpuset.cpus.effective", "0-3\n");
    let nodes = ("sys/fs/cgroup/cpuset.mems.effective", "0\n");
    assert_eq!(cgroup("0::/init.scope\n", V2, &[root, cpus, nodes]), (vec![], vec![]));
    let (unknown, files) = cgroup("0::/init.scope\n", V2, &[root, nodes]);
    assert_eq!(
        (unknown, files),
        (vec![Resource::Cpu], vec!["/sys/fs/cgroup/cpuset.cpus.effective".to_owned()])
    );
}

#[test]
fn what_pid_1s_cgroups_of_version_1_leave_open_is_said() {
    let there = [
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 9223372036854771712\n"),
    ];
    let (unknown, files) = cgroup("1:name=systemd:/\n", V1_MEMORY, &there);
    assert_eq!((unknown, files.join(" ")), (vec![Resource::Memory], "/proc/1/cgroup: memory".to_owned()));
    let (_, files) = cgroup("2:memory:/\n3:cpu:/c\n", V1_MEMORY, &there);
    assert!(files.iter().any(|file| file.contains("/sys/fs/cgroup/cpu")), "{files:?}");
    // In a container, the host's version 1 is invisible by design.
    assert_eq!(cgroup("3:cpu:/c\n0::/\n", V2, &[]), (vec![], vec![]));
}

#[test]
fn memory_nodes_that_lack_a_file() {
    const ONLINE: &str = "sys/devices/system/node/online";
    const NODE: &str = "sys/devices/system/node/node0/meminfo";
    let total = |files: &[(&str, &str)]| {
        let (_directory, root) = root(files);
        nodes::total(&root).map_err(|problem: Box<Problem>| problem.source.to_string())
    };
    assert_eq!(total(&[]), Ok(None));
    assert_eq!(total(&[(ONLINE, "0\n"), (NODE, "Node 0 MemTotal: 1024 kB\n")]), Ok(Some(1 << 20)));
    assert_eq!(total(&[(NODE, "Node 0 MemTotal: 1024 kB\n")]), Err(format!("/{ONLINE}")));
    assert_eq!(
        total(&[(ONLINE, "0\n"), (NODE, "Node 0 MemFree: 1 kB\n")]),
        Err(format!("/{NODE}: MemTotal"))
    );
    let directory = format!("{NODE}/x");
    assert_eq!(total(&[(ONLINE, "0\n"), (&directory, "")]), Err(format!("/{NODE}")));

    let (_directory, root) = root(&[
        (ONLINE, "0-2\n"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1024 kB\n"),
        ("sys/devices/system/node/node2/meminfo", "Node 2 MemTotal: 1024 kB\n"),
    ]);
    let granted = nodes::granted(&root, &CpuSet::parse("0,2").unwrap(), &mut Vec::new());
    let Some(Amount::MemoryNodes(granted)) = granted else {
        panic!("{granted:?}");
    };
    assert_eq!((granted.to_string(), granted.bytes()), ("0,2".to_owned(), 2 << 20));
}

#[test]
fn a_processs_own_limits() {
    let limits = |process| {
        let (_directory, root) = root(&[
            ("proc/7/cgroup", "0::/c\n"),
            ("proc/7/status", "Cpus_allowed_list:\t1\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/c/memory.max", "4096\n"),
        ]);
        let limits = process::read(&root, process, &mut Vec::new());
        limits.into_iter().map(|limit| limit.amount).collect::<Vec<_>>()
    };
    assert_eq!(limits(Process::Pid(7)), [Amount::Memory(4096)]);
    let cpus = Amount::Cpus(CpuSet::parse("1").unwrap());
    assert_eq!(limits(Process::OutsideUnits(7)), [Amount::Memory(4096), cpus]);
}

#[test]
fn a_memory_node_without_cpus_restricts_none() {
    let cpus = |mask: &str| {
        let text = format!("{SERVICE}CPUAffinity=numa\nNUMAMask={mask}\n");
        let (_directory, root) = root(&[
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("proc/1/status", "Cpus_allowed_list:\t0-3\n"),
            ("proc/meminfo", "MemTotal: 16389412 kB\n"),
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/cpulist", "0-1\n"),
            ("sys/devices/system/node/node1/cpulist", "\n"),
            ("etc/systemd/system/pypnm.service", &text),
        ]);
        size(&Request::new(&root)).units[0].capacity.whole_cpus()
    };
    assert_eq!((cpus("0"), cpus("1"), cpus("0-1")), (2, 4, 2));
}
