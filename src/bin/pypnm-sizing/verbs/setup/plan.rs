//! What is set up, and what follows from the place of the installation: the checkout, the user, and what the service needs in
//! home directories. Writes nothing.

use std::path::Path;

use anyhow::bail;
use pypnm_sizing::parse::is_at_or_below;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::Unit;

use super::drop_in::Home;
use crate::cli::Setup;
use crate::service::account::Account;
use crate::service::pypnm::{self, Discovery, Installation, PypnmProgram, real_path};

/// The directories that `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// What is set up.
pub(super) struct Plan<'a> {
    pub(super) root: &'a Root,
    pub(super) arguments: &'a Setup,
    /// The packaged unit.
    pub(super) unit: Unit,
    pub(super) program: PypnmProgram,
    pub(super) installation: Installation,
    /// The checkout to use as working directory.
    pub(super) checkout: Option<String>,
}

impl Plan<'_> {
    /// Whether the packaged unit finds it through its `PATH`.
    pub(super) fn is_on_packaged_path(&self) -> bool {
        matches!(self.installation.environment.as_str(), "/opt/pypnm" | "/usr/local" | "/usr")
    }

    /// The checkout to use as working directory: the source of an editable installation, or the parent of the environment.
    pub(super) fn find_checkout(&self) -> anyhow::Result<Option<String>> {
        let Self { root, program, installation, .. } = self;
        let is_checkout = |directory: &String| pypnm::is_checkout(root, directory, *program);
        let of_environment = match &installation.found {
            Discovery::Checkout(directory) => Some(directory.clone()),
            _ => installation.environment.rsplit_once('/').map(|(parent, _)| parent.to_owned()),
        };
        let Some(checkout) = installation.source.clone().or(of_environment).filter(is_checkout) else {
            return Ok(None);
        };
        let Some(checkout) = real_path(root, &checkout) else {
            bail!("{checkout}, the source of {}, does not exist", installation.environment);
        };
        // PyPNM imports `src` from its working directory, so the environment must belong to the same checkout.
        let dir = self.arguments.dir.as_deref().and_then(Path::to_str);
        let other = dir.and_then(|dir| real_path(root, dir)).filter(is_checkout);
        if let Some(other) = other.filter(|other| *other != checkout) {
            bail!(
                "the environment in {other} is an editable installation of {checkout}: reinstall it in {other}, or set up {checkout}"
            );
        }
        Ok(Some(checkout))
    }

    /// The user to run as: `--user`, or the owner. `None`: the packaged account.
    pub(super) fn account(&self) -> anyhow::Result<Option<Account>> {
        let root = self.root;
        if let Some(name) = &self.arguments.user {
            return match Account::find(root, name) {
                Some(account) if account.uid == 0 => {
                    bail!("--user={name}: PyPNM should not run as root; specify an unprivileged user")
                }
                Some(account) => Ok(Some(account)),
                None => bail!("--user={name}: there is no such user"),
            };
        }
        let place = self.checkout.as_ref().unwrap_or(&self.installation.environment);
        let owner = root.stat(place).map_or(0, |stat| stat.st_uid);
        if owner == 0 {
            if self.checkout.is_some() {
                bail!(
                    "{place} belongs to root, and PyPNM should not run as root: change the owner (chown -R), or specify a user with --user"
                );
            }
            return Ok(None);
        }
        match Account::find(root, &owner.to_string()) {
            Some(account) => Ok(Some(account)),
            None => {
                bail!("{place} belongs to UID {owner}, which has no user name: specify a user with --user")
            }
        }
    }

    /// What the service needs in home directories. `None`: nothing.
    pub(super) fn home(&self, account: Option<&Account>) -> Option<Home> {
        let Self { root, installation, .. } = self;
        let places: Vec<&str> =
            self.checkout.iter().chain([&installation.environment]).map(String::as_str).collect();
        let elsewhere = account.and_then(|account| other_home(root, account, &places));
        let is_hidden = |path: &str| {
            is_home(root, path) || elsewhere.as_deref().is_some_and(|home| is_at_or_below(path, home))
        };
        let writable: Vec<String> = self.checkout.iter().filter(|path| is_hidden(path)).cloned().collect();
        let mut readable: Vec<String> = Vec::new();
        // The environment, the directories of the symbolic links that lead to its Python, and the prefix of that Python.
        let needed = [installation.environment.clone()].into_iter();
        for path in needed.chain(pypnm::python_places(root, installation)) {
            if is_hidden(&path) && !writable.iter().chain(&readable).any(|there| is_at_or_below(&path, there))
            {
                readable.push(path);
            }
        }
        // Names that lead there through symbolic links which are hidden as well.
        let mut aliases: Vec<(String, String)> = Vec::new();
        let mut names = pypnm::names_in_use(root, installation);
        names.retain(|name| is_hidden(name));
        names.sort_unstable();
        for name in names {
            let real = real_path(root, &name).filter(|real| *real != visible_name(root, &name));
            if let Some(real) = real
                && !aliases.iter().any(|(_, there)| is_at_or_below(&name, there))
            {
                aliases.push((real, name));
            }
        }
        let is_needed = !(writable.is_empty() && readable.is_empty() && aliases.is_empty());
        is_needed.then_some(Home { elsewhere, writable, readable, aliases })
    }
}

/// Whether the path is in a directory that `ProtectHome=` hides.
pub(super) fn is_home(root: &Root, path: &str) -> bool {
    HOMES.iter().any(|home| {
        is_at_or_below(path, home) || real_path(root, home).is_some_and(|home| is_at_or_below(path, &home))
    })
}

/// The account's home directory, if it is somewhere else, belongs to the account and contains the installation.
fn other_home(root: &Root, account: &Account, places: &[&str]) -> Option<String> {
    let home = real_path(root, &account.home).filter(|home| !is_home(root, home))?;
    let is_around = |place: &&str| *place != home && is_at_or_below(place, &home);
    let is_own = root.stat(&home)?.st_uid == account.uid;
    (is_own && places.iter().any(is_around) && !places.contains(&home.as_str())).then_some(home)
}

/// The path with those symbolic links resolved that remain visible to the service: of /home itself, for example.
fn visible_name(root: &Root, path: &str) -> String {
    let above = HOMES.iter().find_map(|home| Some((real_path(root, home)?, path.strip_prefix(home)?)));
    above.map_or_else(|| path.to_owned(), |(home, below)| format!("{home}{below}"))
}
