//! The fuzzers' corpora, replayed by the stable compiler: everything they ever found interesting still holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/targets.rs"]
mod targets;

/// What the corpora may take up in the repository.
const MOST_BYTES: usize = 256 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_input_the_fuzzers_kept_still_holds() {
    let mut bytes = 0;
    for (name, target) in targets::ALL {
        let inputs = files(&corpus().join(name));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            bytes += data.len();
            let outcome = std::panic::catch_unwind(|| target(&data));
            assert!(outcome.is_ok(), "{} fails, see above", input.display());
        }
    }
    assert!(bytes <= MOST_BYTES, "{bytes} bytes: minimise the corpora, see fuzz/README.md");
}

#[test]
fn every_corpus_has_a_target() {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let there: BTreeSet<_> = files(&corpus()).into_iter().map(name).collect();
    assert_eq!(there, targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect());
}
