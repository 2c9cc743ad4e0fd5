//! Reads recordings line by line, in bounded memory regardless of their length, and sorts the lines by time.
//!
//! The time of a line is that of the monotonic clock of its watch (`seconds`); the system clock (`unix_seconds`) determines
//! only when the watch began. Setting the system clock during a watch therefore has no effect. Lines that are slightly out of
//! order are sorted. If several recordings cover the same time, only one is used. Lines that are ignored are counted, with the
//! reason.

mod left_out;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pypnm_sizing::watch::days::Days;
use pypnm_sizing::watch::evidence::{BLOCK, Evidence};
use pypnm_sizing::watch::line::{LONGEST, Line, Unreadable};

use crate::watch::recorded_days;
use left_out::{LeftOut, UNITS};

/// Lines that are put in order: those of more than three days at a line each ten seconds.
const IN_ORDER: usize = 32_768;
/// Watches that are told apart.
const RUNS: usize = 256;
/// Seconds by which the beginning of a watch may seem to move while the calendar is being corrected.
const DRIFT: f64 = 5.0;
/// The same where lines are out of order: another watch may have begun as soon after.
const JITTER: f64 = 0.5;
/// Seconds between two lines of a watch, at the most, across which a calendar that jumped is recognised.
const ADJACENT: f64 = 3600.0;
/// The beginnings of compressed files: gzip, Zstandard, xz, bzip2, and what undoes them.
const COMPRESSED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "zcat"), (b"\x28\xb5\x2f\xfd", "zstdcat"), (b"\xfd7zXZ", "xzcat"), (b"BZh", "bzcat")];

/// What of the recordings is wanted.
pub(super) struct Wanted<'a> {
    pub(super) unit: Option<&'a str>,
    pub(super) since: Option<f64>,
    pub(super) until: Option<f64>,
}

/// All that was read of a unit.
pub(super) struct Recording {
    pub(super) evidence: Evidence,
    pub(super) days: Days,
    /// Seconds since 1970 at which the evidence's clock is 0.
    order: BTreeMap<(u64, usize, u64), Line>,
    emitted: f64,
    run: Option<usize>,
    last: Option<f64>,
    interval: f64,
}

/// Reads recordings into evidence.
pub(super) struct RecordingReader<'a> {
    wanted: Wanted<'a>,
    units: BTreeMap<String, Recording>,
    clocks: BTreeMap<String, Clock>,
    pub(super) left: LeftOut,
    /// Sentences about whole files.
    pub(super) files: Vec<String>,
    pub(super) lines: u64,
    sequence: u64,
}

/// One watch.
struct Run {
    boot: Option<String>,
    /// Where its clock began by the calendar, as last seen and as first seen.
    begins: f64,
    base: f64,
    /// The latest of its lines, on its own clock.
    latest: f64,
}

/// The watches of a unit.
#[derive(Default)]
struct Clock {
    runs: Vec<Run>,
    dropped: usize,
    before: Option<(usize, f64)>,
}

impl Clock {
    /// The watch that a line is of, and when it was taken. Second: whether the calendar has jumped.
    fn place(&mut self, line: &Line) -> Option<(usize, f64, bool)> {
        let unix = line.unix_seconds.filter(|unix| unix.is_finite());
        let Some(seconds) = line.seconds.filter(|seconds| seconds.is_finite()) else {
            return Some((0, unix?, false));
        };
        let begins = unix.map(|unix| unix - seconds);
        let same_boot = |run: &Run| run.boot.is_none() || line.boot_id.is_none() || run.boot == line.boot_id;
        let fits = |run: &Run| {
            let tolerance = if seconds > run.latest { DRIFT } else { JITTER };
            same_boot(run) && begins.is_none_or(|begins| (run.begins - begins).abs() <= tolerance)
        };
        let found = self.runs.iter().rposition(fits);
        let adjacent = self.before.filter(|(run, before)| {
            let is_known = self.runs.get(*run).is_some_and(same_boot);
            is_known && seconds > *before && seconds - before <= ADJACENT
        });
        let (index, jumped) = match (found, adjacent) {
            (Some(found), _) => (found, false),
            (None, Some((run, _))) => (run, true),
            (None, None) => {
                let begins = begins?;
                if self.runs.len() >= RUNS {
                    self.runs.remove(0);
                    self.dropped += 1;
                }
                self.runs.push(Run { boot: line.boot_id.clone(), begins, base: begins, latest: seconds });
                (self.runs.len() - 1, false)
            }
        };
        self.before = Some((index, seconds));
        let run = self.runs.get_mut(index)?;
        run.begins = begins.unwrap_or(run.begins);
        run.latest = run.latest.max(seconds);
        Some((index + self.dropped + 1, run.base + seconds, jumped))
    }
}

