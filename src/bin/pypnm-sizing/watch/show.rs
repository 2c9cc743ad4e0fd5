//! The ledger for people: the screen, a line a sample, the summary at the end. Pure text.

use std::fmt::Write as _;

use pypnm_sizing::watch::advice::{Finding, duration, gib, mib, per_hour, wrapped};
use pypnm_sizing::watch::history::sparkline;
use pypnm_sizing::watch::ledger::{Ledger, Process, Shares};
use pypnm_sizing::watch::slope::Slope;
use pypnm_sizing::watch::{MIB, number};

/// All that is shown beside the ledger.
pub(super) struct Context<'a> {
    /// What is watched.
    pub(super) name: &'a str,
    /// Seconds between samples.
    pub(super) interval: f64,
    /// Where the memory limit that binds stands.
    pub(super) memory_source: &'a str,
    /// The recycle limit in effect, where known.
    pub(super) limit_max_requests: Option<u32>,
    /// What was found so far.
    pub(super) findings: &'a [Finding],
    /// Why shares could not be read.
    pub(super) no_shares: Option<String>,
    /// Percent of one CPU that watching takes.
    pub(super) cost: f64,
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
pub(super) fn screen(ledger: &Ledger, context: &Context<'_>, columns: usize, rows: usize) -> Vec<String> {
    let mut out = Lines { lines: Vec::new() };
    let count = ledger.workers.len();
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
            context.name,
            duration(ledger.watched()),
            context.interval
        ),
    );
    overview(&mut out, ledger, context, columns);
    let above = out.lines.len();
    if let Some(why) = &context.no_shares {
        out.add(Style::Warning, format!("PSS not readable ({why}): memory is RSS, shared pages count twice"));
    }
    let cost = format!("watching costs {:.2} % of a CPU; q or Ctrl-C ends with a summary", context.cost);
    out.add(Style::Plain, cost);
    let mut below = out.lines.split_off(above);
    out.add(Style::Plain, "processes (memory in MiB, CPU in % of one CPU)".to_owned());
    out.add(Style::Bold, heading(columns));
    let mut found = Lines { lines: Vec::new() };
    let to_set = advice(&mut found, context.findings, columns);

    // Where all doesn't fit, the remarks below the lines to set make room first, down to one, then the processes,
    // then what is above and below.
    let mut room = rows.saturating_sub(out.lines.len() + below.len());
    let processes = table(ledger, columns);
    let least = found.lines.len().min(to_set + 1);
    let for_advice = room.saturating_sub(processes.len() + 1).clamp(least, found.lines.len().max(least));
    found.lines.truncate(for_advice.min(room));
    room -= found.lines.len();
    out.lines.extend(fitting(processes, room));
    room = rows.saturating_sub(out.lines.len() + found.lines.len() + below.len());
    if room > 0 {
        out.add(Style::Plain, String::new());
    }
    out.lines.append(&mut found.lines);
    out.lines.truncate(rows.saturating_sub(below.len()));
    out.lines.append(&mut below);
    out.lines.truncate(rows.max(1));
    out.lines
        .into_iter()
        .map(|(style, line)| painted(style, &cut(&spelled(line, context.letters), columns), context.colours))
        .collect()
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
fn overview(out: &mut Lines, ledger: &Ledger, context: &Context<'_>, columns: usize) {
    let bounds = ledger.bounds();
    let memory = ledger.memory_now();
    let mut line = format!("memory    {}", mib(memory));
    if bounds.memory > 0 {
        let share = number(memory) * 100.0 / number(bounds.memory);
        let _ = write!(line, " of {} ({share:.0} %)", gib(bounds.memory));
    }
    let _ = write!(line, ", peak {}", mib(ledger.memory_peak));
    let limit = format!("limit: {}", context.memory_source);
    let fits = bounds.memory > 0 && line.chars().count() + 2 + limit.chars().count() <= columns;
    if fits {
        let _ = write!(line, "  {limit}");
    }
    out.add(Style::Plain, line);
    if bounds.memory > 0 && !fits {
        out.add(Style::Plain, format!("          {limit}"));
    }
    let points = ledger.memory.points();
    let spark = sparkline(points, columns.saturating_sub(10).min(60), context.letters);
    if points.len() > 1 {
        out.add(Style::Plain, format!("          {spark}"));
    }
    out.add(Style::Plain, cpu_line(ledger));
    let rates = ledger.rates;
    let percent = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0} %"));
    let mut line =
        format!("pressure  memory {}  CPU {}", percent(rates.memory_stall), percent(rates.cpu_stall));
    if let Some(throttled) = rates.throttled.filter(|throttled| *throttled > 0.0) {
        let _ = write!(line, "  held back by the quota {throttled:.0} %");
    }
    if ledger.evidence.oom_kills > 0 {
        let _ = write!(line, "  killed for memory: {}", ledger.evidence.oom_kills);
    }
    out.add(Style::Plain, line);
    out.add(Style::Plain, recycle_line(ledger, context));
}

fn cpu_line(ledger: &Ledger) -> String {
    let cpus = |milli: u64| number(milli) / 1000.0;
    let rates = ledger.rates;
    let mut line = format!("CPU       {:.2}", cpus(rates.cpu));
    if ledger.bounds().cpu > 0 {
        let _ = write!(line, " of {} CPUs", cpus(ledger.bounds().cpu));
    }
    if let Some(idle) = rates.idle {
        let _ = write!(line, ", {:.2} idle", cpus(idle));
    }
    line
}

