//! Determines which files contain recordings, and which do not: compressed files, archives, JSON that is not in lines.
//! Opens files only to examine their first bytes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pypnm_sizing::watch::line::{Line, MAX_LINE_BYTES};

use crate::watch::EXTENSION;

/// The byte order mark that some editors write before UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of files that are not lines of text (offset, bytes), and the command that converts them.
const ENCODED: [(usize, &[u8], &str, &str); 11] = [
    (0, b"\x1f\x8b", "compressed", "zcat"),
    (0, b"\x1f\x9d", "compressed", "zcat"),
    (0, b"\x28\xb5\x2f\xfd", "compressed", "zstdcat"),
    (0, b"\xfd7zXZ", "compressed", "xzcat"),
    (0, b"BZh", "compressed", "bzcat"),
    (0, b"\x04\x22\x4d\x18", "compressed", "lz4cat"),
    (0, b"LZIP", "compressed", "lzip -dc"),
    (0, b"PK\x03\x04", "compressed", "unzip -p"),
    (257, b"ustar", "an archive", "tar -xOf"),
    (0, b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (0, b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8"),
];
/// Suffixes of compressed days, as created by logrotate(8) and similar programs.
const COMPRESSED: [&str; 6] = ["gz", "xz", "zst", "bz2", "lz4", "zip"];

/// A sentence about a file that is not lines of JSON, according to its first bytes; `None`: it may be.
pub(super) fn other_than_lines(begins: &[u8], name: &str) -> Option<String> {
    let is_encoded = |(at, magic, _, _): &&(usize, &[u8], _, _)| {
        begins.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, what, program)) = ENCODED.iter().find(is_encoded) {
        return Some(format!("{name} is {what} and was not read: {program} {name} | pypnm-sizing report -"));
    }
    let text = begins.strip_prefix(BOM).unwrap_or(begins).trim_ascii_start();
    let is_array = text.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"));
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_indented = first.trim_ascii() == b"{" && first.len() < text.len();
    let filter = match (is_array, is_indented) {
        (true, _) => "'.[]'",
        (_, true) => ".",
        _ => return None,
    };
    Some(format!(
        "{name} is JSON, but not a sample a line, and was not read: jq -c {filter} {name} | pypnm-sizing report -"
    ))
}

/// The files to read.
pub(super) struct Listing<'a> {
    unit: Option<&'a str>,
    pub(super) files: Vec<PathBuf>,
    /// Sentences about directories that could not be listed.
    pub(super) problems: Vec<String>,
}

impl<'a> Listing<'a> {
    /// An empty list. If there are directories of several units and `unit` is given, only that one is read.
    pub(super) fn new(unit: Option<&'a str>) -> Self {
        Self { unit, files: Vec::new(), problems: Vec::new() }
    }

    /// The days in a directory, or in those of units below it.
    pub(super) fn directory(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut below = self.days(path).with_context(|| format!("cannot read {}", path.display()))?;
        below.sort();
        for directory in below {
            let name = directory.file_name().and_then(|name| name.to_str());
            if self.unit.is_none_or(|unit| name == Some(&unit.replace(' ', "-")))
                && let Err(error) = self.days(&directory)
            {
                self.problems.push(format!("cannot read {}: {error}", directory.display()));
            }
        }
        Ok(())
    }

    /// Adds the days in a directory, and returns its subdirectories.
    fn days(&mut self, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut below = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let data = fs::metadata(&path);
            if !is_day(&path) {
                if data.is_ok_and(|data| data.is_dir()) {
                    below.push(path);
                }
            } else if data.is_ok_and(|data| data.is_file()) {
                self.files.push(path);
            } else {
                self.problems.push(format!("{} is not a file and was not read", path.display()));
            }
        }
        Ok(below)
    }
}

/// Whether a file name is that of a day, possibly a compressed one.
fn is_day(path: &Path) -> bool {
    let is_days = |path: &Path| path.extension().is_some_and(|extension| extension == EXTENSION);
    let is_compressed =
        path.extension().is_some_and(|extension| COMPRESSED.iter().any(|end| extension == *end));
    is_days(path) || is_compressed && path.file_stem().is_some_and(|stem| is_days(Path::new(stem)))
}

/// Whether it can be read to its end although it is not a regular file.
pub(super) fn is_pipe(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.file_type().is_fifo() || data.file_type().is_char_device())
}

/// The wall-clock time of the first line that has one; 0: none has, or it cannot be read. A pipe is not read, because
/// its contents would be lost.
pub(super) fn first_moment(path: &Path) -> f64 {
    if !fs::metadata(path).is_ok_and(|data| data.is_file()) {
        return 0.0;
    }
    let Ok(file) = File::open(path) else { return 0.0 };
    let mut text = Vec::new();
    let mut from = BufReader::new(file.take(MAX_LINE_BYTES as u64));
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
