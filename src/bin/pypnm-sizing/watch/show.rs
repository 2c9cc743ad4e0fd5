//! The text that `watch` prints: the screen, a line per sample, and the summary at the end. Pure.

mod table;

use std::fmt::Write as _;

use pypnm_sizing::parse::quantity::{Cpus, in_cpus};
use pypnm_sizing::watch::advice::{Advice, AdviceTopic, remarks, settings, workers};
use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::history::sparkline;
use pypnm_sizing::watch::line::Line;
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::text::{counted, duration, gib, interval, size, wrapped};

use crate::page::{self, Ink};

/// What is shown in addition to the evidence.
pub(super) struct Context<'a> {
    /// Seconds between samples.
    pub(super) interval: f64,
    /// The findings so far.
    pub(super) findings: &'a [Advice],
    /// Texts about limits of the process that are unknown.
    pub(super) unknown_limits: &'a [String],
    /// Why PSS could not be read.
    pub(super) no_shares: Option<String>,
    /// The CPU time used by `watch`, in percent of one CPU; `None`: not known yet.
    pub(super) cost: Option<f64>,
    /// Whether the terminal supports only ASCII.
    pub(super) ascii_only: bool,
    /// Whether colors may be used.
    pub(super) colors: bool,
}

/// The columns of a label.
const LABEL: usize = 10;
/// The minimum and the maximum width of the history of the memory.
const MIN_MARKS: usize = 8;
const MAX_MARKS: usize = 120;

#[derive(Default)]
struct Lines {
    /// How each line is highlighted, and its text.
    lines: Vec<(Option<Ink>, String)>,
}

impl Lines {
    fn add(&mut self, ink: Option<Ink>, line: String) {
        self.lines.push((ink, line));
    }

    /// Adds a text beside its label, on as many lines as it needs.
    fn row(&mut self, label: &str, text: &str, columns: usize) {
        for (number, line) in wrapped(text, columns.saturating_sub(LABEL)).iter().enumerate() {
            let label = if number == 0 { label } else { "" };
            self.add(None, format!("{label:<LABEL$}{line}"));
        }
    }
}

/// A screen of `columns` × `rows`.
pub(super) fn screen(evidence: &Evidence, context: &Context<'_>, columns: usize, rows: usize) -> Vec<String> {
    let mut out = Lines::default();
    let last = evidence.last();
    let count = last.workers;
    let state = match count {
        0 => "down, waiting for it to start".to_owned(),
        _ => workers(count),
    };
    let ink = if count == 0 { Some(Ink::Red) } else { Some(Ink::Bold) };
    let mut title = format!("{}: {state}, watched for {}", last.service, duration(evidence.watched()));
    let sampled = format!(", sampled every {} s", context.interval);
    if title.chars().count() + sampled.chars().count() <= columns {
        title.push_str(&sampled);
    }
    out.add(ink, title);
    overview(&mut out, evidence, columns, context.ascii_only);
    let above = out.lines.len();
    not_measured(&mut out, context, columns);
    let cost = context.cost.map_or_else(String::new, |cost| format!("watch uses {cost:.2}% of a CPU; "));
    let cost = format!("{cost}press q or Ctrl-C to stop");
    out.add(None, cost);
    let mut below = out.lines.split_off(above);

    // If not everything fits, remarks are left out first, then processes, but never the settings to make.
    let room = rows.saturating_sub(out.lines.len() + below.len());
    let (to_set, remarks) = advice(context.findings, columns);
    let mut table = Lines::default();
    let mut processes = Vec::new();
    // The heading, a process, and the numbers of the other processes and of the remarks.
    if room >= to_set.lines.len() + 4 {
        if rows > 15 {
            table.add(None, "processes (memory in MiB, CPU in % of one CPU)".to_owned());
        }
        table.add(Some(Ink::Bold), table::heading(columns));
        processes = table::processes(evidence, columns);
    }
    let wanted = room.saturating_sub(table.lines.len() + processes.len() + 1);
    let found = with_remarks(to_set, remarks, wanted);
    let space = room.saturating_sub(table.lines.len() + found.lines.len());
    table.lines.extend(fitting(processes, space));
    if table.lines.len() + found.lines.len() < room {
        table.add(None, String::new());
    }
    out.lines.append(&mut table.lines);
    out.lines.truncate(rows.saturating_sub(below.len() + found.lines.len()));
    out.lines.extend(found.lines);
    out.lines.truncate(rows.saturating_sub(below.len()));
    out.lines.append(&mut below);
    out.lines.truncate(rows.max(1));
    out.lines
        .into_iter()
        .map(|(ink, line)| {
            let line = spelled(line, context.ascii_only).chars().take(columns).collect();
            painted(line, ink, context.colors)
        })
        .collect()
}

