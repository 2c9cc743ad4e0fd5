//! Compares our reader of PyPNM's profile file with a list of files and expected results. tests/pypnm/run compares the
//! real PyPNM with the same list.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use pypnm_sizing::pypnm::{ProfileFile, read_profile_file};
use serde_json::Value;

#[test]
fn files_are_read_as_by_pypnm() {
    let files: serde_json::Map<String, Value> =
        serde_json::from_str(include_str!("pypnm/files.json")).unwrap();
    assert!(files.len() > 30, "{}", files.len());
    let mut wrong = Vec::new();
    for (name, file) in &files {
        let found = read_profile_file(file[0].as_str().unwrap());
        let expected = &file[1];
        let alike = match &found {
            ProfileFile::Taken(numbers) => {
                expected[2].as_i64() == Some(numbers.workers)
                    && expected[3].as_i64() == Some(numbers.limit_max_requests)
            }
            ProfileFile::Ignored(_) => expected.is_null(),
            ProfileFile::Crashes(..) => expected == "ValueError",
        };
        if !alike {
            wrong.push(format!("a file {name}: {found:?}, PyPNM: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
