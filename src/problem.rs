//! What went wrong with an input, as data: the file, the line, the key, what was expected, and what happens
//! instead. A problem never ends a run; who prints it is decided elsewhere (the kernel log, stderr, `explain`).

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use crate::parse::printable::{Printable, is_hidden};
use crate::parse::quantity::Gib;
use crate::parse::syntax::Fault;
use crate::root::ReadError;

/// The name of a file, shared by all that it sets.
pub type FileName = Rc<str>;

/// Where a value stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file, or what stands for one (`the command line`).
    pub file: FileName,
    /// The line, from 1; 0 where the file is one value.
    pub line: u32,
    /// The key in it; empty where the file is one value.
    pub key: Cow<'static, str>,
}

impl Source {
    /// A file that is one value.
    pub fn file(file: impl Into<FileName>) -> Self {
        Self { file: file.into(), line: 0, key: Cow::Borrowed("") }
    }

    /// A key in a file.
    pub fn key(file: impl Into<FileName>, line: u32, key: impl Into<Cow<'static, str>>) -> Self {
        Self { file: file.into(), line, key: key.into() }
    }

    /// The file and the line: `file:line`, or the file where it is one value.
    pub fn place(&self) -> String {
        if self.line == 0 { self.file.to_string() } else { format!("{}:{}", self.file, self.line) }
    }
}

/// A value, and where it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it is set.
    pub source: Source,
}

/// `file:line: key`, without what is absent.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Printable(&self.file))?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", Printable(&self.key))?;
        }
        Ok(())
    }
}

/// A problem with one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub source: Source,
    /// What is wrong.
    pub kind: ProblemKind,
    /// What is done about it.
    pub consequence: Cow<'static, str>,
}

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file could not be read.
    Unreadable(ReadError),
    /// The file has no such entry.
    Absent,
    /// A value is not what it should be.
    BadValue {
        /// As it stands there, shortened.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A valid value that the machine cannot meet.
    Excessive {
        /// The value.
        value: String,
        /// What there is.
        available: String,
    },
    /// No such key, and perhaps the one that was meant.
    UnknownKey {
        /// The nearest key there is.
        nearest: Option<&'static str>,
    },
    /// No such section.
    UnknownSection {
        /// What sections there are.
        expected: &'static str,
    },
    /// A line that says nothing.
    Syntax(Fault),
    /// The file's name is none that a configuration file may have.
    BadName {
        /// Why not.
        reason: &'static str,
    },
    /// Memory that is plugged in and not in use.
    OfflineMemory {
        /// How much, in bytes.
        bytes: u64,
    },
    /// So many faults before this line that the file can't be what it should be.
    TooManyFaults,
}

impl ProblemKind {
    /// A bad value; a long or binary one is shortened and made printable.
    pub fn bad_value(value: &str, expected: &'static str) -> Self {
        let mut shown: String =
            value.chars().take(40).map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect();
        if value.chars().nth(40).is_some() {
            shown.push('…');
        }
        Self::BadValue { value: shown, expected }
    }
}

impl Problem {
    /// A bad value, as [`ProblemKind::bad_value`].
    pub fn bad_value(
        source: Source,
        value: &str,
        expected: &'static str,
        consequence: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { source, kind: ProblemKind::bad_value(value, expected), consequence: consequence.into() }
    }

    /// A file that could not be read.
    pub fn unreadable(
        file: impl Into<FileName>,
        error: ReadError,
        consequence: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            source: Source::file(file),
            kind: ProblemKind::Unreadable(error),
            consequence: consequence.into(),
        }
    }
}

/// One line: `file:line: key: what is wrong, what was expected; what happens instead`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.kind {
            ProblemKind::Unreadable(error) => write!(f, "{error}")?,
            ProblemKind::Absent => f.write_str("missing")?,
            ProblemKind::BadValue { value, expected } => write!(f, "'{value}' is not {expected}")?,
            ProblemKind::Excessive { value, available } => {
                write!(f, "{value}, but only {available} available")?;
            }
            ProblemKind::UnknownKey { nearest: Some(nearest) } => {
                write!(f, "unknown key, did you mean {nearest}=?")?;
            }
            ProblemKind::UnknownKey { nearest: None } => f.write_str("unknown key")?,
            ProblemKind::UnknownSection { expected } => write!(f, "unknown section, expected {expected}")?,
            ProblemKind::Syntax(fault) => write!(f, "{fault}")?,
            ProblemKind::BadName { reason } => f.write_str(reason)?,
            ProblemKind::OfflineMemory { bytes } => write!(f, "{} GiB of memory is offline", Gib(*bytes))?,
            ProblemKind::TooManyFaults => f.write_str("too many errors above")?,
        }
        write!(f, "; {}", self.consequence)
    }
}
