//! Memory nodes (NUMA): how much memory those have that a cpuset, `AllowedMemoryNodes=` or `NUMAPolicy=bind` leaves.

use std::collections::BTreeMap;

use crate::limits::{Amount, Resource};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::kibibytes;
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::{ReadError, Root};

/// Documentation/ABI/stable/sysfs-devices-node
const NODES: &str = "/sys/devices/system/node";
const CONSEQUENCE: &str = "taking the safest low-memory baseline";

/// Memory nodes and the bytes that each has. Sets of them intersect, as sets of CPUs do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMemory(BTreeMap<u32, u64>);

impl NodeMemory {
    /// All their memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Keeps the nodes that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.retain(|node, _| other.0.contains_key(node));
    }
}

/// `0-1,3` as for CPUs.
impl std::fmt::Display for NodeMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, node) in self.0.keys().enumerate() {
            write!(f, "{}{node}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What the nodes of `allowed` grant. `None`: they are all that there are, or there are no nodes at all.
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
        match bytes(root, node) {
            Ok(Some(bytes)) => drop(granted.0.insert(node, bytes)),
            // A list may go further than the nodes there are.
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

/// The memory of all nodes of the machine, in bytes; `None`: the kernel shows no nodes.
pub fn total(root: &Root) -> Result<Option<u64>, Box<Problem>> {
    let file = format!("{NODES}/online");
    let problem = |kind| {
        Box::new(Problem { source: Source::file(file.clone()), kind, consequence: CONSEQUENCE.into() })
    };
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

/// MemTotal of one node; `None`: there is no such node.
fn bytes(root: &Root, node: u32) -> Result<Option<u64>, Box<Problem>> {
    const KEY: &str = "MemTotal:";
    let directory = format!("{NODES}/node{node}");
    let file = format!("{directory}/meminfo");
    let value = |text: &str| {
        // `Node 0 MemTotal:       4194304 kB`
        let line = text.lines().find_map(|line| line.split_once(KEY)).map(|(_, value)| value.trim());
        let line = line.ok_or(ProblemKind::Absent)?;
        kibibytes(line).ok_or_else(|| ProblemKind::bad_value(line, "a number of kB"))
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
    Err(Box::new(Problem { source, kind, consequence: CONSEQUENCE.into() }))
}
