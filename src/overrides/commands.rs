//! The commands of `ExecStart=`: what they start, and their flags after variables are expanded.
//!
//! [`crate::command`] parses the words; the values of variables are those of [`super::environment`].

use std::borrow::Cow;

use crate::command::{self, Change, CommandReader, Confinement, PREFIXES, Program};
use crate::names::{ENV_FILE_FLAG, LIMIT_MAX_REQUESTS_FLAG, UVICORN_ENV_FILE, WORKERS_FLAG};
use crate::overrides::effect::{Effect, Override, Stage};
use crate::overrides::environment::{Environment, is_read_by_the_program};
use crate::parse::words::words_of;
use crate::problem::{Problem, Source};
use crate::units::name::Name;
use crate::units::{Assignment, Unit, specifier};

/// The maximum size of a command line and its environment with the default stack size (execve(2), "Limits on size of
/// arguments and environment"). A longer command cannot be started.
const MAX_BYTES: usize = 2 << 20;

/// The maximum number of confinements that are read; nobody nests that many.
const MAX_CONFINEMENTS: usize = 32;

/// A command of `ExecStart=`.
pub(super) struct ExecCommand<'a> {
    assignment: &'a Assignment,
    /// The unit's name, for specifiers.
    name: Option<Name<'a>>,
    /// Whether variables are expanded (there is no `:` before the path).
    expands: bool,
}

impl<'a> ExecCommand<'a> {
    /// Its words up to the first invalid one, with specifiers expanded, but not variables.
    pub(super) fn words(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let name = self.name;
        words_of(&self.assignment.value).map(move |word| {
            match name.map(|name| specifier::expand(&word, &name)) {
                Some(Ok(Cow::Owned(expanded))) => Cow::Owned(expanded),
                _ => word,
            }
        })
    }

    /// The words in which variables are expanded.
    pub(super) fn expanded_words(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.words().filter(|_| self.expands)
    }

    fn source(&self) -> &'a Source {
        &self.assignment.source
    }
}

/// The commands of `ExecStart=` in effect.
pub(super) fn find(unit: &Unit) -> Vec<ExecCommand<'_>> {
    let mut commands = Vec::new();
    for assignment in unit.list_of("ExecStart") {
        let mut prefix = assignment.value.chars().take_while(|c| PREFIXES.contains(c));
        let expands = prefix.all(|c| c != ':');
        commands.push(ExecCommand { assignment, name: unit.name_at(assignment), expands });
    }
    commands
}

