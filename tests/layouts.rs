//! What the library makes of files in unusual places: units behind aliases and templates, cgroups and memory nodes that lack
//! a file. tests/oracle compares the units with systemd at random; here is a case for each rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;

use pypnm_sizing::limits::process::LimitedProcess;
use pypnm_sizing::limits::{Amount, Resource, Scope, cgroup, nodes, process};
use pypnm_sizing::names;
use pypnm_sizing::overrides::{Effect, SingleWorker};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::problem::{Problem, ProblemKind};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::sized::Sizing;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::units::{Index, LoadState, Unit};

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
    assert_eq!((loaded.state, loaded.name.as_str()), (LoadState::Loaded, "p@x.service"));
    let other = unit("a@x.service", &[("a@x.service", "->p@y.service"), ("p@.service", SERVICE)]);
    assert_eq!(other.state, LoadState::NotFound, "an alias of another instance is none");
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
    assert_eq!(loaded.state, LoadState::NotFound, "of b.service, which there is not");
    let outside = "/usr/lib/systemd/system-more/b.service";
    let loaded = unit("a.service", &[("a.service", &format!("->{outside}")), (outside, SERVICE)]);
    assert_eq!(loaded.state, LoadState::Loaded, "it is the unit's own file");
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
    let of_another_instance =
        [("p@.service", SERVICE), ("a@x.service", "->p@.service"), ("a@x.service.d/1.conf", SERVICE)];
    assert_eq!(drop_ins("p@x.service", &of_another_instance), "/etc/systemd/system/a@x.service.d/1.conf");
    assert_eq!(drop_ins("p@y.service", &of_another_instance), "");
    let of_a_prefix =
        [("a-c.service", SERVICE), ("a-b.service", "->a-c.service"), ("a-.service.d/1.conf", SERVICE)];
    assert_eq!(unit("a-c.service", &of_a_prefix).aliases, [""; 0], "it has no drop-ins of its own");
    let no_directory = [("p.service", SERVICE), ("a.service", "->p.service"), ("a.service.d", SERVICE)];
    assert_eq!(unit("p.service", &no_directory).aliases, [""; 0], "a file is no directory of drop-ins");
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
fn slices_need_no_file() {
    assert_eq!(unit("a.slice", &[]).state, LoadState::Loaded);
    assert_eq!(unit("a.slice", &[("a.slice", "->/dev/null")]).state, LoadState::Masked);
    assert_eq!(unit("system.slice", &[("system.slice", "->/dev/null")]).state, LoadState::Loaded);
}

#[test]
fn lib_is_read_unless_it_is_usr_lib() {
    let split = ("/lib/systemd/system/a.service", SERVICE);
    assert_eq!(unit("a.service", &[split]).fragment.as_deref(), Some("/lib/systemd/system/a.service"));
    let merged = [
        ("/usr/lib/systemd/system/a.service.d/1.conf", SERVICE),
        ("/lib", "->usr/lib"),
        ("a.service", SERVICE),
    ];
    assert_eq!(unit("a.service", &merged).drop_ins, ["/usr/lib/systemd/system/a.service.d/1.conf"]);
}

#[test]
fn an_instance_is_no_alias_of_a_plain_unit() {
    let loaded = unit("a@x.service", &[("a@x.service", "->p.service"), ("p.service", SERVICE)]);
    assert_eq!((loaded.state, loaded.name.as_str()), (LoadState::NotFound, "a@x.service"));
}

#[test]
fn an_instance_with_its_own_file_is_not_that_of_an_alias() {
    let files = [("a@.service", "->p@.service"), ("p@.service", SERVICE), ("p@x.service", SERVICE)];
    let loaded = unit("a@x.service", &files);
    assert_eq!((loaded.state, loaded.name.as_str()), (LoadState::Loaded, "a@x.service"));
    assert_eq!(loaded.aliases, ["p@x.service"], "for its drop-ins");
}

/// Slices have no aliases (`unit_type_may_alias()` in systemd), so drop-ins of a link do not apply to its target.
#[test]
fn a_link_to_a_slice_is_no_alias_of_it() {
    let limit = "[Slice]\nMemoryMax=1G\n";
    let files = [("a-b.slice", "[Slice]\n"), ("a-c.slice", "->a-b.slice"), ("a-c.slice.d/10.conf", limit)];
    let slice = unit("a-b.slice", &files);
    assert_eq!((slice.aliases.len(), slice.drop_ins.len()), (0, 0));
    // A masked unit is not started, so its aliases are not looked up.
    let masked = unit(
        "p.service",
        &[("p.service", "->/dev/null"), ("q.service", "->p.service"), ("q.service.d/1.conf", SERVICE)],
    );
    assert_eq!((masked.aliases.len(), masked.drop_ins.len()), (0, 0));
}

