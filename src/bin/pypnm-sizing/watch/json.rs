//! The last line of `watch --json`, which follows the lines of its samples ([`pypnm_sizing::watch::line`]).
//! docs/json.md describes both, and a test compares it with them.

use pypnm_sizing::watch::advice::{Advice, AdviceTopic};
use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::line::{ByteInterval, LineKind, SCHEMA, rounded};
use pypnm_sizing::watch::{MIB, meter};
use serde::Serialize;

/// A finding.
#[derive(Serialize)]
pub(crate) struct FindingAnswer {
    topic: AdviceTopic,
    line: Option<String>,
    reason: String,
    from: Option<f64>,
    until: Option<f64>,
}

impl FindingAnswer {
    /// `epoch`: when the clock of the evidence began, in seconds since 1970.
    pub(crate) fn from_finding(finding: &Advice, epoch: f64) -> Self {
        let moment = |at: f64| rounded(epoch + at, 0);
        Self {
            topic: finding.topic,
            line: finding.line.clone(),
            reason: finding.reason.clone(),
            from: finding.time.map(|(from, _)| moment(from)),
            until: finding.time.map(|(_, until)| moment(until)),
        }
    }
}

/// The totals of the evidence, in the summary of a watch and in a report.
#[derive(Serialize)]
pub(crate) struct Figures {
    samples: u64,
    workers: u64,
    memory_peak: u64,
    memory_limit: u64,
    memory_limit_source: String,
    peaks: u64,
    peak_95_mib: u64,
    worker_memory_peak: u64,
    growth_per_hour: Option<ByteInterval>,
    growth_goes_on: Option<bool>,
    growth_per_life: Option<ByteInterval>,
    evidence_seconds: f64,
    enough_seconds: f64,
    all_busy_seconds: f64,
    queued_seconds: f64,
    accept_queue_peak: u64,
    waiting_percent_busiest: Option<f64>,
    cpu_full_seconds: f64,
    memory_tight_seconds: f64,
    memory_stalled_seconds: f64,
    mean_worker_cpu_percent: f64,
    oom_kills: u64,
    recycles: u64,
    recycle_age_seconds: Option<f64>,
    restarts: u64,
    short_lives: u64,
    limit_max_requests: Option<u64>,
}

