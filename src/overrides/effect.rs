//! A single override as data: where it is set, and what it does. Found by the other modules.

use std::fmt;

use crate::names;
use crate::problem::Source;

/// A setting of the operator that overrides the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it is set.
    pub source: Source,
    /// When it is applied.
    pub stage: Stage,
    /// Its effect.
    pub effect: Effect,
}

/// When an override is applied, in this order (systemd.exec(5), "Environment Variables in Spawned Processes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// With the settings of the unit and of the manager, and the files that they name.
    Settings,
    /// After them, by `UnsetEnvironment=`.
    UnsetEnvironment,
    /// Last, by the command itself: its options, or env(1).
    Command,
}

/// The effect of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// One of the drop-in's variables ([`names::VARIABLES`]), or `WEB_CONCURRENCY`, has this value.
    Variable {
        /// Its name.
        key: &'static str,
        /// The value in effect.
        value: String,
    },
    /// A variable is set, but something else takes precedence.
    Ineffective {
        /// Its name.
        key: &'static str,
        /// The value that has no effect.
        value: String,
        /// The reason.
        because: String,
    },
    /// One of the drop-in's variables is removed by an empty `Environment=` or by `UnsetEnvironment=`.
    Unset {
        /// Its name.
        key: &'static str,
    },
    /// One of the drop-in's variables is removed, and is then taken from PID 1's environment if it is set there.
    Passed {
        /// Its name.
        key: &'static str,
    },
    /// The command line has a flag, which takes precedence over the environment for PyPNM and uvicorn.
    Flag {
        /// `--workers` or `--limit-max-requests`
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// The command does not start `pypnm serve` or uvicorn directly, so it is unknown whether it uses the numbers.
    UnknownCommand {
        /// The program that it starts.
        program: String,
    },
    /// `Restart=` is set to something other than `always`, overriding the drop-in.
    Restart {
        /// The value in effect.
        value: String,
    },
    /// `ExecStartPre=` is reset, so PyPNM's profile file is not written, and PyPNM falls back to its own sizing.
    NoHandOver,
    /// The command removes the variable that names the profile file (env(1) `-i` or `-u`), so PyPNM falls back to its own
    /// sizing.
    Withheld,
    /// A file of the same name in a directory with higher precedence replaces the drop-in.
    Replaced,
    /// A file in `EnvironmentFile=` was not read. It may set any of the variables.
    NotRead {
        /// Its path, or the pattern for several.
        path: String,
    },
}

impl Effect {
    /// The variable or flag that is overridden.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Variable { key, .. }
            | Self::Ineffective { key, .. }
            | Self::Unset { key }
            | Self::Passed { key } => Some(key),
            Self::Flag { flag, .. } => Some(flag),
            Self::UnknownCommand { .. }
            | Self::Restart { .. }
            | Self::NoHandOver
            | Self::Withheld
            | Self::Replaced
            | Self::NotRead { .. } => None,
        }
    }
}

impl Override {
    /// An override by a setting or a file.
    pub(super) fn new(source: Source, effect: Effect) -> Self {
        Self::at(Stage::Settings, source, effect)
    }

    pub(super) fn at(stage: Stage, source: Source, effect: Effect) -> Self {
        Self { source, stage, effect }
    }
}

/// `file:line: key: effect`
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match &self.effect {
            Effect::Variable { key, value } => write!(f, "{key}={value} is in effect"),
            Effect::Ineffective { key, value, because } => {
                write!(f, "{key}={value} has no effect: {because}")
            }
            Effect::Unset { key } => write!(f, "{key} is removed"),
            Effect::Passed { key } => write!(f, "{key} is taken from PID 1's environment"),
            Effect::Flag { flag, value } => write!(f, "{flag} {value} on the command line is in effect"),
            Effect::UnknownCommand { program } => {
                write!(f, "what {program} starts is unknown; it may run a single worker")
            }
            Effect::Restart { value } => write!(f, "Restart={value} is in effect"),
            Effect::NoHandOver => {
                f.write_str("the profile is not passed to PyPNM, which falls back to its own sizing")
            }
            Effect::Withheld => {
                write!(f, "{} is not passed on to PyPNM, which falls back to its own sizing", names::ENV_FILE)
            }
            Effect::Replaced => f.write_str("is read instead of the generated drop-in"),
            Effect::NotRead { path } => write!(f, "{path} was not read and may set anything"),
        }
    }
}
