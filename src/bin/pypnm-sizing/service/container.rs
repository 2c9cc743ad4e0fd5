//! A process in a container, seen from inside or from its host: its files as it sees them, and the profile that it reads.
//!
//! The files are controlled by root in the container, so root on the host must be careful: paths are resolved below the root
//! of the process, symbolic links cannot lead out of it, and only regular files on file systems that do not block are opened
//! ([`Root::of_process`]).

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use pypnm_sizing::root::{MAX_FILE_BYTES, ReadError, Root};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::process::{self, namespace, namespace_pids};

/// The file system on which memfd_create(2) creates files (`TMPFS_MAGIC` in statfs(2)).
const TMPFS: u64 = 0x0102_1994;

/// The files of a process.
#[derive(Debug)]
pub(crate) enum ProcessFiles {
    /// The same files that the caller sees.
    Same,
    /// Those of another mount namespace.
    Own(Box<Root>),
    /// The caller is not permitted to read them.
    Denied,
}

impl ProcessFiles {
    pub(crate) fn find(machine: &Root, pid: u32) -> Result<Self, ReadError> {
        match (namespace(&pid.to_string(), "mnt"), namespace("self", "mnt")) {
            (Ok(its), Ok(own)) if its == own => Ok(Self::Same),
            (Ok(_), Ok(_)) => Ok(Self::Own(Box::new(Root::of_process(pid)?))),
            // Processes in the caller's PID namespace are in the caller's container.
            (Err(Errno::ACCESS | Errno::PERM), _) if namespace_pids(machine, pid).len() <= 1 => {
                Ok(Self::Same)
            }
            (Err(Errno::ACCESS | Errno::PERM), _) => Ok(Self::Denied),
            (Err(errno), _) | (_, Err(errno)) => Err(errno.into()),
        }
    }

    /// The root below which the files are read. `None`: they cannot be read.
    pub(crate) fn root<'a>(&'a self, machine: &'a Root) -> Option<&'a Root> {
        match self {
            Self::Same => Some(machine),
            Self::Own(root) => Some(root),
            Self::Denied => None,
        }
    }
}

/// Whether a process is in a container: in a PID namespace nested in the caller's. Needs no privilege.
pub(crate) fn is_contained(machine: &Root, pid: u32) -> bool {
    namespace_pids(machine, pid).len() > 1
}

/// The text of the profile file that a process in `family` sees at `path`.
pub(crate) fn profile_text(
    machine: &Root,
    files: &ProcessFiles,
    family: &[u32],
    path: &str,
) -> Result<String, ReadError> {
    let root = files.root(machine).ok_or(ReadError::Os(Errno::ACCESS))?;
    match descriptor(path) {
        Some((owner, descriptor)) => {
            let holder = family.iter().find(|pid| namespace_pids(machine, **pid).last() == Some(&owner));
            text_in_memory(*holder.ok_or(ReadError::Missing)?, descriptor)
        }
        None => process::text_of_file(root, path),
    }
}

/// The process and the descriptor in `/proc/PID/fd/N`.
fn descriptor(path: &str) -> Option<(u32, u32)> {
    let (pid, descriptor) = path.strip_prefix("/proc/")?.split_once("/fd/")?;
    Some((pid.parse().ok()?, descriptor.parse().ok()?))
}

/// The text of a file that a process holds open, if it is a regular file in memory.
fn text_in_memory(pid: u32, descriptor: u32) -> Result<String, ReadError> {
    // This link is the kernel's own. With O_PATH, its target is not opened.
    let path = format!("/proc/{pid}/fd/{descriptor}");
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    #[allow(
        clippy::useless_conversion,
        clippy::cast_sign_loss,
        reason = "its type differs between architectures"
    )]
    let kind = rustix::fs::fstatfs(&found)?.f_type as u64;
    if kind != TMPFS {
        return Err(ReadError::NotAFile);
    }
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadError::NotAFile);
    }
    if usize::try_from(stat.st_size).map_or(true, |size| size > MAX_FILE_BYTES) {
        return Err(ReadError::TooLarge);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    let read = File::from(file).take(limit).read_to_end(&mut bytes);
    read.map_err(|error| ReadError::Os(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    String::from_utf8(bytes).map_err(|_| ReadError::NotText)
}

#[cfg(test)]
mod tests {
    use super::{descriptor, text_in_memory};
    use pypnm_sizing::root::ReadError;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn names_of_descriptors() {
        assert_eq!(descriptor("/proc/1/fd/3"), Some((1, 3)));
        for other in ["/proc/self/fd/3", "/proc/1/fd/3/x", "/proc/1/root/etc/passwd", "/data/proc/1/fd/3", ""]
        {
            assert_eq!(descriptor(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_file_in_memory_is_read_by_its_descriptor() -> std::io::Result<()> {
        let own = std::process::id();
        let number = |file: &dyn std::os::fd::AsRawFd| u32::try_from(file.as_raw_fd()).unwrap_or_default();
        let memory = rustix::fs::memfd_create("profile", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::io::write(&memory, b"A=1\n")?;
        assert_eq!(text_in_memory(own, number(&memory)).as_deref(), Ok("A=1\n"));
        let device = std::fs::File::open("/dev/null")?;
        assert_eq!(text_in_memory(own, number(&device)), Err(ReadError::NotAFile));
        let (reader, _writer) = std::io::pipe()?;
        assert_eq!(text_in_memory(own, number(&reader)), Err(ReadError::NotAFile));
        assert_eq!(text_in_memory(own, 1_000_000), Err(ReadError::Missing));
        let _ = memory.as_raw_fd();
        Ok(())
    }
}