/// Adds the remarks that fit into `max_lines` lines, or how many are left for the summary.
fn with_remarks(mut found: Lines, remarks: Vec<Vec<String>>, max_lines: usize) -> Lines {
    let count = remarks.len();
    for (index, remark) in remarks.into_iter().enumerate() {
        let is_last = index + 1 == count;
        if found.lines.len() + remark.len() + usize::from(!is_last) > max_lines {
            found.add(
                None,
                format!(
                    "  ({} in the final summary)",
                    counted((count - index) as u64, "more remark", "more remarks")
                ),
            );
            break;
        }
        found.lines.extend(remark.into_iter().map(|line| (None, line)));
    }
    found
}

/// The processes that fit, workers first, and the number of the others.
fn fitting(mut processes: Vec<String>, room: usize) -> Vec<(Option<Ink>, String)> {
    if processes.len() > room {
        let more = processes.len() - room.saturating_sub(1);
        processes.truncate(room.saturating_sub(1));
        if room > 0 {
            processes.push(format!("    and {more} more"));
        }
    }
    processes.into_iter().map(|line| (None, line)).collect()
}

/// Memory, CPU, pressure, recycles.
fn overview(out: &mut Lines, evidence: &Evidence, columns: usize, ascii_only: bool) {
    let last = evidence.last();
    let mut memory = size(last.memory);
    if last.memory_limit > 0 {
        let share = number(last.memory) * 100.0 / number(last.memory_limit);
        let _ = write!(memory, " of {} ({share:.0}%)", gib(last.memory_limit));
    }
    let _ = write!(memory, ", peak {}", size(evidence.memory_peak));
    if let Some(available) = last.memory_available {
        let _ = write!(memory, ", {} available on the host", gib(available));
    }
    out.row("memory", &memory, columns);
    let mut limit = String::new();
    if last.memory_limit > 0 {
        limit = format!("  limit: {}", last.memory_limit_source);
    }
    // Next to the history, or above it.
    let mut width = columns.saturating_sub(LABEL + limit.chars().count());
    if width < MIN_MARKS {
        out.row("", &std::mem::take(&mut limit), columns);
        width = columns.saturating_sub(LABEL);
    }
    let history = sparkline(evidence.memory.items(), width.min(MAX_MARKS), ascii_only);
    out.add(None, format!("{:LABEL$}{history}{limit}", ""));
    out.row("CPU", &cpu(last), columns);
    out.row("queue", &queue(evidence), columns);
    let percent = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0}%"));
    let mut pressure = format!(
        "memory {}, CPU {}",
        percent(last.pressure_memory_percent),
        percent(last.pressure_cpu_percent)
    );
    if let Some(throttled) = last.throttled_percent.filter(|throttled| *throttled > 0.0) {
        let _ = write!(pressure, ", throttled by the CPU quota {throttled:.0}%");
    }
    if evidence.oom_kills > 0 {
        let _ = write!(pressure, ", OOM kills: {}", evidence.oom_kills);
    }
    out.row("pressure", &pressure, columns);
    out.row("recycles", &recycles(evidence), columns);
}

fn cpu(last: &Line) -> String {
    let cpus = |milli: u64| number(milli) / 1000.0;
    let mut text = format!("{:.2}", cpus(last.cpu_milli));
    if last.cpu_milli_limit > 0 {
        let _ = write!(text, " of {}", in_cpus(Cpus(last.cpu_milli_limit)));
    }
    if let Some(idle) = last.idle_milli {
        let _ = write!(text, ", {:.2} idle", cpus(idle));
    }
    text
}

/// The number of connections waiting to be accepted.
fn queue(evidence: &Evidence) -> String {
    let (last, epoch) = (evidence.last(), evidence.epoch());
    let Some(waiting) = last.accept_queue else {
        return "unknown: no listening TCP socket of the service is visible".to_owned();
    };
    let connections = counted(waiting, "connection", "connections");
    let mut text = format!("{connections} waiting, peak {}", epoch.totals.queue_peak);
    if let Some(dropped) = last.listen_drops.filter(|dropped| *dropped > 0) {
        let _ = write!(text, ", {dropped} dropped");
    }
    text
}

fn recycles(evidence: &Evidence) -> String {
    let mut text = evidence.recycles.to_string();
    if let Some(age) = evidence.recycle_age() {
        let _ = write!(text, " at a median age of {}", duration(age));
    }
    match evidence.last().limit_max_requests {
        Some(0) => text.push_str(", no limit"),
        Some(limit) => {
            let _ = write!(text, ", limit {limit} requests");
        }
        None => {}
    }
    if evidence.restarts > 0 {
        let _ = write!(text, ", service restarts: {}", evidence.restarts);
    }
    text
}

/// The limits that are unknown, and why PSS is missing, if it is.
fn not_measured(out: &mut Lines, context: &Context<'_>, columns: usize) {
    let no_shares = context.no_shares.as_ref().map(|why| {
        format!(
            "PSS cannot be read ({why}): memory is shown as RSS, which counts shared pages more than once"
        )
    });
    for text in context.unknown_limits.iter().chain(&no_shares) {
        for line in wrapped(text, columns) {
            out.add(Some(Ink::Red), line);
        }
    }
}