/// The program that the commands start; unknown if they start different ones.
pub(super) fn program(commands: &[ExecCommand<'_>]) -> Program {
    let mut programs = commands.iter().map(|command| command::program(command.words()));
    let first = programs.next().unwrap_or(Program::Unknown);
    if programs.all(|other| other == first) { first } else { Program::Unknown }
}

/// Adds the last of each flag on the commands, and the commands that are unknown, to `list`. Returns whether all commands
/// are known and may run more than one worker.
pub(super) fn flags(
    commands: &[ExecCommand<'_>],
    environment: &Environment<'_>,
    list: &mut Vec<Override>,
    problems: &mut Vec<Problem>,
) -> bool {
    let (mut workers, mut limit) = (None, None);
    let mut unknown = Vec::new();
    let mut all_known = true;
    let mut budget = MAX_BYTES;
    for command in commands {
        let mut reader = CommandReader::default();
        let fits = each_word(command, environment, &mut budget, &mut |word, source| {
            if let Some((flag, value)) = reader.word(word) {
                let effect = Effect::Flag { flag, value: value.to_owned() };
                let slot = if flag == WORKERS_FLAG { &mut workers } else { &mut limit };
                debug_assert!(flag == WORKERS_FLAG || flag == LIMIT_MAX_REQUESTS_FLAG);
                *slot = Some(Override::at(Stage::Command, source.clone(), effect));
            }
        });
        if !fits {
            let value = &command.assignment.value;
            let expected = "a command line of at most 2 MiB after its variables are expanded";
            let consequence = "its options are unknown";
            problems.push(Problem::bad_value(command.source().clone(), value, expected, consequence));
        }
        if reader.program() == Program::Unknown || !fits {
            let program = command.words().next().unwrap_or_default().into_owned();
            let effect = Effect::UnknownCommand { program };
            unknown.push(Override::at(Stage::Command, command.source().clone(), effect));
        }
        all_known &= reader.program() != Program::Unknown && fits && !reader.reloads();
    }
    list.extend(workers);
    list.extend(limit);
    list.append(&mut unknown);
    all_known
}

/// The changes that the commands make to their environment with env(1): the variable (`None`: all), its value (`None`: it is
/// removed), and the source.
pub(super) fn changes(
    commands: &[ExecCommand<'_>],
    environment: &Environment<'_>,
) -> Vec<(Option<String>, Option<String>, Source)> {
    let mut changes = Vec::new();
    let mut budget = MAX_BYTES;
    for command in commands {
        let mut reader = CommandReader::default();
        each_word(command, environment, &mut budget, &mut |word, _| {
            reader.changes(word, &mut |change| {
                let (name, value) = match change {
                    Change::Clear => (None, None),
                    Change::Unset(name) => (Some(name), None),
                    Change::Assign(name, value) => (Some(name), Some(value)),
                };
                if name.is_none_or(is_read_by_the_program) {
                    let source = command.source().clone();
                    changes.push((name.map(str::to_owned), value.map(str::to_owned), source));
                }
            });
            reader.word(word);
        });
    }
    changes
}

/// The file that uvicorn reads itself, and what names it: an option, or else a variable.
pub(super) fn dotenv(
    commands: &[ExecCommand<'_>],
    environment: &Environment<'_>,
) -> Option<(String, Source)> {
    let mut found = None;
    let mut budget = MAX_BYTES;
    for command in commands {
        let mut reader = CommandReader::for_flags(&[ENV_FILE_FLAG]);
        each_word(command, environment, &mut budget, &mut |word, source| {
            if let Some((_, path)) = reader.word(word) {
                found = Some((path.to_owned(), source.clone()));
            }
        });
    }
    found.or_else(|| {
        let (path, source) = environment.value(UVICORN_ENV_FILE)?;
        Some((path.to_owned(), source?.clone()))
    })
}

/// The CPUs and memory nodes to which the commands confine the service, by taskset(1) and numactl(8). Variables are not
/// expanded: a value that contains one is unknown.
pub(super) fn confinements(commands: &[ExecCommand<'_>]) -> Vec<(Confinement, Source)> {
    let mut found = Vec::new();
    for command in commands {
        let mut reader = CommandReader::default();
        for word in command.words() {
            if let Some(confinement) = reader.confinement(&word) {
                if found.len() == MAX_CONFINEMENTS {
                    found.push((Confinement::Cpus(Err(word.into_owned())), command.source().clone()));
                    return found;
                }
                found.push((confinement, command.source().clone()));
            }
            reader.word(&word);
        }
    }
    found
}

/// Calls `visit` for the words of a command after variables are expanded (systemd.service(5), "Command lines"): a word
/// `$NAME` is split into words, `${NAME}` is not. Each word is passed with its source. Returns false if the words exceed
/// `budget`, which limits both time and length.
fn each_word(
    command: &ExecCommand<'_>,
    environment: &Environment<'_>,
    budget: &mut usize,
    visit: &mut dyn FnMut(&str, &Source),
) -> bool {
    let mut spend = |bytes: usize| match budget.checked_sub(bytes + 1) {
        Some(rest) => {
            *budget = rest;
            true
        }
        None => false,
    };
    for word in command.words() {
        if !spend(word.len()) {
            return false;
        }
        if !command.expands || !word.contains('$') {
            visit(&word, command.source());
            continue;
        }
        if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$'])) {
            if let Some((value, source)) = environment.value(name) {
                if !spend(value.len()) {
                    return false;
                }
                words_of(value).for_each(|word| visit(&word, source.unwrap_or(command.source())));
            }
            continue;
        }
        let mut text = String::new();
        let mut rest = word.as_ref();
        while let Some((before, after)) = rest.split_once('$') {
            text.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                let (name, behind) = after.split_once('}').unwrap_or((after, ""));
                let value = environment.value(name).map_or("", |(value, _)| value);
                if !spend(value.len()) {
                    return false;
                }
                text.push_str(value);
                rest = behind;
            } else {
                text.push('$');
                rest = after.strip_prefix('$').unwrap_or(after);
            }
        }
        text.push_str(rest);
        visit(&text, command.source());
    }
    true
}
