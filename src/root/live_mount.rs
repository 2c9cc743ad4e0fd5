//! What the kernel says now of the mount that an open file lies on. For the files of a process that may mount and unmount
//! while they are read: what its mountinfo said before is no promise.
//!
//! An `O_PATH` descriptor is had without a word from the file system that it leads onto, and while it is open the kernel
//! gives the mount's ID to no other mount.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{ReadError, read};
use crate::mounts;

/// The ID of the mount that an open file lies on (`mnt_id` in proc_pid_fdinfo(5)).
pub(super) fn id(file: impl AsFd) -> Result<u64, ReadError> {
    let bytes = kernel_file(&format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or(ReadError::Os(Errno::NOSYS))
}

/// Fails where the mount `id` in the namespace of the process could make the reader wait, or is there no more.
pub(super) fn check(pid: u32, id: u64) -> Result<(), ReadError> {
    let bytes = kernel_file(&format!("/proc/{pid}/mountinfo"))?;
    match mounts::kind_of(&bytes, id) {
        None => Err(ReadError::Remote("unknown".to_owned())),
        Some((_, true)) => Ok(()),
        Some((kind, false)) => Err(ReadError::Remote(kind)),
    }
}

/// The content of a file that the kernel makes.
fn kernel_file(path: &str) -> Result<Vec<u8>, ReadError> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    read(&file, &mut bytes)?;
    Ok(bytes)
}
