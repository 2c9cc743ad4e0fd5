//! `setup`: turns a PyPNM in any directory into a sized, hardened service, with a drop-in for the packaged unit.
//!
//! Selects the installation and the user. [`obstacles`] checks in advance whether the service would work, [`drop_in`]
//! creates the text, and [`file`] writes it. Nothing is started.

mod drop_in;
mod file;
mod obstacles;

use std::path::Path;

use anyhow::{Context as _, bail};
use pypnm_sizing::names::{DROP_IN as GENERATED, LAUNCHER};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::{Index, State, Unit};
use rustix::io::Errno;

use self::drop_in::{DROP_IN, DropIn, Home, OPERATORS};
use self::file::{check_not_foreign, lost_settings, remove, write};
use self::obstacles::{check_mount, check_path};
use crate::cli::Setup;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::account::Account;
use crate::service::generated;
use crate::service::pypnm::{self, Found, Installation, Installations, Program, real_path};

/// The directories that `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// What is set up.
struct Plan<'a> {
    root: &'a Root,
    arguments: &'a Setup,
    /// The packaged unit.
    unit: Unit,
    program: Program,
    installation: Installation,
    /// The checkout to use as working directory.
    checkout: Option<String>,
}

pub(crate) fn run(root: &Root, arguments: &Setup) -> Outcome {
    let directory = format!("{OPERATORS}/{}.d", arguments.unit);
    if arguments.remove {
        return remove(root, &directory, &arguments.unit, arguments.dir.as_deref());
    }
    let unit = packaged(root, &arguments.unit)?;
    check_not_foreign(root, &directory)?;
    let program = Program::for_unit(&arguments.unit, Some(&unit));
    let installation = match &arguments.dir {
        Some(dir) => installation_in(root, dir, program)?,
        None => only_installation(root, &unit)?,
    };
    let mut plan = Plan { root, arguments, unit, program, installation, checkout: None };
    // If the packaged unit finds it, a drop-in is only needed for a user or an address.
    let is_packaged = plan.installation.source.is_none()
        && !is_home(root, &plan.installation.environment)
        && arguments.user.is_none()
        && plan.is_on_packaged_path();
    if is_packaged {
        plan.check_packaged_account()?;
    }
    if is_packaged && arguments.host.is_none() && arguments.port.is_none() {
        report_old_version(&plan.installation, program);
        let mut page = Page::new();
        let command = &plan.installation.command;
        page.row("", 0, &format!("{} already starts {command}: nothing to set up.", arguments.unit));
        return page.print();
    }
    plan.checkout = plan.find_checkout()?;
    let drop_in = plan.drop_in()?;
    for line in plan.overridden(&drop_in)? {
        remark(&line);
    }
    report_old_version(&plan.installation, program);
    let text = drop_in.text();
    if arguments.write {
        return write(root, &directory, &arguments.unit, &text);
    }
    let path = format!("{directory}/{DROP_IN}");
    let earlier = root.text(&path).unwrap_or_default();
    let lost = lost_settings(&earlier, &text);
    if !lost.is_empty() {
        remark(&format!(
            "{path} already exists; --write would remove these settings from it: {}",
            lost.join("; ")
        ));
    }
    answer(&text)
}

/// Reports what is missing for a version that reads no profile.
fn report_old_version(installation: &Installation, program: Program) {
    if installation.takes_profile == Some(false) {
        remark(&format!("{} {}", program.command, installation.text()));
    }
}

