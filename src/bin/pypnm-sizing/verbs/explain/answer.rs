//! The schema of `explain --json`.

use pypnm_sizing::capacity::Available;
use pypnm_sizing::limits::{Amount, Limit, Resource, Scope};
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::SizedUnit;
use serde::Serialize;

use crate::answer::{Answer, ProfileAnswer, SourceAnswer, installations};
use crate::service::pypnm::Installation;
use crate::wording::PypnmDefault;

/// The answer of `explain --json`.
#[derive(Serialize)]
pub(super) struct ExplainAnswer {
    #[serde(flatten)]
    pub(super) answer: Answer<ExplainedUnit>,
    pub(super) configuration_files: Vec<String>,
}

/// A unit in it.
#[derive(Serialize)]
pub(super) struct ExplainedUnit {
    #[serde(flatten)]
    profile: ProfileAnswer,
    limits: Vec<LimitAnswer>,
    capacity: CapacityAnswer,
    targets: TargetsAnswer,
    pypnm_by_itself: PypnmDefaultAnswer,
    unit_files: Vec<String>,
    installations: Vec<Installation>,
}

/// A limit that was found.
#[derive(Serialize)]
struct LimitAnswer {
    resource: &'static str,
    scope: &'static str,
    /// Milli-CPUs or bytes.
    amount: Option<u64>,
    cpus: Option<String>,
    shared_by: u32,
    binds: bool,
    source: SourceAnswer,
}

/// What remains of the tightest limits.
#[derive(Serialize)]
struct CapacityAnswer {
    cpu: AvailableAnswer,
    memory: AvailableAnswer,
}

/// Milli-CPUs or bytes.
#[derive(Serialize)]
struct AvailableAnswer {
    amount: u64,
    before_reserve: u64,
    reserved: u64,
}

/// The number of workers according to each of the guide's steps.
#[derive(Serialize)]
struct TargetsAnswer {
    cpu: u32,
    memory: u32,
    memory_per_worker: Option<u32>,
}

/// The result of PyPNM's own sizing.
#[derive(Serialize)]
struct PypnmDefaultAnswer {
    #[serde(flatten)]
    numbers: Numbers,
    differs_because: Vec<String>,
}

impl ExplainedUnit {
    pub(super) fn new(root: &Root, unit: &SizedUnit, default: &PypnmDefault) -> Self {
        let binds = |index| {
            [unit.capacity.cpu, unit.capacity.memory].iter().any(|available| available.binding == Some(index))
        };
        let limits =
            unit.limits.iter().enumerate().map(|(index, limit)| LimitAnswer::new(limit, binds(index)));
        let files = unit.definition.iter().flat_map(|unit| unit.fragment.iter().chain(&unit.drop_ins));
        Self {
            profile: ProfileAnswer::new(unit),
            limits: limits.collect(),
            capacity: CapacityAnswer {
                cpu: AvailableAnswer::new(unit.capacity.cpu),
                memory: AvailableAnswer::new(unit.capacity.memory),
            },
            targets: TargetsAnswer {
                cpu: unit.profile.cpu_target,
                memory: unit.profile.guardrail.workers,
                memory_per_worker: unit.profile.per_worker_target,
            },
            pypnm_by_itself: PypnmDefaultAnswer {
                numbers: default.numbers,
                differs_because: default.against(unit).1,
            },
            unit_files: files.cloned().collect(),
            installations: installations(root, unit),
        }
    }
}

impl LimitAnswer {
    fn new(limit: &Limit, binds: bool) -> Self {
        let (amount, cpus) = match &limit.amount {
            Amount::Memory(bytes) => (Some(*bytes), None),
            Amount::MemoryNodes(nodes) => (Some(nodes.bytes()), None),
            Amount::CpuTime(milli) => (Some(*milli), None),
            Amount::Cpus(set) => (Some(u64::from(set.count()) * 1000), Some(set.to_string())),
            Amount::Unknown(_) => (None, None),
        };
        Self {
            resource: match limit.resource() {
                Resource::Cpu => "cpu",
                Resource::Memory => "memory",
            },
            scope: scope(limit.scope),
            amount,
            cpus,
            shared_by: limit.shared_by,
            binds,
            source: SourceAnswer::new(&limit.source),
        }
    }
}

impl AvailableAnswer {
    fn new(available: Available) -> Self {
        Self {
            amount: available.amount,
            before_reserve: available.amount.saturating_add(available.reserved),
            reserved: available.reserved,
        }
    }
}

/// The scope of a limit, as in JSON.
pub(super) fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Host | Scope::Inherited => "machine",
        Scope::Container => "container",
        Scope::Slice => "slice",
        Scope::Service => "service",
        Scope::Process => "process",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        AvailableAnswer, CapacityAnswer, ExplainAnswer, ExplainedUnit, LimitAnswer, PypnmDefaultAnswer,
        TargetsAnswer,
    };
    use crate::answer::tests::{
        COMMON, answer, assert_documented, example_installations, numbers, profile, source,
    };

    #[test]
    fn the_schema_is_documented() {
        let available = || AvailableAnswer { amount: 1, before_reserve: 1, reserved: 1 };
        let unit = ExplainedUnit {
            profile: profile(),
            limits: vec![LimitAnswer {
                resource: "",
                scope: "",
                amount: Some(1),
                cpus: Some(String::new()),
                shared_by: 1,
                binds: true,
                source: source(),
            }],
            capacity: CapacityAnswer { cpu: available(), memory: available() },
            targets: TargetsAnswer { cpu: 1, memory: 1, memory_per_worker: Some(1) },
            pypnm_by_itself: PypnmDefaultAnswer { numbers: numbers(), differs_because: vec![String::new()] },
            unit_files: vec![String::new()],
            installations: example_installations(),
        };
        let example = ExplainAnswer { answer: answer(unit), configuration_files: vec![String::new()] };
        assert_documented(&[COMMON, "`explain`"], &example);
    }
}
