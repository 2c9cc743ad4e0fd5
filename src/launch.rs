//! What a command line starts, and the flags that it gives. Pure.
//!
//! The one answer to "is it PyPNM, is it uvicorn": for `ExecStart=` and for the arguments of a process alike. Owns no
//! variables and no processes.

/// What a command line starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `pypnm serve` or `pypnm-cmts serve`, which take their profile from a file.
    Pypnm,
    /// `uvicorn`, which takes it from its environment.
    Uvicorn,
    /// A script, a shell's `-c`, anything else: it may start either of them, with any flag.
    Unknown,
}

/// Python packages and commands of PyPNM.
const PYPNM: [&str; 3] = ["pypnm", "pypnm-cmts", "pypnm_cmts"];
/// Programs that execute the command that follows their own arguments.
const WRAPPERS: [&str; 22] = [
    "env",
    "gosu",
    "su-exec",
    "tini",
    "dumb-init",
    "catatonit",
    "nice",
    "ionice",
    "chrt",
    "taskset",
    "numactl",
    "setpriv",
    "runuser",
    "sudo",
    "stdbuf",
    "timeout",
    "nohup",
    "setsid",
    "prlimit",
    "unshare",
    "handover",
    "pypnm-sizing",
];
/// Options of Python that take the word after them (python3(1)).
const WITH_VALUE: [&str; 3] = ["-W", "-X", "--check-hash-based-pycs"];

/// What `words` start, whatever Python or wrapper is in front.
pub fn program<S: AsRef<str>>(words: &[S]) -> Program {
    let mut words = words.iter().map(AsRef::as_ref);
    // Each round consumes a word.
    while let Some(word) = words.next() {
        let name = base_name(word);
        if name == "uvicorn" {
            return Program::Uvicorn;
        }
        if PYPNM.contains(&name) {
            return serves(words);
        }
        if name.starts_with("python") || name.starts_with("pypy") {
            match python(&mut words) {
                Some("uvicorn") => return Program::Uvicorn,
                Some(module) if PYPNM.contains(&module) => return serves(words),
                // A launcher: what it starts follows.
                Some(name) if WRAPPERS.contains(&name) || name.starts_with("pypnm") => {}
                _ => return Program::Unknown,
            }
        } else if !WRAPPERS.contains(&name) {
            return Program::Unknown;
        }
        // The wrapper's own arguments: up to a word that is a program of interest.
        let of_interest = |word: &&str| {
            let name = base_name(word);
            name == "uvicorn"
                || PYPNM.contains(&name)
                || name.starts_with("python")
                || WRAPPERS.contains(&name)
        };
        let mut rest = words.clone();
        match rest.position(|word| of_interest(&word)) {
            Some(at) => (0..at).for_each(|_| {
                words.next();
            }),
            None => return Program::Unknown,
        }
    }
    Program::Unknown
}

/// What Python is told to run: the package of `-m`, or the name of a script, after which its arguments follow.
fn python<'a>(words: &mut (impl Iterator<Item = &'a str> + Clone)) -> Option<&'a str> {
    while let Some(word) = words.next() {
        if word == "-m" {
            return words.next().map(|module| module.split('.').next().unwrap_or(module));
        }
        if word == "-c" || word == "-" {
            return None;
        }
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(base_name(word));
        }
    }
    None
}

fn serves<'a>(mut words: impl Iterator<Item = &'a str>) -> Program {
    if words.any(|word| word == "serve") { Program::Pypnm } else { Program::Unknown }
}

fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Options of `pypnm serve` that begin like another one, and mean themselves.
const EXACT: [&str; 1] = ["--host"];

