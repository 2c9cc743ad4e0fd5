//! The limits of the service and of the slices that it is in, from their unit settings. [`crate::units`] reads the files;
//! only the CPUs of NUMA nodes are looked up here.
//!
//! Values are interpreted as by systemd (src/core/load-fragment.c): the last valid one takes precedence, an empty one resets
//! the setting, and lists of CPUs accumulate. If versions of systemd differ, or their behavior cannot be determined here,
//! the tighter limit applies:
//!
//! - `MemoryLimit=` was removed in 258, with cgroup version 1. It applies wherever it would in 257: if the same unit has none
//!   of the newer settings (`MemoryMax=` and others).
//! - systemd reads and shows limits of the root slice (`-.slice`), but does not apply them. They apply here, because the
//!   operator intends them.
//! - `Startup…=` settings apply only while the system starts up, and are ignored.
//! - A list of CPUs with an invalid word is ignored up to 257 (`parse_cpu_set_extend()`). Since 258, its valid words are used
//!   (`config_parse_cpu_set()`). Only CPUs that both interpretations grant are used.
//! - Percentages refer to systemd's `physical_memory()`, in whole pages. If that is unknown, the minimum is assumed.

mod reader;

use reader::SettingReader;

use crate::command::Confinement;
use crate::limits::nodes::NODES;
use crate::limits::{Amount, Limit, Resource, Scope, nodes, read_value};
use crate::parse::cpu_list::CpuSet;
use crate::problem::{Problem, ProblemKind, Source, Sourced};
use crate::root::Root;
use crate::units::Unit;
use crate::units::name::{Name, Type};

/// A list of CPUs in both interpretations, at least one of which is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuLists {
    /// As read by systemd up to 257; empty: no restriction.
    pub until_257: CpuSet,
    /// As read by systemd 258 and later.
    pub from_258: CpuSet,
}

impl CpuLists {
    /// The CPUs that both interpretations grant.
    pub fn granted(&self) -> CpuSet {
        match (self.until_257.is_empty(), self.from_258.is_empty()) {
            (true, _) => self.from_258.clone(),
            (_, true) => self.until_257.clone(),
            (false, false) => self.until_257.intersection(&self.from_258),
        }
    }
}

/// The NUMA nodes whose CPUs `CPUAffinity=numa` grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// `NUMAMask=all`
    All,
    /// Those in `NUMAMask=`. An empty mask has no CPUs and is no restriction.
    Some(CpuSet),
}

/// The resource settings of a unit. `None`: not set, or `infinity`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    /// `MemoryMax=` in bytes.
    pub memory_max: Option<Sourced<u64>>,
    /// `MemoryHigh=` in bytes.
    pub memory_high: Option<Sourced<u64>>,
    /// `MemoryLimit=` in bytes, even if it has no effect.
    pub memory_limit: Option<Sourced<u64>>,
    /// Whether another memory setting makes `MemoryLimit=` ineffective.
    pub memory_limit_ignored: bool,
    /// `CPUQuota=` in hundredths of a percent of one CPU.
    pub cpu_quota: Option<Sourced<u32>>,
    /// `AllowedCPUs=`
    pub allowed_cpus: Option<Sourced<CpuLists>>,
    /// `AllowedMemoryNodes=`
    pub allowed_memory_nodes: Option<Sourced<CpuLists>>,
    /// The nodes of `NUMAPolicy=bind`, the only policy that is a limit.
    pub bound_nodes: Option<Sourced<CpuSet>>,
    /// `CPUAffinity=` with a list.
    pub cpu_affinity: Option<Sourced<CpuLists>>,
    /// `CPUAffinity=numa`
    pub numa_affinity: Option<Sourced<Nodes>>,
    /// `Slice=`, or the default slice. `None`: the unit is a slice, or it is unknown.
    pub slice: Option<String>,
    /// Settings whose value is unknown, and files that cannot be read.
    pub unknown: Vec<(Resource, Source)>,
}

/// The settings of `unit`. Percentages refer to `physical_memory`. Pure.
pub fn settings(unit: &Unit, physical_memory: Option<u64>, problems: &mut Vec<Problem>) -> ResourceSettings {
    let both = [Resource::Cpu, Resource::Memory];
    let unread = unit.unread.iter().flat_map(|source| both.map(|resource| (resource, source.clone())));
    let unknown = unread.collect();
    let Some(name) = Name::parse(&unit.name) else {
        return ResourceSettings { unknown, ..ResourceSettings::default() };
    };
    let mut reader = SettingReader { unit, name, physical_memory, unknown, problems, reported: 0 };
    let mut settings = ResourceSettings {
        memory_max: reader.memory("MemoryMax"),
        memory_high: reader.memory("MemoryHigh"),
        memory_limit: reader.memory("MemoryLimit"),
        memory_limit_ignored: ["MemoryMin", "MemoryLow", "MemorySwapMax"]
            .map(|key| reader.memory(key).is_some())
            .contains(&true),
        cpu_quota: reader.cpu_quota(),
        allowed_cpus: reader.allowed("AllowedCPUs"),
        allowed_memory_nodes: reader.allowed("AllowedMemoryNodes"),
        ..ResourceSettings::default()
    };
    settings.memory_limit_ignored |= settings.memory_max.is_some() || settings.memory_high.is_some();
    if name.unit_type == Type::Service {
        let mask = reader.numa_mask();
        (settings.cpu_affinity, settings.numa_affinity) = reader.affinity(&mask);
        settings.bound_nodes = reader.bound_nodes(&mask);
        settings.slice = reader.slice();
    }
    settings.unknown = reader.unknown;
    settings
}

