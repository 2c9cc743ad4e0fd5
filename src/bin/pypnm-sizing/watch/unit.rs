//! Selects the unit for a watch or a report.

use anyhow::bail;
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::units::name::{Name, NameKind};

use crate::cli::Watch;
use crate::output::remark;
use crate::wording::is_a_template;

/// The index of a unit among those that are sized, by its name or by its template's.
pub(crate) fn index_of_unit(sizing: &Sizing, name: &str) -> Option<usize> {
    let template = Name::parse(name).and_then(|name| name.template());
    let names = [Some(name), template.as_deref()];
    names.into_iter().flatten().find_map(|name| sizing.units.iter().position(|unit| unit.name == name))
}

/// As above, but a process, or a unit that is not sized, gets the settings of the first one.
pub(super) fn index_to_watch(sizing: &Sizing, name: &str) -> Option<usize> {
    index_of_unit(sizing, name).or_else(|| (!sizing.units.is_empty()).then_some(0))
}

/// A template cannot be watched. If there are several units, only one is recorded, and a remark says so.
pub(super) fn choose_unit(sizing: &Sizing, arguments: &Watch) -> anyhow::Result<String> {
    let first = sizing.units.first().map_or(DEFAULT_UNIT, |unit| unit.name.as_str());
    let unit = arguments.unit.as_deref().unwrap_or(first);
    let is_template = Name::parse(unit).is_some_and(|name| name.kind() == NameKind::Template);
    if arguments.pid.is_some() {
        return Ok(unit.to_owned());
    }
    if is_template {
        let stem = unit.trim_end_matches("@.service");
        bail!("{unit} {}", is_a_template(stem));
    }
    let others: Vec<&str> =
        sizing.units.iter().map(|other| other.name.as_str()).filter(|other| *other != unit).collect();
    if arguments.unit.is_none() && !others.is_empty() {
        remark(&format!("watching {unit}; --unit=UNIT watches another: {}", others.join(", ")));
    }
    Ok(unit.to_owned())
}

/// The section of sizing.conf for the advice: the unit's own if several are sized.
pub(crate) fn section(sizing: &Sizing, unit: Option<&SizedUnit>) -> String {
    match unit {
        Some(unit) if sizing.units.len() > 1 => unit.name.clone(),
        _ => "Sizing".to_owned(),
    }
}
