//! `setup`: turns a PyPNM in any directory into a sized, hardened service, with a drop-in for the packaged unit.
//!
//! Determines which PyPNM and which user. [`obstacles`] checks whether the result would work, before
//! anything is written; [`drop_in`] has the text. Nothing is started.

mod drop_in;
mod obstacles;

use std::path::Path;

use anyhow::{Context as _, bail};
use pypnm_sizing::names::DROP_IN as GENERATED;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::{Index, State, Unit};
use pypnm_sizing::write::Directory;

use self::drop_in::{Home, MARK, SetupDropIn};
use self::obstacles::{address, mount, other_unit, permitted, plain};
use crate::cli::Setup;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::account::Account;
use crate::service::pypnm::{self, Found, Installation, Program, real_path};
use crate::service::systemctl;

/// The drop-in, in the directory `UNIT.d` of [`OPERATORS`].
const DROP_IN: &str = "50-place.conf";
/// Where an operator's unit files are (systemd.unit(5)).
const OPERATORS: &str = "/etc/systemd/system";
/// What `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

pub(crate) fn run(root: &Root, arguments: &Setup) -> Outcome {
    let directory = format!("{OPERATORS}/{}.d", arguments.unit);
    if arguments.remove {
        return remove(root, &directory, &arguments.unit);
    }
    let unit = packaged(root, &arguments.unit)?;
    foreign_file(root, &directory)?;
    let program = Program::of(&arguments.unit, Some(&unit));
    let installation = match &arguments.dir {
        Some(dir) => named(root, dir, program)?,
        None => only(root, &unit, program)?,
    };
    // What the packaged unit finds needs a drop-in only for an account or an address.
    let is_packaged = installation.source.is_none()
        && !is_home(root, &installation.environment)
        && arguments.user.is_none()
        && on_packaged_path(&installation);
    if is_packaged && arguments.host.is_none() && arguments.port.is_none() {
        old_version(&installation, program);
        let mut page = Page::new();
        let text = format!("{} already starts {}: nothing to set up.", arguments.unit, installation.command);
        page.row("", 0, &text);
        return page.print();
    }
    let checkout = checkout(root, arguments, &installation, program)?;
    let account = account(root, arguments, checkout.as_deref(), &installation)?;
    for path in checkout.iter().chain([&installation.environment]) {
        plain(path)?;
        mount(root, path)?;
    }
    let home = home(root, checkout.as_deref(), &installation);
    if let Some(account) = &account {
        permitted(root, account, checkout.as_deref(), &installation, home.as_ref())?;
    }
    other_unit(root, &arguments.unit, &installation, program)?;
    let drop_in = SetupDropIn {
        unit: arguments.unit.clone(),
        command: installation.command.clone(),
        environment: installation.environment.clone(),
        checkout,
        account: account.map(|account| (account.name, account.group)),
        home,
        address: address(root, arguments, &unit, program)?,
    };
    old_version(&installation, program);
    let text = drop_in.text();
    if !arguments.write {
        return answer(&text);
    }
    written(root, &directory, &arguments.unit, &text)
}

/// Says what a version that reads no profile needs.
fn old_version(installation: &Installation, program: Program) {
    if installation.takes_profile() == Some(false) {
        remark(&format!("{} {}", program.command, installation.text(program)));
    }
}

