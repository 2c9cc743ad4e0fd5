//! Advises fewer workers if memory or CPUs run out, and more if demand is proven and there is room. Pure.

use super::finding::{Advice, AdviceTopic, NOT_IN_EFFECT, PresentSizing, workers};
use super::memory::{needed, room};
use crate::policy::GUIDE_MAX_WORKERS;
use crate::watch::evidence::Epoch;
use crate::watch::text::{clock_range, counted, duration, gib, part, size};

/// Advises fewer workers, because memory or CPUs run out.
pub(super) fn under_pressure(epoch: &Epoch, setup: &PresentSizing) -> Option<Advice> {
    let live = u32::try_from(epoch.workers).unwrap_or(u32::MAX);
    let of_time = |seconds| part(seconds, epoch.totals.seconds);
    let less = live.saturating_sub(1);
    let (reason, time) = if let Some(killed) = epoch.killed {
        let processes = counted(epoch.totals.oom_kills, "process", "processes");
        (format!("the kernel killed {processes} of the service because memory ran out"), killed)
    } else if let Some(time) = epoch.stalled.proven {
        (format!("tasks waited for memory during {}", of_time(epoch.totals.memory_stalled)), time)
    } else if let Some(time) = epoch.tight.proven {
        (
            format!(
                "the service used over 90% of its {} during {}",
                gib(setup.memory),
                of_time(epoch.totals.memory_tight)
            ),
            time,
        )
    } else if let Some(time) = epoch.full.proven.filter(|_| u64::from(live) > setup.cpus) {
        let cpus = u32::try_from(setup.cpus).unwrap_or(u32::MAX);
        let reason = format!(
            "no CPU was idle during {}: {live} workers only compete for {}",
            of_time(epoch.totals.cpu_full),
            counted(cpus.into(), "CPU", "CPUs")
        );
        return Some(setup.fewer(cpus, live, &reason, AdviceTopic::Workers).at(time));
    } else {
        return None;
    };
    if less == 0 {
        let reason = format!("{reason}; one worker is the minimum: the service needs more memory");
        return Some(Advice::remark(AdviceTopic::Workers, reason).at(time));
    }
    Some(setup.fewer(less, live, &reason, AdviceTopic::Workers).at(time))
}

/// Advises more workers, if demand is proven and there is room.
pub(super) fn demand(
    epoch: &Epoch,
    setup: &PresentSizing,
    block: f64,
    clock: Option<&dyn Fn(f64) -> String>,
) -> Advice {
    let live = u32::try_from(epoch.workers).unwrap_or(u32::MAX).max(1);
    let length = duration(block);
    let busiest = epoch.busiest.map_or_else(String::new, |(waiting, from, until)| {
        let when = clock.map_or_else(String::new, |clock| format!(" ({})", clock_range(clock, from, until)));
        let how = if epoch.busiest_is_computed {
            "judging by the workers' CPU use, requests waited for a worker"
        } else {
            "requests waited for a worker"
        };
        format!("{how} during {:.0}% of the busiest {length}{when}", waiting * 100.0)
    });
    let all = (epoch.from, epoch.until);
    let remark = |reason| Advice::remark(AdviceTopic::Workers, reason);
    let Some(time) = epoch.demand.proven else {
        let why = if busiest.is_empty() {
            format!("no period of {length} was watched without a gap, so demand is unknown")
        } else if epoch.full.proven.is_some() {
            format!("{busiest}; the CPUs are busy, so more workers would only compete for them")
        } else {
            format!("{busiest}; this shows no need for more workers{}", unseen(epoch))
        };
        return remark(why).at(all);
    };
    let blocks = format!("{busiest}; {} blocks in total show demand", epoch.demand.count);
    if epoch.demand_under_pressure > 0 {
        return remark(format!("{blocks}; but memory was short at that time: no room for another worker"))
            .at(time);
    }
    let free = epoch.free_cpus.percentile(50).unwrap_or(0);
    let memory = room(epoch, setup.memory);
    let shown = format!("{blocks}; {} idle at that time", counted(free, "CPU was", "CPUs were"));
    if free == 0 {
        return remark(format!("{shown}: no room for another worker")).at(time);
    }
    let sized = setup.profile().workers;
    if sized > live {
        return remark(format!("{shown}; the profile already gives {}{NOT_IN_EFFECT}", workers(sized)))
            .at(time);
    }
    let most = GUIDE_MAX_WORKERS;
    let free = u32::try_from(free).unwrap_or(u32::MAX);
    // At most twice as many: the next watch can advise more.
    let wanted = live.saturating_add(free.min(live)).min(most);
    if wanted <= live {
        return remark(format!("{shown}; {most} workers are the guide's maximum")).at(time);
    }
    let fits = (live..=wanted).rev().find(|workers| needed(epoch, *workers) <= memory).unwrap_or(live);
    if fits <= live {
        let reason = format!(
            "{shown}, but {} would need up to {} of the {} that are safe to use: no room for another worker",
            workers(live + 1),
            size(needed(epoch, live + 1)),
            gib(memory)
        );
        return remark(reason).at(time);
    }
    let shown = format!(
        "{shown}, and {} would need up to {} of {}",
        workers(fits),
        size(needed(epoch, fits)),
        gib(memory)
    );
    let then = setup.with(|settings| settings.max_workers = fits).workers;
    if then <= live {
        return match setup.settings.workers {
            Some(_) => Advice::set(
                AdviceTopic::Workers,
                format!("Workers={fits}"),
                format!("{shown}: concurrency demand is proven"),
            )
            .at(time),
            None => remark(format!(
                "{shown}: demand is proven, but the guide gives {} for {} and {} CPUs",
                workers(then),
                gib(setup.memory),
                setup.cpus
            ))
            .at(time),
        };
    }
    let reason = format!("{shown}: concurrency demand is proven; this gives {}", workers(then));
    Advice::set(AdviceTopic::Workers, format!("MaxWorkers={then}"), reason).at(time)
}

/// The limits of the measurements.
fn unseen(epoch: &Epoch) -> &'static str {
    if epoch.totals.queued > 0.0 || epoch.totals.queue_peak > 0 {
        ""
    } else {
        "; requests that wait for a modem inside a worker, or on a keep-alive connection, are in no queue"
    }
}
