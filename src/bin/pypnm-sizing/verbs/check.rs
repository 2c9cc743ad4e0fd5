//! `check`: whether the loaded profile, and the one in use, still fit the machine. The output is that of a monitoring
//! plugin: a line that summarizes every unit, the worst first, with performance data, and the exit status 0, 1, 2 or 3
//! (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use std::process::ExitCode;

use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};
use serde::Serialize;

use crate::answer::{Answer, NumbersAnswer, text};
use crate::cli::Check;
use crate::judge::summary::{heading, ink, line, print_line, summary, worst_first};
use crate::judge::{Finding, Judged, Live, Question, State, names, process, worst};
use crate::output::{Outcome, answer};
use crate::page::Page;
use crate::service::generated::Generated;
use crate::wording;

/// The width of the labels of details.
const LABEL: usize = 14;

/// The exit status on incorrect usage, which is UNKNOWN for a monitoring plugin.
pub(crate) const WRONG_USAGE: u8 = 3;

/// The answer of `check --json`.
#[derive(Serialize)]
struct CheckAnswer {
    #[serde(flatten)]
    answer: Answer<UnitAnswer>,
    /// The exit status.
    status: u8,
    state: &'static str,
}

/// A unit in it.
#[derive(Serialize)]
struct UnitAnswer {
    unit: String,
    status: &'static str,
    state: &'static str,
    summary: String,
    #[serde(rename = "mend")]
    fix: Option<String>,
    sized: Option<NumbersAnswer>,
    loaded: Option<NumbersAnswer>,
    due: Option<NumbersAnswer>,
    running: Option<RunningAnswer>,
    active: Option<String>,
    findings: Vec<FindingAnswer>,
}

/// The numbers that a running service uses.
#[derive(Serialize)]
struct RunningAnswer {
    workers_alive: usize,
    workers: Option<i64>,
    limit_max_requests: Option<i64>,
    by: Option<&'static str>,
}

/// A finding.
#[derive(Serialize)]
struct FindingAnswer {
    topic: &'static str,
    status: &'static str,
    state: &'static str,
    text: String,
    #[serde(rename = "mend")]
    fix: Option<String>,
}

impl UnitAnswer {
    fn new(judged: &Judged) -> Self {
        let facts = judged.facts.as_ref();
        let verdict = &judged.verdict;
        let in_use = verdict.in_use;
        Self {
            unit: judged.unit.clone(),
            status: judged.state().fit(),
            state: judged.state().word(),
            summary: summary(judged),
            fix: verdict.leading().and_then(|finding| finding.fix.clone()),
            sized: judged.expected().and_then(|expected| Some(expected.as_ref().ok()?.numbers.into())),
            loaded: facts.and_then(|facts| facts.generated.as_ref()?.numbers()).map(Into::into),
            due: verdict.next_start.map(Into::into),
            running: judged.live().and_then(|live| match live {
                Live::Running(running) => Some(RunningAnswer {
                    workers_alive: running.workers,
                    workers: in_use.and_then(|in_use| in_use.workers),
                    limit_max_requests: in_use.and_then(|in_use| in_use.limit_max_requests),
                    by: in_use.map(|in_use| in_use.origin.word()),
                }),
                Live::Not | Live::Hidden(_) => None,
            }),
            active: facts.map(|facts| facts.loaded.active.clone()),
            findings: verdict.findings.iter().map(FindingAnswer::new).collect(),
        }
    }
}

impl FindingAnswer {
    fn new(finding: &Finding) -> Self {
        Self {
            topic: finding.topic.word(),
            status: finding.state.fit(),
            state: finding.state.word(),
            text: finding.text.clone(),
            fix: finding.fix.clone(),
        }
    }
}

