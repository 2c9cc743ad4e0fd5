//! How a service was started, or would be: which program, which of its flags and variables decide its numbers.
//!
//! `pypnm_sizing::launch` tells PyPNM, uvicorn and anything else apart, and reads flags. Opens nothing.

use pypnm_sizing::launch::{Program, flag, program};
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
    words: Vec<&'a str>,
}

impl<'a> Launch<'a> {
    /// Of a process.
    pub(crate) fn of_arguments(arguments: &'a [String]) -> Self {
        Self::of(arguments.iter().map(String::as_str).collect())
    }

    /// Of a command in a unit, words separated by spaces; its variables are not expanded.
    pub(crate) fn of_command(command: &'a str) -> Self {
        let mut words: Vec<&str> = command.split_ascii_whitespace().collect();
        if let Some(path) = words.first_mut() {
            // systemd.service(5), "Command lines": special executable prefixes.
            *path = path.trim_start_matches(['@', '-', ':', '+', '!', '|']);
        }
        Self::of(words)
    }

    fn of(words: Vec<&'a str>) -> Self {
        Self { program: program(&words), words }
    }

    pub(crate) fn program(&self) -> Program {
        self.program
    }

    /// The value of a flag.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        flag(&self.words, self.program, name)
    }

    /// What decides its numbers. A command that is not known counts as PyPNM: the service is named after it.
    pub(crate) fn keys(&self) -> Keys {
        if self.program == Program::Uvicorn { OF_UVICORN } else { OF_PYPNM }
    }
}
