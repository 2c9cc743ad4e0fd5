//! Reads files for sizing, and is the only module that does: below a root directory, bounded, and without blocking.
//!
//! - **Symbolic links** are resolved step by step. If a path contains none, the kernel resolves it in a single call
//!   (openat2(2) with `RESOLVE_NO_SYMLINKS`). If it does, or if openat2 is missing (before Linux 5.6) or denied
//!   (seccomp), each component is opened with `O_PATH|O_NOFOLLOW`. With a root directory other than the machine's
//!   (`PYPNM_SIZING_ROOT=`, `--root=`), no step leaves it.
//! - **Mounts** that could block the reader ([`crate::mounts`]) are known from mountinfo and are not entered. Below the
//!   root of another process they can change at any time, so the kernel is asked again whenever a step crosses onto
//!   another mount (`root/live_mount.rs`).
//! - **Regular files only**: the type of a file is checked (`O_PATH`, fstat) before it is opened for reading, so FIFOs,
//!   devices and sockets are never opened. Files below /proc and /sys, which only the kernel can create, are opened
//!   directly.
//! - **Trust** ([`crate::trust`]) is requested by the caller: [`Root::with_trusted_bytes`] for files that influence
//!   what root does, [`Root::with_guarded_bytes`] for files that the service's user may write, but which must not
//!   redirect root.

mod error;
mod live_mount;
mod mount_table;
mod resolve;

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

pub use error::ReadError;
pub use mount_table::MountTable;
use resolve::Trust;

/// The maximum size of a file. Only a mountinfo is legitimately larger, and that is read as a stream.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// The initial size of the buffer, which fits nearly all files and grows for larger ones; also used for directory
/// entries.
const BUFFER_BYTES: usize = 8 << 10;
/// The maximum number of entries that are read from a directory.
const MAX_ENTRIES: usize = 100_000;
/// The maximum number of bytes that a generator reads in total, apart from mountinfo: a directory may have thousands of links
/// to one large file.
const MAX_TOTAL_BYTES: usize = 32 << 20;
/// How long a generator waits for lxcfs in total. lxcfs normally responds within a millisecond.
const LXCFS_TIME: Duration = Duration::from_secs(1);

/// The root directory below which files are read.
#[derive(Debug)]
pub struct Root {
    /// `None`: the running machine.
    below: Option<OwnedFd>,
    /// Whether the reader is a generator.
    early: bool,
    /// The effective user ID of this program.
    user: u32,
    /// The process that the files belong to. Its mounts can change at any time, possibly in order to block the reader.
    process: Option<u32>,
    /// Whether openat2 is available and allowed.
    has_openat2: Cell<bool>,
    /// Whether lxcfs failed to respond in time.
    lxcfs_is_silent: Cell<bool>,
    /// The number of bytes that were read.
    total: Cell<usize>,
    /// Read on first use.
    mounts: OnceCell<MountTable>,
    /// A buffer for the contents of files and directories; taken (empty) while in use. It is shared, and not on the
    /// stack, because touching a page of memory for the first time costs as much as opening a file.
    buffer: RefCell<Vec<u8>>,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name. Names that are not UTF-8 are skipped: no unit or configuration file can have one.
    pub name: String,
    /// Whether it is a symbolic link, or may be one because the file system does not report types.
    pub link: bool,
}

/// The contents of a file, in the shared buffer.
struct Contents<'r> {
    root: &'r Root,
    bytes: Vec<u8>,
}

impl Contents<'_> {
    fn text(&self) -> Result<&str, ReadError> {
        std::str::from_utf8(&self.bytes).map_err(|_| ReadError::NotText)
    }
}

/// Returns the buffer. A file that is read meanwhile gets its own.
impl Drop for Contents<'_> {
    fn drop(&mut self) {
        self.root.buffer.replace(std::mem::take(&mut self.bytes));
    }
}

