//! Units as systemd itself would load them at that moment: which files say something about one, in which order, and
//! what they say. What a setting means is for those who read it ([`crate::limits::service`], [`crate::overrides`]).
//!
//! [`Index`] lists and finds (systemd.unit(5), "Unit File Load Path") and loads; [`name`] and [`specifier`] are pure.
//!
//! The directories that generators write to (`/run/systemd/generator`, `.early`, `.late`) are left out on purpose: they
//! are emptied and filled again, by all generators in parallel, while this one runs, so that what is seen there is
//! chance. A unit that another generator writes is not seen, but all drop-ins that an operator adds to it are.

mod index;
mod load;
pub mod name;
pub mod specifier;

pub use index::{DIRECTORIES, Index};
pub use load::parse_assignments;

use crate::problem::Source;
use crate::units::name::{Name, Type};

/// The settings that are read, of services and of slices alike where they have them.
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
/// What happens where a file or a directory cannot be read.
const SKIPPED_FILE: &str = "taking the least of CPUs and memory";

/// What became of a unit (systemd's `LoadState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its file was read; a slice needs none.
    Loaded,
    /// It has no file: there is no such unit, or another generator makes it.
    NotFound,
    /// Its file is empty or a link to /dev/null: it can't be started.
    Masked,
    /// Its file can't be read to its end: it can't be started.
    Bad,
}

/// One `key=value` of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// One of [`KEYS`].
    pub key: &'static str,
    /// As it stands there, without the spaces around it; specifiers as they are.
    pub value: String,
    /// Where: the file, the line, the key.
    pub source: Source,
}

/// A unit and what its files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name (`Id`): that of its file, which may differ from the name that was asked for.
    pub name: String,
    /// The name that was asked for: systemd reads the unit's own file under the name by which it came to it first.
    pub asked: String,
    /// The other names by which it goes.
    pub aliases: Vec<String>,
    /// What became of it.
    pub state: State,
    /// Its file (`FragmentPath`).
    pub fragment: Option<String>,
    /// Its drop-ins, in the order in which they are read (`DropInPaths`).
    pub drop_ins: Vec<String>,
    /// What they say, in order: the later one wins or adds.
    pub assignments: Vec<Assignment>,
    /// What could not be read, and might say something.
    pub unread: Vec<Source>,
}

impl Unit {
    /// The assignments of one key, in order.
    pub fn assignments_of<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Assignment> {
        self.assignments.iter().filter(move |assignment| assignment.key == key)
    }

    /// The name under which systemd reads an assignment: what its specifiers stand for.
    pub fn name_at(&self, assignment: &Assignment) -> Option<Name<'_>> {
        let of_own_file = self.fragment.as_deref() == Some(&*assignment.source.file);
        Name::parse(if of_own_file { &self.asked } else { &self.name })
    }

    /// The type, from its name.
    pub fn unit_type(&self) -> Type {
        if self.name.ends_with(".slice") { Type::Slice } else { Type::Service }
    }
}
