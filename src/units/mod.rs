//! Units as systemd would load them at this moment: which files apply to a unit, in which order, and what they assign.
//! The meaning of the settings is determined elsewhere ([`crate::limits::service`], [`crate::overrides`]).
//!
//! [`Index`] finds and loads units (systemd.unit(5), "Unit File Load Path"); [`name`] and [`specifier`] are pure.
//!
//! The directories that generators write to (`/run/systemd/generator`, `.early`, `.late`) are deliberately ignored: they
//! are emptied and refilled by all generators in parallel while this one runs, so their contents are unpredictable. A unit
//! written by another generator is therefore not seen, but drop-ins that an operator adds to it are.

mod index;
mod load;
pub mod name;
pub mod specifier;

pub use index::{DIRECTORIES, Index, is_packaged, yields_to_generators};
pub use load::parse_assignments;

use crate::problem::Source;
use crate::units::name::{Name, Type};

/// The settings that are read, of services and of slices.
pub const KEYS: [&str; 22] = [
    "Slice",
    "MemoryMax",
    "MemoryHigh",
    "MemoryLimit",
    "MemoryMin",
    "MemoryLow",
    "MemorySwapMax",
    "CPUQuota",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "CPUAffinity",
    "NUMAMask",
    "NUMAPolicy",
    "Environment",
    "EnvironmentFile",
    "PassEnvironment",
    "UnsetEnvironment",
    "ExecStart",
    "ExecStartPre",
    "ExecSearchPath",
    "Restart",
    "Type",
];

/// The state of a unit after loading (systemd's `LoadState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// Its file was read. A slice does not need a file.
    Loaded,
    /// It has no file: there is no such unit, or another generator creates it.
    NotFound,
    /// Its file is empty or a symbolic link to /dev/null: it cannot be started.
    Masked,
    /// Its file cannot be read completely: it cannot be started.
    Bad,
}

/// A `key=value` assignment of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// One of [`KEYS`].
    pub key: &'static str,
    /// The value without surrounding white space; specifiers are not expanded.
    pub value: String,
    /// The file, the line and the key.
    pub source: Source,
}

/// A unit and the assignments in its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name (`Id`): that of its file, which may differ from the name that was requested.
    pub name: String,
    /// The name that was requested. systemd expands specifiers in the unit file with the name by which it first found it.
    pub asked: String,
    /// Its aliases.
    pub aliases: Vec<String>,
    /// Its state after loading.
    pub state: LoadState,
    /// Its file (`FragmentPath`).
    pub fragment: Option<String>,
    /// Its drop-ins, in the order in which they are read (`DropInPaths`).
    pub drop_ins: Vec<String>,
    /// The assignments in all files, in order: later ones override earlier ones or add to them.
    pub assignments: Vec<Assignment>,
    /// Files that could not be read and may contain assignments.
    pub unread: Vec<Source>,
}

impl Unit {
    /// The assignments to a key, in order.
    pub fn assignments_of<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Assignment> {
        self.assignments.iter().filter(move |assignment| assignment.key == key)
    }

    /// The assignments to a key whose values form a list, in order: those after the last empty one, which resets the list.
    pub fn list_of<'a>(&'a self, key: &'a str) -> Vec<&'a Assignment> {
        let mut list: Vec<_> = self.assignments_of(key).rev().take_while(|a| !a.value.is_empty()).collect();
        list.reverse();
        list
    }

    /// The name with which systemd expands the specifiers of an assignment.
    pub fn name_at(&self, assignment: &Assignment) -> Option<Name<'_>> {
        let of_own_file = self.fragment.as_deref() == Some(&*assignment.source.file);
        Name::parse(if of_own_file { &self.asked } else { &self.name })
    }

    /// The type, from the name.
    pub fn unit_type(&self) -> Type {
        if self.name.ends_with(".slice") { Type::Slice } else { Type::Service }
    }
}
