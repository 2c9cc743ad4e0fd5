//! The cgroups of a running process in every version: its limits, including its affinity, and its counters. The limits of
//! the machine and of unit files are in the library; these are those of the process itself, which may have been started by
//! hand, pinned to CPUs, or put into a container.

use pypnm_sizing::limits::Resource;
use pypnm_sizing::limits::cgroup::Hierarchy;
use pypnm_sizing::parse::cgroup::{
    LimitValue, cpu_v2, hierarchical_memory_limit, memberships, memory_v1, memory_v2, milli_cpus, period_v1,
    quota_v1,
};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::parse::mountinfo::cgroup_mounts;
use pypnm_sizing::root::Root;
use pypnm_sizing::watch::meter::Sample;

use crate::service::process;

/// A limit of the live process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LiveLimit {
    /// The resource that it limits.
    pub(super) resource: Resource,
    /// Milli-CPUs or bytes.
    pub(super) amount: u64,
    /// The file that contains it.
    pub(super) source: String,
}

/// The cgroups of a process.
#[derive(Debug, Default)]
pub(super) struct ProcessCgroups {
    memory: Option<Directory>,
    cpu: Option<Directory>,
    /// The cgroup of version 2, for pressure. That needs no controller, so it is available in the hybrid layout as well.
    unified: Option<Directory>,
    /// The CPUs that the process may run on.
    cpus: Option<CpuSet>,
    /// Its limits, in the order in which they were found.
    pub(super) grants: Vec<LiveLimit>,
}

/// A cgroup.
#[derive(Debug)]
struct Directory {
    path: String,
    /// Whether it is the outermost visible one. In version 1, its counters are those of the whole machine.
    outermost: bool,
}

impl ProcessCgroups {
    /// Finds the cgroups of a process, which may have ended.
    pub(super) fn of(machine: &Root, pid: u32) -> Self {
        let membership = process::cgroup_file(machine, pid).unwrap_or_default();
        let mountinfo = machine.bytes("/proc/self/mountinfo").unwrap_or_default();
        let memberships = memberships(&membership).unwrap_or_default();
        let mounts = cgroup_mounts(&mountinfo);
        let hierarchy = |controller| Hierarchy::find(controller, &memberships, &mounts);
        let mut place = Self::default();
        if let Some(memory) = hierarchy("memory") {
            memory.levels().for_each(|level| place.memory_grants(machine, level));
            place.memory = Directory::innermost(&memory);
        }
        if let Some(cpu) = hierarchy("cpu") {
            cpu.levels().for_each(|level| place.cpu_grants(machine, level));
            place.cpu = Directory::innermost(&cpu);
        }
        // Version 1 has no such controller, so this is version 2's hierarchy.
        place.unified = hierarchy("pressure").as_ref().and_then(Directory::innermost);
        place.cpus = process::allowed_cpus(machine, pid);
        if let Some(cpus) = &place.cpus {
            let amount = u64::from(cpus.count()) * 1000;
            let source = format!("/proc/{pid}/status: Cpus_allowed_list");
            place.grants.push(LiveLimit { resource: Resource::Cpu, amount, source });
        }
        place
    }

    /// The tightest limit of the process for a resource.
    pub(super) fn least(&self, resource: Resource) -> Option<&LiveLimit> {
        self.grants.iter().filter(|grant| grant.resource == resource).min_by_key(|grant| grant.amount)
    }

    fn memory_grants(&mut self, machine: &Root, level: &str) {
        type Read = fn(&str) -> Option<LimitValue>;
        let files: [(&str, Read); 4] = [
            ("memory.max", memory_v2),
            ("memory.high", memory_v2),
            ("memory.limit_in_bytes", memory_v1),
            ("memory.stat", hierarchical_memory_limit),
        ];
        for (file, read) in files {
            let path = format!("{level}/{file}");
            if let Some(LimitValue::At(amount)) = machine.text(&path).ok().and_then(|text| read(&text)) {
                self.grants.push(LiveLimit { resource: Resource::Memory, amount, source: path });
            }
        }
    }

