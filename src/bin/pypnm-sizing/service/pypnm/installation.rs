//! An installation of PyPNM in an environment: its version, its source, and why it may not start.

use std::fmt;

use pypnm_sizing::parse::base_name;
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::{ReadError, Root};
use rustix::fs::FileType;
use serde::{Serialize, Serializer};

use super::metadata;
use super::paths::{MAX_LINKS, names, prefix_of, real_path};
use super::program::PypnmProgram;

/// The first version that reads a profile.
const FIRST_WITH_PROFILE: (u32, u32) = (1, 6);

/// How an installation was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
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

impl fmt::Display for Discovery {
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

impl Serialize for Discovery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An installation of a program, as in `show --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Installation {
    #[serde(skip)]
    pub(super) program: PypnmProgram,
    /// The directory that contains `bin`: a virtual environment, or a prefix such as /usr/local.
    pub(crate) environment: String,
    /// The program.
    pub(crate) command: String,
    /// Its version, from pip's metadata.
    pub(crate) version: Option<String>,
    /// Whether it reads a worker profile; `None`: its version is unknown.
    pub(crate) takes_profile: Option<bool>,
    /// The source directory, if it is an editable installation.
    #[serde(rename = "editable_source")]
    pub(crate) source: Option<String>,
    /// The directory that contains its package.
    #[serde(skip)]
    pub(crate) packages: Option<String>,
    /// How it was found.
    pub(crate) found: Discovery,
    /// Why it cannot be started.
    pub(crate) fault: Option<String>,
}

impl Installation {
    /// An installation in which every field has a value.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            program: super::program::PYPNM,
            environment: String::new(),
            command: String::new(),
            version: Some(String::new()),
            takes_profile: Some(true),
            source: Some(String::new()),
            packages: Some(String::new()),
            found: Discovery::Given,
            fault: Some(String::new()),
        }
    }

    /// A description such as `1.6.4.0 in /opt/pypnm`, with what is wrong or missing.
    pub(crate) fn text(&self) -> String {
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        let environment = &self.environment;
        let but = if let Some(fault) = &self.fault {
            format!(", which cannot start: {fault}")
        } else if self.takes_profile == Some(false) {
            format!(
                ": versions before 1.6 read no profile, only --workers; upgrade it with '{environment}/bin/pip install \
                 --upgrade {}'",
                self.program.package
            )
        } else {
            String::new()
        };
        format!("{version} in {environment}{but}")
    }

    /// Reads the installation in `environment`. `None`: the program is not in it.
    pub(super) fn read(
        root: &Root,
        environment: &str,
        program: PypnmProgram,
        found: Discovery,
    ) -> Option<Self> {
        let command = program.in_environment(environment);
        let script = root.text(&command).ok();
        if script.is_none() && root.file_type(&command).is_none() {
            return None;
        }
        let mut installation = Self {
            program,
            environment: environment.to_owned(),
            command,
            version: None,
            takes_profile: None,
            source: None,
            packages: None,
            found,
            fault: None,
        };
        let script = script.as_deref();
        let partial = installation.read_metadata(root, script);
        installation.takes_profile = installation
            .version
            .as_deref()
            .and_then(metadata::release)
            .map(|release| release >= FIRST_WITH_PROFILE);
        let fault = installation.fault_of_program(root, script);
        installation.fault = fault.or_else(|| installation.fault_of_python(root, script, partial));
        Some(installation)
    }

    /// Reads pip's metadata. Returns what is missing in it.
    fn read_metadata(&mut self, root: &Root, script: Option<&str>) -> Option<String> {
        let program = self.program;
        let directories = package_directories(root, &self.environment);
        let named = directories.iter().find_map(|directory| {
            let mut names: Vec<String> =
                root.entries(directory).ok()?.into_iter().map(|entry| entry.name).collect();
            names.sort_unstable();
            let versions = names.iter().rev().filter_map(|name| {
                name.strip_prefix(program.normalized)?.strip_prefix('-')?.strip_suffix(".dist-info")
            });
            Some((directory, versions.map(str::to_owned).next()?))
        });
        let Some((directory, version)) = named else {
            let has_package =
                |directory: &&String| root.has_directory(&format!("{directory}/{}", program.import));
            self.packages = directories.iter().find(has_package).cloned();
            let is_partial =
                self.packages.is_none() && !directories.is_empty() && script.is_some_and(is_python_script);
            return is_partial.then(|| {
                let package = program.package;
                format!("partially installed: pip has no record of {package} there; reinstall it")
            });
        };
        let metadata = format!("{directory}/{}-{version}.dist-info", program.normalized);
        let text = |name: &str| root.text(&format!("{metadata}/{name}")).ok();
        self.version = text("METADATA").as_deref().and_then(metadata::version).or(Some(version));
        self.source = text("direct_url.json").as_deref().and_then(metadata::editable_source);
        self.packages = Some(match &self.source {
            Some(source) => format!("{source}/src"),
            None => directory.clone(),
        });
        let entry_points = text("entry_points.txt").unwrap_or_default();
        metadata::console_script(&entry_points, program.command)
            .is_none()
            .then(|| format!("partially installed: {metadata} has no entry point for it; reinstall it"))
    }

    /// Why the program cannot be started at all, regardless of its contents.
    fn fault_of_program(&self, root: &Root, script: Option<&str>) -> Option<String> {
        let command = &self.command;
        let kind = real_path(root, command).and_then(|path| root.file_type(&path));
        let fault = match kind {
            None => "is a dangling symbolic link",
            Some(FileType::RegularFile) if script.is_some_and(str::is_empty) => "is empty",
            Some(FileType::RegularFile) => return None,
            Some(_) => "is not a file",
        };
        Some(format!("partially installed: {command} {fault}; reinstall it"))
    }

    /// The first reason why its Python would not start it. `partial`: what is missing in the metadata.
    fn fault_of_python(&self, root: &Root, script: Option<&str>, partial: Option<String>) -> Option<String> {
        let Some(interpreter) =
            script.filter(|script| is_python_script(script)).and_then(metadata::interpreter)
        else {
            return partial;
        };
        let pyvenv = format!("{}/pyvenv.cfg", self.environment);
        if interpreter.starts_with('/') && real_path(root, interpreter).is_none() {
            if root.link(interpreter).is_none() {
                return Some(format!(
                    "its interpreter {interpreter} does not exist: was the directory moved? recreate the environment"
                ));
            }
            let home = root.text(&pyvenv).ok().as_deref().and_then(metadata::home);
            let from = home.map_or_else(String::new, |home| format!(" of {home}"));
            return Some(format!(
                "its {interpreter} is a dangling symbolic link: the Python{from} that it was created from is gone; recreate the environment"
            ));
        }
        if let Err(ReadError::NotText) = root.text(&pyvenv) {
            return Some(format!(
                "its {pyvenv} is not UTF-8 text, so its Python does not start; recreate the environment"
            ));
        }
        if partial.is_some() {
            return partial;
        }
        let package = format!("{}/{}", self.packages.as_deref()?, self.program.import);
        if root.has_directory(&package) {
            return None;
        }
        Some(match self.source.as_deref().filter(|source| !root.has_directory(source)) {
            Some(source) => format!(
                "it is an editable installation of {source}, which does not exist: was the checkout moved? reinstall it from its current location"
            ),
            None => format!("partially installed: there is no {package}; reinstall it"),
        })
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
    for _ in 0..MAX_LINKS {
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
pub(super) fn environments_of(root: &Root, directory: &str) -> Vec<(String, Discovery)> {
    let mut found: Vec<String> = names(root, directory)
        .into_iter()
        .map(|name| format!("{directory}/{name}"))
        .filter(|path| root.file_type(&format!("{path}/pyvenv.cfg")).is_some())
        // A link is another name of the same.
        .filter_map(|path| real_path(root, &path))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|path| (path, Discovery::Checkout(directory.to_owned()))).collect()
}
