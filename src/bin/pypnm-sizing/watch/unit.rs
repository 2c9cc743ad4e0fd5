//! Which of the units that are sized a watch or a report is on.

use anyhow::bail;
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::sizing::{SizedUnit, Sizing};
use pypnm_sizing::units::name::{Name, NameKind};

use crate::cli::Watch;
use crate::output::remark;

/// The place of a unit among those that are sized: by its name, or by that of the template which it is an instance of.
pub(crate) fn place_among(sizing: &Sizing, name: &str) -> Option<usize> {
    let template = Name::parse(name).and_then(|name| name.template());
    let names = [Some(name), template.as_deref()];
    names.into_iter().flatten().find_map(|name| sizing.units.iter().position(|unit| unit.name == name))
}

/// The same; a process, and a unit that is not sized, have the first's settings.
pub(super) fn unit_of(sizing: &Sizing, name: &str) -> Option<usize> {
    place_among(sizing, name).or_else(|| (!sizing.units.is_empty()).then_some(0))
}

/// A template's name is none to watch; of several units one is recorded, which is said.
pub(super) fn choose_unit(sizing: &Sizing, arguments: &Watch) -> anyhow::Result<String> {
    let first = sizing.units.first().map_or(DEFAULT_UNIT, |unit| unit.name.as_str());
    let unit = arguments.unit.as_deref().unwrap_or(first);
    let is_template = Name::parse(unit).is_some_and(|name| name.kind() == NameKind::Template);
    if arguments.pid.is_some() {
        return Ok(unit.to_owned());
    }
    if is_template {
        let stem = unit.trim_end_matches("@.service");
        bail!("{unit} is a template; name an instance: --unit={stem}@NAME.service");
    }
    let others: Vec<&str> =
        sizing.units.iter().map(|other| other.name.as_str()).filter(|other| *other != unit).collect();
    if arguments.unit.is_none() && !others.is_empty() {
        remark(&format!("watching {unit}; --unit=UNIT watches another: {}", others.join(", ")));
    }
    Ok(unit.to_owned())
}

/// The section of sizing.conf that the advice belongs in: the unit's own where several are sized.
pub(crate) fn section(sizing: &Sizing, unit: Option<&SizedUnit>) -> String {
    match unit {
        Some(unit) if sizing.units.len() > 1 => unit.name.clone(),
        _ => "Sizing".to_owned(),
    }
}
