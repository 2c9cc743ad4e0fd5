//! The ledger for people: the screen, a line a sample, the summary at the end. Pure text.

use std::fmt::Write as _;

use pypnm_sizing::watch::advice::{Finding, Topic};
use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::history::sparkline;
use pypnm_sizing::watch::line::Process;
use pypnm_sizing::watch::text::{duration, gib, interval, mib, wrapped};
use pypnm_sizing::watch::trend::Slope;
use pypnm_sizing::watch::{MIB, number};

/// All that is shown beside the evidence.
pub(super) struct Context<'a> {
    /// Seconds between samples.
    pub(super) interval: f64,
    /// What was found so far.
    pub(super) findings: &'a [Finding],
    /// Why shares could not be read.
    pub(super) no_shares: Option<String>,
    /// Percent of one CPU that watching takes; `None`: not known yet.
    pub(super) cost: Option<f64>,
    /// Whether the terminal has block characters.
    pub(super) letters: bool,
    /// Whether colours may be used.
    pub(super) colours: bool,
}

/// How a line stands out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Advice,
    Warning,
}

struct Lines {
    lines: Vec<(Style, String)>,
}

impl Lines {
    fn add(&mut self, style: Style, line: String) {
        self.lines.push((style, line));
    }
}

/// The screen of `columns` × `rows`.
pub(super) fn screen(evidence: &Evidence, context: &Context<'_>, columns: usize, rows: usize) -> Vec<String> {
    let mut out = Lines { lines: Vec::new() };
    let last = evidence.last();
    let count = last.workers;
    let state = match count {
        0 => "DOWN, waiting for it".to_owned(),
        1 => "1 worker".to_owned(),
        _ => format!("{count} workers"),
    };
    let style = if count == 0 { Style::Warning } else { Style::Bold };
    out.add(
        style,
        format!(
            "{}: {state}   watched {} every {} s",
            last.service,
            duration(evidence.watched()),
            context.interval
        ),
    );
    overview(&mut out, evidence, columns, context.letters);
    let above = out.lines.len();
    if let Some(why) = &context.no_shares {
        out.add(Style::Warning, format!("PSS not readable ({why}): memory is RSS, shared pages count twice"));
    }
    let cost = context.cost.map_or_else(String::new, |cost| format!("watching costs {cost:.2} % of a CPU; "));
    let cost = format!("{cost}q or Ctrl-C ends with a summary");
    out.add(Style::Plain, cost);
    let mut below = out.lines.split_off(above);
    let mut table = Lines { lines: Vec::new() };
    if rows > 15 {
        table.add(Style::Plain, "processes (memory in MiB, CPU in % of one CPU)".to_owned());
    }
    table.add(Style::Bold, heading(columns));

    // Where all doesn't fit, remarks make room first, then processes; what is to be set stays.
    let room = rows.saturating_sub(out.lines.len() + below.len());
    let processes = processes(evidence, columns);
    let (to_set, remarks) = advice(context.findings, columns);
    let wanted = room.saturating_sub(table.lines.len() + processes.len() + 1);
    let found = with_remarks(to_set, remarks, wanted);
    let left = room.saturating_sub(table.lines.len() + found.lines.len());
    table.lines.extend(fitting(processes, left));
    if table.lines.len() + found.lines.len() < room {
        table.add(Style::Plain, String::new());
    }
    out.lines.append(&mut table.lines);
    out.lines.truncate(rows.saturating_sub(below.len() + found.lines.len()));
    out.lines.extend(found.lines);
    out.lines.truncate(rows.saturating_sub(below.len()));
    out.lines.append(&mut below);
    out.lines.truncate(rows.max(1));
    out.lines
        .into_iter()
        .map(|(style, line)| painted(style, &cut(&spelled(line, context.letters), columns), context.colours))
        .collect()
}

/// What is to be set, and as many whole remarks as fit into `most` lines; how many are left for the summary.
fn with_remarks(mut found: Lines, remarks: Vec<Vec<String>>, most: usize) -> Lines {
    let count = remarks.len();
    for (index, remark) in remarks.into_iter().enumerate() {
        let is_last = index + 1 == count;
        if found.lines.len() + remark.len() + usize::from(!is_last) > most {
            found.add(Style::Plain, format!("  - {} in the summary", remarks_left(count - index)));
            break;
        }
        found.lines.extend(remark.into_iter().map(|line| (Style::Plain, line)));
    }
    found
}

