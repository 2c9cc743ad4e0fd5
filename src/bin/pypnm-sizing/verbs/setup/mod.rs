//! `setup`: turns a PyPNM in any directory into a sized, hardened service, with a drop-in for the packaged unit.
//!
//! Selects the installation and the user. [`obstacles`] checks in advance whether the service would work, [`drop_in`]
//! creates the text, and [`file`] writes it. Nothing is started.

mod drop_in;
mod file;
mod obstacles;

use std::path::Path;

use anyhow::bail;
use pypnm_sizing::names::DROP_IN as GENERATED;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::{Index, State, Unit};
use rustix::io::Errno;

use self::drop_in::{DROP_IN, DropIn, Home, OPERATORS};
use self::file::{check_not_foreign, lost_settings, remove, write};
use self::obstacles::{address, check_mount, check_other_units, check_path, check_permissions, overridden};
use crate::cli::Setup;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::account::Account;
use crate::service::generated;
use crate::service::pypnm::{self, Found, Installation, LAUNCHER, Program, real_path};

/// The directories that `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

pub(crate) fn run(root: &Root, arguments: &Setup) -> Outcome {
    let directory = format!("{OPERATORS}/{}.d", arguments.unit);
    if arguments.remove {
        return remove(root, &directory, &arguments.unit, arguments.dir.as_deref());
    }
    let unit = packaged(root, &arguments.unit)?;
    check_not_foreign(root, &directory)?;
    let program = Program::of(&arguments.unit, Some(&unit));
    let installation = match &arguments.dir {
        Some(dir) => installation_in(root, dir, program)?,
        None => only_installation(root, &unit, program)?,
    };
    // If the packaged unit finds it, a drop-in is only needed for a user or an address.
    let is_packaged = installation.source.is_none()
        && !is_home(root, &installation.environment)
        && arguments.user.is_none()
        && on_packaged_path(&installation);
    if is_packaged {
        check_packaged_account(root, &unit, &installation)?;
    }
    if is_packaged && arguments.host.is_none() && arguments.port.is_none() {
        report_old_version(&installation, program);
        let mut page = Page::new();
        let text = format!("{} already starts {}: nothing to set up.", arguments.unit, installation.command);
        page.row("", 0, &text);
        return page.print();
    }
    let checkout = checkout(root, arguments, &installation, program)?;
    let account = account(root, arguments, checkout.as_deref(), &installation)?;
    for path in checkout.iter().chain([&installation.environment]) {
        check_path(path)?;
        check_mount(root, path)?;
    }
    let home = home(root, account.as_ref(), checkout.as_deref(), &installation);
    for (_, name) in home.iter().flat_map(|home| &home.aliases) {
        check_path(name)?;
    }
    match &account {
        Some(account) => check_permissions(root, account, checkout.as_deref(), &installation, home.as_ref())?,
        // systemd creates the directories above what it shows of a home directory.
        None if home.is_some() => {}
        None => check_packaged_account(root, &unit, &installation)?,
    }
    check_other_units(root, &arguments.unit, &installation, program)?;
    if let Some(source) = pypnm::started_otherwise(root, program, &unit, &installation) {
        bail!(
            "{}:{}: this ExecStart= does not start {}: remove it, or write 'ExecStart={LAUNCHER} {} …' there",
            source.file,
            source.line,
            installation.command,
            program.command
        );
    }
    let drop_in = DropIn {
        unit: arguments.unit.clone(),
        command: installation.command.clone(),
        environment: installation.environment.clone(),
        is_user_base: !on_packaged_path(&installation) && pypnm::is_user_base(root, &installation),
        checkout,
        account: account.map(|account| (account.name, account.group)),
        home,
        address: address(root, arguments, &unit, program)?,
    };
    for line in overridden(root, &unit, &drop_in)? {
        remark(&line);
    }
    report_old_version(&installation, program);
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
    if installation.takes_profile() == Some(false) {
        remark(&format!("{} {}", program.command, installation.text(program)));
    }
}

