//! Reads recordings line by line, in bounded memory regardless of their length, and sorts the lines by time.
//!
//! The time of a line is that of the monotonic clock of its watch (`seconds`); the system clock (`unix_seconds`) determines
//! only when the watch began. Setting the system clock during a watch therefore has no effect. Lines that are slightly out of
//! order are sorted. If several recordings cover the same time, only one is used. Lines that are ignored are counted, with the
//! reason.

mod files;
mod skipped;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use pypnm_sizing::watch::days::Days;
use pypnm_sizing::watch::evidence::{BLOCK, Evidence};
use pypnm_sizing::watch::line::{Line, MAX_LINE_BYTES, Unreadable};

use files::{BOM, Listing, first_moment, is_pipe, other_than_lines};
use skipped::{SCHEMAS, Skipped, UNITS};

/// The maximum number of lines waiting to be sorted, for all units: processes, plus three per line. This is more than
/// three days of four workers with a line every ten seconds.
const IN_ORDER: usize = 262_144;
/// The maximum number of bytes of a line that are skipped in search of its end: some devices have none.
const MAX_SKIPPED: u64 = 512 << 20;
/// The maximum number of watches that are distinguished.
const RUNS: usize = 256;
/// How far the beginning of a watch may seem to move while the wall clock is being corrected, in seconds.
const DRIFT: f64 = 5.0;
/// The same for lines that are out of order, because another watch may have begun soon after.
const JITTER: f64 = 0.5;
/// The maximum number of seconds between two lines of a watch across which a jump of the wall clock is recognized.
const ADJACENT: f64 = 3600.0;
/// A unit with fewer lines is dropped in favor of another one if it has not occurred in this number of lines.
const FEW_LINES: u64 = 16;
const UNSEEN_FOR: u64 = 100;

/// The requested part of the recordings.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    pub(super) unit: Option<&'a str>,
    /// Units that are always read, regardless of how many others there are: those that are sized.
    pub(super) preferred: Vec<&'a str>,
    pub(super) since: Option<f64>,
    pub(super) until: Option<f64>,
}

/// The recordings of a unit.
pub(super) struct Recording {
    pub(super) evidence: Evidence,
    pub(super) days: Days,
    clock: Clock,
    /// The lines waiting to be sorted, and their total weight.
    order: BTreeMap<(u64, usize, u64), Line>,
    waiting: usize,
    emitted: f64,
    run: Option<usize>,
    last: Option<f64>,
    interval: f64,
    /// The number of its lines, and the position of its last line among all lines.
    lines: u64,
    seen: u64,
}

/// Reads recordings into evidence.
#[derive(Default)]
pub(super) struct RecordingReader<'a> {
    wanted: Wanted<'a>,
    units: BTreeMap<String, Recording>,
    pub(super) skipped: Skipped,
    /// Sentences about entire files.
    pub(super) files: Vec<String>,
    pub(super) lines: u64,
    sequence: u64,
}

/// A watch.
struct WatchRun {
    boot: Option<String>,
    /// When its clock began in wall-clock time, according to its latest and its first line.
    begins: f64,
    base: f64,
    /// The time of its latest line, on its own clock.
    latest: f64,
}

/// The watches of a unit.
#[derive(Default)]
struct Clock {
    runs: Vec<WatchRun>,
    dropped: usize,
    before: Option<(usize, f64)>,
}

impl Clock {
    /// The watch that a line belongs to, and the time of the line. Also returns whether the wall clock jumped.
    fn assign(&mut self, line: &Line) -> Option<(usize, f64, bool)> {
        let unix = line.unix_seconds.filter(|unix| unix.is_finite());
        let Some(seconds) = line.seconds.filter(|seconds| seconds.is_finite()) else {
            return Some((0, unix?, false));
        };
        let begins = unix.map(|unix| unix - seconds);
        let same_boot =
            |run: &WatchRun| run.boot.is_none() || line.boot_id.is_none() || run.boot == line.boot_id;
        let fits = |run: &WatchRun| {
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
                self.runs.push(WatchRun {
                    boot: line.boot_id.clone(),
                    begins,
                    base: begins,
                    latest: seconds,
                });
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
            clock: Clock::default(),
            order: BTreeMap::new(),
            waiting: 0,
            emitted: f64::NEG_INFINITY,
            run: None,
            last: None,
            interval: 10.0,
            lines: 0,
            seen: 0,
        }
    }

