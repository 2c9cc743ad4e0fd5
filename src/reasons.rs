//! The reasons for a profile as short texts, for the comments in the drop-in and the output of the helper. They describe
//! what the other modules have determined, and decide nothing.

use crate::capacity::Available;
use crate::parse::quantity::{Cpus, GB, in_gib};
use crate::policy::{Guardrail, LimitStep, WorkersStep};
use crate::problem::Source;
use crate::sized::SizedUnit;

/// The tightest limit of CPUs, and what was subtracted from it.
pub fn cpu_reason(unit: &SizedUnit) -> String {
    available_reason(unit, unit.capacity.cpu, &|milli| Cpus(milli).to_string())
}

/// The tightest limit of memory, and what was subtracted from it.
pub fn memory_reason(unit: &SizedUnit) -> String {
    available_reason(unit, unit.capacity.memory, &in_gib)
}

fn available_reason(unit: &SizedUnit, available: Available, written: &dyn Fn(u64) -> String) -> String {
    let Some(limit) = available.binding.and_then(|index| unit.limits.get(index)) else {
        return "no limit could be read".to_owned();
    };
    let shared = match limit.shared_by {
        1 => String::new(),
        units => format!(", shared by {units} units"),
    };
    let reserved = match available.reserved {
        0 => String::new(),
        amount => format!(", minus {} reserved", written(amount)),
    };
    format!("{}{shared}{reserved}", one_line(limit.source.to_string()))
}

/// Why this number of workers.
pub fn workers_reason(unit: &SizedUnit) -> String {
    let profile = &unit.profile;
    let limited = |by: &str, others: &str, allowed: u32| {
        if allowed > profile.workers {
            format!("{by}; {others} would allow {allowed}")
        } else {
            by.to_owned()
        }
    };
    match profile.workers_step {
        WorkersStep::Operator => set_in(unit.config.workers.as_ref().map(|set| &set.source)),
        WorkersStep::Memory => limited(&guardrail_reason(profile.guardrail), "the CPUs", profile.cpu_target),
        WorkersStep::MemoryPerWorker => {
            limited("limited by MemoryPerWorker=", "the CPUs", profile.cpu_target)
        }
        WorkersStep::MaxWorkers => {
            let cap = match &unit.config.max_workers {
                Some(set) => format!("limited by {}", one_line(set.source.to_string())),
                None => "limited until concurrency is proven".to_owned(),
            };
            let cpus = u32::try_from(unit.capacity.whole_cpus()).unwrap_or(u32::MAX);
            let memory = profile.guardrail.workers.min(profile.per_worker_target.unwrap_or(u32::MAX));
            limited(&cap, "CPUs and memory", cpus.min(memory))
        }
        WorkersStep::Incomplete => unread(unit),
        WorkersStep::Cpus if unit.capacity.cpu.amount < 1000 => "the minimum".to_owned(),
        WorkersStep::Cpus => "one per whole CPU".to_owned(),
    }
}

/// Why this recycle limit.
pub fn limit_reason(unit: &SizedUnit) -> String {
    match unit.profile.limit_step {
        LimitStep::Operator => set_in(unit.config.limit_max_requests.as_ref().map(|set| &set.source)),
        LimitStep::Incomplete => unread(unit),
        LimitStep::MemoryCreep => "memory creep is being investigated".to_owned(),
        LimitStep::SmallSystem => "a small system".to_owned(),
        LimitStep::Default => "the default".to_owned(),
    }
}

/// The operator's own number, and where it is set.
fn set_in(source: Option<&Source>) -> String {
    match source {
        Some(source) => format!("set in {}", one_line(source.to_string())),
        None => "set in sizing.conf".to_owned(),
    }
}

/// The configuration is incomplete.
fn unread(unit: &SizedUnit) -> String {
    let file = unit.config.unread.as_ref().map_or_else(String::new, Source::place);
    format!("the minimum, because {} could not be read", one_line(file))
}

fn guardrail_reason(guardrail: Guardrail) -> String {
    let workers = guardrail.workers;
    match (guardrail.from / GB, guardrail.below.map(|bytes| bytes / GB)) {
        (0, Some(below)) => format!("memory under {below} GB allows {workers}"),
        (from, Some(below)) => format!("{from}-{below} GB of memory allows at most {workers}"),
        (from, None) => format!("memory above {from} GB allows at most {workers}"),
    }
}

/// Makes text suitable for a comment in a unit file: a single line without a continuation.
pub fn one_line(text: String) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
        return text;
    }
    text.chars().map(|c| if c.is_control() || c == '\\' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn text_for_a_comment() {
        for (text, comment) in [
            ("/etc/a b~:2", "/etc/a b~:2"),
            ("a\\", "a?"),
            ("\\\\", "??"),
            ("a\nb\u{7f}", "a?b?"),
            ("caf\u{e9}\\\n", "caf\u{e9}??"),
        ] {
            assert_eq!(one_line(text.to_owned()), comment);
        }
    }
}