/// Fails if the packaged unit's own account cannot start the installation.
fn check_packaged_account(root: &Root, unit: &Unit, installation: &Installation) -> anyhow::Result<()> {
    let name = pypnm::setting(root, unit, "User");
    match name.and_then(|name| Account::of(root, &name)) {
        Some(account) => check_permissions(root, &account, None, installation, None),
        None => Ok(()),
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
                 if Units= in sizing.conf(5) lists it; to use the packaged unit, remove its source"
            );
        }
    }
    match (unit.state, unit.fragment.as_deref()) {
        (State::Masked, Some(file)) if root.link(file).is_none() => {
            bail!("{name} is masked by {file}, which is empty: remove that file first")
        }
        (State::Masked, Some(file)) if file.starts_with("/run/") => {
            bail!("{name} is masked: 'systemctl unmask --runtime {name}' first")
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
    [pypnm::PYPNM, pypnm::CMTS].iter().any(|program| pypnm::starts(&own, program.command))
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
            bail!("{shown} is not a directory: name the checkout, or the virtual environment")
        }
        Err(ReadError::Missing) if dir.starts_with("~") || shown.to_string().starts_with('~') => {
            bail!("{shown}: there is no such directory; a shell replaces ~ only where it is not quoted")
        }
        Err(ReadError::Missing) => bail!("{shown}: there is no such directory"),
        Err(ReadError::Os(Errno::ACCESS)) => {
            bail!("{shown} cannot be read by this user: run setup as the owner of the directory, or as root")
        }
        Err(error) => bail!("{shown}: {error}"),
    }
    let directory = real_path(root, directory).unwrap_or_else(|| directory.to_owned());
    let found = pypnm::in_directory(root, &directory, program);
    let (usable, broken): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|installation| installation.fault.is_none());
    match (usable.as_slice(), broken.as_slice()) {
        ([only], _) => Ok(only.clone()),
        ([], [broken, ..]) => bail!("{}: {}", broken.environment, broken.fault.clone().unwrap_or_default()),
        ([], []) if pypnm::is_checkout(root, &directory, program) => bail!(
            "{directory} is a checkout, but {} is not installed in it: run ./install.sh there, as its owner, and let it finish; \
             if its virtual environment is elsewhere, name that instead",
            program.command
        ),
        ([], []) => {
            let nearest = pypnm::nearest(root, &directory, program);
            let hint = nearest.map_or_else(String::new, |path| format!("; did you mean {path}?"));
            bail!(
                "there is no {} in {directory}: looked for bin/{} there and in each virtual environment directly below it{hint}",
                program.command,
                program.command
            )
        }
        (several, _) => bail!("{}", choose(several, &directory)),
    }
}

/// The only installation on this machine.
fn only_installation(root: &Root, unit: &Unit, program: Program) -> anyhow::Result<Installation> {
    let found = pypnm::find(root, program, Some(unit));
    let (usable, broken): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|installation| installation.fault.is_none());
    match (usable.as_slice(), broken.as_slice()) {
        ([only], _) => Ok(only.clone()),
        ([], [broken, ..]) => bail!("{}: {}", broken.environment, broken.fault.clone().unwrap_or_default()),
        ([], []) => bail!(
            "there is no {} on this machine that this user can see; {}. Looked on PATH, in VIRTUAL_ENV, /opt/pypnm, \
             /usr/local, /usr, this directory, and for PyPNM, pipx and uv in home directories, /opt and /srv",
            program.command,
            program.how_to_install()
        ),
        (several, _) => bail!("{}", choose(several, "this machine")),
    }
}

fn choose(several: &[Installation], place: &str) -> String {
    let list: Vec<String> = several
        .iter()
        .map(|installation| {
            format!(
                "pypnm-sizing setup {} ({})",
                installation.environment,
                installation.version.as_deref().unwrap_or("version unknown")
            )
        })
        .collect();
    format!("{place} has {} installations; choose one: {}", several.len(), list.join(", or "))
}

/// Whether the packaged unit finds it through its `PATH`.
fn on_packaged_path(installation: &Installation) -> bool {
    matches!(installation.environment.as_str(), "/opt/pypnm" | "/usr/local" | "/usr")
}

