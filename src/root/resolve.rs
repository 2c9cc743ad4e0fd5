//! Resolves a path to a descriptor: symbolic links step by step, no step onto a mount that could block the reader, and,
//! if the caller requests it, with a check of every component by [`crate::trust`]. Reads no contents.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{ReadError, Root, live_mount};
use crate::mounts::Mounts;
use crate::trust::PathStep;

/// The limit on symbolic links, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// The maximum number of components after resolving symbolic links; the kernel's limit on a path is 2048 (PATH_MAX).
const MAX_STEPS: usize = 4096;
/// The target of a symbolic link that masks a file.
const MASK: &[u8] = b"/dev/null";

/// What a path leads to.
pub(super) enum Resolved {
    /// A file or directory, opened with `O_PATH`.
    At(OwnedFd, Stat),
    /// A symbolic link to /dev/null, which itself may be missing.
    Mask,
}

/// Which path components may be under the control of users other than root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// All, as for systemd itself.
    Any,
    /// All but file systems that the kernel provides: another user named the path.
    Foreign,
    /// All but symbolic links, which could lead anywhere.
    Guarded,
    /// All but symbolic links; sticky directories such as /tmp do not count as controlled by others.
    GuardedSticky,
    /// None, but sticky directories such as /tmp are accepted.
    Owned,
    /// None.
    Full,
}

/// How a path is resolved.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// Whether to follow a symbolic link in the last component.
    pub(super) follow: bool,
    pub(super) trust: Trust,
}

/// The numbers of file systems that the kernel provides (linux/magic.h): proc, sysfs, debugfs, tracefs, cgroup, cgroup2,
/// securityfs, bpf, pstore, efivarfs, configfs, devpts, mqueue, binfmt_misc, selinuxfs, resctrl, nsfs, functionfs.
const KERNEL_FILE_SYSTEMS: [u32; 18] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x0027_e0eb,
    0x6367_7270,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
    0x6265_6570,
    0x1cd1,
    0x1980_0202,
    0x4249_4e4d,
    0xf97c_ff8c,
    0x0765_5821,
    0x6e73_6673,
    0x0a64_7361,
];

impl Root {
    /// Opens a path without symbolic links with one call of openat2. `None`: it contains some, or must be checked step
    /// by step.
    pub(super) fn open_plain(
        &self,
        path: &str,
        flags: OFlags,
        mounts: &Mounts,
    ) -> Option<Result<OwnedFd, ReadError>> {
        if !self.has_openat2.get() || self.process.is_some() || !is_plain(path) {
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
            Ok(opened) => Some(Ok(opened)),
            Err(Errno::NOENT) => Some(Err(ReadError::Missing)),
            Err(errno) => {
                if matches!(errno, Errno::NOSYS | Errno::PERM) {
                    self.has_openat2.set(false);
                }
                // A filter of system calls may return any error, so the others are those of the individual steps.
                None
            }
        }
    }

