//! Damages every file that the generator reads in every way.
//!
//! The machine is created in code, because git does not store FIFOs, empty directories or 100 MB. Each file has a loose
//! content, and a tight one that by itself determines the profile. With the tight content in place and then damaged,
//! the generator must finish in time and without a signal, leave a complete drop-in or none, never start more workers
//! than with the intact file, and name the file if the result is more conservative. strace lists the files that the
//! generator opens, so that none is forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};

/// The maximum CPU time with damaged files, in seconds; the kernel kills a run that takes longer.
const CPU_SECONDS: &str = "2";
/// The maximum time in total, which allows for a busy machine.
const IN_TIME: Duration = Duration::from_secs(30);

/// What a file means to the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Essential: without it, the resources are unknown, so any damage means no more workers than with it.
    Needed,
    /// An optional limit: if missing, there is none; if damaged, it is assumed to be minimal.
    Limit,
    /// As `Limit`, but an empty file means the same as a missing one.
    MayBeEmpty,
    /// As `Limit`, but without the relevant line, the file means the same as a missing one.
    MayLackIt,
    /// The operator's setting: if damaged, it is reported and skipped.
    Operator,
    /// As `Operator`, but anything that is not a file is not a unit either: systemd skips it.
    UnitFile,
    /// It does not affect sizing.
    Aside,
}

