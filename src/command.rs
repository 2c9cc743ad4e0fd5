//! What a command line starts, and the values of its flags: the only parser of PyPNM's command lines. Pure.
//!
//! Two programs are known: `pypnm serve` (and `pypnm-cmts serve`), which uses Python's argparse, and `uvicorn`, which uses
//! click. Both are recognized when they are started directly, with `python -m`, as a script of a Python interpreter, or
//! through env(1), the wrappers of this package, or a program that executes its arguments and changes nothing relevant but
//! CPUs and memory nodes ([`wrapper`], [`confine`]). Anything else (a shell, sudo, another wrapper or server) is
//! [`Program::Unknown`], since it may do anything.

mod confine;
mod env;
mod wrapper;

pub use confine::Confinement;
use confine::Key;
pub use env::Change;
use wrapper::{After, Wrapper};

use crate::names::{LAUNCHER_PACKAGE, LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use crate::parse::{base_name, name_and_value};

/// The prefixes of the program in `ExecStart=` (systemd.service(5), "COMMAND LINES").
pub const PREFIXES: [char; 6] = ['@', '-', ':', '+', '!', '|'];

/// The program that a command starts.
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
    state: ReaderState,
    /// The next word is `argv[0]`, which does not affect what is started (`@` before the path).
    skips_name: bool,
    /// The flags to look for.
    flags: &'static [&'static str],
    /// Only positional arguments follow (`--`).
    ended: bool,
    /// A flag whose value is the next word.
    pending: Option<&'static str>,
    /// What the next value of taskset or numactl restricts.
    confines: Key,
    /// `--reload` was given: the program runs a single worker, regardless of `--workers`.
    reload: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    /// The next word is the path of the program.
    Path,
    /// A Python interpreter; its options, a module or a script.
    Python,
    /// The value of one of Python's options.
    PythonValue,
    /// Python's `-m`; the next word is a module.
    Module,
    /// `pypnm`; the next word is a verb.
    Verb,
    /// A program that executes the command after its own options.
    Wrapper(&'static Wrapper),
    /// The value of one of its options.
    WrapperValue(&'static Wrapper),
    /// The number of its operands that precede the command.
    Operands(u8),
    /// env(1), which executes the command after its options and assignments.
    Env(env::NextWord),
    /// `pypnm-sizing`; its verb `exec` is a wrapper.
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
        Self {
            state: ReaderState::Path,
            skips_name: false,
            flags,
            ended: false,
            pending: None,
            confines: Key::CpuMask,
            reload: false,
        }
    }

    /// Reads the next word. Returns a flag and its value if this word completes one.
    pub fn word<'w>(&mut self, word: &'w str) -> Option<(&'static str, &'w str)> {
        if std::mem::take(&mut self.skips_name) {
            return None;
        }
        self.confines = self.next_key(word);
        self.state = match self.state {
            ReaderState::Path => {
                let path = word.trim_start_matches(PREFIXES);
                self.skips_name = word.strip_suffix(path).is_some_and(|prefix| prefix.contains('@'));
                by_name(path)
            }
            ReaderState::Python => match word {
                "-m" => ReaderState::Module,
                "-W" | "-X" => ReaderState::PythonValue,
                _ if word.starts_with("-m") => module(word.get(2..).unwrap_or_default()),
                _ if word.starts_with("-W") || word.starts_with("-X") => ReaderState::Python,
                // Other options take no value, except -c, whose value is a program. A single dash means standard input.
                _ if word.starts_with('-') && word.len() > 1 && !word.contains('c') => ReaderState::Python,
                _ => match by_name(word) {
                    ReaderState::Python => ReaderState::Known(Program::Unknown),
                    program => program,
                },
            },
            ReaderState::PythonValue => ReaderState::Python,
            ReaderState::Module => module(word),
            ReaderState::Wrapper(wrapper) if word.starts_with('-') => match wrapper.option(word) {
                After::Option => self.state,
                After::Value => ReaderState::WrapperValue(wrapper),
                // The operand is not read there.
                After::Operand if wrapper.is_taskset() => ReaderState::Known(Program::Unknown),
                After::Operand => ReaderState::Operands(wrapper.operands),
                After::Unknown => ReaderState::Known(Program::Unknown),
            },
            ReaderState::WrapperValue(wrapper) => ReaderState::Wrapper(wrapper),
            ReaderState::Wrapper(&Wrapper { operands: rest @ 1.., .. })
            | ReaderState::Operands(rest @ 1..) => ReaderState::Operands(rest - 1),
            ReaderState::Env(expected) => match env::read(expected, word, &mut |_| {}) {
                env::Parsed::Then(next) => ReaderState::Env(next),
                env::Parsed::Command => by_name(word),
                env::Parsed::Unknown => ReaderState::Known(Program::Unknown),
            },
            ReaderState::Wrapper(_) | ReaderState::Operands(_) => by_name(word),
            ReaderState::Helper if word == "exec" => ReaderState::Wrapper(&wrapper::EXEC),
            ReaderState::Verb if word == "serve" => ReaderState::Known(Program::Pypnm),
            ReaderState::Helper | ReaderState::Verb => ReaderState::Known(Program::Unknown),
            ReaderState::Known(program) => {
                return self.argument(program, word);
            }
        };
        None
    }

    /// What the next word restricts the program to, if it belongs to taskset or numactl.
    pub fn confinement(&self, word: &str) -> Option<Confinement> {
        let is_option = word.starts_with('-');
        match self.state {
            _ if self.skips_name => None,
            ReaderState::Wrapper(wrapper) if wrapper.is_taskset() && !is_option => self.confines.with(word),
            ReaderState::Wrapper(wrapper) if wrapper.is_numactl() && is_option => {
                let (key, value) = confine::numactl(word);
                key.with(value?)
            }
            ReaderState::WrapperValue(wrapper) if wrapper.is_numactl() => self.confines.with(word),
            _ => None,
        }
    }

    /// What the value after `word` restricts.
    fn next_key(&self, word: &str) -> Key {
        match self.state {
            ReaderState::Wrapper(wrapper) if wrapper.is_numactl() && word.starts_with('-') => {
                confine::numactl(word).0
            }
            ReaderState::Wrapper(wrapper) if wrapper.is_taskset() && word.starts_with('-') => {
                let is_list = word == "--cpu-list" || (!word.starts_with("--") && word.contains('c'));
                if is_list { Key::CpuList } else { self.confines }
            }
            // The mask of a taskset that comes next.
            _ => Key::CpuMask,
        }
    }

    /// Calls `visit` for the changes that env(1) makes to the environment because of the next word.
    pub fn changes<'w>(&self, word: &'w str, visit: &mut dyn FnMut(Change<'w>)) {
        if let ReaderState::Env(expected) = self.state {
            env::read(expected, word, visit);
        }
    }

    /// The program that the command starts, according to the words read so far.
    pub fn program(&self) -> Program {
        match self.state {
            ReaderState::Known(program) => program,
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
        let (name, value) = name_and_value(word);
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

/// The program that a command starts.
pub fn program(words: impl IntoIterator<Item = impl AsRef<str>>) -> Program {
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
fn by_name(path: &str) -> ReaderState {
    match base_name(path) {
        "pypnm" | "pypnm-cmts" => ReaderState::Verb,
        "uvicorn" => ReaderState::Known(Program::Uvicorn),
        "env" => ReaderState::Env(env::NextWord::Option),
        "pypnm-sizing" => ReaderState::Helper,
        name if is_python(name) => ReaderState::Python,
        name => wrapper::find(name).map_or(ReaderState::Known(Program::Unknown), ReaderState::Wrapper),
    }
}

/// `python`, `python3`, `python3.11`
fn is_python(name: &str) -> bool {
    let version = name.strip_prefix("python");
    version.is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn module(name: &str) -> ReaderState {
    match name {
        "uvicorn" => ReaderState::Known(Program::Uvicorn),
        LAUNCHER_PACKAGE => by_name(name),
        "pypnm" | "pypnm.cli" | "pypnm_cmts" | "pypnm_cmts.cli" => ReaderState::Verb,
        _ => ReaderState::Known(Program::Unknown),
    }
}

#[cfg(test)]
mod tests;
