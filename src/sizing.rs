//! Connects the steps from the files to the profile, for the generator and for every verb of the helper.
//!
//! Determines which limits apply to which unit, and how many units share them. The limits of each source are read in
//! [`crate::limits`], the minimum is determined in [`crate::capacity`], and the workers in [`crate::policy`].

use std::collections::BTreeMap;

use crate::capacity::{Available, Capacity, Reserve, capacity};
use crate::config::{self, Config, UnitConfig};
use crate::kernel_cmdline::{self, KernelCommandLine};
use crate::limits::host::{self, Host};
use crate::limits::process::{self, LimitedProcess};
use crate::limits::{Amount, Limit, Resource, Scope, cgroup, service};
use crate::manager::Manager;
use crate::names;
use crate::overrides::{self, Overrides};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{Cpus, in_cpus, in_gib};
use crate::policy::{IDLE_WORKER, LARGE, profile};
use crate::problem::{Problem, ProblemKind, Source};
use crate::root::Root;
use crate::sized::{SizedUnit, Sizing};
use crate::units::{self, Index, name::parent_slice};

/// What to size, and for which machine.
#[derive(Debug)]
pub struct Request<'a> {
    /// The root below which files are read.
    pub root: &'a Root,
    /// The root for /proc and /sys, if that is a different one: `root` is then that of a container, seen from its host.
    pub kernel: Option<&'a Root>,
    /// The value of `SYSTEMD_VIRTUALIZATION`, if the caller has it.
    pub virtualization: Option<&'a str>,
    /// A hypothetical machine to size for.
    pub hypothetical: Hypothetical,
    /// An additional unit to size, as if `Units=` listed it.
    pub extra_unit: Option<&'a str>,
    /// A process that is the service or will execute it: the limits of its cgroup and its affinity apply as well.
    pub process: Option<LimitedProcess>,
    /// Limits of that process from another source, such as the running systemd.
    pub loaded: Vec<Limit>,
}

impl<'a> Request<'a> {
    /// The configured units, on the machine below `root`.
    pub fn new(root: &'a Root) -> Self {
        Self {
            root,
            kernel: None,
            virtualization: None,
            hypothetical: Hypothetical::default(),
            extra_unit: None,
            process: None,
            loaded: Vec::new(),
        }
    }
}

