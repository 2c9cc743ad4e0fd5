//! `setup`: turns a PyPNM in any directory into a sized, hardened service, with a drop-in for the packaged unit.
//!
//! Selects the installation. [`plan`] derives the user and the directories from it, [`obstacles`] checks in advance whether
//! the service would work, [`drop_in`] creates the text, and [`file`] writes it. Nothing is started.

mod drop_in;
mod file;
mod obstacles;
mod plan;

use std::path::Path;

use anyhow::{Context as _, bail};
use pypnm_sizing::names::{DROP_IN as GENERATED, LAUNCHER};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::{Index, LoadState, Unit};
use rustix::io::Errno;

use self::drop_in::{DROP_IN, OPERATORS, SetupDropIn};
use self::file::{check_not_foreign, lost_settings, remove, write};
use self::obstacles::{check_mount, check_path};
use self::plan::{Plan, is_home};
use crate::cli::Setup;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::account::Account;
use crate::service::generated;
use crate::service::pypnm::{self, Installation, Installations, PypnmProgram, real_path};

/// The units that can be set up, for errors.
const PURPOSE: &str = "setup adds a drop-in to a packaged unit, pypnm.service or pypnm-cmts.service";

pub(crate) fn run(root: &Root, arguments: &Setup) -> Outcome {
    let directory = format!("{OPERATORS}/{}.d", arguments.unit);
    if arguments.remove {
        return remove(root, &directory, &arguments.unit, arguments.dir.as_deref());
    }
    let unit = packaged(root, &arguments.unit)?;
    check_not_foreign(root, &directory)?;
    let program = PypnmProgram::for_unit(&arguments.unit, Some(&unit));
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
fn report_old_version(installation: &Installation, program: PypnmProgram) {
    if installation.takes_profile == Some(false) {
        remark(&format!("{} {}", program.command, installation.text()));
    }
}

impl Plan<'_> {
    /// The drop-in. Fails if the service would not work with it.
    fn drop_in(&self) -> anyhow::Result<SetupDropIn> {
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
        Ok(SetupDropIn {
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
        (LoadState::Masked, Some(file)) if root.link(file).is_none() => {
            bail!("{name} is masked by {file}, which is empty: remove that file first")
        }
        (LoadState::Masked, Some(file)) if file.starts_with("/run/") => {
            bail!("{name} is masked: run 'systemctl unmask --runtime {name}' first")
        }
        (LoadState::Masked, _) => bail!("{name} is masked: run 'systemctl unmask {name}' first"),
        (LoadState::Loaded, Some(_)) if is_packaged && starts_program(&unit) => return Ok(unit),
        (LoadState::Loaded, Some(_)) if is_packaged => bail!("{name} is not a PyPNM service: {PURPOSE}"),
        (LoadState::Loaded | LoadState::Bad, Some(file)) => bail!(
            "{file} is your own unit, which setup does not change. It is sized if Units= in sizing.conf(5) lists it; \
             to use the packaged unit, remove or rename that file"
        ),
        _ => {}
    }
    let file = format!("{OPERATORS}/{name}");
    if root.link(&file).is_some() {
        bail!("{file} is a dangling link, which hides the packaged unit: remove it");
    }
    bail!("there is no {name} to set up: {PURPOSE}")
}

/// Whether the packaged file of the unit starts one of the two programs.
fn starts_program(unit: &Unit) -> bool {
    let mut own = unit.clone();
    own.assignments.retain(|assignment| unit.fragment.as_deref() == Some(&*assignment.source.file));
    pypnm::starts(&own, pypnm::PYPNM) || pypnm::starts(&own, pypnm::CMTS)
}

/// The only installation in the given directory.
fn installation_in(root: &Root, dir: &Path, program: PypnmProgram) -> anyhow::Result<Installation> {
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
