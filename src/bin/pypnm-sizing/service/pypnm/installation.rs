//! An installation of PyPNM in an environment: its version, its source, and why it may not start.

use std::fmt;

use pypnm_sizing::problem::Source;
use pypnm_sizing::root::{ReadError, Root};
use rustix::fs::FileType;

use super::metadata;
use super::paths::{MOST_LINKS, base_name, names, prefix_of, real_path};
use super::program::Program;

/// The first version that reads a profile.
const FIRST_WITH_PROFILE: (u32, u32) = (1, 6);

/// How an installation was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A command of the unit names it, or the unit's `PATH` leads to it.
    Unit(Source),
    /// `VIRTUAL_ENV` of the calling shell.
    VirtualEnv,
    /// `PATH` of the calling shell.
    Path,
    /// The directory in which the packaged unit looks first.
    Packaged,
    /// A system-wide prefix.
    System,
    /// `~/.local`, where pip installs for one user.
    User,
    /// In a checkout.
    Checkout(String),
    /// An environment of pipx or uv.
    Tool,
    /// In the directory that was given.
    Given,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(source) => write!(f, "started by ExecStart=, {}:{}", source.file, source.line),
            Self::VirtualEnv => f.write_str("the active virtual environment (VIRTUAL_ENV)"),
            Self::Path => f.write_str("found through PATH"),
            Self::Packaged => f.write_str("where the packaged unit looks first"),
            Self::System => f.write_str("installed for the whole system"),
            Self::User => f.write_str("installed for one user (pip install --user)"),
            Self::Checkout(directory) => write!(f, "the checkout {directory}"),
            Self::Tool => f.write_str("an environment of pipx or uv"),
            Self::Given => f.write_str("in the given directory"),
        }
    }
}

/// An installation of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installation {
    /// The directory that contains `bin`: a virtual environment, or a prefix such as /usr/local.
    pub(crate) environment: String,
    /// The program.
    pub(crate) command: String,
    /// Its version, from pip's metadata.
    pub(crate) version: Option<String>,
    /// The source directory, if it is an editable installation.
    pub(crate) source: Option<String>,
    /// The directory that contains its package.
    pub(crate) packages: Option<String>,
    /// How it was found.
    pub(crate) found: Found,
    /// Why it cannot be started.
    pub(crate) fault: Option<String>,
}

impl Installation {
    /// Whether it reads a worker profile; `None`: its version is unknown.
    pub(crate) fn takes_profile(&self) -> Option<bool> {
        metadata::release(self.version.as_deref()?).map(|release| release >= FIRST_WITH_PROFILE)
    }

    /// A description such as `1.6.4.0 in /opt/pypnm`, with what is wrong or missing.
    pub(crate) fn text(&self, program: Program) -> String {
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        let mut text = format!("{version} in {}", self.environment);
        if let Some(fault) = &self.fault {
            text.push_str(", which cannot start: ");
            text.push_str(fault);
        } else if self.takes_profile() == Some(false) {
            let pip = format!("{}/bin/pip install --upgrade {}", self.environment, program.package);
            text.push_str(": before 1.6 it takes --workers only and reads no profile; upgrade it with '");
            text.push_str(&pip);
            text.push('\'');
        }
        text
    }

