//! The only place that writes: one file, replaced whole by a rename, or left as it was.
//!
//! The mode is set whatever the umask: a directory 0755, the file 0644, because somebody else reads both.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::{Mode, OFlags};

/// Why the file could not be written.
#[derive(Debug)]
pub struct WriteError {
    /// What was being done: `make the directory`, `write` …
    pub doing: &'static str,
    /// To which file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't {} {}: {}", self.doing, self.path.display(), self.error)
    }
}

impl std::error::Error for WriteError {}

/// Writes `text` to `dir/name`, whole or not at all. `dir` is made where it is missing, its parent is not.
pub fn replace(dir: &Path, name: &str, text: &str) -> Result<(), WriteError> {
    make_directory(dir)?;
    let path = dir.join(name);
    // A leading dot and no ".conf": systemd never takes it for a drop-in, should we be killed before the rename.
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let written = write_new(&temporary, text)
        .map_err(|e| failed("write", &temporary, e))
        .and_then(|()| rustix::fs::rename(&temporary, &path).map_err(|e| failed("put in place", &path, e)));
    if written.is_err() {
        // Nothing half-done stays; the error that counts is the one above.
        let _ = rustix::fs::unlink(&temporary);
    }
    written
}

/// Makes `dir` and whatever is missing above it.
pub fn make_directories(dir: &Path) -> Result<(), WriteError> {
    if dir.is_dir() {
        return Ok(());
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_directories(parent)?,
        _ => {}
    }
    make_directory(dir)
}

/// Makes `dir` where it is missing; one that is there keeps its mode.
fn make_directory(dir: &Path) -> Result<(), WriteError> {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdir(dir, mode) {
        Ok(()) => rustix::fs::chmod(dir, mode).map_err(|e| failed("open up", dir, e)),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("make the directory", dir, errno)),
    }
}

fn failed(doing: &'static str, path: &Path, errno: rustix::io::Errno) -> WriteError {
    WriteError { doing, path: path.to_owned(), error: errno.into() }
}

fn write_new(path: &Path, text: &str) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o644);
    // A new file of our own, never one that somebody laid there: what is left of a killed run goes first.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, mode) {
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlink(path)?;
            rustix::fs::open(path, flags, mode)?
        }
        opened => opened?,
    };
    rustix::fs::fchmod(&file, mode)?;
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(&file, rest) {
            Ok(0) => return Err(rustix::io::Errno::IO),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
