//! Limits as data: which resource, how much, and where it says so. One module a family:
//! [`host`] (the machine, and its memory [`nodes`]), [`cgroup`] (its container), [`service`] (the unit and its slices), [`process`] (a process that
//! is the service already, or is about to become it).
//!
//! Collecting is all that happens here; [`crate::capacity`] takes the minimum.

pub mod cgroup;
pub mod host;
pub mod nodes;
pub mod process;
pub mod service;

use crate::limits::nodes::NodeMemory;
use crate::parse::cpu_list::CpuSet;
use crate::problem::Source;

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU time and CPUs.
    Cpu,
    /// RAM.
    Memory,
}

/// How much a limit grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Bytes of RAM.
    Memory(u64),
    /// CPU time in milli-CPUs (1000: one CPU all the time).
    CpuTime(u64),
    /// The CPUs it may run on.
    Cpus(CpuSet),
    /// The memory of some memory nodes.
    MemoryNodes(NodeMemory),
    /// There is, or may be, a limit that could not be read: it counts as the smallest there is.
    Unknown(Resource),
}

/// Who sets a limit, from the outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The machine.
    Host,
    /// The affinity that PID 1 hands down, unless a service replaces it.
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

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Who sets it.
    pub scope: Scope,
    /// How much it grants.
    pub amount: Amount,
    /// Where it says so.
    pub source: Source,
    /// How many of the sized units live on it; each gets an equal share. At least 1.
    pub shared_by: u32,
}

impl Limit {
    /// What it is on.
    pub fn resource(&self) -> Resource {
        match self.amount {
            Amount::Memory(_) | Amount::MemoryNodes(_) | Amount::Unknown(Resource::Memory) => {
                Resource::Memory
            }
            Amount::CpuTime(_) | Amount::Cpus(_) | Amount::Unknown(Resource::Cpu) => Resource::Cpu,
        }
    }
}
