//! The drop-in that the generator wrote at the last boot or reload. Anybody may read it.

use std::collections::BTreeMap;

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::names;
use pypnm_sizing::pypnm;
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::units::name::Type;
use pypnm_sizing::units::{Unit, parse_assignments};

/// systemd.unit(5): the directory of generators' output for the system manager.
const DIRECTORY: &str = "/run/systemd/generator";
/// Where packages have their units: systemd prefers what a generator makes.
const PACKAGED: [&str; 2] = ["/usr/", "/lib/"];

/// The generated drop-in of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generated {
    /// Its `Environment=`.
    pub(crate) environment: BTreeMap<String, String>,
}

/// The path of the drop-in of `unit`.
pub(crate) fn path(unit: &str) -> String {
    format!("{DIRECTORY}/{unit}.d/{}", names::DROP_IN)
}

/// The text of the drop-in of `unit`, which may be a template. `None`: there is none.
pub(crate) fn read(root: &Root, unit: &str, instance: &str) -> Result<Option<Generated>, ReadError> {
    Ok(drop_in(root, unit, instance)?.map(|drop_in| Generated { environment: drop_in.environment() }))
}

/// The drop-in as data.
pub(crate) fn drop_in(root: &Root, unit: &str, instance: &str) -> Result<Option<DropIn>, ReadError> {
    match root.bytes(&path(unit)) {
        Ok(text) => Ok(Some(DropIn::read(&text, instance))),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file of a unit that another generator makes, a quadlet for one, where systemd loads that one: it comes before the
/// packaged `definition` and after an operator's (systemd.unit(5), "System Unit Search Path").
pub(crate) fn unit_of_another(root: &Root, definition: Option<&Unit>, unit: &str) -> Option<String> {
    let is_packaged = |file: &String| PACKAGED.iter().any(|packaged| file.starts_with(packaged));
    let fragment = definition.and_then(|definition| definition.fragment.as_ref());
    let path = format!("{DIRECTORY}/{unit}");
    (fragment.is_none_or(is_packaged) && root.file_type(&path).is_some()).then_some(path)
}

/// The last value of `key` in a unit's file; `None`: it sets none.
pub(crate) fn last_value(root: &Root, path: &str, key: &str) -> Option<String> {
    let mut assignments = Vec::new();
    let text = root.bytes(path).ok()?;
    parse_assignments(path, &text, Type::Service, &mut assignments, &mut Vec::new());
    assignments.into_iter().rfind(|assignment| assignment.key == key).map(|assignment| assignment.value)
}

/// Whether there is a generated drop-in for any unit, which means that the generator has run.
pub(crate) fn exists_for_any(root: &Root) -> bool {
    let directories = root.entries(DIRECTORY).unwrap_or_default();
    let mut units = directories.iter().filter_map(|entry| entry.name.strip_suffix(".d"));
    units.any(|unit| root.file_type(&path(unit)).is_some())
}

impl Generated {
    /// Workers and recycle limit.
    pub(crate) fn numbers(&self) -> Option<pypnm::Numbers> {
        numbers(&self.environment)
    }
}

/// Workers and recycle limit in an environment.
pub(crate) fn numbers(environment: &BTreeMap<String, String>) -> Option<pypnm::Numbers> {
    let number = |key| environment.get(key).and_then(|value| pypnm::integer(value));
    Some(pypnm::Numbers {
        workers: number(pypnm::WORKERS)?,
        limit_max_requests: number(pypnm::LIMIT_MAX_REQUESTS)?,
    })
}
