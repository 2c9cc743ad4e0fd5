//! The machine's own limits: CPUs online, the affinity that PID 1 hands down, and the memory that processes can get.

use memchr::memmem;

use crate::limits::{Amount, Limit, Resource, Scope, nodes};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{decimal, kibibytes};
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Kernel, Documentation/admin-guide/cputopology.rst: the CPUs that are online, not those possible or present.
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// proc_pid_status(5): `Cpus_allowed_list`, what `CPUAffinity=` of systemd-system.conf(5) or isolcpus leave.
pub const PID_1_STATUS: &str = "/proc/1/status";
/// From here on more memory changes nothing but what an operator sets (the guide's last guardrail, 24 GB).
const ENOUGH_MEMORY: u64 = 24_000_000_000;
/// proc_meminfo(5).
const MEMINFO: &str = "/proc/meminfo";

/// What the machine grants.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its limits.
    pub limits: Vec<Limit>,
    /// MemTotal in bytes, of which percentages are; `None` where it can't be told.
    pub memory_total: Option<u64>,
}

/// Reads the machine's limits below `root`.
pub fn read(root: &Root, problems: &mut Vec<Problem>) -> Host {
    let mut limits = Vec::with_capacity(16);
    limits.push(online(root, problems));
    limits.extend(affinity(root, PID_1_STATUS, Scope::Inherited, problems));
    let (memory, memory_total) = memory(root, problems);
    limits.push(memory);
    offline_memory(root, memory_total, problems);
    Host { limits, memory_total }
}

/// Where the CPUs online are not those of the kernel, counts them instead of taking them for particular ones. lxcfs shows
/// a container as many as it is granted, from 0 on, while affinity and cpuset name the machine's own; no kernel has an
/// affinity or an effective cpuset without a CPU that is online.
pub fn recognize_virtual_cpus(root: &Root, limits: &mut [Limit]) {
    let is_online = |limit: &Limit| *limit.source.file == *ONLINE;
    let Some(Amount::Cpus(online)) = limits.iter().find(|limit| is_online(limit)).map(|limit| &limit.amount)
    else {
        return;
    };
    let is_disjoint = |limit: &Limit| match &limit.amount {
        Amount::Cpus(set) => {
            let mut common = set.clone();
            common.intersect(online);
            common.is_empty()
        }
        _ => false,
    };
    if root.mounts().mounts.is_lxcfs(ONLINE) || limits.iter().any(is_disjoint) {
        let milli = u64::from(online.count()) * 1000;
        for limit in limits.iter_mut().filter(|limit| is_online(limit)) {
            limit.amount = Amount::CpuTime(milli);
        }
    }
}

/// Says how much memory has been plugged in and not been put to use: what hot-plug adds may stay offline, by the kernel's or
/// the operator's choice (Documentation/admin-guide/mm/memory-hotplug.rst).
fn offline_memory(root: &Root, total: Option<u64>, problems: &mut Vec<Problem>) {
    const MEMORY: &str = "/sys/devices/system/memory";
    // More is not known to be worth a look at each block.
    const MOST_BLOCKS: usize = 8192;
    const SAMPLE: usize = 8;
    let Some(total) = total.filter(|total| *total < ENOUGH_MEMORY) else {
        return;
    };
    let size = |text: &str| u64::from_str_radix(text.trim(), 16).ok();
    let Ok(Some(size)) = root.with_text(&format!("{MEMORY}/block_size_bytes"), size) else {
        return;
    };
    // The kernel keeps some for itself from the start, a crash kernel's for one.
    let plausible = total.saturating_add(total / 8).saturating_add(1 << 30);
    let blocks = root.link_count(MEMORY).filter(|links| *links > 1);
    if blocks.is_some_and(|blocks| blocks.saturating_mul(size) <= plausible) {
        return;
    }
    let mut numbers = Vec::new();
    let listed = root.each_entry(MEMORY, |name, _| {
        let number = name.strip_prefix(b"memory").and_then(|number| std::str::from_utf8(number).ok());
        if numbers.len() < MOST_BLOCKS {
            numbers.extend(number.and_then(decimal::<u64>));
        }
    });
    if listed.is_err() {
        return;
    }
    // What is plugged in lies above what was there. Where its upper end is online, MemTotal is less for another reason, such
    // as a container's.
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let is_offline = |number: &&u64| {
        root.with_text(&format!("{MEMORY}/memory{number}/state"), |text| text.trim() == "offline") == Ok(true)
    };
    if !numbers.iter().take(SAMPLE).any(|number| is_offline(&number)) {
        return;
    }
    let offline = numbers.iter().filter(is_offline).count() as u64;
    problems.push(Problem {
        source: Source::file(MEMORY),
        kind: ProblemKind::OfflineMemory { bytes: offline.saturating_mul(size) },
        consequence: "it is not counted; chmem(8) brings it online".into(),
    });
}

