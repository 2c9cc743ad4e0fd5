//! What a command line starts, and the values of its flags: the only parser of PyPNM's command lines. Pure.
//!
//! Two programs are known: `pypnm serve` (and `pypnm-cmts serve`), which uses Python's argparse, and `uvicorn`, which uses
//! click. Both are recognized when they are started directly, with `python -m`, as a script of a Python interpreter, or
//! through env(1), the wrappers of this package, or a program that executes its arguments and changes nothing that matters
//! here ([`wrapper`]). Anything else (a shell, sudo, another wrapper or server) is [`Program::Unknown`], since it may do
//! anything.

mod wrapper;

use wrapper::{After, Wrapper};

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

/// What env(1) does to the environment before it executes its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'w> {
    /// It empties it (`-i`, `--ignore-environment`, `-`).
    Clear,
    /// It takes a variable away (`-u NAME`, `--unset=NAME`).
    Unset(&'w str),
    /// It assigns one (`NAME=value`).
    Assign(&'w str, &'w str),
}

/// Reads a command word by word, as the program would see it.
#[derive(Debug)]
pub struct CommandReader {
    state: State,
    /// argv[0] comes next, which does not affect what is started (`@` before the path).
    skips_name: bool,
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
    /// A Python interpreter; its options, a module or a script.
    Python,
    /// The value of one of Python's options.
    PythonValue,
    /// Python's `-m`: a module comes next.
    Module,
    /// `pypnm`, whose verb comes next.
    Verb,
    /// A program that executes the command after its own options.
    Wrapper(&'static Wrapper),
    /// The value of one of its options.
    WrapperValue(&'static Wrapper),
    /// So many operands of its, and then the command.
    Operands(u8),
    /// env(1), which executes the command after its options and assignments.
    Env,
    /// The same after its options.
    EnvAssignments,
    /// The variable that its `-u` takes away.
    EnvUnset,
    /// The value of another option of its.
    EnvValue,
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
        Self { state: State::Path, skips_name: false, flags, ended: false, pending: None, reload: false }
    }

    /// Reads the next word. Returns a flag and its value if this word completes one.
    pub fn word<'w>(&mut self, word: &'w str) -> Option<(&'static str, &'w str)> {
        if std::mem::take(&mut self.skips_name) {
            return None;
        }
        self.state = match self.state {
            State::Path => {
                let path = word.trim_start_matches(['@', '-', ':', '+', '!', '|']);
                self.skips_name = word.strip_suffix(path).is_some_and(|prefix| prefix.contains('@'));
                by_name(path)
            }
            State::Python => match word {
                "-m" => State::Module,
                "-W" | "-X" => State::PythonValue,
                _ if word.starts_with("-m") => module(word.get(2..).unwrap_or_default()),
                _ if word.starts_with("-W") || word.starts_with("-X") => State::Python,
                // Others take no value; -c is followed by a program, and a single dash stands for stdin.
                _ if word.starts_with('-') && word.len() > 1 && !word.contains('c') => State::Python,
                _ => match by_name(word) {
                    State::Python => State::Known(Program::Unknown),
                    program => program,
                },
            },
            State::PythonValue => State::Python,
            State::Module => module(word),
            State::Wrapper(wrapper) if word.starts_with('-') => match wrapper.option(word) {
                After::Option => self.state,
                After::Value => State::WrapperValue(wrapper),
                After::Operand => State::Operands(wrapper.operands),
                After::Unknown => State::Known(Program::Unknown),
            },
            State::WrapperValue(wrapper) => State::Wrapper(wrapper),
            State::Wrapper(&Wrapper { operands: rest @ 1.., .. }) | State::Operands(rest @ 1..) => {
                State::Operands(rest - 1)
            }
            State::Env if word.starts_with('-') => env_option(word, &mut |_| {}),
            State::EnvUnset | State::EnvValue => State::Env,
            State::Env | State::EnvAssignments if word.contains('=') => State::EnvAssignments,
            State::Wrapper(_) | State::Operands(_) | State::Env | State::EnvAssignments => by_name(word),
            State::Helper if word == "exec" => State::Wrapper(&wrapper::EXEC),
            State::Verb if word == "serve" => State::Known(Program::Pypnm),
            State::Helper | State::Verb => State::Known(Program::Unknown),
            State::Known(program) => {
                return self.argument(program, word);
            }
        };
        None
    }

