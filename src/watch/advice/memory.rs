//! The measured memory of workers, and the number of workers that fit into memory. Pure.

use super::finding::{Advice, AdviceTopic, PresentSizing, workers};
use crate::watch::MIB;
use crate::watch::evidence::Epoch;
use crate::watch::text::{counted, gib, size};

/// The part of the memory, in tenths, that may be in use in the worst case for more workers to be advised.
const MARGIN: u64 = 9;

/// The memory that a number of workers needs in the worst case observed, in bytes: one at its peak, all others at the 95th
/// percentile of the samples, and the other processes; or in proportion to the highest total of all workers.
pub(super) fn needed(epoch: &Epoch, workers: impl Into<u64>) -> u64 {
    let count = workers.into().max(1);
    let one_at_its_peak =
        (count - 1).saturating_mul(epoch.worker_memory).saturating_add(epoch.totals.worker_peak);
    let seen = epoch.workers.max(1);
    let usual = seen.saturating_mul(epoch.worker_memory).saturating_add(epoch.totals.others_peak);
    let above = epoch.totals.total_peak.saturating_sub(usual);
    let all_at_once = count.saturating_mul(epoch.worker_memory).saturating_add(above / seen * count);
    one_at_its_peak.max(all_at_once).saturating_add(epoch.totals.others_peak)
}

/// The measured memory of a worker.
fn measured(epoch: &Epoch) -> String {
    format!(
        "a worker uses {} at the 95th percentile of the busiest ten minutes, {} at its peak; {} up to {}",
        size(epoch.worker_memory),
        size(epoch.totals.worker_peak),
        counted(epoch.workers, "worker needs", "workers need"),
        size(needed(epoch, epoch.workers))
    )
}

/// A remark on the measured memory, if something else is advised.
pub(super) fn memory_remark(epoch: &Epoch, setup: &PresentSizing) -> Advice {
    let reason = if epoch.memory_samples == 0 {
        "memory per worker: not measured yet".to_owned()
    } else {
        format!("{} of {}", measured(epoch), gib(setup.memory))
    };
    Advice::remark(AdviceTopic::MemoryPerWorker, reason)
}

/// `MemoryPerWorker=` as measured, if the profile does not fit.
pub(super) fn memory_per_worker(epoch: &Epoch, setup: &PresentSizing) -> Advice {
    let topic = AdviceTopic::MemoryPerWorker;
    if epoch.memory_samples == 0 {
        return memory_remark(epoch, setup);
    }
    let now = setup.profile().workers;
    let fit = |memory: u64| (1..=now).rev().find(|workers| needed(epoch, *workers) <= memory).unwrap_or(1);
    let fits = fit(setup.memory);
    if fits < now && setup.memory > 0 {
        let each = needed(epoch, fits).div_ceil(u64::from(fits)).next_multiple_of(MIB);
        let reason = format!("{}; {} is enough for {fits}, not {now}", measured(epoch), gib(setup.memory));
        let then = setup.with(|settings| settings.memory_per_worker = Some(each)).workers;
        if then < now {
            return Advice::set(topic, format!("MemoryPerWorker={}M", each / MIB), reason);
        }
        return setup.fewer(fits, now, &reason, topic);
    }
    if let Some(reach) = epoch.totals.within_reach.filter(|reach| *reach < setup.memory) {
        let fits = fit(reach);
        if fits < now {
            let reason = format!(
                "{}; other programs on this host leave only {} at times, enough for {fits}, not {now}",
                measured(epoch),
                gib(reach)
            );
            return setup.fewer(fits, now, &reason, topic);
        }
    }
    if epoch.mean_worker_cpu() < 2.0 {
        let reason = format!(
            "the workers were idle ({:.1}% of a CPU each), so the memory they need under load is unknown",
            epoch.mean_worker_cpu()
        );
        return Advice::remark(topic, reason);
    }
    let reason =
        format!("{} of {}: memory is enough for {}", measured(epoch), gib(setup.memory), workers(now));
    Advice::remark(topic, reason)
}

/// The memory that more workers may use, in bytes: nine tenths of the service's limit, and of the memory that other programs on
/// the host left available.
pub(super) fn room(epoch: &Epoch, memory: u64) -> u64 {
    let safe = memory / 10 * MARGIN;
    let kept = memory - safe;
    epoch.totals.within_reach.map_or(safe, |reach| safe.min(reach.saturating_sub(kept)))
}
