//! A directory of the helper, in which files are replaced, removed and appended to.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::atomic::{DIRECTORY_MODE, FILE_MODE, pinned, replace_in};
use super::error::{WriteError, failed};
use crate::root::{ReadError, Root};
use crate::trust::PathStep;

/// Permissions that the umask must not remove from a new directory.
const DIRECTORY_UMASK: u32 = 0o777 & !DIRECTORY_MODE;

/// A directory that is open for writing. No symbolic link that another user could have created was followed to reach
/// it.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
    /// The effective user ID of this program.
    user: u32,
}

impl Directory {
    /// Opens the directory `dir` of this machine; an empty path refers to the working directory.
    pub fn open(dir: &Path) -> Result<Self, WriteError> {
        let opened = open(&Root::machine(), dir).map_err(|error| unusable(dir, error))?;
        Ok(Self::new(opened, dir))
    }

    /// As [`Directory::open`], but creates `dir` and its parents if they are missing.
    pub fn create(dir: &Path) -> Result<Self, WriteError> {
        Self::create_below(&Root::machine(), dir)
    }

    /// As [`Directory::create`], for a directory below `root`, which no symbolic link leaves.
    pub fn create_below(root: &Root, dir: &Path) -> Result<Self, WriteError> {
        let mut missing = Vec::new();
        let mut there = dir;
        let mut directory = loop {
            match (open(root, there), there.file_name(), there.parent()) {
                (Ok(directory), ..) => break directory,
                (Err(ReadError::Missing), Some(name), Some(parent)) => {
                    missing.push(name);
                    there = parent;
                }
                (Err(error), ..) => return Err(unusable(there, error)),
            }
        };
        while let Some(name) = missing.pop() {
            directory = create_in(&directory, name).map_err(|(doing, errno)| failed(doing, dir, errno))?;
        }
        Ok(Self::new(directory, dir))
    }

    /// Opens the directory of the file `path`, and returns the name of the file as well.
    pub fn open_for(path: &Path) -> Result<(Self, &OsStr), WriteError> {
        let (dir, name) = split(path)?;
        Ok((Self::open(dir)?, name))
    }

    /// As [`Directory::open_for`], but creates the directory and its parents if they are missing.
    pub fn create_for(path: &Path) -> Result<(Self, &OsStr), WriteError> {
        let (dir, name) = split(path)?;
        Ok((Self::create(dir)?, name))
    }

    fn new(descriptor: OwnedFd, path: &Path) -> Self {
        Self { descriptor, path: path.to_owned(), user: rustix::process::geteuid().as_raw() }
    }

    /// A path to this directory that remains valid if it is renamed.
    pub fn pinned(&self) -> PathBuf {
        pinned(&self.descriptor)
    }

    /// Replaces the file `name` with `text` atomically. Other users can read it.
    pub fn replace(&self, name: impl AsRef<OsStr>, text: &str) -> Result<(), WriteError> {
        self.replace_with(name, FILE_MODE, |file| file.write_all(text.as_bytes()))
    }

    /// Replaces the file `name` with what `fill` writes, or leaves it unchanged. A symbolic link is replaced, not
    /// followed. If it is a device, a FIFO or a directory, or is in /dev, the error is of the kind `InvalidInput`.
    pub fn replace_with(
        &self,
        name: impl AsRef<OsStr>,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let name = name.as_ref();
        self.check_replaceable(name)?;
        replace_in(&self.descriptor, &self.path, name, mode, fill)
    }

