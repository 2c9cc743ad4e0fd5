//! What the ledger's numbers say about sizing.conf: findings, each with its evidence, some with a line to set. Pure;
//! the profile that a line would give comes from [`crate::policy`] itself.

use std::fmt::Write as _;

use crate::policy::{MOST_WORKERS, PolicySettings, Profile, RECYCLE_SMALL, profile};

use super::ledger::{BUSY_PERCENT, Ledger};
use super::slope::Slope;
use super::{MIB, number, whole};

/// Samples without which nothing is advised at all, however long they took.
const FEWEST_SAMPLES: u64 = 30;
/// This part of the time that makes evidence proves demand, or pressure: by default two minutes.
const PROOF: f64 = 0.2;
/// Samples with all workers busy without which nothing is proven, however long they took.
const FEWEST_BUSY: u64 = 10;
/// Windows whose peaks make a percentile.
pub const FEWEST_PEAKS: u64 = 10;
/// A worker may grow by a quarter of what it began with before it is recycled.
const GROWTH_ALLOWED: f64 = 0.25;
/// Growth that takes longer than a week to matter is left to the next update of the machine.
const SLOW: f64 = 7.0 * 86_400.0;
/// The recycle limit below which a worker is hardly up before it goes again.
const LEAST_LIMIT: u32 = 100;
/// What is sized so already and isn't so in the running service.
const NOT_IN_EFFECT: &str =
    ": it takes effect at a restart, unless something overrides it (pypnm-sizing explain)";
/// Measured memory is rounded up to this, in MiB.
const STEP: u64 = 16;

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
    fn profile(&self) -> Profile {
        self.with(|_| ())
    }

    /// The profile with something set otherwise.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// The line for sizing.conf, where something should be set.
    pub line: Option<String>,
    /// Why, with numbers.
    pub reason: String,
}

impl Finding {
    fn set(topic: Topic, line: String, reason: String) -> Self {
        Self { topic, line: Some(line), reason }
    }

    fn remark(topic: Topic, reason: String) -> Self {
        Self { topic, line: None, reason }
    }
}

/// All findings. With `None` for the setup nothing can be advised.
pub fn findings(ledger: &Ledger, setup: Option<&Setup>) -> Vec<Finding> {
    let mut found = Vec::new();
    if ledger.short_lives >= 3 {
        let reason = format!(
            "{} workers died within 10 s of their start: a crash, not a recycle limit; see the service's log",
            ledger.short_lives
        );
        found.push(Finding::remark(Topic::Crashes, reason));
    }
    let Some(setup) = setup else {
        found.push(Finding::remark(
            Topic::Evidence,
            "sizing is turned off, so there is nothing to advise".into(),
        ));
        return found;
    };
    let (samples, seconds) = (ledger.evidence.samples, ledger.evidence.seconds);
    let missing = if seconds < ledger.enough() {
        Some(format!("{} of {}", duration(seconds), duration(ledger.enough())))
    } else if samples < FEWEST_SAMPLES {
        Some(format!("{samples} of {FEWEST_SAMPLES} samples"))
    } else {
        None
    };
    if let Some(missing) = missing {
        found.push(Finding::remark(Topic::Evidence, format!("too little evidence yet: {missing}")));
        return found;
    }
    found.push(growth(ledger, setup));
    let memory = memory_per_worker(ledger, setup);
    // Memory that calls for fewer workers already is not asked for more.
    let lowered = memory.line.is_some();
    found.push(memory);
    if let Some(finding) = fewer(ledger, setup) {
        found.push(finding);
    } else if !lowered {
        found.push(more(ledger, setup));
    }
    found
}

