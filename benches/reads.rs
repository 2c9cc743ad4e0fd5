//! The generator's system calls without its work, for benches/cost: `reads DIR PATH...` reads each file completely, lists each
//! directory (a path that ends in a slash), calls fstat(2) on the path after a `?`, and then writes a file in DIR. It examines
//! nothing that it reads.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;

use rustix::fs::{Mode, OFlags, RawDir};

// That of the generator, see Cargo.toml.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> rustix::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().unwrap_or_default();
    let mut buffer = Box::new_uninit_slice(16 << 10);
    for path in arguments {
        // Most of the files are missing; the generator ignores that as well.
        let _ = read(&path, &mut buffer);
    }
    let mode = Mode::from_raw_mode(0o755);
    let directory = format!("{out}/reads.d");
    rustix::fs::mkdir(&directory, mode)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(&directory, flags, Mode::empty())?;
    rustix::fs::fchmod(&directory, mode)?;
    let pinned = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let (temporary, path) = (format!("{pinned}/.reads"), format!("{pinned}/reads.conf"));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, &[b'#'; 1200])?;
    rustix::fs::rename(&temporary, &path)
}

fn read(path: &str, buffer: &mut [MaybeUninit<u8>]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Some(path) = path.strip_prefix('?') {
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::fstat(&found)?;
    } else if path.ends_with('/') {
        let directory = rustix::fs::open(path, flags | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = RawDir::new(&directory, buffer);
        while names.next().is_some() {}
    } else {
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        while !rustix::io::read(&file, &mut *buffer)?.0.is_empty() {}
    }
    Ok(())
}
