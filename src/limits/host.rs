//! The limits of the machine: the CPUs online, the affinity inherited from PID 1, and the memory available to processes.
//!
//! Limits of the container in which PID 1 runs are in [`super::cgroup`], those of a memory node in [`super::nodes`].

use crate::limits::{Amount, Limit, Resource, Scope, nodes, read_value};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{decimal, kibibytes};
use crate::parse::rest_of_line;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// The CPUs that are online, not those possible or present (kernel, Documentation/admin-guide/cputopology.rst).
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// `Cpus_allowed_list` (proc_pid_status(5)): the CPUs left by `CPUAffinity=` in systemd-system.conf(5) and by isolcpus.
pub const PID_1_STATUS: &str = "/proc/1/status";
/// proc_meminfo(5).
const MEMINFO: &str = "/proc/meminfo";

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its limits.
    pub limits: Vec<Limit>,
    /// MemTotal in bytes, which percentages refer to. `None`: unknown.
    pub memory_total: Option<u64>,
}

/// Reads the machine's limits below `root`. More memory than `enough_memory`, in bytes, would not change the profile, so
/// whether there is more is not determined.
pub fn read(root: &Root, enough_memory: u64, problems: &mut Vec<Problem>) -> Host {
    let mut limits = Vec::with_capacity(16);
    limits.push(online(root, problems));
    limits.extend(affinity(root, PID_1_STATUS, Scope::Inherited, problems));
    let (memory, memory_total) = memory(root, problems);
    limits.push(memory);
    if let Some(total) = memory_total.filter(|total| *total < enough_memory) {
        offline_memory(root, total, problems);
    }
    Host { limits, memory_total }
}

/// Treats the online CPUs as a number instead of a set if they are virtual. lxcfs shows a container the number of CPUs that
/// it is granted, numbered from 0, while affinity and cpuset refer to those of the machine. They are also virtual if the
/// affinity or the cpuset contains none of them, which no kernel permits.
pub fn recognize_virtual_cpus(root: &Root, limits: &mut [Limit]) {
    // The only set of CPUs that is a limit of the machine itself, see `online()`.
    let is_online = |limit: &Limit| limit.scope == Scope::Host && matches!(limit.amount, Amount::Cpus(_));
    let Some(Amount::Cpus(online)) = limits.iter().find(|limit| is_online(limit)).map(|limit| &limit.amount)
    else {
        return;
    };
    let is_disjoint = |limit: &Limit| match &limit.amount {
        Amount::Cpus(set) => set.intersection(online).is_empty(),
        _ => false,
    };
    if root.mounts().mounts.is_lxcfs(ONLINE) || limits.iter().any(is_disjoint) {
        let milli = u64::from(online.count()) * 1000;
        for limit in limits.iter_mut().filter(|limit| is_online(limit)) {
            limit.amount = Amount::CpuTime(milli);
        }
    }
}

/// Reports memory that is installed but offline. Hot-plugged memory may remain offline, depending on the kernel and the
/// operator (Documentation/admin-guide/mm/memory-hotplug.rst).
fn offline_memory(root: &Root, total: u64, problems: &mut Vec<Problem>) {
    const MEMORY: &str = "/sys/devices/system/memory";
    // With more blocks, looking at each of them would take too long.
    const MAX_BLOCKS: usize = 8192;
    const SAMPLE: usize = 8;
    let size = |text: &str| u64::from_str_radix(text.trim(), 16).ok();
    let Ok(Some(size)) = root.with_text(&format!("{MEMORY}/block_size_bytes"), size) else {
        return;
    };
    // The kernel reserves some memory at boot, for example for a crash kernel.
    let plausible = total.saturating_add(total / 8).saturating_add(1 << 30);
    let blocks = root.link_count(MEMORY).filter(|links| *links > 1);
    if blocks.is_some_and(|blocks| blocks.saturating_mul(size) <= plausible) {
        return;
    }
    let mut numbers = Vec::new();
    let listed = root.each_entry(MEMORY, |name, _| {
        let number = name.strip_prefix(b"memory").and_then(|number| std::str::from_utf8(number).ok());
        if numbers.len() < MAX_BLOCKS {
            numbers.extend(number.and_then(decimal::<u64>));
        }
    });
    if listed.is_err() {
        return;
    }
    // Hot-plugged blocks have higher numbers than those present at boot. If the highest ones are online, MemTotal is lower for
    // another reason, such as the limit of a container.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let is_offline = |number: &&u64| {
        root.with_text(&format!("{MEMORY}/memory{number}/state"), |text| text.trim() == "offline") == Ok(true)
    };
    if !numbers.iter().take(SAMPLE).any(|number| is_offline(&number)) {
        return;
    }
    let offline = numbers.iter().filter(is_offline).count() as u64;
    problems.push(Problem::new(
        Source::file(MEMORY),
        ProblemKind::OfflineMemory { bytes: offline.saturating_mul(size) },
        "it is not counted; chmem(8) brings it online",
    ));
}

