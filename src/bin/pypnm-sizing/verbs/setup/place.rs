//! The drop-in that fits the packaged unit to a PyPNM in another place. Pure: decides nothing, reads nothing.

use std::fmt::Write as _;

/// Begins the file that is ours.
pub(super) const MARK: &str = "# Written by 'pypnm-sizing setup'";
/// What the services look through after the environment (systemd.exec(5), `DEFAULT_PATH`).
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Where a PyPNM is and how it is to be run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) unit: String,
    /// The program in the environment.
    pub(super) command: String,
    /// The directory that has `bin`.
    pub(super) environment: String,
    /// The checkout that it works in; `None`: in /var/lib, as packaged.
    pub(super) checkout: Option<String>,
    /// User and group; `None`: as packaged.
    pub(super) account: Option<(String, String)>,
    /// `/home`, `/root` and `/run/user` are to hide everything but these.
    pub(super) home: Option<Home>,
    /// Variables for the address, and their values.
    pub(super) address: Vec<(String, String)>,
}

/// What of the home directories the service needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) writable: Vec<String>,
    pub(super) readable: Vec<String>,
}

impl Place {
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
            "# Running it again replaces this file: keep your own settings in another one ('systemctl edit {}').",
            self.unit
        ));
        line("");
        line("[Unit]");
        line(
            "# The program is not in one of the packaged places. If it is missing, starting is skipped and does not fail.",
        );
        line("ConditionFileIsExecutable=");
        line(&format!("ConditionFileIsExecutable={}", self.command));
        line("# Mount its file system first, if it has one of its own.");
        let mounts: Vec<&str> =
            self.checkout.iter().map(String::as_str).chain([self.environment.as_str()]).collect();
        line(&format!("RequiresMountsFor={}", mounts.join(" ")));
        line("");
        line("[Service]");
        if let Some((user, group)) = &self.account {
            line("# The account that can read it, and write to its data.");
            line(&format!("User={user}"));
            line(&format!("Group={group}"));
        }
        line("# The launcher finds the program in its environment.");
        line(&format!("Environment=PATH={}/bin:{SYSTEM_PATH}", self.environment));
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
            line("# Home directories stay hidden from the service, except for what it needs in them.");
            line("ProtectHome=tmpfs");
            line("# systemd 247 makes the directories above them with this mask: 0027 would close them.");
            line("UMask=0026");
            for path in &home.writable {
                line(&format!("BindPaths={path}"));
            }
            for path in &home.readable {
                line(&format!("BindReadOnlyPaths={path}"));
            }
        }
        text
    }
}