impl Recording {
    fn new() -> Self {
        Self {
            evidence: Evidence::new(BLOCK),
            days: Days::default(),
            order: BTreeMap::new(),
            emitted: f64::NEG_INFINITY,
            run: None,
            last: None,
            interval: 10.0,
        }
    }

    /// The oldest line that waits goes into the evidence.
    fn emit(&mut self, left: &mut LeftOut) {
        let Some(((at, run, _), line)) = self.order.pop_first() else {
            return;
        };
        let at = f64::from_bits(at);
        self.emitted = at;
        let since = self.last.map(|last| at - last);
        let is_same = self.run == Some(run);
        // Another watch of the same time: as long as the one goes on the other says nothing new.
        let until = (at + self.interval * 3.0).to_bits();
        let mut next = self.order.keys().take_while(|(at, _, _)| *at <= until);
        let goes_on = !is_same && next.any(|(_, run, _)| self.run == Some(*run));
        if goes_on && since.is_some_and(|since| since < self.interval * 2.0)
            || since.is_some_and(|since| since <= 0.0)
        {
            left.twice += 1;
            return;
        }
        let elapsed = match since.filter(|_| is_same) {
            // Lines are missing between them: what it says is of its own interval.
            Some(since) if since > (self.interval * 5.0).max(60.0) => self.interval,
            Some(since) => {
                self.interval = since;
                since
            }
            None => 0.0,
        };
        (self.last, self.run) = (Some(at), Some(run));
        let evidence = &mut self.evidence;
        let counts = (evidence.recycles, evidence.restarts, evidence.oom_kills);
        self.days.take(&line, at, elapsed, counts);
        evidence.take(line, at, elapsed);
    }
}

impl<'a> RecordingReader<'a> {
    pub(super) fn new(wanted: Wanted<'a>) -> Self {
        Self {
            wanted,
            units: BTreeMap::new(),
            clocks: BTreeMap::new(),
            left: LeftOut::default(),
            files: Vec::new(),
            lines: 0,
            sequence: 0,
        }
    }

    /// Reads all of the given directories and files, `-` being standard input.
    pub(super) fn read(&mut self, recordings: &[PathBuf]) -> anyhow::Result<()> {
        let mut files = Vec::new();
        for path in recordings {
            if path.as_os_str() == "-" {
                self.lines_of(&mut io::stdin().lock(), "standard input")?;
            } else if path.is_dir() {
                self.directory(path, &mut files)?;
            } else {
                files.push(path.clone());
            }
        }
        // In the order of their time, whatever order they are named in.
        let mut dated: Vec<(u64, PathBuf)> =
            files.into_iter().map(|path| (first_moment(&path).max(0.0).to_bits(), path)).collect();
        dated.sort();
        dated.dedup();
        for (_, path) in dated {
            let shown = path.display().to_string();
            let file = File::open(&path).with_context(|| format!("cannot open {shown}"))?;
            if !file.metadata().is_ok_and(|data| data.is_file()) && !is_pipe(&file) {
                bail!("{shown} is neither a file nor a directory");
            }
            self.lines_of(&mut BufReader::with_capacity(1 << 16, file), &shown)?;
        }
        for recording in self.units.values_mut() {
            while !recording.order.is_empty() {
                recording.emit(&mut self.left);
            }
        }
        Ok(())
    }

    /// The days in a directory, or in those of units below it.
    fn directory(&self, path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let mut add = |directory: &Path| -> anyhow::Result<()> {
            files.extend(recorded_days(directory)?.into_iter().map(|(path, _)| path));
            Ok(())
        };
        add(path)?;
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut below: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        below.sort();
        for directory in below {
            let name = directory.file_name().and_then(|name| name.to_str());
            if self.wanted.unit.is_none_or(|unit| name == Some(&unit.replace(' ', "-"))) {
                add(&directory)?;
            }
        }
        Ok(())
    }

