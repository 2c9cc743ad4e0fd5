//! Where a unit looks for the program that it starts, and settings that lead nowhere: in drop-ins for pypnm-sizing
//! 0.1.0, whose unit used `ExecSearchPath=` and started `pypnm` without a path, and for a PyPNM that is outside the
//! unit's `PATH`.
//!
//! Also provides the correct setting for each. Only the unit's files are considered.

use pypnm_sizing::parse::syntax::{Item, items};
use pypnm_sizing::parse::words::words_of;
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::{Assignment, Unit};

use super::commands::{PREFIXES, commands, first_word};
use super::installation::{Found, Installation};
use super::paths::real_path;
use super::program::Program;

/// The launcher in the packaged units, see pypnm-sizing-handover(7).
pub(crate) const LAUNCHER: &str = "/usr/lib/pypnm-sizing/handover";
/// The directories that systemd searches if the unit sets no path (systemd.exec(5), `$PATH`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// Directories of packaged units; the second is used where /usr is not merged.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system/", "/lib/systemd/system/"];

/// A setting that fails to select the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostProgram {
    /// The setting, what is wrong with it, and what to write instead.
    pub(crate) text: String,
    /// Whether another program than the intended one is started, or none.
    pub(crate) is_harmful: bool,
}

/// Finds a setting because of which the unit's program is not found. `is_loaded`: whether systemd has loaded the unit;
/// versions before 250 ignore `ExecSearchPath=` and do not load a unit whose program is missing.
pub(crate) fn lost_program(
    root: &Root,
    program: Program,
    unit: &Unit,
    found: &[Installation],
    is_loaded: bool,
) -> Vec<LostProgram> {
    let search = search_path(unit);
    let commands = commands(unit);
    let mut lost: Vec<LostProgram> =
        commands.iter().filter_map(|command| bare(root, program, unit, found, command, is_loaded)).collect();
    let is_bare = |command: &&Assignment| first_word(command).is_some_and(|word| !word.starts_with('/'));
    if let Some((path, source)) = search.filter(|_| !commands.is_empty() && !commands.iter().any(is_bare)) {
        lost.extend(without_effect(root, program, unit, &path, source));
    }
    lost
}

/// Checks for a command without a path that is in none of the directories systemd searches.
fn bare(
    root: &Root,
    program: Program,
    unit: &Unit,
    found: &[Installation],
    command: &Assignment,
    is_loaded: bool,
) -> Option<LostProgram> {
    let word = first_word(command).filter(|word| word == program.command)?;
    let search = search_path(unit).filter(|_| is_loaded).map(|(path, _)| path);
    let path = search.as_deref().unwrap_or(DEFAULT_PATH);
    if directory_with(root, path, program) != Reach::No {
        return None;
    }
    let value = command.value.trim_start_matches(PREFIXES);
    // With the prefix @, the second word is the program's own name, so no replacement is suggested.
    let arguments = value.strip_prefix(&word).filter(|_| !command.value.contains('@')).unwrap_or(" …");
    let on_path = matches!(directory_with(root, &path_of(unit), program), Reach::Yes(_));
    let usable = found.iter().find(|installation| installation.fault.is_none());
    let start = match usable {
        _ if on_path => word,
        Some(installation) => installation.command.clone(),
        None => format!("/opt/pypnm/bin/{word}"),
    };
    let launcher = if is_packaged(unit) {
        format!("{LAUNCHER} ")
    } else if on_path {
        "/usr/bin/env ".to_owned()
    } else {
        String::new()
    };
    let old = if search_path(unit).is_some() && !is_loaded {
        "; systemd before 250 has no ExecSearchPath="
    } else {
        ""
    };
    Some(LostProgram {
        text: format!(
            "ExecStart={}, {}: systemd looks for {} in {path} and does not find it{old}; write instead: \
             ExecStart={launcher}{start}{arguments}",
            command.value,
            command.source.place(),
            program.command,
        ),
        is_harmful: true,
    })
}

/// Checks for an `ExecSearchPath=` that has no effect because `Environment=` sets `PATH` for the unit's processes and
/// every command has a path.
fn without_effect(
    root: &Root,
    program: Program,
    unit: &Unit,
    path: &str,
    source: &Source,
) -> Option<LostProgram> {
    let set = variable_of(unit, "PATH")?;
    let meant = directory_with(root, path, program);
    let started = directory_with(root, &set, program);
    let is_harmful = matches!(meant, Reach::Yes(_)) && meant != started;
    let what = match &started {
        Reach::Yes(command) if is_harmful => format!(", and {command} is started"),
        Reach::No if is_harmful => format!(", and no {} is found", program.command),
        _ => String::new(),
    };
    Some(LostProgram {
        text: format!(
            "ExecSearchPath={path}, {}, has no effect: the unit finds its program through Environment=PATH={what}; write instead: \
             Environment=PATH={}",
            source.place(),
            if path.split(':').any(|directory| directory == "/usr/bin") {
                path.to_owned()
            } else {
                format!("{path}:{DEFAULT_PATH}")
            }
        ),
        is_harmful,
    })
}

