//! Loads a unit: reads its unit file and its drop-ins, and keeps the assignments in order.
//!
//! [`super::index`] finds the files; what the assignments mean is determined by the readers of [`Unit`].

use crate::parse::base_name;
use crate::parse::syntax::{Item, items};
use crate::problem::{ASSUMING_MINIMUM, FileName, Problem, Source};
use crate::root::{ReadError, Root};
use crate::units::name::{Name, NameKind, ROOT_SLICE, SYSTEM_SLICE, Type};
use crate::units::{Assignment, Index, KEYS, LoadState, Unit};

impl Index<'_> {
    /// Loads the unit with this name or alias. `None`: it is not the name of a service or slice. For a template, loads what
    /// all its instances have in common.
    pub fn load(&self, name: &str, problems: &mut Vec<Problem>) -> Option<Unit> {
        let asked = Name::parse(name)?;
        let of_template = || asked.template().and_then(|template| self.follow(&template));
        let fragment = self.follow(name).or_else(of_template);
        let mut unit = Unit {
            name: name.to_owned(),
            asked: name.to_owned(),
            aliases: Vec::new(),
            state: LoadState::NotFound,
            fragment: None,
            drop_ins: Vec::new(),
            assignments: Vec::new(),
            unread: self.unread.clone(),
        };
        let mut namesake = None;
        if let Some(path) = fragment {
            unit.state = read_file(self.root, &path, asked.unit_type, &mut unit, problems);
            if unit.state != LoadState::NotFound {
                // An instance with its own file is another unit; only its drop-ins apply here as well.
                let id = name_of_file(&path, &asked);
                let differs = |own: String| base_name(&own) != base_name(&path);
                if id != name && self.follow(&id).is_some_and(differs) {
                    namesake = Some(id);
                } else {
                    unit.name = id;
                }
                unit.fragment = Some(path);
            }
        }
        if asked.unit_type == Type::Slice {
            // A slice does not need a file, and these two always exist.
            let perpetual = unit.state == LoadState::Masked && [ROOT_SLICE, SYSTEM_SLICE].contains(&name);
            if unit.state == LoadState::NotFound || perpetual {
                unit.state = LoadState::Loaded;
            }
        }
        let of_template = |path: &String| path.ends_with(&format!("@.{}", asked.unit_type.word()));
        if unit.state == LoadState::Masked && unit.fragment.as_ref().is_some_and(of_template) {
            // In that case the other name is only an alias.
            unit.aliases.push(std::mem::replace(&mut unit.name, name.to_owned()));
            unit.aliases.retain(|alias| alias != name);
        }
        let id = unit.name.clone();
        let id = Name::parse(&id).unwrap_or(asked);
        if unit.state == LoadState::Loaded && asked.unit_type == Type::Service {
            unit.aliases = self.aliases(&asked, &id, unit.fragment.as_deref());
        } else if asked.text != id.text {
            unit.aliases.push(name.to_owned());
        }
        unit.aliases.extend(namesake.filter(|_| unit.state == LoadState::Loaded));
        for path in self.drop_ins(&id, &unit.aliases, problems, &mut unit.unread) {
            // If a file cannot be read completely, the part that was read applies, as for systemd.
            read_file(self.root, &path, asked.unit_type, &mut unit, problems);
            unit.drop_ins.push(path);
        }
        Some(unit)
    }
}

/// Adds the assignments in a file to `unit`. An empty file is `Masked`, a missing one `NotFound`, and one that cannot be
/// read completely `Bad`.
fn read_file(
    root: &Root,
    path: &str,
    unit_type: Type,
    unit: &mut Unit,
    problems: &mut Vec<Problem>,
) -> LoadState {
    let read = root.with_bytes(path, |text| match text {
        [] => LoadState::Masked,
        text if parse_assignments(path, text, unit_type, &mut unit.assignments, problems) => {
            LoadState::Loaded
        }
        _ => LoadState::Bad,
    });
    match read {
        Ok(state) => state,
        Err(ReadError::Missing) => LoadState::NotFound,
        Err(error) => {
            unit.unread.push(Source::file(path));
            problems.push(Problem::unreadable(path, error, ASSUMING_MINIMUM));
            LoadState::Bad
        }
    }
}

/// Adds the assignments in the section for the type. Returns whether the text could be read completely. Only the first
/// error is reported, and the one after which the rest is skipped: systemd itself reports all of them.
pub fn parse_assignments(
    path: &str,
    text: &[u8],
    unit_type: Type,
    assignments: &mut Vec<Assignment>,
    problems: &mut Vec<Problem>,
) -> bool {
    let file = FileName::from(path);
    let mut inside = false;
    let mut reported = false;
    for item in items(text) {
        match item {
            Item::Section { name, .. } => inside = name == unit_type.section(),
            Item::Assignment { key, value, line } if inside => {
                if let Some(key) = KEYS.into_iter().find(|known| *known == key) {
                    let source = Source::key(file.clone(), line, key);
                    assignments.push(Assignment { key, value, source });
                }
            }
            Item::Assignment { .. } => {}
            Item::Fault { fault, line } => {
                if fault.ends_the_file() || !reported {
                    problems.push(Problem::skipped_by_systemd(Source::key(file.clone(), line, ""), fault));
                }
                reported = true;
                if fault.ends_the_file() {
                    return false;
                }
            }
        }
    }
    true
}

/// The name of the requested unit, from the name of its file.
fn name_of_file(path: &str, asked: &Name<'_>) -> String {
    match (Name::parse(base_name(path)), asked.instance) {
        (Some(base), Some(instance)) if base.kind() == NameKind::Template => base.with_instance(instance),
        (Some(base), _) => base.text.to_owned(),
        (None, _) => asked.text.to_owned(),
    }
}