fn remarks_left(count: usize) -> String {
    if count == 1 { "1 remark".to_owned() } else { format!("{count} remarks") }
}

/// As many of the processes as there is room for, workers first; how many more there are.
fn fitting(mut processes: Vec<String>, room: usize) -> Vec<(Style, String)> {
    if processes.len() > room {
        let more = processes.len() - room.saturating_sub(1);
        processes.truncate(room.saturating_sub(1));
        if room > 0 {
            processes.push(format!("    and {more} more"));
        }
    }
    processes.into_iter().map(|line| (Style::Plain, line)).collect()
}

/// Memory, CPU, pressure, recycles.
fn overview(out: &mut Lines, evidence: &Evidence, columns: usize, letters: bool) {
    let last = evidence.last();
    let mut line = format!("memory    {}", mib(last.memory));
    if last.memory_limit > 0 {
        let share = number(last.memory) * 100.0 / number(last.memory_limit);
        let _ = write!(line, " of {} ({share:.0} %)", gib(last.memory_limit));
    }
    let _ = write!(line, ", peak {}", mib(evidence.memory_peak));
    if let Some(available) = last.memory_available {
        let _ = write!(line, ", host has {} left", gib(available));
    }
    let limit = format!("limit: {}", last.memory_limit_source);
    let points = evidence.memory.points();
    let fits = line.chars().count() + 2 + limit.chars().count() <= columns;
    let all = columns.saturating_sub(10).min(120);
    // Beside the history, which is a little shorter then, or above it.
    let beside = columns.saturating_sub(12 + limit.chars().count());
    if last.memory_limit > 0 && fits {
        let _ = write!(line, "  {limit}");
    }
    out.add(Style::Plain, line);
    let history = |width| sparkline(points, width, letters);
    if last.memory_limit == 0 || fits {
        out.add(Style::Plain, format!("          {}", history(all)));
    } else if beside >= 8 {
        out.add(Style::Plain, format!("          {}  {limit}", history(all.min(beside))));
    } else {
        out.add(Style::Plain, format!("          {limit}"));
        out.add(Style::Plain, format!("          {}", history(all)));
    }
    out.add(Style::Plain, cpu_line(evidence));
    out.add(Style::Plain, queue_line(evidence));
    let percent = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0} %"));
    let mut line = format!(
        "pressure  memory {}  CPU {}",
        percent(last.pressure_memory_percent),
        percent(last.pressure_cpu_percent)
    );
    if let Some(throttled) = last.throttled_percent.filter(|throttled| *throttled > 0.0) {
        let _ = write!(line, "  held back by the quota {throttled:.0} %");
    }
    if evidence.oom_kills > 0 {
        let _ = write!(line, "  killed for memory: {}", evidence.oom_kills);
    }
    out.add(Style::Plain, line);
    out.add(Style::Plain, recycle_line(evidence));
}

fn cpu_line(evidence: &Evidence) -> String {
    let cpus = |milli: u64| number(milli) / 1000.0;
    let last = evidence.last();
    let mut line = format!("CPU       {:.2}", cpus(last.cpu_milli));
    if last.cpu_milli_limit > 0 {
        let _ = write!(line, " of {} CPUs", cpus(last.cpu_milli_limit));
    }
    if let Some(idle) = last.idle_milli {
        let _ = write!(line, ", {:.2} idle", cpus(idle));
    }
    line
}

/// What waits to be accepted.
fn queue_line(evidence: &Evidence) -> String {
    let (last, epoch) = (evidence.last(), evidence.epoch());
    let Some(waiting) = last.accept_queue else {
        return "queue     unknown: the service's sockets can't be read".to_owned();
    };
    let connections = if waiting == 1 { "connection waits" } else { "connections wait" };
    let mut line = format!("queue     {waiting} {connections}, peak {}", epoch.queue_peak);
    if let Some(dropped) = last.listen_drops.filter(|dropped| *dropped > 0) {
        let _ = write!(line, ", {dropped} dropped");
    }
    line
}

