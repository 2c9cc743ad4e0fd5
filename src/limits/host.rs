//! The machine's own limits: CPUs online, the affinity that PID 1 hands down, and the memory that processes can get.

use memchr::memmem;

use crate::limits::{Amount, Limit, Resource, Scope};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::decimal;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Kernel, Documentation/admin-guide/cputopology.rst: the CPUs that are online, not those possible or present.
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// proc_pid_status(5): `Cpus_allowed_list`, what `CPUAffinity=` of systemd-system.conf(5) or isolcpus leave.
pub const PID_1_STATUS: &str = "/proc/1/status";
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
    Host { limits, memory_total }
}

fn limit(amount: Amount, source: Source) -> Limit {
    Limit { scope: Scope::Host, amount, source, shared_by: 1 }
}

/// The CPUs online; unreadable counts as one CPU.
fn online(root: &Root, problems: &mut Vec<Problem>) -> Limit {
    const INSTEAD: &str = "counting on 1 CPU";
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

/// The affinity in `status`, a process's /proc/PID/status: for a machine PID 1's. No such file, or no such line: nothing is
/// known to narrow the CPUs online (an image has no /proc; an unprivileged caller under `hidepid=` does not see PID 1).
pub fn affinity(root: &Root, status: &str, scope: Scope, problems: &mut Vec<Problem>) -> Option<Limit> {
    const KEY: &str = "Cpus_allowed_list";
    const INSTEAD: &str = "counting on 1 CPU";
    let source = || Source::key(status.to_owned(), 0, KEY);
    let amount = root.with_text(status, |text| {
        let value = field(text, "Cpus_allowed_list:")?;
        Some(match CpuSet::parse(value) {
            Some(cpus) if !cpus.is_empty() => Amount::Cpus(cpus),
            _ => {
                problems.push(Problem::bad_value(source(), value, "a list of CPUs", INSTEAD));
                Amount::Unknown(Resource::Cpu)
            }
        })
    });
    let amount = match amount {
        Ok(amount) => amount?,
        Err(ReadError::Missing) => return None,
        Err(error) => {
            problems.push(Problem::unreadable(status.to_owned(), error, INSTEAD));
            Amount::Unknown(Resource::Cpu)
        }
    };
    Some(Limit { scope, amount, source: source(), shared_by: 1 })
}

/// MemTotal less what is held for huge pages, and MemTotal itself; unreadable counts as the least memory.
fn memory(root: &Root, problems: &mut Vec<Problem>) -> (Limit, Option<u64>) {
    let source = |key| Source::key(MEMINFO, 0, key);
    let read = root.with_text(MEMINFO, memory_of).unwrap_or_else(|error| Err(ProblemKind::Unreadable(error)));
    match read {
        Ok((total, held)) if held > 0 => {
            let usable = total.saturating_sub(held);
            (limit(Amount::Memory(usable), source("MemTotal less Hugetlb")), Some(total))
        }
        Ok((total, _)) => (limit(Amount::Memory(total), source("MemTotal")), Some(total)),
        Err(kind) => {
            let unreadable = matches!(kind, ProblemKind::Unreadable(_));
            let place = if unreadable { Source::file(MEMINFO) } else { source("MemTotal") };
            let instead = "taking the safest low-memory baseline".into();
            problems.push(Problem { source: place, kind, consequence: instead });
            (limit(Amount::Unknown(Resource::Memory), source("MemTotal")), None)
        }
    }
}

/// MemTotal, and what is held for huge pages: in MemTotal, of no use to PyPNM. Both in bytes.
fn memory_of(meminfo: &str) -> Result<(u64, u64), ProblemKind> {
    let value = field(meminfo, "MemTotal:").ok_or(ProblemKind::Absent)?;
    let total = kibibytes(value).filter(|bytes| *bytes > 0);
    let total = total.ok_or_else(|| ProblemKind::bad_value(value, "a number of kB above 0"))?;
    // Kernels before 4.16 have no sum over the page sizes.
    let held = field(meminfo, "Hugetlb:").and_then(kibibytes).or_else(|| {
        let pages: u64 = decimal(field(meminfo, "HugePages_Total:")?)?;
        pages.checked_mul(kibibytes(field(meminfo, "Hugepagesize:")?)?)
    });
    Ok((total, held.unwrap_or(0)))
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

/// `4016576 kB`, in bytes.
fn kibibytes(value: &str) -> Option<u64> {
    decimal::<u64>(value.strip_suffix("kB")?.trim_end())?.checked_mul(1024)
}