impl Plan<'_> {
    /// The drop-in. Fails if the service would not work with it.
    fn drop_in(&self) -> anyhow::Result<DropIn> {
        let Self { root, arguments, unit, program, installation, checkout } = self;
        let account = self.account()?;
        for path in checkout.iter().chain([&installation.environment]) {
            check_path(path)?;
            check_mount(root, path)?;
        }
        let home = self.home(account.as_ref());
        for (_, name) in home.iter().flat_map(|home| &home.aliases) {
            check_path(name)?;
        }
        match &account {
            Some(account) => self.check_permissions(account, home.as_ref())?,
            // systemd creates the directories above what it shows of a home directory.
            None if home.is_some() => {}
            None => self.check_packaged_account()?,
        }
        self.check_other_units()?;
        if let Some(source) = pypnm::started_otherwise(root, unit, installation) {
            bail!(
                "{}:{}: this ExecStart= does not start {}: remove it, or write 'ExecStart={LAUNCHER} {} …' there",
                source.file,
                source.line,
                installation.command,
                program.command
            );
        }
        Ok(DropIn {
            unit: arguments.unit.clone(),
            command: installation.command.clone(),
            environment: installation.environment.clone(),
            is_user_base: !self.is_on_packaged_path() && pypnm::is_user_base(root, installation),
            checkout: checkout.clone(),
            account: account.map(|account| (account.name, account.group)),
            home,
            address: self.address()?,
        })
    }

    /// Fails if the packaged unit's own account cannot start the installation.
    fn check_packaged_account(&self) -> anyhow::Result<()> {
        let name = pypnm::setting(self.root, &self.unit, "User");
        match name.and_then(|name| Account::find(self.root, &name)) {
            Some(account) => self.check_permissions(&account, None),
            None => Ok(()),
        }
    }

    /// Whether the packaged unit finds it through its `PATH`.
    fn is_on_packaged_path(&self) -> bool {
        matches!(self.installation.environment.as_str(), "/opt/pypnm" | "/usr/local" | "/usr")
    }

    /// The checkout to use as working directory: the source of an editable installation, or the parent of the environment.
    fn find_checkout(&self) -> anyhow::Result<Option<String>> {
        let Self { root, program, installation, .. } = self;
        let is_checkout = |directory: &String| pypnm::is_checkout(root, directory, *program);
        let of_environment = match &installation.found {
            Found::Checkout(directory) => Some(directory.clone()),
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
    fn account(&self) -> anyhow::Result<Option<Account>> {
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
    fn home(&self, account: Option<&Account>) -> Option<Home> {
        let Self { root, installation, .. } = self;
        let places: Vec<&str> =
            self.checkout.iter().chain([&installation.environment]).map(String::as_str).collect();
        let elsewhere = account.and_then(|account| other_home(root, account, &places));
        let is_hidden =
            |path: &str| is_home(root, path) || elsewhere.as_deref().is_some_and(|home| is_in(path, home));
        let writable: Vec<String> = self.checkout.iter().filter(|path| is_hidden(path)).cloned().collect();
        let mut readable: Vec<String> = Vec::new();
        // The environment, the directories of the symbolic links that lead to its Python, and the prefix of that Python.
        let needed = [installation.environment.clone()].into_iter();
        for path in needed.chain(pypnm::python_places(root, installation)) {
            if is_hidden(&path) && !writable.iter().chain(&readable).any(|there| is_in(&path, there)) {
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
                && !aliases.iter().any(|(_, there)| is_in(&name, there))
            {
                aliases.push((real, name));
            }
        }
        let is_needed = !(writable.is_empty() && readable.is_empty() && aliases.is_empty());
        is_needed.then_some(Home { elsewhere, writable, readable, aliases })
    }
}

/// Loads the packaged unit that the drop-in is for.
fn packaged(root: &Root, name: &str) -> anyhow::Result<Unit> {
    let names = [name.to_owned()];
    let mut problems = Vec::new();
    let unit = Index::read(root, &names, GENERATED, &mut problems).load(name, &mut problems);
    let Some(unit) = unit else {
        bail!("--unit={name}: expected the name of a service, such as pypnm.service");
    };
    let is_packaged = pypnm::is_packaged(&unit);
    for directory in generated::DIRECTORIES {
        let file = format!("{directory}/{name}");
        if (is_packaged || unit.fragment.is_none()) && root.file_type(&file).is_some() {
            bail!(
                "{name} is created by another generator ({file}), which takes precedence over the package's unit. It is sized \
                 if Units= in sizing.conf(5) lists it; to use the packaged unit, remove the file from which that generator creates it"
            );
        }
    }
    match (unit.state, unit.fragment.as_deref()) {
        (State::Masked, Some(file)) if root.link(file).is_none() => {
            bail!("{name} is masked by {file}, which is empty: remove that file first")
        }
        (State::Masked, Some(file)) if file.starts_with("/run/") => {
            bail!("{name} is masked: run 'systemctl unmask --runtime {name}' first")
        }
        (State::Masked, _) => bail!("{name} is masked: run 'systemctl unmask {name}' first"),
        (State::Loaded, Some(_)) if is_packaged && starts_program(&unit) => return Ok(unit),
        (State::Loaded, Some(_)) if is_packaged => bail!(
            "{name} is not a PyPNM service: setup adds a drop-in to a packaged unit, pypnm.service or pypnm-cmts.service"
        ),
        (State::Loaded | State::Bad, Some(file)) => bail!(
            "{file} is your own unit, which setup does not change. It is sized if Units= in sizing.conf(5) lists it; \
             to use the packaged unit, move that file away"
        ),
        _ => {}
    }
    let file = format!("{OPERATORS}/{name}");
    if root.link(&file).is_some() {
        bail!("{file} is a dangling link, which hides the packaged unit: remove it");
    }
    bail!(
        "there is no {name} to set up: setup adds a drop-in to a packaged unit, pypnm.service or pypnm-cmts.service"
    )
}

/// Whether the packaged file of the unit starts one of the two programs.
fn starts_program(unit: &Unit) -> bool {
    let mut own = unit.clone();
    own.assignments.retain(|assignment| unit.fragment.as_deref() == Some(&*assignment.source.file));
    pypnm::starts(&own, pypnm::PYPNM) || pypnm::starts(&own, pypnm::CMTS)
}

/// The only installation in the given directory.
fn installation_in(root: &Root, dir: &Path, program: Program) -> anyhow::Result<Installation> {
    let shown = dir.display();
    let absolute = if root.is_machine() { std::path::absolute(dir)? } else { dir.to_owned() };
    let Some(directory) = absolute.to_str() else {
        bail!("{shown}: expected a path in UTF-8");
    };
    match root.entries(directory) {
        Ok(_) => {}
        Err(ReadError::Missing) if real_path(root, directory).is_some() => {
            bail!("{shown} is not a directory: specify the checkout or its virtual environment")
        }
        Err(ReadError::Missing) if dir.starts_with("~") || shown.to_string().starts_with('~') => {
            bail!("{shown}: there is no such directory; the shell expands ~ only if it is not quoted")
        }
        Err(ReadError::Missing) => bail!("{shown}: there is no such directory"),
        Err(ReadError::Os(Errno::ACCESS)) => {
            bail!("{shown} cannot be read by this user: run setup as the owner of the directory, or as root")
        }
        Err(error) => bail!("{shown}: {error}"),
    }
    let directory = real_path(root, directory).unwrap_or_else(|| directory.to_owned());
    if let Some(installation) = only(pypnm::in_directory(root, &directory, program), &directory)? {
        return Ok(installation);
    }
    if pypnm::is_checkout(root, &directory, program) {
        bail!(
            "{directory} is a checkout, but {} is not installed in it: run ./install.sh there, as its owner, and let it finish; \
             if its virtual environment is elsewhere, specify that instead",
            program.command
        );
    }
    let nearest = pypnm::nearest(root, &directory, program);
    let hint = nearest.map_or_else(String::new, |path| format!("; did you mean {path}?"));
    bail!(
        "there is no {0} in {directory}: looked for bin/{0} there and in each virtual environment directly below it{hint}",
        program.command
    )
}

/// The only installation on this machine.
fn only_installation(root: &Root, unit: &Unit) -> anyhow::Result<Installation> {
    let Installations { program, found, .. } = Installations::find(root, &unit.name, Some(unit));
    only(found, "this machine")?.with_context(|| {
        format!(
            "there is no {} on this machine that this user can see; {}. Looked on PATH, in VIRTUAL_ENV, /opt/pypnm, \
             /usr/local, /usr, this directory, and for PyPNM, pipx and uv in home directories, /opt and /srv",
            program.command,
            program.how_to_install()
        )
    })
}

/// The only usable one of the installations that were found in a place. `None`: none was found.
fn only(found: Vec<Installation>, place: &str) -> anyhow::Result<Option<Installation>> {
    let (mut usable, broken): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|installation| installation.fault.is_none());
    if let ([], Some(Installation { environment, fault: Some(fault), .. })) = (&*usable, broken.first()) {
        bail!("{environment}: {fault}");
    }
    if usable.len() > 1 {
        let command = |installation: &Installation| {
            let version = installation.version.as_deref().unwrap_or("version unknown");
            format!("pypnm-sizing setup {} ({version})", installation.environment)
        };
        let commands: Vec<String> = usable.iter().map(command).collect();
        bail!("{place} has {} installations; choose one: {}", usable.len(), commands.join(", or "));
    }
    Ok(usable.pop())
}

fn is_home(root: &Root, path: &str) -> bool {
    HOMES.iter().any(|home| is_in(path, home) || real_path(root, home).is_some_and(|home| is_in(path, &home)))
}

/// Whether the path is that of the directory, or one below it.
fn is_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The account's home directory, if it is somewhere else, belongs to the account and contains the installation.
fn other_home(root: &Root, account: &Account, places: &[&str]) -> Option<String> {
    let home = real_path(root, &account.home).filter(|home| !is_home(root, home))?;
    let is_around = |place: &&str| *place != home && is_in(place, &home);
    let is_own = root.stat(&home)?.st_uid == account.uid;
    (is_own && places.iter().any(is_around) && !places.contains(&home.as_str())).then_some(home)
}

/// The path with those symbolic links resolved that remain visible to the service: of /home itself, for example.
fn visible_name(root: &Root, path: &str) -> String {
    let above = HOMES.iter().find_map(|home| Some((real_path(root, home)?, path.strip_prefix(home)?)));
    above.map_or_else(|| path.to_owned(), |(home, below)| format!("{home}{below}"))
}
