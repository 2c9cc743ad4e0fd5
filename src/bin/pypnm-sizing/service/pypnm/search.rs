//! Where a unit looks for the program that it starts, and other settings of a unit that do not affect sizing. Only the unit's
//! files are considered.

use pypnm_sizing::parse::words::words_of;
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{self, Assignment, Unit};

use super::commands::{commands, first_word};
use super::program::PypnmProgram;
use crate::service::unit_file::last_value;

/// The directories that systemd searches if the unit sets no path (systemd.exec(5), `$PATH`).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

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
    last_value(root, unit.fragment.iter().chain(&unit.drop_ins), setting).filter(|value| !value.is_empty())
}

/// The unit's `PATH`, or systemd's default.
pub(super) fn path_of(unit: &Unit) -> String {
    variable_of(unit, "PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// The directories that are searched for the program: by systemd if the command has no path, otherwise by the command.
pub(super) fn path_of_start(program: PypnmProgram, unit: &Unit) -> String {
    let is_bare = |command: &&Assignment| first_word(command).is_some_and(|word| word == program.command);
    if commands(unit).iter().any(is_bare) {
        search_path(unit).map_or_else(|| DEFAULT_PATH.to_owned(), |(path, _)| path)
    } else {
        path_of(unit)
    }
}

/// Whether the unit's file was installed by a package.
pub(crate) fn is_packaged(unit: &Unit) -> bool {
    unit.fragment.as_deref().is_some_and(units::is_packaged)
}

/// The effective value of `ExecSearchPath=`, and the last assignment. Values accumulate; an empty one resets the list.
pub(super) fn search_path(unit: &Unit) -> Option<(String, &Source)> {
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