pub(crate) fn run(root: &Root, arguments: &Check) -> Outcome {
    if !root.is_machine() {
        let why = " - check queries the running systemd, not --root";
        return print_line(State::Unknown, why).map(|_| ExitCode::from(State::Unknown.exit_status()));
    }
    let (judged, sizing) = if let Some(pid) = arguments.pid {
        let (judged, sizing) = process::judge(root, pid);
        (vec![judged], sizing.unwrap_or_else(|| size(&Request::new(root))))
    } else {
        let sizing = size(&Request::new(root));
        let question = Question { root, sizing: &sizing, must_run: arguments.must_run };
        (question.judge_all(&names(&sizing, arguments.unit.as_deref())), sizing)
    };
    let state = worst(&judged);
    let status = ExitCode::from(state.exit_status());
    if arguments.json {
        let units = judged.iter().map(UnitAnswer::new).collect();
        let answer_of_all = CheckAnswer {
            answer: Answer::new("check", &sizing, units),
            status: state.exit_status(),
            state: state.word(),
        };
        return answer(&text(&answer_of_all)).map(|_| status);
    }
    let mut page = Page::new();
    page.one_line(&heading(state), ink(state), &line(&judged));
    if arguments.verbose {
        for judged in worst_first(&judged) {
            details(&mut page, judged);
        }
        for problem in &sizing.problems {
            page.row("  problem", LABEL, &problem.to_string());
        }
    }
    page.print().map(|_| status)
}

fn details(page: &mut Page, judged: &Judged) {
    let verdict = &judged.verdict;
    page.row("", 0, &format!("{}: {}", judged.unit, judged.state().word().to_uppercase()));
    let numbers = |numbers: Option<Numbers>| {
        numbers.map_or_else(|| "none".to_owned(), |n| wording::brief(n.workers, Some(n.limit_max_requests)))
    };
    if let Some(expected) = judged.expected() {
        match expected {
            Ok(expected) => page.row(
                "  sized",
                LABEL,
                &format!(
                    "{}, for {} and {} GiB",
                    numbers(Some(expected.numbers)),
                    wording::cpus(expected.cpus),
                    expected.gib
                ),
            ),
            Err(why) => page.row("  sized", LABEL, &format!("no: {why}")),
        }
        if let Some(facts) = &judged.facts {
            let generated = numbers(facts.generated.as_ref().and_then(Generated::numbers));
            page.row("  generated", LABEL, &format!("{generated} ({})", facts.drop_in));
        }
        if verdict.next_start.is_some() {
            page.row("  next start", LABEL, &numbers(verdict.next_start));
        }
        if let Some(Live::Running(running)) = judged.live() {
            let alive = wording::brief(i64::try_from(running.workers).unwrap_or(i64::MAX), None);
            let asked = verdict.in_use.and_then(|in_use| {
                let profile = wording::brief(in_use.workers?, in_use.limit_max_requests);
                Some(format!("; {profile}, {}", in_use.origin.words()))
            });
            page.row("  running", LABEL, &format!("{alive} alive{}", asked.unwrap_or_default()));
        } else {
            let state = judged.facts.as_ref().map_or("unknown", |facts| facts.loaded.active.as_str());
            page.row("  running", LABEL, state);
        }
    }
    for finding in &verdict.findings {
        let fix = finding.fix.as_ref().map_or_else(String::new, |fix| format!("; fix: {fix}"));
        page.row("  -", 4, &format!("{}{fix}", finding.text));
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckAnswer, FindingAnswer, RunningAnswer, UnitAnswer};
    use crate::answer::tests::{answer, assert_documented, numbers};

    #[test]
    fn the_schema_is_documented() {
        let text = String::new;
        let unit = UnitAnswer {
            unit: text(),
            status: "",
            state: "",
            summary: text(),
            fix: Some(text()),
            sized: Some(numbers()),
            loaded: Some(numbers()),
            due: Some(numbers()),
            running: Some(RunningAnswer {
                workers_alive: 1,
                workers: Some(1),
                limit_max_requests: Some(1),
                by: Some(""),
            }),
            active: Some(text()),
            findings: vec![FindingAnswer {
                topic: "",
                status: "",
                state: "",
                text: text(),
                fix: Some(text()),
            }],
        };
        assert_documented("`check`", &CheckAnswer { answer: answer(unit), status: 0, state: "" });
    }
}