/// A hypothetical machine. A value given here replaces all limits of that resource found on the host and its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hypothetical {
    /// Milli-CPUs, and the flag that gave them.
    pub cpu: Option<(u64, &'static str)>,
    /// Bytes, and the flag that gave them.
    pub memory: Option<(u64, &'static str)>,
}

/// Reads everything below the root of `request` and sizes the units.
pub fn size(request: &Request<'_>) -> Sizing {
    let root = request.root;
    let kernel = request.kernel.unwrap_or(root);
    let mut problems = Vec::new();
    let KernelCommandLine { switch, setenv } =
        kernel_cmdline::read(root, request.virtualization, &mut problems);
    let config = config::read(root, &mut problems);
    let mut sizing = Sizing {
        kernel_switch: switch,
        names: config.units(),
        config,
        host: Host::default(),
        units: Vec::new(),
        problems,
    };
    if !sizing.is_enabled() {
        return sizing;
    }
    let problems = &mut sizing.problems;
    let host = host::read(kernel, LARGE, problems);
    let container = cgroup::read(kernel, problems);
    // Percentages refer to this amount, as in systemd (`physical_memory()`).
    let physical_memory = match (request.hypothetical.memory, host.memory_total, container.root_memory) {
        (Some((bytes, _)), _, _) => Some(bytes),
        (None, Some(total), Some(limit)) => Some(total.min(limit)),
        (None, total, _) => total,
    };
    let mut machine = host.limits.clone();
    machine.extend(container.limits);
    machine.extend(request.loaded.iter().cloned());
    if let Some(process) = request.process {
        add_process(kernel, process, &mut machine, problems);
    }
    host::recognize_virtual_cpus(kernel, &mut machine);
    let machine = replaced(machine, &request.hypothetical);
    sizing.host = host;

    let mut names = sizing.config.units();
    // A process that is the service does not share the machine with the default unit if that is not configured.
    if request.process.is_some() && request.extra_unit.is_some() && sizing.config.units_source().is_none() {
        names.clear();
    }
    if let Some(extra) = request.extra_unit
        && !names.iter().any(|name| name == extra)
    {
        names.push(extra.to_owned());
    }
    let manager = Manager::read(root, setenv, problems);
    let index = Index::read(root, &names, names::DROP_IN, problems);
    let names = different(names, &index, &sizing.config, problems);
    sizing.names.retain(|name| names.contains(name));
    let mut reader = ServiceReader { root, index, manager, physical_memory, slices: Slices::default() };
    // All are read before any is sized, because they share the machine and their slices.
    let mut services = Vec::new();
    for name in names {
        let config = sizing.config.for_unit(&name);
        services.push(reader.read(name, config, problems));
    }
    let sharing = u32::try_from(services.len()).unwrap_or(u32::MAX).max(1);
    for service in services {
        if service.config.is_enabled() {
            let limits = limits_of(&machine, sharing, &service, &reader.slices);
            let unit = sized(service, limits, physical_memory, sharing);
            warn_of_excess(&unit, physical_memory, sharing, problems);
            sizing.units.push(unit);
        }
    }
    sizing
}

/// The units without those that are listed before by another name, such as an alias: systemd applies the drop-ins of all
/// names to the same service.
fn different(
    names: Vec<String>,
    index: &Index<'_>,
    config: &Config,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    if names.len() < 2 {
        return names;
    }
    let mut first_names: BTreeMap<String, String> = BTreeMap::new();
    let mut is_new = |name: &String| {
        let Some(id) = index.id(name) else {
            return true;
        };
        let Some(first) = first_names.get(&id) else {
            first_names.insert(id, name.clone());
            return true;
        };
        let kind = ProblemKind::Repeated { name: name.clone(), first: first.clone() };
        let consequence = "it is sized once, under that name";
        problems.push(match config.units_source() {
            Some(source) => Problem::new(source.clone(), kind, consequence).in_configuration(),
            None => Problem::new(Source::file(name.clone()), kind, consequence),
        });
        false
    };
    names.into_iter().filter(|name| is_new(name)).collect()
}

/// Adds the limits of a process to those of the machine. In its own container, its cgroup is that of PID 1, so each file is
/// used only once.
fn add_process(root: &Root, process: LimitedProcess, machine: &mut Vec<Limit>, problems: &mut Vec<Problem>) {
    let mut more = Vec::new();
    let mut limits = process::read(root, process, &mut more);
    limits.retain(|limit| !machine.iter().any(|old| old.source == limit.source));
    more.retain(|problem| !problems.iter().any(|old| old.source == problem.source));
    machine.append(&mut limits);
    problems.append(&mut more);
}

/// All limits of a service, from the outermost.
fn limits_of(machine: &[Limit], sharing: u32, service: &ServiceDefinition, slices: &Slices) -> Vec<Limit> {
    // If the cpuset of the container is visible, PID 1's affinity is only what processes inherit, and `CPUAffinity=` of a
    // service replaces it. Otherwise the affinity may be the only trace of a cpuset further out, so both apply.
    let is_cpuset =
        |limit: &Limit| limit.scope == Scope::Container && matches!(limit.amount, Amount::Cpus(_));
    let inherits = !service.replaces_affinity || !machine.iter().any(is_cpuset);
    let mut limits = Vec::with_capacity(machine.len() + service.limits.len());
    for limit in machine.iter().filter(|limit| inherits || limit.scope != Scope::Inherited) {
        // Limits of the process itself are not shared.
        let shared_by = if limit.scope == Scope::Process { limit.shared_by } else { sharing };
        limits.push(Limit { shared_by, ..limit.clone() });
    }
    for slice in &service.slices {
        let (shared_by, of_slice) =
            slices.get(slice).map_or((1, [].as_slice()), |(n, all)| (*n, all.as_slice()));
        limits.extend(of_slice.iter().map(|limit| Limit { shared_by, ..limit.clone() }));
    }
    limits.extend_from_slice(&service.limits);
    limits
}

/// The last steps: capacity, then profile.
fn sized(
    service: ServiceDefinition,
    limits: Vec<Limit>,
    physical_memory: Option<u64>,
    sharing: u32,
) -> SizedUnit {
    let ServiceDefinition { name, config, definition, overrides, slices, .. } = service;
    let reserved = config.reserve_memory.as_ref();
    let reserved = reserved.map_or(0, |set| set.value.in_bytes(physical_memory.unwrap_or(0)));
    let reserve = Reserve {
        cpu: config.reserve_cpus.as_ref().map_or(0, |set| set.value) / u64::from(sharing),
        memory: reserved / u64::from(sharing),
    };
    let capacity = capacity(&limits, reserve);
    let profile = profile(capacity.whole_cpus(), capacity.memory.amount, &config.policy_settings());
    SizedUnit { name, config, definition, slices, overrides, limits, capacity, profile }
}

/// Reports settings of the operator that the machine cannot satisfy. They are applied nevertheless.
fn warn_of_excess(unit: &SizedUnit, physical_memory: Option<u64>, sharing: u32, problems: &mut Vec<Problem>) {
    let mut report = |source: &Source, kind: ProblemKind, consequence: &'static str| {
        let problem = Problem::new(source.clone(), kind, consequence).in_configuration();
        // Units that share a setting and have the same limits have the same problem.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    let Capacity { cpu, memory } = &unit.capacity;
    // If nothing is known, that has already been reported.
    let excess = |reserve: u64, available: &Available, text: fn(u64) -> String| {
        let all = available.amount.saturating_add(available.reserved);
        let share = reserve / u64::from(sharing);
        if all == 0 || share < all {
            return None;
        }
        let value = match sharing {
            1 => text(reserve),
            _ => format!("{}, {} for each unit", text(reserve), text(share)),
        };
        let available = Some(text(all)).filter(|available| *available != text(share));
        Some(ProblemKind::Excessive { value, available })
    };
    if let Some(set) = &unit.config.reserve_cpus
        && let Some(kind) = excess(set.value, cpu, |milli| in_cpus(Cpus(milli)))
    {
        report(&set.source, kind, Resource::Cpu.assumed());
    }
    if let Some(set) = &unit.config.reserve_memory
        && let Some(kind) = excess(set.value.in_bytes(physical_memory.unwrap_or(0)), memory, in_gib)
    {
        report(&set.source, kind, Resource::Memory.assumed());
    }
    if let Some(set) = &unit.config.workers
        && let Some(workers) = set.value
    {
        let needed = u64::from(workers).saturating_mul(IDLE_WORKER);
        if memory.amount > 0 && needed > memory.amount {
            let value = format!("{workers} workers take {} when idle", in_gib(needed));
            let kind = ProblemKind::Excessive { value, available: Some(in_gib(memory.amount)) };
            report(&set.source, kind, "they are started anyway");
        }
    }
}

/// A service as its unit files define it.
#[derive(Default)]
struct ServiceDefinition {
    name: String,
    config: UnitConfig,
    definition: Option<units::Unit>,
    overrides: Overrides,
    /// From the outermost to the one that contains the service.
    slices: Vec<String>,
    limits: Vec<Limit>,
    /// Whether it sets its own affinity.
    replaces_affinity: bool,
}

/// Slices by name: the number of services in each, and its limits.
type Slices = BTreeMap<String, (u32, Vec<Limit>)>;

/// Reads the unit files of services and of the slices that they are in. A slice of several services is read once.
struct ServiceReader<'a> {
    root: &'a Root,
    index: Index<'a>,
    manager: Manager,
    physical_memory: Option<u64>,
    slices: Slices,
}