fn recycle_line(evidence: &Evidence) -> String {
    let mut line = format!("recycles  {}", evidence.recycles);
    if let Some(age) = evidence.recycle_age() {
        let _ = write!(line, ", at an age of {}", duration(age));
    }
    match evidence.last().limit_max_requests {
        Some(0) => line.push_str("  limit: none"),
        Some(limit) => {
            let _ = write!(line, "  limit: {limit} requests");
        }
        None => {}
    }
    if evidence.restarts > 0 {
        let _ = write!(line, "  restarts of the service: {}", evidence.restarts);
    }
    line
}

/// A column: its heading, its width, and whether it goes early where the terminal is narrow.
const COLUMNS: [(&str, usize, u8); 9] = [
    ("PID", 7, 0),
    ("ROLE", 8, 4),
    ("RSS", 7, 0),
    ("PSS", 7, 2),
    ("USS", 7, 7),
    ("PEAK", 7, 6),
    ("GROWTH/h", 14, 3),
    ("CPU%", 6, 1),
    ("AGE", 10, 5),
];

/// The columns shown, by their places; what doesn't fit goes, the least important first.
fn shown(columns: usize) -> Vec<(usize, usize)> {
    let mut shown: Vec<(usize, usize, u8)> =
        COLUMNS.iter().enumerate().map(|(index, (_, width, rank))| (index, *width, *rank)).collect();
    while shown.iter().map(|(_, width, _)| width).sum::<usize>() > columns {
        let Some(least) = shown.iter().map(|(_, _, rank)| *rank).max().filter(|rank| *rank > 0) else {
            break;
        };
        shown.retain(|(_, _, rank)| *rank != least);
    }
    shown.into_iter().map(|(index, width, _)| (index, width)).collect()
}

fn row(columns: usize, cells: &[String; 9]) -> String {
    let cell = |(index, width)| cells.get(index).map(|cell| format!("{cell:>width$}"));
    shown(columns).into_iter().filter_map(cell).collect()
}

fn heading(columns: usize) -> String {
    row(columns, &COLUMNS.map(|(heading, _, _)| heading.to_owned()))
}

/// The processes, a line each: the workers, then the others.
fn processes(evidence: &Evidence, columns: usize) -> Vec<String> {
    let growth = |process: &Process| {
        let life = evidence.workers.iter().find(|life| life.is(process))?;
        life.growth.as_ref().map(growth_cell)
    };
    evidence.last().processes.iter().map(|process| row(columns, &cells(process, growth(process)))).collect()
}

fn cells(process: &Process, growth: Option<String>) -> [String; 9] {
    let mib = |bytes: u64| bytes.div_ceil(MIB).to_string();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        process.pid.to_string(),
        process.role.word().to_owned(),
        mib(process.rss),
        or_dash(process.pss.map(mib)),
        or_dash(process.uss.map(mib)),
        or_dash(process.peak_rss.map(mib)),
        or_dash(growth),
        or_dash(process.cpu_percent.map(|cpu| format!("{cpu:.0}"))),
        age(process.age_seconds),
    ]
}

/// `+12.3±4.5`, in MiB an hour.
fn growth_cell(growth: &Slope) -> String {
    let mib = |per_second: f64| per_second * 3600.0 / number(MIB);
    let half = mib(growth.high - growth.low) / 2.0;
    let digits = usize::from(half < 10.0 && mib(growth.per_second).abs() < 1000.0);
    if half.is_finite() {
        format!("{:+.digits$}±{half:.digits$}", mib(growth.per_second) + 0.0)
    } else {
        "?".to_owned()
    }
}

/// `1:02:11`, `2:11`, `3d 4h`.
fn age(seconds: f64) -> String {
    let seconds = pypnm_sizing::watch::whole(seconds);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{rest:02}"),
        1..48 => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{}d {}h", hours / 24, hours % 24),
    }
}

