//! The one way from the files to the profile, for the generator and for every verb of the helper.

use std::collections::BTreeMap;

use crate::capacity::{Capacity, Reserve, capacity};
use crate::config::{self, Config, UnitConfig};
use crate::kernel_cmdline;
use crate::limits::process::{self, Process};
use crate::limits::{Amount, Limit, Scope, cgroup, host, service};
use crate::overrides::{self, Overrides};
use crate::parse::cpu_list::CpuSet;
use crate::policy::{Profile, profile};
use crate::problem::{Problem, Source};
use crate::root::Root;
use crate::units::{self, Index, name::parent_slice};

/// What to size, and for which machine.
#[derive(Debug)]
pub struct Request<'a> {
    /// Where files are read from.
    pub root: &'a Root,
    /// systemd's word for where it runs (`SYSTEMD_VIRTUALIZATION`), where the caller has it.
    pub virtualization: Option<&'a str>,
    /// Another machine to try.
    pub hypothetical: Hypothetical,
    /// One more unit to size, as if `Units=` named it.
    pub extra_unit: Option<&'a str>,
    /// A process that is the service or becomes it: the limits of its own cgroup and affinity count as well.
    pub process: Option<Process>,
}

impl<'a> Request<'a> {
    /// The configured units, on the machine below `root`.
    pub fn new(root: &'a Root) -> Self {
        Self {
            root,
            virtualization: None,
            hypothetical: Hypothetical::default(),
            extra_unit: None,
            process: None,
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
    let Request { root, virtualization, hypothetical, extra_unit, process } = request;
    let mut problems = Vec::new();
    let kernel_switch = kernel_cmdline::read(root, *virtualization, &mut problems);
    let config = config::read(root, &mut problems);
    let mut sizing = Sizing { kernel_switch, config, units: Vec::new(), problems };
    if !sizing.is_enabled() {
        return sizing;
    }
    let host = host::read(root, &mut sizing.problems);
    let container = cgroup::read(root, &mut sizing.problems);
    let mut machine = host.limits;
    machine.extend(container.limits);
    if let Some(process) = *process {
        // In a container of its own its cgroup is PID 1's: each file once.
        let mut problems = Vec::new();
        let mut limits = process::read(root, process, &mut problems);
        limits.retain(|limit| !machine.iter().any(|old| old.source == limit.source));
        problems.retain(|problem| !sizing.problems.iter().any(|old| old.source == problem.source));
        machine.append(&mut limits);
        sizing.problems.append(&mut problems);
    }
    let machine = replaced(machine, hypothetical);
    // What percentages are of, as for systemd (`physical_memory()`).
    let physical_memory = match (hypothetical.memory, host.memory_total, container.root_memory) {
        (Some((bytes, _)), _, _) => Some(bytes),
        (None, Some(total), Some(limit)) => Some(total.min(limit)),
        (None, total, _) => total,
    };

    let mut names = sizing.config.units();
    // A process that is one service does not share with a default that nobody asked for.
    if process.is_some() && extra_unit.is_some() && !sizing.config.names_units() {
        names.clear();
    }
    if let Some(extra) = extra_unit
        && !names.iter().any(|name| name == extra)
    {
        names.push((*extra).to_owned());
    }
    let sharing = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
    let mut services = services(root, &names, &sizing.config, physical_memory, &mut sizing.problems);
    // The last of them takes the machine's limits, the others have copies.
    let machines = std::iter::repeat_n(machine, names.len());
    let of = std::mem::take(&mut services.of);
    for ((name, service), mut limits) in names.into_iter().zip(of).zip(machines) {
        let config = sizing.config.for_unit(&name);
        if !config.is_enabled() {
            continue;
        }
        // The process's own belong to it alone.
        for limit in limits.iter_mut().filter(|limit| limit.scope != Scope::Process) {
            limit.shared_by = sharing;
        }
        if service.replaces_affinity && limits.iter().any(is_cpuset) {
            limits.retain(|limit| *limit.source.file != *host::PID_1_STATUS);
        }
        limits.extend(service.slices.iter().flat_map(|slice| services.limits_of(slice)));
        limits.extend(service.limits);
        let reserve = Reserve {
            cpu: config.reserve_cpus.as_ref().map_or(0, |set| set.value) / u64::from(sharing),
            memory: config
                .reserve_memory
                .as_ref()
                .map_or(0, |set| set.value.in_bytes(physical_memory.unwrap_or(0)))
                / u64::from(sharing),
        };
        let capacity = capacity(&limits, reserve);
        let profile = profile(capacity.whole_cpus(), capacity.memory.amount, &config.policy_settings());
        sizing.units.push(SizedUnit {
            name,
            config,
            definition: service.definition,
            slices: service.slices,
            overrides: service.overrides,
            limits,
            capacity,
            profile,
        });
    }
    sizing
}

/// Whether a limit is the kernel's own word on the CPUs of the container. Where that can be seen, PID 1's affinity only
/// says what processes inherit, and `CPUAffinity=` of a service replaces it; where not, the affinity may be all that
/// shows of a cpuset further out, and both count.
fn is_cpuset(limit: &Limit) -> bool {
    limit.scope == Scope::Container && matches!(limit.amount, Amount::Cpus(_))
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

/// All services and the slices around them; a slice of several is read once.
#[derive(Default)]
struct Services {
    /// In the order of their names; empty where that is none of a service.
    of: Vec<Service>,
    /// How many of the services live in it, and its limits.
    slices: BTreeMap<String, (u32, Vec<Limit>)>,
}

/// Reads the unit files of the services `names` and of their slices.
fn services(
    root: &Root,
    names: &[String],
    config: &Config,
    physical_memory: Option<u64>,
    problems: &mut Vec<Problem>,
) -> Services {
    let index = Index::read(root, names, problems);
    let mut all = Services::default();
    for name in names {
        let Some(mut unit) = index.load(name, problems) else {
            all.of.push(Service::default());
            continue;
        };
        overrides::hide(&mut unit);
        let settings = service::settings(&unit, physical_memory, problems);
        let mut slices = Vec::new();
        let mut next = settings.slice.clone();
        while let Some(slice) = next {
            let (services, _) = all.slices.entry(slice.clone()).or_insert_with(|| {
                let limits = index.load(&slice, problems).map(|unit| {
                    let settings = service::settings(&unit, physical_memory, problems);
                    service::limits(root, &settings, Scope::Slice, problems)
                });
                (0, limits.unwrap_or_default())
            });
            *services += 1;
            next = parent_slice(&slice);
            slices.push(slice);
        }
        slices.reverse();
        let service = Service {
            overrides: overrides::read(root, &unit, &config.for_unit(name).decided_variables(), problems),
            slices,
            limits: service::limits(root, &settings, Scope::Service, problems),
            replaces_affinity: settings.cpu_affinity.is_some() || settings.numa_affinity.is_some(),
            definition: Some(unit),
        };
        all.of.push(service);
    }
    all
}

impl Services {
    /// The limits of one slice, shared by all the services in it.
    fn limits_of(&self, slice: &str) -> Vec<Limit> {
        let (shared_by, limits) = match self.slices.get(slice) {
            Some((services, limits)) => (*services, limits.as_slice()),
            None => (1, [].as_slice()),
        };
        limits.iter().map(|limit| Limit { shared_by, ..limit.clone() }).collect()
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