    fn lines_of(&mut self, from: &mut impl BufRead, name: &str) -> anyhow::Result<()> {
        let begins = from.fill_buf().with_context(|| format!("cannot read {name}"))?;
        if begins.is_empty() {
            self.files.push(format!("{name} is empty"));
            return Ok(());
        }
        if let Some((_, program)) = COMPRESSED.iter().find(|(magic, _)| begins.starts_with(magic)) {
            self.files.push(format!(
                "{name} is compressed and was not read: {program} {name} | pypnm-sizing report -"
            ));
            return Ok(());
        }
        let (before, mut text) = (self.lines, Vec::new());
        loop {
            text.clear();
            let read = from.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut text);
            if read.with_context(|| format!("cannot read {name}"))? == 0 {
                break;
            }
            if text.last() != Some(&b'\n') && text.len() > LONGEST {
                from.skip_until(b'\n').with_context(|| format!("cannot read {name}"))?;
                self.left.long += 1;
                continue;
            }
            if !text.trim_ascii().is_empty() {
                self.line(text.trim_ascii());
            }
        }
        if self.lines == before {
            self.files.push(format!("{name} contains no usable samples"));
        }
        Ok(())
    }

    fn line(&mut self, text: &[u8]) {
        let line = match Line::parse(text) {
            Ok(line) => line,
            Err(Unreadable::Summary) => return,
            Err(Unreadable::NotJson) => {
                self.left.torn += 1;
                return;
            }
            Err(Unreadable::NotASample) => {
                self.left.foreign += 1;
                return;
            }
            Err(Unreadable::Schema(schema)) => {
                if self.left.schema.len() < 8 || self.left.schema.contains_key(&schema) {
                    *self.left.schema.entry(schema).or_default() += 1;
                }
                return;
            }
        };
        if self.wanted.unit.is_some_and(|unit| unit != line.service) {
            if self.left.other_units.len() < UNITS || self.left.other_units.contains_key(&line.service) {
                *self.left.other_units.entry(line.service).or_default() += 1;
            }
            return;
        }
        if !self.units.contains_key(&line.service) && self.units.len() >= UNITS {
            self.left.too_many_units += 1;
            return;
        }
        let clock = self.clocks.entry(line.service.clone()).or_default();
        let Some((run, at, jumped)) = clock.place(&line).filter(|(_, at, _)| *at >= 0.0) else {
            self.left.timeless += 1;
            return;
        };
        self.left.jumps += u64::from(jumped);
        self.lines += 1;
        if self.wanted.since.is_some_and(|since| at < since)
            || self.wanted.until.is_some_and(|until| at >= until)
        {
            return;
        }
        let recording = self.units.entry(line.service.clone()).or_insert_with(Recording::new);
        if at < recording.emitted {
            self.left.late += 1;
            return;
        }
        self.sequence += 1;
        // Of positive numbers the bits are in the order of the numbers.
        recording.order.insert((at.to_bits(), run, self.sequence), line);
        if recording.order.len() > IN_ORDER {
            recording.emit(&mut self.left);
        }
    }

    /// The recording of the unit that is wanted: the one named, else the first of `preferred` that was recorded, else the
    /// one with most samples. The others are counted.
    pub(super) fn choose(&mut self, preferred: &[&str]) -> Option<(String, Recording)> {
        let samples = |recording: &Recording| recording.evidence.epoch().samples;
        let by_name = self.wanted.unit.into_iter().chain(preferred.iter().copied());
        let named = by_name.into_iter().find(|unit| self.units.contains_key(*unit)).map(str::to_owned);
        let name = named.or_else(|| {
            self.units.iter().max_by_key(|(_, recording)| samples(recording)).map(|(name, _)| name.clone())
        })?;
        let chosen = self.units.remove(&name)?;
        for (other, recording) in &self.units {
            let lines = recording.days.hours.values().count() as u64;
            self.left.other_units.insert(other.clone(), lines);
        }
        Some((name, chosen))
    }
}

fn is_pipe(file: &File) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    file.metadata().is_ok_and(|data| data.file_type().is_fifo() || data.file_type().is_char_device())
}

/// The calendar's time of the first line that has one; 0 where none has, or it can't be read here.
fn first_moment(path: &Path) -> f64 {
    let Some(file) = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()))
    else {
        return 0.0;
    };
    let mut text = Vec::new();
    let mut from = BufReader::new(file.take(LONGEST as u64));
    for _ in 0..64 {
        text.clear();
        if !from.read_until(b'\n', &mut text).is_ok_and(|read| read > 0) {
            break;
        }
        if let Ok(line) = Line::parse(text.trim_ascii())
            && let Some(unix) = line.unix_seconds
        {
            return unix;
        }
    }
    0.0
}