/// The settings below their heading, and the lines of each remark.
fn advice(findings: &[Advice], columns: usize) -> (Lines, Vec<Vec<String>>) {
    let width = columns.saturating_sub(4).max(10);
    let mut out = Lines::default();
    let mut settings = settings(findings).peekable();
    let heading = if settings.peek().is_some() {
        "recommended settings for sizing.conf"
    } else if findings.iter().any(|finding| finding.topic == AdviceTopic::Evidence) || findings.is_empty() {
        "no advice yet"
    } else {
        "no changes recommended"
    };
    out.add(Some(Ink::Bold), heading.to_owned());
    for (line, finding) in settings {
        out.add(Some(Ink::Green), format!("  {line}"));
        for line in wrapped(&finding.reason, width) {
            out.add(None, format!("    {line}"));
        }
    }
    let remarks = remarks(findings).map(|remark| {
        let marks = std::iter::once("- ").chain(std::iter::repeat("  "));
        wrapped(remark, width).iter().zip(marks).map(|(line, mark)| format!("  {mark}{line}")).collect()
    });
    (out, remarks.collect())
}

/// A line for a sample, if no screen can be drawn.
pub(super) fn line(evidence: &Evidence) -> String {
    let last = evidence.last();
    let watched = duration(evidence.watched());
    let mut line = format!("{watched:>8}  {}  {}", workers(last.workers), size(last.memory));
    if last.memory_limit > 0 {
        let share = number(last.memory) * 100.0 / number(last.memory_limit);
        let _ = write!(line, " ({share:.0}%)");
    }
    let cpu = number(last.cpu_milli) / 1000.0;
    let _ = write!(line, "  CPU {cpu:.2}");
    if let Some(waiting) = last.accept_queue {
        let _ = write!(line, "  queue {waiting}");
    }
    let _ = write!(line, "  recycles {}", evidence.recycles);
    if evidence.restarts > 0 {
        let _ = write!(line, "  restarts {}", evidence.restarts);
    }
    line
}

/// The summary at the end.
pub(super) fn summary(evidence: &Evidence, context: &Context<'_>, columns: usize) -> String {
    let mut out = Lines::default();
    let (last, epoch) = (evidence.last(), evidence.epoch());
    let samples = counted(epoch.totals.samples, "sample", "samples");
    out.add(
        Some(Ink::Bold),
        format!("{}: watched for {}, {samples}", last.service, duration(evidence.watched())),
    );
    let mut memory = format!("peak {}", size(evidence.memory_peak));
    if last.memory_limit > 0 {
        let share = number(evidence.memory_peak) * 100.0 / number(last.memory_limit);
        let source = &last.memory_limit_source;
        let _ = write!(memory, ", {share:.0}% of {} (limit from {source})", gib(last.memory_limit));
    }
    out.row("memory", &memory, columns);
    if epoch.memory_samples > 0 {
        let (usual, peak) = (size(epoch.worker_memory), size(epoch.totals.worker_peak));
        let block = duration(evidence.block_length());
        let worker = format!("95th percentile {usual} in the busiest {block}, peak {peak}");
        out.row("worker", &worker, columns);
    }
    if let Some(growth) = evidence.growth() {
        out.row("growth", &format!("{} per worker", interval(&growth.all)), columns);
    }
    let cpu = format!("{:.1}% of a CPU per worker on average", epoch.mean_worker_cpu());
    out.row("CPU", &cpu, columns);
    out.row("queue", &queue(evidence), columns);
    out.row("recycles", &recycles(evidence), columns);
    let (to_set, remarks) = advice(context.findings, columns);
    out.lines.extend(with_remarks(to_set, remarks, usize::MAX).lines);
    not_measured(&mut out, context, columns);
    if let Some(cost) = context.cost {
        out.add(None, format!("watch used {cost:.2}% of a CPU"));
    }
    let mut text = String::new();
    for (ink, line) in out.lines {
        text.push_str(&painted(spelled(line, context.ascii_only), ink, context.colors));
        text.push('\n');
    }
    text
}

/// The text in ASCII, for terminals without other characters.
fn spelled(line: String, ascii_only: bool) -> String {
    if !ascii_only || line.is_ascii() {
        return line;
    }
    let mut text = String::with_capacity(line.len());
    for character in line.chars() {
        match character {
            '≥' => text.push_str(">="),
            '≤' => text.push_str("<="),
            '±' => text.push_str("+-"),
            other if other.is_ascii() => text.push(other),
            _ => text.push('?'),
        }
    }
    text
}

fn painted(line: String, ink: Option<Ink>, colors: bool) -> String {
    match ink {
        Some(ink) => page::painted(&line, ink, colors),
        None => line,
    }
}

#[cfg(test)]
mod tests;
