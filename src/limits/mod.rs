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
use crate::problem::Source;

/// The resource that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// CPU time and CPUs.
    Cpu,
    /// Memory.
    Memory,
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
    /// The resource that it limits.
    pub fn resource(&self) -> Resource {
        match self.amount {
            Amount::Memory(_) | Amount::MemoryNodes(_) | Amount::Unknown(Resource::Memory) => {
                Resource::Memory
            }
            Amount::CpuTime(_) | Amount::Cpus(_) | Amount::Unknown(Resource::Cpu) => Resource::Cpu,
        }
    }
}
