//! The cgroups of a running process, which may have been started by hand, pinned to CPUs, or put into a container: its
//! limits, which the library reads, and its counters, in every version of cgroups.

use pypnm_sizing::capacity::{Capacity, Reserve, capacity};
use pypnm_sizing::limits::cgroup::Hierarchy;
use pypnm_sizing::limits::process::{self, LimitedProcess};
use pypnm_sizing::limits::{Amount, Limit, Resource};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::root::Root;
use pypnm_sizing::watch::meter::Sample;

/// The cgroups of a process.
#[derive(Debug, Default)]
pub(super) struct ProcessCgroups {
    memory: Option<Hierarchy>,
    cpu: Option<Hierarchy>,
    /// The hierarchy of version 2, for pressure. That needs no controller, so it is available in the hybrid layout as well.
    unified: Option<Hierarchy>,
    /// The CPUs that the process may run on. `None`: unknown.
    cpus: Option<CpuSet>,
    /// The limits that are known.
    limits: Vec<Limit>,
    /// What they grant.
    capacity: Capacity,
    /// Texts about the limits that are unknown. Sizing a service assumes that they are minimal, which is safe for it; a live
    /// process that uses more shows that they are not, and every figure in relation to them would be wrong. So they are only
    /// reported.
    pub(super) unknown_limits: Vec<String>,
}

impl ProcessCgroups {
    /// Reads the cgroups of a process, which may have ended.
    pub(super) fn read(machine: &Root, pid: u32) -> Self {
        let process = LimitedProcess::OutsideUnits(pid);
        // No controller of version 1 is called pressure, so this is version 2's hierarchy.
        let [memory, cpu, unified] = process::cgroups(machine, process, ["memory", "cpu", "pressure"]);
        let mut problems = Vec::new();
        let limits = process::read(machine, process, &mut problems);
        let (unknown, limits): (Vec<Limit>, Vec<Limit>) =
            limits.into_iter().partition(|limit| matches!(limit.amount, Amount::Unknown(_)));
        let mut unknown_limits: Vec<String> =
            unknown.iter().map(|limit| unknown_limit(&limit.source, &problems)).collect();
        // If it is unknown what the cgroup is, both resources are.
        unknown_limits.dedup();
        let cpus = limits.iter().filter_map(|limit| match &limit.amount {
            Amount::Cpus(cpus) => Some(cpus.clone()),
            _ => None,
        });
        Self {
            memory,
            cpu,
            unified,
            cpus: cpus.reduce(|common, cpus| common.intersection(&cpus)).filter(|cpus| !cpus.is_empty()),
            capacity: capacity(&limits, Reserve::default()),
            limits,
            unknown_limits,
        }
    }

    /// The amount of a resource that its tightest known limit grants, and the source of that limit.
    pub(super) fn tightest(&self, resource: Resource) -> Option<(u64, &Source)> {
        let available = match resource {
            Resource::Cpu => self.capacity.cpu,
            Resource::Memory => self.capacity.memory,
        };
        let limit = self.limits.get(available.binding?)?;
        Some((available.amount, &limit.source))
    }

    /// Adds the counters of its cgroups, and the pressure and idle time of the machine.
    pub(super) fn counters(&self, machine: &Root, sample: &mut Sample) {
        let text = |cgroup: &Option<Hierarchy>, file: &str| {
            machine.text(&format!("{}/{file}", cgroup.as_ref()?.directory())).ok()
        };
        // The counters of the outermost cgroup are those of the whole machine in version 1.
        let v1 = |cgroup: &Option<Hierarchy>, file: &str| {
            cgroup.as_ref().filter(|cgroup| cgroup.is_nested()).and_then(|_| text(cgroup, file))
        };
        let pressure = |what: &str| {
            let of_cgroup = text(&self.unified, &format!("{what}.pressure"));
            let found = of_cgroup.as_deref().and_then(stalled);
            found.or_else(|| stalled(&machine.text(&format!("/proc/pressure/{what}")).ok()?))
        };
        sample.memory_stall_us = pressure("memory");
        sample.cpu_stall_us = pressure("cpu");
        let keyed = |text: Option<String>, key: &str| text.as_deref().and_then(|text| value_of(text, key));
        let throttled = text(&self.cpu, "cpu.stat");
        sample.throttled_us = keyed(throttled.clone(), "throttled_usec")
            .or_else(|| keyed(throttled, "throttled_time").map(|ns| ns / 1000));
        sample.oom_kills = keyed(text(&self.memory, "memory.events"), "oom_kill")
            .or_else(|| keyed(v1(&self.memory, "memory.oom_control"), "oom_kill"));
        let amount = |text: Option<String>| text.and_then(|text| text.trim_end().parse::<u64>().ok());
        sample.cgroup_memory = amount(text(&self.memory, "memory.current"))
            .or_else(|| amount(v1(&self.memory, "memory.usage_in_bytes")));
        sample.cgroup_peak = amount(text(&self.memory, "memory.peak"))
            .or_else(|| amount(v1(&self.memory, "memory.max_usage_in_bytes")));
        sample.idle_ms = machine.text("/proc/stat").ok().and_then(|text| idle(&text, self.cpus.as_ref()));
    }
}