/// The checkout to use as working directory: the source of an editable installation, or the parent of the environment.
fn checkout(
    root: &Root,
    arguments: &Setup,
    installation: &Installation,
    program: Program,
) -> anyhow::Result<Option<String>> {
    let of_environment = match &installation.found {
        Found::Checkout(directory) => Some(directory.clone()),
        _ => installation.environment.rsplit_once('/').map(|(parent, _)| parent.to_owned()),
    };
    let named = installation.source.clone().or(of_environment);
    let Some(checkout) = named.filter(|directory| pypnm::is_checkout(root, directory, program)) else {
        return Ok(None);
    };
    let Some(checkout) = real_path(root, &checkout) else {
        bail!("{checkout}, the source of {}, does not exist", installation.environment);
    };
    // PyPNM imports `src` from its working directory, so the environment must belong to the same checkout.
    let other = arguments.dir.as_deref().and_then(Path::to_str).and_then(|dir| real_path(root, dir));
    if let Some(other) = other.filter(|other| *other != checkout && pypnm::is_checkout(root, other, program))
    {
        bail!(
            "the environment in {other} is an editable installation of {checkout}: install it again in {other}, or set up {checkout}"
        );
    }
    Ok(Some(checkout))
}

/// The user to run as: `--user`, or the owner. `None`: the packaged account.
fn account(
    root: &Root,
    arguments: &Setup,
    checkout: Option<&str>,
    installation: &Installation,
) -> anyhow::Result<Option<Account>> {
    if let Some(name) = &arguments.user {
        return match Account::of(root, name) {
            Some(account) if account.uid == 0 => {
                bail!("--user={name}: PyPNM should not run as root; specify an unprivileged user")
            }
            Some(account) => Ok(Some(account)),
            None => bail!("--user={name}: there is no such user"),
        };
    }
    let place = checkout.unwrap_or(&installation.environment);
    let owner = root.stat(place).map_or(0, |stat| stat.st_uid);
    if owner == 0 {
        if checkout.is_some() {
            bail!(
                "{place} belongs to root, and PyPNM should not run as root: change the owner (chown -R), or specify a user with --user"
            );
        }
        return Ok(None);
    }
    match Account::of(root, &owner.to_string()) {
        Some(account) => Ok(Some(account)),
        None => bail!("{place} belongs to UID {owner}, which has no user name: specify a user with --user"),
    }
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

/// What the service needs in home directories. `None`: nothing.
fn home(
    root: &Root,
    account: Option<&Account>,
    checkout: Option<&str>,
    installation: &Installation,
) -> Option<Home> {
    let places: Vec<&str> = checkout.into_iter().chain([installation.environment.as_str()]).collect();
    let elsewhere = account.and_then(|account| other_home(root, account, &places));
    let is_hidden =
        |path: &str| is_home(root, path) || elsewhere.as_deref().is_some_and(|home| is_in(path, home));
    let mut writable = Vec::new();
    writable.extend(checkout.filter(|path| is_hidden(path)).map(str::to_owned));
    let mut readable: Vec<String> = Vec::new();
    // The environment, the directories of the symbolic links that lead to its Python, and the prefix of that Python.
    let needed =
        std::iter::once(installation.environment.clone()).chain(pypnm::python_places(root, installation));
    for path in needed {
        if is_hidden(&path) && !writable.iter().chain(&readable).any(|there| is_in(&path, there)) {
            readable.push(path);
        }
    }
    // Names that lead there through symbolic links which are hidden as well.
    let mut aliases: Vec<(String, String)> = Vec::new();
    let mut names: Vec<String> =
        pypnm::names_in_use(root, installation).into_iter().filter(|name| is_hidden(name)).collect();
    names.sort_unstable();
    for name in names {
        let Some(real) = real_path(root, &name).filter(|real| *real != visible_name(root, &name)) else {
            continue;
        };
        if !aliases.iter().any(|(_, there)| is_in(&name, there)) {
            aliases.push((real, name));
        }
    }
    let is_needed = !(writable.is_empty() && readable.is_empty() && aliases.is_empty());
    is_needed.then_some(Home { elsewhere, writable, readable, aliases })
}

/// The path with those symbolic links resolved that remain visible to the service: of /home itself, for example.
fn visible_name(root: &Root, path: &str) -> String {
    let above = HOMES.iter().find_map(|home| Some((real_path(root, home)?, path.strip_prefix(home)?)));
    above.map_or_else(|| path.to_owned(), |(home, below)| format!("{home}{below}"))
}
