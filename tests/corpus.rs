//! Replays the corpora of the fuzzers with the stable compiler: no input that they found interesting breaks an
//! assertion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/targets.rs"]
mod targets;

/// The maximum size of the corpora in the repository.
const MAX_BYTES: usize = 256 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The lines of a packed corpus that contain inputs; fuzz/corpus/pack describes the format.
fn inputs(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("# ")).collect()
}

fn escaped(data: &[u8]) -> String {
    let byte = |(at, byte): (usize, &u8)| match byte {
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b'#' if at == 0 => "\\x23".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    data.iter().enumerate().map(byte).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let mut bytes = line.bytes();
    let mut next = || bytes.next();
    while let Some(byte) = next() {
        data.push(match byte {
            b'\\' => match next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [next().unwrap(), next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                escaped => escaped,
            },
            byte => byte,
        });
    }
    data
}

#[test]
fn all_recorded_inputs_pass() {
    for (name, target) in targets::ALL {
        let text = fs::read_to_string(corpus().join(format!("{name}.txt"))).unwrap();
        assert!(!inputs(&text).is_empty(), "{name} has no corpus");
        for line in inputs(&text) {
            let data = unescaped(line);
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{name} fails, see above, for the input {line}");
        }
    }
}

#[test]
fn the_corpora_are_in_canonical_form() {
    let mut bytes = 0;
    for (name, _) in targets::ALL {
        let text = fs::read_to_string(corpus().join(format!("{name}.txt"))).unwrap();
        let lines = inputs(&text);
        for line in &lines {
            assert_eq!(escaped(&unescaped(line)), **line, "{name}.txt");
        }
        assert!(lines.is_sorted_by(|before, line| before < line), "{name}.txt: sorted, each input once");
        bytes += text.len();
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes: minimise the corpora, see fuzz/README.md");
}

#[test]
fn every_corpus_has_a_target() {
    let packed = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path());
    let packed = packed.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let found: BTreeSet<_> =
        packed.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(found, targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect());
}