/// The CPUs online. If they cannot be read, one CPU is assumed.
fn online(root: &Root, problems: &mut Vec<Problem>) -> Limit {
    let source = Source::file(ONLINE);
    let amount = match read_value(root, ONLINE, some_cpus, "a list of CPUs") {
        Ok(cpus) => Amount::Cpus(cpus),
        Err(kind) => {
            problems.push(Problem::new(source.clone(), kind, Resource::Cpu.assumed()));
            Amount::Unknown(Resource::Cpu)
        }
    };
    Limit::new(Scope::Host, amount, source)
}

/// A list of at least one CPU.
fn some_cpus(text: &str) -> Option<CpuSet> {
    CpuSet::parse(text).filter(|cpus| !cpus.is_empty())
}

/// The affinity in `status`, the /proc/PID/status of a process; that of PID 1 for a machine. If not even the directory that
/// contains the file is visible, no restriction is assumed: an image has no /proc, and `hidepid=` hides PID 1 from
/// unprivileged users.
pub fn affinity(root: &Root, status: &str, scope: Scope, problems: &mut Vec<Problem>) -> Option<Limit> {
    const KEY: &str = "Cpus_allowed_list";
    let amount = match allowed_cpus(root, status) {
        Ok(cpus) => Amount::Cpus(cpus),
        Err(ProblemKind::Unreadable(ReadError::Missing)) => {
            let directory = status.rsplit_once('/').map_or("", |(directory, _)| directory);
            if root.has_directory(directory) {
                let consequence = "assuming that all online CPUs may be used";
                problems.push(Problem::unreadable(status, ReadError::Missing, consequence));
            }
            return None;
        }
        Err(kind) => {
            problems.push(Problem::with_key(status, KEY, kind, Resource::Cpu.assumed()));
            Amount::Unknown(Resource::Cpu)
        }
    };
    Some(Limit::new(scope, amount, Source::key(status, 0, KEY)))
}

fn allowed_cpus(root: &Root, status: &str) -> Result<CpuSet, ProblemKind> {
    root.with_text(status, |text| {
        // The kernel always writes this line.
        let value = field(text, "Cpus_allowed_list:").ok_or(ProblemKind::Absent)?;
        some_cpus(value).ok_or_else(|| ProblemKind::bad_value(value, "a list of CPUs"))
    })?
}

/// MemTotal minus the memory reserved for huge pages, and MemTotal itself. What cannot be read is assumed to be minimal.
fn memory(root: &Root, problems: &mut Vec<Problem>) -> (Limit, Option<u64>) {
    let limit = |amount, key| Limit::new(Scope::Host, amount, Source::key(MEMINFO, 0, key));
    let mut unknown = |key, kind| {
        problems.push(Problem::with_key(MEMINFO, key, kind, Resource::Memory.assumed()));
        limit(Amount::Unknown(Resource::Memory), key)
    };
    let read = root.with_text(MEMINFO, memory_of).unwrap_or_else(|error| Err(error.into()));
    let (total, held) = match read {
        Ok(read) => read,
        Err(kind) => return (unknown("MemTotal", kind), None),
    };
    let held = match held {
        Ok(held) => held,
        Err((key, kind)) => return (unknown(key, kind), Some(total)),
    };
    let usable = if root.mounts().mounts.is_lxcfs(MEMINFO) {
        // lxcfs shows the memory of the container, but the huge pages of the whole machine, which are not part of it.
        match if held > 0 { nodes::total(root) } else { Ok(None) } {
            Ok(Some(machine)) => total.min(machine.saturating_sub(held)),
            Ok(None) => total,
            Err(problem) => {
                problems.push(*problem);
                return (limit(Amount::Unknown(Resource::Memory), "MemTotal"), Some(total));
            }
        }
    } else {
        total.saturating_sub(held)
    };
    let key = if usable < total { "MemTotal minus Hugetlb" } else { "MemTotal" };
    (limit(Amount::Memory(usable), key), Some(total))
}

