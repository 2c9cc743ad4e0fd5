//! The ledger for programs: one line of JSON a sample, and one at the end. Bytes, milli-CPUs, seconds, percent; what
//! could not be read is null. The schema's number rises when a field changes its meaning or goes.

use pypnm_sizing::watch::advice::Finding;
use pypnm_sizing::watch::ledger::{Ledger, Process, Shares};
use pypnm_sizing::watch::slope::Slope;
use serde_json::{Value, json};

use super::show::Context;

const SCHEMA: u32 = 1;

/// A line for a sample.
pub(super) fn sample(ledger: &Ledger, context: &Context<'_>) -> String {
    let workers = ledger
        .workers
        .iter()
        .map(|life| process(&life.now, life.shares, life.cpu, &growth(life.growth.as_ref())));
    let others =
        ledger.companions.iter().map(|other| process(&other.now, other.shares, other.cpu, &Value::Null));
    let last = ledger.last();
    json!({
        "schema": SCHEMA,
        "type": "sample",
        "seconds": ledger.watched(),
        "service": context.name,
        "processes": workers.chain(others).collect::<Vec<Value>>(),
        "workers": ledger.workers.len(),
        "memory": ledger.memory_now(),
        "memory_is": if ledger.has_shares() { "pss" } else { "rss" },
        "memory_peak": ledger.memory_peak,
        "memory_limit": ledger.bounds().memory,
        "cgroup_memory": last.and_then(|sample| sample.cgroup_memory),
        "cgroup_memory_peak": last.and_then(|sample| sample.cgroup_peak),
        "cpu_milli": ledger.rates.cpu,
        "cpu_milli_limit": ledger.bounds().cpu,
        "idle_milli": ledger.rates.idle,
        "pressure_memory_percent": ledger.rates.memory_stall,
        "pressure_cpu_percent": ledger.rates.cpu_stall,
        "throttled_percent": ledger.rates.throttled,
        "oom_kills": ledger.evidence.oom_kills,
        "recycles": ledger.recycles,
        "restarts": ledger.restarts,
        "limit_max_requests": context.limit_max_requests,
        "cost_percent": context.cost,
    })
    .to_string()
}

/// The line at the end.
pub(super) fn summary(ledger: &Ledger, context: &Context<'_>) -> String {
    let found = ledger.growth();
    let evidence = &ledger.evidence;
    json!({
        "schema": SCHEMA,
        "type": "summary",
        "seconds": ledger.watched(),
        "service": context.name,
        "samples": evidence.samples,
        "workers": ledger.workers.len(),
        "memory_peak": ledger.memory_peak,
        "memory_limit": ledger.bounds().memory,
        "peaks": evidence.peaks.total(),
        "peak_95_mib": evidence.peaks.percentile(95),
        "growth_per_hour": growth(found.as_ref().map(|growth| &growth.all)),
        "growth_goes_on": found.map(|growth| growth.goes_on),
        "evidence_seconds": evidence.seconds,
        "enough_seconds": ledger.enough(),
        "all_busy_seconds": evidence.all_busy,
        "cpu_full_seconds": evidence.cpu_full,
        "memory_tight_seconds": evidence.memory_tight,
        "memory_stalled_seconds": evidence.memory_stalled,
        "mean_worker_cpu_percent": ledger.mean_worker_cpu(),
        "oom_kills": evidence.oom_kills,
        "recycles": ledger.recycles,
        "recycle_age_seconds": ledger.recycle_interval(),
        "restarts": ledger.restarts,
        "short_lives": ledger.short_lives,
        "limit_max_requests": context.limit_max_requests,
        "findings": context.findings.iter().map(finding).collect::<Vec<Value>>(),
        "cost_percent": context.cost,
    })
    .to_string()
}

fn process(process: &Process, shares: Option<Shares>, cpu: Option<f64>, growth: &Value) -> Value {
    json!({
        "pid": process.pid,
        "role": process.role.word(),
        "age_seconds": process.age,
        "rss": process.rss,
        "pss": shares.map(|shares| shares.pss),
        "uss": shares.map(|shares| shares.uss),
        "peak_rss": process.peak,
        "cpu_percent": cpu,
        "growth_per_hour": growth,
    })
}

/// Bytes an hour; a bound that is not known is null.
fn growth(slope: Option<&Slope>) -> Value {
    let per_hour = |per_second: f64| per_second * 3600.0;
    slope.map_or(Value::Null, |slope| {
        json!({
            "bytes": per_hour(slope.per_second),
            "low": per_hour(slope.low),
            "high": per_hour(slope.high),
        })
    })
}

fn finding(finding: &Finding) -> Value {
    json!({ "topic": finding.topic.word(), "line": finding.line, "reason": finding.reason })
}
