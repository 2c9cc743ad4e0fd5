//! A variable of a service's environment: the sources that set or remove it, and the one that takes effect. Pure.

use crate::overrides::effect::Stage;
use crate::problem::{Source, Sourced};

/// What is known about a variable.
#[derive(Default)]
pub(super) struct Slot {
    /// The value from the manager.
    pub(super) inherited: Option<Sourced<String>>,
    /// `PassEnvironment=` lists it, but PID 1's environment cannot be read.
    pub(super) passed: Option<Source>,
    /// The value from the unit's files.
    pub(super) assigned: Option<Assigned>,
    /// `UnsetEnvironment=` or a command removes it.
    pub(super) unset: Option<(Stage, Source)>,
}

/// What assigned a variable last.
pub(super) enum Assigned {
    /// The generated drop-in.
    DropIn,
    /// A file of the unit.
    Unit(Sourced<String>),
    /// A command.
    Command(Sourced<String>),
}

impl Slot {
    /// The value and its source. `None`: it is not set, or the drop-in sets it.
    pub(super) fn value(&self) -> Option<&Sourced<String>> {
        match (&self.unset, &self.assigned) {
            (Some(_), _) | (None, Some(Assigned::DropIn)) => None,
            (None, Some(Assigned::Unit(set) | Assigned::Command(set))) => Some(set),
            (None, None) => self.inherited.as_ref(),
        }
    }

    /// When its value is assigned.
    pub(super) fn stage(&self) -> Stage {
        match self.assigned {
            Some(Assigned::Command(_)) => Stage::Command,
            _ => Stage::Settings,
        }
    }

    pub(super) fn is_from_drop_in(&self) -> bool {
        self.unset.is_none() && matches!(self.assigned, Some(Assigned::DropIn))
    }
}
