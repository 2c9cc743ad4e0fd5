//! Memory nodes (NUMA): the memory of those nodes that a cpuset, `AllowedMemoryNodes=` or `NUMAPolicy=bind` permits, minus
//! the memory that each node reserves for huge pages.

use std::collections::BTreeMap;

use crate::limits::{Amount, Resource, read_value};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{decimal, kibibytes};
use crate::problem::{FileName, Problem, ProblemKind};
use crate::root::{ReadError, Root};

/// Documentation/ABI/stable/sysfs-devices-node
pub(super) const NODES: &str = "/sys/devices/system/node";

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
    if let Ok(Some(online)) = online(root)
        && !online.is_empty()
        && online.intersection(allowed) == online
    {
        return None;
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

/// The nodes of the machine. `None`: the list is invalid.
pub(super) fn online(root: &Root) -> Result<Option<CpuSet>, ReadError> {
    root.with_text(&format!("{NODES}/online"), CpuSet::parse)
}

/// Whether the machine has, or may have, several memory nodes, so that it matters which of them are permitted.
pub fn may_be_several(root: &Root) -> bool {
    match online(root) {
        Ok(online) => online.is_none_or(|online| online.count() != 1),
        Err(ReadError::Missing) => root.has_directory(NODES),
        Err(_) => true,
    }
}

/// The memory of all nodes of the machine, in bytes. `None`: the kernel shows no nodes.
pub fn total(root: &Root) -> Result<Option<u64>, Box<Problem>> {
    let list = format!("{NODES}/online");
    let online = match online(root) {
        Ok(Some(online)) if !online.is_empty() => online,
        Ok(_) => return unknown(list, "", ProblemKind::Absent),
        Err(ReadError::Missing) if !root.has_directory(NODES) => return Ok(None),
        Err(error) => return unknown(list, "", error.into()),
    };
    let mut sum = 0_u64;
    for node in online.iter() {
        let Some(bytes) = bytes(root, node)? else {
            return unknown(list, "", ProblemKind::Absent);
        };
        sum = sum.saturating_add(bytes);
    }
    Ok(Some(sum))
}

/// MemTotal of a node, in bytes. `None`: there is no such node.
fn bytes(root: &Root, node: u32) -> Result<Option<u64>, Box<Problem>> {
    let directory = format!("{NODES}/node{node}");
    let file = format!("{directory}/meminfo");
    let kind = match meminfo(root, &file, "MemTotal:") {
        Ok(bytes) => return Ok(Some(bytes)),
        Err(ProblemKind::Unreadable(ReadError::Missing)) if root.has_directory(&directory) => {
            ProblemKind::Absent
        }
        Err(ProblemKind::Unreadable(ReadError::Missing)) => return Ok(None),
        Err(kind) => kind,
    };
    unknown(file, "MemTotal", kind)
}

/// The memory of a node is unknown because of a file or a key in it.
fn unknown<T>(file: impl Into<FileName>, key: &'static str, kind: ProblemKind) -> Result<T, Box<Problem>> {
    Err(Box::new(Problem::with_key(file, key, kind, Resource::Memory.assumed())))
}

/// A number of kB in the meminfo of the machine or of a node, in bytes.
fn meminfo(root: &Root, file: &str, name: &str) -> Result<u64, ProblemKind> {
    root.with_text(file, |text| {
        let value = field(text, name).ok_or(ProblemKind::Absent)?;
        kibibytes(value).ok_or_else(|| ProblemKind::bad_value(value, "a number of kB"))
    })?
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
    let entries = match root.entries(&directory) {
        Ok(entries) => entries,
        Err(ReadError::Missing) => return Ok(0),
        Err(error) => return unknown(directory, "", error.into()),
    };
    let mut held = 0_u64;
    for entry in entries {
        let size =
            entry.name.strip_prefix("hugepages-").and_then(|size| decimal::<u64>(size.strip_suffix("kB")?));
        let Some(size) = size else {
            continue;
        };
        let file = format!("{directory}/{}/nr_hugepages", entry.name);
        let pages = read_value(root, &file, |text| decimal::<u64>(text.trim()), "a number of pages")
            .or_else(|kind| unknown(file, "", kind))?;
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
    let pages = root.with_text(&file, pages).unwrap_or_else(|error| Err(error.into()));
    let pages = pages.or_else(|kind| unknown(file, "HugePages_Total", kind))?;
    if pages == 0 {
        return Ok(0);
    }
    let size =
        meminfo(root, MEMINFO, "Hugepagesize:").or_else(|kind| unknown(MEMINFO, "Hugepagesize", kind))?;
    Ok(pages.saturating_mul(size))
}