/// A file of a machine.
struct Entry {
    path: &'static str,
    kind: Kind,
    /// The content if another file decides.
    loose: String,
    /// The content if this file decides, and other files that must have a different content in that case.
    tight: Vec<(&'static str, String)>,
}

fn entry(kind: Kind, path: &'static str, loose: impl Into<String>, tight: impl Into<String>) -> Entry {
    Entry { path, kind, loose: loose.into(), tight: vec![(path, tight.into())] }
}

const GIB: u64 = 1 << 30;

fn meminfo(kb: u64) -> String {
    format!("MemTotal:       {kb} kB\nMemFree:        1000 kB\nHugetlb:               0 kB\n")
}

/// The files that both machines have.
fn everywhere() -> Vec<Entry> {
    use Kind::{Aside, MayLackIt, Needed, Operator, UnitFile};
    const PYPNM: &str = "[Service]\nEnvironmentFile=/etc/pypnm/pypnm.env\nExecStart=pypnm serve $OPTIONS\n";
    let status =
        |cpus: &str| format!("Name:\tsystemd\nPid:\t1\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n");
    let conf = |n: u32| format!("[Sizing]\nMaxWorkers={n}\n");
    let unit = format!("{PYPNM}MemoryMax=7G\n");
    vec![
        entry(Needed, "/sys/devices/system/cpu/online", "0-7\n", "0-1\n"),
        entry(MayLackIt, "/proc/1/status", status("0-7"), status("2-3")),
        entry(Needed, "/proc/meminfo", meminfo(65_852_000), meminfo(8_139_200)),
        entry(Aside, "/proc/cmdline", "ro quiet\n", "ro quiet pypnm.sizing=yes\n"),
        entry(Operator, "/etc/pypnm/sizing.conf", conf(8), conf(2)),
        entry(Operator, "/etc/pypnm/sizing.conf.d/50.conf", "[Sizing]\nReserveCPUs=0\n", conf(2)),
        entry(UnitFile, "/etc/systemd/system/pypnm.service", PYPNM, unit),
        entry(
            Operator,
            "/etc/systemd/system/pypnm.service.d/50.conf",
            "[Service]\nMemoryHigh=infinity\n",
            "[Service]\nMemoryMax=7G\n",
        ),
        entry(
            Operator,
            "/etc/systemd/system/system.slice.d/50.conf",
            "[Slice]\nCPUQuota=\n",
            "[Slice]\nCPUQuota=200%\n",
        ),
        entry(Aside, "/etc/pypnm/pypnm.env", "OPTIONS=\n", "OPTIONS=--workers 3\n"),
    ]
}

const NODES_ONLINE: &str = "/sys/devices/system/node/online";
const NODE_0: &str = "/sys/devices/system/node/node0/meminfo";

/// The smaller of two memory nodes.
fn node_0() -> String {
    "Node 0 MemTotal:       8139200 kB\nNode 0 MemFree:        1000 kB\n".into()
}

/// A container with cgroup version 2 and without a cgroup namespace: PID 1 is two levels below the root.
fn version_2() -> Vec<Entry> {
    use Kind::{Limit, MayBeEmpty, Needed};
    const CGROUP: &str = "0::/lxc/ct1/init.scope\n";
    const MOUNTINFO: &str = "28 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\n\
        31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const INNERMOST: &str = "/sys/fs/cgroup/lxc/ct1/memory.max";
    const MEMS: &str = "/sys/fs/cgroup/lxc/ct1/cpuset.mems.effective";
    let (max, tight) = ("max\n", format!("{}\n", 7 * GIB));
    let (no_quota, quota) = ("max 100000\n", "200000 100000\n");
    let mut entries = everywhere();
    entries.extend([
        entry(Limit, "/sys/fs/cgroup/memory.max", max, &*tight),
        entry(Limit, "/sys/fs/cgroup/memory.high", max, &*tight),
        entry(Limit, "/sys/fs/cgroup/cpu.max", no_quota, quota),
        entry(Limit, "/sys/fs/cgroup/lxc/memory.max", max, &*tight),
        entry(Limit, "/sys/fs/cgroup/lxc/memory.high", max, &*tight),
        entry(Limit, "/sys/fs/cgroup/lxc/cpu.max", no_quota, quota),
        entry(Limit, INNERMOST, max, &*tight),
        entry(Limit, "/sys/fs/cgroup/lxc/ct1/memory.high", max, &*tight),
        entry(Limit, "/sys/fs/cgroup/lxc/ct1/cpu.max", no_quota, quota),
        entry(MayBeEmpty, "/sys/fs/cgroup/lxc/ct1/cpuset.cpus.effective", "0-7\n", "4-5\n"),
        entry(MayBeEmpty, MEMS, "0-1\n", "0\n"),
        Entry { tight: vec![(MEMS, "0\n".into())], ..entry(Needed, NODES_ONLINE, "0-1\n", "") },
        Entry { tight: vec![(MEMS, "0\n".into())], ..entry(Needed, NODE_0, node_0(), "") },
        // They determine where the decisive limit is.
        Entry { tight: vec![(INNERMOST, tight.clone())], ..entry(MayBeEmpty, "/proc/1/cgroup", CGROUP, "") },
        Entry {
            tight: vec![(INNERMOST, tight.clone())],
            ..entry(Needed, "/proc/1/mountinfo", MOUNTINFO, "")
        },
    ]);
    entries
}

/// A container with cgroup version 1, one level below the root of each hierarchy.
fn version_1() -> Vec<Entry> {
    use Kind::{Limit, MayBeEmpty, Needed};
    const CGROUP: &str = "9:memory:/ct1\n5:cpuset:/ct1\n3:cpu,cpuacct:/ct1\n1:name=systemd:/ct1/init.scope\n";
    const MOUNTINFO: &str = "28 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\n\
        36 31 0:33 / /sys/fs/cgroup/memory rw shared:15 - cgroup cgroup rw,memory\n\
        37 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw shared:16 - cgroup cgroup rw,cpu,cpuacct\n\
        38 31 0:35 / /sys/fs/cgroup/cpuset rw shared:17 - cgroup cgroup rw,cpuset\n";
    const INNERMOST: &str = "/sys/fs/cgroup/memory/ct1/memory.limit_in_bytes";
    const QUOTA: &str = "/sys/fs/cgroup/cpu,cpuacct/ct1/cpu.cfs_quota_us";
    const EFFECTIVE_MEMS: &str = "/sys/fs/cgroup/cpuset/ct1/cpuset.effective_mems";
    const EFFECTIVE: &str = "/sys/fs/cgroup/cpuset/ct1/cpuset.effective_cpus";
    let (none, tight) = ("9223372036854771712\n", format!("{}\n", 7 * GIB));
    let stat = |limit: &str| format!("cache 1\nhierarchical_memory_limit {limit}total_cache 1\n");
    let mut entries = everywhere();
    entries.extend([
        entry(Limit, "/sys/fs/cgroup/memory/memory.limit_in_bytes", none, &*tight),
        entry(Limit, INNERMOST, none, &*tight),
        entry(Limit, "/sys/fs/cgroup/memory/ct1/memory.stat", stat(none), stat(&tight)),
        entry(Limit, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n", "200000\n"),
        entry(Limit, QUOTA, "-1\n", "200000\n"),
        entry(Limit, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n", "100000\n"),
        Entry {
            tight: vec![(QUOTA, "200000\n".into())],
            ..entry(Needed, "/sys/fs/cgroup/cpu,cpuacct/ct1/cpu.cfs_period_us", "100000\n", "")
        },
        entry(MayBeEmpty, EFFECTIVE, "0-7\n", "4-5\n"),
        entry(MayBeEmpty, EFFECTIVE_MEMS, "0-1\n", "0\n"),
        Entry {
            tight: vec![
                (EFFECTIVE_MEMS, "\n".into()),
                ("/sys/fs/cgroup/cpuset/ct1/cpuset.mems", "0\n".into()),
            ],
            ..entry(MayBeEmpty, "/sys/fs/cgroup/cpuset/ct1/cpuset.mems", "0-1\n", "")
        },
        Entry { tight: vec![(EFFECTIVE_MEMS, "0\n".into())], ..entry(Needed, NODES_ONLINE, "0-1\n", "") },
        Entry { tight: vec![(EFFECTIVE_MEMS, "0\n".into())], ..entry(Needed, NODE_0, node_0(), "") },
        // Used only if an old kernel has no effective list.
        Entry {
            tight: vec![(EFFECTIVE, "\n".into()), ("/sys/fs/cgroup/cpuset/ct1/cpuset.cpus", "4-5\n".into())],
            ..entry(MayBeEmpty, "/sys/fs/cgroup/cpuset/ct1/cpuset.cpus", "0-7\n", "")
        },
        Entry { tight: vec![(INNERMOST, tight.clone())], ..entry(MayBeEmpty, "/proc/1/cgroup", CGROUP, "") },
        Entry {
            tight: vec![(INNERMOST, tight.clone())],
            ..entry(Needed, "/proc/1/mountinfo", MOUNTINFO, "")
        },
    ]);
    entries
}

/// A machine in a directory.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    /// All files with their loose content, except those in `tight`.
    fn new(entries: &[Entry], tight: &[(&str, String)]) -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(machine.out()).unwrap();
        for entry in entries {
            machine.put(entry.path, &entry.loose);
        }
        for (path, content) in tight {
            machine.put(path, content);
        }
        machine
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PYPNM_SIZING_ROOT", self.root()).stdin(Stdio::null());
        command
    }

    /// Runs the generator, and checks what must hold regardless of what it reads.
    fn run(&self, what: &str) -> Run {
        let _ = fs::remove_dir_all(self.out());
        fs::create_dir(self.out()).unwrap();
        let started = Instant::now();
        let output: Output = self
            .command("/bin/sh")
            .args(["-c", "ulimit -t $1 && exec $2 $3", "sh", CPU_SECONDS])
            .args([Path::new(env!("CARGO_BIN_EXE_pypnm-sizing-generator")), &self.out()])
            .output()
            .unwrap();
        let took = started.elapsed();
        assert!(took < IN_TIME, "{what}: it took {took:?}");
        assert_eq!(output.status.signal(), None, "{what}: ended by a signal");
        assert!(output.status.success(), "{what}: {output:?}");
        assert!(output.stdout.is_empty(), "{what}: {output:?}");
        let directory = self.out().join("pypnm.service.d");
        let names: Vec<_> =
            fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        let stderr = String::from_utf8(output.stderr).expect("stderr is text");
        if names.is_empty() {
            return Run { profile: None, stderr };
        }
        assert_eq!(names, ["10-pypnm-sizing.conf"], "{what}");
        let text = fs::read_to_string(directory.join("10-pypnm-sizing.conf")).unwrap();
        assert!(text.ends_with("'systemctl edit pypnm.service'.\n"), "{what}: cut off: {text}");
        let number = |key: &str| -> u32 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Environment=")?.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("{what}: no {key} in {text}")).parse().unwrap()
        };
        let profile = (number("PYPNM_SERVE_WORKERS"), number("PYPNM_SERVE_LIMIT_MAX_REQUESTS"));
        Run { profile: Some(profile), stderr }
    }
}

