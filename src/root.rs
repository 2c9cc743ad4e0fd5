//! The only place that reads files for sizing: below a root, bounded, and without ever waiting.
//!
//! - **Links** are resolved one step at a time. The kernel does it in one call where a path has none (openat2(2) with
//!   `RESOLVE_NO_SYMLINKS`); else, and where openat2 is absent (before Linux 5.6) or denied (seccomp), each step is opened with
//!   `O_PATH|O_NOFOLLOW`. With another root than the machine's (`PYPNM_SIZING_ROOT=`, `--root=`) no step leaves it.
//! - **Mounts** that could make the reader wait ([`crate::mounts`]) are known from mountinfo before a step is taken onto them,
//!   and it is not taken. Below the root of another process they may change meanwhile, so there the kernel is asked anew at
//!   each step onto another mount (`root/live_mount.rs`).
//! - **Regular files only**: a file is looked at (`O_PATH`, fstat) before it is opened for reading, so that no FIFO, no device
//!   and no socket is. Files below /proc and /sys, which only the kernel makes, are opened at once.
//! - **Trust** ([`crate::trust`]) is asked for by callers: [`Root::with_trusted_bytes`] for what leads root,
//!   [`Root::with_guarded_bytes`] for what a service's user may write but must not lead root anywhere by.

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
use resolve::{Others, Walk};

/// The most that is read of one file. The largest honest one, a mountinfo, is read as a stream instead.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// What nearly all files fit into, for a longer one the buffer grows; and what a directory's names are read by.
const BUFFER_BYTES: usize = 8 << 10;
/// The most entries that are read of one directory.
const MAX_ENTRIES: usize = 100_000;
/// How long a generator waits for lxcfs, all in all; it answers within a millisecond.
const LXCFS_TIME: Duration = Duration::from_secs(1);