    /// `Err`: `name` must not be replaced or removed, because it is neither a regular file nor a symbolic link, or is
    /// in /dev, where symbolic links lead to devices.
    fn check_replaceable(&self, name: &OsStr) -> Result<(), WriteError> {
        let there = rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_other = there.is_ok_and(|stat| {
            !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink)
        });
        let here = rustix::fs::fstat(&self.descriptor).map(|stat| (stat.st_dev, stat.st_ino));
        let devices = rustix::fs::stat("/dev").map(|stat| (stat.st_dev, stat.st_ino));
        if is_other || (here.is_ok() && here == devices) {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file; left unchanged");
            return Err(failed("replace", &self.path.join(name), error));
        }
        Ok(())
    }

    /// Removes the file `name`, and returns whether it existed.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<bool, WriteError> {
        let name = name.as_ref();
        self.check_replaceable(name)?;
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed("remove", &self.path.join(name), errno)),
        }
    }

    /// Opens the file `name` for reading and appending, and creates it if it is missing. It must be a regular file that
    /// is owned by root or the user of this program. If other users can write to the directory, it must have no other
    /// hard links.
    pub fn append(&self, name: impl AsRef<OsStr>) -> Result<File, WriteError> {
        let name = name.as_ref();
        let path = self.path.join(name);
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let cannot_open = |errno| failed("open", &path, errno);
        let file = rustix::fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(FILE_MODE))
            .map_err(cannot_open)?;
        let directory = rustix::fs::fstat(&self.descriptor).map_err(cannot_open)?;
        let found = rustix::fs::fstat(&file).map_err(cannot_open)?;
        let check = |path: &Path, mode, owner| {
            PathStep { path: path.as_os_str().as_bytes(), mode, owner }.check(self.user, false)
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(failed("append to", &path, io::Error::other("not a regular file")));
        }
        // Whether other users can write to the file is up to its owner.
        if let Err(untrusted) = check(&path, 0, found.st_uid) {
            return Err(failed("append to", &path, io::Error::other(untrusted.to_string())));
        }
        let is_others = check(&self.path, directory.st_mode, directory.st_uid).is_err();
        if is_others && found.st_nlink > 1 {
            let error = io::Error::other("it has another name, which may be anywhere");
            return Err(failed("append to", &path, error));
        }
        Ok(file.into())
    }
}

/// Splits a path into the directory and the name of the file.
fn split(path: &Path) -> Result<(&Path, &OsStr), WriteError> {
    match (path.parent(), path.file_name()) {
        // A path that ends in a slash does not name a file.
        (Some(dir), Some(name)) if path.as_os_str().as_bytes().ends_with(name.as_bytes()) => Ok((dir, name)),
        _ => Err(failed("write", path, io::Error::other("not a regular file"))),
    }
}

fn open(root: &Root, dir: &Path) -> Result<OwnedFd, ReadError> {
    match dir.to_str() {
        Some("") => root.open_guarded_directory("."),
        Some(path) => root.open_guarded_directory(path),
        None => Err(ReadError::NotText),
    }
}

fn unusable(dir: &Path, error: ReadError) -> WriteError {
    match error {
        ReadError::Os(errno) => failed("open the directory", dir, errno),
        ReadError::Missing => failed("open the directory", dir, Errno::NOENT),
        ReadError::NotText => failed("use the directory", dir, io::Error::other("its name is not UTF-8")),
        other => failed("use the directory", dir, io::Error::other(other.to_string())),
    }
}

