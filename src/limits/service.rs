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

use crate::limits::{Amount, Limit, Resource, Scope, nodes};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{Size, permyriad, size};
use crate::problem::{Problem, Source, Sourced};
use crate::root::Root;
use crate::units::name::{Name, NameKind, Type};
use crate::units::specifier::{self, Unexpanded};
use crate::units::{Assignment, Unit};

const SKIPPED: &str = "systemd skips the line";
/// Of one unit no more bad values are reported; systemd itself reports them all.
const MOST_FAULTS: usize = 50;
/// The kernel says which CPUs a NUMA node has (Documentation/ABI/stable/sysfs-devices-node).
const NODES: &str = "/sys/devices/system/node";
/// The smallest page of any machine: percentages are rounded down to pages.
const PAGE: u64 = 4096;

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
    const INSTEAD: &str = "counting on 1 CPU";
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

struct SettingReader<'a> {
    unit: &'a Unit,
    name: Name<'a>,
    physical_memory: Option<u64>,
    settings: &'a mut ResourceSettings,
    problems: &'a mut Vec<Problem>,
    /// How many bad values there were.
    reported: usize,
}

impl SettingReader<'_> {
    fn name_at(&self, assignment: &Assignment) -> Name<'_> {
        self.unit.name_at(assignment).unwrap_or(self.name)
    }

    fn bad(&mut self, assignment: &Assignment, expected: &'static str) {
        self.bad_but(assignment, expected, SKIPPED);
    }

    fn bad_but(&mut self, assignment: &Assignment, expected: &'static str, instead: &'static str) {
        self.reported += 1;
        if self.reported <= MOST_FAULTS {
            let source = assignment.source.clone();
            self.problems.push(Problem::bad_value(source, &assignment.value, expected, instead));
        }
    }

    /// A value that systemd can tell, but not from here.
    fn unknown(&mut self, assignment: &Assignment, resources: &[Resource]) {
        self.bad_but(assignment, "a value whose specifiers can be told here", "taking the least");
        let unknown = resources.iter().map(|resource| (*resource, assignment.source.clone()));
        self.settings.unknown.extend(unknown);
    }

    /// `config_parse_memory_limit()`
    fn memory(&mut self, key: &'static str) -> Option<Sourced<u64>> {
        let mut said = None;
        for assignment in self.unit.assignments_of(key) {
            let source = || assignment.source.clone();
            let value = match (assignment.value.as_str(), self.physical_memory) {
                ("" | "infinity", _) => {
                    said = None;
                    continue;
                }
                (text, Some(memory)) => size(text).map(|size| match size {
                    Size::Permyriad(10_000) => Some(memory),
                    share @ Size::Permyriad(_) => Some(share.in_bytes(memory / PAGE) * PAGE),
                    Size::Bytes(bytes) => Some(bytes),
                }),
                (text, None) => size(text).map(|size| match size {
                    Size::Permyriad(_) => None,
                    Size::Bytes(bytes) => Some(bytes),
                }),
            };
            // No limit can be 0, except where it says that something else is off.
            let zero = ["MemoryMin", "MemoryLow", "MemorySwapMax"].contains(&key);
            match value {
                Some(None) => {
                    self.settings.unknown.push((Resource::Memory, source()));
                    said = None;
                }
                Some(Some(0)) if zero => {
                    said = (key == "MemorySwapMax").then(|| Sourced { value: 0, source: source() });
                }
                Some(Some(bytes)) if bytes > 0 && bytes < u64::MAX => {
                    said = Some(Sourced { value: bytes, source: source() });
                }
                _ => self
                    .bad(assignment, "bytes above 0 (with K, M, G, T), a percentage up to 100%, or infinity"),
            }
        }
        said
    }

    /// `config_parse_cpu_quota()`
    fn cpu_quota(&mut self) -> Option<Sourced<u32>> {
        let mut said = None;
        for assignment in self.unit.assignments_of("CPUQuota") {
            match permyriad(&assignment.value).filter(|share| *share > 0) {
                _ if assignment.value.is_empty() => said = None,
                Some(value) => said = Some(Sourced { value, source: assignment.source.clone() }),
                None => self.bad(assignment, "a percentage above 0"),
            }
        }
        said
    }

    /// `config_parse_allowed_cpuset()`
    fn allowed(&mut self, key: &'static str) -> Option<Sourced<Cpus>> {
        let mut said = None;
        for assignment in self.unit.assignments_of(key) {
            self.add_cpus(assignment, &mut said);
        }
        said.filter(restricts)
    }

    /// One assignment of a list of CPUs: it adds to what was said before, an empty one takes that back. Whether all
    /// versions take it.
    fn add_cpus(&mut self, assignment: &Assignment, said: &mut Option<Sourced<Cpus>>) -> bool {
        let value = match specifier::expand(&assignment.value, &self.name_at(assignment)) {
            Ok(value) => value,
            Err(Unexpanded::Unknown) => {
                let resources: &[Resource] = match assignment.key {
                    "AllowedMemoryNodes" => &[Resource::Memory],
                    "NUMAMask" => &[Resource::Cpu, Resource::Memory],
                    _ => &[Resource::Cpu],
                };
                self.unknown(assignment, resources);
                return false;
            }
            Err(Unexpanded::NoSuch) => {
                self.bad(assignment, "a list of CPUs with known specifiers");
                return false;
            }
        };
        let Some(list) = CpuSet::parse_setting(&value) else {
            self.bad(assignment, list_of(assignment));
            return false;
        };
        let valid = list.valid;
        if !valid {
            let instead = "systemd skips the line, from version 258 on only what is wrong in it";
            self.bad_but(assignment, list_of(assignment), instead);
        }
        let mut cpus = said.take().map(|said| said.value).unwrap_or_default();
        if valid && list.words == 0 {
            cpus.until_257 = CpuSet::default();
        } else if valid {
            cpus.until_257.extend(&list.set);
        }
        if value.is_empty() {
            cpus.from_258 = CpuSet::default();
        } else {
            cpus.from_258.extend(&list.set);
        }
        *said = Some(Sourced { value: cpus, source: assignment.source.clone() });
        valid
    }

    /// `config_parse_exec_cpu_affinity()`: a list, or the nodes; both, where versions differ on which.
    fn affinity(&mut self, mask: &Nodes) -> (Option<Sourced<Cpus>>, Option<Sourced<Nodes>>) {
        let mut said = None;
        let mut numa = None;
        for assignment in self.unit.assignments_of("CPUAffinity") {
            if assignment.value == "numa" {
                numa = Some(assignment.source.clone());
                said = None;
            } else if self.add_cpus(assignment, &mut said) {
                numa = None;
            }
        }
        let numa = numa.map(|source| Sourced { value: mask.clone(), source });
        (said.filter(restricts), numa)
    }

    /// `NUMAPolicy=`: the nodes that `bind` leaves. `interleave` and `preferred` take others where theirs have no more memory.
    fn bound_nodes(&mut self, mask: &Nodes) -> Option<Sourced<CpuSet>> {
        const POLICIES: [&str; 5] = ["default", "preferred", "bind", "interleave", "local"];
        let mut policy = None;
        for assignment in self.unit.assignments_of("NUMAPolicy") {
            match assignment.value.as_str() {
                "" => policy = None,
                known if POLICIES.contains(&known) => policy = Some(assignment),
                _ => self.bad(assignment, "a policy (bind, preferred, interleave, local or default)"),
            }
        }
        let policy = policy.filter(|policy| policy.value == "bind")?;
        match mask {
            Nodes::Some(nodes) if !nodes.is_empty() => {
                Some(Sourced { value: nodes.clone(), source: policy.source.clone() })
            }
            // All of them confine nothing, and none at all is no policy.
            _ => None,
        }
    }

    /// `NUMAMask=`. An invalid one is ignored; from 258 on it seems to take back earlier ones, which would grant more.
    fn numa_mask(&mut self) -> Nodes {
        let mut said: Option<Sourced<Cpus>> = None;
        let mut all = false;
        for assignment in self.unit.assignments_of("NUMAMask") {
            if assignment.value == "all" {
                all = true;
            } else if self.add_cpus(assignment, &mut said) {
                all = false;
            }
        }
        if all { Nodes::All } else { Nodes::Some(said.map(|said| said.value.granted()).unwrap_or_default()) }
    }

    /// `config_parse_unit_slice()`, else the default.
    fn slice(&mut self) -> Option<String> {
        let mut slice = Some(self.name.default_slice());
        for assignment in self.unit.assignments_of("Slice") {
            match specifier::expand_name(&assignment.value, &self.name_at(assignment)) {
                Ok(name) if is_loadable_slice(&name) => slice = Some(name.into_owned()),
                Err(Unexpanded::Unknown) => {
                    self.unknown(assignment, &[Resource::Cpu, Resource::Memory]);
                    slice = None;
                }
                Ok(_) | Err(Unexpanded::NoSuch) => self.bad(assignment, "the name of a slice"),
            }
        }
        slice
    }
}

/// What a setting is a list of.
fn list_of(assignment: &Assignment) -> &'static str {
    if matches!(assignment.key, "AllowedMemoryNodes" | "NUMAMask") {
        "a list of memory nodes"
    } else {
        "a list of CPUs"
    }
}

/// Whether a list has CPUs: an empty one is written as an empty list, which restricts nothing.
fn restricts(said: &Sourced<Cpus>) -> bool {
    !said.value.until_257.is_empty() || !said.value.from_258.is_empty()
}

/// Whether systemd would load a slice of that name.
fn is_loadable_slice(name: &str) -> bool {
    Name::parse(name).is_some_and(|name| name.unit_type == Type::Slice && name.kind() == NameKind::Plain)
}
