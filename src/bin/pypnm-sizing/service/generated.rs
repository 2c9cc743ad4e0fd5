//! The drop-in that the generator wrote at the last boot or reload. Anybody may read it.

use std::collections::BTreeMap;

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::names;
use pypnm_sizing::pypnm;
use pypnm_sizing::root::{ReadError, Root};

/// systemd.unit(5): the directory of generators' output for the system manager.
const DIRECTORY: &str = "/run/systemd/generator";

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

/// Whether another generator creates the unit itself.
pub(crate) fn has_unit(root: &Root, unit: &str) -> bool {
    root.file_type(&format!("{DIRECTORY}/{unit}")).is_some()
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
