//! What the generator asks of the kernel, and nothing else, for benches/cost: `reads DIR PATH...` reads each file whole, lists
//! each directory (a path that ends in a slash), then puts one file into DIR. Nothing is looked at.

use std::mem::MaybeUninit;

use rustix::fs::{Mode, OFlags, RawDir};

// The generator's, see Cargo.toml.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> rustix::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().unwrap_or_default();
    let mut buffer = Box::new_uninit_slice(16 << 10);
    for path in arguments {
        // Most of them are missing, as for the generator.
        let _ = read(&path, &mut buffer);
    }
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdir(format!("{out}/reads.d"), mode)?;
    let (temporary, path) = (format!("{out}/reads.d/.reads"), format!("{out}/reads.d/reads.conf"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(&temporary, flags, mode)?;
    rustix::io::write(&file, &[b'#'; 1200])?;
    drop(file);
    rustix::fs::rename(&temporary, &path)
}

fn read(path: &str, buffer: &mut [MaybeUninit<u8>]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if path.ends_with('/') {
        let directory = rustix::fs::open(path, flags | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = RawDir::new(&directory, buffer);
        while names.next().is_some() {}
    } else {
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        while !rustix::io::read(&file, &mut *buffer)?.0.is_empty() {}
    }
    Ok(())
}
