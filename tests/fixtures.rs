//! Golden tests of the generator with fixture roots.
//!
//! A case is a directory `tests/fixtures/<group>/<case>/` with
//!
//! - `root/`: the machine, as `PYPNM_SIZING_ROOT=`;
//! - `drop-in.conf`: the expected drop-in for pypnm.service, byte for byte; empty if nothing must be written;
//! - `<unit>.conf`: the expected drop-in for another unit;
//! - `stderr`: the expected messages; missing if there must be none;
//! - `environment`: lines `KEY=value` with variables set by PID 1; missing if the environment is empty.
//!
//! The complete output directory is compared. `BLESS=1 cargo test --test fixtures` updates the golden files: read the
//! diff before you commit it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use similar::TextDiff;

const DROP_IN: &str = "10-pypnm-sizing.conf";
const DEFAULT_UNIT: &str = "pypnm.service";

/// Golden files: name and text.
type Golden = BTreeMap<String, String>;

/// One test per group, and no group without a test.
macro_rules! groups {
    ($($test:ident = $group:literal),+ $(,)?) => {
        $(#[test] fn $test() { check_group($group); })+

        #[test]
        fn every_group_is_run() {
            let there: BTreeSet<_> = names(&fixtures());
            assert_eq!(there, [$($group.to_owned()),+].into());
        }
    };
}

groups! {
    the_guides_machines = "rows",
    the_host = "host",
    the_cgroups = "cgroup",
    the_situations = "situations",
    the_switch = "switch",
    the_configuration = "config",
    the_units = "units",
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Runs every case in a group, and fails with all differences.
fn check_group(group: &str) {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let directory = fixtures().join(group);
    let cases = names(&directory);
    assert!(!cases.is_empty(), "{group} has no case");
    let mut wrong = String::new();
    for case in &cases {
        let case_directory = directory.join(case);
        let outcome = run(&case_directory).and_then(|written| {
            if bless {
                write_golden(&case_directory, &written);
            }
            compare(&read_golden(&case_directory)?, &written)
        });
        if let Err(difference) = outcome {
            writeln!(wrong, "── {group}/{case}\n{difference}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\nBLESS=1 takes what is written now for right\n");
}

/// The output of the generator for a case, by the names of the golden files.
fn run(case: &Path) -> Result<Golden, String> {
    let root = case.join("root");
    if !root.is_dir() {
        return Err("it has no root/".into());
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing-generator"));
    command.arg(out.path()).env_clear().env("PYPNM_SIZING_ROOT", &root);
    for line in fs::read_to_string(case.join("environment")).unwrap_or_default().lines() {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("environment: {line:?}"))?;
        command.env(key, value);
    }
    let done = command.stdin(Stdio::null()).output().unwrap();
    let mut golden = Golden::new();
    if !done.status.success() {
        golden.insert("the exit status, which must be 0".into(), done.status.to_string());
    }
    if !done.stdout.is_empty() {
        golden.insert("stdout, which must be empty".into(), String::from_utf8_lossy(&done.stdout).into());
    }
    if !done.stderr.is_empty() {
        golden.insert("stderr".into(), String::from_utf8(done.stderr).map_err(|e| e.to_string())?);
    }
    let mut wrote_any = false;
    for (path, text) in tree(out.path()) {
        wrote_any = true;
        golden.insert(golden_name(&path), text);
    }
    if !wrote_any {
        golden.insert("drop-in.conf".into(), String::new());
    }
    Ok(golden)
}

/// Maps `<unit>.d/10-pypnm-sizing.conf` to its golden file. Other paths remain unchanged, so they never match.
fn golden_name(path: &str) -> String {
    match path.strip_suffix(DROP_IN).and_then(|directory| directory.strip_suffix(".d/")) {
        Some(DEFAULT_UNIT) => "drop-in.conf".into(),
        Some(unit) if !unit.contains('/') => format!("{unit}.conf"),
        _ => path.into(),
    }
}

/// All files below `directory`, by their relative paths, and empty directories.
fn tree(directory: &Path) -> BTreeMap<String, String> {
    fn walk(directory: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
        for name in names(directory) {
            let (path, shown) = (directory.join(&name), format!("{prefix}{name}"));
            if path.is_dir() && !path.is_symlink() {
                if names(&path).is_empty() {
                    into.insert(format!("{shown}/ (empty)"), String::new());
                }
                walk(&path, &format!("{shown}/"), into);
            } else {
                into.insert(shown, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(directory, "", &mut into);
    into
}

/// The golden files of a case. An unknown file name is an error.
fn read_golden(case: &Path) -> Result<Golden, String> {
    let mut golden = Golden::new();
    for name in names(case) {
        if name == "stderr" || name.ends_with(".conf") {
            golden.insert(name.clone(), fs::read_to_string(case.join(&name)).map_err(|e| e.to_string())?);
        } else if name != "root" && name != "environment" {
            return Err(format!("{name} is no part of a case"));
        }
    }
    if golden.keys().all(|name| name == "stderr") {
        return Err("it has no golden file".into());
    }
    Ok(golden)
}

fn write_golden(case: &Path, written: &Golden) {
    for name in names(case) {
        if name == "stderr" || name.ends_with(".conf") {
            fs::remove_file(case.join(name)).unwrap();
        }
    }
    for (name, text) in written {
        if name == "stderr" || name.ends_with(".conf") && !name.contains('/') {
            fs::write(case.join(name), text).unwrap();
        }
    }
}

fn compare(expected: &Golden, written: &Golden) -> Result<(), String> {
    let mut difference = String::new();
    for name in expected.keys().chain(written.keys()).collect::<BTreeSet<_>>() {
        let (expected, written) = (expected.get(name), written.get(name));
        if expected == written {
            continue;
        }
        let label = |text: Option<&String>, what| {
            format!("{name} ({what}{})", if text.is_none() { ", none" } else { "" })
        };
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let diff = TextDiff::from_lines(text(expected), text(written))
            .unified_diff()
            .context_radius(2)
            .header(&label(expected, "expected"), &label(written, "written"))
            .to_string();
        let diff = if diff.is_empty() {
            format!("{name}: expected {expected:?}, written {written:?}\n")
        } else {
            diff
        };
        difference.push_str(&diff);
    }
    if difference.is_empty() { Ok(()) } else { Err(difference) }
}

/// The names in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
