//! Advises a lower recycle limit if that contains the growth of workers. Pure.

use std::fmt::Write as _;

use super::finding::{Advice, AdviceTopic, NOT_IN_EFFECT, PresentSizing};
use crate::policy::RECYCLE_SMALL;
use crate::watch::evidence::{ALLOWED, BLOCK, Evidence, Growth, LEAK_BLOCKS, UNEVEN_LEAK_BLOCKS};
use crate::watch::text::{duration, interval, per_hour, size};
use crate::watch::{number, to_u64};

/// The growth that must have been observed, as a fraction of the initial memory: anything less may be the end of the
/// warm-up.
const TO_MATTER: f64 = 0.02;
/// The growth, as a fraction of the initial memory, below which nothing is advised: memory also follows the time of day.
const TO_ADVISE: f64 = 0.1;
/// A leak is distinguished from a cache earlier if a worker grew by this fraction of its initial memory.
const EVIDENT_GROWTH: f64 = 0.5;
/// Growth that takes longer than a week to matter is ignored: machines are updated more often.
const SLOW: f64 = 7.0 * 86_400.0;
/// Below this recycle limit, a worker would be replaced shortly after it has started.
const MIN_LIMIT: u32 = 100;

/// Growth that a lower recycle limit would contain.
pub(super) fn growth_finding(evidence: &Evidence, growth: Option<&Growth>, setup: &PresentSizing) -> Advice {
    let remark = |reason| Advice::remark(AdviceTopic::Growth, reason);
    let Some(growth) = growth else {
        let needed = duration(evidence.block_length() * 6.0);
        return remark(format!(
            "growth: unknown until the workers have been watched for {needed} without a restart"
        ));
    };
    let (slope, worker) = match &growth.single {
        Some(single) => (single.slope, format!("worker {} alone", single.pid)),
        None => (growth.all, "a worker".to_owned()),
    };
    let mut who = format!("{worker} grows by {}", interval(&slope).trim_start_matches('+'));
    if let Some(single) = &growth.single {
        let _ = write!(who, " (the others: {})", per_hour(single.others));
    }
    let limit = setup.limit_max_requests.unwrap_or_else(|| setup.profile().limit_max_requests);
    let allowed = number(growth.baseline) * ALLOWED;
    let room = size(to_u64(allowed));
    let by_a_life = |shown: String, a_life: f64| {
        let fits = u32::try_from(to_u64((f64::from(limit) * allowed / a_life).floor())).unwrap_or(limit);
        // The guide's number, if that is low enough.
        let lower = if fits >= RECYCLE_SMALL { RECYCLE_SMALL } else { (fits / 10 * 10).max(MIN_LIMIT) };
        if lower >= limit {
            return remark(format!("{shown}; a limit below {limit} would not help"));
        }
        let reason =
            format!("{shown}; a limit of {lower} requests keeps it below {room}, a quarter of its size");
        recycle_at(setup, lower, &reason)
    };
    let are_alike = growth.all.lasting && growth.a_life.is_some_and(|a_life| a_life.value > allowed);
    if let (Some((leaks, lives, a_life)), false, 1..) = (growth.some_lives, are_alike, limit) {
        let shown = format!(
            "in {leaks} of {lives} lifetimes of {limit} requests, a worker grew by about {} and kept growing",
            size(to_u64(a_life))
        );
        return by_a_life(shown, a_life);
    }
    let grown = slope.per_second * (growth.until - growth.from);
    if !slope.lasting || grown < number(growth.baseline) * TO_MATTER {
        return remark(format!("no lasting growth: {} per worker", interval(&growth.all)));
    }
    if let (Some(a_life), 1..) = (growth.a_life, limit) {
        let age = evidence.recycle_age().unwrap_or(0.0);
        let shown = format!(
            "a worker grows by {} ({} to {}) in a lifetime of {limit} requests, which took {} ({} per 1000 requests)",
            size(to_u64(a_life.value)),
            size(to_u64(a_life.low)),
            size(to_u64(a_life.high)),
            duration(age),
            size(to_u64(a_life.value / f64::from(limit) * 1000.0))
        );
        if a_life.value <= allowed {
            return remark(format!("{shown}; recycling contains it"));
        }
        return by_a_life(shown, a_life.value);
    }
    let until = allowed / slope.per_second;
    let shown = format!("{who}, {room} (a quarter of its size) in {}", duration(until));
    if until > SLOW {
        return remark(format!("{shown}: too slow to matter"));
    }
    // Shorter blocks than the default mean that an earlier answer is wanted. A point of an envelope covers the time
    // after it.
    let seen = |blocks: f64| growth.seen >= evidence.block_length() * blocks * 0.95;
    let by_now = slope.per_second * growth.seen / number(growth.baseline).max(1.0);
    let is_certain = slope.steady && (by_now >= EVIDENT_GROWTH || seen(LEAK_BLOCKS));
    let is_leak = (is_certain || seen(UNEVEN_LEAK_BLOCKS)) && by_now >= TO_ADVISE;
    if evidence.block_length() >= BLOCK && !is_leak {
        return remark(format!(
            "{who} so far; a cache that is filling up looks the same for hours, so advice requires up to {} of the same \
             worker, and growth by a tenth of its size",
            duration(evidence.block_length() * UNEVEN_LEAK_BLOCKS)
        ));
    }
    let lower = match limit {
        0 => RECYCLE_SMALL,
        above if above > RECYCLE_SMALL => RECYCLE_SMALL,
        _ => (limit / 2).max(MIN_LIMIT),
    };
    if limit != 0 && lower >= limit {
        return remark(format!("{shown}; a limit below {limit} would not help"));
    }
    let reason = if limit == 0 {
        format!("{shown}; workers are never recycled")
    } else {
        format!(
            "{shown}; too few workers reached the limit of {limit} requests during the watch to determine the growth per \
             request"
        )
    };
    recycle_at(setup, lower, &reason)
}

/// The line that makes `lower` the recycle limit, using the guide's own setting if possible.
fn recycle_at(setup: &PresentSizing, lower: u32, reason: &str) -> Advice {
    let sized = setup.profile().limit_max_requests;
    if (1..=lower).contains(&sized) {
        let reason = format!("{reason}; the profile already has {sized}{NOT_IN_EFFECT}");
        return Advice::remark(AdviceTopic::Growth, reason);
    }
    let investigated = setup.with(|settings| settings.investigate_memory_creep = true).limit_max_requests;
    let line = if investigated == lower && sized != investigated {
        "InvestigateMemoryCreep=yes".to_owned()
    } else {
        format!("LimitMaxRequests={lower}")
    };
    Advice::set(AdviceTopic::Growth, line, reason.to_owned())
}
