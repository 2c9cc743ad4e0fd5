//! The text of the drop-in that adapts the packaged unit to a PyPNM in another directory. Pure.

use crate::service::pypnm::DEFAULT_PATH;

/// The operator's unit files (systemd.unit(5)).
pub(super) const OPERATORS: &str = "/etc/systemd/system";
/// The file name of the drop-in, in the directory `UNIT.d` below [`OPERATORS`].
pub(super) const DROP_IN: &str = "50-place.conf";
/// The beginning of the file, by which `setup` recognizes its own files.
pub(super) const MARK: &str = "# Written by 'pypnm-sizing setup'";

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
pub(super) struct SetupDropIn {
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

impl SetupDropIn {
    /// The drop-in.
    pub(super) fn text(&self) -> String {
        let Self { unit, environment, command, .. } = self;
        let escaped = |value: &str| value.replace('%', "%%");
        let mounts: Vec<&str> = self.checkout.iter().chain([environment]).map(String::as_str).collect();
        let mut text = format!(
            "{MARK} for {environment}; 'pypnm-sizing setup --remove --unit {unit}' undoes it.\n\
             # Running it again replaces this file, so keep your own settings in another one ('systemctl edit {unit}').\n\
             \n\
             [Unit]\n\
             # The program is not in a directory known to the packaged unit. If it is missing, starting is skipped and does not fail.\n\
             ConditionFileIsExecutable=\n\
             ConditionFileIsExecutable={command}\n\
             # Mount its file system first, if it is on a separate one.\n\
             RequiresMountsFor={}\n\
             \n\
             [Service]\n",
            mounts.join(" ")
        );
        let mut add = |lines: String| text.push_str(&lines);
        if let Some((user, group)) = &self.account {
            let (user, group) = (escaped(user), escaped(group));
            add(format!(
                "# A user that can read the program and write to its data.\n\
                 User={user}\n\
                 Group={group}\n"
            ));
        }
        add(format!(
            "# The launcher finds the program in its environment.\n\
             Environment=PATH={environment}/bin:{DEFAULT_PATH}\n"
        ));
        if self.is_user_base {
            add(format!(
                "# Where 'pip install --user' put it; otherwise Python looks in the home directory of the service.\n\
                 Environment=PYTHONUSERBASE={environment}\n"
            ));
        }
        if !self.address.is_empty() {
            // The interface of a link-local address follows a %, which begins a specifier.
            let words = self.address.iter().map(|(key, value)| format!("{key}={}", escaped(value)));
            let words = words.collect::<Vec<_>>().join(" ");
            add(format!(
                "# The address to listen on; EnvironmentFile= takes precedence.\n\
                 Environment={words}\n"
            ));
        }
        if let Some(checkout) = &self.checkout {
            add(format!(
                "# PyPNM writes .data and logs below its working directory, and imports src from there.\n\
                 WorkingDirectory={checkout}\n\
                 ReadWritePaths={checkout}\n\
                 # The service cannot change the programs that it runs.\n\
                 ReadOnlyPaths={environment}\n\
                 # Its data is in the checkout, not in /var/lib and /var/cache.\n\
                 StateDirectory=\n\
                 CacheDirectory=\n\
                 # For caches that libraries keep in a home directory, and for matplotlib's list of fonts.\n\
                 Environment=HOME={checkout}/.data MPLCONFIGDIR={checkout}/.data/matplotlib\n"
            ));
        }
        if let Some(home) = &self.home {
            let hidden = home.elsewhere.iter().map(|home| format!("TemporaryFileSystem={home}:ro\n"));
            let hidden: Vec<String> = hidden.collect();
            add(format!(
                "# Home directories remain hidden from the service, except for what it needs in them.\n\
                 ProtectHome=tmpfs\n\
                 {}\
                 # systemd 247 creates the parent directories with this mask; 0027 would make them inaccessible.\n\
                 UMask=0026\n",
                hidden.concat()
            ));
            home.writable.iter().for_each(|path| add(format!("BindPaths={path}\n")));
            home.readable.iter().for_each(|path| add(format!("BindReadOnlyPaths={path}\n")));
            if !home.aliases.is_empty() {
                add("# Its programs and packages refer to these directories by the names of symbolic links.\n".to_owned());
            }
            home.aliases.iter().for_each(|(path, name)| add(format!("BindReadOnlyPaths={path}:{name}\n")));
        }
        text
    }
}