/// Growth that a lower recycle limit would contain.
fn growth(ledger: &Ledger, setup: &Setup) -> Finding {
    let remark = |reason| Finding::remark(Topic::Growth, reason);
    let Some(growth) = ledger.growth() else {
        return remark("growth: no worker has lived long enough while watched to say".into());
    };
    let shown = per_hour(&growth.all);
    if !growth.goes_on {
        return remark(format!("no lasting growth: {shown} a worker"));
    }
    let allowed = number(growth.baseline) * GROWTH_ALLOWED;
    let room = mib(whole(allowed));
    let limit = setup.limit_max_requests.unwrap_or_else(|| setup.profile().limit_max_requests);
    if let (Some(age), 1..) = (ledger.recycle_interval(), limit) {
        let a_life = growth.all.per_second * age;
        let told = format!(
            "a worker grows by {shown}, {} in the {} that {limit} requests take ({} per 1000 requests)",
            mib(whole(a_life)),
            duration(age),
            mib(whole(a_life / f64::from(limit) * 1000.0))
        );
        if a_life <= allowed {
            return remark(format!("{told}; recycling contains it"));
        }
        let fits = u32::try_from(whole((f64::from(limit) * allowed / a_life).floor())).unwrap_or(limit);
        // The guide's number where that is enough.
        let lower = if fits >= RECYCLE_SMALL { RECYCLE_SMALL } else { (fits / 10 * 10).max(LEAST_LIMIT) };
        if lower >= limit {
            return remark(format!("{told}; recycling at {limit} is as low as is of use"));
        }
        return limited(
            setup,
            lower,
            &format!("{told}; {lower} requests keep it below {room}, a quarter of its size"),
        );
    }
    let until = allowed / growth.all.per_second;
    let told = format!("a worker grows by {shown}, {room} (a quarter of its size) in {}", duration(until));
    if until > SLOW {
        return remark(format!("{told}: too slow to matter"));
    }
    let lower = match limit {
        0 => RECYCLE_SMALL,
        above if above > RECYCLE_SMALL => RECYCLE_SMALL,
        _ => (limit / 2).max(LEAST_LIMIT),
    };
    if limit != 0 && lower >= limit {
        return remark(format!("{told}; recycling at {limit} is as low as is of use"));
    }
    let now = if limit == 0 { "workers are never recycled".into() } else { format!("the limit is {limit}") };
    limited(
        setup,
        lower,
        &format!("{told}; {now} and no worker met it while watched, so how much per request is not known"),
    )
}

/// The line that makes `lower` the recycle limit: the guide's word where that does it.
fn limited(setup: &Setup, lower: u32, reason: &str) -> Finding {
    let sized = setup.profile().limit_max_requests;
    if (1..=lower).contains(&sized) {
        return Finding::remark(
            Topic::Growth,
            format!("{reason}; the profile has {sized} already{NOT_IN_EFFECT}"),
        );
    }
    let investigated = setup.with(|settings| settings.investigate_memory_creep = true).limit_max_requests;
    let is_news = setup.profile().limit_max_requests != investigated;
    let line = if investigated == lower && is_news {
        "InvestigateMemoryCreep=yes".to_owned()
    } else {
        format!("LimitMaxRequests={lower}")
    };
    Finding::set(Topic::Growth, line, reason.to_owned())
}

/// What one worker needs, in bytes: a high percentile of the peaks and its part of what the others take.
fn measured(ledger: &Ledger) -> Option<(u64, String)> {
    let peaks = &ledger.evidence.peaks;
    if peaks.total() < FEWEST_PEAKS {
        return None;
    }
    let peak = peaks.percentile(95)?;
    let overhead = (ledger.overhead() / (ledger.workers.len() as u64).max(1)).div_ceil(MIB);
    let needs = (peak + overhead).next_multiple_of(STEP);
    let kind = if ledger.has_shares() { "shares" } else { "resident sizes" };
    let mut told =
        format!("a worker at work needs {needs} MiB (95 % of {} peaks of {kind} ≤ {peak}", peaks.total());
    if overhead > 0 {
        let _ = write!(told, ", {overhead} for its part of the others");
    }
    told.push(')');
    Some((needs * MIB, told))
}

