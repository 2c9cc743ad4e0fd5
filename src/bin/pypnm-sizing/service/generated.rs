//! What the generator wrote at the last boot or reload: the drop-in that systemd has loaded since. Anybody may read it.

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

/// Where the drop-in of `unit` is.
pub(crate) fn path(unit: &str) -> String {
    format!("{DIRECTORY}/{unit}.d/{}", names::DROP_IN)
}

/// The drop-in of `unit` as it lies there, for itself or, of a template, for an instance. `None`: there is none.
pub(crate) fn read(root: &Root, unit: &str, instance: &str) -> Result<Option<Generated>, ReadError> {
    Ok(drop_in(root, unit, instance)?.map(|drop_in| Generated { environment: drop_in.environment() }))
}

/// The same, as the generator's data.
pub(crate) fn drop_in(root: &Root, unit: &str, instance: &str) -> Result<Option<DropIn>, ReadError> {
    match root.bytes(&path(unit)) {
        Ok(text) => Ok(Some(DropIn::read(&text, instance))),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a generator makes the unit itself: ours never does.
pub(crate) fn has_unit(root: &Root, unit: &str) -> bool {
    root.file_type(&format!("{DIRECTORY}/{unit}")).is_some()
}

/// Whether there is a generated drop-in for any unit at all: then the generator has run.
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

/// Workers and recycle limit, as an environment has them.
pub(crate) fn numbers(environment: &BTreeMap<String, String>) -> Option<pypnm::Numbers> {
    let number = |key| environment.get(key).and_then(|value| pypnm::integer(value));
    Some(pypnm::Numbers {
        workers: number(pypnm::WORKERS)?,
        limit_max_requests: number(pypnm::LIMIT_MAX_REQUESTS)?,
    })
}
