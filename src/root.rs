//! The only place that reads files for sizing: below a root, bounded, and without ever waiting.
//!
//! - **Links** are resolved one step at a time. The kernel does it in one call where a path has none (openat2(2) with
//!   `RESOLVE_NO_SYMLINKS`); else, and where openat2 is absent (before Linux 5.6) or denied (seccomp), each step is opened with
//!   `O_PATH|O_NOFOLLOW`. With another root than the machine's (`PYPNM_SIZING_ROOT=`, `--root=`) no step leaves it.
//! - **Mounts** that could make the reader wait ([`crate::mounts`]) are known from mountinfo before a step is taken onto them,
//!   and it is not taken.
//! - **Regular files only**: a file is looked at (`O_PATH`, fstat) before it is opened for reading, so that no FIFO, no device
//!   and no socket is. Files below /proc and /sys, which only the kernel makes, are opened at once.
//! - **Trust** ([`crate::trust`]) is asked for by callers: [`Root::with_trusted_bytes`] for what leads root,
//!   [`Root::with_guarded_bytes`] for what a service's user may write but must not lead root anywhere by.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use memchr::{memchr, memmem};
use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::mounts::Mounts;
use crate::trust::{Step, Untrusted};

/// The most that is read of one file. The largest honest one, a mountinfo, is read as a stream instead.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// What nearly all files fit into, for a longer one the buffer grows; and what a directory's names are read by.
const BUFFER_BYTES: usize = 16 << 10;
/// The most entries that are read of one directory.
const MAX_ENTRIES: usize = 100_000;
/// The most that is read of a mountinfo: more than `fs.mount-max` mounts take.
const MAX_STREAM_BYTES: usize = 256 << 20;
/// The most that is kept of the cgroup mounts' lines.
const MAX_CGROUP_BYTES: usize = 1 << 20;
/// As the kernel has it (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// The most steps of a path, links resolved; the kernel's paths have 2048 at most (PATH_MAX).
const MAX_STEPS: usize = 4096;
/// A view of the mounts: our own, which decides what our own steps lead onto; in a made-up machine PID 1's.
const OWN_MOUNTINFO: &str = "/proc/self/mountinfo";
const MOUNTINFO: [&str; 2] = ["/proc/1/mountinfo", OWN_MOUNTINFO];
/// How long a generator waits for lxcfs, all in all; it answers within a millisecond.
const LXCFS_TIME: Duration = Duration::from_secs(1);
/// A link that masks what would lie there.
const MASK: &[u8] = b"/dev/null";