    /// Calls `visit` for what env(1) does to the environment by the next word.
    pub fn changes<'w>(&self, word: &'w str, visit: &mut dyn FnMut(Change<'w>)) {
        match self.state {
            State::Env if word.starts_with('-') => {
                env_option(word, visit);
            }
            State::EnvUnset => visit(Change::Unset(word)),
            State::Env | State::EnvAssignments => {
                if let Some((name, value)) = word.split_once('=') {
                    visit(Change::Assign(name, value));
                }
            }
            _ => {}
        }
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

/// Calls `visit` for what an option of env(1) does, as GNU's and busybox' have them. What comes after it; with `-S`, which
/// splits its value into words, nothing is known.
fn env_option<'w>(word: &'w str, visit: &mut dyn FnMut(Change<'w>)) -> State {
    const UNKNOWN: State = State::Known(Program::Unknown);
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        // getopt_long(3) takes any unique beginning for the whole.
        let is = |option: &str, least: &str| option.starts_with(name) && name.starts_with(least);
        return match value {
            None if name.is_empty() => State::EnvAssignments,
            None if is("ignore-environment", "ignore-e") => {
                visit(Change::Clear);
                State::Env
            }
            None if is("unset", "u") => State::EnvUnset,
            None if is("chdir", "c") || is("argv0", "a") => State::EnvValue,
            Some(name) if is("unset", "u") => {
                visit(Change::Unset(name));
                State::Env
            }
            _ if is("split-string", "s") || is("help", "h") || is("version", "ve") => UNKNOWN,
            _ => State::Env,
        };
    }
    if word == "-" {
        visit(Change::Clear);
        return State::EnvAssignments;
    }
    for (at, option) in word.char_indices().skip(1) {
        let value = word.get(at + option.len_utf8()..).unwrap_or_default();
        match option {
            'i' => visit(Change::Clear),
            '0' | 'v' => {}
            'u' | 'C' | 'a' if value.is_empty() => {
                return if option == 'u' { State::EnvUnset } else { State::EnvValue };
            }
            'u' => {
                visit(Change::Unset(value));
                return State::Env;
            }
            'C' | 'a' => return State::Env,
            _ => return UNKNOWN,
        }
    }
    State::Env
}

/// The state after a path, according to its last component.
fn by_name(path: &str) -> State {
    match path.rsplit('/').next().unwrap_or_default() {
        "pypnm" | "pypnm-cmts" => State::Verb,
        "uvicorn" => State::Known(Program::Uvicorn),
        "env" => State::Env,
        "pypnm-sizing" => State::Helper,
        name if is_python(name) => State::Python,
        name => wrapper::find(name).map_or(State::Known(Program::Unknown), State::Wrapper),
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
        "pypnm_handover" => by_name(name),
        "pypnm" | "pypnm.cli" | "pypnm_cmts" | "pypnm_cmts.cli" => State::Verb,
        _ => State::Known(Program::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, CommandReader, Program};

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
            "/usr/bin/pypnm-sizing exec pypnm serve",
            "/usr/bin/pypnm-sizing exec --unit pypnm.service -- pypnm serve --host ::",
            "/usr/bin/pypnm-sizing exec --unit=pypnm --root / -- /usr/bin/env A=1 pypnm serve",
            "@/usr/bin/nice x -n 5 pypnm serve",
            "/usr/bin/nice pypnm serve",
            "/usr/bin/nice -5 pypnm serve",
            "/usr/bin/nice -n5 --adjustment=5 --adjustment 5 -- pypnm serve",
            "/usr/bin/ionice -c2 -n 0 -tc 3 --class idle --ignore pypnm serve",
            "/usr/bin/chrt -b 0 pypnm serve",
            "/usr/bin/chrt -vR --fifo -- 10 nice ionice -c 3 pypnm serve",
            "/usr/bin/stdbuf -oL -e L --input=0 pypnm serve",
            "/usr/bin/setpriv --reuid=pypnm --regid pypnm --init-groups --nnp pypnm serve",
            "/usr/bin/systemd-cat -t pypnm --priority=info -- pypnm serve",
            "/usr/bin/nohup -- pypnm serve",
            "/usr/sbin/gosu pypnm env A=1 pypnm serve",
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
            "/usr/bin/pypnm-sizing watch pypnm serve",
            "python3 -c pypnm serve",
            "python3 - pypnm serve",
            "python3 start.py",
            "python3 -m gunicorn",
            "/usr/bin/python-wrapper -m uvicorn",
            "/v/bin/gunicorn -k uvicorn",
            "/v/bin/gunicorn -k uvicorn.workers.UvicornWorker pypnm.api.main:app",
            "/v/bin/hypercorn pypnm.api.main:app",
            "/v/bin/fastapi run --workers 2",
            "/v/bin/python -m fastapi run",
            "/v/bin/python -m pypnm.server serve",
            "/bin/bash -lc pypnm serve",
            "/usr/bin/pypnm-sizing exec --verbose pypnm serve",
            "/usr/bin/pypnm-sizing exec --unit pypnm serve",
            "/usr/bin/pypnm-sizing exec --units=pypnm pypnm serve",
            // These start it as a child, so that its parent is not the server.
            "/usr/bin/timeout 1d pypnm serve",
            "/usr/bin/flock /run/lock pypnm serve",
            "/usr/sbin/runuser -u pypnm -- pypnm serve",
            "/usr/bin/podman exec c pypnm serve",
            // These change the environment, or what PyPNM may use.
            "/usr/bin/sudo -u pypnm pypnm serve",
            "/usr/bin/setpriv --reset-env pypnm serve",
            "/usr/bin/taskset -c 0-1 pypnm serve",
            "/usr/bin/numactl -N 0 pypnm serve",
            // Options that these do not have, or that do something else.
            "/usr/bin/nice -x pypnm serve",
            "/usr/bin/nice -n pypnm serve",
            "/usr/bin/ionice -p 1 pypnm serve",
            "/usr/bin/ionice -tp pypnm serve",
            "/usr/bin/ionice --classes 2 pypnm serve",
            "/usr/bin/ionice --ignore=1 pypnm serve",
            "/usr/bin/chrt pypnm serve",
            "/usr/bin/chrt -b 0 -v pypnm serve",
            "/usr/bin/gosu -- pypnm serve",
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
        assert_eq!(of("pypnm serve --=5 -w 5"), "");
        assert_eq!(of("pypnm serve --workersx 1 -- --workers 2 --reload"), "");
        assert_eq!(of("uvicorn a:b --worker 1 --workers 2"), "--workers 2", "click takes no beginnings");
        assert_eq!(of("/usr/bin/env pypnm serve --worker 1"), "--workers 1");
        assert_eq!(of("pypnm --workers 3 serve"), "", "not one of the verb's");
        assert_eq!(of("nice -n 5 pypnm serve --workers 3"), "--workers 3");
        assert_eq!(of("pypnm-sizing exec --unit u -- pypnm serve --w 3"), "--workers 3");
        assert_eq!(of("taskset -c 0 pypnm serve --workers 3"), "--workers 3", "most likely PyPNM's");
    }

    #[test]
    fn what_env_does_to_the_environment() {
        let of = |command: &str| {
            let (mut reader, mut changes) = (CommandReader::default(), Vec::new());
            for word in command.split(' ') {
                reader.changes(word, &mut |change| {
                    changes.push(match change {
                        Change::Clear => "clear".to_owned(),
                        Change::Unset(name) => format!("-{name}"),
                        Change::Assign(name, value) => format!("{name}={value}"),
                    });
                });
                reader.word(word);
            }
            (reader.program(), changes.join(" "))
        };
        for (options, changes) in [
            ("A=1 B=2", "A=1 B=2"),
            ("-i A=1", "clear A=1"),
            ("-", "clear"),
            ("- A=1", "clear A=1"),
            ("--ignore-environment", "clear"),
            ("--ignore-e -- A=", "clear A="),
            ("--ignore-signal", ""),
            ("-u A -uB --unset=C --unset D --un E", "-A -B -C -D -E"),
            ("-iuA -v0 -C /x --chdir /y --chdir=/z -a b", "clear -A"),
            ("-C/x -a/b -vaname A=1", "A=1"),
            ("--default-signal=PIPE --debug", ""),
            ("--undefined A=1", "A=1"),
            ("-i env -u A", "clear -A"),
        ] {
            for command in ["uvicorn C=3 -i", "pypnm serve -u"] {
                let program = if command.starts_with('u') { Program::Uvicorn } else { Program::Pypnm };
                let read = of(&format!("/usr/bin/env {options} {command}"));
                assert_eq!(read, (program, changes.to_owned()), "{options} {command}");
            }
        }
        for command in
            ["-S uvicorn", "-iSuvicorn", "--split-string=-i uvicorn", "--version uvicorn", "-x uvicorn"]
        {
            assert_eq!(of(&format!("env {command}")).0, Program::Unknown, "{command}");
        }
        assert_eq!(of("env -- -i uvicorn"), (Program::Unknown, String::new()), "no option any more");
        assert_eq!(of("uvicorn A=1").1, "");
        assert_eq!(of("/usr/lib/pypnm-sizing/handover -i A=1 pypnm serve").1, "", "no option of its");
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
