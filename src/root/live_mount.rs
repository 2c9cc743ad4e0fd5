//! The current type of the mount that an open file is on, for reading the files of a process that can mount and unmount
//! file systems meanwhile, so that its mountinfo may be out of date.
//!
//! Opening a file with `O_PATH` does not involve the file system that it is on. While the descriptor is open, the
//! kernel does not assign the ID of its mount to another one.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{ReadError, read};
use crate::mounts;

/// The ID of the mount that an open file is on (`mnt_id` in proc_pid_fdinfo(5)).
pub(super) fn id(file: impl AsFd) -> Result<u64, ReadError> {
    let bytes = kernel_file(&format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let text = String::from_utf8_lossy(&bytes);
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or(ReadError::Os(Errno::NOSYS))
}

/// Fails if the mount `id` in the mount namespace of the process could block the reader, or does not exist any more.
pub(super) fn check(pid: u32, id: u64) -> Result<(), ReadError> {
    let bytes = kernel_file(&format!("/proc/{pid}/mountinfo"))?;
    match mounts::kind_of(&bytes, id) {
        None => Err(ReadError::Remote("unknown".to_owned())),
        Some((_, true)) => Ok(()),
        Some((kind, false)) => Err(ReadError::Remote(kind)),
    }
}

/// The contents of a file provided by the kernel.
fn kernel_file(path: &str) -> Result<Vec<u8>, ReadError> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    read(&file, &mut bytes)?;
    Ok(bytes)
}