/// What to set, below its heading; and what else was found, the lines of each remark by themselves.
fn advice(findings: &[Finding], columns: usize) -> (Lines, Vec<Vec<String>>) {
    let width = columns.saturating_sub(4).max(10);
    let mut out = Lines { lines: Vec::new() };
    let mut set = findings.iter().filter(|finding| finding.line.is_some()).peekable();
    let heading = if set.peek().is_some() {
        "to set in sizing.conf"
    } else if findings.iter().any(|finding| finding.topic == Topic::Evidence) || findings.is_empty() {
        "nothing to say yet"
    } else {
        "nothing to set"
    };
    out.add(Style::Bold, heading.to_owned());
    for finding in set {
        out.add(Style::Advice, format!("  {}", finding.line.as_deref().unwrap_or_default()));
        for line in wrapped(&finding.reason, width) {
            out.add(Style::Plain, format!("    {line}"));
        }
    }
    let remarks = findings.iter().filter(|finding| finding.line.is_none()).map(|finding| {
        let marks = std::iter::once("- ").chain(std::iter::repeat("  "));
        wrapped(&finding.reason, width)
            .iter()
            .zip(marks)
            .map(|(line, mark)| format!("  {mark}{line}"))
            .collect()
    });
    (out, remarks.collect())
}