/// Where files are read from.
#[derive(Debug)]
pub struct Root {
    /// `None`: the running machine.
    below: Option<OwnedFd>,
    /// The reader is a generator.
    early: bool,
    /// The user that the program runs as.
    user: u32,
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

/// What is known about mounts.
#[derive(Debug, Default)]
pub struct MountTable {
    /// Which must not be entered, and which are lxcfs's.
    pub mounts: Mounts,
    /// The lines of control groups, for [`crate::parse::mountinfo::cgroup_mounts`].
    pub cgroup_lines: Vec<u8>,
    /// Why it is not known, with the file that could not be read; `Missing`: there is none.
    pub unknown: Option<(&'static str, ReadError)>,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// There is none.
    Missing,
    /// It is a directory.
    Directory,
    /// It is a FIFO, a socket or a device.
    NotAFile,
    /// It is larger than [`MAX_FILE_BYTES`].
    TooLarge,
    /// It is not UTF-8.
    NotText,
    /// The path leads onto a file system of this type, whose answer could take for ever.
    Remote(String),
    /// Somebody else than root could have written it, or the way to it.
    Untrusted(Box<Untrusted>),
    /// The kernel said no.
    Os(Errno),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is no such file"),
            Self::Directory => f.write_str("it is a directory, not a file"),
            Self::NotAFile => f.write_str("it is not a regular file"),
            Self::TooLarge => write!(f, "it is larger than {} MiB", MAX_FILE_BYTES >> 20),
            Self::NotText => f.write_str("it is not text"),
            Self::Remote(kind) => {
                write!(f, "not looked at: the path leads onto a {kind} mount, which could keep PID 1 waiting")
            }
            Self::Untrusted(untrusted) => write!(f, "not trusted: {untrusted}"),
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

impl From<Untrusted> for ReadError {
    fn from(untrusted: Untrusted) -> Self {
        Self::Untrusted(Box::new(untrusted))
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

/// What a path leads to.
enum Found {
    /// This, opened with `O_PATH`.
    At(OwnedFd, Stat),
    /// A link to /dev/null, which need not be there.
    Mask,
}

/// How far a path may lead through what others than root can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// Wherever it leads, as for systemd itself.
    Lead,
    /// To a file of theirs, but not by a link of theirs: it could lead anywhere.
    Own,
    /// Nowhere, but a sticky directory such as /tmp may be on the way.
    Sticky,
    /// Nowhere.
    Nothing,
}

/// How a path is resolved.
#[derive(Clone, Copy)]
struct Walk {
    /// The last step may be a link, and what it points to counts.
    follow: bool,
    others: Others,
}

impl Root {
    fn new(below: Option<OwnedFd>) -> Self {
        Self {
            below,
            early: false,
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
    /// a user namespace, that one's root is trusted in the place of the caller.
    pub fn of_process(pid: u32) -> Result<Self, ReadError> {
        let root = Self::below(Path::new(&format!("/proc/{pid}/root")))?;
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

    /// What mountinfo says.
    pub fn mounts(&self) -> &MountTable {
        self.mounts.get_or_init(|| self.read_mounts())
    }

    /// The lines of the cgroup mounts, of the first of `paths` that can be read; for the running machine always the program's
    /// own view, which is where its paths lead. `Err`: a file and why it can't be read, `Missing` where there is none.
    pub fn cgroup_mounts(&self, paths: &[&'static str]) -> Result<Cow<'_, [u8]>, (&'static str, ReadError)> {
        let table = self.mounts();
        if self.is_machine() || paths == MOUNTINFO {
            return match &table.unknown {
                None => Ok(Cow::Borrowed(&table.cgroup_lines)),
                Some((path, error)) => Err((path, error.clone())),
            };
        }
        let mut other = MountTable::default();
        self.add_first(paths, &table.mounts, &mut other);
        other.unknown.map_or(Ok(Cow::Owned(other.cgroup_lines)), Err)
    }

    fn read_mounts(&self) -> MountTable {
        let mut table = MountTable::default();
        let Some(dir) = &self.below else {
            // The kernel's own file, and a link that is the kernel's own.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let read = rustix::fs::open(OWN_MOUNTINFO, flags, Mode::empty()).map_err(ReadError::from);
            let read = read.and_then(|file| self.add_mounts(&file, b"", true, &mut table));
            table.unknown = read.err().map(|error| (OWN_MOUNTINFO, error));
            if table.mounts.has_remote()
                && let Ok(program) = rustix::fs::readlink("/proc/self/exe", Vec::new())
            {
                // Whoever started it has waited for that one.
                table.mounts.admit(program.as_bytes());
            }
            return table;
        };
        // What is really mounted below the directory could make us wait, whatever its own mountinfo says.
        let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
        if let (Ok(place), Ok(file)) = (
            rustix::fs::readlink(name, Vec::new()),
            rustix::fs::open(OWN_MOUNTINFO, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        ) {
            let place = place.as_bytes();
            let _ = self.add_mounts(&file, place.strip_suffix(b"/").unwrap_or(place), false, &mut table);
        }
        let mut real = std::mem::take(&mut table.mounts);
        self.add_first(&MOUNTINFO, &real, &mut table);
        real.append(table.mounts);
        table.mounts = real;
        table
    }

    /// Takes the first mountinfo of a made-up machine that can be read.
    fn add_first(&self, paths: &[&'static str], mounts: &Mounts, table: &mut MountTable) {
        table.unknown = paths.first().map(|path| (*path, ReadError::Missing));
        for path in paths {
            let file = self.open_for(path, OFlags::empty(), Others::Lead, mounts);
            let read = file.and_then(|file| file.ok_or(ReadError::Missing));
            match read.and_then(|file| self.add_mounts(&file, b"", true, table)) {
                Ok(()) => {
                    table.unknown = None;
                    return;
                }
                Err(ReadError::Missing) => {}
                Err(error) if matches!(table.unknown, Some((_, ReadError::Missing))) => {
                    table.unknown = Some((path, error));
                }
                Err(_) => {}
            }
        }
    }

    /// Takes the lines of a mountinfo into `table`, one after the other; no line is as long as the buffer may become.
    fn add_mounts(
        &self,
        file: &OwnedFd,
        below: &[u8],
        cgroups: bool,
        table: &mut MountTable,
    ) -> Result<(), ReadError> {
        let mut buffer = self.buffer.take();
        buffer.clear();
        buffer.reserve(BUFFER_BYTES);
        let mut read = 0;
        let mut take = |line: &[u8]| {
            table.mounts.add(line, below);
            if cgroups
                && memmem::find(line, b" - cgroup").is_some()
                && table.cgroup_lines.len() + line.len() < MAX_CGROUP_BYTES
            {
                table.cgroup_lines.extend_from_slice(line);
                table.cgroup_lines.push(b'\n');
            }
        };
        let result = loop {
            match rustix::io::read(file, spare_capacity(&mut buffer)) {
                Ok(0) => break Ok(()),
                Ok(more) => read += more,
                Err(Errno::INTR) => continue,
                Err(errno) => break Err(ReadError::from(errno)),
            }
            let mut rest = buffer.as_slice();
            while let Some(end) = memchr(b'\n', rest) {
                take(rest.get(..end).unwrap_or_default());
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            let done = buffer.len() - rest.len();
            buffer.drain(..done);
            if read > MAX_STREAM_BYTES || buffer.len() > MAX_FILE_BYTES {
                break Err(ReadError::TooLarge);
            }
            if buffer.len() == buffer.capacity() {
                buffer.reserve(buffer.len());
            }
        };
        take(&buffer);
        self.buffer.replace(buffer);
        result
    }

    /// One call of openat2 for a path without links; `None`: it has some, or must be looked at step by step.
    fn open_plain(&self, path: &str, flags: OFlags, mounts: &Mounts) -> Option<Result<OwnedFd, ReadError>> {
        if !self.has_openat2.get() || !is_plain(path) {
            return None;
        }
        if let Some(kind) = mounts.remote(path.as_bytes()) {
            return Some(Err(ReadError::Remote(kind.to_owned())));
        }
        let (base, path) = match self.base() {
            (base, "/") => (base, path),
            (base, itself) => {
                (base, Some(path.trim_start_matches('/')).filter(|p| !p.is_empty()).unwrap_or(itself))
            }
        };
        match rustix::fs::openat2(base, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS | Errno::PERM) => {
                self.has_openat2.set(false);
                None
            }
            Err(Errno::LOOP) => None,
            opened => Some(opened.map_err(ReadError::from)),
        }
    }

    /// What `path` leads to, each step opened without being followed.
    fn walk(&self, path: &str, walk: Walk, mounts: &Mounts) -> Result<Found, ReadError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (base, name) = self.base();
        let base = rustix::fs::openat(base, name, flags | OFlags::DIRECTORY, Mode::empty())?;
        let base_stat = rustix::fs::fstat(&base)?;
        let check = |path: &[u8], stat: &Stat| {
            Step { path, mode: stat.st_mode, owner: stat.st_uid }
                .check(self.user, walk.others == Others::Sticky)
        };
        let must_be_trusted = matches!(walk.others, Others::Sticky | Others::Nothing);
        // Others may write somewhere on the way.
        let mut others = check(b"", &base_stat).err();
        if must_be_trusted && let Some(untrusted) = others {
            return Err(untrusted.into());
        }
        // Each directory on the way, and how long its path is.
        let mut stack: Vec<(OwnedFd, Stat, usize)> = Vec::new();
        let mut so_far: Vec<u8> = Vec::new();
        let mut pending: Vec<Vec<u8>> = steps(path.as_bytes());
        // A person's command may name a file from where it runs.
        if self.is_machine() && !path.starts_with('/') {
            pending.extend(steps(rustix::process::getcwd(Vec::new())?.as_bytes()));
        }
        let (mut links, mut taken) = (0, 0);
        while let Some(step) = pending.pop() {
            taken += 1;
            if taken > MAX_STEPS || pending.len() > MAX_STEPS {
                return Err(ReadError::Os(Errno::NAMETOOLONG));
            }
            if step == b".." {
                stack.pop();
                so_far.truncate(stack.last().map_or(0, |(_, _, length)| *length));
                continue;
            }
            let directory = stack.last().map_or(base.as_fd(), |(directory, ..)| directory.as_fd());
            let parent = so_far.len();
            so_far.push(b'/');
            so_far.extend_from_slice(&step);
            if let Some(kind) = mounts.remote(&so_far) {
                return Err(ReadError::Remote(kind.to_owned()));
            }
            let at = rustix::fs::openat(directory, step.as_slice(), flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&at)?;
            if let Err(untrusted) = check(&so_far, &stat) {
                if must_be_trusted {
                    return Err(untrusted.into());
                }
                others = others.or(Some(untrusted));
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink if walk.follow || !pending.is_empty() => {
                    if walk.others == Others::Own
                        && let Some(untrusted) = others
                    {
                        return Err(untrusted.into());
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ReadError::Os(Errno::LOOP));
                    }
                    let target = rustix::fs::readlinkat(&at, c"", Vec::new())?.into_bytes();
                    if target == MASK && pending.is_empty() {
                        return Ok(Found::Mask);
                    }
                    if target.first() == Some(&b'/') {
                        stack.clear();
                        so_far.clear();
                    } else {
                        so_far.truncate(parent);
                    }
                    pending.extend(steps(&target));
                }
                FileType::Directory => stack.push((at, stat, so_far.len())),
                _ if pending.is_empty() => return Ok(Found::At(at, stat)),
                _ => return Err(ReadError::Missing),
            }
        }
        Ok(match stack.pop() {
            Some((directory, stat, _)) => Found::At(directory, stat),
            None => Found::At(base, base_stat),
        })
    }

    /// Opens the file, or with `OFlags::DIRECTORY` the directory, at `path`, which is absolute, for reading. `None`: it is a
    /// mask.
    fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, ReadError> {
        self.open_for(path, flags, Others::Lead, &self.mounts().mounts)
    }

    fn open_for(
        &self,
        path: &str,
        flags: OFlags,
        others: Others,
        mounts: &Mounts,
    ) -> Result<Option<OwnedFd>, ReadError> {
        let reading = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Only the kernel makes files there.
        let at_once = flags.contains(OFlags::DIRECTORY) || (self.is_machine() && is_of_the_kernel(path));
        let first = if at_once { reading } else { OFlags::PATH | OFlags::CLOEXEC };
        let found = match self.open_plain(path, first, mounts) {
            // What must be trusted is looked at step by step, unless it is not there.
            Some(Ok(_)) if matches!(others, Others::Sticky | Others::Nothing) => {
                self.walk(path, Walk { follow: true, others }, mounts)?
            }
            Some(opened) if at_once => return opened.map(Some),
            Some(opened) => {
                let opened = opened?;
                let stat = rustix::fs::fstat(&opened)?;
                Found::At(opened, stat)
            }
            None => self.walk(path, Walk { follow: true, others }, mounts)?,
        };
        match found {
            Found::At(found, stat) => reopen(&found, &stat, flags).map(Some),
            Found::Mask if flags.contains(OFlags::DIRECTORY) => Err(ReadError::Missing),
            Found::Mask => Ok(None),
        }
    }

    /// What lies at `path`, opened with `O_PATH`, a link being a link.
    fn look(&self, path: &str) -> Result<OwnedFd, ReadError> {
        let mounts = &self.mounts().mounts;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_plain(path, flags, mounts) {
            Some(opened) => opened,
            None => match self.walk(path, Walk { follow: false, others: Others::Lead }, mounts)? {
                Found::At(found, _) => Ok(found),
                Found::Mask => Err(ReadError::Missing),
            },
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

/// Opens what an `O_PATH` descriptor stands for.
fn reopen(found: &OwnedFd, stat: &Stat, flags: OFlags) -> Result<OwnedFd, ReadError> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if flags.contains(OFlags::DIRECTORY) => {
            return Ok(rustix::fs::openat(found, ".", flags, Mode::empty())?);
        }
        FileType::Directory => return Err(ReadError::Directory),
        _ if flags.contains(OFlags::DIRECTORY) => return Err(ReadError::Missing),
        FileType::RegularFile => {}
        _ => return Err(ReadError::NotAFile),
    }
    // The one name of what is open already, whatever has become of its path.
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(rustix::fs::open(name, flags, Mode::empty())?)
}

/// Whether a path is what the kernel would call it: absolute, without `.`, `..` and doubled slashes.
fn is_plain(path: &str) -> bool {
    let path = path.as_bytes();
    path.first() == Some(&b'/')
        && memmem::find(path, b"/.").is_none()
        && memmem::find(path, b"//").is_none()
        && (path.len() == 1 || path.last() != Some(&b'/'))
}

/// The user outside of a user namespace who is root in it (`/proc/PID/uid_map` in user_namespaces(7)).
fn outer_root(uid_map: &str) -> Option<u32> {
    let mut lines = uid_map.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut line| (line.next() == Some("0")).then_some(line))?;
    line.next()?.parse().ok()
}

/// Whether only the kernel makes files there.
fn is_of_the_kernel(path: &str) -> bool {
    path.starts_with("/proc/") || path.starts_with("/sys/")
}

/// The steps of a path, the first one last.
fn steps(path: &[u8]) -> Vec<Vec<u8>> {
    let steps = path.split(|byte| *byte == b'/').rev();
    steps.filter(|step| !step.is_empty() && *step != b".").map(<[u8]>::to_vec).collect()
}
