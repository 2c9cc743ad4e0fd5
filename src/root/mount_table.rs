//! Reads mountinfo: mounts that must not be entered ([`crate::mounts`] decides which), and where cgroups are mounted
//! (parsed by [`crate::parse::mountinfo`]). It is read once, as a stream, because it can have thousands of lines.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};

use memchr::memchr;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::resolve::Trust;
use super::{BUFFER_BYTES, MAX_FILE_BYTES, ReadError, Root};
use crate::mounts::Mounts;
use crate::parse::mountinfo::Mount;

/// The maximum number of bytes read from a mountinfo; a table with `fs.mount-max` mounts is smaller.
const MAX_STREAM_BYTES: usize = 256 << 20;
/// The maximum number of bytes kept from lines about cgroup mounts.
const MAX_CGROUP_BYTES: usize = 1 << 20;
/// The mounts as this program sees them, which determine where its own paths lead. Below another root directory, those
/// of PID 1 come first.
const OWN_MOUNTINFO: &str = "/proc/self/mountinfo";
const MOUNTINFO: [&str; 2] = ["/proc/1/mountinfo", OWN_MOUNTINFO];

/// The contents of a mountinfo that matter here.
#[derive(Debug, Default)]
pub struct MountTable {
    /// The mounts that must not be entered, and those of lxcfs.
    pub mounts: Mounts,
    /// The lines about cgroup mounts, for [`crate::parse::mountinfo::cgroup_mounts`].
    pub cgroup_lines: Vec<u8>,
    /// The file that could not be read, or not in full, and why; `Missing`: there is none.
    pub unknown: Option<(&'static str, ReadError)>,
}

impl Root {
    /// The mount table, read on first use.
    pub fn mounts(&self) -> &MountTable {
        self.mounts.get_or_init(|| self.read_mounts())
    }

    /// The lines about cgroup mounts, from the first of `paths` that can be read; on the running machine always from
    /// the program's own view, because its paths lead there. Also a file that cannot be read, or not in full, and why.
    pub fn cgroup_mounts(
        &self,
        paths: &[&'static str],
    ) -> (Cow<'_, [u8]>, Option<(&'static str, ReadError)>) {
        let table = self.mounts();
        if self.is_machine() || paths == MOUNTINFO {
            return (Cow::Borrowed(&table.cgroup_lines), table.unknown.clone());
        }
        let mut other = MountTable::default();
        self.add_first(paths, &table.mounts, &mut other);
        (Cow::Owned(other.cgroup_lines), other.unknown)
    }

    fn read_mounts(&self) -> MountTable {
        let mut table = MountTable::default();
        let Some(dir) = &self.below else {
            // Only the kernel can create this file and the link that leads to it.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let read = rustix::fs::open(OWN_MOUNTINFO, flags, Mode::empty()).map_err(ReadError::from);
            let read = read.and_then(|file| self.add_mounts(&file, b"", true, &mut table));
            table.unknown = read.err().map(|error| (OWN_MOUNTINFO, error));
            if table.mounts.has_remote()
                && let Ok(program) = rustix::fs::readlink("/proc/self/exe", Vec::new())
            {
                // It was loaded from there, so that mount responds.
                table.mounts.admit(program.as_bytes());
            }
            return table;
        };
        // The real mounts below the directory could block the reader, regardless of the mountinfo inside it.
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

    /// Adds the first mountinfo below another root directory that can be read.
    fn add_first(&self, paths: &[&'static str], mounts: &Mounts, table: &mut MountTable) {
        table.unknown = paths.first().map(|path| (*path, ReadError::Missing));
        for path in paths {
            let file = self.open_for(path, OFlags::empty(), Trust::Any, mounts);
            let read = file.and_then(|file| file.ok_or(ReadError::Missing));
            match read.and_then(|file| self.add_mounts(&file, b"", true, table)) {
                Ok(()) => {
                    table.unknown = None;
                    return;
                }
                Err(ReadError::Missing) => {}
                Err(error @ (ReadError::Incomplete | ReadError::TooManyMounts)) => {
                    table.unknown = Some((path, error));
                    return;
                }
                Err(error) if matches!(table.unknown, Some((_, ReadError::Missing))) => {
                    table.unknown = Some((path, error));
                }
                Err(_) => {}
            }
        }
    }

    /// Adds the lines of a mountinfo to `table`. A line that exceeds the maximum size of the buffer is an error. With
    /// `cgroups`, so is a line that is cut off or not kept, after all lines have been added.
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
        let mut is_complete = true;
        let mut is_kept = true;
        let mut take = |line: &[u8]| {
            let mount = Mount::parse(line);
            is_complete &= mount.is_some_and(|mount| mount.is_complete());
            let Some(mount) = mount else {
                return;
            };
            table.mounts.add(&mount, below);
            if !cgroups || !mount.kind.starts_with(b"cgroup") {
                return;
            }
            if table.cgroup_lines.len() + line.len() < MAX_CGROUP_BYTES {
                table.cgroup_lines.extend_from_slice(line);
                table.cgroup_lines.push(b'\n');
            } else {
                is_kept = false;
            }
        };
        let result = loop {
            match rustix::io::read(file, spare_capacity(&mut buffer)) {
                // A process that has changed its root directory may see no mounts.
                Ok(0) => break if read == 0 && cgroups { Err(ReadError::Incomplete) } else { Ok(()) },
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
                break Err(ReadError::TooManyMounts);
            }
            if buffer.len() == buffer.capacity() {
                buffer.reserve(buffer.len());
            }
        };
        if !buffer.is_empty() {
            take(&buffer);
            // The kernel ends each line with a line feed.
            is_complete &= !table.cgroup_lines.is_empty();
        }
        self.buffer.replace(buffer);
        match result {
            Ok(()) if !is_kept => Err(ReadError::TooManyMounts),
            Ok(()) if cgroups && !is_complete => Err(ReadError::Incomplete),
            other => other,
        }
    }
}
