//! The report as a JSON object. The structs are the schema, which docs/json.md describes; a test compares the two.

use pypnm_sizing::watch::days::Hour;
use pypnm_sizing::watch::line::{SCHEMA, rounded};
use serde::Serialize;

use super::gathered::Gathered;
use super::text::{begin, by_day};
use crate::watch::json::{Figures, FindingAnswer};

/// The JSON object.
#[derive(Serialize)]
pub(super) struct ReportAnswer {
    schema: u32,
    verb: &'static str,
    unit: String,
    from: f64,
    until: f64,
    watched_seconds: f64,
    #[serde(flatten)]
    figures: Figures,
    findings: Vec<FindingAnswer>,
    days: Vec<DayAnswer>,
    busiest_hour: Option<DayAnswer>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct DayAnswer {
    from: f64,
    watched_seconds: f64,
    workers: u64,
    memory_peak: u64,
    worker_memory_peak: u64,
    cpu_milli: f64,
    waiting_seconds: f64,
    accept_queue_peak: u64,
    memory_stalled_seconds: f64,
    recycles: u64,
    restarts: u64,
    oom_kills: u64,
}

impl DayAnswer {
    fn from_hour(at: f64, day: &Hour) -> Self {
        Self {
            from: at,
            watched_seconds: rounded(day.seconds, 1),
            workers: day.workers,
            memory_peak: day.memory_peak,
            worker_memory_peak: day.worker_peak,
            cpu_milli: rounded(day.cpus() * 1000.0, 0),
            waiting_seconds: rounded(day.waiting, 1),
            accept_queue_peak: day.queue_peak,
            memory_stalled_seconds: rounded(day.stalled, 1),
            recycles: day.recycles,
            restarts: day.restarts,
            oom_kills: day.oom_kills,
        }
    }
}

impl ReportAnswer {
    pub(super) fn from_gathered(gathered: &Gathered) -> Self {
        let (from, until) = gathered.evidence.range().unwrap_or_default();
        Self {
            schema: SCHEMA,
            verb: "report",
            unit: gathered.unit.clone(),
            from: rounded(from, 3),
            until: rounded(until, 3),
            watched_seconds: rounded(gathered.evidence.watched(), 1),
            figures: Figures::from_evidence(&gathered.evidence),
            findings: gathered
                .findings
                .iter()
                .map(|finding| FindingAnswer::from_finding(finding, 0.0))
                .collect(),
            days: by_day(&gathered.days)
                .into_values()
                .map(|(at, day)| DayAnswer::from_hour(at, &day))
                .collect(),
            busiest_hour: gathered.days.busiest().map(|(hour, day)| DayAnswer::from_hour(begin(hour), day)),
            problems: gathered.problems.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DayAnswer, ReportAnswer};
    use crate::answer::tests::assert_documented;
    use crate::watch::json::tests::{EVIDENCE, figures, finding};

    fn day() -> DayAnswer {
        DayAnswer {
            from: 1.0,
            watched_seconds: 1.0,
            workers: 1,
            memory_peak: 1,
            worker_memory_peak: 1,
            cpu_milli: 1.0,
            waiting_seconds: 1.0,
            accept_queue_peak: 1,
            memory_stalled_seconds: 1.0,
            recycles: 1,
            restarts: 1,
            oom_kills: 1,
        }
    }

    #[test]
    fn the_schema_is_documented() {
        let example = ReportAnswer {
            schema: 1,
            verb: "",
            unit: String::new(),
            from: 1.0,
            until: 1.0,
            watched_seconds: 1.0,
            figures: figures(),
            findings: vec![finding()],
            days: vec![day()],
            busiest_hour: Some(day()),
            problems: vec![String::new()],
        };
        assert_documented(&["`report`", EVIDENCE], &example);
    }
}
