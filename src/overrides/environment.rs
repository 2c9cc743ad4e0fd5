//! The relevant part of a service's environment: the drop-in's variables, `WEB_CONCURRENCY`, and those that its commands
//! use. Later sources take precedence: the manager's environment, `PassEnvironment=`, `Environment=`, `EnvironmentFile=`;
//! finally, `UnsetEnvironment=` removes variables (systemd.exec(5), "Environment Variables in Spawned Processes").

mod dotenv;
mod files;
mod slot;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::command::Program;
use crate::manager::Manager;
use crate::names::{self, VARIABLES};
use crate::overrides::effect::{Effect, Override, Stage};
use crate::overrides::effective::Overrides;
use crate::overrides::position::{Position, position};
use crate::overrides::value::is_valid_value;
use crate::parse::name_and_value;
use crate::parse::words::words_of;
use crate::problem::{Problem, Source, Sourced};
use crate::root::Root;
use crate::units::{Unit, is_packaged, specifier};

use slot::{Assigned, Slot};

/// The service's environment.
pub(super) struct Environment<'a> {
    slots: BTreeMap<Cow<'a, str>, Slot>,
    /// Where an empty `Environment=` after the drop-in resets all variables.
    reset: Option<Source>,
    /// The variables that the drop-in must repeat.
    pub(super) repeated: BTreeMap<&'static str, Sourced<String>>,
    /// The variables that it must omit.
    pub(super) left_out: Vec<&'static str>,
    /// Settings of the operator that have no effect.
    ineffective: Vec<Override>,
    /// Files that were not read.
    pub(super) not_read: Vec<Override>,
    /// Whether there are files that a generator cannot read, or that versions of systemd read differently.
    pub(super) has_late_files: bool,
    /// A command does not pass on the path of the profile file.
    is_withheld: bool,
}