    /// Adds the oldest waiting line to the evidence.
    fn emit(&mut self, skipped: &mut Skipped) {
        let Some(((at, run, _), line)) = self.order.pop_first() else {
            return;
        };
        self.waiting = self.waiting.saturating_sub(weight(&line));
        let at = f64::from_bits(at);
        self.emitted = at;
        let since = self.last.map(|last| at - last);
        let is_same = self.run == Some(run);
        // Another watch at the same time: it contains nothing new as long as the first one continues.
        let until = (at + self.interval * 3.0).to_bits();
        let mut next = self.order.keys().take_while(|(at, _, _)| *at <= until);
        let goes_on = !is_same && next.any(|(_, run, _)| self.run == Some(*run));
        if goes_on && since.is_some_and(|since| since < self.interval * 2.0)
            || since.is_some_and(|since| since <= 0.0)
        {
            skipped.twice += 1;
            return;
        }
        let elapsed = match since.filter(|_| is_same) {
            // Lines between the two are missing, so this line covers only its own interval.
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
        Self { wanted, ..Self::default() }
    }

    /// Reads all given directories and files; `-` is standard input.
    pub(super) fn read(&mut self, recordings: &[PathBuf]) -> anyhow::Result<()> {
        let mut listing = Listing::new(self.wanted.unit);
        for path in recordings {
            if path.as_os_str() == "-" {
                self.lines_of(&mut io::stdin().lock(), "standard input");
            } else if path.is_dir() {
                listing.directory(path)?;
            } else {
                listing.files.push(path.clone());
            }
        }
        self.files.append(&mut listing.problems);
        // In chronological order, regardless of the order on the command line.
        let mut dated: Vec<(u64, PathBuf)> =
            listing.files.into_iter().map(|path| (first_moment(&path).max(0.0).to_bits(), path)).collect();
        dated.sort();
        dated.dedup();
        for (_, path) in dated {
            let shown = path.display().to_string();
            let file = match File::open(&path) {
                Err(error) if !recordings.contains(&path) => {
                    self.files.push(format!("cannot open {shown}: {error}"));
                    continue;
                }
                opened => opened.with_context(|| format!("cannot open {shown}"))?,
            };
            if !file.metadata().is_ok_and(|data| data.is_file()) && !is_pipe(&file) {
                bail!("{shown} is neither a file nor a directory");
            }
            self.lines_of(&mut BufReader::with_capacity(1 << 16, file), &shown);
        }
        for recording in self.units.values_mut() {
            while !recording.order.is_empty() {
                recording.emit(&mut self.skipped);
            }
        }
        Ok(())
    }

    /// Reads lines until the end of the input or an error.
    fn lines_of(&mut self, from: &mut impl BufRead, name: &str) {
        if let Err(error) = self.read_lines(from, name) {
            self.files.push(format!("cannot read {name}: {error}"));
        }
    }

    fn read_lines(&mut self, from: &mut impl BufRead, name: &str) -> io::Result<()> {
        let begins = from.fill_buf()?;
        if begins.is_empty() {
            self.files.push(format!("{name} is empty"));
            return Ok(());
        }
        if let Some(what) = other_than_lines(begins, name) {
            self.files.push(what);
            return Ok(());
        }
        if begins.starts_with(BOM) {
            from.consume(BOM.len());
        }
        let (before, mut text) = (self.lines, Vec::new());
        loop {
            text.clear();
            if from.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.last() != Some(&b'\n') && text.len() > MAX_LINE_BYTES {
                let mut rest = from.by_ref().take(MAX_SKIPPED);
                rest.skip_until(b'\n')?;
                if rest.limit() == 0 {
                    self.files.push(format!("{name} contains an endless line and was read no further"));
                    return Ok(());
                }
                self.skipped.long += 1;
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
                self.skipped.torn += 1;
                return;
            }
            Err(Unreadable::NotASample) => {
                self.skipped.foreign += 1;
                return;
            }
            Err(Unreadable::Impossible) => {
                self.skipped.impossible += 1;
                return;
            }
            Err(Unreadable::Schema(schema)) => {
                self.skipped.schema += 1;
                if self.skipped.schemas.len() < SCHEMAS {
                    self.skipped.schemas.insert(schema);
                }
                return;
            }
        };
        if self.wanted.unit.is_some_and(|unit| unit != line.service) {
            if self.skipped.other_units.len() < UNITS {
                self.skipped.other_units.insert(line.service);
            }
            return;
        }
        self.sequence += 1;
        if !self.units.contains_key(&line.service) && !self.has_room(&line.service) {
            self.skipped.too_many_units += 1;
            return;
        }
        let recording = self.units.entry(line.service.clone()).or_insert_with(Recording::new);
        (recording.lines, recording.seen) = (recording.lines + 1, self.sequence);
        let Some((run, at, jumped)) = recording.clock.assign(&line).filter(|(_, at, _)| *at >= 0.0) else {
            self.skipped.timeless += 1;
            return;
        };
        self.skipped.jumps += u64::from(jumped);
        self.lines += 1;
        if self.wanted.since.is_some_and(|since| at < since)
            || self.wanted.until.is_some_and(|until| at >= until)
        {
            return;
        }
        if at < recording.emitted {
            self.skipped.late += 1;
            return;
        }
        recording.waiting += weight(&line);
        // The bits of positive numbers are in the same order as the numbers.
        recording.order.insert((at.to_bits(), run, self.sequence), line);
        while self.units.values().map(|recording| recording.waiting).sum::<usize>() > IN_ORDER {
            let Some(most) = self.units.values_mut().max_by_key(|recording| recording.waiting) else { break };
            most.emit(&mut self.skipped);
        }
    }

    /// Whether there is room for another unit: one that has few lines and has not occurred for a while is dropped.
    fn has_room(&mut self, unit: &str) -> bool {
        if self.units.len() < UNITS || self.wanted.preferred.contains(&unit) {
            return true;
        }
        let is_passing = |(name, recording): &(&String, &Recording)| {
            recording.lines < FEW_LINES
                && self.sequence - recording.seen > UNSEEN_FOR
                && !self.wanted.preferred.contains(&name.as_str())
        };
        let passing = self.units.iter().filter(is_passing).min_by_key(|(_, recording)| recording.lines);
        let Some(passing) = passing.map(|(name, _)| name.clone()) else { return false };
        let lines = self.units.remove(&passing).map_or(0, |recording| recording.lines);
        self.skipped.too_many_units += lines;
        true
    }

    /// The recording to report on: that of the named unit, or else of the first preferred unit that was recorded, or
    /// else the one with the most samples. The others are mentioned.
    pub(super) fn choose(&mut self) -> Option<(String, Recording)> {
        self.units.retain(|_, recording| recording.evidence.range().is_some());
        let samples = |recording: &Recording| recording.evidence.epoch().totals.samples;
        let mut by_name = self.wanted.unit.into_iter().chain(self.wanted.preferred.iter().copied());
        let named = by_name.find(|unit| self.units.contains_key(*unit)).map(str::to_owned);
        let name = named.or_else(|| {
            let most = self.units.iter().rev().max_by_key(|(_, recording)| samples(recording));
            most.map(|(name, _)| name.clone())
        })?;
        let chosen = self.units.remove(&name)?;
        self.skipped.other_units.extend(self.units.keys().cloned());
        Some((name, chosen))
    }
}

/// The weight of a waiting line.
fn weight(line: &Line) -> usize {
    line.processes.len() + 3
}
