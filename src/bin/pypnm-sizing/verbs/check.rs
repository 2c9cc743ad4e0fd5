//! `check`: whether what systemd has loaded, and what really runs, still fits the machine. One line a unit for
//! monitoring; status 0, 1 and 2 for "fits", "does not" and "can't tell".

use std::process::ExitCode;

use anyhow::bail;
use pypnm_sizing::problem::Problem;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};

use crate::answer as json;
use crate::cli::Check;
use crate::judge::{Judged, Live, Status, judge, names, status};
use crate::output::{Outcome, answer};
use crate::page::{Ink, Page};
use crate::wording;

/// The width of the labels of details.
const LABEL: usize = 11;
pub(crate) fn run(root: &Root, arguments: &Check) -> Outcome {
    if !root.is_machine() {
        bail!("check asks the running systemd; a machine below --root has none");
    }
    let sizing = size(&Request::new(root));
    let judged: Vec<Judged> =
        names(&sizing, arguments.unit.as_deref()).iter().map(|name| judge(root, &sizing, name)).collect();
    let text = if arguments.json {
        json::check(&sizing, &judged, status(&judged))
    } else {
        let mut page = Page::new();
        for one in &judged {
            line(&mut page, one, &sizing.problems);
            if arguments.verbose {
                details(&mut page, one);
            }
        }
        if arguments.verbose {
            for problem in &sizing.problems {
                page.row("  problem  ", 11, &problem.to_string());
            }
        }
        page.print()?;
        return Ok(ExitCode::from(status(&judged)));
    };
    answer(&text).map(|_| ExitCode::from(status(&judged)))
}

/// The words that monitoring knows.
pub(crate) fn word(status: Status) -> (&'static str, Ink) {
    match status {
        Status::Fits => ("OK", Ink::Green),
        Status::Differs => ("WARNING", Ink::Yellow),
        Status::Unknown => ("UNKNOWN", Ink::Red),
    }
}

/// What the line says behind the word.
pub(crate) fn summary(judged: &Judged) -> String {
    let verdict = match &judged.verdict {
        Ok(verdict) => verdict,
        Err(why) => return format!("{}: {why}", judged.unit),
    };
    let name = &verdict.unit;
    if let Some(finding) = verdict.leading() {
        // Each on its own says half: both why there is no drop-in and what PyPNM does instead.
        let also = verdict.findings.iter().find(|other| other.topic == "sizes-itself" && *other != finding);
        let also = also.map_or_else(String::new, |other| format!("; {}", other.text));
        let mend = finding.mend.as_ref().map_or_else(String::new, |mend| format!("; mend: {mend}"));
        return format!("{name}: {}{also}{mend}", finding.text);
    }
    let mut parts = Vec::new();
    if let (Some(due), Some(Ok(sized))) =
        (verdict.due, judged.facts.as_ref().map(|facts| facts.sized.as_ref()))
    {
        let profile = match verdict.in_use {
            Some(used) => (
                used.workers.unwrap_or(due.workers),
                used.limit_max_requests.unwrap_or(due.limit_max_requests),
            ),
            None => (due.workers, due.limit_max_requests),
        };
        parts.push(format!(
            "{}, on {} CPUs, {} GiB",
            wording::profile(profile.0, profile.1),
            sized.cpus,
            sized.gib
        ));
    }
    let by_hand: Vec<&str> = verdict
        .findings
        .iter()
        .filter(|finding| matches!(finding.topic, "override" | "set-by-hand"))
        .map(|finding| finding.text.as_str())
        .collect();
    if !by_hand.is_empty() {
        parts.push(format!("set by hand: {}", by_hand.join("; ")));
    }
    let rest =
        verdict.findings.iter().filter(|finding| matches!(finding.topic, "turned-off" | "not-running"));
    parts.extend(rest.map(|finding| finding.text.clone()));
    format!("{name}: {}", parts.join("; "))
}

/// The one line; longer than a terminal if it must be, since monitoring reads one.
fn line(page: &mut Page, judged: &Judged, problems: &[Problem]) {
    let problems = match problems.len() {
        0 => String::new(),
        1 => "; 1 problem with what was read, see --verbose".to_owned(),
        number => format!("; {number} problems with what was read, see --verbose"),
    };
    let (word, ink) = word(judged.status());
    page.one_line(word, ink, &format!(": {}{problems}", summary(judged)));
}

fn details(page: &mut Page, judged: &Judged) {
    let (Some(facts), Ok(verdict)) = (&judged.facts, &judged.verdict) else {
        return;
    };
    let numbers = |numbers: Option<pypnm_sizing::pypnm::Numbers>| {
        numbers
            .map_or_else(|| "nothing".to_owned(), |n| wording::brief(n.workers, Some(n.limit_max_requests)))
    };
    match &facts.sized {
        Ok(sized) => page.row(
            "  fits",
            LABEL,
            &format!("{} ({} CPUs, {} GiB)", numbers(Some(sized.numbers)), sized.cpus, sized.gib),
        ),
        Err(why) => page.row("  fits", LABEL, &format!("not sized: {why}")),
    }
    page.row(
        "  loaded",
        LABEL,
        &format!(
            "{} ({})",
            numbers(facts.generated.as_ref().and_then(crate::service::generated::Generated::numbers)),
            facts.drop_in
        ),
    );
    if verdict.due.is_some() {
        page.row("  due", LABEL, &format!("{}, at its next start", numbers(verdict.due)));
    }
    match (&facts.live, verdict.in_use) {
        (Live::Is(running), used) => {
            let alive = wording::brief(i64::try_from(running.workers).unwrap_or(i64::MAX), None);
            let asked = used.and_then(|used| {
                let profile = wording::brief(used.workers?, used.limit_max_requests);
                Some(format!("; {profile} {}", used.by.words()))
            });
            page.row("  running", LABEL, &format!("{alive} alive{}", asked.unwrap_or_default()));
        }
        (Live::Not | Live::Hidden(_), _) => page.row("  running", LABEL, &facts.loaded.active),
    }
    for finding in &verdict.findings {
        let mend = finding.mend.as_ref().map_or_else(String::new, |mend| format!("; mend: {mend}"));
        page.row("  -", LABEL, &format!("{}{mend}", finding.text));
    }
}