    /// Reads the installation in `environment`. `None`: the program is not in it.
    pub(super) fn read(root: &Root, environment: &str, program: Program, found: Found) -> Option<Self> {
        let command = format!("{}/bin/{}", environment.trim_end_matches('/'), program.command);
        let script = root.text(&command).ok();
        if script.is_none() && root.file_type(&command).is_none() {
            return None;
        }
        let mut installation = Self {
            environment: environment.to_owned(),
            command,
            version: None,
            source: None,
            packages: None,
            found,
            fault: None,
        };
        let directories = package_directories(root, environment);
        let metadata = directories.iter().find_map(|directory| {
            let mut names: Vec<String> =
                root.entries(directory).ok()?.into_iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            let prefix = format!("{}-", program.normalized);
            let name =
                names.iter().rfind(|name| name.starts_with(&prefix) && name.ends_with(".dist-info"))?;
            Some((directory, format!("{directory}/{name}")))
        });
        if let Some((directory, metadata)) = metadata {
            let text = |name: &str| root.text(&format!("{metadata}/{name}")).ok();
            let named = metadata.rsplit('/').next().and_then(|name| {
                let version = name.strip_prefix(program.normalized)?.strip_prefix('-')?;
                version.strip_suffix(".dist-info").map(str::to_owned)
            });
            installation.version = text("METADATA").as_deref().and_then(metadata::version).or(named);
            installation.source = text("direct_url.json").as_deref().and_then(metadata::editable_source);
            installation.packages = Some(match &installation.source {
                Some(source) => format!("{source}/src"),
                None => directory.clone(),
            });
            let entry_points = text("entry_points.txt");
            let has_entry = entry_points
                .as_deref()
                .is_some_and(|text| metadata::console_script(text, program.command).is_some());
            if !has_entry {
                installation.fault = Some(format!(
                    "partially installed: {metadata} has no entry point for it; install it again"
                ));
            }
        } else {
            let has_package =
                |directory: &&String| root.has_directory(&format!("{directory}/{}", program.import));
            installation.packages = directories.iter().find(has_package).cloned();
        }
        if installation.version.is_none()
            && installation.packages.is_none()
            && !directories.is_empty()
            && script.as_deref().is_some_and(is_python_script)
        {
            installation.fault = Some(format!(
                "partially installed: pip has no record of {} there; install it again",
                program.package
            ));
        }
        installation.look_for_faults(root, script.as_deref(), program);
        installation.check_program(root, script.as_deref());
        Some(installation)
    }

    /// Checks whether the program can be started at all, regardless of its contents.
    fn check_program(&mut self, root: &Root, script: Option<&str>) {
        let command = &self.command;
        let real = real_path(root, command);
        let kind = real.as_deref().and_then(|path| root.file_type(path));
        let fault = match kind {
            None => "is a dangling symbolic link",
            Some(FileType::RegularFile) if script.is_some_and(str::is_empty) => "is empty",
            Some(FileType::RegularFile) => return,
            Some(_) => "is not a file",
        };
        self.fault = Some(format!("partially installed: {command} {fault}; install it again"));
    }

    /// Looks for the first reason why it would not start.
    fn look_for_faults(&mut self, root: &Root, script: Option<&str>, program: Program) {
        let Some(interpreter) =
            script.filter(|script| is_python_script(script)).and_then(metadata::interpreter)
        else {
            return;
        };
        if interpreter.starts_with('/') && real_path(root, interpreter).is_none() {
            self.fault = Some(match root.link(interpreter) {
                Some(_) => {
                    let home = root.text(&format!("{}/pyvenv.cfg", self.environment)).ok();
                    let home = home.as_deref().and_then(metadata::home);
                    let from = home.map_or_else(String::new, |home| format!(" of {home}"));
                    format!(
                        "its {interpreter} is a dangling symbolic link: the Python{from} that it was created from is gone; recreate the environment"
                    )
                }
                None => format!(
                    "its interpreter {interpreter} does not exist: was the directory moved? recreate the environment"
                ),
            });
        } else if let Err(ReadError::NotText) = root.text(&format!("{}/pyvenv.cfg", self.environment)) {
            self.fault = Some(format!(
                "its {}/pyvenv.cfg is not UTF-8 text, so its Python does not start; recreate the environment",
                self.environment
            ));
        } else if self.fault.is_none()
            && let Some(packages) = &self.packages
            && !root.has_directory(&format!("{packages}/{}", program.import))
        {
            let source = self.source.as_deref().filter(|source| !root.has_directory(source));
            self.fault = Some(match source {
                Some(source) => format!(
                    "it is an editable installation of {source}, which does not exist: was the checkout moved? install it again from its present location"
                ),
                None => format!(
                    "partially installed: there is no {packages}/{}; install it again",
                    program.import
                ),
            });
        }
    }
}