#[test]
fn a_masked_instance_has_no_alias() {
    let masked = unit("p@x.service", &[("p@.service", "->/dev/null")]);
    assert_eq!((masked.state, masked.name.as_str()), (LoadState::Masked, "p@x.service"));
    assert_eq!(masked.aliases, [""; 0]);
    let alias = unit("a.service", &[("a.service", "->b.service"), ("b.service", "->/dev/null")]);
    assert_eq!((alias.state, alias.name.as_str()), (LoadState::Masked, "b.service"));
    let loaded = unit("a@x.service", &[("a@.service", "->p@.service"), ("p@.service", "[Service]\n")]);
    assert_eq!((loaded.state, loaded.name.as_str()), (LoadState::Loaded, "p@x.service"));
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
fn unknown_limits_of_pid_1s_cgroups_in_version_1_are_reported() {
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
    assert_eq!(total(&[(ONLINE, "\n")]), Err(format!("/{ONLINE}")));
    assert_eq!(total(&[(ONLINE, "0\n"), (NODE, "Node 0 MemTotal: 1024 kB\n")]), Ok(Some(1 << 20)));
    assert_eq!(total(&[(NODE, "Node 0 MemTotal: 1024 kB\n")]), Err(format!("/{ONLINE}")));
    assert_eq!(
        total(&[(ONLINE, "0\n"), (NODE, "Node 0 MemFree: 1 kB\n")]),
        Err(format!("/{NODE}: MemTotal"))
    );
    let directory = format!("{NODE}/x");
    assert_eq!(total(&[(ONLINE, "0\n"), (&directory, "")]), Err(format!("/{NODE}")));

    let (directory, root) = root(&[
        (ONLINE, "0-2\n"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1024 kB\n"),
        ("sys/devices/system/node/node2/meminfo", "Node 2 MemTotal: 1024 kB\n"),
    ]);
    assert_eq!(nodes::granted(&root, &CpuSet::parse("0-2").unwrap(), &mut Vec::new()), None, "all of them");
    let granted = nodes::granted(&root, &CpuSet::parse("0,2").unwrap(), &mut Vec::new());
    let Some(Amount::MemoryNodes(granted)) = granted else {
        panic!("{granted:?}");
    };
    assert_eq!((granted.to_string(), granted.bytes()), ("0,2".to_owned(), 2 << 20));
    // A node without meminfo, unlike one that does not exist, is reported.
    fs::create_dir(directory.path().join("sys/devices/system/node/node1")).unwrap();
    let mut problems = Vec::new();
    let granted = nodes::granted(&root, &CpuSet::parse("0-1").unwrap(), &mut problems);
    assert_eq!(granted, Some(Amount::Unknown(Resource::Memory)));
    assert_eq!(problems[0].source.to_string(), "/sys/devices/system/node/node1/meminfo: MemTotal");
}

#[test]
fn a_processs_own_limits() {
    let limits = |process| {
        let (_directory, root) = root(&[
            ("proc/7/cgroup", "0::/c\n"),
            ("proc/7/status", "Cpus_allowed_list:\t1\n"),
            ("proc/1/mountinfo", "24 21 0:22 / /elsewhere rw - cgroup2 cgroup2 rw\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/c/memory.max", "4096\n"),
        ]);
        let limits = process::read(&root, process, &mut Vec::new());
        limits.into_iter().map(|limit| limit.amount).collect::<Vec<_>>()
    };
    assert_eq!(limits(LimitedProcess::Pid(7)), [Amount::Memory(4096)]);
    let cpus = Amount::Cpus(CpuSet::parse("1").unwrap());
    assert_eq!(limits(LimitedProcess::OutsideUnits(7)), [Amount::Memory(4096), cpus]);
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

const MOUNTINFO: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];

#[test]
fn of_two_unreadable_mountinfos_the_first_is_reported() {
    let reported = |files: &[(&str, &str)]| {
        let (_directory, root) = root(files);
        root.cgroup_mounts(&MOUNTINFO).1.unwrap()
    };
    let (first, second) = (("proc/1/mountinfo/x", ""), ("proc/self/mountinfo/x", ""));
    assert_eq!(reported(&[first, second]), (MOUNTINFO[0], ReadError::Directory));
    assert_eq!(reported(&[second]), (MOUNTINFO[1], ReadError::Directory));
    assert_eq!(reported(&[]), (MOUNTINFO[0], ReadError::Missing));
}

#[test]
fn mounts_of_cgroups_that_are_not_read_may_limit_everything() {
    let many = "25 21 0:28 / /x rw - cgroup cgroup rw,name=x\n".repeat(40_000);
    let mounts = format!("{many}26 21 0:29 / /cg rw - cgroup cgroup rw,cpu\n");
    let files = [("cg/a/cpu.cfs_quota_us", "100000\n"), ("cg/a/cpu.cfs_period_us", "100000\n")];
    let (resources, problems) = cgroup("3:cpu:/a\n", &mounts, &files);
    assert_eq!((resources, problems), (vec![Resource::Cpu, Resource::Memory], vec![MOUNTINFO[0].to_owned()]));
}

#[test]
fn a_mountinfo_of_any_size_is_read_but_not_an_endless_one() {
    let (directory, root) = root(&[("proc/1/mountinfo", "")]);
    let path = directory.path().join("proc/1/mountinfo");
    let mounts = |root: &Root| match root.cgroup_mounts(&MOUNTINFO) {
        (lines, None) => Ok(String::from_utf8(lines.into()).unwrap()),
        (_, Some(error)) => Err(error),
    };
    // Hundreds of cgroups are mounted in machines with many containers.
    let lines = V2.repeat(2000);
    fs::write(&path, &lines).unwrap();
    assert_eq!(mounts(&root), Ok(lines));
    // A sparse file: lines of a mebibyte, and more than 256 of them.
    let below = || Root::below(directory.path()).unwrap();
    let file = File::create(&path).unwrap();
    for line in 1..=257_u64 {
        file.write_all_at(b"\n", (line << 20) - 1).unwrap();
    }
    assert_eq!(mounts(&below()), Err((MOUNTINFO[0], ReadError::TooManyMounts)));
    file.set_len(256 << 20).unwrap();
    assert_eq!(mounts(&below()), Err((MOUNTINFO[0], ReadError::Incomplete)), "of lines that are none");
    // Nor a single line of more than 4 MiB.
    File::create(&path).unwrap().set_len((4 << 20) + 1).unwrap();
    assert_eq!(mounts(&below()), Err((MOUNTINFO[0], ReadError::TooManyMounts)));
    // Nor are lines dropped without a word.
    fs::write(&path, V2.repeat(40_000)).unwrap();
    assert_eq!(mounts(&below()), Err((MOUNTINFO[0], ReadError::TooManyMounts)));
    let text = format!("25 21 8:1 / /x rw - ext4 /dev/sda1 rw,{}\n{V2}", "x".repeat(2 << 20));
    fs::write(&path, text).unwrap();
    assert_eq!(mounts(&below()), Ok(V2.to_owned()), "the lines after a long one count");
    // Without a last line feed it may have been cut off, and is complete only if it has the mounts of cgroups.
    fs::write(&path, V2.trim_end()).unwrap();
    assert_eq!(mounts(&below()), Ok(V2.to_owned()));
    fs::write(&path, "25 21 8:1 / /x rw - ext4 /dev/sda1 rw").unwrap();
    assert_eq!(mounts(&below()), Err((MOUNTINFO[0], ReadError::Incomplete)));
}

/// Aliases lead to the same service: by a symbolic link, also of a template, in whichever order they are listed.
#[test]
fn a_unit_is_the_same_by_every_name() {
    let (directory, root) =
        root(&[("etc/systemd/system/api.service", SERVE), ("etc/systemd/system/api@.service", SERVE)]);
    let link = |target: &str, name: &str| {
        symlink(target, directory.path().join("etc/systemd/system").join(name)).unwrap();
    };
    link("api.service", "pypnm.service");
    link("pypnm.service", "docsis.service");
    link("api@.service", "pypnm@.service");
    let listed = |listed: &[&str], asked: &str| {
        let listed: Vec<String> = listed.iter().map(|&name| name.to_owned()).collect();
        Index::listed_name(&root, &listed, asked)
    };
    for (names, asked, name) in [
        (&["pypnm.service"][..], "api.service", Some("pypnm.service")),
        (&["api.service"], "docsis.service", Some("api.service")),
        (&["other.service", "docsis.service"], "pypnm.service", Some("docsis.service")),
        (&["docsis.service", "api.service"], "api.service", Some("docsis.service")),
        (&["pypnm@.service"], "api@1.service", Some("pypnm@1.service")),
        (&["api.service"], "api.service", None),
        (&["api.service"], "other.service", None),
        (&["other.service"], "missing.service", None),
    ] {
        assert_eq!(listed(names, asked).as_deref(), name, "{asked} of {names:?}");
    }
    // It is sized once, and has the machine for itself.
    let conf = directory.path().join(CONF);
    fs::create_dir_all(conf.parent().unwrap()).unwrap();
    fs::write(conf, "[Sizing]\nUnits=docsis.service api.service pypnm.service\n").unwrap();
    let sizing = size(&Request::new(&root));
    let names: Vec<&str> = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(
        (names, sizing.names.as_slice()),
        (vec!["docsis.service"], ["docsis.service".to_owned()].as_slice())
    );
    assert!(sizing.units[0].limits.iter().all(|limit| limit.shared_by == 1));
    let repeated = |problem: &&Problem| matches!(problem.kind, ProblemKind::Repeated { .. });
    assert_eq!(sizing.problems.iter().filter(repeated).count(), 2);
}

/// The sizing of a machine with 8 CPUs and 62.8 GiB, enough for four workers, where these files are added.
fn sized(files: &[(&str, &str)]) -> Sizing {
    let machine = [
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("proc/1/status", "Cpus_allowed_list:\t0-7\n"),
        ("proc/meminfo", "MemTotal: 65852000 kB\n"),
    ];
    let files: Vec<_> = machine
        .iter()
        .filter(|(path, _)| files.iter().all(|(other, _)| other != path))
        .chain(files)
        .copied()
        .collect();
    let (_directory, root) = root(&files);
    size(&Request::new(&root))
}

const UNIT: &str = "etc/systemd/system/pypnm.service";
const DROP_IN: &str = "etc/systemd/system/pypnm.service.d/50.conf";
const CONF: &str = "etc/pypnm/sizing.conf";
const SERVE: &str = "[Service]\nExecStart=/bin/pypnm serve\n";
const UVICORN: &str = "[Service]\nExecStart=uvicorn a:b\n";

/// The overrides, without the directories of their files.
fn overrides(files: &[(&str, &str)]) -> Vec<String> {
    let list = &sized(files).units[0].overrides.list;
    let text = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    list.iter().map(|o| text(&o.to_string())).collect()
}

/// The problems, as they are logged.
fn problems(files: &[(&str, &str)]) -> Vec<String> {
    sized(files).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn only_fifty_problems_of_a_kind_are_reported() {
    let names: Vec<_> = (0..60).map(|number| format!("{CONF}.d/\u{1b}{number}.conf")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(problems(&files).iter().filter(|text| text.contains("control character")).count(), 50);
    let faults = format!("{SERVE}{}", "MemoryMax=x\n".repeat(60));
    assert_eq!(problems(&[(UNIT, &faults)]).iter().filter(|text| text.contains("MemoryMax")).count(), 50);
}

#[test]
fn the_managers_environment_is_that_of_its_own_section_and_of_pid_1() {
    let conf = "etc/systemd/system.conf";
    let set = "DefaultEnvironment=PYPNM_SERVE_WORKERS=3\n";
    let in_effect = ["system.conf:2: DefaultEnvironment: PYPNM_SERVE_WORKERS=3 is in effect"];
    assert_eq!(overrides(&[(UNIT, SERVE), (conf, &format!("[Manager]\n{set}"))]), in_effect);
    assert_eq!(overrides(&[(UNIT, SERVE), (conf, &format!("[Other]\n{set}"))]), [""; 0]);
    assert_eq!(overrides(&[(UNIT, SERVE), (conf, &format!("[Manager]\n[Other]\n{set}"))]), [""; 0]);
    let after_a_fault = format!("[Manager]\njunk\n{set}");
    assert_eq!(
        overrides(&[(UNIT, SERVE), (conf, &after_a_fault)]),
        ["system.conf:3: DefaultEnvironment: PYPNM_SERVE_WORKERS=3 is in effect"]
    );
    let passes = format!("{UVICORN}PassEnvironment=PYPNM_SERVE_WORKERS WEB_CONCURRENCY\n");
    assert_eq!(overrides(&[(UNIT, &passes)]), [""; 0], "there is no PID 1 in an image");
    let environ = ("proc/1/environ", "A=1\0PYPNM_SERVE_WORKERS=3\0");
    assert_eq!(
        overrides(&[(UNIT, &passes), environ]),
        ["pypnm.service:3: PassEnvironment: PYPNM_SERVE_WORKERS=3 is in effect"]
    );
    let drop_in = "[Service]\nEnvironment=\nPassEnvironment=PYPNM_SERVE_WORKERS\n";
    let unreadable = overrides(&[(UNIT, SERVE), (DROP_IN, drop_in), ("proc/1/environ/x", "")]);
    let taken = "50.conf:3: PassEnvironment: PYPNM_SERVE_WORKERS is taken from PID 1's environment";
    assert!(unreadable.iter().any(|text| text == taken), "{unreadable:?}");
}

#[test]
fn what_resets_the_environment_removes_the_variables_of_the_drop_in() {
    let removed: Vec<_> =
        names::VARIABLES.iter().map(|key| format!("50.conf:2: Environment: {key} is removed")).collect();
    let reset = "[Service]\nEnvironment=\n";
    assert_eq!(overrides(&[(UNIT, SERVE), (DROP_IN, reset)]), removed, "and not WEB_CONCURRENCY");
    let files = [(UNIT, UVICORN), (DROP_IN, "[Service]\nEnvironment=\nEnvironment=WEB_CONCURRENCY=3\n")];
    let set = "50.conf:3: Environment: WEB_CONCURRENCY=3 is in effect".to_owned();
    assert_eq!(overrides(&files), [removed, vec![set]].concat());
    let own_file =
        "[Service]\nExecStart=/usr/bin/env PYPNM_SERVE_ENV_FILE=/run/pypnm-sizing/%n.env pypnm serve\n";
    let listed = overrides(&[(UNIT, own_file), (DROP_IN, reset)]);
    assert!(listed.len() > 1 && !listed.iter().any(|text| text.contains("ENV_FILE")), "{listed:?}");
    let unset = format!("{SERVE}UnsetEnvironment=PYPNM_SERVE_ENV_FILE\n");
    assert_eq!(
        overrides(&[(UNIT, &unset)]),
        ["pypnm.service:3: UnsetEnvironment: PYPNM_SERVE_ENV_FILE is removed"]
    );
    let env = "[Service]\nExecStart=/usr/bin/env -u UVICORN_WORKERS uvicorn a:b\n";
    let set = "[Service]\nEnvironment=UVICORN_WORKERS=2\n";
    assert_eq!(
        overrides(&[(UNIT, env), (DROP_IN, set)]),
        ["pypnm.service:2: ExecStart: UVICORN_WORKERS is removed"]
    );
}

#[test]
fn sizing_conf_takes_precedence_for_what_it_sets_and_nothing_else() {
    let unit = format!("{UVICORN}Environment=UVICORN_LIMIT_MAX_REQUESTS=9 WEB_CONCURRENCY=3\n");
    let limit = (CONF, "[Sizing]\nLimitMaxRequests=7\n");
    let ineffective = "pypnm.service:3: Environment: UVICORN_LIMIT_MAX_REQUESTS=9 has no effect: /etc/pypnm/sizing.conf:2: LimitMaxRequests takes precedence";
    let list = |conf| {
        sized(&[(UNIT, &unit), conf]).units[0]
            .overrides
            .list
            .iter()
            .map(|o| o.to_string().replace("/etc/systemd/system/", ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(list(limit), ["pypnm.service:3: Environment: WEB_CONCURRENCY=3 is in effect", ineffective]);
    let workers = list((CONF, "[Sizing]\nWorkers=2\n"));
    assert!(
        workers[1]
            .ends_with("WEB_CONCURRENCY=3 has no effect: /etc/pypnm/sizing.conf:2: Workers takes precedence"),
        "{workers:?}"
    );
}

#[test]
fn environment_files_outside_etc_are_not_read_by_a_generator() {
    let unit = format!("{SERVE}EnvironmentFile=/srv/env\n");
    let files = [(UNIT, unit.as_str()), ("srv/env", "PYPNM_SERVE_WORKERS=3\n")];
    assert_eq!(overrides(&files), ["env:1: PYPNM_SERVE_WORKERS: PYPNM_SERVE_WORKERS=3 is in effect"]);
    let (_directory, root) = root(&files);
    let root = root.for_a_generator();
    let list = &size(&Request::new(&root)).units[0].overrides.list;
    assert!(
        list[0].to_string().ends_with("EnvironmentFile: /srv/env was not read and may set anything"),
        "{list:?}"
    );
}

/// The memory limits of the service, in MiB, and the problems.
fn memory(settings: &str) -> (Vec<u64>, Vec<String>) {
    let sizing = sized(&[(UNIT, &format!("{SERVE}{settings}"))]);
    let limits = sizing.units[0].limits.iter().filter(|limit| limit.scope == Scope::Service);
    let limits = limits.filter_map(|limit| match limit.amount {
        Amount::Memory(bytes) => Some(bytes >> 20),
        _ => None,
    });
    (limits.collect(), sizing.problems.iter().map(ToString::to_string).collect())
}

/// As in systemd.resource-control(5) before 256, which removes `MemoryLimit=`.
#[test]
fn memory_limit_is_ignored_beside_newer_settings() {
    assert_eq!(memory("MemoryLimit=100M\n"), (vec![100], vec![]));
    assert_eq!(memory("MemoryLimit=100M\nMemoryMax=200M\n"), (vec![200], vec![]));
    assert_eq!(memory("MemoryLimit=100M\nMemoryHigh=200M\n"), (vec![200], vec![]));
    for other in ["MemoryMin=1M\n", "MemoryLow=1M\n", "MemorySwapMax=1M\n", "MemorySwapMax=0\n"] {
        assert_eq!(memory(&format!("MemoryLimit=100M\n{other}")), (vec![], vec![]), "{other}");
    }
    for none in ["MemoryMin=0\n", "MemoryLow=1M\nMemoryLow=0\n", "MemorySwapMax=0\nMemorySwapMax=infinity\n"]
    {
        assert_eq!(memory(&format!("MemoryLimit=100M\n{none}")), (vec![100], vec![]), "{none}");
    }
    let (limits, problems) = memory("MemoryLimit=100M\nMemoryMax=0\n");
    assert_eq!((limits, problems.len()), (vec![100], 1), "{problems:?}");
}

#[test]
fn a_share_of_unknown_memory_is_unknown() {
    let unknown = |setting: &str| {
        let unit = format!("{SERVE}{setting}\n");
        let sizing = sized(&[(UNIT, &unit), ("proc/meminfo", "MemFree: 1 kB\n")]);
        let limits = sizing.units[0].limits.iter().filter(|limit| limit.scope == Scope::Service);
        limits.map(|limit| limit.amount.clone()).collect::<Vec<_>>()
    };
    assert_eq!(unknown("MemoryMax=50%"), [Amount::Unknown(Resource::Memory)]);
    assert_eq!(unknown("MemoryMax=1M"), [Amount::Memory(1 << 20)]);
}

#[test]
fn an_empty_numa_policy_resets_it() {
    let nodes = |settings: &str| {
        let unit = format!("{SERVE}NUMAMask=0\n{settings}");
        let sizing = sized(&[
            (UNIT, &unit),
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: 1048576 kB\n"),
            ("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 1048576 kB\n"),
        ]);
        sizing.units[0].capacity.memory.amount >> 30
    };
    assert_eq!(nodes("NUMAPolicy=bind\n"), 1);
    assert_eq!(nodes("NUMAPolicy=bind\nNUMAPolicy=\n"), 62);
    assert_eq!(nodes("NUMAPolicy=bind\nNUMAPolicy=preferred\n"), 62);
    assert_eq!(nodes("NUMAPolicy=bind\nNUMAPolicy=nodes\n"), 1, "an invalid one is ignored");
}

#[test]
fn of_two_restrictions_to_memory_nodes_what_they_share_counts() {
    let files = [0, 1, 2].map(|node| format!("sys/devices/system/node/node{node}/meminfo"));
    let mut all: Vec<_> = files.iter().map(|file| (file.as_str(), "Node 0 MemTotal: 1048576 kB\n")).collect();
    all.push(("sys/devices/system/node/online", "0-2\n"));
    let unit = format!("{SERVE}AllowedMemoryNodes=0-1\nNUMAPolicy=bind\nNUMAMask=1-2\n");
    all.push((UNIT, &unit));
    assert_eq!(sized(&all).units[0].capacity.memory.amount >> 30, 1);
}

/// What is unknown of the service's limits on a machine with these memory nodes, and the problems.
fn unknown_of_service(unit: &str, nodes: &str) -> (Vec<Resource>, Vec<String>) {
    let sizing = sized(&[(UNIT, unit), ("sys/devices/system/node/online", nodes)]);
    let limits = sizing.units[0].limits.iter().filter(|limit| limit.scope == Scope::Service);
    let unknown = limits.filter_map(|limit| match limit.amount {
        Amount::Unknown(resource) => Some(resource),
        _ => None,
    });
    (unknown.collect(), sizing.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn nodes_that_numactl_calculates_are_unknown_if_there_are_several() {
    const COMMAND: &str = "[Service]\nExecStart=numactl --membind=+0 /bin/pypnm serve\n";
    assert_eq!(unknown_of_service(COMMAND, "0\n"), (vec![], vec![]));
    let (unknown, problems) = unknown_of_service(COMMAND, "0-1\n");
    assert_eq!((unknown, problems.len()), (vec![Resource::Memory], 1));
    assert!(problems[0].contains("'+0'"), "{problems:?}");
}

/// A specifier whose value is unknown here leaves only what its setting restricts unknown.
#[test]
fn lists_of_cpus_and_nodes_with_the_name_of_the_host() {
    for (setting, expected) in [
        ("AllowedCPUs=%H\n", vec![Resource::Cpu]),
        ("AllowedMemoryNodes=%H\n", vec![Resource::Memory]),
        ("NUMAPolicy=bind\nNUMAMask=%H\n", vec![Resource::Cpu, Resource::Memory]),
    ] {
        let (unknown, problems) = unknown_of_service(&format!("{SERVE}{setting}"), "0-1\n");
        assert_eq!((unknown, problems.len()), (expected, 1), "{setting}: {problems:?}");
    }
}

#[test]
fn an_empty_list_of_pid_1s_cpus_is_reported() {
    let empty = problems(&[("proc/1/status", "Cpus_allowed_list:\t\n")]);
    assert!(empty.iter().any(|text| text.starts_with("/proc/1/status: Cpus_allowed_list: ")), "{empty:?}");
    let none = problems(&[("proc/meminfo", "MemTotal: 0 kB\n")]);
    assert!(none.iter().any(|text| text.starts_with("/proc/meminfo: MemTotal: ")), "{none:?}");
}

/// lxcfs shows the huge pages of the machine, so the memory of its nodes is needed where there are some.
#[test]
fn the_memory_of_nodes_behind_lxcfs_is_read_for_huge_pages_only() {
    let lxcfs = ("proc/1/mountinfo", "50 23 0:60 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw\n");
    let with = |pages: &str| {
        let meminfo = format!("MemTotal: 65852000 kB\nHugetlb: {pages} kB\n");
        problems(&[("proc/meminfo", &meminfo), lxcfs, ("sys/devices/system/node/node0/x", "")])
    };
    assert_eq!(with("0"), [""; 0]);
    assert!(with("2048").iter().any(|text| text.starts_with("/sys/devices/system/node/online: ")));
}

#[test]
fn reserving_everything_is_reported() {
    let conf = |text: &str| problems(&[(UNIT, SERVE), (CONF, &format!("[Sizing]\n{text}"))]);
    assert_eq!(conf("ReserveCPUs=7.999\n"), [""; 0]);
    assert!(conf("ReserveCPUs=8\n")[0].contains("ReserveCPUs"));
    assert_eq!(conf("ReserveMemory=65851999K\n"), [""; 0]);
    assert!(conf("ReserveMemory=65852000K\n")[0].contains("ReserveMemory"));
    // The units share the machine, and what is reserved.
    let shared = |text: &str| conf(&format!("Units=pypnm.service b.service\n{text}"));
    assert_eq!(shared("ReserveCPUs=7.9\n"), [""; 0]);
    assert!(shared("ReserveCPUs=8\n")[0].contains("ReserveCPUs"));
    let unknown =
        problems(&[(UNIT, SERVE), (CONF, "[Sizing]\nReserveMemory=1G\nWorkers=2\n"), ("proc/meminfo", "")]);
    assert_eq!(
        unknown.len(),
        1,
        "only the unknown memory is reported, not what follows from it: {unknown:?}"
    );
}

/// Version 1 reports limits of levels that are not visible in memory.stat.
#[test]
fn the_hierarchical_limit_of_version_1() {
    let read = |limit: &str, stat: Option<&str>| {
        let mut files = vec![
            ("proc/1/cgroup", "2:memory:/\n"),
            ("proc/1/mountinfo", V1_MEMORY),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
        ];
        files.extend(stat.map(|stat| ("sys/fs/cgroup/memory/memory.stat", stat)));
        let (_directory, root) = root(&files);
        let mut problems = Vec::new();
        let limits = cgroup::read(&root, &mut problems).limits;
        (
            limits
                .iter()
                .map(|limit| limit.source.to_string().rsplit('/').next().unwrap().to_owned())
                .collect::<Vec<_>>(),
            problems.len(),
        )
    };
    let own = "memory.limit_in_bytes".to_owned();
    let outer = "memory.stat: hierarchical_memory_limit".to_owned();
    assert_eq!(read("8192\n", Some("hierarchical_memory_limit 8192\n")), (vec![own.clone()], 0));
    assert_eq!(read("8192\n", Some("hierarchical_memory_limit 4096\n")), (vec![own.clone(), outer], 0));
    assert_eq!(read("8192\n", None), (vec![own], 1), "both are always present");
    let neither = [("sys/fs/cgroup/memory/x", "")];
    assert_eq!(cgroup("2:memory:/\n", V1_MEMORY, &neither), (vec![], vec![]), "or neither");
    let elsewhere = "24 21 0:22 /d /mnt/cg rw - cgroup2 cgroup2 rw\n";
    assert_eq!(cgroup("0::/c\n", elsewhere, &[]), (vec![], vec!["/mnt/cg".to_owned()]));
    // Above the root of a cgroup namespace, which explains why its limits are not visible.
    assert_eq!(cgroup("2:memory:/../c\n", V1_MEMORY, &neither), (vec![], vec![]));
    assert_eq!(cgroup("2:memory:/\n", &V1_MEMORY.replace(" / ", " /.. "), &neither), (vec![], vec![]));
    let outside = V1_MEMORY.replace(" / ", " /d ");
    assert_eq!(
        cgroup("2:memory:/c\n", &outside, &neither),
        (vec![], vec!["/sys/fs/cgroup/memory".to_owned()])
    );
}

#[test]
fn a_period_of_version_1_without_its_quota_is_reported() {
    let mounts = V1_MEMORY.replace("memory", "cpu");
    let period = [("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")];
    assert_eq!(
        cgroup("3:cpu:/\n", &mounts, &period),
        (vec![Resource::Cpu], vec!["/sys/fs/cgroup/cpu/cpu.cfs_quota_us".to_owned()])
    );
}

/// In version 1, every cgroup has the files of its cpuset.
#[test]
fn a_cpuset_of_version_1_without_files_is_reported() {
    let mounts = "25 21 0:23 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
    let read = |membership: &str, files: &[(&str, &str)]| cgroup(membership, mounts, files);
    let outer = ("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0-3\n");
    let own = ("sys/fs/cgroup/cpuset/c/x", "");
    assert_eq!(
        read("2:cpuset:/c\n", &[outer, own]),
        (vec![Resource::Cpu], vec!["/sys/fs/cgroup/cpuset/c/cpuset.cpus".to_owned()])
    );
    assert_eq!(
        read("2:cpuset:/c\n", &[outer]),
        (vec![], vec!["/sys/fs/cgroup/cpuset/c".to_owned()]),
        "it is not visible"
    );
    let own = ("sys/fs/cgroup/cpuset/c/cpuset.effective_cpus", "0-3\n");
    assert_eq!(read("2:cpuset:/c\n", &[own, ("sys/fs/cgroup/cpuset/x", "")]), (vec![], vec![]));
}

/// Where the hypervisor's kernel hides PID 1, or `hidepid=` does, each controller has a hierarchy of its own nevertheless.
#[test]
fn version_1_without_a_visible_pid_1() {
    let mounts = format!("{V1_MEMORY}26 21 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
    let (_directory, root) = root(&[
        ("proc/self/mountinfo", &mounts),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    let limits = cgroup::read(&root, &mut Vec::new()).limits;
    assert_eq!(limits.iter().map(|limit| &limit.amount).collect::<Vec<_>>(), [&Amount::CpuTime(500)]);
}

#[test]
fn limits_that_a_process_shares_with_pid_1_count_once() {
    let of_process = |membership: &str| {
        let (_directory, root) = root(&[
            ("proc/1/cgroup", "0::/c/init.scope\n"),
            ("proc/1/mountinfo", V2),
            ("proc/self/mountinfo", V2),
            ("proc/7/cgroup", membership),
            ("proc/meminfo", "MemTotal: 65852000 kB\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("sys/fs/cgroup/c/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/c/cpu.max/x", ""),
            ("sys/fs/cgroup/d/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/d/cpu.max/x", ""),
            (UNIT, SERVE),
        ]);
        let sizing = size(&Request { process: Some(LimitedProcess::Pid(7)), ..Request::new(&root) });
        let sources = sizing.units[0].limits.iter().map(|limit| limit.source.to_string());
        let sources = sources.filter(|source| source.ends_with("memory.max")).collect::<Vec<_>>();
        let problems =
            sizing.problems.iter().filter(|problem| problem.source.to_string().ends_with("cpu.max"));
        (sources.join(" "), problems.count())
    };
    assert_eq!(of_process("0::/c\n"), ("/sys/fs/cgroup/c/memory.max".to_owned(), 1));
    let both = "/sys/fs/cgroup/c/memory.max /sys/fs/cgroup/d/memory.max".to_owned();
    assert_eq!(of_process("0::/d\n"), (both, 2));
}

#[test]
fn a_process_that_is_the_service_shares_with_configured_units_only() {
    let names = |conf: &str, process| {
        let (_directory, root) = root(&[(CONF, conf), ("proc/7/cgroup", "0::/\n")]);
        let request = Request { process, extra_unit: Some("b.service"), ..Request::new(&root) };
        size(&request).units.iter().map(|unit| unit.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let process = Some(LimitedProcess::Pid(7));
    assert_eq!(names("[Sizing]\n", process), "b.service");
    assert_eq!(names("[Sizing]\nUnits=a.service\n", process), "a.service b.service");
    assert_eq!(names("[Sizing]\n", None), "pypnm.service b.service");
}

#[test]
fn as_many_workers_as_fit_when_idle_are_not_excessive() {
    // Each takes 170 MiB.
    let with = |workers: u32| {
        let conf = format!("[Sizing]\nWorkers={workers}\n");
        problems(&[(UNIT, SERVE), (CONF, &conf), ("proc/meminfo", "MemTotal: 696320 kB\n")])
    };
    assert_eq!(with(4), [""; 0]);
    assert_eq!(with(5).len(), 1);
}

#[test]
fn a_little_memory_that_is_offline_is_not_reported() {
    let reported = |blocks: u32| {
        let mut files = vec![("sys/devices/system/memory/block_size_bytes".to_owned(), "8000000\n")];
        files.extend((0..blocks).map(|block| {
            (
                format!("sys/devices/system/memory/memory{block}/state"),
                if block < 128 { "online\n" } else { "offline\n" },
            )
        }));
        let mut files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        // 16 GiB
        files.extend([
            ("proc/meminfo", "MemTotal: 16777216 kB\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
        ]);
        let (_directory, root) = root(&files);
        // Only some file systems, and sysfs, count the links to a directory.
        let counts = root.link_count("/sys/devices/system/memory") == Some(u64::from(blocks) + 2);
        let problems = size(&Request::new(&root)).problems;
        counts.then(|| {
            problems.iter().any(|problem| problem.source.to_string() == "/sys/devices/system/memory")
        })
    };
    // An eighth and 1 GiB, where the directory's own two links count as blocks.
    assert!(reported(128 + 16 + 6).is_none_or(|reported| !reported));
    assert!(reported(128 + 16 + 7).is_none_or(|reported| reported));
}

/// An empty list means that of the parent.
#[test]
fn an_empty_cpuset_is_that_of_its_parent() {
    let (_directory, root) = root(&[
        ("proc/1/cgroup", "0::/c/init.scope\n"),
        ("proc/1/mountinfo", V2),
        ("sys/fs/cgroup/cpuset.cpus.effective", "0-3\n"),
        ("sys/fs/cgroup/c/cpuset.cpus.effective", "\n"),
    ]);
    let limits = cgroup::read(&root, &mut Vec::new()).limits;
    let cpus = Amount::Cpus(CpuSet::parse("0-3").unwrap());
    assert_eq!(limits.iter().map(|limit| &limit.amount).collect::<Vec<_>>(), [&cpus]);
}

/// Files in /run may be created later during the boot.
#[test]
fn a_missing_environment_file_may_appear_below_run() {
    let of = |path: &str, early: bool| {
        let unit = format!("{SERVE}EnvironmentFile=-{path}\n");
        let (_directory, root) = root(&[(UNIT, &unit)]);
        let root = if early { root.for_a_generator() } else { root };
        let overrides = &size(&Request::new(&root)).units[0].overrides;
        let list: Vec<_> = overrides.list.iter().map(|o| o.effect.clone()).collect();
        (list, overrides.single_worker(4, 2000))
    };
    let not_read = vec![Effect::NotRead { path: "/run/env".into() }];
    assert_eq!(of("/run/env", true), (not_read, Some(SingleWorker::Possible)));
    assert_eq!(of("/run/env", false), (vec![], Some(SingleWorker::Possible)));
    assert_eq!((of("/etc/env", true), of("/etc/env", false)), ((vec![], None), (vec![], None)));
}

/// uvicorn reads such a file after its own variables, so `UVICORN_WORKERS` of the drop-in would hide `WEB_CONCURRENCY` in it.
#[test]
fn the_file_that_uvicorn_reads_itself_counts() {
    let sized = |command: &str, more: &[(&str, &str)]| {
        let unit = format!("[Service]\nExecStart={command}\n");
        let files = [&[(UNIT, unit.as_str())], more].concat();
        let sizing = sized(&files);
        let overrides = &sizing.units[0].overrides;
        let list: Vec<String> = overrides.list.iter().map(ToString::to_string).collect();
        (
            overrides.is_left_out(names::UVICORN_WORKERS),
            overrides.uvicorn_workers(4).value,
            list.join("; "),
            sizing.problems.len(),
        )
    };
    let text = "A=1\nexport WEB_CONCURRENCY = '3' # as measured\n";
    let file = [("etc/app.env", text)];
    let in_file = "/etc/app.env:2: WEB_CONCURRENCY: WEB_CONCURRENCY=3 is in effect".to_owned();
    for command in
        ["uvicorn --env-file /etc/app.env a:b", "/v/bin/python -m uvicorn a:b --env-file=/etc/app.env"]
    {
        assert_eq!(sized(command, &file), (true, 3, in_file.clone(), 0), "{command}");
    }
    let variable = (DROP_IN, "[Service]\nEnvironment=UVICORN_ENV_FILE=/etc/app.env\n");
    assert_eq!(sized("uvicorn a:b", &[file[0], variable]), (true, 3, in_file, 0));
    // It does not override what is set, and PyPNM does not read it.
    let set = (DROP_IN, "[Service]\nEnvironment=WEB_CONCURRENCY=2\n");
    assert_eq!(sized("uvicorn a:b --env-file /etc/app.env", &[file[0], set]).1, 2);
    let (left_out, workers, ..) = sized("pypnm serve --env-file /etc/app.env", &file);
    assert_eq!((left_out, workers), (false, 4));
    // It sets something else, or is missing.
    for more in [&[("etc/app.env", "A=1\n")][..], &[]] {
        assert_eq!(sized("uvicorn a:b --env-file /etc/app.env", more), (false, 4, String::new(), 0));
    }
    // uvicorn does not start with such a value.
    let bad = [("etc/app.env", "WEB_CONCURRENCY=auto\n")];
    assert_eq!(sized("uvicorn a:b --env-file /etc/app.env", &bad).3, 1);
    // A generator cannot read these.
    for path in [".env", "/srv/app.env", "/run/app.env", "/etc/../srv/app.env"] {
        let (left_out, workers, list, problems) = sized(&format!("uvicorn a:b --env-file {path}"), &[]);
        assert_eq!((left_out, workers, problems), (true, 1, 1), "{path}");
        assert!(list.ends_with(&format!("{path} was not read and may set anything")), "{list}");
        let conf = [(CONF, "[Sizing]\nWorkers=3\n")];
        assert!(!sized(&format!("uvicorn a:b --env-file {path}"), &conf).0, "{path}");
    }
    // The helper can read some of them.
    let (left_out, workers, ..) = sized("uvicorn a:b --env-file /srv/app.env", &[("srv/app.env", text)]);
    assert_eq!((left_out, workers), (true, 3));
}
