//! The kernel command line: `pypnm.sizing=no` turns sizing off for one boot, and `systemd.setenv=` sets a variable for all
//! services.
//!
//! Options are read as systemd reads its own (kernel-command-line(7), `proc_cmdline_get_bool()`): the value is an optional
//! boolean, which is true if omitted, and the last valid option takes precedence. In a container, the arguments of PID 1
//! are used instead.

use std::collections::BTreeMap;

use memchr::memchr_iter;

use crate::parse::boolean::{BOOLEAN, boolean};
use crate::parse::name_and_value;
use crate::problem::{Problem, Source, Sourced};
use crate::root::{ReadError, Root};

const KEY: &str = "pypnm.sizing";
const SETENV: &str = "systemd.setenv";
const KERNEL: &str = "/proc/cmdline";
const PID_1: &str = "/proc/1/cmdline";
/// systemd writes the type of the container to this file before it runs the generators.
const CONTAINER: &str = "/run/systemd/container";

/// The relevant options of the kernel command line.
#[derive(Debug, Default)]
pub struct KernelCommandLine {
    /// The value of `pypnm.sizing=`, and the file that contains it.
    pub switch: Option<(bool, &'static str)>,
    /// The variables set by `systemd.setenv=NAME=VALUE` (systemd(1)).
    pub setenv: BTreeMap<String, Sourced<String>>,
}

/// Reads the kernel command line, or that of PID 1 in a container.
pub fn read(root: &Root, virtualization: Option<&str>, problems: &mut Vec<Problem>) -> KernelCommandLine {
    let container = match virtualization {
        Some(virtualization) => virtualization.starts_with("container:"),
        None => root.with_bytes(CONTAINER, |_| ()).is_ok(),
    };
    let file = if container { PID_1 } else { KERNEL };
    match root.with_bytes(file, |text| parse(text, container, file, problems)) {
        Ok(command_line) => command_line,
        Err(ReadError::Missing) => KernelCommandLine::default(),
        Err(error) => {
            problems.push(Problem::unreadable(file, error, "sizing remains enabled"));
            KernelCommandLine::default()
        }
    }
}

fn parse(text: &[u8], container: bool, file: &'static str, problems: &mut Vec<Problem>) -> KernelCommandLine {
    let mut found = KernelCommandLine::default();
    if std::str::from_utf8(text).is_err() {
        problems.push(Problem::unreadable(
            file,
            ReadError::NotText,
            "options that are not UTF-8 are ignored",
        ));
    }
    // Most command lines contain none of these options.
    let is_prefix = |before: &[u8]| before.ends_with(b"pypnm") || before.ends_with(b"systemd");
    if !memchr_iter(b'.', text).any(|at| text.get(..at).is_some_and(is_prefix)) {
        return found;
    }
    for word in words_of(text, container) {
        let Ok(word) = std::str::from_utf8(&word) else {
            continue;
        };
        match name_and_value(word) {
            (KEY, None) => found.switch = Some((true, file)),
            (KEY, Some(value)) => match boolean(value) {
                Some(value) => found.switch = Some((value, file)),
                None => problems.push(Problem::bad_value(
                    Source::key(file, 0, KEY),
                    value,
                    BOOLEAN,
                    "the option is ignored",
                )),
            },
            (SETENV, Some(assignment)) => {
                if let Some((name, value)) = assignment.split_once('=') {
                    let source = Source::key(file, 0, SETENV);
                    found.setenv.insert(name.to_owned(), Sourced { value: value.to_owned(), source });
                }
            }
            _ => {}
        }
    }
    found
}

/// Splits the command line into words: the arguments of PID 1 are taken as they are, while the kernel command line is
/// separated by white space and may contain quotes.
fn words_of(bytes: &[u8], arguments: bool) -> Vec<Vec<u8>> {
    if arguments {
        return bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    }
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    for byte in bytes.iter().copied() {
        match (quote, byte) {
            (Some(mark), _) if byte == mark => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b' ' | b'\t' | b'\n' | b'\r') => words.push(std::mem::take(&mut word)),
            _ => word.push(byte),
        }
    }
    words.push(word);
    words
}

#[cfg(test)]
mod tests {
    use super::words_of;

    #[test]
    fn words_of_the_kernel_and_of_pid_1() {
        let words = |text: &[u8], arguments| -> Vec<String> {
            let words = words_of(text, arguments).into_iter().filter(|w| !w.is_empty());
            words.map(|w| String::from_utf8_lossy(&w).into_owned()).collect()
        };
        assert_eq!(words(b"a=1 \"b=2 3\" c'4'\n", false), ["a=1", "b=2 3", "c4"]);
        assert_eq!(words(b"/sbin/init\0pypnm.sizing=no\0", true), ["/sbin/init", "pypnm.sizing=no"]);
    }
}
