//! How a service was or would be started: the program, its flags, and the variables that determine its numbers.
//!
//! `pypnm_sizing::command` recognizes the program and parses the flags. Pure.

use pypnm_sizing::command::{CommandReader, Program};
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS, LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WORKERS,
    WORKERS_FLAG,
};

/// The names that determine a number, in order of precedence: a flag, then a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) workers: [&'static str; 2],
    pub(crate) limit: [&'static str; 2],
}

const OF_PYPNM: Keys =
    Keys { workers: [WORKERS_FLAG, WORKERS], limit: [LIMIT_MAX_REQUESTS_FLAG, LIMIT_MAX_REQUESTS] };
const OF_UVICORN: Keys = Keys {
    workers: [WORKERS_FLAG, UVICORN_WORKERS],
    limit: [LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS],
};

/// A command line, of a process or of `ExecStart=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch<'a> {
    program: Program,
    /// The relevant flags and their values, in order.
    flags: Vec<(&'static str, &'a str)>,
}

impl<'a> Launch<'a> {
    /// The command line of a process.
    pub(crate) fn from_arguments(arguments: &'a [String]) -> Self {
        Self::parse(arguments.iter().map(String::as_str))
    }

    /// A command in a unit: words separated by spaces, with unexpanded variables.
    pub(crate) fn from_command(command: &'a str) -> Self {
        Self::parse(command.split_ascii_whitespace())
    }

    fn parse(words: impl Iterator<Item = &'a str>) -> Self {
        let mut reader = CommandReader::default();
        let flags = words.filter_map(|word| reader.word(word)).collect();
        Self { program: reader.program(), flags }
    }

    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// The last value of `--workers` or `--limit-max-requests`.
    pub(crate) fn flag(&self, name: &str) -> Option<&'a str> {
        self.flags.iter().rfind(|(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    /// The names that determine its numbers. An unknown command is treated as PyPNM, because the service is named after it.
    pub(crate) fn keys(&self) -> Keys {
        if self.program == Program::Uvicorn { OF_UVICORN } else { OF_PYPNM }
    }
}
