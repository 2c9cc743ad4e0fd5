//! Why a file could not be read.

use std::fmt;

use rustix::io::Errno;

use super::MAX_FILE_BYTES;
use crate::trust::Untrusted;

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It does not exist.
    Missing,
    /// A symbolic link along the path leads to nothing. Reported only where trust is requested; otherwise it is missing.
    Dangling,
    /// It is a directory.
    Directory,
    /// It is a FIFO, a socket or a device.
    NotAFile,
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge,
    /// The files read so far are too large in total.
    TooMuch,
    /// A mountinfo has more lines than are read, or than are kept about cgroups.
    TooManyMounts,
    /// It is not UTF-8.
    NotText,
    /// A mountinfo without lines, or with a line that ends before its last field. The other lines have been read.
    Incomplete,
    /// The path leads onto a file system of this type, which may never answer.
    Remote(String),
    /// A user other than root could have written it, or redirected the path to it.
    Untrusted(Box<Untrusted>),
    /// Any other error that the kernel reports.
    Os(Errno),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Dangling => f.write_str("a symbolic link leads to a file that does not exist"),
            Self::Directory => f.write_str("it is a directory, not a file"),
            Self::NotAFile => f.write_str("it is not a regular file"),
            Self::TooMuch => f.write_str("the files read before it are too large in total"),
            Self::TooManyMounts => f.write_str("it has more mounts than are read"),
            Self::TooLarge => write!(f, "it is larger than {} MiB", MAX_FILE_BYTES >> 20),
            Self::NotText => f.write_str("it is not UTF-8 text"),
            Self::Incomplete => f.write_str("it is empty, or has a line that is cut off"),
            Self::Remote(kind) => {
                write!(f, "skipped: the path leads to a mount of type {kind}, which might block PID 1")
            }
            Self::Untrusted(untrusted) => write!(f, "not trusted: {untrusted}"),
            Self::Os(errno) => write!(f, "{}", std::io::Error::from(*errno)),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::ISDIR => Self::Directory,
            other => Self::Os(other),
        }
    }
}

impl From<Untrusted> for ReadError {
    fn from(untrusted: Untrusted) -> Self {
        Self::Untrusted(Box::new(untrusted))
    }
}