/// The directories outside the environment that its Python needs: those of the symbolic links that lead to it, and the prefix
/// of its library.
pub(crate) fn python_places(root: &Root, installation: &Installation) -> Vec<String> {
    let links = python_links(root, installation);
    let directories = links.iter().filter_map(|path| Some(path.rsplit_once('/')?.0));
    let mut places: Vec<String> = directories.filter_map(|directory| real_path(root, directory)).collect();
    let python = links.last().and_then(|path| real_path(root, path));
    places.extend(python.as_deref().and_then(prefix_of));
    places
}

/// The directories by whose names the program refers to its Python and its source. They may lead through symbolic links.
pub(crate) fn names_in_use(root: &Root, installation: &Installation) -> Vec<String> {
    let links = python_links(root, installation);
    let mut names: Vec<String> = links.iter().filter_map(|path| prefix_of(path)).collect();
    names.extend(installation.source.clone());
    names
}

/// The path of the program's Python, and those of the symbolic links that follow.
fn python_links(root: &Root, installation: &Installation) -> Vec<String> {
    let script = root.text(&installation.command).unwrap_or_default();
    let named = metadata::interpreter(&script).map(str::to_owned);
    let mut path = named.unwrap_or_else(|| format!("{}/bin/python3", installation.environment));
    let mut links = Vec::new();
    for _ in 0..MOST_LINKS {
        let Some((directory, _)) = path.rsplit_once('/') else {
            break;
        };
        let target = root
            .link(&path)
            .map(|target| if target.starts_with('/') { target } else { format!("{directory}/{target}") });
        links.push(path);
        match target {
            Some(target) => path = target,
            None => break,
        }
    }
    links
}

/// Whether its packages are found through the user's base directory (`site.USER_BASE`): a script of a Python elsewhere, not in
/// a virtual environment, as `pip install --user` writes it.
pub(crate) fn is_user_base(root: &Root, installation: &Installation) -> bool {
    let script = root.text(&installation.command).unwrap_or_default();
    let prefix = metadata::interpreter(&script).and_then(prefix_of);
    let is_elsewhere = prefix.is_some_and(|prefix| prefix != installation.environment);
    is_elsewhere && root.file_type(&format!("{}/pyvenv.cfg", installation.environment)).is_none()
}

/// Whether a script was written by pip and is not another wrapper.
fn is_python_script(script: &str) -> bool {
    metadata::interpreter(script).is_some_and(|interpreter| base_name(interpreter).starts_with("python"))
}

/// The directories of an environment's Python packages.
pub(super) fn package_directories(root: &Root, environment: &str) -> Vec<String> {
    let lib = format!("{environment}/lib");
    let mut pythons: Vec<String> =
        names(root, &lib).into_iter().filter(|name| name.starts_with("python3")).collect();
    pythons.sort_unstable();
    pythons
        .iter()
        .flat_map(|python| {
            ["site-packages", "dist-packages"].map(|packages| format!("{lib}/{python}/{packages}"))
        })
        .filter(|directory| root.file_type(directory).is_some())
        .collect()
}

/// The virtual environments (PEP 405) directly below a directory.
pub(super) fn environments_of(root: &Root, directory: &str) -> Vec<(String, Found)> {
    let mut found: Vec<String> = names(root, directory)
        .into_iter()
        .map(|name| format!("{directory}/{name}"))
        .filter(|path| root.file_type(&format!("{path}/pyvenv.cfg")).is_some())
        // A link is another name of the same.
        .filter_map(|path| real_path(root, &path))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|path| (path, Found::Checkout(directory.to_owned()))).collect()
}
