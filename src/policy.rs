//! PyPNM's guide "PyPNM Worker Sizing" as a pure function from capacity to profile.
//!
//! The number of workers is the lower of a CPU target and a memory target, and at least 1:
//!
//! | RAM                | maximum workers        | | recycle limit                       |      |
//! |--------------------|------------------------|-|-------------------------------------|------|
//! | under 6 GB         | 1                      | | under 6 GB                          | 1000 |
//! | 6 to 12 GB         | 2                      | | under 12 GB with 1 or 2 CPUs        | 1000 |
//! | 12 to 24 GB        | 4                      | | when investigating memory creep     | 1000 |
//! | 24 GB and above    | 8, but 4 by default    | | otherwise                           | 2000 |
//!
//! | CPUs               | min(MaxWorkers, CPUs); MaxWorkers is 4 until concurrency is proven   ||||
//!
//! As in the guide, a GB is 10⁹ bytes, so a machine sold with 6 GB is a 6 GB machine.

use crate::parse::quantity::GB;

/// The minimum memory of an idle worker of PyPNM 1.6, in bytes (its PSS among eight workers). Not used for sizing, only to
/// report an operator's `Workers=` that does not fit even if all workers are idle.
pub const IDLE_WORKER: u64 = 170 << 20;

/// A system with less memory is small: one worker, recycled early.
const SMALL: u64 = 6 * GB;
/// A system with less memory and one or two CPUs is small.
const MEDIUM: u64 = 12 * GB;
/// With at least this much memory, the guide allows more than 4 workers once concurrency is proven.
pub const LARGE: u64 = 24 * GB;

/// The guide's memory guardrails, in ascending order.
pub const GUARDRAILS: [Guardrail; 4] = [
    Guardrail { from: 0, below: Some(SMALL), workers: 1, guide: "under 6 GB RAM: default to 1 worker" },
    Guardrail {
        from: SMALL,
        below: Some(MEDIUM),
        workers: 2,
        guide: "6-12 GB RAM: default to at most 2 workers",
    },
    Guardrail {
        from: MEDIUM,
        below: Some(LARGE),
        workers: 4,
        guide: "12-24 GB RAM: default to at most 4 workers",
    },
    Guardrail {
        from: LARGE,
        below: None,
        workers: 8,
        guide: "above 24 GB RAM: allow 4, and only go higher when concurrency testing justifies it",
    },
];
/// The maximum number of workers for any amount of memory.
pub const GUIDE_MAX_WORKERS: u32 = 8;
/// `workers = min(4, cpu_count)`.
pub const DEFAULT_MAX_WORKERS: u32 = 4;
/// The guide: "as the default recycle safety valve".
pub const RECYCLE_DEFAULT: u32 = 2000;
/// The guide: "on smaller systems or when investigating memory creep".
pub const RECYCLE_SMALL: u32 = 1000;

/// A step of the guide's memory rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guardrail {
    /// The lower bound of memory, in bytes.
    pub from: u64,
    /// The upper bound, exclusive, in bytes. `None`: this is the last step.
    pub below: Option<u64>,
    /// The maximum number of workers.
    pub workers: u32,
    /// The wording of the guide.
    pub guide: &'static str,
}

/// The operator's settings for the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    /// A fixed number of workers; at least 1.
    pub workers: Option<u32>,
    /// A fixed recycle limit; 0: never.
    pub limit_max_requests: Option<u32>,
    /// The maximum of the CPU target; at least 1. A value above 4 states that concurrency is proven.
    pub max_workers: u32,
    /// The memory that a worker needs, in bytes; at least 1.
    pub memory_per_worker: Option<u64>,
    /// Whether memory creep is being investigated.
    pub investigate_memory_creep: bool,
    /// Whether there may be other settings, which could not be read. Settings that are absent are then assumed to be minimal.
    pub is_incomplete: bool,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            workers: None,
            limit_max_requests: None,
            max_workers: DEFAULT_MAX_WORKERS,
            memory_per_worker: None,
            investigate_memory_creep: false,
            is_incomplete: false,
        }
    }
}

