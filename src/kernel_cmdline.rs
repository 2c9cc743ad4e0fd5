//! The kernel command line's word: `pypnm.sizing=no` turns sizing off for one boot.
//!
//! Read as systemd reads its own switches (kernel-command-line(7), `proc_cmdline_get_bool()`): an optional boolean,
//! a bare word is yes, the last valid word wins; in a container PID 1's arguments stand for the kernel's.

use crate::parse::boolean::boolean;
use crate::problem::{Problem, Source};
use crate::root::{ReadError, Root};

const KEY: &str = "pypnm.sizing";
const KERNEL: &str = "/proc/cmdline";
const PID_1: &str = "/proc/1/cmdline";
/// systemd's note of the container it found itself in, written before the generators run.
const CONTAINER: &str = "/run/systemd/container";

/// What the command line says: the value of the switch and the file it stands in. `None`: nothing.
pub fn read(
    root: &Root,
    virtualization: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<(bool, &'static str)> {
    let container = match virtualization {
        Some(virtualization) => virtualization.starts_with("container:"),
        None => root.with_bytes(CONTAINER, |_| ()).is_ok(),
    };
    let file = if container { PID_1 } else { KERNEL };
    match root.with_bytes(file, |text| last_value(text, container, file, problems)) {
        Ok(said) => said.map(|value| (value, file)),
        Err(ReadError::Missing) => None,
        Err(error) => {
            problems.push(Problem::unreadable(file, error, "sizing stays on"));
            None
        }
    }
}

/// The last valid word of a command line; PID 1's where it is of a `container`.
fn last_value(text: &[u8], container: bool, file: &'static str, problems: &mut Vec<Problem>) -> Option<bool> {
    // Hardly any boot says anything.
    memchr::memmem::find(text, KEY.as_bytes())?;
    let mut said = None;
    for word in words_of(text, container) {
        let Ok(word) = std::str::from_utf8(&word).map(str::to_owned) else {
            continue;
        };
        let Some(rest) = word.strip_prefix(KEY) else {
            continue;
        };
        let value = match rest.strip_prefix('=') {
            None if rest.is_empty() => Some(true),
            None => continue,
            Some(value) => boolean(value),
        };
        match value {
            Some(value) => said = Some(value),
            None => problems.push(Problem::bad_value(
                Source::key(file, 0, KEY),
                rest.trim_start_matches('='),
                "a boolean (yes or no)",
                "the word is ignored",
            )),
        }
    }
    said
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
