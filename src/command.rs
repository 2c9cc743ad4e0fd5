//! What a command line starts, and the values of its flags: the only parser of PyPNM's command lines. Pure.
//!
//! Two programs are known: `pypnm serve` (and `pypnm-cmts serve`), which uses Python's argparse, and `uvicorn`, which uses
//! click. Both are recognized when they are started directly, with `python -m`, as a script of a Python interpreter, or
//! through env(1) or the wrappers of this package. Anything else (a shell, another wrapper or server) is
//! [`Program::Unknown`], since it may do anything.

use crate::names::{LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};

/// What a command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `pypnm serve` or `pypnm-cmts serve`.
    Pypnm,
    /// `uvicorn`
    Uvicorn,
    /// Anything else: its effect on the workers cannot be determined from the command line.
    Unknown,
}

/// Reads a command word by word, as the program would see it.
#[derive(Debug)]
pub struct CommandReader {
    state: State,
    /// The flags to look for.
    flags: &'static [&'static str],
    /// Only positional arguments follow (`--`).
    ended: bool,
    /// A flag whose value is the next word.
    pending: Option<&'static str>,
    /// `--reload` was given: the program runs a single worker, regardless of `--workers`.
    reload: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The program's path comes next.
    Path,
    /// argv[0] comes next, which does not affect what is started (`@` before the path).
    Name(&'static State),
    /// A Python interpreter; its options, a module or a script.
    Python,
    /// The value of one of Python's options.
    PythonValue,
    /// Python's `-m`: a module comes next.
    Module,
    /// `pypnm`, whose verb comes next.
    Verb,
    /// A program that executes the command after its own options and assignments (env(1)).
    Wrapper,
    /// `pypnm-sizing`, whose verb `exec` is a wrapper.
    Helper,
    Known(Program),
}

impl Default for CommandReader {
    fn default() -> Self {
        Self::for_flags(&[WORKERS_FLAG, LIMIT_MAX_REQUESTS_FLAG])
    }
}

impl CommandReader {
    /// A reader that looks for `flags`; the default ones are those that determine workers and recycle limit.
    pub fn for_flags(flags: &'static [&'static str]) -> Self {
        Self { state: State::Path, flags, ended: false, pending: None, reload: false }
    }

    /// Reads the next word. Returns a flag and its value if this word completes one.
    pub fn word<'w>(&mut self, word: &'w str) -> Option<(&'static str, &'w str)> {
        self.state = match self.state {
            State::Path => {
                let path = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
                let program = by_name(path);
                let has_name = word.get(..word.len() - path.len()).is_some_and(|prefix| prefix.contains('@'));
                if has_name { State::Name(program) } else { *program }
            }
            State::Name(program) => *program,
            State::Python => match word {
                "-m" => State::Module,
                "-W" | "-X" => State::PythonValue,
                _ if word.starts_with("-m") => module(word.get(2..).unwrap_or_default()),
                _ if word.starts_with("-W") || word.starts_with("-X") => State::Python,
                // Others take no value; -c is followed by a program, and a single dash stands for stdin.
                _ if word.starts_with('-') && word.len() > 1 && !word.contains('c') => State::Python,
                _ => match by_name(word) {
                    State::Python => State::Known(Program::Unknown),
                    program => *program,
                },
            },
            State::PythonValue => State::Python,
            State::Module => module(word),
            State::Wrapper if word.starts_with('-') || word.contains('=') => State::Wrapper,
            State::Wrapper => *by_name(word),
            State::Helper if word == "exec" => State::Wrapper,
            State::Verb if word == "serve" => State::Known(Program::Pypnm),
            State::Helper | State::Verb => State::Known(Program::Unknown),
            State::Known(program) => {
                return self.argument(program, word);
            }
        };
        None
    }

    /// Whether env(1) or a similar program treats the next word as an assignment if it has the form `NAME=value`.
    pub fn takes_assignment(&self) -> bool {
        self.state == State::Wrapper
    }

    /// What the command starts, according to the words read so far.
    pub fn program(&self) -> Program {
        match self.state {
            State::Known(program) => program,
            _ => Program::Unknown,
        }
    }

    /// Whether the program reloads its code on changes (`--reload`), which it does only with a single worker.
    pub fn reloads(&self) -> bool {
        self.reload
    }

    fn argument<'w>(&mut self, program: Program, word: &'w str) -> Option<(&'static str, &'w str)> {
        if let Some(flag) = self.pending.take() {
            return Some((flag, word));
        }
        if self.ended || word == "--" {
            self.ended = true;
            return None;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        self.reload |= name == "--reload";
        let flag = self.flags.iter().copied().find(|flag| is_flag(program, name, flag));
        match (flag?, value) {
            (flag, Some(value)) => Some((flag, value)),
            (flag, None) => {
                self.pending = Some(flag);
                None
            }
        }
    }
}

/// What a command starts.
pub fn program<S: AsRef<str>>(words: &[S]) -> Program {
    let mut reader = CommandReader::default();
    for word in words {
        reader.word(word.as_ref());
    }
    reader.program()
}

