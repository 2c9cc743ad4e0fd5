//! `report`: summarizes the recordings of `watch --record`: the period watched, day by day, the busiest hour, what to set and
//! why, and what recordings cannot show. Reads recordings and the configuration, and writes only the files that are requested.
//!
//! This module gathers the data and prints the page of text; `read` reads recordings, `answer` is the JSON object, `html` the
//! page with plots, and `adopt` writes the advice.

mod adopt;
mod answer;
mod html;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use pypnm_sizing::policy::PolicySettings;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, Sizing, size};
use pypnm_sizing::units::name::service_name;
use pypnm_sizing::watch::advice::{Finding, Setup, Topic, drop_in, findings, workers};
use pypnm_sizing::watch::days::{Days, Hour};
use pypnm_sizing::watch::evidence::{Epoch, Evidence};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::text::{clock_range, duration, gib, interval, mib};
use pypnm_sizing::write::Directory;

use crate::cli::{RECORDINGS, Report};
use crate::output::{self, Outcome, remark};
use crate::page::{Ink, Page};
use crate::watch::{place_among, section};
use adopt::adopt;
use answer::Answer;
use read::{RecordingReader, Wanted};
/// The minimum number of blocks of evidence for comparing earlier conditions with the present ones.
const COMPARABLE: f64 = 3.0;

/// The data of a report.
struct Gathered {
    unit: String,
    evidence: Evidence,
    days: Days,
    findings: Vec<Finding>,
    problems: Vec<String>,
    /// The comparison with the time before the number of workers last changed.
    before: Option<String>,
    section: String,
}

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

fn gather(sizing: &Sizing, arguments: &Report) -> anyhow::Result<Gathered> {
    let preferred = sizing.units.iter().map(|unit| unit.name.as_str()).collect();
    // The name as recorded: a unit with its suffix, or "process PID".
    let is_process = |name: &str| name.starts_with("process ");
    let unit = arguments
        .unit
        .as_ref()
        .map(|name| service_name(name).filter(|_| !is_process(name)).unwrap_or_else(|| name.clone()));
    let wanted = Wanted { unit: unit.as_deref(), preferred, since: arguments.since, until: arguments.until };
    let mut reader = RecordingReader::new(wanted);
    let default = [PathBuf::from(RECORDINGS)];
    let recordings: &[PathBuf] =
        if arguments.recordings.is_empty() { &default } else { &arguments.recordings };
    if arguments.recordings.is_empty() && !Path::new(RECORDINGS).is_dir() {
        bail!(
            "nothing is recorded in {RECORDINGS}; to record: systemctl enable --now pypnm-sizing-watch.service"
        );
    }
    reader.read(recordings)?;
    let chosen = reader.choose();
    let mut problems = std::mem::take(&mut reader.files);
    problems.extend(reader.left.sentences(chosen.as_ref().map(|(unit, _)| unit.as_str())));
    let Some((unit, recording)) = chosen else {
        for problem in &problems {
            remark(problem);
        }
        let what = unit.as_deref().map_or_else(String::new, |unit| format!(" of {unit}"));
        let when = if arguments.since.or(arguments.until).is_some() { " in that time" } else { "" };
        bail!("there are no samples{what}{when} in {}", named(recordings));
    };
    let (evidence, days) = (recording.evidence, recording.days);
    let (cpu, memory, limit) = evidence.limits();
    let sized = place_among(sizing, &unit).and_then(|place| sizing.units.get(place));
    let setup = (!sizing.units.is_empty()).then(|| Setup {
        cpus: (cpu / 1000).max(1),
        memory,
        settings: sized.map_or_else(PolicySettings::default, |unit| unit.config.policy_settings()),
        limit_max_requests: limit.and_then(|limit| u32::try_from(limit).ok()),
    });
    let findings = findings(&evidence, setup.as_ref(), Some(&clock));
    Ok(Gathered {
        before: compared(&evidence),
        section: section(sizing, sized),
        unit,
        evidence,
        days,
        findings,
        problems,
    })
}

