//! The one way from the files to the profile, for the generator and for every verb of the helper.

use crate::capacity::{Capacity, Reserve, capacity};
use crate::config::{self, Config, UnitConfig};
use crate::limits::{Amount, Limit, Scope, cgroup, host};
use crate::parse::cpu_list::CpuSet;
use crate::policy::{Profile, profile};
use crate::problem::{Problem, Source};
use crate::root::Root;
use crate::switch;

/// Another machine to try: what is given stands for all that was found of the host and its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instead {
    /// Milli-CPUs, and the flag that said so.
    pub cpu: Option<(u64, &'static str)>,
    /// Bytes, and the flag that said so.
    pub memory: Option<(u64, &'static str)>,
}

/// Everything that was found out, in the order in which it was.
#[derive(Debug)]
pub struct Sizing {
    /// What the kernel command line said, and where.
    pub switch: Option<(bool, &'static str)>,
    /// The operator's configuration.
    pub config: Config,
    /// The units, each with its profile.
    pub units: Vec<Unit>,
    /// What was wrong with the inputs.
    pub problems: Vec<Problem>,
}

/// One unit and how its profile came about.
#[derive(Debug)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// The configuration that holds for it.
    pub config: UnitConfig,
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
        self.switch.is_none_or(|(on, _)| on) && self.config.is_enabled()
    }
}

/// Reads everything below `root` and sizes the units.
///
/// `virtualization`: systemd's word for where it runs (`SYSTEMD_VIRTUALIZATION`), where the caller has it.
pub fn size(root: &Root, virtualization: Option<&str>, instead: &Instead) -> Sizing {
    size_also(root, virtualization, instead, None)
}

/// As [`size`], and one unit more that was asked for by name, as though it stood in `Units=`.
pub fn size_also(root: &Root, virtualization: Option<&str>, instead: &Instead, also: Option<&str>) -> Sizing {
    let mut problems = Vec::new();
    let switch = switch::read(root, virtualization, &mut problems);
    let config = config::read(root, &mut problems);
    let mut sizing = Sizing { switch, config, units: Vec::new(), problems };
    if !sizing.is_enabled() {
        return sizing;
    }
    let host = host::read(root, &mut sizing.problems);
    let container = cgroup::read(root, &mut sizing.problems);
    let mut machine = host.limits;
    machine.extend(container.limits);
    let machine = replaced(machine, instead);
    // What percentages are of, as for systemd (`physical_memory()`).
    let physical_memory = match (instead.memory, host.memory_total, container.root_memory) {
        (Some((bytes, _)), _, _) => Some(bytes),
        (None, Some(total), Some(limit)) => Some(total.min(limit)),
        (None, total, _) => total,
    };

    let mut names = sizing.config.units();
    if let Some(also) = also
        && !names.iter().any(|name| name == also)
    {
        names.push(also.to_owned());
    }
    let sharing = u32::try_from(names.len()).unwrap_or(u32::MAX).max(1);
    for name in names {
        let config = sizing.config.of(&name);
        if !config.is_enabled() {
            continue;
        }
        let limits: Vec<Limit> =
            machine.iter().map(|limit| Limit { shared_by: sharing, ..limit.clone() }).collect();
        let reserve = Reserve {
            cpu: config.reserve_cpus.as_ref().map_or(0, |set| set.value) / u64::from(sharing),
            memory: config
                .reserve_memory
                .as_ref()
                .map_or(0, |set| set.value.of(physical_memory.unwrap_or(0)))
                / u64::from(sharing),
        };
        let capacity = capacity(&limits, reserve);
        let profile = profile(capacity.whole_cpus(), capacity.memory.amount, &config.settings());
        sizing.units.push(Unit { name, config, limits, capacity, profile });
    }
    sizing
}

/// The machine's limits, with the ones of a machine to try in their place.
fn replaced(mut limits: Vec<Limit>, instead: &Instead) -> Vec<Limit> {
    let mut put = |amount: Amount, flag: &'static str| {
        let limit =
            Limit { scope: Scope::Host, amount, source: Source::key("command line", 0, flag), shared_by: 1 };
        limits.retain(|old| old.resource() != limit.resource());
        limits.push(limit);
    };
    if let Some((milli, flag)) = instead.cpu {
        match milli % 1000 {
            0 => put(Amount::Cpus(CpuSet::first(u32::try_from(milli / 1000).unwrap_or(u32::MAX))), flag),
            _ => put(Amount::CpuTime(milli), flag),
        }
    }
    if let Some((bytes, flag)) = instead.memory {
        put(Amount::Memory(bytes), flag);
    }
    limits
}