/// Whether `name` means `flag`. argparse accepts any unambiguous prefix. It rejects an ambiguous one, which is accepted
/// here: the service does not start then.
fn is_flag(program: Program, name: &str, flag: &str) -> bool {
    let abbreviated = program != Program::Uvicorn && name.len() > 2 && flag.starts_with(name);
    name == flag || abbreviated
}

/// The state after a path, according to its last component.
fn by_name(path: &str) -> &'static State {
    match path.rsplit('/').next().unwrap_or_default() {
        "pypnm" | "pypnm-cmts" => &State::Verb,
        "uvicorn" => &State::Known(Program::Uvicorn),
        "env" | "handover" | "pypnm_handover" => &State::Wrapper,
        "pypnm-sizing" => &State::Helper,
        name if is_python(name) => &State::Python,
        _ => &State::Known(Program::Unknown),
    }
}

/// `python`, `python3`, `python3.11`
fn is_python(name: &str) -> bool {
    let version = name.strip_prefix("python");
    version.is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn module(name: &str) -> State {
    match name {
        "uvicorn" => State::Known(Program::Uvicorn),
        "pypnm_handover" => State::Wrapper,
        "pypnm" | "pypnm.cli" | "pypnm_cmts" | "pypnm_cmts.cli" => State::Verb,
        _ => State::Known(Program::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandReader, Program};

    fn read(command: &str) -> (Program, Vec<String>) {
        let mut reader = CommandReader::default();
        let flags = command.split(' ').filter_map(|word| reader.word(word).map(|(f, v)| format!("{f} {v}")));
        let flags = flags.collect();
        (reader.program(), flags)
    }

    #[test]
    fn what_is_started() {
        for command in [
            "pypnm serve",
            "/opt/pypnm/bin/pypnm serve --port 1",
            "-/opt/pypnm/bin/pypnm-cmts serve",
            "@/opt/pypnm/bin/pypnm x serve",
            ":+/usr/bin/python3 -u -X dev /opt/pypnm/bin/pypnm serve",
            "/usr/bin/python3.11 -m pypnm.cli serve",
            "/usr/bin/env -i A=1 pypnm serve",
            "/usr/bin/env python3 -m pypnm.cli serve",
            "/usr/lib/pypnm-sizing/handover pypnm serve --port 1",
            "/v/bin/python3 -P /usr/lib/pypnm-sizing/pypnm_handover /v/bin/pypnm-cmts serve",
            "/usr/bin/pypnm-sizing exec -- pypnm serve",
        ] {
            assert_eq!(read(command).0, Program::Pypnm, "{command}");
        }
        for command in [
            "/v/bin/uvicorn a:b",
            "/v/bin/python -m uvicorn a:b",
            "python3 -Wd -muvicorn a:b",
            "/usr/bin/python3 -B /v/bin/uvicorn a:b",
        ] {
            assert_eq!(read(command).0, Program::Uvicorn, "{command}");
        }
        for command in [
            "",
            "pypnm",
            "pypnm --version",
            "/bin/bash -c uvicorn",
            "/opt/app/start.sh",
            "/usr/bin/env",
            "/usr/bin/env -S a b",
            "/usr/bin/pypnm-sizing watch",
            "python3 -c pypnm serve",
            "python3 - pypnm serve",
            "python3 start.py",
            "python3 -m gunicorn",
            "/usr/bin/python-wrapper -m uvicorn",
            "/v/bin/gunicorn -k uvicorn",
        ] {
            assert_eq!(read(command).0, Program::Unknown, "{command}");
        }
    }

    #[test]
    fn flags_and_their_beginnings() {
        let of = |command: &str| read(command).1.join(", ");
        assert_eq!(
            of("pypnm serve --workers 3 --limit-max-requests=7"),
            "--workers 3, --limit-max-requests 7"
        );
        assert_eq!(of("pypnm serve --worker 1 --limit 500"), "--workers 1, --limit-max-requests 500");
        assert_eq!(of("pypnm serve --w=1 --l 5"), "--workers 1, --limit-max-requests 5");
        assert_eq!(of("pypnm serve --work --workers"), "--workers --workers");
        assert_eq!(of("pypnm serve --workersx 1 -- --workers 2 --reload"), "");
        assert_eq!(of("uvicorn a:b --worker 1 --workers 2"), "--workers 2", "click takes no beginnings");
        assert_eq!(of("/usr/bin/env pypnm serve --worker 1"), "--workers 1");
        assert_eq!(of("pypnm --workers 3 serve"), "", "not one of the verb's");
    }

    #[test]
    fn assignments_of_env() {
        let of = |command: &str| {
            let mut reader = CommandReader::default();
            let words = command.split(' ').filter(|word| {
                let takes = reader.takes_assignment() && word.contains('=');
                reader.word(word);
                takes
            });
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("/usr/bin/env -i A=1 B=2 uvicorn C=3"), "A=1 B=2");
        assert_eq!(of("uvicorn A=1"), "");
    }

    #[test]
    fn reloading_its_code() {
        let reloads = |command: &str| {
            let mut reader = CommandReader::default();
            for word in command.split(' ') {
                reader.word(word);
            }
            reader.reloads()
        };
        assert!(reloads("pypnm serve --reload") && !reloads("pypnm serve --reload-dir x"));
    }
}