/// A line for a sample where no screen can be drawn.
pub(super) fn line(evidence: &Evidence) -> String {
    let last = evidence.last();
    let workers = if last.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", last.workers) };
    let mut line = format!("{:>8}  {workers}  {}", duration(evidence.watched()), mib(last.memory));
    if last.memory_limit > 0 {
        let share = number(last.memory) * 100.0 / number(last.memory_limit);
        let _ = write!(line, " ({share:.0} %)");
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

/// What there is to say at the end.
pub(super) fn summary(evidence: &Evidence, context: &Context<'_>, columns: usize) -> String {
    let mut out = Lines { lines: Vec::new() };
    let (last, epoch) = (evidence.last(), evidence.epoch());
    let samples =
        if epoch.samples == 1 { "1 sample".to_owned() } else { format!("{} samples", epoch.samples) };
    out.add(Style::Bold, format!("{}: watched {}, {samples}", last.service, duration(evidence.watched())));
    let mut line = format!("memory    peak {}", mib(evidence.memory_peak));
    if last.memory_limit > 0 {
        let share = number(evidence.memory_peak) * 100.0 / number(last.memory_limit);
        let _ = write!(line, ", {share:.0} % of {} ({})", gib(last.memory_limit), last.memory_limit_source);
    }
    out.add(Style::Plain, line);
    if epoch.memory_samples > 0 {
        let (usual, peak) = (mib(epoch.worker_memory), mib(epoch.worker_peak));
        out.add(
            Style::Plain,
            format!("worker    {usual} in 95 % of the busiest stretch, {peak} at its peak"),
        );
    }
    if let Some(growth) = evidence.growth() {
        out.add(Style::Plain, format!("growth    {} a worker", interval(&growth.all)));
    }
    let cpu = format!("CPU       {:.1} % of a CPU a worker on average", epoch.mean_worker_cpu());
    out.add(Style::Plain, cpu);
    out.add(Style::Plain, queue_line(evidence));
    out.add(Style::Plain, recycle_line(evidence));
    let (to_set, remarks) = advice(context.findings, columns);
    out.lines.extend(with_remarks(to_set, remarks, usize::MAX).lines);
    if let Some(why) = &context.no_shares {
        out.add(Style::Warning, format!("PSS not readable ({why}): memory is RSS, shared pages count twice"));
    }
    if let Some(cost) = context.cost {
        out.add(Style::Plain, format!("watching cost {cost:.2} % of a CPU"));
    }
    let mut text = String::new();
    for (style, line) in out.lines {
        text.push_str(&painted(style, &spelled(line, context.letters), context.colours));
        text.push('\n');
    }
    text
}

/// The text in ASCII where the terminal has nothing else.
fn spelled(line: String, letters: bool) -> String {
    if !letters || line.is_ascii() {
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

/// At most `columns` characters.
fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

fn painted(style: Style, line: &str, colours: bool) -> String {
    let code = match style {
        Style::Bold => "1",
        Style::Advice => "1;32",
        Style::Warning => "1;31",
        Style::Plain => return line.to_owned(),
    };
    if colours { format!("\x1b[{code}m{line}\x1b[0m") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Context, Evidence, Finding, MIB, Process, screen};
    use pypnm_sizing::watch::advice::Topic;
    use pypnm_sizing::watch::evidence::BLOCK;
    use pypnm_sizing::watch::line::Line;
    use pypnm_sizing::watch::role::Role;

    fn evidence(workers: u64) -> Evidence {
        let mut evidence = Evidence::new(BLOCK);
        for at in 1..50u32 {
            let process = |pid| Process {
                pid,
                role: if pid == 1 { Role::Parent } else { Role::Worker },
                age_seconds: f64::from(at),
                rss: 235 * MIB,
                pss: Some(170 * MIB),
                uss: Some(162 * MIB),
                peak_rss: Some(235 * MIB),
                cpu_ms: Some(u64::from(at) * 900),
                ..Process::default()
            };
            let line = Line {
                service: "pypnm.service".into(),
                workers,
                processes: (1..=workers + 1).map(process).collect(),
                memory: (workers + 1) * 170 * MIB,
                memory_limit: 8 << 30,
                memory_limit_source: "/sys/fs/cgroup/system.slice/pypnm.service/memory.max".into(),
                accept_queue: Some(2),
                ..Line::default()
            };
            evidence.take(line, f64::from(at), 1.0);
        }
        evidence.compute_growth();
        evidence
    }

    fn context(findings: &[Finding]) -> Context<'_> {
        Context { interval: 2.0, findings, no_shares: None, cost: Some(0.42), letters: false, colours: false }
    }

    fn finding(line: Option<&str>, word: &str) -> Finding {
        Finding {
            topic: Topic::Workers,
            line: line.map(str::to_owned),
            reason: format!("{word} ").repeat(30),
            time: None,
        }
    }

    #[test]
    fn a_screen_of_any_size() {
        let evidence = evidence(8);
        let findings = [finding(Some("MaxWorkers=6"), "set ≥"), finding(None, "one"), finding(None, "two")];
        let context = context(&findings);
        for columns in 1..140 {
            for rows in 1..50 {
                let shown = screen(&evidence, &context, columns, rows);
                assert!(shown.len() <= rows, "{columns}×{rows}: {} lines", shown.len());
                let widest = shown.iter().map(|line| line.chars().count()).max();
                assert!(widest <= Some(columns), "{columns}×{rows}: {widest:?} columns");
                let has = |text: &str| shown.iter().any(|line| line.contains(text));
                if columns >= 60 && rows >= 12 {
                    assert!(
                        has("MaxWorkers=6") && has("watching costs 0.42 %"),
                        "{columns}×{rows}: {shown:#?}"
                    );
                    assert!(columns < 72 || has("memory.max"), "{columns}×{rows}: {shown:#?}");
                }
            }
        }
    }

    #[test]
    fn eighty_by_twenty_four() {
        let all = evidence(8);
        let findings = [finding(None, "one"), finding(None, "two"), finding(None, "three")];
        let shown = screen(&all, &context(&findings), 80, 24);
        assert_eq!(shown.iter().filter(|line| line.contains(" worker ")).count(), 8, "{shown:#?}");
        assert!(shown.iter().any(|line| line == "  - 2 remarks in the summary"), "{shown:#?}");
        assert!(!shown.iter().any(|line| line.contains("two")), "whole remarks only: {shown:#?}");
        // More workers than rows.
        let shown = screen(&evidence(40), &context(&findings), 80, 24);
        assert!(
            shown.iter().any(|line| line.starts_with("    and ") && line.ends_with(" more")),
            "{shown:#?}"
        );
        assert!(shown.iter().any(|line| line == "nothing to set"), "{shown:#?}");
    }

    #[test]
    fn ascii_alone_where_the_terminal_has_nothing_else() {
        let findings = [finding(Some("MaxWorkers=6"), "≥ ≤ ± ü")];
        let context = Context { letters: true, ..context(&findings) };
        let shown = screen(&evidence(2), &context, 80, 24).join("\n");
        assert!(shown.is_ascii() && shown.contains(">= <= +- ?"), "{shown}");
    }
}