/// Writes the drop-in and has systemd read it.
fn written(root: &Root, directory: &str, unit: &str, text: &str) -> Outcome {
    if !root.is_machine() {
        bail!(
            "setup writes for the running systemd only; without --write it prints the contents of {directory}/{DROP_IN}"
        );
    }
    let path = format!("{directory}/{DROP_IN}");
    let is_same = root.text(&path).is_ok_and(|there| there == text);
    if !is_same {
        Directory::create(Path::new(directory))
            .and_then(|directory| directory.replace(DROP_IN, text))
            .with_context(|| format!("{unit} is unchanged; run setup --write as root"))?;
    }
    // This also makes up for an earlier reload that failed.
    systemctl::reload()?;
    let what = if is_same {
        format!("{path} is up to date.")
    } else {
        format!("Wrote {path}; systemd has reloaded.")
    };
    let state = systemctl::properties(unit, &["ActiveState"]).unwrap_or_default();
    let state = state.get("ActiveState").map(String::as_str);
    let active = matches!(state, Some("active" | "activating" | "reloading"));
    let next =
        if active { format!("systemctl restart {unit}") } else { format!("systemctl enable --now {unit}") };
    answer(&format!("{what}\nNext: {next}\nThen: pypnm-sizing check --unit {unit}\n"))
}

/// `--remove`: takes away what `--write` wrote.
fn remove(root: &Root, directory: &str, unit: &str) -> Outcome {
    if !root.is_machine() {
        bail!("setup --remove changes the running system only, not one below --root");
    }
    let path = format!("{directory}/{DROP_IN}");
    foreign_file(root, directory)?;
    let removed = match Directory::open(Path::new(directory)) {
        Ok(directory) => directory.remove(DROP_IN)?,
        Err(error) if error.error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if !removed {
        return answer(&format!("There is no {path}: nothing to remove.\n"));
    }
    // Whatever else is in it is the operator's.
    let _ = std::fs::remove_dir(directory);
    systemctl::reload()?;
    answer(&format!(
        "Removed {path}; systemd has reloaded.\nA running {unit} continues until 'systemctl restart {unit}' or 'systemctl stop {unit}'.\n"
    ))
}

/// A file of the drop-in's name that somebody else wrote is an error.
fn foreign_file(root: &Root, directory: &str) -> anyhow::Result<()> {
    let path = format!("{directory}/{DROP_IN}");
    match root.text(&path) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Err(ReadError::Missing) if root.file_type(&path).is_none() => Ok(()),
        Ok(_) | Err(_) => {
            bail!("{path} was not written by 'pypnm-sizing setup' and is left unchanged: move or rename it")
        }
    }
}

/// The packaged unit that the drop-in is for.
fn packaged(root: &Root, name: &str) -> anyhow::Result<Unit> {
    let names = [name.to_owned()];
    let mut problems = Vec::new();
    let unit = Index::read(root, &names, GENERATED, &mut problems).load(name, &mut problems);
    let Some(unit) = unit else {
        bail!("--unit={name}: expected the name of a service, such as pypnm.service");
    };
    let of_package =
        |file: &str| file.starts_with("/usr/lib/systemd/system/") || file.starts_with("/lib/systemd/system/");
    match (unit.state, unit.fragment.as_deref()) {
        (State::Masked, _) => bail!("{name} is masked: run 'systemctl unmask {name}' first"),
        (State::Loaded, Some(file)) if of_package(file) => Ok(unit),
        (State::Loaded | State::Bad, Some(file)) => bail!(
            "{file} is your own unit, which setup does not change. It is sized if Units= in sizing.conf(5) lists it; \
             to use the packaged unit, move that file away"
        ),
        _ => bail!(
            "there is no {name} to set up: setup adds a drop-in to a packaged unit, pypnm.service or pypnm-cmts.service"
        ),
    }
}

