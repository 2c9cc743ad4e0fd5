//! Why a unit does not find its program: settings that lead nowhere, in drop-ins for pypnm-sizing 0.1.0, whose unit used
//! `ExecSearchPath=` and started `pypnm` without a path, and a PyPNM that is outside the unit's `PATH`. Also provides the correct
//! setting or command for each.

use pypnm_sizing::command::PREFIXES;
use pypnm_sizing::config::DEFAULT_UNIT;
use pypnm_sizing::names::LAUNCHER;
use pypnm_sizing::root::ReadError;
use pypnm_sizing::units::{Assignment, Unit};

use super::commands::{commands, first_word};
use super::installation::Discovery;
use super::installed::Installations;
use super::paths::real_path;
use super::program::PACKAGED;
use super::search::{DEFAULT_PATH, is_packaged, path_of, search_path, variable_of};

/// A setting that fails to select the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostProgram {
    /// The setting, what is wrong with it, and what to write instead.
    pub(crate) text: String,
    /// Whether another program than the intended one is started, or none.
    pub(crate) is_harmful: bool,
}

impl Installations<'_> {
    /// Settings because of which the unit's program is not found. `is_loaded`: whether systemd has loaded the unit;
    /// versions before 250 ignore `ExecSearchPath=` and do not load a unit whose program is missing.
    pub(crate) fn lost_program(&self, is_loaded: bool) -> Vec<LostProgram> {
        let Some(unit) = self.unit else { return Vec::new() };
        let commands = commands(unit);
        let bare = commands.iter().filter_map(|command| self.bare(unit, command, is_loaded));
        let mut lost: Vec<LostProgram> = bare.collect();
        let is_bare = |command: &&Assignment| first_word(command).is_some_and(|word| !word.starts_with('/'));
        if !commands.is_empty() && !commands.iter().any(is_bare) {
            lost.extend(self.search_without_effect(unit));
        }
        lost
    }

    /// Checks for a command without a path that is in none of the directories systemd searches.
    fn bare(&self, unit: &Unit, command: &Assignment, is_loaded: bool) -> Option<LostProgram> {
        let program = self.program;
        let word = first_word(command).filter(|word| word == program.command)?;
        let search = search_path(unit);
        let is_unsupported = search.is_some() && !is_loaded;
        let path = search.filter(|_| is_loaded).map_or_else(|| DEFAULT_PATH.to_owned(), |(path, _)| path);
        if self.reach(&path) != Reach::No {
            return None;
        }
        let value = command.value.trim_start_matches(PREFIXES);
        // With the prefix @, the second word is the program's own name, so no replacement is suggested.
        let arguments = value.strip_prefix(&word).filter(|_| !command.value.contains('@')).unwrap_or(" …");
        let on_path = matches!(self.reach(&path_of(unit)), Reach::Yes(_));
        let start = match self.usable().next() {
            _ if on_path => word,
            Some(installation) => installation.command.clone(),
            None => program.in_environment(PACKAGED),
        };
        let launcher = if is_packaged(unit) {
            format!("{LAUNCHER} ")
        } else if on_path {
            "/usr/bin/env ".to_owned()
        } else {
            String::new()
        };
        let old = if is_unsupported { "; systemd before 250 has no ExecSearchPath=" } else { "" };
        Some(LostProgram {
            text: format!(
                "ExecStart={}, {}: systemd looks for {} in {path} and does not find it{old}; write instead: \
                 ExecStart={launcher}{start}{arguments}",
                command.value,
                command.source.place(),
                program.command,
            ),
            is_harmful: true,
        })
    }

    /// Checks for an `ExecSearchPath=` that has no effect because `Environment=` sets `PATH` for the unit's processes and
    /// every command has a path.
    fn search_without_effect(&self, unit: &Unit) -> Option<LostProgram> {
        let (path, source) = search_path(unit)?;
        let meant = self.reach(&path);
        let started = self.reach(&variable_of(unit, "PATH")?);
        let is_harmful = matches!(meant, Reach::Yes(_)) && meant != started;
        let what = match started {
            Reach::Yes(command) if is_harmful => format!(", and {command} is started"),
            Reach::No if is_harmful => format!(", and no {} is found", self.program.command),
            _ => String::new(),
        };
        let has_usr_bin = path.split(':').any(|directory| directory == "/usr/bin");
        let others = if has_usr_bin { String::new() } else { format!(":{DEFAULT_PATH}") };
        Some(LostProgram {
            text: format!(
                "ExecSearchPath={path}, {}, has no effect: the unit finds its program through Environment=PATH={what}; write instead: \
                 Environment=PATH={path}{others}",
                source.place(),
            ),
            is_harmful,
        })
    }

    /// The command that makes an installation available to a unit that does not find any. `None`: the unit finds one, or
    /// there is no usable one.
    pub(crate) fn out_of_reach(&self) -> Option<String> {
        let unit = self.unit.filter(|unit| is_packaged(unit))?;
        let is_started =
            self.found.iter().any(|installation| matches!(installation.found, Discovery::Unit(_)));
        if is_started || self.reach(&path_of(unit)) != Reach::No {
            return None;
        }
        let first = self.usable().next()?;
        let directory = match &first.found {
            // Of several environments in a checkout, one has to be chosen.
            Discovery::Checkout(directory)
                if self.usable().filter(|other| other.found == first.found).count() == 1 =>
            {
                directory
            }
            _ => &first.environment,
        };
        let for_unit =
            if unit.name == DEFAULT_UNIT { String::new() } else { format!(" --unit {}", unit.name) };
        Some(format!("pypnm-sizing setup {directory}{for_unit}"))
    }

    /// Whether the program exists in some directories.
    fn reach(&self, path: &str) -> Reach {
        let mut reach = Reach::No;
        for command in self.program.in_path(path) {
            match self.root.bytes(&command) {
                Err(ReadError::Missing | ReadError::Directory) => {}
                Ok(_) => return Reach::Yes(real_path(self.root, &command).unwrap_or(command)),
                Err(_) => reach = Reach::Unknown,
            }
        }
        reach
    }
}

/// Whether a program exists in some directories.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// It does, at this path.
    Yes(String),
    No,
    /// Unknown: the caller cannot access one of the directories.
    Unknown,
}
