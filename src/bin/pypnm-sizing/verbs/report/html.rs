//! The report as a self-contained HTML file with SVG plots. It uses no scripts, fonts or images from elsewhere, and a policy in
//! its head forbids them. Light and dark mode follow the reader's preference. Labels are outside the plots, so that they keep
//! their size on a narrow screen.

mod plot;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pypnm_sizing::watch::advice::{remarks, settings};
use pypnm_sizing::watch::days::{Column, Days, Hour};
use pypnm_sizing::watch::number;
use pypnm_sizing::watch::text::{clock_range, duration, gib, size};

use super::gathered::Gathered;
use super::text::{
    UNSEEN, begin, busiest, by_day, clock, covered, growth, is_too_little, memory, queue, shown, with_time,
};
use plot::{Plot, escaped};

/// The number of days in the chart of demand; the table contains all of them.
const PICTURED: usize = 62;
/// Colors for workers, readable on light and on dark.
const COLORS: [&str; 8] =
    ["#3b82c4", "#c2570c", "#3f9142", "#a83f8e", "#8a7a00", "#0f8f8f", "#7a5cc7", "#b83a3a"];

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2127; --dim: #5b6470; --paper: #ffffff; --line: #d7dbe0; --card: #f5f7f9;
  --accent: #1f6fb2; --limit: #b42318; --mark: rgb(214 158 46 / .22); --heat: 31 111 178; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --dim: #9aa4b1; --paper: #14171b; --line: #343a42;
  --card: #1d2127; --accent: #5aa9e6; --limit: #f0776c; --mark: rgb(236 190 80 / .2); --heat: 90 169 230; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .dim { color: var(--dim); } code { font-size: .95em; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--accent);
  border-radius: 6px; padding: .6rem .9rem; margin: .5rem 0; }
.card code { font-weight: 600; } ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
figure { margin: 1rem 0 1.6rem; } figcaption { font-weight: 600; }
figcaption span { font-weight: 400; color: var(--dim); }
.plot { display: grid; grid-template-columns: 4.5rem 1fr; gap: 0 .4rem; font-size: .8rem; color: var(--dim); }
.plot svg { width: 100%; height: 11rem; display: block; border: 1px solid var(--line); border-width: 0 0 1px 1px; }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; white-space: nowrap; }
.x { grid-column: 2; position: relative; height: 1.6em; white-space: nowrap; }
.x span { position: absolute; transform: translateX(-50%); } .x span.first { transform: none; }
.x span.last { transform: translateX(-100%); }
.plot path, .plot line { vector-effect: non-scaling-stroke; }
.heat { display: grid; grid-template-columns: 5rem repeat(24, minmax(0, 1fr)); gap: 1px; font-size: .75rem; color: var(--dim); }
.heat i { aspect-ratio: 1; min-height: .7rem; max-height: 1.4rem; width: 100%; border: 1px solid var(--line); }
.heat b { font-weight: 400; text-align: right; padding-right: .4rem; white-space: nowrap; }
.heat u { text-decoration: none; text-align: center; overflow: hidden; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: right; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } dt { color: var(--dim); } dd { margin: 0 0 .4rem; }
@media (max-width: 600px) { body { padding: .7rem; } .few { display: none; }
  .plot { grid-template-columns: 4.2rem 1fr; } .heat { grid-template-columns: 4.6rem repeat(24, minmax(0, 1fr)); gap: 0; font-size: .7rem; } }
@media print { body { max-width: none; } }
";

/// The page.
pub(super) fn page(gathered: &Gathered) -> String {
    let (evidence, days) = (&gathered.evidence, &gathered.days);
    let (from, until) = evidence.range().unwrap_or_default();
    let unit = escaped(&gathered.unit);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{unit}: evidence</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{unit}: watched for {}</h1>\n<p class=\"dim\">{}</p>\n",
        duration(evidence.watched()),
        escaped(&covered(evidence, from, until))
    );
    for problem in &gathered.problems {
        let _ = writeln!(out, "<p class=\"dim\">Note: {}.</p>", escaped(problem));
    }
    advice(&mut out, gathered);
    plots(&mut out, gathered);
    heat(&mut out, days);
    table(&mut out, days);
    let epoch = evidence.epoch();
    let _ = writeln!(out, "<h2>Measured</h2>\n<dl>");
    let cpu = format!("{:.1}% of a CPU per worker on average", epoch.mean_worker_cpu());
    for (what, text) in [
        ("Memory", memory(evidence, &epoch)),
        ("Growth", growth(evidence)),
        ("CPU", cpu),
        ("Queue", queue(evidence, &epoch)),
    ] {
        let _ = writeln!(out, "<dt>{what}</dt><dd>{}</dd>", escaped(&text));
    }
    let _ = writeln!(out, "</dl>\n<p class=\"dim\">{}</p>\n</body>\n</html>", escaped(UNSEEN));
    out
}