    /// Resolves `path`, opening each component without following it.
    pub(super) fn walk(&self, path: &str, walk: Walk, mounts: &Mounts) -> Result<Resolved, ReadError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (base, name) = self.base();
        let base = rustix::fs::openat(base, name, flags | OFlags::DIRECTORY, Mode::empty())?;
        let base_stat = rustix::fs::fstat(&base)?;
        let base_mount = self.process.map(|_| live_mount::id(&base)).transpose()?;
        let check = |path: &[u8], stat: &Stat| {
            PathStep { path, mode: stat.st_mode, owner: stat.st_uid }
                .check(self.user, matches!(walk.trust, Trust::Owned | Trust::GuardedSticky))
        };
        let must_be_trusted = matches!(walk.trust, Trust::Owned | Trust::Full);
        // The first component that another user could have written.
        let mut others = check(b"", &base_stat).err();
        if must_be_trusted && let Some(untrusted) = others {
            return Err(untrusted.into());
        }
        // The directories along the path, each with the length of its path, and its mount if that can change.
        let mut stack: Vec<(OwnedFd, Stat, usize, Option<u64>)> = Vec::new();
        let mut so_far: Vec<u8> = Vec::new();
        let mut pending: Vec<Vec<u8>> = steps(path.as_bytes());
        // A path on the command line may be relative to the working directory.
        if self.is_machine() && !path.starts_with('/') {
            pending.extend(steps(rustix::process::getcwd(Vec::new())?.as_bytes()));
        }
        let (mut links, mut taken) = (0, 0);
        // The number of pending components that are those of `path`; the others are of symbolic links.
        let mut of_path = pending.len();
        while let Some(step) = pending.pop() {
            taken += 1;
            let is_of_link = pending.len() >= of_path;
            of_path = of_path.min(pending.len());
            if taken > MAX_STEPS {
                return Err(ReadError::Os(Errno::NAMETOOLONG));
            }
            if step == b".." {
                stack.pop();
                so_far.truncate(stack.last().map_or(0, |(_, _, length, _)| *length));
                continue;
            }
            let directory = stack.last().map_or(base.as_fd(), |(directory, ..)| directory.as_fd());
            let parent = so_far.len();
            so_far.push(b'/');
            so_far.extend_from_slice(&step);
            if let Some(kind) = mounts.remote(&so_far) {
                return Err(ReadError::Remote(kind.to_owned()));
            }
            let at = match rustix::fs::openat(directory, step.as_slice(), flags, Mode::empty()) {
                Err(Errno::NOENT) if is_of_link && walk.trust == Trust::Full => {
                    return Err(ReadError::Dangling);
                }
                opened => opened?,
            };
            let mount = match self.process {
                None => None,
                Some(pid) => {
                    let mount = live_mount::id(&at)?;
                    if Some(mount) != stack.last().map_or(base_mount, |(.., mount)| *mount) {
                        live_mount::check(pid, mount)?;
                    }
                    Some(mount)
                }
            };
            let stat = rustix::fs::fstat(&at)?;
            if let Err(untrusted) = check(&so_far, &stat) {
                if must_be_trusted {
                    return Err(untrusted.into());
                }
                others = others.or(Some(untrusted));
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink if walk.follow || !pending.is_empty() => {
                    if matches!(walk.trust, Trust::Guarded | Trust::GuardedSticky)
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
                        return Ok(Resolved::Mask);
                    }
                    if target.first() == Some(&b'/') {
                        stack.clear();
                        so_far.clear();
                    } else {
                        so_far.truncate(parent);
                    }
                    pending.extend(steps(&target));
                }
                FileType::Directory => stack.push((at, stat, so_far.len(), mount)),
                _ if pending.is_empty() => return Ok(Resolved::At(at, stat)),
                _ => return Err(ReadError::Missing),
            }
        }
        Ok(match stack.pop() {
            Some((directory, stat, ..)) => Resolved::At(directory, stat),
            None => Resolved::At(base, base_stat),
        })
    }

    /// Opens the file at `path` for reading, or the directory with `OFlags::DIRECTORY`. `None`: it is masked.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, ReadError> {
        self.open_for(path, flags, Trust::Any, &self.mounts().mounts)
    }

    pub(super) fn open_for(
        &self,
        path: &str,
        flags: OFlags,
        trust: Trust,
        mounts: &Mounts,
    ) -> Result<Option<OwnedFd>, ReadError> {
        let reading = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Only the kernel can create files there.
        let at_once = flags.contains(OFlags::DIRECTORY)
            || (self.is_machine() && is_of_the_kernel(path) && trust != Trust::Foreign);
        let first = if at_once { reading } else { OFlags::PATH | OFlags::CLOEXEC };
        let found = match self.open_plain(path, first, mounts) {
            // If trust is required, check each component, unless it does not exist.
            Some(Ok(_)) if matches!(trust, Trust::Owned | Trust::Full) => {
                self.walk(path, Walk { follow: true, trust }, mounts)?
            }
            Some(opened) if at_once => return opened.map(Some),
            Some(opened) => {
                let opened = opened?;
                let stat = rustix::fs::fstat(&opened)?;
                Resolved::At(opened, stat)
            }
            None => self.walk(path, Walk { follow: true, trust }, mounts)?,
        };
        match found {
            Resolved::At(found, _) if trust == Trust::Foreign && is_on_a_kernel_file_system(&found) => {
                Err(ReadError::NotAFile)
            }
            Resolved::At(found, stat) => reopen(&found, &stat, flags).map(Some),
            Resolved::Mask if flags.contains(OFlags::DIRECTORY) => Err(ReadError::Missing),
            Resolved::Mask => Ok(None),
        }
    }

    /// Opens what is at `path` with `O_PATH`; symbolic links are not followed at the end.
    pub(super) fn look(&self, path: &str) -> Result<OwnedFd, ReadError> {
        let mounts = &self.mounts().mounts;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_plain(path, flags, mounts) {
            Some(opened) => opened,
            None => match self.walk(path, Walk { follow: false, trust: Trust::Any }, mounts)? {
                Resolved::At(found, _) => Ok(found),
                Resolved::Mask => Err(ReadError::Missing),
            },
        }
    }
}

/// Opens the file or directory of an `O_PATH` descriptor for reading.
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
    // This name refers to the open file even if its path has changed meanwhile.
    let name = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(rustix::fs::open(name, flags, Mode::empty())?)
}

/// Whether a file is made by the kernel: reading one may consume what is in it (/proc/kmsg, trace_pipe), block, or have other
/// effects, although they are regular files. If it is unknown, it counts as one.
fn is_on_a_kernel_file_system(found: &OwnedFd) -> bool {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "statfs(2): the numbers have 32 bits"
    )]
    let kind = rustix::fs::fstatfs(found).map(|stat| stat.f_type as u32);
    kind.is_ok_and(|kind| KERNEL_FILE_SYSTEMS.contains(&kind)) || kind.is_err()
}

/// Whether a path is normalized: absolute, without `.`, `..` and repeated slashes.
fn is_plain(path: &str) -> bool {
    let path = path.as_bytes();
    let mut after_slash = false;
    let is_normal = |byte: &u8| {
        let is_normal = !(after_slash && matches!(byte, b'/' | b'.'));
        after_slash = *byte == b'/';
        is_normal
    };
    path.first() == Some(&b'/')
        && path.iter().all(is_normal)
        && (path.len() == 1 || path.last() != Some(&b'/'))
}

/// Whether only the kernel can create files there.
fn is_of_the_kernel(path: &str) -> bool {
    path.starts_with("/proc/") || path.starts_with("/sys/")
}

/// The components of a path in reverse order.
fn steps(path: &[u8]) -> Vec<Vec<u8>> {
    let steps = path.split(|byte| *byte == b'/').rev();
    steps.filter(|step| !step.is_empty() && *step != b".").map(<[u8]>::to_vec).collect()
}