/// The result of a run.
struct Run {
    /// Workers and recycle limit; `None`: no drop-in.
    profile: Option<(u32, u32)>,
    stderr: String,
}

/// The ways that result in an empty list.
const SAYS_NOTHING: [&str; 5] = ["missing", "a link to nowhere", "empty", "a FIFO", "an empty line"];

/// The ways that result in no readable content.
const UNREADABLE: [&str; 6] = [
    "a directory",
    "a loop of links",
    "a socket",
    "binary",
    "100 MB of nothing",
    "100 MB behind what it should be",
];

/// The ways that result in no file.
const NO_FILE: [&str; 3] = ["a directory", "a loop of links", "a socket"];

/// A way to damage a file.
type Spoil = fn(&Path, &str);

/// All ways; those that remove its content come first.
const WAYS: [(&str, Spoil); 17] = [
    ("missing", |_, _| {}),
    ("a link to nowhere", |path, _| symlink("/nowhere/at/all", path).unwrap()),
    ("empty", |path, _| fs::write(path, "").unwrap()),
    ("a FIFO", |path, _| {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    }),
    ("an empty line", |path, _| fs::write(path, "\n").unwrap()),
    ("a directory", |path, _| fs::create_dir(path).unwrap()),
    ("a loop of links", |path, _| symlink(path.file_name().unwrap(), path).unwrap()),
    ("a socket", |path, _| {
        rustix::fs::mknodat(CWD, path, FileType::Socket, Mode::from_raw_mode(0o644), 0).unwrap();
    }),
    ("binary", |path, _| {
        fs::write(path, (0..=255).cycle().skip(128).take(1024).collect::<Vec<u8>>()).unwrap();
    }),
    ("NULs", |path, _| fs::write(path, [0; 64]).unwrap()),
    ("100 MB of nothing", |path, _| File::create(path).unwrap().set_len(100 << 20).unwrap()),
    ("100 MB behind what it should be", |path, original| {
        fs::write(path, original).unwrap();
        File::options().append(true).open(path).unwrap().set_len(100 << 20).unwrap();
    }),
    ("a line of 3 MB", |path, _| fs::write(path, "9".repeat(3 << 20)).unwrap()),
    ("many good lines of another file", |path, _| fs::write(path, "0::/a\n".repeat(600_000)).unwrap()),
    ("half of it", |path, original| fs::write(path, &original[..original.len() / 2]).unwrap()),
    ("a number too large", |path, _| fs::write(path, "99999999999999999999999999\n").unwrap()),
    ("a negative number", |path, _| fs::write(path, "-5\n").unwrap()),
];

