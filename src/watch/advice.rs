//! What the evidence says about sizing.conf: findings, each with its reason and the time it rests on, some with a line to
//! set. Pure; the profile that a line would give comes from [`crate::policy`] itself.
//!
//! One cause at a time: while workers grow, memory and workers are left alone, for what they show is the growth's doing
//! and a setting made for it would outlive it.

use std::fmt::Write as _;

use crate::policy::{MOST_WORKERS, PolicySettings, Profile, RECYCLE_SMALL, profile};

use super::evidence::{Epoch, Evidence, Growth};
use super::text::{clock_range, duration, gib, mib, part, per_hour, wrapped};
use super::{MIB, number, whole};

/// Samples without which nothing is advised at all, however long they took.
const FEWEST_SAMPLES: u64 = 20;
/// A worker may grow by a quarter of what it began with before it is recycled.
const GROWTH_ALLOWED: f64 = 0.25;
/// Of what a worker began with, what must have been added while watched: less is warming up that has not quite ended.
const TO_MATTER: f64 = 0.02;
/// Growth that takes longer than a week to matter is left to the next update of the machine.
const SLOW: f64 = 7.0 * 86_400.0;
/// The recycle limit below which a worker is hardly up before it goes again.
const LEAST_LIMIT: u32 = 100;
/// What is sized so already and isn't so in the running service.
const NOT_IN_EFFECT: &str =
    ": it takes effect at a restart, unless something overrides it (pypnm-sizing explain)";
/// More workers are advised only where so much of the memory stays free in the worst case, in tenths.
const MARGIN: u64 = 9;

/// How the service is sized at present.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whole CPUs it may use.
    pub cpus: u64,
    /// Bytes it may use.
    pub memory: u64,
    /// The operator's settings.
    pub settings: PolicySettings,
    /// The recycle limit that the running service has, where that is known; 0: never.
    pub limit_max_requests: Option<u32>,
}

impl Setup {
    /// The profile as it is sized.
    pub fn profile(&self) -> Profile {
        self.with(|_| ())
    }

    /// The profile with a setting changed.
    fn with(&self, change: impl FnOnce(&mut PolicySettings)) -> Profile {
        let mut settings = self.settings;
        change(&mut settings);
        profile(self.cpus, self.memory, &settings)
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Whether there is evidence at all.
    Evidence,
    /// Memory growth and the recycle limit.
    Growth,
    /// The measured memory of a worker.
    MemoryPerWorker,
    /// More workers, or fewer.
    Workers,
    /// Workers that die young.
    Crashes,
}

impl Topic {
    /// In a word, for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Growth => "growth",
            Self::MemoryPerWorker => "memory-per-worker",
            Self::Workers => "workers",
            Self::Crashes => "crashes",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// The line for sizing.conf, where something should be set.
    pub line: Option<String>,
    /// Why, with numbers.
    pub reason: String,
    /// The time it rests on, on the evidence's clock.
    pub time: Option<(f64, f64)>,
}

impl Finding {
    fn set(topic: Topic, line: String, reason: String) -> Self {
        Self { topic, line: Some(line), reason, time: None }
    }

    fn remark(topic: Topic, reason: String) -> Self {
        Self { topic, line: None, reason, time: None }
    }

