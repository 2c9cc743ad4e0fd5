//! The one way from the files to the profile, for the generator and for every verb of the helper.

use std::collections::BTreeMap;

use crate::capacity::{Available, Capacity, Reserve, capacity};
use crate::config::{self, Config, UnitConfig};
use crate::kernel_cmdline::{self, KernelCommandLine};
use crate::limits::host::{self, Host};
use crate::limits::process::{self, Process};
use crate::limits::{Amount, Limit, Scope, cgroup, service};
use crate::manager::Manager;
use crate::names;
use crate::overrides::{self, Overrides};
use crate::parse::cpu_list::CpuSet;
use crate::parse::quantity::{Cpus, Gib};
use crate::policy::{IDLE_WORKER, Profile, profile};
use crate::problem::{Problem, ProblemKind, Source, Sourced};
use crate::root::Root;
use crate::units::{self, Index, name::parent_slice};

/// What to size, and for which machine.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where files are read from.
    pub root: &'a Root,
    /// Where /proc and /sys are read from, where that is elsewhere: `root` is then a container's, seen from its host.
    pub kernel: Option<&'a Root>,
    /// systemd's word for where it runs (`SYSTEMD_VIRTUALIZATION`), where the caller has it.
    pub virtualization: Option<&'a str>,
    /// Another machine to try.
    pub hypothetical: Hypothetical,
    /// One more unit to size, as if `Units=` named it.
    pub extra_unit: Option<&'a str>,
    /// A process that is the service or becomes it: the limits of its own cgroup and affinity count as well.
    pub process: Option<Process>,
    /// Limits of that process that are known from elsewhere, such as from the running systemd.
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

