//! Reading mountinfo: which mounts a reader keeps out of ([`crate::mounts`] decides), and where cgroups are mounted
//! ([`crate::parse::mountinfo`] reads those lines). It is read once, as a stream, as there may be thousands of lines.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};

use memchr::memchr;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::resolve::Others;
use super::{BUFFER_BYTES, MAX_FILE_BYTES, ReadError, Root};
use crate::mounts::Mounts;

/// The most that is read of a mountinfo: more than `fs.mount-max` mounts take.
const MAX_STREAM_BYTES: usize = 256 << 20;
/// The most that is kept of the cgroup mounts' lines.
const MAX_CGROUP_BYTES: usize = 1 << 20;
/// A view of the mounts: our own, which decides what our own steps lead onto; in a made-up machine PID 1's.
const OWN_MOUNTINFO: &str = "/proc/self/mountinfo";
const MOUNTINFO: [&str; 2] = ["/proc/1/mountinfo", OWN_MOUNTINFO];

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

impl Root {
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
    pub(super) fn add_mounts(
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
            let kind = table.mounts.add(line, below);
            if cgroups
                && kind.starts_with(b"cgroup")
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
}