/// Where files are read from.
#[derive(Debug)]
pub struct Root {
    /// `None`: the running machine.
    below: Option<OwnedFd>,
    /// The reader is a generator.
    early: bool,
    /// The user that the program runs as.
    user: u32,
    /// The process whose files they are: its mounts may change at any time, and by somebody who wants the reader to wait.
    process: Option<u32>,
    /// Whether openat2 is there and allowed.
    has_openat2: Cell<bool>,
    /// lxcfs has not answered in time.
    lxcfs_is_silent: Cell<bool>,
    /// Read when it is first needed.
    mounts: OnceCell<MountTable>,
    /// What one file or directory after the other is read into; empty while one is looked at. One for all, and not on the
    /// stack: each page of memory that a short run touches first costs it as much as opening a file.
    buffer: RefCell<Vec<u8>>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; names that are not UTF-8 are left out, no unit or configuration file can have one.
    pub name: String,
    /// Whether it is a symbolic link; file systems that don't tell count as one.
    pub link: bool,
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
            mounts: OnceCell::new(),
            buffer: RefCell::default(),
        }
    }

    /// The running machine.
    pub fn machine() -> Self {
        Self::new(None)
    }

    /// A directory that stands for a machine.
    pub fn below(dir: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(Some(rustix::fs::open(dir, flags, Mode::empty())?)))
    }

    /// The files of a process in another mount namespace, below its root directory (`/proc/PID/root`). No link leads out of
    /// there. Its mounts are the kernel's word (`/proc/PID/mountinfo`), not what the process shows of itself. Where it is in
    /// a user namespace, that one's root is trusted in the place of the caller. No step onto another mount is taken before the
    /// kernel has said what it is now, that onto the root directory included.
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
        // Set just now for the first time.
        let _ = root.mounts.set(table);
        Ok(Self { user: user.unwrap_or(root.user), ..root })
    }

    /// The running machine for an empty or absent `dir` or `/`, else [`Root::below`] it.
    pub fn at(dir: Option<&OsStr>) -> Result<Self, ReadError> {
        match dir {
            None => Ok(Self::machine()),
            Some(dir) if dir.is_empty() || dir == "/" => Ok(Self::machine()),
            Some(dir) => Self::below(Path::new(dir)),
        }
    }

    /// The same for a generator, which runs before most is mounted, while PID 1 waits for it.
    #[must_use]
    pub fn for_a_generator(self) -> Self {
        Self { early: true, ..self }
    }

    /// Whether the reader is a generator: /etc, /run, /usr and the kernel's file systems are all that it may count on.
    pub fn is_early(&self) -> bool {
        self.early
    }

    /// Whether this is the running machine.
    pub fn is_machine(&self) -> bool {
        self.below.is_none()
    }

    /// Where paths begin: the directory, and its name as a path from there.
    fn base(&self) -> (BorrowedFd<'_>, &'static str) {
        match &self.below {
            None => (CWD, "/"),
            Some(dir) => (dir.as_fd(), "."),
        }
    }

    /// What `look` makes of the bytes of a file, at most [`MAX_FILE_BYTES`] of them.
    pub fn with_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        if self.early && self.is_machine() && self.mounts().mounts.is_lxcfs(path) {
            return self.within_time(path).map(|bytes| look(&bytes));
        }
        let file = self.open(path, OFlags::empty())?;
        self.with_bytes_of(file, look)
    }

    /// The same of a file that leads root: `Err(Untrusted)` where somebody else could have written it, or led the path to it.
    pub fn with_trusted_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        let file = self.open_for(path, OFlags::empty(), Others::Nothing, &self.mounts().mounts)?;
        self.with_bytes_of(file, look)
    }

    /// The same of a file that others may write: a link is followed only where nobody but root could have made it.
    pub fn with_guarded_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        let file = self.open_for(path, OFlags::empty(), Others::Own, &self.mounts().mounts)?;
        self.with_bytes_of(file, look)
    }

    /// As [`Root::with_trusted_bytes`], but a sticky directory such as /tmp may be on the way: for what a person's own command
    /// reads.
    pub fn with_owned_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        let file = self.open_for(path, OFlags::empty(), Others::Sticky, &self.mounts().mounts)?;
        self.with_bytes_of(file, look)
    }

    /// Opens the directory at `path` for writing into it, be it somebody else's and on whatever file system: a link on the
    /// way is followed only where nobody but root and the user that the program runs as could have made it.
    pub fn open_guarded_directory(&self, path: &str) -> Result<OwnedFd, ReadError> {
        let mounts = crate::mounts::Mounts::default();
        self.open_for(path, OFlags::DIRECTORY, Others::OwnSticky, &mounts)?.ok_or(ReadError::Missing)
    }

    /// Whether every step of `path` belongs to root or the user that the program runs as, as for [`Root::with_owned_bytes`].
    pub fn check_owned(&self, path: &str) -> Result<(), ReadError> {
        self.walk(path, Walk { follow: true, others: Others::Sticky }, &self.mounts().mounts).map(|_| ())
    }

    /// Whether every step of `path` is trusted, and there is something at its end.
    pub fn check_trusted(&self, path: &str) -> Result<(), ReadError> {
        self.walk(path, Walk { follow: true, others: Others::Nothing }, &self.mounts().mounts).map(|_| ())
    }

    /// Reads a file of lxcfs, for whom PID 1 waits: its daemon may be stopped, and the thread that asks it with it.
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
            // Nobody listens any more where it took too long.
            let _ = sender.send(read);
        });
        let read = reader.ok().and_then(|_| receiver.recv_timeout(LXCFS_TIME).ok());
        read.unwrap_or_else(|| {
            self.lxcfs_is_silent.set(true);
            silent
        })
    }

    fn with_bytes_of<T>(&self, file: Option<OwnedFd>, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        // A file that is read while another is looked at has a buffer of its own.
        let mut buffer = self.buffer.take();
        buffer.clear();
        let read = file.map_or(Ok(()), |file| read(&file, &mut buffer));
        let looked = read.map(|()| look(&buffer));
        self.buffer.replace(buffer);
        looked
    }

    /// What `look` makes of the text of a file.
    pub fn with_text<T>(&self, path: &str, look: impl FnOnce(&str) -> T) -> Result<T, ReadError> {
        self.with_bytes(path, |bytes| std::str::from_utf8(bytes).map(look))?.map_err(|_| ReadError::NotText)
    }

    /// The bytes of a file, to keep.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        self.with_bytes(path, <[u8]>::to_vec)
    }

    /// The text of a file, to keep.
    pub fn text(&self, path: &str) -> Result<String, ReadError> {
        self.with_text(path, str::to_owned)
    }

    /// Whether there is such a directory; one that can't be looked at counts as one.
    pub fn has_directory(&self, path: &str) -> bool {
        !matches!(self.open(path, OFlags::DIRECTORY), Err(ReadError::Missing))
    }

    /// The names in a directory, in no order.
    pub fn entries(&self, path: &str) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        self.each_entry(path, |name, file_type| {
            if !matches!(name, b"." | b"..")
                && let Ok(name) = std::str::from_utf8(name)
            {
                let link = matches!(file_type, FileType::Symlink | FileType::Unknown);
                entries.push(Entry { name: name.to_owned(), link });
            }
        })?;
        Ok(entries)
    }

    /// Calls `visit` for each name in a directory, `.` and `..` too, in no order, with what it is (`Unknown` where the
    /// file system doesn't tell).
    pub fn each_entry(&self, path: &str, mut visit: impl FnMut(&[u8], FileType)) -> Result<(), ReadError> {
        let dir = self.open(path, OFlags::DIRECTORY)?.ok_or(ReadError::Missing)?;
        self.each_entry_of(&dir, &mut visit)
    }

    /// The same for a directory that leads root; as [`Root::with_trusted_bytes`].
    pub fn each_trusted_entry(
        &self,
        path: &str,
        mut visit: impl FnMut(&[u8], FileType),
    ) -> Result<(), ReadError> {
        let flags = OFlags::DIRECTORY;
        let dir =
            self.open_for(path, flags, Others::Nothing, &self.mounts().mounts)?.ok_or(ReadError::Missing)?;
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

    /// What tells a directory from every other, by whatever path it is reached; `None`: there is none.
    pub fn identity(&self, path: &str) -> Option<(u64, u64)> {
        let directory = self.open(path, OFlags::DIRECTORY).ok()??;
        let stat = rustix::fs::fstat(&directory).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// How many links a directory has: where its file system counts them, one for each directory in it, and two.
    pub fn link_count(&self, path: &str) -> Option<u64> {
        let stat = self.look(path).and_then(|found| Ok(rustix::fs::fstat(&found)?)).ok()?;
        #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
        u64::try_from(stat.st_nlink).ok()
    }

    /// What lies there, a link being a link; `None`: nothing that can be looked at.
    pub fn file_type(&self, path: &str) -> Option<FileType> {
        self.stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Owner and mode of what lies there, a link being a link; `None`: nothing that can be looked at.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        self.look(path).ok().and_then(|found| rustix::fs::fstat(&found).ok())
    }

    /// Where a symbolic link points to, as it stands in the link; `None` where `path` is none.
    pub fn link(&self, path: &str) -> Option<String> {
        // An empty path reads the link behind the descriptor.
        let link = self.look(path).ok()?;
        rustix::fs::readlinkat(&link, c"", Vec::new()).ok()?.into_string().ok()
    }
}

/// Reads a file into `bytes`, which is empty.
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

/// The user outside of a user namespace who is root in it (`/proc/PID/uid_map` in user_namespaces(7)).
fn outer_root(uid_map: &str) -> Option<u32> {
    let mut lines = uid_map.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut line| (line.next() == Some("0")).then_some(line))?;
    line.next()?.parse().ok()
}
