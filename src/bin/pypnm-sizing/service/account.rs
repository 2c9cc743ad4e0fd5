//! User accounts, and whether a user may access a file according to its owner, group and mode (path_resolution(7)). Access
//! control lists are ignored; if one grants more than the mode, the message describes only the mode.
//!
//! Accounts are read from /etc/passwd and /etc/group; on the running machine, getent(1) also provides those of directory
//! services.

use std::process::{Command, Stdio};

use pypnm_sizing::root::Root;

/// The user that a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    /// The primary group.
    pub(crate) gid: u32,
    /// Its name, or its number if it has none.
    pub(crate) group: String,
    /// The home directory.
    pub(crate) home: String,
    /// All groups, including the primary one.
    groups: Vec<u32>,
}

/// The intended use of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A directory along the path.
    Search,
    /// A file or directory to read.
    Read,
    /// A directory to create files in, or a file to write to.
    Write,
    /// A program to start.
    Execute,
}

impl Access {
    /// The permission bits that it requires.
    fn bits(self) -> u32 {
        match self {
            Self::Search | Self::Execute => 0o1,
            Self::Read => 0o4,
            Self::Write => 0o2,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Search => "enter",
            Self::Read => "read",
            Self::Write => "write to",
            Self::Execute => "execute",
        }
    }
}

impl Account {
    /// The account with this name or number. `None`: there is none.
    pub(crate) fn find(root: &Root, key: &str) -> Option<Self> {
        let line = entry(root, "passwd", key)?;
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
        let group = entry(root, "group", &gid.to_string());
        let group = group.as_deref().and_then(|line| line.split(':').next()).map(str::to_owned);
        let mut groups = vec![gid];
        let database = root.bytes("/etc/group").unwrap_or_default();
        let database = String::from_utf8_lossy(&database);
        for line in database.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [_, _, number, members] = fields.as_slice()
                && members.split(',').any(|member| member == *name)
            {
                groups.extend(number.parse::<u32>());
            }
        }
        Some(Self {
            name: (*name).to_owned(),
            uid,
            gid,
            group: group.unwrap_or_else(|| gid.to_string()),
            home: (*home).to_owned(),
            groups,
        })
    }

    /// Why the account cannot use a path in this way. `None`: it can. The path contains no symbolic links (`real_path`).
    pub(crate) fn obstacle(&self, root: &Root, path: &str, access: Access) -> Option<String> {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0);
        let above =
            ends.filter_map(|end| path.get(..end)).find_map(|step| self.denied(root, step, Access::Search));
        above.or_else(|| self.denied(root, path, access))
    }

    fn denied(&self, root: &Root, path: &str, access: Access) -> Option<String> {
        let Some(stat) = root.stat(path) else {
            return Some(format!("{path} cannot be accessed"));
        };
        let shift = match () {
            () if self.uid == 0 => return None,
            () if stat.st_uid == self.uid => 6,
            () if self.groups.contains(&stat.st_gid) => 3,
            () => 0,
        };
        let bits = stat.st_mode >> shift & 0o7;
        if bits & access.bits() == access.bits() {
            return None;
        }
        let owner = Self::find(root, &stat.st_uid.to_string())
            .map_or_else(|| stat.st_uid.to_string(), |owner| owner.name);
        let mode = stat.st_mode & 0o7777;
        Some(format!("{} cannot {} {path} (owner {owner}, mode {mode:04o})", self.name, access.verb()))
    }
}

/// The home directories in /etc/passwd.
pub(crate) fn homes(root: &Root) -> impl Iterator<Item = String> {
    let bytes = root.bytes("/etc/passwd").unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut homes: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(':').nth(5))
        .filter(|home| home.starts_with('/') && !home.contains('\u{fffd}'))
        .map(|home| home.trim_end_matches('/').to_owned())
        .filter(|home| !home.is_empty())
        .collect();
    homes.sort_unstable();
    homes.dedup();
    homes.into_iter()
}

/// The line of an account or a group by name or number.
fn entry(root: &Root, database: &str, key: &str) -> Option<String> {
    let is_it = |line: &&str| {
        let mut fields = line.split(':');
        fields.next() == Some(key) || fields.nth(1) == Some(key)
    };
    // Names of people in another encoding than UTF-8 do not matter.
    let bytes = root.bytes(&format!("/etc/{database}")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let found = text.lines().find(is_it).map(str::to_owned);
    if found.is_some() || !root.is_machine() {
        return found;
    }
    getent(database, key)?.lines().next().map(str::to_owned)
}

/// The output of getent(1), which uses the name service of this machine; a statically linked program has none. Empty: there is
/// no such entry.
pub(crate) fn getent(database: &str, key: &str) -> Option<String> {
    let mut getent = Command::new("getent");
    getent.args([database, key]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = getent.output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