fn advice(out: &mut String, gathered: &Gathered) {
    let _ = writeln!(out, "<h2>Recommended settings</h2>");
    let mut any = false;
    for (line, finding) in settings(&gathered.findings) {
        any = true;
        let (line, reason) = (escaped(line), escaped(&with_time(finding)));
        let _ = writeln!(out, "<div class=\"card\"><code>{line}</code><p>{reason}</p></div>");
    }
    if any {
        let _ = writeln!(
            out,
            "<p>To adopt it: <code>pypnm-sizing report --adopt</code>, then <code>pypnm-sizing apply</code></p>"
        );
    } else {
        let nothing =
            if is_too_little(&gathered.findings) { "No advice yet." } else { "No changes recommended." };
        let _ = writeln!(out, "<p>{nothing}</p>");
    }
    let _ = writeln!(out, "<ul>");
    for remark in remarks(&gathered.findings).chain(gathered.before.as_deref()) {
        let _ = writeln!(out, "<li>{}</li>", escaped(remark));
    }
    let _ = writeln!(out, "</ul>");
}

fn plots(out: &mut String, gathered: &Gathered) {
    let (days, width) = (&gathered.days, gathered.days.width);
    let (from, until) = gathered.evidence.range().unwrap_or_default();
    let columns: Vec<(f64, &Column)> =
        days.columns.iter().map(|(index, column)| (at(*index, width), column)).collect();
    let highest =
        |of: &dyn Fn(&Column) -> f64| columns.iter().map(|(_, column)| of(column)).fold(0.0, f64::max);
    let marks: Vec<(f64, f64)> =
        settings(&gathered.findings).filter_map(|(_, finding)| finding.time).collect();
    let plot = |highest: f64| {
        let mut plot = Plot::new(from, until, highest);
        for (from, until) in &marks {
            plot.mark(*from, *until);
        }
        plot
    };
    let marked = if marks.is_empty() { "" } else { " Shaded: the time that the advice is based on." };
    let _ = writeln!(
        out,
        "<h2>Over time</h2>\n<p class=\"dim\">Each point covers {}.{marked}</p>",
        duration(width)
    );
    let gap = width * 2.5;

    let lives = || days.lives.values();
    let tallest =
        lives().flat_map(|life| life.columns.values()).map(|(_, highest)| *highest).fold(0.0, f64::max);
    let mut memory = plot(tallest);
    for (number, life) in lives().enumerate() {
        let color = COLORS.get(number % COLORS.len()).copied().unwrap_or("gray");
        memory.range(life.columns.iter().map(|(index, range)| (at(*index, width), *range)), color);
        memory.line(life.columns.iter().map(|(index, (mib, _))| (at(*index, width), *mib)), gap, color);
        if let Some((first, _)) =
            life.columns.first_key_value().filter(|(first, _)| at(**first, width) > from + width)
        {
            memory.tick(at(*first, width), color);
        }
    }
    memory.figure(
        out,
        "Memory of each worker",
        "the lowest value at each point; faint: up to the highest; a mark at the bottom: a worker was replaced",
        &|value| format!("{value} MiB"),
    );

    let of_gib = |bytes: u64| number(bytes) / number(1 << 30);
    let limit = highest(&|column| of_gib(column.memory_limit));
    let sum = highest(&|column| of_gib(column.memory));
    // A limit far above the values would flatten the plot.
    let is_near = limit > 0.0 && limit <= sum * 4.0;
    let mut memory = plot(if is_near { limit.max(sum) } else { sum });
    memory.bars(columns.iter().map(|(at, column)| (*at, of_gib(column.memory))), width, "var(--accent)");
    if is_near {
        memory.limit(limit);
    }
    let more = match (limit > 0.0, is_near) {
        (false, _) => "its limit is unknown".to_owned(),
        (true, true) => format!("dashed: the limit of {limit:.1} GiB"),
        (true, false) => format!("the limit is {limit:.1} GiB, far above"),
    };
    memory.figure(out, "Memory of the service", &more, &|value| format!("{value} GiB"));

    let used = |column: &Column| column.cpu / column.seconds.max(f64::MIN_POSITIVE);
    let (limit, most) = (highest(&|column| number(column.cpu_limit) / 1000.0), highest(&used));
    let mut cpu = plot(limit.max(most));
    cpu.bars(columns.iter().map(|(at, column)| (*at, used(column))), width, "var(--accent)");
    if limit > 0.0 {
        cpu.limit(limit);
    }
    cpu.figure(out, "CPUs used", "dashed: the limit", &|value| value.to_string());

    let queued = |column: &Column| number(column.queue.unwrap_or(0));
    if columns.iter().any(|(_, column)| column.queue.is_some()) {
        let mut queue = plot(highest(&queued).max(2.0));
        queue.bars(columns.iter().map(|(at, column)| (*at, queued(column))), width, "#c2570c");
        queue.figure(out, "Accept queue", "connections waiting to be accepted", &|value| value.to_string());
    } else {
        let _ = writeln!(out, "<p class=\"dim\">The accept queue was not recorded.</p>");
    }
    let pressed = highest(&|column| column.pressure);
    if pressed <= 0.0 {
        let _ = writeln!(out, "<p class=\"dim\">No task waited for memory.</p>");
        return;
    }
    let mut pressure = plot(pressed);
    pressure.bars(columns.iter().map(|(at, column)| (*at, column.pressure)), width, "var(--limit)");
    pressure.figure(
        out,
        "Memory pressure",
        "fraction of the time in which some task waited for memory",
        &|value| format!("{value}%"),
    );
}

