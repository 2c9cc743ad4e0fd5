//! The only place that reads files: below a root, bounded, without ever blocking.
//!
//! With the machine's own root a path is opened as it is. With another (`PYPNM_SIZING_ROOT=`, `--root=`) every
//! step, symbolic links included, is resolved by the kernel below that directory (openat2(2),
//! `RESOLVE_IN_ROOT`), so nothing of the running machine leaks in. A FIFO without a writer reads as empty and a
//! device that never ends hits the bound.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

/// The most that is read of one file. The largest honest one is a mountinfo of some thousand mounts.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// What nearly all files fit into, for a longer one the buffer grows; and what a directory's names are read by.
const BUFFER_BYTES: usize = 16 << 10;
/// The most entries that are read of one directory.
const MAX_ENTRIES: usize = 100_000;

/// Where files are read from.
#[derive(Debug)]
pub struct Root {
    /// `None`: the running machine.
    below: Option<OwnedFd>,
    /// The reader is a generator.
    early: bool,
    /// What one file or directory after the other is read into; empty while one is looked at. One for all, and not on the
    /// stack: each page of memory that a short run touches first costs it as much as opening a file.
    buffer: RefCell<Vec<u8>>,
}

/// Why a file could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is none.
    Missing,
    /// It is a directory.
    Directory,
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge,
    /// It is not UTF-8.
    NotText,
    /// The kernel said no.
    Os(Errno),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Directory => f.write_str("it is a directory, not a file"),
            Self::TooLarge => write!(f, "it is larger than {} MiB", MAX_FILE_BYTES >> 20),
            Self::NotText => f.write_str("it is not text"),
            Self::Os(errno) => write!(f, "{}", std::io::Error::from(*errno)),
        }
    }
}

impl From<Errno> for ReadError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::ISDIR => Self::Directory,
            other => Self::Os(other),
        }
    }
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
    /// The running machine.
    pub fn machine() -> Self {
        Self { below: None, early: false, buffer: RefCell::default() }
    }

    /// A directory that stands for a machine.
    pub fn below(dir: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let below = Some(rustix::fs::open(dir, flags, Mode::empty())?);
        Ok(Self { below, early: false, buffer: RefCell::default() })
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

    /// Opens `path`, which is absolute.
    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // Never wait for a FIFO's writer, never become a terminal's owner; openat2(2) refuses both with O_PATH.
        let reading =
            if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
        let flags = flags | reading | OFlags::RDONLY | OFlags::CLOEXEC;
        match &self.below {
            None => rustix::fs::open(path, flags, Mode::empty()),
            Some(dir) => rustix::fs::openat2(dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT),
        }
    }

    /// What `look` makes of the bytes of a file, at most [`MAX_FILE_BYTES`] of them.
    pub fn with_bytes<T>(&self, path: &str, look: impl FnOnce(&[u8]) -> T) -> Result<T, ReadError> {
        // A file that is read while another is looked at has a buffer of its own.
        let mut buffer = self.buffer.take();
        buffer.clear();
        let looked = self.read(path, &mut buffer).map(|()| look(&buffer));
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

    /// Reads a file into `bytes`, which is empty.
    fn read(&self, path: &str, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        let file = match self.open(path, OFlags::empty()) {
            Ok(file) => file,
            // In a fixture or an image /dev/null may be absent; a link to it still says "masked".
            Err(Errno::NOENT)
                if self.below.is_some() && self.link(path).is_some_and(|to| to == "/dev/null") =>
            {
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        };
        bytes.reserve(BUFFER_BYTES);
        loop {
            match rustix::io::read(&file, spare_capacity(bytes)) {
                Ok(0) => return Ok(()),
                Ok(_) if bytes.len() > MAX_FILE_BYTES => return Err(ReadError::TooLarge),
                Ok(_) if bytes.len() == bytes.capacity() => bytes.reserve(bytes.len()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether there is such a directory; one that can't be looked at counts as one.
    pub fn has_directory(&self, path: &str) -> bool {
        !matches!(self.open(path, OFlags::PATH | OFlags::DIRECTORY), Err(Errno::NOENT | Errno::NOTDIR))
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
        let dir = self.open(path, OFlags::DIRECTORY)?;
        let mut buffer = self.buffer.take();
        buffer.clear();
        buffer.reserve(BUFFER_BYTES);
        let mut iterator = RawDir::new(&dir, buffer.spare_capacity_mut());
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
        let directory = self.open(path, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let stat = rustix::fs::fstat(&directory).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// What lies there, a link being a link; `None`: nothing that can be looked at.
    pub fn file_type(&self, path: &str) -> Option<FileType> {
        let stat = match &self.below {
            None => rustix::fs::lstat(path),
            Some(_) => self.open(path, OFlags::PATH | OFlags::NOFOLLOW).and_then(rustix::fs::fstat),
        };
        stat.ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Where a symbolic link points to, as it stands in the link; `None` where `path` is none.
    pub fn link(&self, path: &str) -> Option<String> {
        if self.below.is_none() {
            return rustix::fs::readlink(path, Vec::new()).ok()?.into_string().ok();
        }
        // The link itself, not what it points to; an empty path reads the link behind the descriptor.
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        rustix::fs::readlinkat(&link, c"", Vec::new()).ok()?.into_string().ok()
    }
}