/// The command that makes an installation available to a unit that does not find any. `None`: the unit finds one, or
/// there is no usable one.
pub(crate) fn out_of_reach(
    root: &Root,
    program: Program,
    unit: &Unit,
    found: &[Installation],
) -> Option<String> {
    if !is_packaged(unit) || found.iter().any(|installation| matches!(installation.found, Found::Unit(_))) {
        return None;
    }
    if directory_with(root, &path_of(unit), program) != Reach::No {
        return None;
    }
    let usable = || found.iter().filter(|installation| installation.fault.is_none());
    let first = usable().next()?;
    let directory = match &first.found {
        // Of several environments in a checkout, one has to be chosen.
        Found::Checkout(directory) if usable().filter(|other| other.found == first.found).count() == 1 => {
            directory
        }
        _ => &first.environment,
    };
    let for_unit =
        if unit.name == "pypnm.service" { String::new() } else { format!(" --unit {}", unit.name) };
    Some(format!("pypnm-sizing setup {directory}{for_unit}"))
}

/// The value of a variable in the unit's `Environment=`.
pub(crate) fn variable_of(unit: &Unit, name: &str) -> Option<String> {
    let mut value = None;
    for assignment in unit.assignments_of("Environment") {
        if assignment.value.is_empty() {
            value = None;
        }
        for word in words_of(&assignment.value) {
            let set = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
            value = set.map(str::to_owned).or(value);
        }
    }
    value
}

/// The effective value of a setting in `[Service]` that does not affect sizing and is not loaded with the unit.
pub(crate) fn setting(root: &Root, unit: &Unit, setting: &str) -> Option<String> {
    let mut found = None;
    for file in unit.fragment.iter().chain(&unit.drop_ins) {
        let bytes = root.bytes(file).unwrap_or_default();
        let mut is_service = false;
        for item in items(&bytes) {
            match item {
                Item::Section { name, .. } => is_service = name == "Service",
                Item::Assignment { key, value, .. } if is_service && key == setting => {
                    found = Some(value);
                }
                _ => {}
            }
        }
    }
    found.filter(|value: &String| !value.is_empty())
}

/// The unit's `PATH`, or systemd's default.
fn path_of(unit: &Unit) -> String {
    variable_of(unit, "PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// The directories that are searched for the program: by systemd if the command has no path, otherwise by the command.
pub(super) fn path_of_start(program: Program, unit: &Unit) -> String {
    let is_bare = |command: &&Assignment| first_word(command).is_some_and(|word| word == program.command);
    if commands(unit).iter().any(is_bare) {
        search_path(unit).map_or_else(|| DEFAULT_PATH.to_owned(), |(path, _)| path)
    } else {
        path_of(unit)
    }
}

/// Whether the unit's file was installed by a package.
pub(crate) fn is_packaged(unit: &Unit) -> bool {
    let is_in = |file: &str| PACKAGED_UNITS.iter().any(|directory| file.starts_with(directory));
    unit.fragment.as_deref().is_some_and(is_in)
}

/// The effective value of `ExecSearchPath=`, and the last assignment. Values accumulate; an empty one resets the list.
fn search_path(unit: &Unit) -> Option<(String, &Source)> {
    let mut directories: Vec<&str> = Vec::new();
    let mut source = None;
    for assignment in unit.assignments_of("ExecSearchPath") {
        if assignment.value.is_empty() {
            directories.clear();
        }
        directories.extend(assignment.value.split(':').filter(|directory| !directory.is_empty()));
        source = Some(&assignment.source);
    }
    (!directories.is_empty()).then(|| Some((directories.join(":"), source?)))?
}

/// Whether a program exists in some directories.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// It does, at this path.
    Yes(String),
    No,
    /// Unknown: the caller cannot access one of the directories.
    Unknown,
}

fn directory_with(root: &Root, path: &str, program: Program) -> Reach {
    let mut reach = Reach::No;
    for directory in path.split(':').filter(|directory| directory.starts_with('/')) {
        let command = format!("{}/{}", directory.trim_end_matches('/'), program.command);
        match root.bytes(&command) {
            Err(ReadError::Missing | ReadError::Directory) => {}
            Ok(_) => return Reach::Yes(real_path(root, &command).unwrap_or(command)),
            Err(_) => reach = Reach::Unknown,
        }
    }
    reach
}