fn named(recordings: &[PathBuf]) -> String {
    recordings.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A time of day.
fn clock(at: f64) -> String {
    shown(at, "%a %d %b %H:%M")
}

fn shown(at: f64, format: &str) -> String {
    let moment = Timestamp::from_second(pypnm_sizing::watch::to_u64(at.max(0.0)).cast_signed());
    moment.unwrap_or_default().to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// The offset of local time from UTC, in seconds.
fn utc_offset(at: f64) -> f64 {
    let moment = Timestamp::from_second(pypnm_sizing::watch::to_u64(at.max(0.0)).cast_signed());
    f64::from(TimeZone::system().to_offset(moment.unwrap_or_default()).seconds())
}

/// Compares what was observed with the previous number of workers and with the present one.
fn compared(evidence: &Evidence) -> Option<String> {
    let now = evidence.epoch();
    let long = |epoch: &Epoch| epoch.seconds >= COMPARABLE * evidence.block_length();
    let before = evidence
        .earlier()
        .filter(|epoch| long(epoch) && epoch.workers != now.workers && epoch.until <= now.until)
        .max_by(|a, b| a.until.total_cmp(&b.until))?;
    if !long(&now) {
        return None;
    }
    let of = |epoch: &Epoch| {
        let waiting = epoch.busiest.map_or(0.0, |(part, _, _)| part * 100.0);
        let killed = if epoch.oom_kills > 0 {
            format!(", {} killed because memory ran out", epoch.oom_kills)
        } else {
            String::new()
        };
        format!(
            "with {} requests waited in {waiting:.0} % of the busiest {}, memory peak {}{killed}",
            workers(u32::try_from(epoch.workers).unwrap_or(u32::MAX)),
            duration(evidence.block_length()),
            gib(epoch.total_peak)
        )
    };
    Some(format!("{}; until {}, {}", of(&now), clock(before.until), of(before)))
}

/// The days of the recording in the local time zone.
fn by_day(days: &Days) -> BTreeMap<String, (f64, Hour)> {
    let mut found: BTreeMap<String, (f64, Hour)> = BTreeMap::new();
    for (hour, figures) in &days.hours {
        let at = begin(*hour);
        let day = found.entry(shown(at, "%Y-%m-%d")).or_insert_with(|| (at, Hour::default()));
        day.1.add(figures);
    }
    found
}

/// The beginning of an hour, in seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "an hour since 1970")]
fn begin(hour: i64) -> f64 {
    hour as f64 * 3600.0
}

/// The limits of the report.
const UNSEEN: &str = "What this cannot show: requests that wait for a modem inside a worker, or for their turn on a connection \
                      that is kept open. They appear in no queue and take no CPU time; PyPNM's own log has their durations.";

fn print(gathered: &Gathered) -> Outcome {
    let mut page = Page::new();
    let (evidence, days) = (&gathered.evidence, &gathered.days);
    let (from, until) = evidence.range().unwrap_or_default();
    page.heading(&format!("{}: {} watched", gathered.unit, duration(evidence.watched())));
    page.row("", 0, &covered(evidence, from, until));
    gathered.problems.iter().for_each(|problem| page.row("", 0, &format!("Note: {problem}.")));

    page.heading("What to set");
    let mut to_set = gathered.findings.iter().filter(|finding| finding.line.is_some()).peekable();
    if to_set.peek().is_none() {
        page.row("  ", 2, if is_too_little(&gathered.findings) { "no advice yet" } else { "nothing" });
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
    page.row("  CPU     ", 10, &format!("{:.1} % of a CPU per worker on average", epoch.mean_worker_cpu()));
    page.row("  queue   ", 10, &queue(evidence, &epoch));
    page.gap();
    page.row("", 0, UNSEEN);
    page.print()
}

fn is_too_little(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.topic == Topic::Evidence)
}

/// The reason, with the period that it is based on.
fn with_time(finding: &Finding) -> String {
    match finding.time {
        Some((from, until)) => format!("{} [{}]", finding.reason, clock_range(&clock, from, until)),
        None => finding.reason.clone(),
    }
}

fn covered(evidence: &Evidence, from: f64, until: f64) -> String {
    let of = (until - from).max(f64::MIN_POSITIVE);
    let part = (evidence.watched() / of * 100.0).min(100.0);
    let zone = shown(until, "%Z");
    format!("{} to {} ({zone}), {part:.0} % of it watched", clock(from), clock(until))
}

/// The figures of a day, and the events.
fn day_line(at: f64, day: &Hour) -> (String, String) {
    let seconds = day.seconds.max(f64::MIN_POSITIVE);
    let mut happened: Vec<String> = Vec::new();
    let mut say = |count: u64, singular: &str, plural: &str| {
        if count > 0 {
            happened.push(format!("{count} {}", if count == 1 { singular } else { plural }));
        }
    };
    say(day.recycles, "recycle", "recycles");
    say(day.restarts, "restart", "restarts");
    say(day.oom_kills, "killed because memory ran out", "killed because memory ran out");
    let figures = format!(
        "  {:<10}{:>8}{:>8}{:>12}{:>6.2}{:>7.1} %  ",
        shown(at, "%a %d %b"),
        duration(day.seconds).replace(" min", "m").replace(" h", "h"),
        day.workers,
        gib(day.memory_peak),
        day.cpu / seconds,
        day.waiting / seconds * 100.0
    );
    (figures, happened.join(", "))
}

fn busiest(at: f64, hour: &Hour) -> String {
    let seconds = hour.seconds.max(f64::MIN_POSITIVE);
    format!(
        "The busiest hour: {}, {:.2} CPUs, requests waited in {:.0} % of it (up to {} in the queue), memory up to {}",
        clock_range(&clock, at, at + 3600.0),
        hour.cpu / seconds,
        hour.waiting / seconds * 100.0,
        hour.queue_peak,
        gib(hour.memory_peak)
    )
}

fn memory(evidence: &Evidence, epoch: &Epoch) -> String {
    let (_, limit, _) = evidence.limits();
    let mut text = format!("up to {}", mib(evidence.memory_peak));
    if limit > 0 {
        text = format!(
            "{text} of {} ({:.0} %)",
            gib(limit),
            number(evidence.memory_peak) * 100.0 / number(limit)
        );
    }
    format!(
        "{text}; a worker: {} in 95 % of the busiest block, {} at its peak",
        mib(epoch.worker_memory),
        mib(epoch.worker_peak)
    )
}

fn growth(evidence: &Evidence) -> String {
    match evidence.growth() {
        None => "unknown: no worker was watched for a full hour".to_owned(),
        Some(growth) => {
            let lasting =
                if growth.all.lasting { "" } else { ", which does not last or may be due to chance" };
            format!("{} per worker{lasting}", interval(&growth.all))
        }
    }
}

fn queue(evidence: &Evidence, epoch: &Epoch) -> String {
    if evidence.last().accept_queue.is_none() && epoch.queue_peak == 0 {
        return "not recorded: the service's sockets could not be read".to_owned();
    }
    let connections = match epoch.queue_peak {
        0 => return "empty in all samples".to_owned(),
        1 => "connection",
        _ => "connections",
    };
    format!(
        "up to {} {connections}; not empty for {} of {}",
        epoch.queue_peak,
        duration(epoch.queued),
        duration(epoch.seconds)
    )
}

/// The advice as a file of sizing.conf.d.
fn advice_file(gathered: &Gathered) -> String {
    let (from, until) = gathered.evidence.range().unwrap_or_default();
    let head = format!(
        "From `pypnm-sizing report`: {}, {} watched, {}.\nRead it, keep what you agree with, then: pypnm-sizing apply",
        // The text is from a recording and may contain anything.
        output::printable(&gathered.unit),
        duration(gathered.evidence.watched()),
        clock_range(&clock, from, until)
    );
    drop_in(&gathered.findings, &gathered.section, &head)
}
