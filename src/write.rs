//! The only place that writes: one file, replaced whole by a rename, or left as it was.
//!
//! The file appears under its name complete and with its mode, whatever the umask and whenever the program is killed; what a
//! killed run leaves is a file whose name begins with a dot and does not end in ".conf", which systemd never takes for a
//! drop-in. A directory that is made here is opened without following a link and used by its descriptor, so that nobody
//! who may rename it can lead root elsewhere.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::root::{ReadError, Root};

/// Other users read both.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// Not the file's own name, which may be as long as a name can be.
const TEMPORARY_PREFIX: &str = ".pypnm-sizing-";

/// Why the file could not be written.
#[derive(Debug)]
pub struct WriteError {
    /// What was being done: `create the directory`, `write` …
    pub doing: &'static str,
    /// To which file or directory.
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

fn failed(doing: &'static str, path: &Path, error: impl Into<io::Error>) -> WriteError {
    WriteError { doing, path: path.to_owned(), error: error.into() }
}

/// Writes `text` to `dir/name`, whole or not at all. `dir` is created where it is missing, its parent is not.
pub fn replace(dir: &Path, name: &str, text: &str) -> Result<(), WriteError> {
    let directory = create_directory(dir)?;
    let path = dir.join(name);
    // The directory that was opened, whatever its name leads to by now.
    let pinned = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let written = write_new(&pinned, text).map_err(|error| failed("write", &path, error))?;
    // What could not be put in place is removed again.
    written.persist(pinned.join(name)).map_err(|error| failed("replace", &path, error.error))?;
    Ok(())
}

fn write_new(dir: &Path, text: &str) -> io::Result<tempfile::NamedTempFile> {
    let mode = Permissions::from_mode(FILE_MODE);
    let mut file = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(dir)?;
    file.as_file().set_permissions(mode)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// Opens `dir` to use by its descriptor, and creates what is missing of it. Where others may write on the way, no link of
/// theirs is followed, and a directory that they put in the place of another is theirs to begin with.
pub fn open_directories(dir: &Path) -> Result<OwnedFd, WriteError> {
    let machine = Root::machine();
    let mut missing = Vec::new();
    let mut there = dir;
    let mut directory = loop {
        let path = if there.as_os_str().is_empty() { "." } else { there.to_str().unwrap_or_default() };
        match (machine.open_guarded_directory(path), there.file_name(), there.parent()) {
            (Ok(directory), ..) => break directory,
            (Err(ReadError::Missing), Some(name), Some(parent)) => {
                missing.push(name);
                there = parent;
            }
            (Err(ReadError::Os(errno)), ..) => return Err(failed("open the directory", there, errno)),
            (Err(error), ..) => {
                return Err(failed("use the directory", there, io::Error::other(error.to_string())));
            }
        }
    };
    let mode = Mode::from_raw_mode(DIRECTORY_MODE);
    while let Some(name) = missing.pop() {
        let is_new = match rustix::fs::mkdirat(&directory, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed("create the directory", dir, errno)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty())
            .map_err(|errno| failed("open the directory", dir, errno))?;
        if is_new {
            rustix::fs::fchmod(&directory, mode).map_err(|errno| failed("set the mode of", dir, errno))?;
        }
    }
    Ok(directory)
}

/// Creates `dir` and whatever is missing above it.
pub fn create_directories(dir: &Path) -> Result<(), WriteError> {
    if dir.is_dir() {
        return Ok(());
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => create_directories(parent)?,
        _ => {}
    }
    create_directory(dir).map(drop)
}

/// Creates `dir` where it is missing, and opens it; one that is there keeps its mode.
fn create_directory(dir: &Path) -> Result<OwnedFd, WriteError> {
    let open = |flags| {
        let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(|e| failed("open the directory", dir, e))
    };
    let mode = Mode::from_raw_mode(DIRECTORY_MODE);
    match rustix::fs::mkdir(dir, mode) {
        Ok(()) => {
            let directory = open(OFlags::NOFOLLOW)?;
            rustix::fs::fchmod(&directory, mode).map_err(|e| failed("set the mode of", dir, e))?;
            Ok(directory)
        }
        Err(Errno::EXIST) => open(OFlags::empty()),
        Err(errno) => Err(failed("create the directory", dir, errno)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{create_directories, create_directory, replace};

    #[test]
    fn the_longest_name_and_nothing_left_behind() {
        let out = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        replace(&out.path().join("d"), &name, "1").unwrap();
        replace(&out.path().join("d"), &name, "22").unwrap();
        assert_eq!(fs::read_to_string(out.path().join("d").join(&name)).unwrap(), "22");
        assert_eq!(fs::read_dir(out.path().join("d")).unwrap().count(), 1);
        let error = replace(&out.path().join("d"), &"n".repeat(256), "3").unwrap_err();
        assert!(error.to_string().starts_with("cannot replace "), "{error}");
        assert_eq!(fs::read_dir(out.path().join("d")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_followed_where_it_was_there_before() {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir(out.path().join("real")).unwrap();
        symlink("real", out.path().join("link")).unwrap();
        replace(&out.path().join("link"), "f", "1").unwrap();
        assert!(out.path().join("real/f").is_file());
        symlink("nowhere", out.path().join("dangling")).unwrap();
        assert!(create_directory(&out.path().join("dangling")).is_err());
        create_directories(&out.path().join("a/b/c")).unwrap();
        assert!(out.path().join("a/b/c").is_dir() && create_directories(&out.path().join("a/b/c")).is_ok());
    }
}