    fn at(self, time: (f64, f64)) -> Self {
        Self { time: Some(time), ..self }
    }
}

/// All findings. Without a setup nothing can be advised. `clock` names a moment of the evidence's clock; without one
/// (a watch of minutes) no moments are named.
pub fn findings(
    evidence: &Evidence,
    setup: Option<&Setup>,
    clock: Option<&dyn Fn(f64) -> String>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if evidence.short_lives >= 3 {
        let reason = format!(
            "{} workers died within 10 s of their start: a crash, not a recycle limit; see the service's log",
            evidence.short_lives
        );
        found.push(Finding::remark(Topic::Crashes, reason));
    }
    let Some(setup) = setup else {
        let reason = "sizing is turned off, so there is nothing to advise".to_owned();
        found.push(Finding::remark(Topic::Evidence, reason));
        return found;
    };
    let epoch = evidence.epoch();
    let all = (epoch.from, epoch.until);
    if let Some(missing) = missing(evidence, &epoch) {
        let reason = format!("too little evidence yet: {missing}");
        found.push(Finding::remark(Topic::Evidence, reason));
        return found;
    }
    let growth = evidence.growth();
    let of_growth = growth_finding(evidence, growth.as_ref(), setup);
    let grows = of_growth.line.is_some();
    let time = growth.as_ref().map_or(all, |growth| (growth.from, growth.until));
    found.push(of_growth.at(time));
    if grows {
        let reason =
            "no advice on memory and on the number of workers while workers grow: first stop the growth"
                .to_owned();
        found.push(Finding::remark(Topic::Workers, reason).at(all));
        return found;
    }
    if let Some(finding) = under_pressure(&epoch, setup) {
        found.push(memory_remark(&epoch, setup).at(all));
        found.push(finding);
        return found;
    }
    let memory = memory_per_worker(&epoch, setup);
    let lowered = memory.line.is_some();
    found.push(memory.at(all));
    // Memory that calls for fewer workers already is not asked for more.
    if !lowered {
        found.push(demand(&epoch, setup, evidence.block_length(), clock));
    }
    found
}

/// What is still missing before anything can be said.
fn missing(evidence: &Evidence, epoch: &Epoch) -> Option<String> {
    let needed = evidence.block_length();
    // The first sample stands for no time, so a watch of ten minutes has a little less.
    if epoch.seconds < needed * 0.95 {
        Some(format!("{} of {}", duration(epoch.seconds), duration(needed)))
    } else if epoch.samples < FEWEST_SAMPLES {
        Some(format!("{} of {FEWEST_SAMPLES} samples", epoch.samples))
    } else {
        None
    }
}

/// Growth that a lower recycle limit would contain.
fn growth_finding(evidence: &Evidence, growth: Option<&Growth>, setup: &Setup) -> Finding {
    let remark = |reason| Finding::remark(Topic::Growth, reason);
    let Some(growth) = growth else {
        let needed = duration(evidence.block_length() * 6.0);
        return remark(format!(
            "growth: unknown until the workers have been watched for {needed} without a restart"
        ));
    };
    let (slope, who) = match &growth.single {
        Some(single) => {
            let others = per_hour(single.others);
            (
                single.slope,
                format!(
                    "worker {} alone grows by {} (the others by {others})",
                    single.pid,
                    interval(&single.slope)
                ),
            )
        }
        None => (growth.all, format!("a worker grows by {}", interval(&growth.all))),
    };
    let grown = slope.per_second * (growth.until - growth.from);
    if !slope.lasting || grown < number(growth.baseline) * TO_MATTER {
        return remark(format!("no lasting growth: {} a worker", interval(&growth.all)));
    }
    let allowed = number(growth.baseline) * GROWTH_ALLOWED;
    let room = mib(whole(allowed));
    let limit = setup.limit_max_requests.unwrap_or_else(|| setup.profile().limit_max_requests);
    if let (Some(a_life), 1..) = (growth.a_life, limit) {
        let age = evidence.recycle_age().unwrap_or(0.0);
        let shown = format!(
            "a worker grows by {} ({} to {}) in a life of {limit} requests, which took {} ({} per 1000 requests)",
            mib(whole(a_life.value)),
            mib(whole(a_life.low)),
            mib(whole(a_life.high)),
            duration(age),
            mib(whole(a_life.value / f64::from(limit) * 1000.0))
        );
        if a_life.value <= allowed {
            return remark(format!("{shown}; recycling contains it"));
        }
        let fits = u32::try_from(whole((f64::from(limit) * allowed / a_life.value).floor())).unwrap_or(limit);
        // The guide's number where that is enough.
        let lower = if fits >= RECYCLE_SMALL { RECYCLE_SMALL } else { (fits / 10 * 10).max(LEAST_LIMIT) };
        if lower >= limit {
            return remark(format!("{shown}; a limit below {limit} would be of no use"));
        }
        let reason = format!("{shown}; {lower} requests keep it below {room}, a quarter of its size");
        return recycle_at(setup, lower, &reason);
    }
    let until = allowed / slope.per_second;
    let shown = format!("{who}, {room} (a quarter of its size) in {}", duration(until));
    if until > SLOW {
        return remark(format!("{shown}: too slow to matter"));
    }
    let lower = match limit {
        0 => RECYCLE_SMALL,
        above if above > RECYCLE_SMALL => RECYCLE_SMALL,
        _ => (limit / 2).max(LEAST_LIMIT),
    };
    if limit != 0 && lower >= limit {
        return remark(format!("{shown}; a limit below {limit} would be of no use"));
    }
    let now = if limit == 0 { "workers are never recycled".into() } else { format!("the limit is {limit}") };
    let reason =
        format!("{shown}; {now} and too few workers reached it while watched to say how much a request adds");
    recycle_at(setup, lower, &reason)
}

fn interval(slope: &super::trend::Slope) -> String {
    super::text::interval(slope)
}

/// The line that makes `lower` the recycle limit: in the guide's words where that does it.
fn recycle_at(setup: &Setup, lower: u32, reason: &str) -> Finding {
    let sized = setup.profile().limit_max_requests;
    if (1..=lower).contains(&sized) {
        let reason = format!("{reason}; the profile has {sized} already{NOT_IN_EFFECT}");
        return Finding::remark(Topic::Growth, reason);
    }
    let investigated = setup.with(|settings| settings.investigate_memory_creep = true).limit_max_requests;
    let line = if investigated == lower && sized != investigated {
        "InvestigateMemoryCreep=yes".to_owned()
    } else {
        format!("LimitMaxRequests={lower}")
    };
    Finding::set(Topic::Growth, line, reason.to_owned())
}

/// Bytes that so many workers need at the worst that was seen: all but one at what 95 % of the samples don't exceed, one
/// at its peak, and the processes that are no workers; or in proportion to the most that all of them had at once.
fn needed(epoch: &Epoch, workers: u32) -> u64 {
    let count = u64::from(workers.max(1));
    let one_at_its_peak = (count - 1).saturating_mul(epoch.worker_memory).saturating_add(epoch.worker_peak);
    let seen = epoch.workers.max(1);
    let usual = seen.saturating_mul(epoch.worker_memory).saturating_add(epoch.others_peak);
    let above = epoch.total_peak.saturating_sub(usual);
    let all_at_once = count.saturating_mul(epoch.worker_memory).saturating_add(above / seen * count);
    one_at_its_peak.max(all_at_once).saturating_add(epoch.others_peak)
}

/// What a worker was measured to need.
fn measured(epoch: &Epoch) -> String {
    format!(
        "a worker holds up to {} in 95 % of the busiest ten minutes, {} at its peak; {} need up to {}",
        mib(epoch.worker_memory),
        mib(epoch.worker_peak),
        workers(u32::try_from(epoch.workers).unwrap_or(u32::MAX)),
        mib(needed(epoch, u32::try_from(epoch.workers).unwrap_or(u32::MAX)))
    )
}

/// What was measured, where something else is advised.
fn memory_remark(epoch: &Epoch, setup: &Setup) -> Finding {
    let reason = if epoch.memory_samples == 0 {
        "memory a worker: not measured yet".to_owned()
    } else {
        format!("{} of {}", measured(epoch), gib(setup.memory))
    };
    Finding::remark(Topic::MemoryPerWorker, reason)
}

/// `MemoryPerWorker=` as measured, where the profile does not fit.
fn memory_per_worker(epoch: &Epoch, setup: &Setup) -> Finding {
    let topic = Topic::MemoryPerWorker;
    if epoch.memory_samples == 0 {
        return memory_remark(epoch, setup);
    }
    let now = setup.profile().workers;
    let fit = |memory: u64| (1..=now).rev().find(|workers| needed(epoch, *workers) <= memory).unwrap_or(1);
    let fits = fit(setup.memory);
    if fits < now && setup.memory > 0 {
        let each = needed(epoch, fits).div_ceil(u64::from(fits)).next_multiple_of(MIB);
        let reason = format!("{}; {} hold {fits} of them, not {now}", measured(epoch), gib(setup.memory));
        let then = setup.with(|settings| settings.memory_per_worker = Some(each)).workers;
        if then < now {
            return Finding::set(topic, format!("MemoryPerWorker={}M", each / MIB), reason);
        }
        return fewer(setup, fits, now, &reason, topic);
    }
    if let Some(reach) = epoch.within_reach.filter(|reach| *reach < setup.memory) {
        let fits = fit(reach);
        if fits < now {
            let reason = format!(
                "{}; other programs on this host leave {} at times, which hold {fits} of them, not {now}",
                measured(epoch),
                gib(reach)
            );
            return fewer(setup, fits, now, &reason, topic);
        }
    }
    if epoch.mean_worker_cpu() < 2.0 {
        let reason = format!(
            "the workers were idle ({:.1} % of a CPU each), which says nothing about the memory they need",
            epoch.mean_worker_cpu()
        );
        return Finding::remark(topic, reason);
    }
    let reason = format!("{} of {}: the profile stays {}", measured(epoch), gib(setup.memory), workers(now));
    Finding::remark(topic, reason)
}

/// Fewer workers, because memory or CPUs run out.
fn under_pressure(epoch: &Epoch, setup: &Setup) -> Option<Finding> {
    let live = u32::try_from(epoch.workers).unwrap_or(u32::MAX);
    let of_time = |seconds| part(seconds, epoch.seconds);
    let less = live.saturating_sub(1);
    let (reason, time) = if let Some(killed) = epoch.killed {
        let count = epoch.oom_kills;
        let processes = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        (format!("the kernel killed {processes} of the service for want of memory"), killed)
    } else if let Some(time) = epoch.stalled.proven {
        (format!("tasks waited for memory in {}", of_time(epoch.memory_stalled)), time)
    } else if let Some(time) = epoch.tight.proven {
        (format!("it held over 90 % of its {} in {}", gib(setup.memory), of_time(epoch.memory_tight)), time)
    } else if let Some(time) = epoch.full.proven.filter(|_| u64::from(live) > setup.cpus) {
        let cpus = u32::try_from(setup.cpus).unwrap_or(u32::MAX);
        let reason = format!(
            "no CPU was left in {}: {live} workers on {} only wait for each other",
            of_time(epoch.cpu_full),
            if cpus == 1 { "1 CPU".to_owned() } else { format!("{cpus} CPUs") }
        );
        return Some(fewer(setup, cpus, live, &reason, Topic::Workers).at(time));
    } else {
        return None;
    };
    if less == 0 {
        let reason = format!("{reason}; one worker is the minimum: the service needs more memory");
        return Some(Finding::remark(Topic::Workers, reason).at(time));
    }
    Some(fewer(setup, less, live, &reason, Topic::Workers).at(time))
}

/// `MaxWorkers=` lowered, or `Workers=` where the operator has set that.
fn fewer(setup: &Setup, cap: u32, live: u32, reason: &str, topic: Topic) -> Finding {
    let sized = setup.profile().workers;
    if sized <= cap {
        let reason = format!("{reason}; the profile gives {} already{NOT_IN_EFFECT}", workers(sized));
        return Finding::remark(topic, reason);
    }
    let capped = setup.with(|settings| settings.max_workers = cap).workers;
    let (setting, then) = if capped < live && setup.settings.workers.is_none() {
        (format!("MaxWorkers={cap}"), capped)
    } else {
        (format!("Workers={cap}"), cap)
    };
    Finding::set(topic, setting, format!("{reason}; this gives {}", workers(then)))
}

/// More workers, where demand is proven and there is room.
fn demand(epoch: &Epoch, setup: &Setup, block: f64, clock: Option<&dyn Fn(f64) -> String>) -> Finding {
    let live = u32::try_from(epoch.workers).unwrap_or(u32::MAX).max(1);
    let length = duration(block);
    let busiest = epoch.busiest.map_or_else(String::new, |(waiting, from, until)| {
        let when = clock.map_or_else(String::new, |clock| format!(" ({})", clock_range(clock, from, until)));
        format!("requests waited for a worker in {:.0} % of the busiest {length}{when}", waiting * 100.0)
    });
    let all = (epoch.from, epoch.until);
    let remark = |reason| Finding::remark(Topic::Workers, reason);
    let Some(time) = epoch.demand.proven else {
        let why = if busiest.is_empty() {
            format!("no {length} long enough to judge demand by")
        } else if epoch.full.proven.is_some() {
            format!("{busiest}; the CPUs are full, more workers would only wait")
        } else {
            format!("{busiest}: that proves no demand for more workers{}", unseen(epoch))
        };
        return remark(why).at(all);
    };
    let blocks = format!("{busiest}, and in {} such stretches in all", epoch.demand.count);
    if epoch.demand_under_pressure > 0 {
        return remark(format!("{blocks}; but memory was short at that time: no room for another worker"))
            .at(time);
    }
    let free = epoch.free_cpus.percentile(50).unwrap_or(0);
    let memory = room(epoch, setup.memory);
    let shown = format!("{blocks}; {free} CPUs were free at that time");
    if free == 0 {
        return remark(format!("{shown}: no room for another worker")).at(time);
    }
    let sized = setup.profile().workers;
    if sized > live {
        return remark(format!("{shown}; the profile gives {} already{NOT_IN_EFFECT}", workers(sized)))
            .at(time);
    }
    let most = MOST_WORKERS;
    let free = u32::try_from(free).unwrap_or(u32::MAX);
    // At most double at a time: the next watch can say more.
    let wanted = live.saturating_add(free.min(live)).min(most);
    if wanted <= live {
        return remark(format!("{shown}; {most} workers are the guide's maximum")).at(time);
    }
    let fits = (live..=wanted).rev().find(|workers| needed(epoch, *workers) <= memory).unwrap_or(live);
    if fits <= live {
        let reason = format!(
            "{shown}, but {} would need up to {} of the {} that are safe to use: no room for another worker",
            workers(live + 1),
            mib(needed(epoch, live + 1)),
            gib(memory)
        );
        return remark(reason).at(time);
    }
    let shown = format!(
        "{shown}, and {} would need up to {} of {}",
        workers(fits),
        mib(needed(epoch, fits)),
        gib(memory)
    );
    let then = setup.with(|settings| settings.max_workers = fits).workers;
    if then <= live {
        return match setup.settings.workers {
            Some(_) => Finding::set(
                Topic::Workers,
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
    Finding::set(Topic::Workers, format!("MaxWorkers={then}"), reason).at(time)
}

/// Bytes that more workers may use: nine tenths of what the service may use, and of what the host had left beside other
/// programs a tenth of that stays free too.
fn room(epoch: &Epoch, memory: u64) -> u64 {
    let safe = memory / 10 * MARGIN;
    let kept = memory - safe;
    epoch.within_reach.map_or(safe, |reach| safe.min(reach.saturating_sub(kept)))
}

/// What can't be seen.
fn unseen(epoch: &Epoch) -> &'static str {
    if epoch.queued > 0.0 || epoch.queue_peak > 0 {
        ""
    } else {
        "; requests that wait for a modem inside a worker, or on a connection kept open, show in no queue"
    }
}

/// `1 worker`, `4 workers`.
pub fn workers(count: u32) -> String {
    if count == 1 { "1 worker".into() } else { format!("{count} workers") }
}

/// The findings as a drop-in for sizing.conf.d: the lines to set, each below its reason; what needs nothing set as
/// remarks.
pub fn drop_in(findings: &[Finding], section: &str, head: &str) -> String {
    let mut text = String::new();
    head.lines().for_each(|line| comment(&mut text, line));
    for finding in findings.iter().filter(|finding| finding.line.is_none()) {
        comment(&mut text, &finding.reason);
    }
    let mut set = findings.iter().filter(|finding| finding.line.is_some()).peekable();
    if set.peek().is_none() {
        text.push_str("# Nothing to set.\n");
        return text;
    }
    let _ = writeln!(text, "[{section}]");
    for finding in set {
        comment(&mut text, &finding.reason);
        let _ = writeln!(text, "{}", finding.line.as_deref().unwrap_or_default());
    }
    text
}

/// A comment, wrapped at 78 columns. It never ends in a backslash and holds no line break: reasons are ours.
fn comment(text: &mut String, reason: &str) {
    for line in wrapped(reason, 76) {
        let _ = writeln!(text, "# {line}");
    }
}

#[cfg(test)]
mod tests;
