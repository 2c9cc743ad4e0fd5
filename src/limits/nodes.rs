//! Memory nodes (NUMA): the memory of those nodes that a cpuset, `AllowedMemoryNodes=` or `NUMAPolicy=bind` permits, minus
//! the memory that each node reserves for huge pages.

use std::collections::BTreeMap;

use crate::limits::{Amount, Resource};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{decimal, kibibytes};
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Documentation/ABI/stable/sysfs-devices-node
const NODES: &str = "/sys/devices/system/node";
const CONSEQUENCE: &str = "assuming minimal memory";

/// Memory nodes, and the bytes of each that are available to processes. Like sets of CPUs, they can be intersected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory(BTreeMap<u32, u64>);

impl NodeMemory {
    /// The memory of all these nodes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Keeps only the nodes that are also in `other`.
    pub fn intersect(&mut self, other: &Self) {
        self.0.retain(|node, _| other.0.contains_key(node));
    }
}

/// In the list format, such as `0,1,3`.
impl std::fmt::Display for NodeMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, node) in self.0.keys().enumerate() {
            write!(f, "{}{node}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The limit set by the nodes `allowed`. `None`: these are all nodes, or the machine has no memory nodes.
pub fn granted(root: &Root, allowed: &CpuSet, problems: &mut Vec<Problem>) -> Option<Amount> {
    let online = root.with_text(&format!("{NODES}/online"), CpuSet::parse);
    if let Ok(Some(mut online)) = online
        && !online.is_empty()
    {
        let all = online.count();
        online.intersect(allowed);
        if online.count() == all {
            return None;
        }
    }
    let mut granted = NodeMemory::default();
    for node in allowed.iter() {
        match usable_bytes(root, node) {
            Ok(Some(bytes)) => drop(granted.0.insert(node, bytes)),
            // The list may contain nodes that do not exist.
            Ok(None) => {}
            Err(problem) => {
                problems.push(*problem);
                return Some(Amount::Unknown(Resource::Memory));
            }
        }
    }
    if granted.0.is_empty() {
        return None;
    }
    Some(Amount::MemoryNodes(granted))
}

/// Whether the machine has, or may have, several memory nodes, so that it matters which of them are permitted.
pub fn may_be_several(root: &Root) -> bool {
    match root.with_text(&format!("{NODES}/online"), CpuSet::parse) {
        Ok(online) => online.is_none_or(|online| online.count() != 1),
        Err(ReadError::Missing) => root.has_directory(NODES),
        Err(_) => true,
    }
}

/// The memory of all nodes of the machine, in bytes. `None`: the kernel shows no nodes.
pub fn total(root: &Root) -> Result<Option<u64>, Box<Problem>> {
    let file = format!("{NODES}/online");
    let problem = |kind| Box::new(Problem::new(Source::file(file.clone()), kind, CONSEQUENCE));
    let online = match root.with_text(&file, CpuSet::parse) {
        Ok(Some(online)) if !online.is_empty() => online,
        Ok(_) => return Err(problem(ProblemKind::Absent)),
        Err(ReadError::Missing) if !root.has_directory(NODES) => return Ok(None),
        Err(error) => return Err(problem(ProblemKind::Unreadable(error))),
    };
    let mut sum = 0_u64;
    for node in online.iter() {
        sum = sum.saturating_add(bytes(root, node)?.ok_or_else(|| problem(ProblemKind::Absent))?);
    }
    Ok(Some(sum))
}

/// MemTotal of a node, in bytes. `None`: there is no such node.
fn bytes(root: &Root, node: u32) -> Result<Option<u64>, Box<Problem>> {
    let directory = format!("{NODES}/node{node}");
    let file = format!("{directory}/meminfo");
    let value = |text: &str| {
        let value = field(text, "MemTotal:").ok_or(ProblemKind::Absent)?;
        kibibytes(value).ok_or_else(|| ProblemKind::bad_value(value, "a number of kB"))
    };
    let kind = match root.with_text(&file, value) {
        Ok(Ok(bytes)) => return Ok(Some(bytes)),
        Ok(Err(kind)) => kind,
        Err(ReadError::Missing) if root.has_directory(&directory) => ProblemKind::Absent,
        Err(ReadError::Missing) => return Ok(None),
        Err(error) => ProblemKind::Unreadable(error),
    };
    let source = match kind {
        ProblemKind::Unreadable(_) => Source::file(file),
        _ => Source::key(file, 0, "MemTotal"),
    };
    Err(Box::new(Problem::new(source, kind, CONSEQUENCE)))
}

/// The value of the line `Node 0 name:   value` of a node's meminfo; `name` with its colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(name)).map(|(_, value)| value.trim())
}

/// MemTotal of a node minus the memory that it reserves for huge pages, in bytes. `None`: there is no such node.
fn usable_bytes(root: &Root, node: u32) -> Result<Option<u64>, Box<Problem>> {
    let Some(bytes) = bytes(root, node)? else {
        return Ok(None);
    };
    // The directory has the pages of all sizes, meminfo only those of the default size; either may be missing.
    let held = pages_of_all_sizes(root, node)?.max(pages_of_default_size(root, node)?);
    Ok(Some(bytes.saturating_sub(held)))
}

/// The memory reserved according to `hugepages-SIZEkB/nr_hugepages` of a node, in bytes
/// (Documentation/admin-guide/mm/hugetlbpage.rst). A kernel without huge pages has no such directory.
fn pages_of_all_sizes(root: &Root, node: u32) -> Result<u64, Box<Problem>> {
    let directory = format!("{NODES}/node{node}/hugepages");
    let unreadable = |file: String, error| Box::new(Problem::unreadable(file, error, CONSEQUENCE));
    let entries = match root.entries(&directory) {
        Ok(entries) => entries,
        Err(ReadError::Missing) => return Ok(0),
        Err(error) => return Err(unreadable(directory, error)),
    };
    let mut held = 0_u64;
    for entry in entries {
        let size =
            entry.name.strip_prefix("hugepages-").and_then(|size| decimal::<u64>(size.strip_suffix("kB")?));
        let Some(size) = size else {
            continue;
        };
        let file = format!("{directory}/{}/nr_hugepages", entry.name);
        let text = root.text(&file).map_err(|error| unreadable(file.clone(), error))?;
        let pages = decimal::<u64>(text.trim()).ok_or_else(|| {
            let source = Source::file(file);
            Box::new(Problem::bad_value(source, text.trim(), "a number of pages", CONSEQUENCE))
        })?;
        held = held.saturating_add(pages.saturating_mul(size).saturating_mul(1024));
    }
    Ok(held)
}

/// The memory that a node reserves for huge pages of the default size, in bytes: their number is in its meminfo, their size
/// in that of the machine.
fn pages_of_default_size(root: &Root, node: u32) -> Result<u64, Box<Problem>> {
    const MEMINFO: &str = "/proc/meminfo";
    let file = format!("{NODES}/node{node}/meminfo");
    let pages = |text: &str| {
        let Some(value) = field(text, "HugePages_Total:") else {
            // The kernel writes all three of these lines, and each ends in a newline. Otherwise the text is truncated.
            let is_cut_off = text.contains('\n') && !text.ends_with('\n');
            let has_others =
                ["HugePages_Free:", "HugePages_Surp:"].iter().any(|key| field(text, key).is_some());
            return if is_cut_off || has_others { Err(ProblemKind::Absent) } else { Ok(0) };
        };
        decimal::<u64>(value).ok_or_else(|| ProblemKind::bad_value(value, "a number of pages"))
    };
    let bad = |file: &str, key: &str, kind| {
        let source = Source::key(file.to_owned(), 0, key.to_owned());
        Box::new(Problem::new(source, kind, CONSEQUENCE))
    };
    let pages = root.with_text(&file, pages).unwrap_or_else(|error| Err(ProblemKind::Unreadable(error)));
    let pages = pages.map_err(|kind| bad(&file, "HugePages_Total", kind))?;
    if pages == 0 {
        return Ok(0);
    }
    let size = |text: &str| {
        let value = field(text, "Hugepagesize:").ok_or(ProblemKind::Absent)?;
        kibibytes(value).ok_or_else(|| ProblemKind::bad_value(value, "a number of kB"))
    };
    let size = root.with_text(MEMINFO, size).unwrap_or_else(|error| Err(ProblemKind::Unreadable(error)));
    let size = size.map_err(|kind| bad(MEMINFO, "Hugepagesize", kind))?;
    Ok(pages.saturating_mul(size))
}
