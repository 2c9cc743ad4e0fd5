//! The files of a unit: when systemd reads them relative to the generated drop-in. Pure.

use crate::names::DROP_IN;
use crate::units::Unit;

/// The position of a file of the unit relative to the generated drop-in, in the order in which systemd reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Before,
    /// Instead of it: a file of the same name in a directory with higher precedence.
    Replacing,
    After,
}

/// The position of one of `unit`'s files: drop-ins of all directories are read in the order of their names.
pub(super) fn position(unit: &Unit, file: &str) -> Position {
    if unit.fragment.as_deref() == Some(file) {
        return Position::Before;
    }
    let (_, name) = file.rsplit_once('/').unwrap_or_default();
    match name.cmp(DROP_IN) {
        std::cmp::Ordering::Less => Position::Before,
        std::cmp::Ordering::Greater => Position::After,
        std::cmp::Ordering::Equal => Position::Replacing,
    }
}