/// The value of a flag, such as `--workers`, as `program` reads it from its `words`: `--flag VALUE` or `--flag=VALUE`, the
/// last one wins. Python's argparse takes any beginning of a flag for it (`--worker 1`); click, which uvicorn uses, does
/// not. A beginning that several flags share ends PyPNM with an error, and counts as well.
pub fn flag<'a, S: AsRef<str>>(words: &'a [S], program: Program, flag: &str) -> Option<&'a str> {
    let abbreviates = |word: &str| {
        program != Program::Uvicorn && word.len() > 2 && flag.starts_with(word) && !EXACT.contains(&word)
    };
    let mut found = None;
    for (at, word) in words.iter().map(AsRef::as_ref).enumerate() {
        if word == "--" {
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if name.starts_with("--") && (name == flag || abbreviates(name)) {
            found = value.or_else(|| words.get(at + 1).map(AsRef::as_ref)).or(found);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Program, flag, program};

    fn words(text: &str) -> Vec<&str> {
        text.split(' ').collect()
    }

    #[test]
    fn which_program() {
        for (command, expected) in [
            ("/opt/pypnm/bin/pypnm serve --port 8000", Program::Pypnm),
            ("/usr/bin/env pypnm serve", Program::Pypnm),
            ("/usr/bin/env -i A=1 PATH=/opt/pypnm/bin pypnm-cmts serve", Program::Pypnm),
            ("/v/bin/python3 -B -W ignore /v/bin/pypnm serve", Program::Pypnm),
            ("/v/bin/python -m pypnm.cli serve", Program::Pypnm),
            ("/usr/lib/pypnm-sizing/handover pypnm serve", Program::Pypnm),
            ("/usr/bin/pypnm-sizing exec -- pypnm serve", Program::Pypnm),
            ("/v/bin/python3 -m pypnm_handover pypnm serve", Program::Pypnm),
            ("nice -n 5 python3.11 -X dev -m uvicorn pypnm.api.main:app", Program::Uvicorn),
            ("gosu pypnm python -m uvicorn pypnm.api.main:app", Program::Uvicorn),
            ("/v/bin/uvicorn pypnm.api.main:app", Program::Uvicorn),
            ("/v/bin/pypnm config-menu", Program::Unknown),
            ("/bin/bash -c exec\u{a0}uvicorn", Program::Unknown),
            ("/bin/sh -c uvicorn", Program::Unknown),
            ("/usr/bin/grep -r uvicorn", Program::Unknown),
            ("/usr/bin/tail -f /var/log/pypnm serve", Program::Unknown),
            ("/usr/bin/python3 -c import\u{a0}uvicorn uvicorn", Program::Unknown),
            ("/opt/app/start.sh --workers 1", Program::Unknown),
            ("/usr/bin/python3 /opt/app/main.py", Program::Unknown),
            ("env", Program::Unknown),
            ("", Program::Unknown),
        ] {
            assert_eq!(program(&words(command)), expected, "{command}");
        }
        assert_eq!(program::<&str>(&[]), Program::Unknown);
    }

    #[test]
    fn which_flags() {
        let of = |text: &str, name: &str| flag(&words(text), Program::Pypnm, name).map(str::to_owned);
        assert_eq!(of("pypnm serve --workers 3", "--workers").as_deref(), Some("3"));
        assert_eq!(of("pypnm serve --worker=3 --w 4", "--workers").as_deref(), Some("4"));
        assert_eq!(of("pypnm serve --limit 500", "--limit-max-requests").as_deref(), Some("500"));
        assert_eq!(of("pypnm serve --l 500", "--limit-max-requests").as_deref(), Some("500"));
        assert_eq!(of("pypnm serve -- --workers 3", "--workers"), None);
        assert_eq!(of("pypnm serve --workersx 3 - -- --", "--workers"), None);
        assert_eq!(of("pypnm serve --workers", "--workers"), None);
        assert_eq!(of("pypnm serve --host ::1", "--host-all"), None);
        assert_eq!(flag(&words("uvicorn a --worker 1"), Program::Uvicorn, "--workers"), None);
        assert_eq!(flag(&words("start.sh --worker 1"), Program::Unknown, "--workers"), Some("1"));
    }
}