/// The limits set by `settings`, with the scope `scope`.
pub fn limits(
    root: &Root,
    settings: &ResourceSettings,
    scope: Scope,
    problems: &mut Vec<Problem>,
) -> Vec<Limit> {
    let mut limits = Vec::new();
    let mut push = |amount: Amount, source: &Source| {
        limits.push(Limit::new(scope, amount, source.clone()));
    };
    for (resource, source) in &settings.unknown {
        push(Amount::Unknown(*resource), source);
    }
    for setting in settings.memory_max.iter().chain(&settings.memory_high) {
        push(Amount::Memory(setting.value), &setting.source);
    }
    if let Some(setting) = settings.memory_limit.as_ref().filter(|_| !settings.memory_limit_ignored) {
        push(Amount::Memory(setting.value), &setting.source);
    }
    if let Some(setting) = &settings.cpu_quota {
        push(Amount::CpuTime(u64::from(setting.value) / 10), &setting.source);
    }
    for setting in settings.allowed_cpus.iter().chain(&settings.cpu_affinity) {
        push(Amount::Cpus(setting.value.granted()), &setting.source);
    }
    if let Some(setting) = &settings.numa_affinity {
        match numa_cpus(root, &setting.value, problems) {
            Some(set) if set.is_empty() => {}
            Some(set) => push(Amount::Cpus(set), &setting.source),
            None => push(Amount::Unknown(Resource::Cpu), &setting.source),
        }
    }
    let allowed =
        settings.allowed_memory_nodes.iter().map(|setting| (setting.value.granted(), &setting.source));
    let bound = settings.bound_nodes.iter().map(|setting| (setting.value.clone(), &setting.source));
    for (set, source) in allowed.chain(bound) {
        if let Some(amount) = nodes::granted(root, &set, problems) {
            push(amount, source);
        }
    }
    limits
}

/// The limits set by taskset(1) and numactl(8) in `ExecStart=`.
pub fn confinement_limits(
    root: &Root,
    confinements: Vec<(Confinement, Source)>,
    problems: &mut Vec<Problem>,
) -> Vec<Limit> {
    const WHAT: &str = "the CPUs or nodes";
    let mut limits = Vec::new();
    for (confinement, source) in confinements {
        let unknown = |resource: Resource, value: &str, problems: &mut Vec<Problem>| {
            let kind = ProblemKind::undetermined(value, WHAT);
            problems.push(Problem::new(source.clone(), kind, resource.assumed()));
            Some(Amount::Unknown(resource))
        };
        let amount = match confinement {
            Confinement::Cpus(Ok(set)) => Some(Amount::Cpus(set)),
            Confinement::CpusOfNodes(Ok(nodes)) => {
                let cpus = numa_cpus(root, &Nodes::Some(nodes), problems);
                Some(cpus.map_or(Amount::Unknown(Resource::Cpu), Amount::Cpus))
            }
            Confinement::MemoryOfNodes(Ok(nodes)) => nodes::granted(root, &nodes, problems),
            Confinement::Cpus(Err(value)) | Confinement::CpusOfNodes(Err(value)) => {
                unknown(Resource::Cpu, &value, problems)
            }
            Confinement::MemoryOfNodes(Err(_)) if !nodes::may_be_several(root) => None,
            Confinement::MemoryOfNodes(Err(value)) => unknown(Resource::Memory, &value, problems),
        };
        limits.extend(amount.map(|amount| Limit::new(Scope::Service, amount, source)));
    }
    limits
}

/// The CPUs of NUMA nodes. `None`: unknown.
pub fn numa_cpus(root: &Root, nodes: &Nodes, problems: &mut Vec<Problem>) -> Option<CpuSet> {
    let nodes = match nodes {
        Nodes::Some(nodes) => nodes.clone(),
        Nodes::All => nodes::online(root).ok()??,
    };
    // A node may have no CPUs, but the kernel writes a line feed even then.
    let parse = |text: &str| CpuSet::parse(text).filter(|_| !text.is_empty());
    let mut cpus = CpuSet::default();
    for node in nodes.iter() {
        let path = format!("{NODES}/node{node}/cpulist");
        match read_value(root, &path, parse, "a list of CPUs") {
            Ok(of_node) => cpus.extend(&of_node),
            Err(kind) => {
                problems.push(Problem::new(Source::file(path), kind, Resource::Cpu.assumed()));
                return None;
            }
        }
    }
    Some(cpus)
}
