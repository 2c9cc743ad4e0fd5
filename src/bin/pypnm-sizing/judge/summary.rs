//! Verdicts as a line of a monitoring plugin, for `check` and `apply`.

use pypnm_sizing::parse::quantity::in_cpus;
use pypnm_sizing::pypnm::Numbers;

use super::{Finding, Judged, State, Topic};
use crate::output::{Outcome, printable};
use crate::page::{Ink, Page};
use crate::wording;

/// The name of the monitored service, which comes first in the line.
const SERVICE: &str = "PYPNM-SIZING";

/// Prints the line on its own.
pub(crate) fn print_line(state: State, text: &str) -> Outcome {
    let mut page = Page::new();
    page.one_line(&heading(state), ink(state), text);
    page.print()
}

pub(crate) fn heading(state: State) -> String {
    format!("{SERVICE} {}", state.word().to_uppercase())
}

pub(crate) fn ink(state: State) -> Ink {
    match state {
        State::Ok => Ink::Green,
        State::Warning => Ink::Yellow,
        State::Critical | State::Unknown => Ink::Red,
    }
}

pub(crate) fn worst_first(judged: &[Judged]) -> Vec<&Judged> {
    let mut sorted: Vec<&Judged> = judged.iter().collect();
    sorted.sort_by_key(|judged| std::cmp::Reverse(judged.state()));
    sorted
}

/// The part of the line after the state: every unit, the worst first, and the performance data.
pub(crate) fn line(judged: &[Judged]) -> String {
    let sorted = worst_first(judged);
    let several = sorted.len() > 1;
    let texts: Vec<String> = sorted
        .iter()
        .map(|judged| {
            let state =
                if several { format!("{} ", judged.state().word().to_uppercase()) } else { String::new() };
            // A vertical bar begins the performance data.
            format!("{state}{}", summary(judged)).replace('|', "/")
        })
        .collect();
    let data = performance_data(judged);
    let data = if data.is_empty() { data } else { format!(" | {data}") };
    let texts = if texts.is_empty() { "no unit is listed in Units=".to_owned() } else { texts.join(" -- ") };
    format!(" - {texts}{data}")
}

/// `label=value`: workers alive, workers expected, the recycle limit in use, and the CPUs and bytes of memory that the
/// unit may use. With several units each label begins with the unit.
fn performance_data(judged: &[Judged]) -> String {
    let several = judged.len() > 1;
    let mut data = Vec::new();
    for judged in judged {
        let expected = judged.expected().and_then(|expected| expected.as_ref().ok());
        let next_start = judged.verdict.next_start.or(expected.map(|expected| expected.numbers));
        let limit = judged.verdict.in_use.and_then(|in_use| in_use.limit_max_requests);
        for (label, value, unit_of_measure) in [
            ("workers", judged.workers_alive(), ""),
            ("expected", next_start.map(|numbers| numbers.workers), ""),
            ("limit_max_requests", limit, ""),
            ("cpus", expected.and_then(|expected| i64::try_from(expected.cpus).ok()), ""),
            ("memory", expected.and_then(|expected| i64::try_from(expected.memory).ok()), "B"),
        ] {
            let Some(value) = value else { continue };
            let label = if several {
                format!("'{} {label}'", printable(&judged.unit).replace(['\'', '='], "_"))
            } else {
                label.to_owned()
            };
            data.push(format!("{label}={value}{unit_of_measure};;;0"));
        }
    }
    data.join(" ")
}

/// The part of the line for a unit.
pub(crate) fn summary(judged: &Judged) -> String {
    let verdict = &judged.verdict;
    let name = &judged.unit;
    if let Some(finding) = verdict.leading() {
        // Either of them would be incomplete: the cause (no drop-in, or another unit) and the consequence.
        let completes = |other: &&Finding| {
            matches!(other.topic, Topic::SizesItself | Topic::OtherUnit) && *other != finding
        };
        let others = verdict.findings.iter().filter(completes).map(|other| other.text.clone());
        let fix = finding.fix.iter().map(|fix| format!("fix: {fix}"));
        let parts: Vec<String> = [finding.text.clone()].into_iter().chain(others).chain(fix).collect();
        return format!("{name}: {}", parts.join("; "));
    }
    let mut parts = Vec::new();
    if let (Some(next), Some(Ok(expected))) = (verdict.next_start, judged.expected()) {
        let numbers = verdict.in_use.map_or(next, |in_use| Numbers {
            workers: in_use.workers.unwrap_or(next.workers),
            limit_max_requests: in_use.limit_max_requests.unwrap_or(next.limit_max_requests),
        });
        parts.push(format!(
            "{}, on {}, {} GiB",
            wording::profile(numbers),
            in_cpus(expected.cpus),
            expected.gib
        ));
    }
    let texts_of = |topics: &[Topic]| -> Vec<&str> {
        let chosen = verdict.findings.iter().filter(|finding| topics.contains(&finding.topic));
        chosen.map(|finding| finding.text.as_str()).collect()
    };
    let by_hand = texts_of(&[Topic::Override, Topic::SetByHand]);
    if !by_hand.is_empty() {
        parts.push(format!("set by hand: {}", by_hand.join("; ")));
    }
    let state = texts_of(&[Topic::TurnedOff, Topic::NotRunning, Topic::Starting]);
    parts.extend(state.into_iter().map(str::to_owned));
    format!("{name}: {}", parts.join("; "))
}