impl Root {
    fn new(below: Option<OwnedFd>) -> Self {
        Self {
            below,
            early: false,
            process: None,
            user: rustix::process::geteuid().as_raw(),
            has_openat2: Cell::new(true),
            lxcfs_is_silent: Cell::new(false),
            total: Cell::new(0),
            mounts: OnceCell::new(),
            buffer: RefCell::default(),
        }
    }

    /// The running machine.
    pub fn machine() -> Self {
        Self::new(None)
    }

    /// A directory that contains the files of another machine.
    pub fn below(dir: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(Some(rustix::fs::open(dir, flags, Mode::empty())?)))
    }

    /// The files of a process in another mount namespace, below its root directory (`/proc/PID/root`). No symbolic link
    /// leads out of it. Its mounts are those reported by the kernel (`/proc/PID/mountinfo`), not by files inside the
    /// namespace. If it is in a user namespace, the root user of that namespace is trusted instead of the caller.
    /// Before a step crosses onto another mount, including the one at the root directory, the kernel is asked for its
    /// current type.
    pub fn of_process(pid: u32) -> Result<Self, ReadError> {
        let root = Self { process: Some(pid), ..Self::below(Path::new(&format!("/proc/{pid}/root")))? };
        if let Some(dir) = &root.below {
            live_mount::check(pid, live_mount::id(dir)?)?;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mountinfo = rustix::fs::open(format!("/proc/{pid}/mountinfo"), flags, Mode::empty())?;
        let mut table = MountTable::default();
        root.add_mounts(&mountinfo, b"", false, &mut table)?;
        let user = Self::machine().with_text(&format!("/proc/{pid}/uid_map"), outer_root).ok().flatten();
        // Cannot fail: it was not set before.
        let _ = root.mounts.set(table);
        Ok(Self { user: user.unwrap_or(root.user), ..root })
    }

    /// The running machine if `dir` is absent, empty or `/`; otherwise as [`Root::below`].
    pub fn at(dir: Option<&OsStr>) -> Result<Self, ReadError> {
        match dir.filter(|dir| !dir.is_empty() && *dir != "/") {
            None => Ok(Self::machine()),
            Some(dir) => Self::below(Path::new(dir)),
        }
    }

    /// Marks the reader as a generator, which runs before most file systems are mounted, while PID 1 waits for it.
    #[must_use]
    pub fn for_a_generator(self) -> Self {
        Self { early: true, ..self }
    }

    /// Whether the reader is a generator, for which only /etc, /run, /usr and the kernel's file systems are available.
    pub fn is_early(&self) -> bool {
        self.early
    }

    /// Whether this is the running machine.
    pub fn is_machine(&self) -> bool {
        self.below.is_none()
    }

    /// The directory in which paths begin, and its own name relative to it.
    fn base(&self) -> (BorrowedFd<'_>, &'static str) {
        match &self.below {
            None => (CWD, "/"),
            Some(dir) => (dir.as_fd(), "."),
        }
    }

    /// Passes the contents of a file, at most [`MAX_FILE_BYTES`], to `look` and returns the result.
    pub fn with_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        self.contents(path, Trust::Any).map(|contents| look(&contents.bytes))
    }

    /// As [`Root::with_bytes`], for a file that influences what root does. `Err(Untrusted)`: another user could have
    /// written it or redirected the path to it.
    pub fn with_trusted_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        self.contents(path, Trust::Full).map(|contents| look(&contents.bytes))
    }

    /// As [`Root::with_bytes`], for a file that other users may write. Symbolic links are followed only if nobody but
    /// root could have created them.
    pub fn with_guarded_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        self.contents(path, Trust::Guarded).map(|contents| look(&contents.bytes))
    }

    /// The text of a file that another user named. Files that the kernel provides are not opened, since that may have
    /// effects.
    pub fn foreign_text(&self, path: &str) -> Result<String, ReadError> {
        self.contents(path, Trust::Foreign)?.text().map(str::to_owned)
    }

    /// As [`Root::with_trusted_bytes`], but accepts sticky directories such as /tmp along the path: for files that a
    /// user names on the command line.
    pub fn with_owned_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        self.contents(path, Trust::Owned).map(|contents| look(&contents.bytes))
    }

    /// Opens the directory at `path` for writing. It may belong to another user and be on any file system. Symbolic
    /// links along the path are followed only if nobody but root and the user of this program could have created them.
    pub fn open_guarded_directory(&self, path: &str) -> Result<OwnedFd, ReadError> {
        let mounts = crate::mounts::Mounts::default();
        self.open_for(path, OFlags::DIRECTORY, Trust::GuardedSticky, &mounts)?.ok_or(ReadError::Missing)
    }

    /// Reads a file provided by lxcfs on behalf of a generator. If the daemon is stopped, the read blocks, so it
    /// happens in a thread that can be abandoned.
    fn within_time(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        let silent = Err(ReadError::Os(Errno::TIMEDOUT));
        if self.lxcfs_is_silent.get() {
            return silent;
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = path.to_owned();
        let reader = std::thread::Builder::new().spawn(move || {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let mut bytes = Vec::new();
            let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(ReadError::from);
            let read = opened.and_then(|file| read(&file, &mut bytes)).map(|()| bytes);
            // After the timeout, nobody receives this.
            let _ = sender.send(read);
        });
        let read = reader.ok().and_then(|_| receiver.recv_timeout(LXCFS_TIME).ok());
        read.unwrap_or_else(|| {
            self.lxcfs_is_silent.set(true);
            silent
        })
    }

    fn contents(&self, path: &str, trust: Trust) -> Result<Contents<'_>, ReadError> {
        let mounts = &self.mounts().mounts;
        if self.early && self.is_machine() && trust == Trust::Any && mounts.is_lxcfs(path) {
            return Ok(Contents { root: self, bytes: self.within_time(path)? });
        }
        let file = self.open_for(path, OFlags::empty(), trust, mounts)?;
        let mut contents = Contents { root: self, bytes: self.buffer.take() };
        contents.bytes.clear();
        if let Some(file) = file {
            if self.early && self.total.get() > MAX_TOTAL_BYTES {
                return Err(ReadError::TooMuch);
            }
            read(&file, &mut contents.bytes)?;
            self.total.set(self.total.get().saturating_add(contents.bytes.len()));
        }
        Ok(contents)
    }

    /// As [`Root::with_bytes`], for a text in UTF-8.
    pub fn with_text<T>(&self, path: &str, look: impl FnOnce(&str) -> T) -> Result<T, ReadError> {
        self.contents(path, Trust::Any)?.text().map(look)
    }

    /// The contents of a file.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        self.with_bytes(path, <[u8]>::to_vec)
    }

    /// The contents of a file in UTF-8.
    pub fn text(&self, path: &str) -> Result<String, ReadError> {
        self.with_text(path, str::to_owned)
    }

    /// Whether there is such a directory. If it cannot be opened for any reason other than its absence, it counts as
    /// present.
    pub fn has_directory(&self, path: &str) -> bool {
        !matches!(self.open(path, OFlags::DIRECTORY), Err(ReadError::Missing))
    }

    /// The entries of a directory except `.` and `..`, unsorted.
    pub fn entries(&self, path: &str) -> Result<Vec<DirectoryEntry>, ReadError> {
        let mut entries = Vec::new();
        self.each_entry(path, |name, file_type| {
            if !matches!(name, b"." | b"..")
                && let Ok(name) = std::str::from_utf8(name)
            {
                let link = matches!(file_type, FileType::Symlink | FileType::Unknown);
                entries.push(DirectoryEntry { name: name.to_owned(), link });
            }
        })?;
        Ok(entries)
    }

    /// Calls `visit` with the name and type of each entry of a directory, including `.` and `..`, unsorted. The type is
    /// `Unknown` if the file system does not report it.
    pub fn each_entry(&self, path: &str, mut visit: impl FnMut(&[u8], FileType)) -> Result<(), ReadError> {
        let dir = self.open(path, OFlags::DIRECTORY)?.ok_or(ReadError::Missing)?;
        self.each_entry_of(&dir, &mut visit)
    }

    /// As [`Root::each_entry`], for a directory that influences what root does; see [`Root::with_trusted_bytes`].
    pub fn each_trusted_entry(
        &self,
        path: &str,
        mut visit: impl FnMut(&[u8], FileType),
    ) -> Result<(), ReadError> {
        let flags = OFlags::DIRECTORY;
        let dir =
            self.open_for(path, flags, Trust::Full, &self.mounts().mounts)?.ok_or(ReadError::Missing)?;
        self.each_entry_of(&dir, &mut visit)
    }

    fn each_entry_of(&self, dir: &OwnedFd, visit: &mut dyn FnMut(&[u8], FileType)) -> Result<(), ReadError> {
        let mut buffer = self.buffer.take();
        buffer.clear();
        buffer.reserve(BUFFER_BYTES);
        let mut iterator = RawDir::new(dir, buffer.spare_capacity_mut());
        let mut seen = 0;
        let visited = loop {
            match iterator.next() {
                None => break Ok(()),
                Some(Err(errno)) => break Err(errno.into()),
                Some(Ok(_)) if seen == MAX_ENTRIES => break Err(ReadError::TooLarge),
                Some(Ok(entry)) => visit(entry.file_name().to_bytes(), entry.file_type()),
            }
            seen += 1;
        };
        self.buffer.replace(buffer);
        visited
    }

    /// Device and inode number, which identify a directory regardless of its path. `None`: there is no such directory.
    pub fn identity(&self, path: &str) -> Option<(u64, u64)> {
        let directory = self.open(path, OFlags::DIRECTORY).ok()??;
        let stat = rustix::fs::fstat(&directory).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// The number of links to a directory. File systems that count them report two plus the number of subdirectories.
    pub fn link_count(&self, path: &str) -> Option<u64> {
        let stat = self.look(path).and_then(|found| Ok(rustix::fs::fstat(&found)?)).ok()?;
        #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
        u64::try_from(stat.st_nlink).ok()
    }

    /// The type of what is at `path`; symbolic links are not followed at the end. `None`: it cannot be examined.
    pub fn file_type(&self, path: &str) -> Option<FileType> {
        self.stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// The status of what is at `path`; symbolic links are not followed at the end. `None`: it cannot be examined.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        self.look(path).ok().and_then(|found| rustix::fs::fstat(&found).ok())
    }

    /// The target of a symbolic link, unresolved. `None`: `path` is not a symbolic link.
    pub fn link(&self, path: &str) -> Option<String> {
        // An empty path refers to the link that the descriptor is open on.
        let link = self.look(path).ok()?;
        rustix::fs::readlinkat(&link, c"", Vec::new()).ok()?.into_string().ok()
    }
}

/// Appends the contents of a file to `bytes`, which must be empty.
fn read(file: &OwnedFd, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    bytes.reserve(BUFFER_BYTES);
    loop {
        match rustix::io::read(file, spare_capacity(bytes)) {
            Ok(0) => return Ok(()),
            Ok(_) if bytes.len() > MAX_FILE_BYTES => return Err(ReadError::TooLarge),
            Ok(_) if bytes.len() == bytes.capacity() => bytes.reserve(bytes.len()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The user ID, outside a user namespace, of its root user (`/proc/PID/uid_map`, user_namespaces(7)).
fn outer_root(uid_map: &str) -> Option<u32> {
    let mut lines = uid_map.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut line| (line.next() == Some("0")).then_some(line))?;
    line.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::outer_root;

    #[test]
    fn the_root_of_a_user_namespace() {
        assert_eq!(outer_root("         0       1000          1\n"), Some(1000));
        assert_eq!(outer_root("0 0 4294967295\n"), Some(0), "of the machine itself");
        assert_eq!(outer_root("1 100000 65536\n0 12345 1\n"), Some(12345));
        assert_eq!((outer_root("1 100000 65536\n"), outer_root("")), (None, None), "it has none");
    }
}