/// The one installation in the directory that was named.
fn named(root: &Root, dir: &Path, program: Program) -> anyhow::Result<Installation> {
    let shown = dir.display();
    let absolute = if root.is_machine() { std::path::absolute(dir)? } else { dir.to_owned() };
    let Some(directory) = absolute.to_str() else {
        bail!("{shown}: expected a path in UTF-8");
    };
    match root.entries(directory) {
        Ok(_) => {}
        Err(ReadError::Missing) => bail!("{shown}: there is no such directory"),
        Err(error) => bail!("{shown}: {error}"),
    }
    let directory = real_path(root, directory).unwrap_or_else(|| directory.to_owned());
    let found = pypnm::in_directory(root, &directory, program);
    let (usable, broken): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.fault.is_none());
    match (usable.as_slice(), broken.as_slice()) {
        ([one], _) => Ok(one.clone()),
        ([], [one, ..]) => bail!("{}: {}", one.environment, one.fault.clone().unwrap_or_default()),
        ([], []) if pypnm::is_checkout(root, &directory, program) => bail!(
            "{directory} is a checkout, but {} is not installed in it: run ./install.sh there, as its owner, and let it finish",
            program.command
        ),
        ([], []) => bail!(
            "there is no {} in {directory}: looked for bin/{} there and in each virtual environment right below it",
            program.command,
            program.command
        ),
        (several, _) => bail!("{}", choose(several, &directory)),
    }
}

/// The one installation that there is on this machine.
fn only(root: &Root, unit: &Unit, program: Program) -> anyhow::Result<Installation> {
    let found = pypnm::find(root, program, Some(unit));
    let (usable, broken): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.fault.is_none());
    match (usable.as_slice(), broken.as_slice()) {
        ([one], _) => Ok(one.clone()),
        ([], [one, ..]) => bail!("{}: {}", one.environment, one.fault.clone().unwrap_or_default()),
        ([], []) => bail!(
            "{} {}. Looked on PATH, in VIRTUAL_ENV, /opt/pypnm, /usr/local, /usr, this directory, and for PyPNM, pipx and uv \
             in /home, /root, /opt and /srv",
            program.command,
            program.none_found()
        ),
        (several, _) => bail!("{}", choose(several, "this machine")),
    }
}

fn choose(several: &[Installation], place: &str) -> String {
    let list: Vec<String> = several
        .iter()
        .map(|one| {
            format!(
                "pypnm-sizing setup {} ({})",
                one.environment,
                one.version.as_deref().unwrap_or("version unknown")
            )
        })
        .collect();
    format!("{place} has {} installations; choose one: {}", several.len(), list.join(", or "))
}

/// Whether the packaged unit finds it with the `PATH` it has.
fn on_packaged_path(installation: &Installation) -> bool {
    matches!(installation.environment.as_str(), "/opt/pypnm" | "/usr/local" | "/usr")
}

/// The checkout that it works in: the source of an editable installation, or where the environment is in.
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
    // The sources that it imports are those of its working directory: another checkout would be half started.
    let other = arguments.dir.as_deref().and_then(Path::to_str).and_then(|dir| real_path(root, dir));
    if let Some(other) = other.filter(|other| *other != checkout && pypnm::is_checkout(root, other, program))
    {
        bail!(
            "the environment in {other} is an editable installation of {checkout}: install it again in {other}, or set up {checkout}"
        );
    }
    Ok(Some(checkout))
}

/// Who runs it: `--user`, else the owner; `None`: the packaged account.
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
    let below =
        |home: &str| path == home || path.strip_prefix(home).is_some_and(|rest| rest.starts_with('/'));
    HOMES.iter().any(|home| below(home) || real_path(root, home).is_some_and(|home| below(&home)))
}

/// What the service needs of the home directories; `None`: nothing.
fn home(root: &Root, checkout: Option<&str>, installation: &Installation) -> Option<Home> {
    let mut home = Home::default();
    home.writable.extend(checkout.filter(|path| is_home(root, path)).map(str::to_owned));
    let covers = |paths: &[String], path: &str| {
        paths.iter().any(|there| {
            path == there || path.strip_prefix(there.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    // The environment, the directories of the links that lead to its Python, and that Python's own.
    let needed =
        std::iter::once(installation.environment.clone()).chain(pypnm::python_places(root, installation));
    for path in needed {
        if is_home(root, &path) && !covers(&home.writable, &path) && !covers(&home.readable, &path) {
            home.readable.push(path);
        }
    }
    (home != Home::default()).then_some(home)
}