impl ServiceReader<'_> {
    /// Returns only the configuration if `name` is not the name of a service.
    fn read(&mut self, name: String, config: UnitConfig, problems: &mut Vec<Problem>) -> ServiceDefinition {
        let Some(unit) = self.index.load(&name, problems) else {
            return ServiceDefinition { name, config, ..ServiceDefinition::default() };
        };
        let settings = service::settings(&unit, self.physical_memory, problems);
        let slices = self.slices_around(settings.slice.as_deref(), problems);
        let mut limits = service::limits(self.root, &settings, Scope::Service, problems);
        let confinements = overrides::confinements(&unit);
        limits.append(&mut service::confinement_limits(self.root, confinements, problems));
        let decided = config.decided_variables();
        let overrides = overrides::read(self.root, &unit, &self.manager, &decided, problems);
        ServiceDefinition {
            name,
            config,
            overrides,
            slices,
            limits,
            replaces_affinity: settings.cpu_affinity.is_some() || settings.numa_affinity.is_some(),
            definition: Some(unit),
        }
    }

    /// The slice and all its parents, from the outermost.
    fn slices_around(&mut self, innermost: Option<&str>, problems: &mut Vec<Problem>) -> Vec<String> {
        let mut around = Vec::new();
        let mut next = innermost.map(str::to_owned);
        while let Some(slice) = next {
            let (services, _) = self.slices.entry(slice.clone()).or_insert_with(|| {
                let limits = self.index.load(&slice, problems).map(|unit| {
                    let settings = service::settings(&unit, self.physical_memory, problems);
                    service::limits(self.root, &settings, Scope::Slice, problems)
                });
                (0, limits.unwrap_or_default())
            });
            *services += 1;
            next = parent_slice(&slice);
            around.push(slice);
        }
        around.reverse();
        around
    }
}

/// The machine's limits, with those of the hypothetical machine in their place.
fn replaced(mut limits: Vec<Limit>, hypothetical: &Hypothetical) -> Vec<Limit> {
    let mut replace = |amount: Amount, flag: &'static str| {
        let limit = Limit::new(Scope::Host, amount, Source::key("command line", 0, flag));
        limits.retain(|old| old.resource() != limit.resource());
        limits.push(limit);
    };
    if let Some((milli, flag)) = hypothetical.cpu {
        match milli % 1000 {
            0 => replace(Amount::Cpus(CpuSet::first(u32::try_from(milli / 1000).unwrap_or(u32::MAX))), flag),
            _ => replace(Amount::CpuTime(milli), flag),
        }
    }
    if let Some((bytes, flag)) = hypothetical.memory {
        replace(Amount::Memory(bytes), flag);
    }
    limits
}
