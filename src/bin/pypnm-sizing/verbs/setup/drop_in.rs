//! The text of the drop-in that adapts the packaged unit to a PyPNM in another directory. Pure.

use std::fmt::Write as _;

/// The operator's unit files (systemd.unit(5)).
pub(super) const OPERATORS: &str = "/etc/systemd/system";
/// The file name of the drop-in, in the directory `UNIT.d` below [`OPERATORS`].
pub(super) const DROP_IN: &str = "50-place.conf";
/// The beginning of the file, by which `setup` recognizes its own files.
pub(super) const MARK: &str = "# Written by 'pypnm-sizing setup'";
/// The rest of `PATH` after the environment's directory (systemd.exec(5), `DEFAULT_PATH`).
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// The settings that the drop-in may contain.
pub(super) const SETTINGS: [&str; 15] = [
    "ConditionFileIsExecutable",
    "RequiresMountsFor",
    "User",
    "Group",
    "Environment",
    "WorkingDirectory",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "StateDirectory",
    "CacheDirectory",
    "ProtectHome",
    "TemporaryFileSystem",
    "UMask",
    "BindPaths",
    "BindReadOnlyPaths",
];

/// The inputs of the drop-in: where PyPNM is, and how to run it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DropIn {
    pub(super) unit: String,
    /// The program in the environment.
    pub(super) command: String,
    /// The directory that has `bin`.
    pub(super) environment: String,
    /// Whether its Python looks for packages in a home directory instead, as after `pip install --user`.
    pub(super) is_user_base: bool,
    /// The checkout that it works in; `None`: in /var/lib, as packaged.
    pub(super) checkout: Option<String>,
    /// User and group; `None`: as packaged.
    pub(super) account: Option<(String, String)>,
    /// The parts of home directories that are not hidden. `None`: the service needs none.
    pub(super) home: Option<Home>,
    /// Variables for the address, and their values.
    pub(super) address: Vec<(String, String)>,
}

/// The parts of home directories that the service needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    /// The home directory of the user, if it is not one of those that `ProtectHome=` hides.
    pub(super) elsewhere: Option<String>,
    pub(super) writable: Vec<String>,
    pub(super) readable: Vec<String>,
    /// Directories, and other names that the program has for them.
    pub(super) aliases: Vec<(String, String)>,
}

impl DropIn {
    /// The drop-in.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            // Writing into a string can't fail.
            let _ = writeln!(text, "{line}");
        };
        line(&format!(
            "{MARK} for {}; 'pypnm-sizing setup --remove --unit {}' undoes it.",
            self.environment, self.unit
        ));
        line(&format!(
            "# Running it again replaces this file, so keep your own settings in another one ('systemctl edit {}').",
            self.unit
        ));
        line("");
        line("[Unit]");
        line(
            "# The program is not in a directory known to the packaged unit. If it is missing, the start is skipped and does not fail.",
        );
        line("ConditionFileIsExecutable=");
        line(&format!("ConditionFileIsExecutable={}", self.command));
        line("# Mount its file system first, if it is on a separate one.");
        let mounts: Vec<&str> =
            self.checkout.iter().map(String::as_str).chain([self.environment.as_str()]).collect();
        line(&format!("RequiresMountsFor={}", mounts.join(" ")));
        line("");
        line("[Service]");
        if let Some((user, group)) = &self.account {
            line("# The user that can read it, and write to its data.");
            line(&format!("User={}", user.replace('%', "%%")));
            line(&format!("Group={}", group.replace('%', "%%")));
        }
        line("# The launcher finds the program in its environment.");
        line(&format!("Environment=PATH={}/bin:{SYSTEM_PATH}", self.environment));
        if self.is_user_base {
            line(
                "# Where 'pip install --user' put it; otherwise Python looks in the home directory of the service.",
            );
            line(&format!("Environment=PYTHONUSERBASE={}", self.environment));
        }
        if !self.address.is_empty() {
            line("# The address to listen on; EnvironmentFile= takes precedence.");
            // The interface of a link-local address follows a %, which begins a specifier.
            let words: Vec<String> = self
                .address
                .iter()
                .map(|(key, value)| format!("{key}={}", value.replace('%', "%%")))
                .collect();
            line(&format!("Environment={}", words.join(" ")));
        }
        if let Some(checkout) = &self.checkout {
            line("# PyPNM writes .data and logs below its working directory, and imports src from there.");
            line(&format!("WorkingDirectory={checkout}"));
            line(&format!("ReadWritePaths={checkout}"));
            line("# The service cannot change the programs that it runs.");
            line(&format!("ReadOnlyPaths={}", self.environment));
            line("# Its data is in the checkout, not in /var/lib and /var/cache.");
            line("StateDirectory=");
            line("CacheDirectory=");
            line("# Caches that libraries keep in a home directory, and matplotlib's list of fonts.");
            line(&format!("Environment=HOME={checkout}/.data MPLCONFIGDIR={checkout}/.data/matplotlib"));
        }
        if let Some(home) = &self.home {
            line("# Home directories remain hidden from the service, except for what it needs in them.");
            line("ProtectHome=tmpfs");
            if let Some(directory) = &home.elsewhere {
                line(&format!("TemporaryFileSystem={directory}:ro"));
            }
            line(
                "# systemd 247 creates the parent directories with this mask; 0027 would make them inaccessible.",
            );
            line("UMask=0026");
            for path in &home.writable {
                line(&format!("BindPaths={path}"));
            }
            for path in &home.readable {
                line(&format!("BindReadOnlyPaths={path}"));
            }
            if !home.aliases.is_empty() {
                line(
                    "# Its programs and packages have these names, which lead there through symbolic links.",
                );
            }
            for (path, name) in &home.aliases {
                line(&format!("BindReadOnlyPaths={path}:{name}"));
            }
        }
        text
    }
}