fn spoil_everything(entries: &[Entry]) {
    let loose = Machine::new(entries, &[]).run("all loose").profile.unwrap();
    assert_eq!(loose, (8, 2000), "the loose machine has room");
    for entry in entries {
        let healthy = Machine::new(entries, &entry.tight).run(entry.path);
        let (workers, limit) = healthy.profile.unwrap();
        assert_eq!(healthy.stderr, "", "{}", entry.path);
        let decides = entry.kind != Kind::Aside && !entry.path.ends_with("cpuacct/cpu.cfs_period_us");
        assert_eq!(workers, if decides { 2 } else { 8 }, "{} decides", entry.path);
        for (way, spoil) in WAYS {
            let what = format!("{}: {way}", entry.path);
            let machine = Machine::new(entries, &entry.tight);
            let path = machine.path(entry.path);
            let original = fs::read_to_string(&path).unwrap();
            fs::remove_file(&path).unwrap();
            spoil(&path, &original);
            let run = machine.run(&what);
            let (got, got_limit) = run.profile.unwrap_or_else(|| panic!("{what}: no drop-in"));

            let says_nothing = match entry.kind {
                Kind::Needed | Kind::Operator | Kind::UnitFile => false,
                Kind::Limit | Kind::Aside => matches!(way, "missing" | "a link to nowhere"),
                Kind::MayLackIt => !UNREADABLE.contains(&way),
                // The lines are valid for /proc/1/cgroup, but wrong.
                Kind::MayBeEmpty => SAYS_NOTHING.contains(&way) || way == "many good lines of another file",
            };
            if !says_nothing && !matches!(entry.kind, Kind::Operator | Kind::UnitFile) {
                assert!(
                    got <= workers,
                    "{what}: {got} workers, {workers} with the original file: {}",
                    run.stderr
                );
            }
            // Half of a number is a smaller number.
            if (got < workers || got_limit < limit) && way != "half of it" {
                assert!(
                    run.stderr.contains(entry.path),
                    "{what}: more careful, without a reason: {}",
                    run.stderr
                );
            }
            let no_unit = entry.kind == Kind::UnitFile && NO_FILE.contains(&way);
            if matches!(entry.kind, Kind::Operator | Kind::UnitFile) && UNREADABLE.contains(&way) && !no_unit
            {
                assert!(run.stderr.contains(entry.path), "{what}: skipped without a message: {}", run.stderr);
            }
        }
    }
}

