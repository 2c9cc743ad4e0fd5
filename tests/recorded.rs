//! Units as a real systemd loaded them: tests/oracle/recorded.txt holds random trees of unit files, and what systemd and the
//! library both made of them when `tests/oracle/run --record` compared the two.
//!
//! Its lines have fields between tabs; `\n`, `\t`, `\\` and `\xHH` are escapes:
//!
//! - `memory BYTES`: a tree begins; percentages are of this memory;
//! - `directory PATH`, `file PATH TEXT`, `link PATH TARGET`;
//! - `unit NAME STATE ID FILE DROP-INS KEY=VALUE…`: nothing follows a state in which no more was compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pypnm_sizing::limits::service::{CpuLists, settings};
use pypnm_sizing::parse::cpu_list::CpuSet;
use pypnm_sizing::problem::Sourced;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Index, LoadState};

const RECORDED: &str = include_str!("oracle/recorded.txt");

fn unescaped(field: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let mut bytes = field.bytes();
    while let Some(byte) = bytes.next() {
        data.push(match byte {
            b'\\' => match bytes.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'x' => {
                    let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                escaped => escaped,
            },
            byte => byte,
        });
    }
    data
}

/// What the library makes of a unit, in the words of the recording. `from_258`: as that version of systemd reads lists of
/// CPUs.
fn answer(index: &Index<'_>, name: &str, memory: u64, from_258: bool) -> String {
    let mut problems = Vec::new();
    let unit = index.load(name, &mut problems).unwrap();
    let state = match unit.state {
        LoadState::Loaded => "loaded",
        LoadState::NotFound => "not-found",
        LoadState::Masked => "masked",
        LoadState::Bad => "error",
    };
    let mut text = format!("{name}\t{state}");
    if !matches!(unit.state, LoadState::Loaded | LoadState::Masked) {
        return text;
    }
    write!(text, "\t{}\t{}", unit.name, unit.fragment.as_deref().unwrap_or("-")).unwrap();
    if unit.state == LoadState::Masked {
        return text;
    }
    write!(text, "\t{}", unit.drop_ins.join(" ")).unwrap();
    let settings = settings(&unit, Some(memory), &mut problems);
    let list = |set: &CpuSet| set.iter().map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(",");
    let cpus = |found: &Option<Sourced<CpuLists>>| {
        found
            .as_ref()
            .map(|found| list(if from_258 { &found.value.from_258 } else { &found.value.until_257 }))
    };
    let bytes = |found: &Option<Sourced<u64>>| found.as_ref().map(|found| found.value.to_string());
    let quota = settings.cpu_quota.as_ref().map(|found| (u64::from(found.value) * 100).to_string());
    let affinity = cpus(&settings.cpu_affinity).filter(|_| settings.numa_affinity.is_none());
    for (key, value) in [
        ("MemoryMax", bytes(&settings.memory_max)),
        ("MemoryHigh", bytes(&settings.memory_high)),
        ("MemoryLimit", bytes(&settings.memory_limit)),
        ("CPUQuotaPerSecUSec", quota),
        ("AllowedCPUs", cpus(&settings.allowed_cpus)),
        ("CPUAffinity", affinity),
        ("Slice", settings.slice.clone().filter(|_| !name.ends_with(".slice"))),
    ] {
        if let Some(value) = value {
            write!(text, "\t{key}={value}").unwrap();
        }
    }
    text
}

/// Lays the files of a tree down below `root`.
fn lay_down(root: &Path, lines: &[&str]) {
    let place = |path: &str| -> PathBuf {
        let path = unescaped(path);
        let place = root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap()));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    };
    fs::create_dir_all(root.join("usr/lib")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    for line in lines {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["directory", path] => fs::create_dir_all(place(path)).unwrap(),
            ["file", path, text] => fs::write(place(path), unescaped(text)).unwrap(),
            ["link", path, target] => symlink(OsStr::from_bytes(&unescaped(target)), place(path)).unwrap(),
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn units_are_loaded_as_systemd_loaded_them() {
    let mut lines = RECORDED.lines().peekable();
    let version = lines.next().unwrap().strip_prefix("# systemd ").unwrap().split(';').next().unwrap();
    let from_258 = version.parse::<u32>().unwrap() >= 258;
    let (mut asked, mut wrong) = (0, String::new());
    while let Some(first) = lines.next() {
        let memory = first.strip_prefix("memory\t").unwrap().parse().unwrap();
        let mut files = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("unit\t")) {
            files.push(line);
        }
        let directory = tempfile::tempdir().unwrap();
        lay_down(directory.path(), &files);
        let root = Root::below(directory.path()).unwrap();
        let mut recorded = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("unit\t")) {
            recorded.push(String::from_utf8(unescaped(line.strip_prefix("unit\t").unwrap())).unwrap());
        }
        let names: Vec<String> =
            recorded.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
        let index = Index::read(&root, &names, "", &mut Vec::new());
        for (name, expected) in names.iter().zip(&recorded) {
            let found = answer(&index, name, memory, from_258);
            if found != *expected {
                writeln!(wrong, "systemd {expected}\nhere    {found}").unwrap();
            }
            asked += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(asked > 100, "{asked}");
}
