//! The installed generator: whether systemd runs it at the next reload.

use std::os::unix::fs::PermissionsExt as _;

use pypnm_sizing::root::Root;

/// The directories of generators. systemd runs the first one of each name (systemd.generator(7)).
const DIRECTORIES: [&str; 4] = [
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];
const NAME: &str = "pypnm-sizing-generator";

/// The state of the generator's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Generator {
    Installed,
    Missing,
    /// Masked by this empty file or symbolic link to /dev/null.
    Masked(String),
    NotExecutable(String),
}

impl Generator {
    /// The state on the running machine.
    pub(crate) fn find(root: &Root) -> Self {
        for directory in DIRECTORIES {
            let path = format!("{directory}/{NAME}");
            match std::fs::metadata(&path) {
                _ if root.link(&path).is_some_and(|to| to == "/dev/null") => return Self::Masked(path),
                Err(_) => {}
                Ok(file) if file.len() == 0 => return Self::Masked(path),
                Ok(file) if file.permissions().mode() & 0o111 == 0 => return Self::NotExecutable(path),
                Ok(_) => return Self::Installed,
            }
        }
        Self::Missing
    }
}