fn limit(amount: Amount, source: Source) -> Limit {
    Limit { scope: Scope::Host, amount, source, shared_by: 1 }
}

/// The CPUs online; unreadable counts as one CPU.
fn online(root: &Root, problems: &mut Vec<Problem>) -> Limit {
    const INSTEAD: &str = "assuming 1 CPU";
    let source = Source::file(ONLINE);
    let amount = root.with_text(ONLINE, |text| match CpuSet::parse(text) {
        Some(cpus) if !cpus.is_empty() => Amount::Cpus(cpus),
        _ => {
            problems.push(Problem::bad_value(source.clone(), text.trim(), "a list of CPUs", INSTEAD));
            Amount::Unknown(Resource::Cpu)
        }
    });
    let amount = amount.unwrap_or_else(|error| {
        problems.push(Problem::unreadable(ONLINE, error, INSTEAD));
        Amount::Unknown(Resource::Cpu)
    });
    limit(amount, source)
}

/// The affinity in `status`, a process's /proc/PID/status: for a machine PID 1's. Where not even the directory around it can
/// be seen, nothing is known to narrow the CPUs online (an image has no /proc; an unprivileged caller under `hidepid=`
/// does not see PID 1).
pub fn affinity(root: &Root, status: &str, scope: Scope, problems: &mut Vec<Problem>) -> Option<Limit> {
    const KEY: &str = "Cpus_allowed_list";
    const INSTEAD: &str = "assuming 1 CPU";
    let source = || Source::key(status.to_owned(), 0, KEY);
    let amount = root.with_text(status, |text| {
        // The kernel always writes that line.
        let value = field(text, "Cpus_allowed_list:").ok_or(ProblemKind::Absent)?;
        match CpuSet::parse(value) {
            Some(cpus) if !cpus.is_empty() => Ok(cpus),
            _ => Err(ProblemKind::bad_value(value, "a list of CPUs")),
        }
    });
    let amount = match amount {
        Ok(Ok(cpus)) => Amount::Cpus(cpus),
        Ok(Err(kind)) => {
            problems.push(Problem { source: source(), kind, consequence: INSTEAD.into() });
            Amount::Unknown(Resource::Cpu)
        }
        Err(ReadError::Missing) => {
            let directory = status.rsplit_once('/').map_or("", |(directory, _)| directory);
            if root.has_directory(directory) {
                let consequence = "assuming that all online CPUs may be used";
                problems.push(Problem::unreadable(status.to_owned(), ReadError::Missing, consequence));
            }
            return None;
        }
        Err(error) => {
            problems.push(Problem::unreadable(status.to_owned(), error, INSTEAD));
            Amount::Unknown(Resource::Cpu)
        }
    };
    Some(Limit { scope, amount, source: source(), shared_by: 1 })
}