impl<'a> Environment<'a> {
    /// An environment of the relevant variables: those of the drop-in, and those that the `words` of command lines refer to
    /// (`$NAME`, `${NAME}`).
    pub(super) fn new<'w>(words: impl Iterator<Item = Cow<'w, str>>) -> Self {
        let fixed = VARIABLES.into_iter().chain([names::WEB_CONCURRENCY, names::UVICORN_ENV_FILE]);
        let mut slots = BTreeMap::<Cow<'a, str>, Slot>::new();
        for name in fixed {
            slots.insert(Cow::Borrowed(name), Slot::default());
        }
        for word in words {
            for piece in word.split('$').skip(1) {
                let piece = piece.strip_prefix('{').unwrap_or(piece);
                let end = piece.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                if let Some(name) = piece.get(..end).filter(|name| !slots.contains_key(*name)) {
                    slots.insert(Cow::Owned(name.to_owned()), Slot::default());
                }
            }
        }
        Self {
            slots,
            reset: None,
            repeated: BTreeMap::new(),
            left_out: Vec::new(),
            ineffective: Vec::new(),
            not_read: Vec::new(),
            has_late_files: false,
            is_withheld: false,
        }
    }

    /// The value of a variable, if it is known here, and its source.
    pub(super) fn value(&self, name: &str) -> Option<(&str, Option<&Source>)> {
        let slot = self.slots.get(name)?;
        if slot.is_from_drop_in() {
            // The drop-in's value is not known here, and no command uses it.
            return Some(("", None));
        }
        slot.value().map(|set| (set.value.as_str(), Some(&set.source)))
    }

    /// Adds the manager's environment and `PassEnvironment=`.
    pub(super) fn inherit(&mut self, root: &Root, unit: &Unit, manager: &Manager) {
        for (name, slot) in &mut self.slots {
            slot.inherited = manager.for_all(name).cloned();
        }
        let mut passed: BTreeMap<&str, &Source> = BTreeMap::new();
        for assignment in unit.list_of("PassEnvironment") {
            let names = assignment.value.split_ascii_whitespace();
            passed.extend(names.map(|name| (name, &assignment.source)));
        }
        passed.retain(|name, _| self.slots.contains_key(*name));
        if passed.is_empty() {
            return;
        }
        let own = manager.own_environment(root);
        for (name, source) in passed {
            let Some(slot) = self.slots.get_mut(name) else {
                continue;
            };
            match own.as_ref().map(|own| own.get(name)) {
                Some(Some(value)) => {
                    slot.inherited = Some(Sourced { value: value.clone(), source: source.clone() });
                }
                Some(None) => {}
                None => slot.passed = Some(source.clone()),
            }
        }
    }

    fn set(&mut self, key: &str, value: &str, source: impl FnOnce() -> Source) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.assigned = Some(Assigned::Unit(Sourced { value: value.to_owned(), source: source() }));
        }
    }

    /// Adds `Environment=` of all files, and the drop-in at its position if it is `in_force`.
    pub(super) fn assign(
        &mut self,
        unit: &Unit,
        in_force: bool,
        decided: &BTreeMap<&'static str, Source>,
        problems: &mut Vec<Problem>,
    ) {
        let mut is_applied = false;
        for assignment in unit.assignments_of("Environment") {
            if !is_applied && position(unit, &assignment.source.file) != Position::Before {
                is_applied = true;
                if in_force {
                    self.apply_drop_in(decided, problems);
                }
            }
            if assignment.value.is_empty() {
                self.slots.values_mut().for_each(|slot| slot.assigned = None);
                self.reset = is_applied.then(|| assignment.source.clone());
                continue;
            }
            let Some(name) = unit.name_at(assignment) else {
                continue;
            };
            for word in words_of(&assignment.value) {
                if let Ok(word) = specifier::expand(&word, &name)
                    && let Some((key, value)) = word.split_once('=')
                {
                    self.set(key, value, || assignment.source.clone());
                }
            }
        }
        if in_force && !is_applied {
            self.apply_drop_in(decided, problems);
        }
    }

    /// Applies the drop-in: values set by the operator so far are kept, all others are replaced.
    fn apply_drop_in(&mut self, decided: &BTreeMap<&'static str, Source>, problems: &mut Vec<Problem>) {
        let is_operators = |set: &Sourced<String>| !set.value.is_empty() && !is_packaged(&set.source.file);
        for key in VARIABLES {
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            let in_unit = match slot.assigned.replace(Assigned::DropIn) {
                Some(Assigned::Unit(set)) => Some(set),
                _ => None,
            };
            let inherited = || slot.inherited.clone().filter(is_operators);
            let Some(set) = in_unit.filter(is_operators).or_else(inherited) else {
                continue;
            };
            if let Some(by) = decided.get(key) {
                let effect =
                    Effect::Ineffective { key, value: set.value, because: format!("{by} takes precedence") };
                self.ineffective.push(Override::new(set.source, effect));
            } else if is_valid_value(key, &set.value) {
                slot.assigned = Some(Assigned::Unit(set.clone()));
                self.repeated.insert(key, set);
            } else {
                problems.push(not_valid(key, &set));
            }
        }
    }

    /// Applies `UnsetEnvironment=`: names, or assignments that remove only that value.
    pub(super) fn unset(&mut self, unit: &Unit) {
        let mut removed: Vec<(Cow<'_, str>, &Source)> = Vec::new();
        for assignment in unit.list_of("UnsetEnvironment") {
            removed.extend(words_of(&assignment.value).map(|word| (word, &assignment.source)));
        }
        for (word, source) in removed {
            let (key, value) = name_and_value(&word);
            let Some(slot) = self.slots.get_mut(key) else {
                continue;
            };
            // The drop-in's own values are not known here, so they never match such an assignment.
            let applies = match value {
                None => slot.is_from_drop_in() || slot.value().is_some(),
                Some(value) => slot.value().is_some_and(|set| set.value == value),
            };
            if applies {
                slot.unset = Some((Stage::UnsetEnvironment, source.clone()));
            }
        }
    }

    /// Applies the changes that the commands themselves make, after all those of systemd. `env_file`: the path of the profile
    /// file in the drop-in.
    pub(super) fn change_by_commands(
        &mut self,
        changes: Vec<(Option<String>, Option<String>, Source)>,
        program: Program,
        env_file: &str,
    ) {
        // Removing a variable has an effect only if the program reads it.
        let reads = |key: &str| match program {
            Program::Pypnm => key == names::ENV_FILE,
            Program::Uvicorn => key != names::ENV_FILE,
            Program::Unknown => true,
        };
        for (name, value, source) in changes {
            for key in
                READ_BY_THE_PROGRAM.into_iter().filter(|key| name.as_ref().is_none_or(|name| name == key))
            {
                let Some(slot) = self.slots.get_mut(key) else {
                    continue;
                };
                match &value {
                    Some(value) if key == names::ENV_FILE && value == env_file => {
                        *slot = Slot { assigned: Some(Assigned::DropIn), ..Slot::default() };
                    }
                    Some(value) => {
                        let set = Sourced { value: value.clone(), source: source.clone() };
                        *slot = Slot { assigned: Some(Assigned::Command(set)), ..Slot::default() };
                    }
                    None if !reads(key) => continue,
                    None if slot.is_from_drop_in() || slot.value().is_some() || slot.passed.is_some() => {
                        slot.unset = Some((Stage::Command, source.clone()));
                    }
                    None => {}
                }
                if key == names::ENV_FILE {
                    self.is_withheld = value.is_none();
                }
            }
        }
    }

    /// Handles `WEB_CONCURRENCY`, which uvicorn reads if `UVICORN_WORKERS` is not set. If the operator sets it, the drop-in
    /// omits its own variable.
    pub(super) fn resolve_concurrency(
        &mut self,
        program: Program,
        decided: &BTreeMap<&'static str, Source>,
        problems: &mut Vec<Problem>,
    ) {
        const KEY: &str = names::WEB_CONCURRENCY;
        let Some(set) = self.slots.get(KEY).and_then(Slot::value).cloned() else {
            return;
        };
        let Some(workers) = self.slots.get_mut(names::UVICORN_WORKERS) else {
            return;
        };
        let because = if program == Program::Pypnm {
            "pypnm serve does not read it".to_owned()
        } else if let Some(other) = workers.value() {
            format!("{}={} takes precedence, {}", names::UVICORN_WORKERS, other.value, other.source)
        } else if !workers.is_from_drop_in() {
            // No other variable is set.
            return;
        } else if is_packaged(&set.source.file) {
            "a package's setting is replaced".to_owned()
        } else if let Some(by) = decided.get(names::UVICORN_WORKERS) {
            format!("{by} takes precedence")
        } else if !is_valid_value(KEY, &set.value) {
            problems.push(not_valid(KEY, &set));
            return;
        } else {
            workers.assigned = None;
            self.left_out.push(names::UVICORN_WORKERS);
            return;
        };
        let effect = Effect::Ineffective { key: KEY, value: set.value, because };
        self.ineffective.push(Override::new(set.source, effect));
    }

    /// Adds everything that differs from the drop-in to `overrides`.
    pub(super) fn report(&mut self, overrides: &mut Overrides) {
        let concurrency_counts =
            !self.ineffective.iter().any(|o| o.effect.key() == Some(names::WEB_CONCURRENCY));
        for key in VARIABLES.into_iter().chain(concurrency_counts.then_some(names::WEB_CONCURRENCY)) {
            let Some(slot) = self.slots.get(key).filter(|slot| !slot.is_from_drop_in()) else {
                continue;
            };
            let is_profile = key == names::ENV_FILE;
            let (stage, source, effect) = match (slot.value(), &slot.unset, &slot.passed, &self.reset) {
                (Some(set), ..) => {
                    (slot.stage(), &set.source, Effect::Variable { key, value: set.value.clone() })
                }
                (None, Some((stage, source)), ..) if is_profile && self.is_withheld => {
                    (*stage, source, Effect::Withheld)
                }
                (None, Some((stage, source)), ..) => (*stage, source, Effect::Unset { key }),
                (None, None, Some(source), _) => (Stage::Settings, source, Effect::Passed { key }),
                (None, None, None, Some(source)) if key != names::WEB_CONCURRENCY => {
                    (Stage::Settings, source, Effect::Unset { key })
                }
                (None, None, None, _) => continue,
            };
            overrides.list.push(Override::at(stage, source.clone(), effect));
        }
        overrides.list.append(&mut self.ineffective);
    }
}

/// The variables that the programs read from their environment: uvicorn its numbers, PyPNM the path of its profile file.
/// PyPNM's numbers are in that file, which is written before.
const READ_BY_THE_PROGRAM: [&str; 4] =
    [names::UVICORN_WORKERS, names::UVICORN_LIMIT_MAX_REQUESTS, names::WEB_CONCURRENCY, names::ENV_FILE];

/// Whether a command that changes the variable itself has an effect.
pub(super) fn is_read_by_the_program(name: &str) -> bool {
    READ_BY_THE_PROGRAM.contains(&name)
}

fn not_valid(key: &'static str, set: &Sourced<String>) -> Problem {
    let source = Source { key: key.into(), ..set.source.clone() };
    Problem::bad_value(source, &set.value, "a value that PyPNM accepts", "the sized value is used")
}
