//! From a path to a descriptor: links one step at a time, no step onto a mount that could make the reader wait, and where the
//! caller asks for it, every step judged by [`crate::trust`]. What is opened is read elsewhere.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{ReadError, Root, live_mount};
use crate::mounts::Mounts;
use crate::trust::Step;

/// As the kernel has it (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// The most steps of a path, links resolved; the kernel's paths have 2048 at most (PATH_MAX).
const MAX_STEPS: usize = 4096;
/// A link that masks what would lie there.
const MASK: &[u8] = b"/dev/null";

/// What a path leads to.
pub(super) enum Found {
    /// This, opened with `O_PATH`.
    At(OwnedFd, Stat),
    /// A link to /dev/null, which need not be there.
    Mask,
}

/// How far a path may lead through what others than root can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Wherever it leads, as for systemd itself.
    Lead,
    /// To a file of theirs, but not by a link of theirs: it could lead anywhere.
    Own,
    /// Likewise, but a sticky directory such as /tmp is not theirs to lead by.
    OwnSticky,
    /// Nowhere, but a sticky directory such as /tmp may be on the way.
    Sticky,
    /// Nowhere.
    Nothing,
}

/// How a path is resolved.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// The last step may be a link, and what it points to counts.
    pub(super) follow: bool,
    pub(super) others: Others,
}

impl Root {
    /// One call of openat2 for a path without links; `None`: it has some, or must be looked at step by step.
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
            Err(Errno::NOSYS | Errno::PERM) => {
                self.has_openat2.set(false);
                None
            }
            Err(Errno::LOOP) => None,
            opened => Some(opened.map_err(ReadError::from)),
        }
    }

    /// What `path` leads to, each step opened without being followed.
    pub(super) fn walk(&self, path: &str, walk: Walk, mounts: &Mounts) -> Result<Found, ReadError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (base, name) = self.base();
        let base = rustix::fs::openat(base, name, flags | OFlags::DIRECTORY, Mode::empty())?;
        let base_stat = rustix::fs::fstat(&base)?;
        let base_mount = self.process.map(|_| live_mount::id(&base)).transpose()?;
        let check = |path: &[u8], stat: &Stat| {
            Step { path, mode: stat.st_mode, owner: stat.st_uid }
                .check(self.user, matches!(walk.others, Others::Sticky | Others::OwnSticky))
        };
        let must_be_trusted = matches!(walk.others, Others::Sticky | Others::Nothing);
        // Others may write somewhere on the way.
        let mut others = check(b"", &base_stat).err();
        if must_be_trusted && let Some(untrusted) = others {
            return Err(untrusted.into());
        }
        // Each directory on the way, how long its path is, and its mount where that may change.
        let mut stack: Vec<(OwnedFd, Stat, usize, Option<u64>)> = Vec::new();
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
            let at = rustix::fs::openat(directory, step.as_slice(), flags, Mode::empty())?;
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
                    if matches!(walk.others, Others::Own | Others::OwnSticky)
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
                FileType::Directory => stack.push((at, stat, so_far.len(), mount)),
                _ if pending.is_empty() => return Ok(Found::At(at, stat)),
                _ => return Err(ReadError::Missing),
            }
        }
        Ok(match stack.pop() {
            Some((directory, stat, ..)) => Found::At(directory, stat),
            None => Found::At(base, base_stat),
        })
    }

    /// Opens the file, or with `OFlags::DIRECTORY` the directory, at `path`, which is absolute, for reading. `None`: it is a
    /// mask.
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, ReadError> {
        self.open_for(path, flags, Others::Lead, &self.mounts().mounts)
    }

    pub(super) fn open_for(
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
    pub(super) fn look(&self, path: &str) -> Result<OwnedFd, ReadError> {
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
        && !path.windows(2).any(|pair| matches!(pair, b"/." | b"//"))
        && (path.len() == 1 || path.last() != Some(&b'/'))
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
