//! Replaces a file by renaming a temporary one, so that readers see either the old or the new content.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use tempfile::{NamedTempFile, TempPath};

use super::error::{WriteError, failed};

/// Other users can read both.
pub(super) const FILE_MODE: u32 = 0o644;
pub(super) const DIRECTORY_MODE: u32 = 0o755;
/// The name of the file itself is not part of it, because it may already have the maximum length.
const TEMPORARY_PREFIX: &str = ".pypnm-sizing-";

/// Writes `text` to `dir/name` atomically, for a generator: `dir` is below a directory that belongs to systemd, and is
/// created if it is missing.
pub fn replace(dir: &Path, name: &str, text: &str) -> Result<(), WriteError> {
    let directory = create_directory(dir)?;
    replace_in(&directory, dir, OsStr::new(name), FILE_MODE, |file| file.write_all(text.as_bytes()))
}

/// Opens `dir`, and creates it if it is missing. An existing directory keeps its mode.
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

/// Replaces `name` in the open `directory`, whose path is `dir`.
pub(super) fn replace_in(
    directory: &OwnedFd,
    dir: &Path,
    name: &OsStr,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), WriteError> {
    let pinned = pinned(directory);
    let written = (|| {
        let path = pinned.join(format!("{TEMPORARY_PREFIX}{:016x}", unique_number()));
        let created = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut temporary = NamedTempFile::from_parts(created, TempPath::try_from_path(path)?);
        temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
        fill(temporary.as_file_mut())?;
        Ok(temporary)
    })();
    let written = written.map_err(|error: io::Error| failed("write", &dir.join(name), error))?;
    // If the rename fails, the temporary file is removed.
    written.persist(pinned.join(name)).map_err(|error| failed("replace", &dir.join(name), error.error))?;
    Ok(())
}

/// A number for the name of a temporary file. The names that tempfile generates depend on the clock and on the thread, which
/// costs a generator, which runs for less than a millisecond, five page faults and three system calls.
fn unique_number() -> u64 {
    let mut bytes = [0; 8];
    // Neither call blocks during early boot. Linux before 5.6 does not support the first.
    let filled = rustix::rand::getrandom(&mut bytes, GetRandomFlags::INSECURE)
        .or_else(|_| rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK));
    match filled {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => rustix::process::getpid().as_raw_nonzero().get().unsigned_abs().into(),
    }
}

/// A path to an open directory that remains valid if it is renamed.
pub(super) fn pinned(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::{create_directory, replace};
    use crate::write::Directory;

    #[test]
    fn the_longest_name_and_no_temporary_files() {
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
    fn files_that_a_killed_run_left_behind_are_no_obstacle() {
        let out = tempfile::tempdir().unwrap();
        for number in [0, 1, std::process::id()] {
            fs::write(out.path().join(format!(".pypnm-sizing-{number:016x}")), "").unwrap();
        }
        replace(out.path(), "f", "1").unwrap();
        assert_eq!(fs::read_to_string(out.path().join("f")).unwrap(), "1");
    }

    #[test]
    fn anything_but_a_directory_is_not_opened() {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let written = [replace(&path, "f", "1"), Directory::create(&path).map(|_| ())];
            sender.send(written.map(|written| written.unwrap_err().to_string()))
        });
        let errors = receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
        assert!(errors.iter().all(|error| error.starts_with("cannot open the directory ")), "{errors:?}");
    }

    #[test]
    fn existing_links_to_directories_are_followed() {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir(out.path().join("real")).unwrap();
        symlink("real", out.path().join("link")).unwrap();
        replace(&out.path().join("link"), "f", "1").unwrap();
        assert!(out.path().join("real/f").is_file());
        symlink("nowhere", out.path().join("dangling")).unwrap();
        assert!(create_directory(&out.path().join("dangling")).is_err());
    }
}