/// `MemoryPerWorker=` as measured, and the profile it gives.
fn memory_per_worker(ledger: &Ledger, setup: &Setup) -> Finding {
    let topic = Topic::MemoryPerWorker;
    let Some((needs, told)) = measured(ledger) else {
        let reason = if ledger.mean_worker_cpu() < 2.0 {
            format!(
                "the workers were idle ({:.1} % of a CPU each), which says nothing about the memory they need",
                ledger.mean_worker_cpu()
            )
        } else {
            let windows = ledger.evidence.peaks.total();
            format!("memory a worker: {windows} of {FEWEST_PEAKS} peaks under load seen")
        };
        return Finding::remark(topic, reason);
    };
    let (now, then) = (setup.profile(), setup.with(|settings| settings.memory_per_worker = Some(needs)));
    if then.workers < now.workers {
        let reason =
            format!("{told}; {} hold {} of them, not {}", gib(setup.memory), then.workers, now.workers);
        return Finding::set(topic, format!("MemoryPerWorker={}M", needs / MIB), reason);
    }
    let holds = setup.memory / needs.max(1);
    Finding::remark(
        topic,
        format!(
            "{told}; {} would hold {holds}, the profile stays {}",
            gib(setup.memory),
            workers(now.workers)
        ),
    )
}

/// Fewer workers under pressure.
fn fewer(ledger: &Ledger, setup: &Setup) -> Option<Finding> {
    let evidence = &ledger.evidence;
    let live = u32::try_from(ledger.workers.len()).unwrap_or(u32::MAX);
    let of_time = |seconds| part(seconds, evidence.seconds);
    let often = |seconds| seconds >= PROOF * ledger.enough() && seconds * 10.0 >= evidence.seconds;
    let less = live.saturating_sub(1);
    let reason = if evidence.oom_kills > 0 {
        format!("the kernel killed {} processes of the service for want of memory", evidence.oom_kills)
    } else if often(evidence.memory_stalled) {
        format!("tasks waited for memory in {}", of_time(evidence.memory_stalled))
    } else if often(evidence.memory_tight) {
        format!("it held over 90 % of its {} in {}", gib(setup.memory), of_time(evidence.memory_tight))
    } else if often(evidence.cpu_full) && u64::from(live) > setup.cpus {
        let cpus = u32::try_from(setup.cpus).unwrap_or(u32::MAX);
        let reason = format!(
            "no CPU was left in {}: {live} workers on {cpus} CPUs only wait for each other",
            of_time(evidence.cpu_full)
        );
        return Some(with_cap(setup, cpus, live, &reason));
    } else {
        return None;
    };
    if less == 0 {
        let reason = format!("{reason}; one worker is the least: the service needs more memory");
        return Some(Finding::remark(Topic::Workers, reason));
    }
    Some(with_cap(setup, less, live, &reason))
}

/// `MaxWorkers=` lowered, or `Workers=` where the operator has set that.
fn with_cap(setup: &Setup, cap: u32, live: u32, reason: &str) -> Finding {
    let sized = setup.profile().workers;
    if sized <= cap {
        let reason = format!("{reason}; the profile gives {} already{NOT_IN_EFFECT}", workers(sized));
        return Finding::remark(Topic::Workers, reason);
    }
    let capped = setup.with(|settings| settings.max_workers = cap).workers;
    let (set, then) = if capped < live && setup.settings.workers.is_none() {
        (format!("MaxWorkers={cap}"), capped)
    } else {
        (format!("Workers={cap}"), cap)
    };
    Finding::set(Topic::Workers, set, format!("{reason}; this gives {}", workers(then)))
}

