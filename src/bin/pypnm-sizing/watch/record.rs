//! Records a watch: `DIR/UNIT/YYYY-MM-DD.jsonl`, one line per sample, one file per day (UTC).
//!
//! A line is written completely, or not at all if the disk is full. If a power failure left a partial line, it is
//! terminated before the next one. The oldest days are deleted when the recordings exceed their maximum size. A
//! recorder locks the directory of its unit. Reads no recordings; `report` does.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use pypnm_sizing::watch::line::Line;
use pypnm_sizing::write::{Directory, WriteError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::output::remark;

/// The suffix of a day's file.
pub(crate) const EXTENSION: &str = "jsonl";

/// A unit's recordings.
pub(super) struct Recorder {
    path: PathBuf,
    directory: Directory,
    keep: u64,
    /// The lock, held as long as this process lives.
    _lock: File,
    open: Option<Day>,
    /// The maximum size in bytes.
    total: u64,
    /// The number of lines lost since the last one that was written.
    lost: u64,
}

/// The current file.
struct Day {
    name: String,
    file: File,
    identity: (u64, u64),
}

impl Recorder {
    /// Opens and locks the directory of a unit, and creates it if it is missing.
    pub(super) fn new(below: &Path, unit: &str, keep: u64) -> anyhow::Result<Self> {
        let path = below.join(unit.replace(' ', "-"));
        let directory = Directory::create(&path)?;
        let lock = directory.append(".lock")?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!("{}: another watch is already recording here", path.display()),
            Err(errno) => return Err(errno).with_context(|| format!("cannot lock {}/.lock", path.display())),
        }
        Ok(Self { path, directory, keep, _lock: lock, open: None, total: 0, lost: 0 })
    }

    /// Appends a line. If the disk is full, the line is lost, with a remark, but the recording continues.
    pub(super) fn append(&mut self, line: &Line) -> anyhow::Result<()> {
        let name = day(line.unix_seconds.unwrap_or(0.0));
        match self.write(&name, line) {
            Ok(()) => {
                if self.lost > 0 {
                    remark(&format!("recording again; samples lost: {}", self.lost));
                    self.lost = 0;
                }
                if self.total > self.keep {
                    self.keep_within(self.keep)?;
                }
            }
            Err(error) => {
                if self.lost == 0 {
                    remark(&format!(
                        "cannot record to {}/{name}: {error}; still trying",
                        self.path.display()
                    ));
                    // Deleting old days may make room.
                    let _ = self.keep_within(self.keep);
                }
                self.lost += 1;
                self.open = None;
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, line: &Line) -> io::Result<()> {
        let is_there = |day: &Day| {
            let there = fs::symlink_metadata(self.path.join(name));
            day.name == name && there.is_ok_and(|data| identity(&data) == day.identity)
        };
        if !self.open.as_ref().is_some_and(is_there) {
            let cause = |error: WriteError| error.error;
            self.directory = Directory::create(&self.path).map_err(cause)?;
            self.open = Some(Day::open(self.directory.append(name).map_err(cause)?, name)?);
            self.keep_within(self.keep).map_err(io::Error::other)?;
        }
        let Some(day) = &mut self.open else { return Ok(()) };
        let before = day.file.metadata()?.len();
        let mut text = line.to_json();
        text.push('\n');
        day.file.write_all(text.as_bytes()).inspect_err(|_| {
            // A partial line is discarded.
            let _ = day.file.set_len(before);
        })?;
        self.total += text.len() as u64;
        Ok(())
    }

    /// Deletes the oldest days until at most `keep` bytes are left. If only one day is left, deletes its first half.
    fn keep_within(&mut self, keep: u64) -> anyhow::Result<()> {
        let days = days(&self.directory.pinned())?;
        let mut days: Vec<(OsString, u64)> =
            days.into_iter().filter_map(|(path, size)| Some((path.file_name()?.to_owned(), size))).collect();
        let mut total: u64 = days.iter().map(|(_, size)| size).sum();
        while total > keep && days.len() > 1 {
            let (name, size) = days.remove(0);
            self.directory.remove(name)?;
            total -= size;
        }
        self.total = total;
        if let Some((name, size)) = days.first().filter(|(_, size)| *size > keep) {
            self.open = None;
            self.total = keep / 2;
            let from = self.directory.append(name)?;
            let mode = from.metadata()?.permissions().mode() & 0o777;
            self.directory.replace_with(name, mode, |to| copy_end(from, *size, keep / 2, to))?;
        }
        Ok(())
    }
}

impl Day {
    fn open(mut file: File, name: &str) -> io::Result<Self> {
        let data = file.metadata()?;
        let mut last = [b'\n'];
        if data.len() > 0 {
            file.read_exact_at(&mut last, data.len() - 1)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self { name: name.to_owned(), identity: identity(&data), file })
    }
}

fn identity(data: &fs::Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

/// The recorded days in a directory with their sizes, the oldest first.
fn days(directory: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut days = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_day = path.extension().is_some_and(|extension| extension == EXTENSION);
        if let Ok(data) = entry.metadata()
            && is_day
            && data.is_file()
        {
            days.push((path, data.len()));
        }
    }
    days.sort();
    Ok(days)
}

/// Copies the complete lines in the last `keep` bytes of a file of `size` bytes.
fn copy_end(from: File, size: u64, keep: u64, to: &mut File) -> io::Result<()> {
    let mut from = BufReader::new(from);
    from.seek(SeekFrom::Start(size.saturating_sub(keep)))?;
    from.skip_until(b'\n')?;
    io::copy(&mut from.take(keep), to).map(drop)
}

/// The file name of a day, from seconds since 1970.
fn day(unix_seconds: f64) -> String {
    let moment =
        jiff::Timestamp::from_second(pypnm_sizing::watch::to_u64(unix_seconds.floor()).cast_signed());
    let date = moment.unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC).date();
    format!("{date}.{EXTENSION}")
}

#[cfg(test)]
mod tests {
    use super::{Line, Recorder, day, days};
    use std::fs;

    fn line(unix_seconds: f64) -> Line {
        Line { unix_seconds: Some(unix_seconds), service: "x".repeat(200), schema: 1, ..Line::default() }
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
    }

    fn append(recorder: &mut Recorder, line: &Line) {
        recorder.append(line).unwrap_or_else(|error| panic!("{error}"));
    }

    fn recorder(dir: &tempfile::TempDir, keep: u64) -> Recorder {
        Recorder::new(dir.path(), "pypnm.service", keep).unwrap_or_else(|error| panic!("{error}"))
    }

    fn text(dir: &tempfile::TempDir, day: &str) -> String {
        fs::read_to_string(dir.path().join("pypnm.service").join(day)).unwrap_or_default()
    }

    #[test]
    fn a_file_a_day_and_the_oldest_go() {
        assert_eq!(day(1_764_201_599.9), "2025-11-26.jsonl");
        assert_eq!(day(1_764_201_600.0), "2025-11-27.jsonl");
        let dir = directory();
        let mut recorder = recorder(&dir, 8000);
        for n in 0..20u32 {
            append(&mut recorder, &line(1_764_201_600.0 + f64::from(n) * 43_200.0));
        }
        let kept = days(&dir.path().join("pypnm.service")).unwrap_or_default();
        let total: u64 = kept.iter().map(|(_, size)| size).sum();
        assert!(total <= 8000 && kept.len() >= 2, "{kept:?}");
        assert!(kept.last().is_some_and(|(path, _)| path.ends_with("2025-12-06.jsonl")), "{kept:?}");
    }

    #[test]
    fn a_single_day_is_shortened_to_whole_lines() {
        let dir = directory();
        let mut recorder = recorder(&dir, 50_000);
        for n in 0..2000u32 {
            append(&mut recorder, &line(1_764_201_600.0 + f64::from(n)));
        }
        let text = text(&dir, "2025-11-27.jsonl");
        assert!(text.len() <= 50_000, "{}", text.len());
        assert!(text.lines().all(|line| Line::parse(line.as_bytes()).is_ok()));
        assert!(text.contains("\"unix_seconds\":1764203599.0"), "the last is there");
    }

    #[test]
    fn torn_lines_deleted_files_and_a_clock_set_back() {
        let dir = directory();
        let path = dir.path().join("pypnm.service/2025-11-27.jsonl");
        append(&mut recorder(&dir, 1 << 20), &line(1_764_201_600.0));
        let torn = text(&dir, "2025-11-27.jsonl").trim_end().get(..40).unwrap_or_default().to_owned();
        fs::write(&path, &torn).unwrap_or_else(|error| panic!("{error}"));
        let mut recorder = recorder(&dir, 1 << 20);
        append(&mut recorder, &line(1_764_201_700.0));
        let text_now = text(&dir, "2025-11-27.jsonl");
        assert_eq!(
            text_now.lines().map(|l| Line::parse(l.as_bytes()).is_ok()).collect::<Vec<_>>(),
            [false, true]
        );
        fs::remove_file(&path).unwrap_or_else(|error| panic!("{error}"));
        append(&mut recorder, &line(1_764_201_701.0));
        append(&mut recorder, &line(1_764_100_000.0));
        assert_eq!(text(&dir, "2025-11-27.jsonl").lines().count(), 1);
        assert_eq!(text(&dir, "2025-11-25.jsonl").lines().count(), 1, "by the calendar, wherever it is");
    }

    #[test]
    fn two_recorders_at_once_are_one_too_many() {
        let dir = directory();
        let first = recorder(&dir, 1 << 20);
        let second = Recorder::new(dir.path(), "pypnm.service", 1 << 20).map(|_| ());
        assert!(
            second.is_err_and(|error| error.to_string().contains("another watch is already recording here"))
        );
        drop(first);
        assert!(Recorder::new(dir.path(), "pypnm.service", 1 << 20).is_ok());
    }
}
