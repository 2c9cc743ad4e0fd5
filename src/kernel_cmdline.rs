//! The kernel command line: `pypnm.sizing=no` turns sizing off for one boot, `systemd.setenv=` gives all services a variable.
//!
//! Read as systemd reads its own switches (kernel-command-line(7), `proc_cmdline_get_bool()`): an optional boolean,
//! a bare word is yes, the last valid word wins; in a container PID 1's arguments stand for the kernel's.

use crate::parse::boolean::boolean;
use crate::problem::{Problem, Source};
use crate::root::{ReadError, Root};

const KEY: &str = "pypnm.sizing";
const SETENV: &str = "systemd.setenv";
const KERNEL: &str = "/proc/cmdline";
const PID_1: &str = "/proc/1/cmdline";
/// systemd's note of the container it found itself in, written before the generators run.
const CONTAINER: &str = "/run/systemd/container";

/// What the command line says.
#[derive(Debug, Default)]
pub struct KernelCommandLine {
    /// The value of the switch, and the file that has it.
    pub switch: Option<(bool, &'static str)>,
    /// `systemd.setenv=`, in order.
    pub setenv: Vec<Setenv>,
}

/// One `systemd.setenv=NAME=VALUE` (systemd(1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setenv {
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The file that has it.
    pub file: &'static str,
}

/// Reads the command line of the kernel, or in a container of PID 1.
pub fn read(root: &Root, virtualization: Option<&str>, problems: &mut Vec<Problem>) -> KernelCommandLine {
    let container = match virtualization {
        Some(virtualization) => virtualization.starts_with("container:"),
        None => root.with_bytes(CONTAINER, |_| ()).is_ok(),
    };
    let file = if container { PID_1 } else { KERNEL };
    match root.with_bytes(file, |text| parse(text, container, file, problems)) {
        Ok(said) => said,
        Err(ReadError::Missing) => KernelCommandLine::default(),
        Err(error) => {
            problems.push(Problem::unreadable(file, error, "sizing remains enabled"));
            KernelCommandLine::default()
        }
    }
}

/// Of the switch the last valid word counts.
fn parse(text: &[u8], container: bool, file: &'static str, problems: &mut Vec<Problem>) -> KernelCommandLine {
    let mut found = KernelCommandLine::default();
    // Hardly any boot says anything.
    let has = |key: &str| memchr::memmem::find(text, key.as_bytes()).is_some();
    if !has(KEY) && !has("setenv") {
        return found;
    }
    for word in words_of(text, container) {
        let Ok(word) = std::str::from_utf8(&word) else {
            continue;
        };
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        match (key, value) {
            (KEY, None) => found.switch = Some((true, file)),
            (KEY, Some(value)) => match boolean(value) {
                Some(value) => found.switch = Some((value, file)),
                None => problems.push(Problem::bad_value(
                    Source::key(file, 0, KEY),
                    value,
                    "a boolean (yes or no)",
                    "the option is ignored",
                )),
            },
            (SETENV, Some(assignment)) => {
                found.setenv.extend(assignment.split_once('=').map(|(name, value)| Setenv {
                    name: name.to_owned(),
                    value: value.to_owned(),
                    file,
                }));
            }
            _ => {}
        }
    }
    found
}

/// The words: PID 1's arguments as they are, the kernel's separated by white space and unquoted.
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
    fn words_of_both_kinds() {
        let words = |text: &[u8], arguments| -> Vec<String> {
            let words = words_of(text, arguments).into_iter().filter(|w| !w.is_empty());
            words.map(|w| String::from_utf8_lossy(&w).into_owned()).collect()
        };
        assert_eq!(words(b"a=1 \"b=2 3\" c'4'\n", false), ["a=1", "b=2 3", "c4"]);
        assert_eq!(words(b"/sbin/init\0pypnm.sizing=no\0", true), ["/sbin/init", "pypnm.sizing=no"]);
    }
}
