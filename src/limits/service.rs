//! The service's own limits and those of the slices around it, from what their units say. Files are read by
//! [`crate::units`]; only the CPUs of NUMA nodes are looked up here.
//!
//! A value means what it means to systemd (src/core/load-fragment.c): the last valid one wins, an empty one resets, lists
//! of CPUs add up. Where systemd's versions differ, or what they do can't be seen from here, the smaller limit counts:
//!
//! - `MemoryLimit=` is gone in 258, with cgroup version 1. It counts wherever it would in 257: where nothing of the newer
//!   settings (`MemoryMax=` …) is said in the same unit.
//! - Limits of the root slice (`-.slice`) are read and shown by systemd but written nowhere. Who sets one means it.
//! - `Startup…=` settings hold while the system starts, and are left out.
//! - A list of CPUs with an invalid word counts for nothing until 257 (`parse_cpu_set_extend()`), from 258 on its valid words
//!   count (`config_parse_cpu_set()`). What both grant counts.
//! - A percentage is of what systemd's `physical_memory()` says, in whole pages; without knowing it, the least.

mod reader;

use reader::SettingReader;

use crate::limits::{Amount, Limit, Resource, Scope, nodes};
use crate::parse::cpu_list::CpuSet;
use crate::problem::{Problem, Source, Sourced};
use crate::root::Root;
use crate::units::Unit;
use crate::units::name::{Name, Type};

/// The kernel says which CPUs a NUMA node has (Documentation/ABI/stable/sysfs-devices-node).
const NODES: &str = "/sys/devices/system/node";

/// A list of CPUs in both readings. Not both are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus {
    /// As systemd reads it until 257; empty: it restricts nothing.
    pub until_257: CpuSet,
    /// As systemd reads it from 258 on.
    pub from_258: CpuSet,
}

impl Cpus {
    /// The CPUs that it grants whoever reads it.
    pub fn granted(&self) -> CpuSet {
        let mut common = self.until_257.clone();
        match (self.until_257.is_empty(), self.from_258.is_empty()) {
            (true, _) => return self.from_258.clone(),
            (_, true) => {}
            (false, false) => common.intersect(&self.from_258),
        }
        common
    }
}

/// The NUMA nodes whose CPUs `CPUAffinity=numa` grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// `NUMAMask=all`
    All,
    /// Those of `NUMAMask=`; without them no CPU, and no restriction either.
    Some(CpuSet),
}

/// What a unit says about its resources. `None`: nothing, or `infinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    /// `MemoryMax=` in bytes.
    pub memory_max: Option<Sourced<u64>>,
    /// `MemoryHigh=` in bytes.
    pub memory_high: Option<Sourced<u64>>,
    /// `MemoryLimit=` in bytes, whether it counts or not.
    pub memory_limit: Option<Sourced<u64>>,
    /// Whether another setting of memory makes `MemoryLimit=` ineffective.
    pub memory_limit_ignored: bool,
    /// `CPUQuota=` in hundredths of a percent of one CPU.
    pub cpu_quota: Option<Sourced<u32>>,
    /// `AllowedCPUs=`
    pub allowed_cpus: Option<Sourced<Cpus>>,
    /// `AllowedMemoryNodes=`
    pub allowed_memory_nodes: Option<Sourced<Cpus>>,
    /// The nodes of `NUMAPolicy=bind`: the policy that confines.
    pub bound_nodes: Option<Sourced<CpuSet>>,
    /// `CPUAffinity=` with a list.
    pub cpu_affinity: Option<Sourced<Cpus>>,
    /// `CPUAffinity=numa`
    pub numa_affinity: Option<Sourced<Nodes>>,
    /// `Slice=`, or the default; `None` for a slice, and where it can't be told.
    pub slice: Option<String>,
    /// Settings whose value can't be told, and files that can't be read.
    pub unknown: Vec<(Resource, Source)>,
}