/// The memory reserved for huge pages, in bytes, or the line that is invalid.
type HugePages = Result<u64, (&'static str, ProblemKind)>;

/// MemTotal, and the memory reserved for huge pages, which is part of MemTotal but of no use to PyPNM. Both in bytes.
fn memory_of(meminfo: &str) -> Result<(u64, HugePages), ProblemKind> {
    let value = field(meminfo, "MemTotal:").ok_or(ProblemKind::Absent)?;
    let total = kibibytes(value).filter(|bytes| *bytes > 0);
    let total = total.ok_or_else(|| ProblemKind::bad_value(value, "a number of kB above 0"))?;
    Ok((total, held_of(meminfo)))
}

/// If the lines are absent, the kernel is built without huge pages. A line that is present must be complete.
fn held_of(meminfo: &str) -> HugePages {
    const PAGES: &str = "HugePages_Total";
    let sum = field(meminfo, "Hugetlb:");
    if let Some(bytes) = sum.and_then(kibibytes) {
        return Ok(bytes);
    }
    // Kernels before 4.16 do not show the sum over all page sizes.
    match (field(meminfo, "HugePages_Total:"), field(meminfo, "Hugepagesize:")) {
        (Some(pages), Some(size)) => match (decimal::<u64>(pages), kibibytes(size)) {
            (Some(0), _) => Ok(0),
            (Some(pages), Some(size)) => Ok(pages.saturating_mul(size)),
            (None, _) => Err((PAGES, ProblemKind::bad_value(pages, "a number of pages"))),
            (_, None) => Err(("Hugepagesize", ProblemKind::bad_value(size, "a number of kB"))),
        },
        (None, None) => match sum {
            Some(sum) => Err(("Hugetlb", ProblemKind::bad_value(sum, "a number of kB"))),
            // Each line ends in a newline. If it is missing, the text is truncated, and these lines are near its end.
            None if meminfo.contains('\n') && !meminfo.ends_with('\n') => Err((PAGES, ProblemKind::Absent)),
            None => Ok(0),
        },
        (Some(_), None) => Err(("Hugepagesize", ProblemKind::Absent)),
        (None, Some(_)) => Err((PAGES, ProblemKind::Absent)),
    }
}

/// The value of the line `name: value` of a /proc file; `name` with its colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    rest_of_line(text, name).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::offline_memory;
    use crate::problem::ProblemKind;
    use crate::root::Root;

    /// A machine with 1 GiB and this number of blocks of 128 MiB, all of them offline.
    fn offline_bytes(blocks: u64) -> Option<u64> {
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let memory = directory.path().join("sys/devices/system/memory");
        for block in 0..blocks {
            let block = memory.join(format!("memory{block}"));
            let made = std::fs::create_dir_all(&block);
            made.and_then(|()| std::fs::write(block.join("state"), "offline\n"))
                .unwrap_or_else(|error| panic!("{error}"));
        }
        std::fs::write(memory.join("block_size_bytes"), "8000000\n")
            .unwrap_or_else(|error| panic!("{error}"));
        let root = Root::below(directory.path()).unwrap_or_else(|error| panic!("{error}"));
        let mut problems = Vec::new();
        offline_memory(&root, 1 << 30, &mut problems);
        problems.into_iter().find_map(|problem| match problem.kind {
            ProblemKind::OfflineMemory { bytes } => Some(bytes),
            _ => None,
        })
    }

    #[test]
    fn offline_memory_is_counted() {
        assert_eq!(offline_bytes(100), Some(100 << 27));
        assert_eq!(offline_bytes(8), None, "the kernel keeps some for itself");
    }
}
