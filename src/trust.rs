//! Whose word counts. Pure: owners and modes in, a verdict out; [`crate::root`] looks at each step of a path.
//!
//! What leads root (configuration, and whatever else decides what a program of root's does) counts only where nobody but
//! root can have written it: every directory and every link on the way, and the file itself, belongs to root or to the
//! user that the program runs as, and neither its group nor others may write to it. An ACL that lets somebody write shows
//! in the group's bits, so it is seen as well.

use std::fmt;

use rustix::fs::FileType;

use crate::parse::printable::Printable;

/// Anybody but the owner may write: the group, or others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// Nix's store is its builders' group's to write and sticky (1775): they can add to it, but what is root's in it stays.
/// All of NixOS's /etc leads there.
const NIX_STORE: &[u8] = b"/nix/store";

/// One step of a path.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// All of the path up to and with this step.
    pub path: &'a [u8],
    /// `st_mode`, the type included.
    pub mode: u32,
    /// `st_uid`
    pub owner: u32,
}

/// A step that somebody else could have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The step: a directory, a link or the file itself.
    pub path: String,
    /// Its owner.
    pub owner: u32,
    /// Its permissions; 0777 for every link.
    pub mode: u32,
    /// Whether its owner is what is wrong with it, else its mode.
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

impl Step<'_> {
    /// `Err`: somebody other than root and `user` could have written it.
    ///
    /// `sticky`: a sticky directory such as /tmp will do, where the next step is checked as well: what is root's in there
    /// nobody else can replace.
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
    use super::Step;

    #[test]
    fn what_only_its_owner_can_write() {
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
            let step = Step { path: path.as_bytes(), mode, owner };
            assert_eq!(step.check(user, false).is_ok(), trusted, "{path} {mode:o} {owner} for {user}");
        }
    }

    #[test]
    fn sticky_directories_where_they_will_do() {
        for (mode, trusted) in [(0o041_777, true), (0o040_777, false), (0o101_666, false), (0o100_644, true)]
        {
            assert_eq!((Step { path: b"/tmp", mode, owner: 0 }).check(0, true).is_ok(), trusted, "{mode:o}");
        }
    }

    #[test]
    fn what_is_said() {
        let said = |mode, owner| match (Step { path: b"/run/x", mode, owner }).check(0, false) {
            Ok(()) => String::new(),
            Err(untrusted) => untrusted.to_string(),
        };
        assert_eq!(said(0o040_755, 997), "/run/x is owned by user 997, who could use it to influence root");
        assert_eq!(said(0o042_775, 0), "/run/x is writable by its group (mode 2775)");
        assert_eq!(said(0o041_777, 0), "/run/x is writable by everybody (mode 1777)");
    }
}