/// What `unit` says. `physical_memory`: what percentages are of. Pure.
pub fn settings(unit: &Unit, physical_memory: Option<u64>, problems: &mut Vec<Problem>) -> ResourceSettings {
    let mut settings = ResourceSettings::default();
    for source in &unit.unread {
        settings.unknown.push((Resource::Cpu, source.clone()));
        settings.unknown.push((Resource::Memory, source.clone()));
    }
    let Some(name) = Name::parse(&unit.name) else {
        return settings;
    };
    let mut reader =
        SettingReader { unit, name, physical_memory, settings: &mut settings, problems, reported: 0 };
    let memory_max = reader.memory("MemoryMax");
    let memory_high = reader.memory("MemoryHigh");
    let memory_limit = reader.memory("MemoryLimit");
    let others = ["MemoryMin", "MemoryLow", "MemorySwapMax"].map(|key| reader.memory(key).is_some());
    let cpu_quota = reader.cpu_quota();
    let allowed_cpus = reader.allowed("AllowedCPUs");
    let allowed_memory_nodes = reader.allowed("AllowedMemoryNodes");
    let ((cpu_affinity, numa_affinity), bound_nodes, slice) = match name.unit_type {
        Type::Service => {
            let mask = reader.numa_mask();
            (reader.affinity(&mask), reader.bound_nodes(&mask), reader.slice())
        }
        Type::Slice => ((None, None), None, None),
    };
    settings.memory_limit_ignored =
        memory_max.is_some() || memory_high.is_some() || others.into_iter().any(|said| said);
    settings.memory_max = memory_max;
    settings.memory_high = memory_high;
    settings.memory_limit = memory_limit;
    settings.cpu_quota = cpu_quota;
    settings.allowed_cpus = allowed_cpus;
    settings.allowed_memory_nodes = allowed_memory_nodes;
    settings.bound_nodes = bound_nodes;
    settings.cpu_affinity = cpu_affinity;
    settings.numa_affinity = numa_affinity;
    settings.slice = slice;
    settings
}

/// The limits that follow from `settings`, in `scope`.
pub fn limits(
    root: &Root,
    settings: &ResourceSettings,
    scope: Scope,
    problems: &mut Vec<Problem>,
) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut push = |amount: Amount, source: &Source| {
        limits.push(Limit { scope, amount, source: source.clone(), shared_by: 1 });
    };
    for (resource, source) in &settings.unknown {
        push(Amount::Unknown(*resource), source);
    }
    for said in settings.memory_max.iter().chain(&settings.memory_high) {
        push(Amount::Memory(said.value), &said.source);
    }
    if let Some(said) = settings.memory_limit.as_ref().filter(|_| !settings.memory_limit_ignored) {
        push(Amount::Memory(said.value), &said.source);
    }
    if let Some(said) = &settings.cpu_quota {
        push(Amount::CpuTime(u64::from(said.value) / 10), &said.source);
    }
    for said in settings.allowed_cpus.iter().chain(&settings.cpu_affinity) {
        push(Amount::Cpus(said.value.granted()), &said.source);
    }
    if let Some(said) = &settings.numa_affinity {
        match numa_cpus(root, &said.value, problems) {
            Some(set) if set.is_empty() => {}
            Some(set) => push(Amount::Cpus(set), &said.source),
            None => push(Amount::Unknown(Resource::Cpu), &said.source),
        }
    }
    let allowed = settings.allowed_memory_nodes.iter().map(|said| (said.value.granted(), &said.source));
    let bound = settings.bound_nodes.iter().map(|said| (said.value.clone(), &said.source));
    for (set, source) in allowed.chain(bound) {
        if let Some(amount) = nodes::granted(root, &set, problems) {
            push(amount, source);
        }
    }
    limits
}

/// The CPUs of NUMA nodes. `None`: they can't be told.
pub fn numa_cpus(root: &Root, nodes: &Nodes, problems: &mut Vec<Problem>) -> Option<CpuSet> {
    const INSTEAD: &str = "assuming 1 CPU";
    let mut cpus = CpuSet::default();
    let nodes = match nodes {
        Nodes::Some(nodes) => nodes.clone(),
        Nodes::All => {
            let path = format!("{NODES}/online");
            root.with_text(&path, CpuSet::parse).ok()??
        }
    };
    for node in nodes.iter() {
        let path = format!("{NODES}/node{node}/cpulist");
        let text = match root.text(&path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(Problem::unreadable(path, error, INSTEAD));
                return None;
            }
        };
        let Some(of_node) = CpuSet::parse(&text).filter(|_| !text.is_empty()) else {
            problems.push(Problem::bad_value(Source::file(path), text.trim(), "a list of CPUs", INSTEAD));
            return None;
        };
        cpus.extend(&of_node);
    }
    Some(cpus)
}
