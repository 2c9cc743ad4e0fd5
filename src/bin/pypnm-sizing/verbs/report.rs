//! `report`: summarizes the recordings of `watch --record`: the period watched, day by day, the busiest hour, what to set and
//! why, and what recordings cannot show. Reads recordings and the configuration, and writes only the files that are requested.
//!
//! This module prints the page of text. `gathered` is the data, `read` reads recordings, `text` has the texts of both pages,
//! `answer` is the JSON object, `html` the page with plots, and `adopt` writes the advice.

mod adopt;
mod answer;
mod gathered;
mod html;
mod read;
mod text;

use std::path::Path;

use anyhow::Context as _;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::watch::days::Hour;
use pypnm_sizing::watch::text::{duration, gib};
use pypnm_sizing::write::Directory;

use crate::cli::Report;
use crate::output::{self, Outcome, remark};
use crate::page::{Ink, Page};
use adopt::{adopt, advice_file};
use answer::Answer;
use gathered::{Gathered, gather};
use text::{UNSEEN, begin, busiest, by_day, covered, growth, is_too_little, memory, queue, shown, with_time};

/// `directory` is the path of `root`.
pub(crate) fn run(root: &Root, directory: Option<&Path>, arguments: &Report) -> Outcome {
    let sizing = size(&Request::new(root));
    let gathered = gather(&sizing, arguments)?;
    if let Some(file) = &arguments.html {
        let page = html::page(&gathered);
        Directory::of(file).and_then(|(directory, name)| directory.replace(name, &page)).context("--html")?;
        if !arguments.json && !arguments.write_advice && !arguments.adopt {
            remark(&format!("wrote {} ({} KiB)", file.display(), page.len().div_ceil(1024)));
        }
    }
    if arguments.json {
        gathered.problems.iter().for_each(|problem| remark(problem));
        return output::answer(&format!("{}\n", serde_json::to_string(&Answer::of(&gathered))?));
    }
    if arguments.write_advice {
        gathered.problems.iter().for_each(|problem| remark(problem));
        return output::answer(&advice_file(&gathered));
    }
    if arguments.adopt {
        return adopt(root, directory.unwrap_or(Path::new("/")), &gathered);
    }
    print(&gathered)
}

fn print(gathered: &Gathered) -> Outcome {
    let mut page = Page::new();
    let (evidence, days) = (&gathered.evidence, &gathered.days);
    let (from, until) = evidence.range().unwrap_or_default();
    page.heading(&format!("{}: watched for {}", gathered.unit, duration(evidence.watched())));
    page.row("", 0, &covered(evidence, from, until));
    gathered.problems.iter().for_each(|problem| page.row("", 0, &format!("Note: {problem}.")));

    page.heading("Recommended settings");
    let mut to_set = gathered.findings.iter().filter(|finding| finding.line.is_some()).peekable();
    if to_set.peek().is_none() {
        page.row(
            "  ",
            2,
            if is_too_little(&gathered.findings) { "no advice yet" } else { "no changes recommended" },
        );
    }
    for finding in to_set {
        page.one_line(&format!("  {}", finding.line.as_deref().unwrap_or_default()), Ink::Green, "");
        page.row("      ", 6, &with_time(finding));
    }
    for finding in gathered.findings.iter().filter(|finding| finding.line.is_none()) {
        page.row("  - ", 4, &finding.reason);
    }
    if let Some(before) = &gathered.before {
        page.row("  - ", 4, before);
    }
    if gathered.findings.iter().any(|finding| finding.line.is_some()) {
        page.gap();
        page.row("", 0, "To adopt it: pypnm-sizing report --adopt, then pypnm-sizing apply");
    }

    page.heading("Day by day");
    let head = format!(
        "  {:<10}{:>8}{:>8}{:>12}{:>6}{:>9}  ",
        "", "watched", "workers", "memory peak", "CPUs", "waiting"
    );
    page.row(&head, 0, "");
    for (at, day) in by_day(days).into_values() {
        let (figures, happened) = day_line(at, &day);
        page.row(&figures, 0, &happened);
    }
    if let Some((hour, figures)) = days.busiest() {
        let at = begin(hour);
        page.gap();
        page.row("", 0, &busiest(at, figures));
    }
    let epoch = evidence.epoch();
    page.heading("Measured");
    page.row("  memory  ", 10, &memory(evidence, &epoch));
    page.row("  growth  ", 10, &growth(evidence));
    page.row("  CPU     ", 10, &format!("{:.1}% of a CPU per worker on average", epoch.mean_worker_cpu()));
    page.row("  queue   ", 10, &queue(evidence, &epoch));
    page.gap();
    page.row("", 0, UNSEEN);
    page.print()
}

/// The figures of a day, and the events.
fn day_line(at: f64, day: &Hour) -> (String, String) {
    let seconds = day.seconds.max(f64::MIN_POSITIVE);
    let mut happened: Vec<String> = Vec::new();
    let mut add = |count: u64, singular: &str, plural: &str| {
        if count > 0 {
            happened.push(format!("{count} {}", if count == 1 { singular } else { plural }));
        }
    };
    add(day.recycles, "recycle", "recycles");
    add(day.restarts, "restart", "restarts");
    add(day.oom_kills, "killed because memory ran out", "killed because memory ran out");
    let figures = format!(
        "  {:<10}{:>8}{:>8}{:>12}{:>6.2}{:>8.1}%  ",
        shown(at, "%a %d %b"),
        duration(day.seconds).replace(" min", "m").replace(" h", "h"),
        day.workers,
        gib(day.memory_peak),
        day.cpu / seconds,
        day.waiting / seconds * 100.0
    );
    (figures, happened.join(", "))
}