/// The beginning of a column.
#[expect(clippy::cast_precision_loss, reason = "a column since 1970")]
fn at(index: i64, width: f64) -> f64 {
    index as f64 * width
}

/// An hour in the chart: its shade and its text.
type Cell = (f64, String);

/// The hours of the days: how much of each hour requests waited, or how busy the CPUs were.
fn heat(out: &mut String, days: &Days) {
    let most_waiting = days.hours.values().map(Hour::waiting_part).fold(0.0, f64::max);
    let most_cpu = days.hours.values().map(Hour::cpus).fold(f64::MIN_POSITIVE, f64::max);
    let by_waiting = most_waiting >= 0.01;
    let mut rows: BTreeMap<String, (f64, [Option<Cell>; 24])> = BTreeMap::new();
    for (hour, figures) in &days.hours {
        let at = begin(*hour);
        let row = rows.entry(shown(at, "%Y-%m-%d")).or_insert_with(|| (at, std::array::from_fn(|_| None)));
        let hour_of_day = shown(at, "%H").parse::<usize>().unwrap_or(0);
        let (waiting, cpu) = (figures.waiting_part(), figures.cpus());
        let level = if by_waiting { waiting / most_waiting } else { cpu / most_cpu };
        let title = format!(
            "{}: requests waited during {:.0}%, {cpu:.2} CPUs",
            clock_range(&clock, at, at + 3600.0),
            waiting * 100.0
        );
        if let Some(cell) = row.1.get_mut(hour_of_day) {
            *cell = Some((level, title));
        }
    }
    let what = if by_waiting {
        format!("fraction of the hour in which requests waited; darkest: {:.0}%", most_waiting * 100.0)
    } else {
        format!("requests almost never waited, so CPU use is shown; darkest: {most_cpu:.2} CPUs")
    };
    let _ = writeln!(
        out,
        "<h2>When it is busy</h2>\n<p class=\"dim\">Hour of the day by day: {what}. Empty: not watched.</p>\n<div class=\"heat\"><b></b>"
    );
    for hour in 0..24u32 {
        let _ = write!(out, "<u>{}</u>", if hour % 6 == 0 { hour.to_string() } else { String::new() });
    }
    let skipped = rows.len().saturating_sub(PICTURED);
    for (begins, cells) in rows.into_values().skip(skipped) {
        let _ = write!(out, "\n<b>{}</b>", escaped(&shown(begins, "%a %d %b")));
        for cell in cells {
            match cell {
                Some((level, title)) => {
                    let _ = write!(
                        out,
                        "<i style=\"background:rgb(var(--heat)/{:.2})\" title=\"{}\"></i>",
                        level.clamp(0.02, 1.0),
                        escaped(&title)
                    );
                }
                None => out.push_str("<i style=\"border-color:transparent\"></i>"),
            }
        }
    }
    let _ = writeln!(out, "\n</div>");
    if let Some((hour, figures)) = days.busiest() {
        let _ = writeln!(out, "<p>{}.</p>", escaped(&busiest(begin(hour), figures)));
    }
}

fn table(out: &mut String, days: &Days) {
    let _ = writeln!(
        out,
        "<h2>Day by day</h2>\n<div class=\"wide\"><table><tr><th>Day</th><th>Watched</th><th>Workers</th><th>Memory peak</th>\
         <th>Largest worker</th><th>CPUs</th><th>Waiting</th><th>Recycles</th><th>Restarts</th><th>Killed</th></tr>"
    );
    for (at, day) in by_day(days).into_values() {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.1}%</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&shown(at, "%a %d %b")),
            duration(day.seconds),
            day.workers,
            gib(day.memory_peak),
            size(day.worker_peak),
            day.cpus(),
            day.waiting_part() * 100.0,
            day.recycles,
            day.restarts,
            day.oom_kills
        );
    }
    let _ = writeln!(out, "</table></div>");
}
