//! The drop-in that the generator wrote at the last boot or reload, and files that take precedence over it. Any user can
//! read them.

use std::collections::BTreeMap;

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::names;
use pypnm_sizing::pypnm::{Numbers, integer};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::name::Name;
use pypnm_sizing::units::{self, Unit, yields_to_generators};

/// The directory for the output of generators (systemd.unit(5), "Unit File Load Path").
const DIRECTORY: &str = "/run/systemd/generator";
/// The directory for generated files that take precedence even over those of the operator.
const EARLY: &str = "/run/systemd/generator.early";
/// The directories of generated units that take precedence over packaged ones.
pub(crate) const DIRECTORIES: [&str; 2] = [EARLY, DIRECTORY];

/// The path of the drop-in of `unit`.
pub(crate) fn path(unit: &str) -> String {
    format!("{DIRECTORY}/{unit}.d/{}", names::DROP_IN)
}

/// The names under which a unit may be sized: its own, and that of its template.
pub(crate) fn names_of(unit: &str) -> impl Iterator<Item = String> {
    let template = Name::parse(unit).and_then(|name| name.template());
    std::iter::once(unit.to_owned()).chain(template)
}

/// The drop-in of `unit`, which may be a template. `None`: there is none, or it cannot be read.
pub(crate) fn drop_in(root: &Root, unit: &str, instance: &str) -> Option<DropIn> {
    root.bytes(&path(unit)).ok().map(|text| DropIn::read(&text, instance))
}

/// The profile file that the drop-in of `unit` names, or that of its template.
pub(crate) fn profile_file(root: &Root, unit: &str) -> Option<String> {
    let drop_in = names_of(unit).find_map(|name| drop_in(root, &name, unit))?;
    drop_in.environment().remove(names::ENV_FILE)
}

/// A file with the name of the drop-in in a directory that takes precedence over [`DIRECTORY`], and whether it has any
/// content. systemd reads it instead of the drop-in.
pub(crate) fn rival(root: &Root, unit: &str) -> Option<(String, bool)> {
    let stronger =
        [EARLY].into_iter().chain(units::DIRECTORIES.into_iter().filter(|path| !yields_to_generators(path)));
    stronger.map(|directory| format!("{directory}/{unit}.d/{}", names::DROP_IN)).find_map(|path| {
        match root.bytes(&path) {
            Err(ReadError::Missing) => None,
            Err(_) => Some((path, true)),
            Ok(bytes) => Some((path, !bytes.is_empty())),
        }
    })
}

/// The file of a unit that another generator creates, such as that for quadlets, if systemd loads that file: it takes
/// precedence over the `definition` if that is packaged, but not if it is the operator's.
pub(crate) fn foreign_fragment(root: &Root, definition: Option<&Unit>, unit: &str) -> Option<String> {
    let fragment = definition.and_then(|definition| definition.fragment.as_deref());
    let path = format!("{DIRECTORY}/{unit}");
    (fragment.is_none_or(yields_to_generators) && root.file_type(&path).is_some()).then_some(path)
}

/// Whether there is a generated drop-in for any unit, which means that the generator has run.
pub(crate) fn exists_for_any(root: &Root) -> bool {
    let directories = root.entries(DIRECTORY).unwrap_or_default();
    let mut units = directories.iter().filter_map(|entry| entry.name.strip_suffix(".d"));
    units.any(|unit| root.file_type(&path(unit)).is_some())
}

/// Workers and recycle limit in an environment.
pub(crate) fn numbers(environment: &BTreeMap<String, String>) -> Option<Numbers> {
    numbers_in(environment, [names::WORKERS, names::LIMIT_MAX_REQUESTS])
}

/// Workers and recycle limit in these variables of an environment.
pub(crate) fn numbers_in(environment: &BTreeMap<String, String>, keys: [&str; 2]) -> Option<Numbers> {
    let [workers, limit] = keys.map(|key| environment.get(key).and_then(|value| integer(value)));
    Some(Numbers { workers: workers?, limit_max_requests: limit? })
}
