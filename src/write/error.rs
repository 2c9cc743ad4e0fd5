//! Why a file could not be written.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a file could not be written.
#[derive(Debug)]
pub struct WriteError {
    /// The operation that failed, as a verb: `create the directory`, `write` …
    pub doing: &'static str,
    /// The file or directory that it was applied to.
    pub path: PathBuf,
    /// The kernel's error.
    pub error: io::Error,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.error)
    }
}

impl std::error::Error for WriteError {}

pub(super) fn failed(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> WriteError {
    WriteError { doing, path: path.to_owned(), error: error.into() }
}
