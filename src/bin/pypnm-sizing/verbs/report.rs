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
use pypnm_sizing::watch::advice::{remarks, settings};
use pypnm_sizing::watch::days::Hour;
use pypnm_sizing::watch::text::{counted, duration, gib};
use pypnm_sizing::write::Directory;

use crate::cli::Report;
use crate::output::{self, Outcome, remark};
use crate::page::Page;
use adopt::{adopt, advice_file};
use answer::ReportAnswer;
use gathered::{Gathered, gather};
use text::{
    UNSEEN, begin, busiest, by_day, covered, growth, is_too_little, memory, queue, recommended, shown,
};

/// `directory` is the path of `root`.
pub(crate) fn run(root: &Root, directory: Option<&Path>, arguments: &Report) -> Outcome {
    let sizing = size(&Request::new(root));
    let gathered = gather(&sizing, arguments)?;
    if let Some(file) = &arguments.html {
        let page = html::page(&gathered);
        Directory::open_for(file)
            .and_then(|(directory, name)| directory.replace(name, &page))
            .context("--html")?;
        if !arguments.json && !arguments.write_advice && !arguments.adopt {
            remark(&format!("wrote {} ({} KiB)", file.display(), page.len().div_ceil(1024)));
        }
    }
    if arguments.json {
        gathered.problems.iter().for_each(|problem| remark(problem));
        return output::answer(&format!(
            "{}\n",
            serde_json::to_string(&ReportAnswer::from_gathered(&gathered))?
        ));
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
    let is_advised = settings(&gathered.findings).next().is_some();
    if !is_advised {
        page.row(
            "  ",
            2,
            if is_too_little(&gathered.findings) { "no advice yet" } else { "no changes recommended" },
        );
    }
    recommended(&mut page, &gathered.findings);
    let before = gathered.before.as_deref();
    remarks(&gathered.findings).chain(before).for_each(|remark| page.row("  - ", 4, remark));
    if is_advised {
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
    let killed = "killed because memory ran out";
    let happened: Vec<String> = [
        (day.recycles, "recycle", "recycles"),
        (day.restarts, "restart", "restarts"),
        (day.oom_kills, killed, killed),
    ]
    .into_iter()
    .filter(|(count, _, _)| *count > 0)
    .map(|(count, singular, plural)| counted(count, singular, plural))
    .collect();
    let figures = format!(
        "  {:<10}{:>8}{:>8}{:>12}{:>6.2}{:>8.1}%  ",
        shown(at, "%a %d %b"),
        duration(day.seconds).replace(" min", "m").replace(" h", "h"),
        day.workers,
        gib(day.memory_peak),
        day.cpus(),
        day.waiting_part() * 100.0
    );
    (figures, happened.join(", "))
}
