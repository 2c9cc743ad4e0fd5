//! How a service was started, or would be: which program, its flags, and which variables decide its numbers.
//!
//! `pypnm_sizing::command` tells PyPNM, uvicorn and anything else apart, and reads flags. Opens nothing.

use pypnm_sizing::command::{CommandReader, Program};
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS, LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WORKERS,
    WORKERS_FLAG,
};

/// What decides a number, the stronger first: a flag, then a variable.
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
    /// The flags that decide, with their values, in order.
    flags: Vec<(&'static str, &'a str)>,
}

impl<'a> Launch<'a> {
    /// Of a process.
    pub(crate) fn of_arguments(arguments: &'a [String]) -> Self {
        Self::of(arguments.iter().map(String::as_str))
    }

    /// Of a command in a unit, words separated by spaces; its variables are not expanded.
    pub(crate) fn of_command(command: &'a str) -> Self {
        Self::of(command.split_ascii_whitespace())
    }

    fn of(words: impl Iterator<Item = &'a str>) -> Self {
        let mut reader = CommandReader::default();
        let flags = words.filter_map(|word| reader.word(word)).collect();
        Self { program: reader.program(), flags }
    }

    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// The value of `--workers` or `--limit-max-requests`, the last one.
    pub(crate) fn flag(&self, name: &str) -> Option<&'a str> {
        self.flags.iter().rfind(|(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    /// What decides its numbers. A command that is not known counts as PyPNM: the service is named after it.
    pub(crate) fn keys(&self) -> Keys {
        if self.program == Program::Uvicorn { OF_UVICORN } else { OF_PYPNM }
    }
}