/// More workers, where demand is proven and there is room.
fn more(ledger: &Ledger, setup: &Setup) -> Finding {
    let remark = |reason| Finding::remark(Topic::Workers, reason);
    let evidence = &ledger.evidence;
    let live = u32::try_from(ledger.workers.len()).unwrap_or(u32::MAX).max(1);
    let all = if live == 1 { "the worker was".to_owned() } else { format!("all {live} workers were") };
    let busy =
        format!("{all} busy (≥ {BUSY_PERCENT} % of a CPU) in {}", part(evidence.all_busy, evidence.seconds));
    let proof = PROOF * ledger.enough();
    if evidence.all_busy < proof || evidence.free_cpus_when_busy.total() < FEWEST_BUSY {
        let full = evidence.cpu_full >= proof;
        let why = if full {
            ": the CPUs are full, more workers would only wait"
        } else {
            ": that proves no demand for more"
        };
        return remark(format!("{busy}{why}"));
    }
    // Free in nine of ten of those samples.
    let free = evidence.free_cpus_when_busy.percentile(10).unwrap_or(0);
    let needs = measured(ledger)
        .map_or_else(|| number(ledger.memory_peak) / f64::from(live), |(needs, _)| number(needs));
    let spare = setup.memory.saturating_sub(evidence.most_memory_when_busy);
    let by_memory = whole((number(spare) / needs.max(1.0)).floor());
    let told = format!("{busy}; meanwhile {free} CPUs and {} stayed free", gib(spare));
    let room = u32::try_from(free.min(by_memory)).unwrap_or(u32::MAX);
    if room == 0 {
        return remark(format!("{told}: no room for another worker"));
    }
    let sized = setup.profile().workers;
    if sized > live {
        return remark(format!("{told}; the profile gives {} already{NOT_IN_EFFECT}", workers(sized)));
    }
    let most = MOST_WORKERS;
    // At most double at a time: the next watch can say more.
    let wanted = live.saturating_add(room.min(live)).min(most);
    let then = setup.with(|settings| settings.max_workers = wanted).workers;
    if wanted <= live {
        return remark(format!("{told}; {most} workers are the guide's most"));
    }
    if then <= live {
        return match setup.settings.workers {
            Some(_) => Finding::set(
                Topic::Workers,
                format!("Workers={wanted}"),
                format!("{told}: concurrency demand is proven"),
            ),
            None => remark(format!(
                "{told}: demand is proven, but the guide gives {} for {} and {} CPUs",
                workers(then),
                gib(setup.memory),
                setup.cpus
            )),
        };
    }
    let reason = format!("{told}: concurrency demand is proven; this gives {}", workers(then));
    Finding::set(Topic::Workers, format!("MaxWorkers={then}"), reason)
}

fn workers(count: u32) -> String {
    if count == 1 { "1 worker".into() } else { format!("{count} workers") }
}

/// `80 % of 13 min`.
fn part(seconds: f64, of: f64) -> String {
    format!("{:.0} % of {}", seconds * 100.0 / of.max(f64::MIN_POSITIVE), duration(of))
}

/// A slope an hour with its uncertainty: `+1.2 MiB/h (0.9 to 1.5)`.
pub fn per_hour(slope: &Slope) -> String {
    let mib = |per_second: f64| per_second * 3600.0 / number(MIB);
    format!("{:+.1} MiB/h ({:.1} to {:.1})", mib(slope.per_second), mib(slope.low), mib(slope.high))
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> String {
    if bytes < 10 * MIB {
        format!("{:.1} MiB", number(bytes) / number(MIB))
    } else {
        format!("{} MiB", bytes.div_ceil(MIB))
    }
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", number(bytes) / number(1 << 30))
}

/// Seconds as a person says them: `42 s`, `3 min`, `2 h 5 min`, `4 days`.
pub fn duration(seconds: f64) -> String {
    let seconds = whole(seconds);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The findings as a drop-in for sizing.conf.d: the lines to set, each below its reason; what needs nothing set as
/// remarks.
pub fn drop_in(findings: &[Finding], section: &str, watched: &str) -> String {
    let mut text = format!(
        "# From `pypnm-sizing watch`: {watched}.\n# Read it, keep what you agree with, then: pypnm-sizing apply\n"
    );
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

/// The words of a text in lines of at most `width` characters; a longer word stands alone.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_ascii_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