#[test]
fn every_file_of_version_2_damaged_in_every_way() {
    spoil_everything(&version_2());
}

#[test]
fn every_file_of_version_1_damaged_in_every_way() {
    spoil_everything(&version_1());
}

#[test]
fn every_directory_replaced_by_something_else() {
    for directory in [
        "/etc/pypnm/sizing.conf.d",
        "/etc/pypnm",
        "/etc/systemd/system",
        "/etc/systemd/system/pypnm.service.d",
        "/etc/systemd/system/system.slice.d",
        "/etc",
        "/run",
        "/usr",
        "/proc",
        "/proc/1",
        "/sys",
        "/sys/fs/cgroup",
    ] {
        for (way, spoil) in WAYS {
            let what = format!("{directory}: {way}");
            let machine = Machine::new(&version_2(), &[]);
            let path = machine.path(directory);
            let _ = fs::remove_dir_all(&path);
            spoil(&path, "");
            let run = machine.run(&what);
            assert!(
                run.profile.is_some_and(|(workers, _)| (1..=8).contains(&workers)),
                "{what}: {}",
                run.stderr
            );
        }
    }
}

/// A name, the contents of the files, and the expected number of workers.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u32);

#[test]
fn contradictory_files_give_the_smaller_profile() {
    let cases: [Case; 7] = [
        ("CPUs online and affinity share none", &[("/proc/1/status", "Cpus_allowed_list:\t100-110\n")], 1),
        (
            "more held for huge pages than there is",
            &[("/proc/meminfo", "MemTotal: 9000000 kB\nHugetlb: 99000000 kB\n")],
            1,
        ),
        ("two MemTotal", &[("/proc/meminfo", "MemTotal: 7000000 kB\nMemTotal: 70000000 kB\n")], 2),
        (
            "memory.high above memory.max",
            &[("/sys/fs/cgroup/memory.high", "99999999999\n"), ("/sys/fs/cgroup/memory.max", "7000000000\n")],
            2,
        ),
        ("a limit of nothing", &[("/sys/fs/cgroup/lxc/memory.max", "0\n")], 1),
        ("PID 1 in a cgroup that is not there", &[("/proc/1/cgroup", "0::/lxc/ct2\n")], 1),
        (
            "PID 1 in both versions",
            &[
                ("/proc/1/cgroup", "0::/lxc/ct1\n4:memory:/\n"),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "7000000000\n"),
                ("/sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 7000000000\n"),
            ],
            2,
        ),
    ];
    for (what, files, workers) in cases {
        let files: Vec<_> = files.iter().map(|(path, content)| (*path, (*content).to_owned())).collect();
        let run = Machine::new(&version_2(), &files).run(what);
        assert_eq!(run.profile.map(|(workers, _)| workers), Some(workers), "{what}: {}", run.stderr);
    }
}

