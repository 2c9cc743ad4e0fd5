//! Problems with inputs as data: the file, the line, the key, what was expected, and what happens instead. A problem never
//! ends a run. Callers decide where to report it (the kernel log, stderr, `explain`).

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use crate::parse::printable::{Printable, is_hidden};
use crate::parse::quantity::Gib;
use crate::parse::syntax::Fault;
use crate::root::ReadError;

/// The consequence if limits of both resources are unknown.
pub const ASSUMING_MINIMUM: &str = "assuming minimal CPUs and memory";

/// The name of a file, shared by all settings in it.
pub type FileName = Rc<str>;

/// The place where a value is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file, or the name of another source (`command line`).
    pub file: FileName,
    /// The line, from 1; 0 if the file is a single value.
    pub line: u32,
    /// The key; empty if the file is a single value.
    pub key: Cow<'static, str>,
}

impl Source {
    /// A file that is a single value.
    pub fn file(file: impl Into<FileName>) -> Self {
        Self { file: file.into(), line: 0, key: Cow::Borrowed("") }
    }

    /// A key in a file.
    pub fn key(file: impl Into<FileName>, line: u32, key: impl Into<Cow<'static, str>>) -> Self {
        Self { file: file.into(), line, key: key.into() }
    }

    /// `file:line`, or only the file if it is a single value.
    pub fn place(&self) -> String {
        if self.line == 0 { self.file.to_string() } else { format!("{}:{}", self.file, self.line) }
    }
}

/// A value and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it is set.
    pub source: Source,
}

/// `file:line: key`, without the parts that are absent.
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

/// A problem with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub source: Source,
    /// What is wrong.
    pub kind: ProblemKind,
    /// What happens instead.
    pub consequence: Cow<'static, str>,
    /// It is with the operator's configuration, sizing.conf(5).
    pub is_in_configuration: bool,
}

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file could not be read.
    Unreadable(ReadError),
    /// The file has no such entry.
    Absent,
    /// A value is invalid.
    BadValue {
        /// The value, shortened if it is long.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A value that systemd or a command can resolve when the service starts, but that cannot be resolved before.
    Undetermined {
        /// What the value would determine.
        what: &'static str,
        /// The value, shortened if it is long.
        value: String,
    },
    /// A valid value that the machine cannot satisfy.
    Excessive {
        /// The value.
        value: String,
        /// What is available; `None`: just that.
        available: Option<String>,
    },
    /// An unknown key, with a suggestion if there is a similar one.
    UnknownKey {
        /// The most similar key.
        nearest: Option<&'static str>,
    },
    /// An unknown section.
    UnknownSection {
        /// The sections that are valid.
        expected: &'static str,
    },
    /// A line that cannot be parsed.
    Syntax(Fault),
    /// The file name is not valid for a configuration file.
    BadName {
        /// Why not.
        reason: &'static str,
    },
    /// A unit that is listed twice, under different names.
    Repeated {
        /// The second name.
        name: String,
        /// The first name.
        first: String,
    },
    /// Memory that is installed but offline.
    OfflineMemory {
        /// The amount, in bytes.
        bytes: u64,
    },
    /// There were so many errors before this line that the rest of the file is skipped.
    TooManyFaults,
}

impl ProblemKind {
    /// An invalid value. It is shortened and made printable.
    pub fn bad_value(value: &str, expected: &'static str) -> Self {
        Self::BadValue { value: shortened(value), expected }
    }

    /// A value from which `what` cannot be determined. It is shortened and made printable.
    pub fn undetermined(value: &str, what: &'static str) -> Self {
        Self::Undetermined { what, value: shortened(value) }
    }
}

/// The beginning of a value, without characters that are not printable.
fn shortened(value: &str) -> String {
    const MAX_CHARACTERS: usize = 40;
    let printable = |c| if is_hidden(c) { '\u{fffd}' } else { c };
    let mut shown: String = value.chars().take(MAX_CHARACTERS).map(printable).collect();
    if value.chars().nth(MAX_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}

impl From<ReadError> for ProblemKind {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

impl Problem {
    /// A problem of any kind.
    pub fn new(source: Source, kind: ProblemKind, consequence: impl Into<Cow<'static, str>>) -> Self {
        Self { source, kind, consequence: consequence.into(), is_in_configuration: false }
    }

    /// An invalid value, see [`ProblemKind::bad_value`].
    pub fn bad_value(
        source: Source,
        value: &str,
        expected: &'static str,
        consequence: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(source, ProblemKind::bad_value(value, expected), consequence)
    }

    /// A line that systemd skips, or from which on it skips the file.
    pub fn skipped_by_systemd(source: Source, fault: Fault) -> Self {
        let what = if fault.ends_the_file() { "the rest of the file" } else { "the line" };
        Self::new(source, ProblemKind::Syntax(fault), format!("systemd skips {what}"))
    }

    /// The same problem, with the operator's configuration.
    #[must_use]
    pub fn in_configuration(self) -> Self {
        Self { is_in_configuration: true, ..self }
    }

    /// A problem with a key in a file, or with the file itself if it could not be read.
    pub fn with_key(
        file: impl Into<FileName>,
        key: &'static str,
        kind: ProblemKind,
        consequence: impl Into<Cow<'static, str>>,
    ) -> Self {
        let key = if matches!(kind, ProblemKind::Unreadable(_)) { "" } else { key };
        Self::new(Source::key(file, 0, key), kind, consequence)
    }

    /// A file that could not be read.
    pub fn unreadable(
        file: impl Into<FileName>,
        error: ReadError,
        consequence: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(Source::file(file), ProblemKind::Unreadable(error), consequence)
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
            ProblemKind::Undetermined { what, value } => write!(f, "cannot determine {what} in '{value}'")?,
            ProblemKind::Excessive { value, available: None } => {
                write!(f, "{value}, which leaves nothing")?;
            }
            ProblemKind::Excessive { value, available: Some(available) } => {
                write!(f, "{value}, but only {available} available")?;
            }
            ProblemKind::UnknownKey { nearest: Some(nearest) } => {
                write!(f, "unknown key (did you mean {nearest}=?)")?;
            }
            ProblemKind::UnknownKey { nearest: None } => f.write_str("unknown key")?,
            ProblemKind::UnknownSection { expected } => write!(f, "unknown section, expected {expected}")?,
            ProblemKind::Syntax(fault) => write!(f, "{fault}")?,
            ProblemKind::BadName { reason } => f.write_str(reason)?,
            ProblemKind::Repeated { name, first } => {
                write!(f, "{} is the same unit as {}", Printable(name), Printable(first))?;
            }
            ProblemKind::OfflineMemory { bytes } => write!(f, "{} GiB of memory is offline", Gib(*bytes))?,
            ProblemKind::TooManyFaults => f.write_str("too many errors above")?,
        }
        write!(f, "; {}", self.consequence)
    }
}