    fn cpu_grants(&mut self, machine: &Root, level: &str) {
        let text = |file: &str| machine.text(&format!("{level}/{file}")).ok();
        let quota = || match quota_v1(&text("cpu.cfs_quota_us")?)? {
            LimitValue::At(quota) => milli_cpus(quota, period_v1(&text("cpu.cfs_period_us")?)?),
            LimitValue::Unlimited => None,
        };
        let (amount, file) = match text("cpu.max").and_then(|text| cpu_v2(&text)) {
            Some(LimitValue::At(milli)) => (Some(milli), "cpu.max"),
            Some(LimitValue::Unlimited) => (None, "cpu.max"),
            None => (quota(), "cpu.cfs_quota_us"),
        };
        if let Some(amount) = amount {
            self.grants.push(LiveLimit {
                resource: Resource::Cpu,
                amount,
                source: format!("{level}/{file}"),
            });
        }
    }

    /// Adds the counters of its cgroups, and the pressure and idle time of the machine.
    pub(super) fn counters(&self, machine: &Root, sample: &mut Sample) {
        let text = |dir: &Option<Directory>, file: &str| {
            machine.text(&format!("{}/{file}", dir.as_ref()?.path)).ok()
        };
        let v1 = |dir: &Option<Directory>, file: &str| {
            dir.as_ref().filter(|dir| !dir.outermost).and_then(|_| text(dir, file))
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

impl Directory {
    fn innermost(hierarchy: &Hierarchy) -> Option<Self> {
        let path = hierarchy.levels().next_back()?.to_owned();
        Some(Self { path, outermost: hierarchy.levels().nth(1).is_none() })
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

    fn limits_of(place: &ProcessCgroups) -> Vec<(Resource, u64, &str)> {
        place.grants.iter().map(|grant| (grant.resource, grant.amount, grant.source.as_str())).collect()
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
        let place = ProcessCgroups::of(&root, 7);
        assert_eq!(
            limits_of(&place),
            [
                (Resource::Memory, 4_000_000_000, "/sys/fs/cgroup/system.slice/memory.max"),
                (Resource::Memory, 3_000_000_000, "/sys/fs/cgroup/system.slice/pypnm.service/memory.high"),
                (Resource::Cpu, 1500, "/sys/fs/cgroup/system.slice/pypnm.service/cpu.max"),
                (Resource::Cpu, 2000, "/proc/7/status: Cpus_allowed_list"),
            ]
        );
        assert_eq!(place.least(Resource::Memory).map(|grant| grant.amount), Some(3_000_000_000));
        assert_eq!(place.least(Resource::Cpu).map(|grant| grant.amount), Some(1500));
        let mut sample = Sample::default();
        place.counters(&root, &mut sample);
        assert_eq!((sample.memory_stall_us, sample.cpu_stall_us), (Some(22), None));
        assert_eq!((sample.throttled_us, sample.oom_kills), (Some(33), Some(2)));
        assert_eq!((sample.cgroup_memory, sample.cgroup_peak), (Some(1000), Some(2000)));
        assert_eq!(sample.idle_ms, Some(700), "CPUs 1 and 2 only");
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
        let place = ProcessCgroups::of(&root, 7);
        assert_eq!(place.least(Resource::Memory).map(|grant| grant.amount), Some(2_000_000_000));
        assert_eq!(place.least(Resource::Cpu).map(|grant| grant.amount), Some(500));
        let mut sample = Sample::default();
        place.counters(&root, &mut sample);
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
        ProcessCgroups::of(&root, 7).counters(&root, &mut sample);
        assert_eq!((sample.cgroup_memory, sample.oom_kills), (None, None));
    }

    #[test]
    fn a_process_that_is_gone_and_files_that_are_junk() {
        let (_dir, root) = machine("junk\n", &["junk"], &[]);
        let place = ProcessCgroups::of(&root, 8);
        assert!(place.grants.is_empty(), "{place:?}");
        let mut sample = Sample::default();
        place.counters(&root, &mut sample);
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