/// A path with more levels than any kernel allows: the generator gives up early.
#[test]
fn a_cgroup_of_a_million_levels() {
    let deep = format!("0::{}\n", "/a".repeat(1_000_000));
    let run = Machine::new(&version_2(), &[("/proc/1/cgroup", deep)]).run("a million levels");
    assert_eq!(run.profile, Some((1, 1000)));
    assert!(run.stderr.contains("/proc/1/cgroup"), "{}", run.stderr);
    let deep = format!("0::{}\n", "/a".repeat(1900));
    let run = Machine::new(&version_2(), &[("/proc/1/cgroup", deep)]).run("1900 levels");
    assert_eq!(run.profile, Some((1, 1000)), "its own directory is not there");
}

/// The files that the generator opens are those in the tables above. Add a file there when the generator starts to read
/// it.
#[test]
fn every_opened_file_is_tested() {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/need");
    assert!(Command::new(need).arg("strace").status().unwrap().success(), "strace is needed");
    let tables = [version_2(), version_1()];
    let known: BTreeSet<&str> = tables.iter().flatten().map(|entry| entry.path).collect();
    let mut opened: BTreeMap<String, bool> = BTreeMap::new();
    for entries in &tables {
        // The file that is read if another one has no value.
        let old_kernel = [
            ("/sys/fs/cgroup/cpuset/ct1/cpuset.effective_cpus", "\n".to_owned()),
            ("/sys/fs/cgroup/cpuset/ct1/cpuset.effective_mems", "\n".to_owned()),
        ];
        let one_node = [("/sys/fs/cgroup/lxc/ct1/cpuset.mems.effective", "0\n".to_owned())];
        let quota = [
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n".to_owned()),
            ("/sys/fs/cgroup/cpu,cpuacct/ct1/cpu.cfs_quota_us", "200000\n".to_owned()),
        ];
        for tight in [&[][..], &old_kernel[..], &one_node[..], &quota[..]] {
            let tight = if entries.iter().any(|entry| tight.iter().any(|(path, _)| *path == entry.path)) {
                tight
            } else {
                &[]
            };
            let machine = Machine::new(entries, tight);
            let log = machine.directory.path().join("strace");
            let status = machine
                .command("strace")
                .args(["-qq", "-e", "trace=openat2", "-o"])
                .arg(&log)
                .arg(env!("CARGO_BIN_EXE_pypnm-sizing-generator"))
                .arg(machine.out())
                .status()
                .unwrap();
            assert!(status.success());
            for line in fs::read_to_string(&log).unwrap().lines() {
                let (Some(path), Some(result)) = (line.split('"').nth(1), line.rsplit("= ").next()) else {
                    continue;
                };
                let path = format!("/{}", path.trim_start_matches('/'));
                // The actual mounts below the directory.
                if path == "/proc/self/exe" || path == "/proc/self/mountinfo" && !result.starts_with('-') {
                    continue;
                }
                let there = !result.starts_with('-');
                *opened.entry(path).or_default() |= there;
            }
        }
    }
    assert!(opened.len() > 20, "strace saw little: {opened:?}");
    let never: Vec<_> = known.iter().filter(|path| !opened.contains_key(**path)).collect();
    assert!(never.is_empty(), "in the tables, but the generator doesn't read it: {never:?}");
    // Directories, and files that do not exist on these machines.
    let others = |path: &str| {
        path.contains("/pypnm/sizing.conf")
            || path.contains("/systemd/system.conf")
            || ["/etc/initrd-release", "/run/systemd/container"].contains(&path)
            || path.ends_with("/cpuset/ct1")
            || path.ends_with("/node0/hugepages")
            || path.starts_with("/sys/fs/cgroup/cpuset/cpuset.")
            || path.starts_with("/sys/fs/cgroup/") && path.ends_with("/cpuset.mems.effective")
            || pypnm_sizing::units::DIRECTORIES.contains(&path)
            || path == "/lib"
            || path.ends_with(".d") && path.starts_with("/etc/systemd/system/")
    };
    let unknown: Vec<_> =
        opened.keys().filter(|path| !known.contains(path.as_str()) && !others(path)).collect();
    assert!(unknown.is_empty(), "the generator reads it, but the tables don't have it: {unknown:?}");
}
