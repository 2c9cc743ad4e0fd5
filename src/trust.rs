//! Whether a file is trusted, from the owners and modes along its path. Pure; [`crate::root`] follows the path.
//!
//! Files that influence what root does, such as the configuration, are used only if nobody but root can have written them:
//! every directory and symbolic link along the path, and the file itself, is owned by root or by the user that the program
//! runs as, and neither the group nor others have write permission. Write permission granted by an ACL is visible in the
//! group bits, so it is detected as well.

use std::fmt;

use rustix::fs::FileType;

use crate::parse::printable::Printable;

/// Write permission of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// The Nix store is sticky and writable by the group of its builders (1775): they can add to it, but cannot replace what is
/// owned by root. On NixOS, all of /etc leads there.
const NIX_STORE: &[u8] = b"/nix/store";

/// A component of a path.
#[derive(Clone, Copy, Debug)]
pub struct PathStep<'a> {
    /// The path up to and including this component.
    pub path: &'a [u8],
    /// `st_mode`, including the file type.
    pub mode: u32,
    /// `st_uid`
    pub owner: u32,
}

/// A path component that another user could have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The component: a directory, a symbolic link or the file itself.
    pub path: String,
    /// Its owner.
    pub owner: u32,
    /// Its permissions; 0777 for symbolic links.
    pub mode: u32,
    /// Whether the owner is the reason; otherwise it is the mode.
    pub is_foreign: bool,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, mode, is_foreign } = self;
        if *is_foreign {
            write!(f, "{path} is owned by user {owner}, who could use it to influence root")
        } else {
            let who = if mode & 0o002 != 0 { "everybody" } else { "its group" };
            write!(f, "{path} is writable by {who} (mode {mode:04o})")
        }
    }
}

impl PathStep<'_> {
    /// `Err`: a user other than root and `user` could have written it.
    ///
    /// `sticky`: accept sticky directories such as /tmp, provided that the next component is checked too: other users cannot
    /// replace what root owns in them.
    pub fn check(&self, user: u32, sticky: bool) -> Result<(), Untrusted> {
        let is_foreign = self.owner != 0 && self.owner != user;
        let file_type = FileType::from_raw_mode(self.mode);
        let is_link = file_type == FileType::Symlink;
        let is_store = self.path == NIX_STORE && self.mode & 0o002 == 0;
        let is_sticky = (sticky || is_store) && file_type == FileType::Directory && self.mode & STICKY != 0;
        if !is_foreign && (is_link || is_sticky || self.mode & WRITABLE_BY_OTHERS == 0) {
            return Ok(());
        }
        let path = if self.path.is_empty() { b"/" } else { self.path };
        let path = Printable(&String::from_utf8_lossy(path)).to_string();
        Err(Untrusted { path, owner: self.owner, mode: self.mode & 0o7777, is_foreign })
    }
}

#[cfg(test)]
mod tests {
    use super::PathStep;

    #[test]
    fn files_that_only_their_owner_can_write() {
        let (file, directory, link) = (0o100_000, 0o040_000, 0o120_000);
        for (path, mode, owner, user, trusted) in [
            ("/etc/a", file | 0o644, 0, 0, true),
            ("/etc/a", file | 0o644, 0, 1000, true),
            ("/home/u/a", file | 0o600, 1000, 1000, true),
            ("/home/u/a", file | 0o600, 1000, 0, false),
            ("/home/u/a", file | 0o600, 1001, 1000, false),
            ("/etc/a", file | 0o664, 0, 0, false),
            ("/etc/a", file | 0o646, 0, 0, false),
            ("/tmp", directory | 0o1777, 0, 0, false),
            ("/srv", directory | 0o1775, 0, 0, false),
            ("/nix/store", directory | 0o1775, 0, 0, true),
            ("/nix/store", directory | 0o0775, 0, 0, false),
            ("/nix/store", directory | 0o1777, 0, 0, false),
            ("/etc/l", link | 0o777, 0, 0, true),
            ("/etc/l", link | 0o777, 7, 0, false),
        ] {
            let step = PathStep { path: path.as_bytes(), mode, owner };
            assert_eq!(step.check(user, false).is_ok(), trusted, "{path} {mode:o} {owner} for {user}");
        }
    }

    #[test]
    fn sticky_directories_are_accepted_on_request() {
        for (mode, trusted) in [(0o041_777, true), (0o040_777, false), (0o101_666, false), (0o100_644, true)]
        {
            assert_eq!(
                (PathStep { path: b"/tmp", mode, owner: 0 }).check(0, true).is_ok(),
                trusted,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn messages() {
        let reason = |mode, owner| match (PathStep { path: b"/run/x", mode, owner }).check(0, false) {
            Ok(()) => String::new(),
            Err(untrusted) => untrusted.to_string(),
        };
        assert_eq!(reason(0o040_755, 997), "/run/x is owned by user 997, who could use it to influence root");
        assert_eq!(reason(0o042_775, 0), "/run/x is writable by its group (mode 2775)");
        assert_eq!(reason(0o041_777, 0), "/run/x is writable by everybody (mode 1777)");
    }
}