/// A text about a limit that could not be read or is invalid.
fn unknown_limit(source: &Source, problems: &[Problem]) -> String {
    const CONSEQUENCE: &str = "this limit is unknown and not taken into account";
    match problems.iter().find(|problem| problem.source.file == source.file) {
        Some(Problem { source, kind, .. }) => {
            Problem::new(source.clone(), kind.clone(), CONSEQUENCE).to_string()
        }
        None => format!("{source}; {CONSEQUENCE}"),
    }
}

/// PSI: microseconds in which some task waited.
fn stalled(pressure: &str) -> Option<u64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    some.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// The number that follows `key` at the beginning of a line.
fn value_of(text: &str, key: &str) -> Option<u64> {
    let mut words = text.lines().filter_map(|line| line.split_once([' ', ':', '\t']));
    words.find(|(name, _)| *name == key)?.1.split_ascii_whitespace().next()?.parse().ok()
}

/// The idle time of these CPUs (`None`: all), in milliseconds (proc_stat(5), which counts hundredths of a second).
fn idle(stat: &str, cpus: Option<&CpuSet>) -> Option<u64> {
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?.strip_prefix("cpu")?;
        let mut fields = fields.skip(3);
        let (idle, waiting): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((name.parse::<u32>().ok(), idle.saturating_add(waiting).saturating_mul(10)))
    };
    let mut lines = stat.lines().map_while(of_line);
    let (_, all) = lines.next()?;
    match cpus {
        None => Some(all),
        Some(cpus) => {
            let ours = lines.filter(|(cpu, _)| cpu.is_some_and(|cpu| cpus.contains(cpu)));
            Some(ours.fold(0, |sum: u64, (_, ms)| sum.saturating_add(ms)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuSet, ProcessCgroups, Resource, Root, Sample, idle, stalled, value_of};

    /// A machine with cgroup files for process 7, which is also the caller.
    fn machine(membership: &str, mounts: &[&str], files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path.trim_start_matches('/'));
            let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
        };
        put("/proc/7/cgroup", membership);
        put("/proc/7/status", "Name:\tpypnm\nCpus_allowed_list:\t1-2\n");
        put("/proc/self/mountinfo", &format!("{}\n", mounts.join("\n")));
        put(
            "/proc/stat",
            "cpu  9 9 9 100 20 9\ncpu0 9 9 9 50 0 9\ncpu1 9 9 9 30 5 9\ncpu2 9 9 9 20 15 9\nintr 1\n",
        );
        put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n");
        for (path, text) in files {
            put(path, text);
        }
        let root = Root::below(dir.path()).unwrap_or_else(|error| panic!("{error}"));
        (dir, root)
    }

    fn tightest(cgroups: &ProcessCgroups, resource: Resource) -> Option<(u64, String)> {
        cgroups.tightest(resource).map(|(amount, source)| (amount, source.to_string()))
    }

    const V2: &str = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
    const MEMORY: &str = "30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
    const CPU: &str = "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
    const UNIFIED: &str = "32 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    const SERVICE: &str = "/system.slice/pypnm.service";

    #[test]
    fn version_2() {
        let (_dir, root) = machine(
            &format!("0::{SERVICE}\n"),
            &[V2],
            &[
                ("/sys/fs/cgroup/system.slice/memory.max", "4000000000\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.max", "max\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.high", "3000000000\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/cpu.max", "150000 100000\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.pressure", "some avg10=1.00 total=22\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/cpu.stat", "usage_usec 5\nthrottled_usec 33\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.events", "oom 9\noom_kill 2\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.current", "1000\n"),
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.peak", "2000\n"),
            ],
        );
        let cgroups = ProcessCgroups::read(&root, 7);
        let service = format!("/sys/fs/cgroup{SERVICE}");
        let memory = tightest(&cgroups, Resource::Memory);
        assert_eq!(memory, Some((3_000_000_000, format!("{service}/memory.high"))));
        assert_eq!(tightest(&cgroups, Resource::Cpu), Some((1500, format!("{service}/cpu.max"))));
        assert!(cgroups.unknown_limits.is_empty(), "{cgroups:?}");
        let mut sample = Sample::default();
        cgroups.counters(&root, &mut sample);
        assert_eq!((sample.memory_stall_us, sample.cpu_stall_us), (Some(22), None));
        assert_eq!((sample.throttled_us, sample.oom_kills), (Some(33), Some(2)));
        assert_eq!((sample.cgroup_memory, sample.cgroup_peak), (Some(1000), Some(2000)));
        assert_eq!(sample.idle_ms, Some(700), "CPUs 1 and 2 only");
    }

    #[test]
    fn a_limit_that_cannot_be_read_is_named_and_does_not_count() {
        let (_dir, root) = machine(
            &format!("0::{SERVICE}\n"),
            &[V2],
            &[
                ("/sys/fs/cgroup/system.slice/memory.max", "4000000000\n"),
                // A directory cannot be read, not even by root.
                ("/sys/fs/cgroup/system.slice/pypnm.service/memory.max/x", ""),
                ("/sys/fs/cgroup/system.slice/pypnm.service/cpu.max", "junk\n"),
            ],
        );
        let cgroups = ProcessCgroups::read(&root, 7);
        let memory = "/sys/fs/cgroup/system.slice/memory.max".to_owned();
        assert_eq!(tightest(&cgroups, Resource::Memory), Some((4_000_000_000, memory)));
        let affinity = "/proc/7/status: Cpus_allowed_list".to_owned();
        assert_eq!(tightest(&cgroups, Resource::Cpu), Some((2000, affinity)));
        assert_eq!(
            cgroups.unknown_limits,
            [
                "/sys/fs/cgroup/system.slice/pypnm.service/memory.max: it is a directory, not a file; this limit is \
                 unknown and not taken into account",
                "/sys/fs/cgroup/system.slice/pypnm.service/cpu.max: 'junk' is not QUOTA PERIOD in microseconds, or max; \
                 this limit is unknown and not taken into account",
            ]
        );
    }

    #[test]
    fn a_process_whose_cgroup_is_unknown() {
        let (_dir, root) = machine("junk\n", &[V2], &[]);
        let cgroups = ProcessCgroups::read(&root, 7);
        assert_eq!(cgroups.tightest(Resource::Memory), None);
        assert_eq!(cgroups.unknown_limits.len(), 1, "once for both resources: {cgroups:?}");
        assert!(cgroups.unknown_limits.iter().all(|text| text.contains("/proc/7/cgroup")), "{cgroups:?}");
    }

    #[test]
    fn a_cgroup_with_the_name_of_one_of_pid_1_is_the_process_s_own() {
        let files = [("/sys/fs/cgroup/session.slice/init.scope/memory.max", "2000000000\n")];
        let (_dir, root) = machine("0::/session.slice/init.scope\n", &[V2], &files);
        let cgroups = ProcessCgroups::read(&root, 7);
        let source = "/sys/fs/cgroup/session.slice/init.scope/memory.max".to_owned();
        assert_eq!(tightest(&cgroups, Resource::Memory), Some((2_000_000_000, source)));
    }

    #[test]
    fn the_cpus_of_a_cpuset_count() {
        let (_dir, root) = machine(
            &format!("0::{SERVICE}\n"),
            &[V2],
            &[("/sys/fs/cgroup/system.slice/pypnm.service/cpuset.cpus.effective", "2\n")],
        );
        let cgroups = ProcessCgroups::read(&root, 7);
        assert_eq!(cgroups.tightest(Resource::Cpu).map(|(amount, _)| amount), Some(1000));
        let mut sample = Sample::default();
        cgroups.counters(&root, &mut sample);
        assert_eq!(sample.idle_ms, Some(350), "CPU 2 only");
    }

    /// The files of version 1, with and without a unified hierarchy.
    fn version_1(membership: &str, mounts: &[&str], more: &[(&str, &str)]) -> Sample {
        let mut files = vec![
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/system.slice/pypnm.service/memory.limit_in_bytes", "2000000000\n"),
            ("/sys/fs/cgroup/memory/system.slice/pypnm.service/memory.usage_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/system.slice/pypnm.service/memory.max_usage_in_bytes", "2000\n"),
            (
                "/sys/fs/cgroup/memory/system.slice/pypnm.service/memory.oom_control",
                "under_oom 0\noom_kill 3\n",
            ),
            ("/sys/fs/cgroup/cpu,cpuacct/system.slice/pypnm.service/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/system.slice/pypnm.service/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/system.slice/pypnm.service/cpu.stat", "throttled_time 44000\n"),
        ];
        files.extend(more);
        let (_dir, root) = machine(membership, mounts, &files);
        let cgroups = ProcessCgroups::read(&root, 7);
        assert_eq!(cgroups.tightest(Resource::Memory).map(|(amount, _)| amount), Some(2_000_000_000));
        assert_eq!(cgroups.tightest(Resource::Cpu).map(|(amount, _)| amount), Some(500));
        let mut sample = Sample::default();
        cgroups.counters(&root, &mut sample);
        assert_eq!((sample.throttled_us, sample.oom_kills), (Some(44), Some(3)));
        assert_eq!((sample.cgroup_memory, sample.cgroup_peak), (Some(1000), Some(2000)));
        sample
    }

    #[test]
    fn version_1_alone_has_the_machines_pressure() {
        let membership = format!("4:memory:{SERVICE}\n2:cpu,cpuacct:{SERVICE}\n1:name=systemd:{SERVICE}\n");
        assert_eq!(version_1(&membership, &[MEMORY, CPU], &[]).memory_stall_us, Some(11));
    }

    #[test]
    fn hybrid_has_its_own_pressure() {
        let membership = format!("4:memory:{SERVICE}\n2:cpu,cpuacct:{SERVICE}\n0::{SERVICE}\n");
        let pressure = "/sys/fs/cgroup/unified/system.slice/pypnm.service/memory.pressure";
        let sample = version_1(&membership, &[MEMORY, CPU, UNIFIED], &[(pressure, "some total=55\n")]);
        assert_eq!(sample.memory_stall_us, Some(55));
    }

    #[test]
    fn the_root_of_version_1_counts_the_whole_machine() {
        let files = [
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"),
            ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill 3\n"),
        ];
        let (_dir, root) = machine("4:memory:/\n", &[MEMORY], &files);
        let mut sample = Sample::default();
        ProcessCgroups::read(&root, 7).counters(&root, &mut sample);
        assert_eq!((sample.cgroup_memory, sample.oom_kills), (None, None));
    }

    #[test]
    fn a_process_that_is_gone_and_files_that_are_junk() {
        let (_dir, root) = machine("junk\n", &["junk"], &[]);
        let cgroups = ProcessCgroups::read(&root, 8);
        assert!(cgroups.limits.is_empty() && cgroups.unknown_limits.is_empty(), "{cgroups:?}");
        let mut sample = Sample::default();
        cgroups.counters(&root, &mut sample);
        assert_eq!((sample.idle_ms, sample.memory_stall_us), (Some(1200), Some(11)), "the machine's");
        for junk in ["", "cpu", "cpu  1 2 3", "cpu  1 2 3 x y\n", "intr 1 2 3 4 5 6\n"] {
            assert_eq!(idle(junk, None), None, "{junk}");
        }
        let huge = "cpu  1 2 3 18446744073709551615 18446744073709551615 1\n";
        assert_eq!(idle(huge, None), Some(u64::MAX));
        assert_eq!(idle("cpu  1 2 3 4 5\ncpu0 1 2 3 4 5\n", Some(&CpuSet::first(1))), Some(90));
    }

    #[test]
    fn figures_of_recorded_files() {
        let psi = "some avg10=30.44 avg60=10.34 avg300=2.47 total=18839947\nfull avg10=0.00 total=7\n";
        assert_eq!(stalled(psi), Some(18_839_947));
        assert_eq!(stalled(""), None);
        assert_eq!(value_of("usage_usec 5\nthrottled_usec 12\n", "throttled_usec"), Some(12));
    }
}
