//! The capacity of a unit: for each resource, the minimum of all limits minus the operator's reserve. Pure.
//!
//! [`crate::limits`] collects the limits; [`crate::policy`] derives workers from the capacity.

use crate::limits::nodes::NodeMemory;
use crate::limits::{Amount, Limit, Resource};
use crate::parse::cpu_list::CpuSet;

/// What the operator reserves for other services on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Milli-CPUs.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

/// The amount of a resource that a unit may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Milli-CPUs or bytes; 0 if nothing is known.
    pub amount: u64,
    /// The index of the tightest limit. `None`: no limit was found.
    pub binding: Option<usize>,
    /// The reserve that was subtracted, in milli-CPUs or bytes.
    pub reserved: u64,
}

/// The resources that a unit may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// In milli-CPUs.
    pub cpu: Available,
    /// In bytes.
    pub memory: Available,
}

impl Capacity {
    /// The number of whole CPUs, rounded down, but at least 1.
    pub fn whole_cpus(&self) -> u64 {
        (self.cpu.amount / 1000).max(1)
    }
}

/// The minimum of `limits` for each resource, minus `reserve`.
///
/// If several units share a limit, each gets an equal share of it. Sets of CPUs are intersected in order, as the kernel
/// does: two sets of four CPUs with a single CPU in common grant one CPU.
pub fn capacity(limits: &[Limit], reserve: Reserve) -> Capacity {
    let mut cpu = Minimum::default();
    let mut memory = Minimum::default();
    let mut cpus: Option<CpuSet> = None;
    let mut nodes: Option<NodeMemory> = None;
    for (index, limit) in limits.iter().enumerate() {
        let share = |amount: u64| amount / u64::from(limit.shared_by.max(1));
        match &limit.amount {
            Amount::Memory(bytes) => memory.lower_to(index, share(*bytes)),
            Amount::CpuTime(milli) => cpu.lower_to(index, share(*milli)),
            Amount::Cpus(set) => {
                let common = cpus.map_or_else(|| set.clone(), |so_far| so_far.intersection(set));
                cpu.lower_to(index, share(u64::from(common.count()) * 1000));
                cpus = Some(common);
            }
            Amount::MemoryNodes(set) => {
                let common = nodes.get_or_insert_with(|| set.clone());
                common.intersect(set);
                memory.lower_to(index, share(common.bytes()));
            }
            Amount::Unknown(Resource::Cpu) => cpu.lower_to(index, 0),
            Amount::Unknown(Resource::Memory) => memory.lower_to(index, 0),
        }
    }
    Capacity { cpu: cpu.less(reserve.cpu), memory: memory.less(reserve.memory) }
}

/// The smallest amount so far, and the index of the first limit with that amount.
#[derive(Default)]
struct Minimum(Option<(usize, u64)>);

impl Minimum {
    fn lower_to(&mut self, index: usize, amount: u64) {
        if self.0.is_none_or(|(_, least)| amount < least) {
            self.0 = Some((index, amount));
        }
    }

    fn less(self, reserve: u64) -> Available {
        match self.0 {
            None => Available::default(),
            Some((index, least)) => Available {
                amount: least.saturating_sub(reserve),
                binding: Some(index),
                reserved: reserve.min(least),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reserve, capacity};
    use crate::limits::{Amount, Limit, Resource, Scope};
    use crate::parse::cpu_list::CpuSet;
    use crate::problem::Source;

    fn limit(amount: Amount, shared_by: u32) -> Limit {
        Limit { scope: Scope::Host, amount, source: Source::file("/x"), shared_by }
    }

    fn cpus(list: &str) -> Amount {
        Amount::Cpus(CpuSet::parse(list).unwrap_or_default())
    }

    #[test]
    fn the_minimum_binds_and_says_which() {
        let limits = [
            limit(Amount::Memory(10), 1),
            limit(cpus("0-7"), 1),
            limit(Amount::Memory(3), 1),
            limit(Amount::CpuTime(2500), 1),
            limit(Amount::Memory(3), 1),
        ];
        let found = capacity(&limits, Reserve::default());
        assert_eq!((found.memory.amount, found.memory.binding), (3, Some(2)));
        assert_eq!((found.cpu.amount, found.cpu.binding), (2500, Some(3)));
        assert_eq!(found.whole_cpus(), 2);
    }

    #[test]
    fn sets_of_cpus_are_intersected() {
        let found = capacity(&[limit(cpus("0-3"), 1), limit(cpus("3-6"), 1)], Reserve::default());
        assert_eq!((found.cpu.amount, found.cpu.binding), (1000, Some(1)));
        let none = capacity(&[limit(cpus("0-1"), 1), limit(cpus("2-3"), 1)], Reserve::default());
        assert_eq!((none.cpu.amount, none.whole_cpus()), (0, 1));
    }

    #[test]
    fn units_share_limits() {
        let limits = [limit(Amount::Memory(16), 2), limit(Amount::Memory(9), 1), limit(cpus("0-3"), 2)];
        let found = capacity(&limits, Reserve::default());
        assert_eq!((found.memory.amount, found.memory.binding), (8, Some(0)));
        assert_eq!(found.cpu.amount, 2000);
    }

    #[test]
    fn reserves_are_subtracted_from_the_minimum() {
        let limits = [limit(Amount::Memory(16), 1), limit(Amount::CpuTime(4000), 1)];
        let found = capacity(&limits, Reserve { cpu: 1500, memory: 20 });
        assert_eq!((found.memory.amount, found.memory.reserved), (0, 16));
        assert_eq!((found.cpu.amount, found.whole_cpus()), (2500, 2));
    }

    #[test]
    fn an_unreadable_limit_is_minimal() {
        let limits = [limit(Amount::Memory(16), 1), limit(Amount::Unknown(Resource::Memory), 1)];
        assert_eq!(capacity(&limits, Reserve::default()).memory.amount, 0);
        let nothing = capacity(&[], Reserve::default());
        assert_eq!((nothing.memory.amount, nothing.memory.binding, nothing.whole_cpus()), (0, None, 1));
    }
}
