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
    let mut table = Lines { lines: Vec::new() };
    if rows > 15 {
        table.add(Style::Plain, "processes (memory in MiB, CPU in % of one CPU)".to_owned());
    }
    table.add(Style::Bold, heading(columns));

    // Where all doesn't fit, remarks make room first, then processes; what is to be set stays.
    let room = rows.saturating_sub(out.lines.len() + below.len());
    let processes = processes(ledger, columns);
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
    let points = ledger.memory.points();
    let fits = line.chars().count() + 2 + limit.chars().count() <= columns;
    let all = columns.saturating_sub(10).min(60);
    // Beside the history, which is a little shorter then, or above it.
    let beside = columns.saturating_sub(12 + limit.chars().count());
    if bounds.memory > 0 && fits {
        let _ = write!(line, "  {limit}");
    }
    out.add(Style::Plain, line);
    let history = |width| sparkline(points, width, context.letters);
    if bounds.memory == 0 || fits {
        out.add(Style::Plain, format!("          {}", history(all)));
    } else if beside >= 8 {
        out.add(Style::Plain, format!("          {}  {limit}", history(all.min(beside))));
    } else {
        out.add(Style::Plain, format!("          {limit}"));
        out.add(Style::Plain, format!("          {}", history(all)));
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
fn processes(ledger: &Ledger, columns: usize) -> Vec<String> {
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

/// What to set, below its heading; and what else was found, the lines of each remark by themselves.
fn advice(findings: &[Finding], columns: usize) -> (Lines, Vec<Vec<String>>) {
    let width = columns.saturating_sub(4).max(10);
    let mut out = Lines { lines: Vec::new() };
    let mut set = findings.iter().filter(|finding| finding.line.is_some()).peekable();
    let heading = if set.peek().is_some() { "to set in sizing.conf" } else { "nothing to do" };
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
    let (to_set, remarks) = advice(context.findings, 80);
    out.lines.extend(with_remarks(to_set, remarks, usize::MAX).lines);
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

#[cfg(test)]
mod tests {
    use super::{Context, Finding, Ledger, MIB, Process, screen};
    use pypnm_sizing::watch::advice::Topic;
    use pypnm_sizing::watch::ledger::{Bounds, ENOUGH, Sample, Shares};
    use pypnm_sizing::watch::role::Role;

    fn ledger(workers: u32) -> Ledger {
        let mut ledger = Ledger::new(Bounds { cpu: 2000, memory: 8 << 30 }, ENOUGH);
        for at in 1..50u32 {
            let process = |pid| Process {
                pid,
                started: 1,
                role: if pid == 1 { Role::Parent } else { Role::Worker },
                age: f64::from(at),
                rss: 235 * MIB,
                shares: Some(Shares { pss: 170 * MIB, uss: 162 * MIB }),
                peak: Some(235 * MIB),
                cpu_ms: u64::from(at) * 900,
            };
            let processes = (1..=workers + 1).map(process).collect();
            ledger.take(Sample { at: f64::from(at), processes, ..Sample::default() });
        }
        ledger.reckon_growth();
        ledger
    }

    fn context(findings: &[Finding]) -> Context<'_> {
        Context {
            name: "pypnm.service",
            interval: 2.0,
            memory_source: "/sys/fs/cgroup/system.slice/pypnm.service/memory.max",
            limit_max_requests: Some(2000),
            findings,
            no_shares: None,
            cost: 0.42,
            letters: false,
            colours: false,
        }
    }

    fn finding(line: Option<&str>, word: &str) -> Finding {
        Finding {
            topic: Topic::Workers,
            line: line.map(str::to_owned),
            reason: format!("{word} ").repeat(30),
        }
    }

    #[test]
    fn a_screen_of_any_size() {
        let ledger = ledger(8);
        let findings = [finding(Some("MaxWorkers=6"), "set ≥"), finding(None, "one"), finding(None, "two")];
        let context = context(&findings);
        for columns in 1..140 {
            for rows in 1..50 {
                let shown = screen(&ledger, &context, columns, rows);
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
        let all = ledger(8);
        let findings = [finding(None, "one"), finding(None, "two"), finding(None, "three")];
        let shown = screen(&all, &context(&findings), 80, 24);
        assert_eq!(shown.iter().filter(|line| line.contains(" worker ")).count(), 8, "{shown:#?}");
        assert!(shown.iter().any(|line| line == "  - 2 remarks in the summary"), "{shown:#?}");
        assert!(!shown.iter().any(|line| line.contains("two")), "whole remarks only: {shown:#?}");
        // More workers than rows.
        let shown = screen(&ledger(40), &context(&findings), 80, 24);
        assert!(
            shown.iter().any(|line| line.starts_with("    and ") && line.ends_with(" more")),
            "{shown:#?}"
        );
        assert!(shown.iter().any(|line| line == "nothing to do"), "{shown:#?}");
    }

    #[test]
    fn ascii_alone_where_the_terminal_has_nothing_else() {
        let findings = [finding(Some("MaxWorkers=6"), "≥ ≤ ± ü")];
        let context = Context { letters: true, ..context(&findings) };
        let shown = screen(&ledger(2), &context, 80, 24).join("\n");
        assert!(shown.is_ascii() && shown.contains(">= <= +- ?"), "{shown}");
    }
}