/// The step that determined the number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkersStep {
    /// The operator set it.
    Operator,
    /// The number of CPUs is the lowest target.
    Cpus,
    /// `MaxWorkers=` is below what CPUs and memory would allow.
    MaxWorkers,
    /// The guide's memory guardrail.
    Memory,
    /// `MemoryPerWorker=`.
    MemoryPerWorker,
    /// Some settings could not be read.
    Incomplete,
}

/// The step that determined the recycle limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitStep {
    /// The operator set it.
    Operator,
    /// Some settings could not be read.
    Incomplete,
    /// Memory creep is being investigated.
    MemoryCreep,
    /// The system is small: less than 6 GB, or less than 12 GB with 1 or 2 CPUs.
    SmallSystem,
    /// The default.
    Default,
}

/// A profile, with the steps that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The number of workers to start; at least 1.
    pub workers: u32,
    /// What determined it.
    pub workers_step: WorkersStep,
    /// The number of requests after which a worker is recycled; 0: never.
    pub limit_max_requests: u32,
    /// What determined it.
    pub limit_step: LimitStep,
    /// The CPU target: min(MaxWorkers, whole CPUs).
    pub cpu_target: u32,
    /// The guardrail for the memory; its `workers` are the memory target.
    pub guardrail: Guardrail,
    /// Memory divided by `MemoryPerWorker=`, at least 1, if that is set.
    pub per_worker_target: Option<u32>,
    /// The number of workers from CPUs and memory: the lowest of all targets, regardless of the operator's `Workers=`.
    pub lowest_target: u32,
}

/// The guardrail for this amount of memory, in bytes.
fn guardrail(memory: u64) -> Guardrail {
    let [first, ..] = GUARDRAILS;
    GUARDRAILS.into_iter().rev().find(|guardrail| memory >= guardrail.from).unwrap_or(first)
}

/// The worker rule of the guide. `cpus` is the number of whole CPUs, and `memory` is in bytes. A value of 0 means that
/// nothing is known, and leads to the minimum.
pub fn profile(cpus: u64, memory: u64, settings: &PolicySettings) -> Profile {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
    let cpu_target = cpus.min(settings.max_workers).max(1);
    let guardrail = guardrail(memory);
    let per_worker_target = settings
        .memory_per_worker
        .map(|bytes| u32::try_from(memory / bytes.max(1)).unwrap_or(u32::MAX).max(1));

    let lowest_target = cpu_target.min(guardrail.workers).min(per_worker_target.unwrap_or(u32::MAX));
    let (workers, workers_step) = match settings.workers {
        Some(workers) => (workers.max(1), WorkersStep::Operator),
        None if settings.is_incomplete => (1, WorkersStep::Incomplete),
        None if lowest_target == cpu_target && cpus > cpu_target => (lowest_target, WorkersStep::MaxWorkers),
        None if lowest_target == cpu_target => (lowest_target, WorkersStep::Cpus),
        None if lowest_target == guardrail.workers => (lowest_target, WorkersStep::Memory),
        None => (lowest_target, WorkersStep::MemoryPerWorker),
    };

    let small = memory < SMALL || (memory < MEDIUM && cpus <= 2);
    let (limit_max_requests, limit_step) = match settings.limit_max_requests {
        Some(limit) => (limit, LimitStep::Operator),
        None if settings.is_incomplete => (RECYCLE_SMALL, LimitStep::Incomplete),
        None if settings.investigate_memory_creep => (RECYCLE_SMALL, LimitStep::MemoryCreep),
        None if small => (RECYCLE_SMALL, LimitStep::SmallSystem),
        None => (RECYCLE_DEFAULT, LimitStep::Default),
    };

    Profile {
        workers,
        workers_step,
        limit_max_requests,
        limit_step,
        cpu_target,
        guardrail,
        per_worker_target,
        lowest_target,
    }
}

#[cfg(test)]
mod tests;