impl Figures {
    pub(crate) fn from_evidence(evidence: &Evidence) -> Self {
        let (epoch, growth, last) = (evidence.epoch(), evidence.growth(), evidence.last());
        let bytes = |bytes: f64| Some(rounded(bytes, 0));
        Self {
            samples: epoch.totals.samples,
            workers: last.workers,
            memory_peak: evidence.memory_peak,
            memory_limit: last.memory_limit,
            memory_limit_source: last.memory_limit_source.clone(),
            peaks: epoch.memory_samples,
            peak_95_mib: epoch.worker_memory / MIB,
            worker_memory_peak: epoch.totals.worker_peak,
            growth_per_hour: growth.as_ref().map(|growth| meter::per_hour(&growth.all)),
            growth_goes_on: growth.as_ref().map(|growth| growth.all.lasting),
            growth_per_life: growth.and_then(|growth| growth.a_life).map(|life| ByteInterval {
                bytes: bytes(life.value),
                low: bytes(life.low),
                high: bytes(life.high),
            }),
            evidence_seconds: rounded(epoch.totals.seconds, 1),
            enough_seconds: rounded(evidence.block_length(), 1),
            all_busy_seconds: rounded(epoch.totals.all_busy, 1),
            queued_seconds: rounded(epoch.totals.queued, 1),
            accept_queue_peak: epoch.totals.queue_peak,
            waiting_percent_busiest: epoch.busiest.map(|(part, _, _)| rounded(part * 100.0, 1)),
            cpu_full_seconds: rounded(epoch.totals.cpu_full, 1),
            memory_tight_seconds: rounded(epoch.totals.memory_tight, 1),
            memory_stalled_seconds: rounded(epoch.totals.memory_stalled, 1),
            mean_worker_cpu_percent: rounded(epoch.mean_worker_cpu(), 1),
            oom_kills: evidence.oom_kills,
            recycles: evidence.recycles,
            recycle_age_seconds: evidence.recycle_age().map(|age| rounded(age, 1)),
            restarts: evidence.restarts,
            short_lives: evidence.short_lives,
            limit_max_requests: last.limit_max_requests,
        }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: u32,
    r#type: LineKind,
    unix_seconds: Option<f64>,
    seconds: f64,
    service: &'a str,
    #[serde(flatten)]
    figures: Figures,
    findings: Vec<FindingAnswer>,
    cost_percent: Option<f64>,
}

/// The last line of a watch that began `epoch` seconds after 1970.
pub(super) fn summary(evidence: &Evidence, findings: &[Advice], epoch: f64, cost: Option<f64>) -> String {
    let last = evidence.last();
    let summary = Summary {
        schema: SCHEMA,
        r#type: LineKind::Summary,
        unix_seconds: last.unix_seconds,
        seconds: rounded(evidence.watched(), 3),
        service: &last.service,
        figures: Figures::from_evidence(evidence),
        findings: findings.iter().map(|finding| FindingAnswer::from_finding(finding, epoch)).collect(),
        cost_percent: cost.map(|cost| rounded(cost, 2)),
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use pypnm_sizing::watch::advice::AdviceTopic;
    use pypnm_sizing::watch::line::{ByteInterval, Line, LineKind, ProcessSample};
    use pypnm_sizing::watch::role::Role;

    use super::{Figures, FindingAnswer, Summary};
    use crate::answer::tests::assert_documented;

    /// The section on the fields that the last line and the report have in common.
    pub(crate) const EVIDENCE: &str = "Evidence";

    fn interval() -> ByteInterval {
        ByteInterval { bytes: Some(1.0), low: Some(1.0), high: Some(1.0) }
    }

    pub(crate) fn figures() -> Figures {
        Figures {
            samples: 1,
            workers: 1,
            memory_peak: 1,
            memory_limit: 1,
            memory_limit_source: String::new(),
            peaks: 1,
            peak_95_mib: 1,
            worker_memory_peak: 1,
            growth_per_hour: Some(interval()),
            growth_goes_on: Some(true),
            growth_per_life: Some(interval()),
            evidence_seconds: 1.0,
            enough_seconds: 1.0,
            all_busy_seconds: 1.0,
            queued_seconds: 1.0,
            accept_queue_peak: 1,
            waiting_percent_busiest: Some(1.0),
            cpu_full_seconds: 1.0,
            memory_tight_seconds: 1.0,
            memory_stalled_seconds: 1.0,
            mean_worker_cpu_percent: 1.0,
            oom_kills: 1,
            recycles: 1,
            recycle_age_seconds: Some(1.0),
            restarts: 1,
            short_lives: 1,
            limit_max_requests: Some(1),
        }
    }

    pub(crate) fn finding() -> FindingAnswer {
        FindingAnswer {
            topic: AdviceTopic::Workers,
            line: Some(String::new()),
            reason: String::new(),
            from: Some(1.0),
            until: Some(1.0),
        }
    }

    #[test]
    fn the_schema_of_a_sample_is_documented() {
        let process = ProcessSample {
            pid: 1,
            role: Role::Worker,
            age_seconds: 1.0,
            rss: 1,
            pss: Some(1),
            uss: Some(1),
            peak_rss: Some(1),
            cpu_percent: Some(1.0),
            cpu_ms: Some(1),
            growth_per_hour: Some(interval()),
        };
        let line = Line {
            schema: 1,
            kind: LineKind::Sample,
            unix_seconds: Some(1.0),
            seconds: Some(1.0),
            boot_id: Some(String::new()),
            service: String::new(),
            processes: vec![process],
            workers: 1,
            memory: 1,
            memory_is: String::new(),
            memory_peak: 1,
            memory_limit: 1,
            memory_limit_source: String::new(),
            memory_available: Some(1),
            cgroup_memory: Some(1),
            cgroup_memory_peak: Some(1),
            cpu_milli: 1,
            cpu_milli_limit: 1,
            idle_milli: Some(1),
            pressure_memory_percent: Some(1.0),
            pressure_cpu_percent: Some(1.0),
            throttled_percent: Some(1.0),
            accept_queue: Some(1),
            listen_drops: Some(1),
            oom_kills: 1,
            recycles: 1,
            restarts: 1,
            automatic_restarts: Some(1),
            limit_max_requests: Some(1),
            cost_percent: Some(1.0),
        };
        assert_documented(&["`watch`: a line for each sample"], &line);
    }

    #[test]
    fn the_schema_of_the_last_line_is_documented() {
        let summary = Summary {
            schema: 1,
            r#type: LineKind::Summary,
            unix_seconds: Some(1.0),
            seconds: 1.0,
            service: "",
            figures: figures(),
            findings: vec![finding()],
            cost_percent: Some(1.0),
        };
        assert_documented(&["`watch`: the last line", EVIDENCE], &summary);
    }

    #[test]
    fn the_topics_of_findings_are_documented() {
        use AdviceTopic::{Crashes, Evidence, Growth, MemoryPerWorker, Workers};
        let name = |topic: AdviceTopic| match topic {
            // A new topic must be added here and to the list below.
            Evidence | Growth | MemoryPerWorker | Workers | Crashes => {
                serde_json::to_string(&topic).unwrap_or_default().replace('"', "`")
            }
        };
        let [first, second, third, fourth, fifth] =
            [Evidence, Growth, MemoryPerWorker, Workers, Crashes].map(name);
        let row = format!("| `findings[].topic` | {first}, {second}, {third}, {fourth} or {fifth} |");
        let page = include_str!("../../../../docs/json.md");
        assert!(page.lines().any(|line| line == row), "docs/json.md lacks: {row}");
    }
}