/// Opens a directory inside another one, and creates it if it is missing. Its mode is not changed, because another user
/// may have replaced the directory meanwhile.
fn create_in(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, (&'static str, Errno)> {
    let umask = rustix::process::umask(Mode::from_raw_mode(DIRECTORY_UMASK));
    let created = rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(DIRECTORY_MODE));
    rustix::process::umask(umask);
    match created {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(("create the directory", errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|errno| ("open the directory", errno))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};
    use std::path::Path;

    use super::Directory;

    #[test]
    fn existing_links_to_directories_are_followed() {
        let out = tempfile::tempdir().unwrap();
        fs::create_dir(out.path().join("real")).unwrap();
        symlink("real", out.path().join("link")).unwrap();
        Directory::create(&out.path().join("link/a/b")).unwrap().replace("f", "2").unwrap();
        assert_eq!(fs::read_to_string(out.path().join("real/a/b/f")).unwrap(), "2");
        // It exists, but is not followed to something that is not a directory.
        symlink("/dev/null", out.path().join("mask")).unwrap();
        let error = Directory::create(&out.path().join("mask")).map(|_| ()).unwrap_err();
        assert_eq!((error.doing, error.error.raw_os_error()), ("open the directory", Some(20)), "{error}");
        // Nor to a directory that only the kernel can follow the link to, as in a race with the user who creates it.
        fs::create_dir(out.path().join("removed")).unwrap();
        let removed = fs::File::open(out.path().join("removed")).unwrap();
        fs::remove_dir(out.path().join("removed")).unwrap();
        symlink(format!("/proc/self/fd/{}", removed.as_raw_fd()), out.path().join("kernel")).unwrap();
        assert!(out.path().join("kernel").is_dir());
        assert!(Directory::create(&out.path().join("kernel")).is_err());
        symlink("nowhere", out.path().join("dangling")).unwrap();
        assert!(Directory::create(&out.path().join("dangling")).is_err());
    }

    #[test]
    fn the_directory_of_a_file() {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("d/f");
        assert!(Directory::open_for(&path).is_err(), "it is not created");
        let (directory, name) = Directory::create_for(&path).unwrap();
        assert_eq!(name, "f");
        directory.replace(name, "1").unwrap();
        assert!(directory.pinned().join("f").is_file());
        assert!(Directory::open_for(&path).unwrap().0.remove("f").unwrap());
        assert!(!directory.remove("f").unwrap(), "there is none any more");
        let (here, _) = Directory::open_for(Path::new("Cargo.toml")).unwrap();
        assert!(here.pinned().join("Cargo.toml").is_file(), "an empty path is the working directory");
        for no_file in ["/", "..", "a/..", "", "a/"] {
            let error = Directory::open_for(Path::new(no_file)).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{no_file}: {error}");
        }
    }

    #[test]
    fn a_directory_keeps_its_identity_and_its_mode() {
        let out = tempfile::tempdir().unwrap();
        let directory = Directory::create(&out.path().join("d")).unwrap();
        assert_eq!(fs::metadata(out.path().join("d")).unwrap().mode() & 0o7777, 0o755);
        fs::rename(out.path().join("d"), out.path().join("moved")).unwrap();
        fs::create_dir(out.path().join("d")).unwrap();
        directory.replace("f", "1").unwrap();
        directory.append("g").unwrap().write_all(b"2").unwrap();
        assert_eq!(fs::read_dir(out.path().join("d")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(out.path().join("moved")).unwrap().count(), 2);
    }

    #[test]
    fn only_regular_files_and_links_are_replaced() {
        let out = tempfile::tempdir().unwrap();
        let path = |name: &str| out.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        fs::create_dir(path("directory")).unwrap();
        symlink("directory", path("link")).unwrap();
        fs::write(path("file"), "1").unwrap();
        let directory = Directory::open(out.path()).unwrap();
        for name in ["pipe", "directory"] {
            for error in [directory.replace(name, "2").unwrap_err(), directory.remove(name).unwrap_err()] {
                assert!(error.to_string().ends_with("not a regular file; left unchanged"), "{error}");
            }
        }
        for name in ["link", "file"] {
            directory.replace(name, "2").unwrap();
            assert!(path(name).symlink_metadata().unwrap().is_file(), "{name}");
        }
        let error = Directory::open(Path::new("/dev")).unwrap().remove("pypnm-sizing").unwrap_err();
        assert!(error.to_string().ends_with("not a regular file; left unchanged"), "{error}");
    }

    #[test]
    fn only_own_regular_files_are_appended_to() {
        let out = tempfile::tempdir().unwrap();
        let path = |name: &str| out.path().join(name);
        let directory = Directory::open(out.path()).unwrap();
        fs::write(path("own"), "1").unwrap();
        directory.append("own").unwrap().write_all(b"2").unwrap();
        assert_eq!(fs::read_to_string(path("own")).unwrap(), "12");
        symlink("own", path("link")).unwrap();
        assert!(directory.append("link").is_err());
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        for name in ["pipe", "."] {
            assert!(directory.append(name).is_err(), "{name}");
        }
        fs::hard_link(path("own"), path("second")).unwrap();
        directory.append("second").unwrap();
        if rustix::process::geteuid().is_root() {
            chown(out.path(), Some(12345), None).unwrap();
            directory.append("new").unwrap();
            directory.append("new").unwrap();
            let error = directory.append("second").unwrap_err().to_string();
            assert!(error.contains("another name"), "{error}");
            fs::write(path("theirs"), "").unwrap();
            chown(path("theirs"), Some(12345), None).unwrap();
            let error = directory.append("theirs").unwrap_err().to_string();
            assert!(error.contains("user 12345"), "{error}");
        }
    }
}