fn recycle_line(ledger: &Ledger, context: &Context<'_>) -> String {
    let mut line = format!("recycles  {}", ledger.recycles);
    if let Some(age) = ledger.recycle_interval() {
        let _ = write!(line, ", at an age of {}", duration(age));
    }
    match context.limit_max_requests {
        Some(0) => line.push_str("  limit: none"),
        Some(limit) => {
            let _ = write!(line, "  limit: {limit} requests");
        }
        None => {}
    }
    if ledger.restarts > 0 {
        let _ = write!(line, "  restarts of the service: {}", ledger.restarts);
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
fn table(ledger: &Ledger, columns: usize) -> Vec<String> {
    let workers = ledger.workers.iter().map(|life| {
        let growth = life.growth.as_ref().filter(|_| ledger.evidence.samples >= 30);
        cells(&life.now, life.shares, growth, life.cpu)
    });
    let others = ledger.companions.iter().map(|other| cells(&other.now, other.shares, None, other.cpu));
    workers.chain(others).map(|cells| row(columns, &cells)).collect()
}

fn cells(process: &Process, shares: Option<Shares>, growth: Option<&Slope>, cpu: Option<f64>) -> [String; 9] {
    let mib = |bytes: u64| bytes.div_ceil(MIB).to_string();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        process.pid.to_string(),
        process.role.word().to_owned(),
        mib(process.rss),
        or_dash(shares.map(|shares| mib(shares.pss))),
        or_dash(shares.map(|shares| mib(shares.uss))),
        or_dash(process.peak.map(mib)),
        or_dash(growth.map(growth_cell)),
        or_dash(cpu.map(|cpu| format!("{cpu:.0}"))),
        age(process.age),
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

/// What to set, and what else was found; the number of lines down to the last one to set.
fn advice(out: &mut Lines, findings: &[Finding], columns: usize) -> usize {
    let width = columns.saturating_sub(4).max(10);
    let mut set = findings.iter().filter(|finding| finding.line.is_some()).peekable();
    let heading = if set.peek().is_some() { "to set in sizing.conf" } else { "nothing to do" };
    out.add(Style::Bold, heading.to_owned());
    for finding in set {
        out.add(Style::Advice, format!("  {}", finding.line.as_deref().unwrap_or_default()));
        for line in wrapped(&finding.reason, width) {
            out.add(Style::Plain, format!("    {line}"));
        }
    }
    let to_set = out.lines.len();
    for finding in findings.iter().filter(|finding| finding.line.is_none()) {
        for (index, line) in wrapped(&finding.reason, width).into_iter().enumerate() {
            let mark = if index == 0 { "- " } else { "  " };
            out.add(Style::Plain, format!("  {mark}{line}"));
        }
    }
    to_set
}

/// A line for a sample where no screen can be drawn.
pub(super) fn line(ledger: &Ledger) -> String {
    let mut line = format!(
        "{:>8}  {} workers  {}",
        duration(ledger.watched()),
        ledger.workers.len(),
        mib(ledger.memory_now())
    );
    if ledger.bounds().memory > 0 {
        let share = number(ledger.memory_now()) * 100.0 / number(ledger.bounds().memory);
        let _ = write!(line, " ({share:.0} %)");
    }
    let cpu = number(ledger.rates.cpu) / 1000.0;
    let _ = write!(line, "  CPU {cpu:.2}  recycles {}", ledger.recycles);
    if ledger.restarts > 0 {
        let _ = write!(line, "  restarts {}", ledger.restarts);
    }
    line
}

/// What there is to say at the end.
pub(super) fn summary(ledger: &Ledger, context: &Context<'_>) -> String {
    let mut out = Lines { lines: Vec::new() };
    let head = format!(
        "{}: watched {}, {} samples",
        context.name,
        duration(ledger.watched()),
        ledger.evidence.samples
    );
    out.add(Style::Bold, head);
    let mut line = format!("memory    peak {}", mib(ledger.memory_peak));
    if ledger.bounds().memory > 0 {
        let share = number(ledger.memory_peak) * 100.0 / number(ledger.bounds().memory);
        let _ = write!(line, ", {share:.0} % of {} ({})", gib(ledger.bounds().memory), context.memory_source);
    }
    out.add(Style::Plain, line);
    if let Some(peak) = ledger.evidence.peaks.percentile(95) {
        let of = ledger.evidence.peaks.total();
        out.add(Style::Plain, format!("worker    95 % of {of} peaks under load up to {peak} MiB"));
    }
    if let Some(growth) = ledger.growth() {
        out.add(Style::Plain, format!("growth    {} a worker", per_hour(&growth.all)));
    }
    out.add(
        Style::Plain,
        format!("CPU       {:.1} % of a CPU a worker on average", ledger.mean_worker_cpu()),
    );
    out.add(Style::Plain, recycle_line(ledger, context));
    advice(&mut out, context.findings, 80);
    if let Some(why) = &context.no_shares {
        out.add(Style::Warning, format!("PSS not readable ({why}): memory is RSS, shared pages count twice"));
    }
    out.add(Style::Plain, format!("watching cost {:.2} % of a CPU", context.cost));
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