/// MemTotal less what is held for huge pages, and MemTotal itself; what cannot be read is assumed to be minimal.
fn memory(root: &Root, problems: &mut Vec<Problem>) -> (Limit, Option<u64>) {
    const INSTEAD: &str = "assuming minimal memory";
    let source = |key| Source::key(MEMINFO, 0, key);
    let read = root.with_text(MEMINFO, memory_of).unwrap_or_else(|error| Err(ProblemKind::Unreadable(error)));
    let (total, held) = match read {
        Ok(read) => read,
        Err(kind) => {
            let unreadable = matches!(kind, ProblemKind::Unreadable(_));
            let place = if unreadable { Source::file(MEMINFO) } else { source("MemTotal") };
            problems.push(Problem { source: place, kind, consequence: INSTEAD.into() });
            return (limit(Amount::Unknown(Resource::Memory), source("MemTotal")), None);
        }
    };
    let held = match held {
        Ok(held) => held,
        Err((key, kind)) => {
            problems.push(Problem { source: source(key), kind, consequence: INSTEAD.into() });
            return (limit(Amount::Unknown(Resource::Memory), source(key)), Some(total));
        }
    };
    let usable = if root.mounts().mounts.is_lxcfs(MEMINFO) {
        // lxcfs shows the container's memory, and the huge pages of the whole machine: they take from the machine's.
        match if held > 0 { nodes::total(root) } else { Ok(None) } {
            Ok(Some(machine)) => total.min(machine.saturating_sub(held)),
            Ok(None) => total,
            Err(problem) => {
                problems.push(*problem);
                return (limit(Amount::Unknown(Resource::Memory), source("MemTotal")), Some(total));
            }
        }
    } else {
        total.saturating_sub(held)
    };
    let key = if usable < total { "MemTotal minus Hugetlb" } else { "MemTotal" };
    (limit(Amount::Memory(usable), source(key)), Some(total))
}

/// What is held for huge pages, in bytes, or the line that can't be understood.
type Held = Result<u64, (&'static str, ProblemKind)>;

/// MemTotal, and what is held for huge pages: in MemTotal, of no use to PyPNM. Both in bytes.
fn memory_of(meminfo: &str) -> Result<(u64, Held), ProblemKind> {
    let value = field(meminfo, "MemTotal:").ok_or(ProblemKind::Absent)?;
    let total = kibibytes(value).filter(|bytes| *bytes > 0);
    let total = total.ok_or_else(|| ProblemKind::bad_value(value, "a number of kB above 0"))?;
    Ok((total, held_of(meminfo)))
}

/// Absent lines say that there are no huge pages: the kernel is built without them. A line that is there must be whole.
fn held_of(meminfo: &str) -> Held {
    const PAGES: &str = "HugePages_Total";
    let sum = field(meminfo, "Hugetlb:");
    if let Some(bytes) = sum.and_then(kibibytes) {
        return Ok(bytes);
    }
    // Kernels before 4.16 have no sum over the page sizes.
    match (field(meminfo, "HugePages_Total:"), field(meminfo, "Hugepagesize:")) {
        (Some(pages), Some(size)) => match (decimal::<u64>(pages), kibibytes(size)) {
            (Some(0), _) => Ok(0),
            (Some(pages), Some(size)) => Ok(pages.saturating_mul(size)),
            (None, _) => Err((PAGES, ProblemKind::bad_value(pages, "a number of pages"))),
            (_, None) => Err(("Hugepagesize", ProblemKind::bad_value(size, "a number of kB"))),
        },
        (None, None) => match sum {
            Some(sum) => Err(("Hugetlb", ProblemKind::bad_value(sum, "a number of kB"))),
            // Each line ends in a newline; without it the rest is missing, and they come late.
            None if meminfo.contains('\n') && !meminfo.ends_with('\n') => Err((PAGES, ProblemKind::Absent)),
            None => Ok(0),
        },
        (Some(_), None) => Err(("Hugepagesize", ProblemKind::Absent)),
        (None, Some(_)) => Err((PAGES, ProblemKind::Absent)),
    }
}

/// The value of the line `name: value` of a /proc file; `name` with its colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = match text.strip_prefix(name) {
        Some(value) => value,
        None => memmem::find_iter(text.as_bytes(), name)
            .find(|at| at.checked_sub(1).and_then(|before| text.as_bytes().get(before)) == Some(&b'\n'))
            .and_then(|at| text.get(at + name.len()..))?,
    };
    let end = memchr::memchr(b'\n', value.as_bytes()).unwrap_or(value.len());
    value.get(..end).map(str::trim)
}