/// Another machine to try: a value given here replaces every limit that was found of the host and its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hypothetical {
    /// Milli-CPUs, and the flag that gave them.
    pub cpu: Option<(u64, &'static str)>,
    /// Bytes, and the flag that gave them.
    pub memory: Option<(u64, &'static str)>,
}

/// Everything that was found out, in the order in which it was.
#[derive(Debug)]
pub struct Sizing {
    /// What the kernel command line said, and where.
    pub kernel_switch: Option<(bool, &'static str)>,
    /// The operator's configuration.
    pub config: Config,
    /// The machine itself, without a container's or a unit's limits.
    pub host: Host,
    /// The units, each with its profile.
    pub units: Vec<SizedUnit>,
    /// What was wrong with the inputs.
    pub problems: Vec<Problem>,
}

/// One unit and how its profile came about.
#[derive(Debug)]
pub struct SizedUnit {
    /// Its name.
    pub name: String,
    /// The configuration that holds for it.
    pub config: UnitConfig,
    /// Its unit files; `None` where its name is none of a service.
    pub definition: Option<units::Unit>,
    /// The slices around it, from the outermost.
    pub slices: Vec<String>,
    /// What others set instead of the drop-in.
    pub overrides: Overrides,
    /// Every limit found, from the outside in.
    pub limits: Vec<Limit>,
    /// Their minimum.
    pub capacity: Capacity,
    /// What the guide makes of it.
    pub profile: Profile,
}

impl Sizing {
    /// Whether the operator wants units sized at this boot.
    pub fn is_enabled(&self) -> bool {
        self.kernel_switch.is_none_or(|(on, _)| on) && self.config.is_enabled()
    }
}

/// Reads everything below the root of `request` and sizes the units.
pub fn size(request: &Request<'_>) -> Sizing {
    let root = request.root;
    let kernel = request.kernel.unwrap_or(root);
    let mut problems = Vec::new();
    let KernelCommandLine { switch, setenv } =
        kernel_cmdline::read(root, request.virtualization, &mut problems);
    let config = config::read(root, &mut problems);
    let mut sizing =
        Sizing { kernel_switch: switch, config, host: Host::default(), units: Vec::new(), problems };
    if !sizing.is_enabled() {
        return sizing;
    }
    let problems = &mut sizing.problems;
    let host = host::read(kernel, problems);
    let container = cgroup::read(kernel, problems);
    // What percentages are of, as for systemd (`physical_memory()`).
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
    // A process that is one service does not share with a default that nobody asked for.
    if request.process.is_some() && request.extra_unit.is_some() && !sizing.config.names_units() {
        names.clear();
    }
    if let Some(extra) = request.extra_unit
        && !names.iter().any(|name| name == extra)
    {
        names.push(extra.to_owned());
    }
    let configs: Vec<UnitConfig> = names.iter().map(|name| sizing.config.for_unit(name)).collect();
    let manager = Manager::read(root, setenv, problems);
    let mut reader = ServiceReader {
        root,
        index: Index::read(root, &names, names::DROP_IN, problems),
        manager,
        physical_memory,
        slices: Slices::default(),
    };
    let mut services = Vec::with_capacity(names.len());
    for (name, config) in names.iter().zip(&configs) {
        services.push(reader.read(name, config, problems));
    }
    let sharing = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
    for ((name, config), service) in names.iter().zip(configs).zip(services) {
        if config.is_enabled() {
            let limits = limits_of(&machine, sharing, &service, &reader.slices);
            let unit = sized(name, config, service, limits, physical_memory, sharing);
            warn_of_excess(&unit, physical_memory, sharing, problems);
            sizing.units.push(unit);
        }
    }
    sizing
}

/// Adds the limits of one process to the machine's. In a container of its own its cgroup is PID 1's: each file counts once.
fn add_process(root: &Root, process: Process, machine: &mut Vec<Limit>, problems: &mut Vec<Problem>) {
    let mut more = Vec::new();
    let mut limits = process::read(root, process, &mut more);
    limits.retain(|limit| !machine.iter().any(|old| old.source == limit.source));
    more.retain(|problem| !problems.iter().any(|old| old.source == problem.source));
    machine.append(&mut limits);
    problems.append(&mut more);
}

/// Every limit of a service, from the outside in.
fn limits_of(machine: &[Limit], sharing: u32, service: &Service, slices: &Slices) -> Vec<Limit> {
    // Where the kernel's own word on the CPUs of the container can be seen, PID 1's affinity only says what processes
    // inherit, and a service's `CPUAffinity=` replaces it; where not, the affinity may be all that shows of a cpuset
    // further out, and both count.
    let is_cpuset =
        |limit: &Limit| limit.scope == Scope::Container && matches!(limit.amount, Amount::Cpus(_));
    let inherits = !service.replaces_affinity || !machine.iter().any(is_cpuset);
    let mut limits = Vec::with_capacity(machine.len() + service.limits.len());
    for limit in machine.iter().filter(|limit| inherits || limit.scope != Scope::Inherited) {
        // The process's own belong to it alone.
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
    name: &str,
    config: UnitConfig,
    service: Service,
    limits: Vec<Limit>,
    physical_memory: Option<u64>,
    sharing: u32,
) -> SizedUnit {
    let reserved = config.reserve_memory.as_ref();
    let reserved = reserved.map_or(0, |set| set.value.in_bytes(physical_memory.unwrap_or(0)));
    let reserve = Reserve {
        cpu: config.reserve_cpus.as_ref().map_or(0, |set| set.value) / u64::from(sharing),
        memory: reserved / u64::from(sharing),
    };
    let capacity = capacity(&limits, reserve);
    let profile = profile(capacity.whole_cpus(), capacity.memory.amount, &config.policy_settings());
    SizedUnit {
        name: name.to_owned(),
        config,
        definition: service.definition,
        slices: service.slices,
        overrides: service.overrides,
        limits,
        capacity,
        profile,
    }
}

/// Reports what the operator asks for and this machine cannot meet: it counts all the same.
fn warn_of_excess(unit: &SizedUnit, physical_memory: Option<u64>, sharing: u32, problems: &mut Vec<Problem>) {
    let mut report = |source: &Source, value: String, available: String, consequence: &'static str| {
        let kind = ProblemKind::Excessive { value, available };
        problems.push(Problem { source: source.clone(), kind, consequence: consequence.into() });
    };
    let Capacity { cpu, memory } = &unit.capacity;
    // Where nothing is known, that has been reported.
    let exceeds = |reserve: u64, available: &Available| {
        let all = available.amount.saturating_add(available.reserved);
        (all > 0 && reserve / u64::from(sharing) > all).then_some(all)
    };
    if let Some(set) = &unit.config.reserve_cpus
        && let Some(all) = exceeds(set.value, cpu)
    {
        let value = format!("{} CPUs", Cpus(set.value));
        report(&set.source, value, format!("{} CPUs", Cpus(all)), "assuming 1 CPU");
    }
    if let Some(set) = &unit.config.reserve_memory {
        let reserve = set.value.in_bytes(physical_memory.unwrap_or(0));
        if let Some(all) = exceeds(reserve, memory) {
            report(&set.source, gib(reserve), gib(all), "assuming minimal memory");
        }
    }
    if let Some(Sourced { value: Some(workers), source }) = &unit.config.workers {
        let needed = u64::from(*workers).saturating_mul(IDLE_WORKER);
        if memory.amount > 0 && needed > memory.amount {
            let value = format!("{workers} workers take {} when idle", gib(needed));
            report(source, value, gib(memory.amount), "they are started anyway");
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{} GiB", Gib(bytes))
}

/// What the unit files say of one service.
#[derive(Default)]
struct Service {
    definition: Option<units::Unit>,
    overrides: Overrides,
    /// From the outermost to its own.
    slices: Vec<String>,
    limits: Vec<Limit>,
    /// It has an affinity of its own.
    replaces_affinity: bool,
}

/// Slices by name: how many of the services are in one, and its limits.
type Slices = BTreeMap<String, (u32, Vec<Limit>)>;

/// Reads the unit files of services and of the slices around them; a slice of several is read once.
struct ServiceReader<'a> {
    root: &'a Root,
    index: Index<'a>,
    manager: Manager,
    physical_memory: Option<u64>,
    slices: Slices,
}

impl ServiceReader<'_> {
    /// Empty where `name` is none of a service.
    fn read(&mut self, name: &str, config: &UnitConfig, problems: &mut Vec<Problem>) -> Service {
        let Some(unit) = self.index.load(name, problems) else {
            return Service::default();
        };
        let settings = service::settings(&unit, self.physical_memory, problems);
        let slices = self.slices_around(settings.slice.as_deref(), problems);
        Service {
            overrides: overrides::read(
                self.root,
                &unit,
                &self.manager,
                &config.decided_variables(),
                problems,
            ),
            slices,
            limits: service::limits(self.root, &settings, Scope::Service, problems),
            replaces_affinity: settings.cpu_affinity.is_some() || settings.numa_affinity.is_some(),
            definition: Some(unit),
        }
    }

    /// The slice and all above it, from the outermost.
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

/// The machine's limits, with the ones of a machine to try in their place.
fn replaced(mut limits: Vec<Limit>, hypothetical: &Hypothetical) -> Vec<Limit> {
    let mut put = |amount: Amount, flag: &'static str| {
        let limit =
            Limit { scope: Scope::Host, amount, source: Source::key("command line", 0, flag), shared_by: 1 };
        limits.retain(|old| old.resource() != limit.resource());
        limits.push(limit);
    };
    if let Some((milli, flag)) = hypothetical.cpu {
        match milli % 1000 {
            0 => put(Amount::Cpus(CpuSet::first(u32::try_from(milli / 1000).unwrap_or(u32::MAX))), flag),
            _ => put(Amount::CpuTime(milli), flag),
        }
    }
    if let Some((bytes, flag)) = hypothetical.memory {
        put(Amount::Memory(bytes), flag);
    }
    limits
}
