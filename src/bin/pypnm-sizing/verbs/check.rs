//! `check`: whether the loaded profile, and the one in use, still fit the machine. The output is that of a monitoring
//! plugin: a line that summarizes every unit, the worst first, with performance data, and the exit status 0, 1, 2 or 3
//! (<https://www.monitoring-plugins.org/doc/guidelines.html>).

use std::process::ExitCode;

use pypnm_sizing::parse::quantity::in_cpus;
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};
use serde::Serialize;

use crate::answer::{Answer, text};
use crate::cli::Check;
use crate::judge::summary::{heading, ink, line, print_line, summary, worst_first};
use crate::judge::{Finding, Judged, Question, State, names, process, worst};
use crate::output::{Outcome, answer};
use crate::page::Page;
use crate::service::generated;
use crate::service::in_use::Origin;
use crate::wording;

/// The width of the labels of details.
const LABEL: usize = 14;

/// The exit status on incorrect usage, which is UNKNOWN for a monitoring plugin.
pub(crate) const WRONG_USAGE: u8 = 3;

/// The answer of `check --json`.
#[derive(Serialize)]
struct CheckAnswer {
    #[serde(flatten)]
    answer: Answer<CheckedUnit>,
    /// The exit status.
    status: u8,
    state: &'static str,
}

/// A unit in it.
#[derive(Serialize)]
struct CheckedUnit {
    unit: String,
    #[serde(flatten)]
    state: State,
    summary: String,
    #[serde(rename = "mend")]
    fix: Option<String>,
    sized: Option<Numbers>,
    loaded: Option<Numbers>,
    due: Option<Numbers>,
    running: Option<RunningAnswer>,
    active: Option<String>,
    findings: Vec<Finding>,
}

/// The numbers that a running service uses.
#[derive(Serialize)]
struct RunningAnswer {
    workers_alive: i64,
    workers: Option<i64>,
    limit_max_requests: Option<i64>,
    by: Option<Origin>,
}

impl CheckedUnit {
    fn new(judged: &Judged) -> Self {
        let facts = judged.facts.as_ref();
        let verdict = &judged.verdict;
        let in_use = verdict.in_use;
        Self {
            unit: judged.unit.clone(),
            state: judged.state(),
            summary: summary(judged),
            fix: verdict.leading().and_then(|finding| finding.fix.clone()),
            sized: judged.expected().and_then(|expected| Some(expected.as_ref().ok()?.numbers)),
            loaded: facts.and_then(|facts| generated::numbers(facts.generated.as_ref()?)),
            due: verdict.next_start,
            running: judged.running().map(|running| RunningAnswer {
                workers_alive: running.workers,
                workers: in_use.and_then(|in_use| in_use.workers),
                limit_max_requests: in_use.and_then(|in_use| in_use.limit_max_requests),
                by: in_use.map(|in_use| in_use.origin),
            }),
            active: facts.map(|facts| facts.loaded.active.clone()),
            findings: verdict.findings.clone(),
        }
    }
}

pub(crate) fn run(root: &Root, arguments: &Check) -> Outcome {
    if !root.is_machine() {
        let why = " - check needs the running systemd; --root is not supported";
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
        let units = judged.iter().map(CheckedUnit::new).collect();
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
    if let Some(expected) = judged.expected() {
        let sized = match expected {
            Ok(expected) => format!(
                "{}, for {} and {} GiB",
                wording::brief(expected.numbers),
                in_cpus(expected.cpus),
                expected.gib
            ),
            Err(why) => format!("no: {why}"),
        };
        page.row("  sized", LABEL, &sized);
        if let Some(facts) = &judged.facts {
            let numbers = facts.generated.as_ref().and_then(generated::numbers);
            let generated = numbers.map_or_else(|| "none".to_owned(), wording::brief);
            page.row("  generated", LABEL, &format!("{generated} ({})", facts.drop_in));
        }
        if let Some(next_start) = verdict.next_start {
            page.row("  next start", LABEL, &wording::brief(next_start));
        }
        let state = match (judged.running(), verdict.in_use) {
            (Some(running), Some(in_use)) if in_use.workers.is_some() => {
                let alive = wording::workers_text(running.workers);
                format!("{alive} alive; {}, {}", wording::in_use(in_use), wording::origin(in_use.origin))
            }
            (Some(running), _) => format!("{} alive", wording::workers_text(running.workers)),
            (None, _) => {
                judged.facts.as_ref().map_or("unknown", |facts| facts.loaded.active.as_str()).to_owned()
            }
        };
        page.row("  running", LABEL, &state);
    }
    for finding in &verdict.findings {
        let fix = finding.fix.as_ref().map_or_else(String::new, |fix| format!("; fix: {fix}"));
        page.row("  -", 4, &format!("{}{fix}", finding.text));
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckAnswer, CheckedUnit, Finding, Origin, RunningAnswer, State};
    use crate::answer::tests::{COMMON, answer, assert_documented, numbers};
    use crate::judge::Topic;

    #[test]
    fn the_schema_is_documented() {
        let text = String::new;
        let unit = CheckedUnit {
            unit: text(),
            state: State::Ok,
            summary: text(),
            fix: Some(text()),
            sized: Some(numbers()),
            loaded: Some(numbers()),
            due: Some(numbers()),
            running: Some(RunningAnswer {
                workers_alive: 1,
                workers: Some(1),
                limit_max_requests: Some(1),
                by: Some(Origin::File),
            }),
            active: Some(text()),
            findings: vec![Finding {
                topic: Topic::NotRead,
                state: State::Ok,
                text: text(),
                fix: Some(text()),
            }],
        };
        assert_documented(&[COMMON, "`check`"], &CheckAnswer { answer: answer(unit), status: 0, state: "" });
    }
}
