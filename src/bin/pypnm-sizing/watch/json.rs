//! The ledger for programs: one line of JSON a sample, and one at the end. Every line is an object that stands for itself.
//!
//! Units are in the name or these: bytes, milli-CPUs (1000: one CPU all the time), seconds on a clock that never jumps,
//! percent. What could not be read, or is not known yet, is null; a limit of 0 is not known. New fields may come at any
//! time; the number of the schema rises when a field changes its meaning or goes.
//!
//! In every line: `schema` (1), `type` (`sample` or `summary`), `unix_seconds` (the calendar's time, which may be set at any
//! moment), `seconds` since the first sample, `service` (the unit, or `process PID`), `workers` (how many live now; 0: the service is down), `memory_peak` (the most of `memory` so far),
//! `memory_limit` and `memory_limit_source` (the limit that binds, and what says so), `oom_kills` (processes that the
//! kernel killed in the service's cgroup, while watched), `recycles` (workers replaced under the same parent, or with one
//! worker by systemd's automatic restart), `restarts` (of the service, otherwise), `limit_max_requests` (in effect; 0:
//! never), `cost_percent` (of one CPU that watching takes).
//!
//! A sample has these besides:
//!
//! | field | |
//! |---|---|
//! | `memory` | of all processes together: shares (PSS), or resident bytes where those can't be read |
//! | `memory_is` | `pss` or `rss` |
//! | `cgroup_memory`, `cgroup_memory_peak` | charged to the service's cgroup, page cache included |
//! | `cpu_milli`, `cpu_milli_limit` | used since the sample before; may be used |
//! | `idle_milli` | used by nobody, of the CPUs that the service may run on |
//! | `pressure_memory_percent`, `pressure_cpu_percent` | of the time since the sample before in which some task waited (PSI) |
//! | `throttled_percent` | of that time for which the CPU quota held the service back |
//! | `processes` | the workers, the oldest first, then the others |
//!
//! A process: `pid`; `role`: `worker`, `parent`, `tracker` (multiprocessing's) or `other`; `age_seconds`; `rss`, `pss`,
//! `uss` (what it alone holds), the latter two as last read; `peak_rss` (the kernel's high-water mark, workers only);
//! `cpu_percent` of one CPU since the sample before; `growth_per_hour` (workers only): `bytes`, and `low` and `high`, the
//! bounds of its 95 % confidence interval.
//!
//! The summary has these besides:
//!
//! | field | |
//! |---|---|
//! | `samples`, `evidence_seconds` | with live workers, and the time they stand for |
//! | `enough_seconds` | the time that makes evidence (`--evidence=`) |
//! | `all_busy_seconds` | of these: every worker used 70 % of a CPU or more |
//! | `cpu_full_seconds` | no CPU was left: the service used all, or most of them and others the rest, or its quota held it back |
//! | `memory_tight_seconds` | it held over nine tenths of `memory_limit` |
//! | `memory_stalled_seconds` | tasks waited for memory a tenth of the time or more |
//! | `mean_worker_cpu_percent` | of one CPU, a worker |
//! | `peaks`, `peak_95_mib` | how many peaks of workers at work were measured, and what 95 % of them don't exceed, in MiB |
//! | `growth_per_hour`, `growth_goes_on` | all workers' together; whether it lasts, as a leak does and a filled cache doesn't |
//! | `recycle_age_seconds` | the median age at recycling |
//! | `short_lives` | workers that died within ten seconds of their start |
//! | `findings` | each with `topic` (`evidence`, `growth`, `memory-per-worker`, `workers`, `crashes`), `line` (what to set in sizing.conf, or null) and `reason` |

use std::time::SystemTime;

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
        "unix_seconds": unix_seconds(),
        "seconds": ledger.watched(),
        "service": context.name,
        "processes": workers.chain(others).collect::<Vec<Value>>(),
        "workers": ledger.workers.len(),
        "memory": ledger.memory_now(),
        "memory_is": if ledger.has_shares() { "pss" } else { "rss" },
        "memory_peak": ledger.memory_peak,
        "memory_limit": ledger.bounds().memory,
        "memory_limit_source": context.memory_source,
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
        "unix_seconds": unix_seconds(),
        "seconds": ledger.watched(),
        "service": context.name,
        "samples": evidence.samples,
        "workers": ledger.workers.len(),
        "memory_peak": ledger.memory_peak,
        "memory_limit": ledger.bounds().memory,
        "memory_limit_source": context.memory_source,
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

/// The calendar's time, to the millisecond; null before 1970.
fn unix_seconds() -> Option<f64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((now.as_secs_f64() * 1000.0).round() / 1000.0)
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
