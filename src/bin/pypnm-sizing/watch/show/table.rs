//! The table of processes on the screen, and which columns are omitted on a narrow terminal.

use pypnm_sizing::watch::evidence::Evidence;
use pypnm_sizing::watch::line::ProcessSample;
use pypnm_sizing::watch::trend::Slope;
use pypnm_sizing::watch::{MIB, number};

/// A column: its heading, its width, and whether it is omitted early on a narrow terminal.
const COLUMNS: [(&str, usize, u8); 9] = [
    ("PID", 7, 0),
    (ROLE, 9, 4),
    ("RSS", 7, 0),
    ("PSS", 7, 2),
    ("USS", 7, 7),
    ("PEAK", 7, 6),
    ("GROWTH/h", 14, 3),
    ("CPU%", 6, 1),
    ("AGE", 10, 5),
];

/// The only column of text: it is aligned to the left.
const ROLE: &str = "ROLE";

/// The columns to show, with their indexes. If not all fit, the least important are omitted first.
fn shown(columns: usize) -> Vec<(usize, &'static str, usize)> {
    let mut ranks: Vec<u8> = COLUMNS.iter().map(|(_, _, rank)| *rank).collect();
    ranks.sort_unstable();
    let up_to = |most: u8| COLUMNS.iter().enumerate().filter(move |(_, (_, _, rank))| *rank <= most);
    let fits = |most: &u8| up_to(*most).map(|(_, (_, width, _))| width).sum::<usize>() <= columns;
    let most = ranks.into_iter().rev().find(fits).unwrap_or(0);
    up_to(most).map(|(index, (heading, width, _))| (index, *heading, *width)).collect()
}

fn row(columns: usize, cells: &[String; 9]) -> String {
    let cell = |(index, heading, width)| {
        let cell = cells.get(index)?;
        Some(if heading == ROLE { format!("  {cell:<0$}", width - 2) } else { format!("{cell:>width$}") })
    };
    shown(columns).into_iter().filter_map(cell).collect()
}

/// The headings of the columns.
pub(super) fn heading(columns: usize) -> String {
    row(columns, &COLUMNS.map(|(heading, _, _)| heading.to_owned()))
}

/// One line per process: first the workers, then the others.
pub(super) fn processes(evidence: &Evidence, columns: usize) -> Vec<String> {
    let growth = |process: &ProcessSample| {
        let life = evidence.workers.iter().find(|life| life.is(process))?;
        life.growth.as_ref().map(growth_cell)
    };
    evidence.last().processes.iter().map(|process| row(columns, &cells(process, growth(process)))).collect()
}

fn cells(process: &ProcessSample, growth: Option<String>) -> [String; 9] {
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

/// `+12.3±4.5`, in MiB per hour.
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
    let seconds = pypnm_sizing::watch::to_u64(seconds);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{rest:02}"),
        1..48 => format!("{hours}:{minutes:02}:{rest:02}"),
        _ => format!("{}d {}h", hours / 24, hours % 24),
    }
}
