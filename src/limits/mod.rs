//! Limits as data: the resource, the amount, and the source. There is a module for each kind: [`host`] (the machine, and its
//! memory [`nodes`]), [`cgroup`] (the container), [`service`] (the unit and its slices), and [`process`] (a process that is
//! the service, or will execute it).
//!
//! Limits are only collected here; [`crate::capacity`] determines the minimum.

pub mod cgroup;
pub mod host;
pub mod nodes;
pub mod process;
pub mod service;

use crate::limits::nodes::NodeMemory;
use crate::parse::cpu_list::CpuSet;
use crate::problem::{ProblemKind, Source};
use crate::root::Root;

/// The resource that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU time and CPUs.
    Cpu,
    /// Memory.
    Memory,
}

impl Resource {
    /// The consequence if nothing is known about the resource.
    pub fn assumed(self) -> &'static str {
        match self {
            Self::Cpu => "assuming 1 CPU",
            Self::Memory => "assuming minimal memory",
        }
    }
}

/// The amount that a limit grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Memory in bytes.
    Memory(u64),
    /// CPU time in milli-CPUs (1000 is one CPU).
    CpuTime(u64),
    /// The CPUs that may be used.
    Cpus(CpuSet),
    /// The memory of some memory nodes.
    MemoryNodes(NodeMemory),
    /// There is or may be a limit that could not be read; it is assumed to be minimal.
    Unknown(Resource),
}

/// The scope of a limit, from the outermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The machine.
    Host,
    /// The affinity that services inherit from PID 1, unless they replace it.
    Inherited,
    /// A cgroup at or above PID 1.
    Container,
    /// A slice above the service.
    Slice,
    /// The service's unit.
    Service,
    /// The cgroup and the affinity of the service's process.
    Process,
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its scope.
    pub scope: Scope,
    /// The amount that it grants.
    pub amount: Amount,
    /// Where it is set.
    pub source: Source,
    /// The number of sized units that share it equally; at least 1.
    pub shared_by: u32,
}

impl Limit {
    /// A limit that is not shared.
    pub fn new(scope: Scope, amount: Amount, source: Source) -> Self {
        Self { scope, amount, source, shared_by: 1 }
    }

    /// The resource that it limits.
    pub fn resource(&self) -> Resource {
        match self.amount {
            Amount::Memory(_) | Amount::MemoryNodes(_) => Resource::Memory,
            Amount::CpuTime(_) | Amount::Cpus(_) => Resource::Cpu,
            Amount::Unknown(resource) => resource,
        }
    }
}

/// Reads and parses a file that is a single value.
fn read_value<T>(
    root: &Root,
    path: &str,
    parse: impl FnOnce(&str) -> Option<T>,
    expected: &'static str,
) -> Result<T, ProblemKind> {
    root.with_text(path, |text| parse(text).ok_or_else(|| ProblemKind::bad_value(text.trim(), expected)))?
}
