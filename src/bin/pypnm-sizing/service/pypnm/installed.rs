//! Finds installations: those that a unit starts ([`super::started`]), those in the caller's environment, and those in
//! the usual directories.

use pypnm_sizing::root::Root;
use pypnm_sizing::units::Unit;

use super::installation::{Discovery, Installation, environments_of};
use super::paths::{MAX_DIRECTORIES, names, prefix_of, real_path};
use super::program::{PACKAGED, PypnmProgram};
use super::started::{environments_of_unit, on_path};
use crate::service::account;

/// systemd's `DEFAULT_PATH` on a system with a merged /usr, where pip also installs as root.
const SYSTEM_PREFIXES: [&str; 2] = ["/usr/local", "/usr"];
/// The directory that `git clone` creates, and its usual parents.
const CHECKOUT: &str = "PyPNM";
const CHECKOUT_PARENTS: [&str; 3] = ["/root", "/opt", "/srv"];
/// Environments of pipx and uv, relative to a home directory, and pipx's environments for all users.
const TOOLS: [&str; 3] = [".local/share/pipx/venvs", ".local/pipx/venvs", ".local/share/uv/tools"];
const TOOLS_OF_ALL: &str = "/opt/pipx/venvs";

/// The installations of the program that a unit starts.
pub(crate) struct Installations<'a> {
    pub(super) root: &'a Root,
    pub(crate) program: PypnmProgram,
    pub(super) unit: Option<&'a Unit>,
    /// All of them. The one that the unit starts comes first.
    pub(crate) found: Vec<Installation>,
}

impl<'a> Installations<'a> {
    /// Finds the installations for the unit `name`. `unit`: its files, if there are any.
    pub(crate) fn find(root: &'a Root, name: &str, unit: Option<&'a Unit>) -> Self {
        let program = PypnmProgram::for_unit(name, unit);
        Self { root, program, unit, found: find(root, program, unit) }
    }

    /// Those that can be started.
    pub(super) fn usable(&self) -> impl Iterator<Item = &Installation> {
        self.found.iter().filter(|installation| installation.fault.is_none())
    }
}

/// All installations of the program. The one that the unit starts comes first.
pub(super) fn find(root: &Root, program: PypnmProgram, unit: Option<&Unit>) -> Vec<Installation> {
    let mut places = Vec::new();
    if let Some(unit) = unit {
        let started = environments_of_unit(root, program, unit).into_iter();
        places.extend(started.map(|(environment, source)| (environment, Discovery::Unit(source))));
    }
    let prefix_on = |path: &str| on_path(root, path, program);
    if root.is_machine() {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        places.extend(variable("VIRTUAL_ENV").map(|directory| (directory, Discovery::VirtualEnv)));
        places.extend(
            variable("PATH").and_then(|path| prefix_on(&path)).map(|prefix| (prefix, Discovery::Path)),
        );
    }
    places.push((PACKAGED.to_owned(), Discovery::Packaged));
    places.extend(SYSTEM_PREFIXES.map(|prefix| (prefix.to_owned(), Discovery::System)));
    if root.is_machine()
        && let Some(directory) = std::env::current_dir().ok().as_deref().and_then(|path| path.to_str())
    {
        places.extend(environments_of(root, directory));
    }
    let mut homes = names(root, "/home").into_iter().map(|name| format!("/home/{name}")).collect::<Vec<_>>();
    homes.push("/root".to_owned());
    homes.extend(account::homes(root).take(MAX_DIRECTORIES));
    homes.sort_unstable();
    homes.dedup();
    for home in &homes {
        places.extend(TOOLS.map(|tools| (format!("{home}/{tools}/{}", program.package), Discovery::Tool)));
        places.push((format!("{home}/.local"), Discovery::User));
    }
    places.push((format!("{TOOLS_OF_ALL}/{}", program.package), Discovery::Tool));
    for parent in homes.iter().map(String::as_str).chain(CHECKOUT_PARENTS) {
        places.extend(environments_of(root, &format!("{parent}/{CHECKOUT}")));
    }
    let mut found: Vec<Installation> = Vec::new();
    let mut seen = Vec::new();
    for (environment, how) in places {
        // A command on PATH is usually a symbolic link into its environment.
        let command = real_path(root, &program.in_environment(&environment));
        let environment = command.as_deref().and_then(prefix_of).unwrap_or(environment);
        if !seen.contains(&environment) {
            found.extend(Installation::read(root, &environment, program, how));
            seen.push(environment);
        }
    }
    found
}

/// The installations in a directory given on the command line, which is an environment, or a checkout with environments
/// of any name in it.
pub(crate) fn in_directory(root: &Root, directory: &str, program: PypnmProgram) -> Vec<Installation> {
    let own = Installation::read(root, directory, program, Discovery::Given);
    let inside = environments_of(root, directory);
    own.into_iter()
        .chain(inside.into_iter().filter_map(|(place, how)| Installation::read(root, &place, program, how)))
        .collect()
}

/// A checkout above or below a directory that has no installation: a likely alternative to suggest.
pub(crate) fn nearest(root: &Root, directory: &str, program: PypnmProgram) -> Option<String> {
    let above = directory.match_indices('/').rev().filter_map(|(end, _)| directory.get(..end));
    let near = above.filter(|path| !path.is_empty()).map(str::to_owned);
    let mut near = std::iter::once(format!("{directory}/{CHECKOUT}")).chain(near);
    near.find(|path| !in_directory(root, path, program).is_empty())
}

/// Whether a directory is a checkout of the program's source, regardless of whether it is installed.
pub(crate) fn is_checkout(root: &Root, directory: &str, program: PypnmProgram) -> bool {
    root.has_directory(&format!("{directory}/src/{}", program.import))
}
