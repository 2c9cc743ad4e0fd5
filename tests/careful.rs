//! The generator fails safe: damaging any single file of any fixture never raises the number of workers without a
//! message.
//!
//! Each of the kernel's files in each fixture is deleted, emptied, truncated, and partly overwritten with junk. The
//! operator's files are made unreadable as a whole: deleting one is the operator's right, and systemd itself reports
//! unknown words in them. Junk contains no digits, because a different number cannot be recognized as damage.
//!
//! By default, a sample with a fixed seed is run. `CAREFUL=all` runs everything, `CAREFUL=N` one in N.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// By default, one in this number is run.
const SAMPLE: u64 = 40;
/// Fixtures in which a file is already missing or damaged. Without a second one, nothing would show that there is a limit.
const TWO_MISSING: [&str; 8] = [
    "cgroup/no-cgroup-of-pid-1-to-be-seen/proc/1/mountinfo",
    "cgroup/no-mountinfo-to-be-seen/proc/1/cgroup",
    "cgroup/pid-1s-own-directory-is-missing-below-a-quota/proc/1/cgroup",
    "situations/19-pid-1-is-in-no-hierarchy-and-mountinfo-is-empty/proc/1/cgroup",
    "situations/28-memory-nodes-of-a-cpuset-are-missing/sys/fs/cgroup/cgroup.controllers",
    "situations/28-memory-nodes-of-a-v1-cpuset-elsewhere/proc/1/mountinfo",
    "units/manager-setenv-beside-latin-1-on-the-kernel-command-line/proc/cmdline",
    "situations/10-v1-a-quota-without-period/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
];
/// Changes the content of a file.
const SEEDS: u64 = 4;

/// splitmix64
struct Random(u64);

impl Random {
    fn of(text: &str, seed: u64) -> Self {
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), hash))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap()
    }
}

/// The number of workers of each unit, and the messages.
type Outcome = (BTreeMap<String, u32>, String);

fn run(case: &Path, root: &Path, out: &Path) -> Outcome {
    let _ = fs::remove_dir_all(out);
    fs::create_dir(out).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing-generator"));
    command.arg(out).env_clear().env("PYPNM_SIZING_ROOT", root).stdin(Stdio::null());
    for line in fs::read_to_string(case.join("environment")).unwrap_or_default().lines() {
        let (key, value) = line.split_once('=').unwrap();
        command.env(key, value);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), None, "{}: ended by a signal", case.display());
    let mut workers = BTreeMap::new();
    for directory in fs::read_dir(out).unwrap() {
        let directory = directory.unwrap();
        let text = fs::read_to_string(directory.path().join("10-pypnm-sizing.conf")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Environment=PYPNM_SERVE_WORKERS="));
        workers.insert(directory.file_name().into_string().unwrap(), line.unwrap().parse().unwrap());
    }
    (workers, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn copy(from: &Path, to: &Path, files: &mut Vec<PathBuf>) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else if kind.is_dir() {
            copy(&source, &target, files);
        } else {
            fs::copy(&source, &target).unwrap();
            files.push(target);
        }
    }
}

/// Adds the files that every cgroup of version 2 has, and that fixtures omit if they make no difference. Without them,
/// a deleted file would look like a disabled controller.
fn complete(directory: &Path) {
    let has = |file: &str| directory.join(file).exists();
    let files = [
        ("cpu", "cpu.max"),
        ("memory", "memory.max"),
        ("memory", "memory.high"),
        ("cpuset", "cpuset.cpus.effective"),
        ("cpuset", "cpuset.mems.effective"),
    ];
    let mut on: Vec<&str> =
        files.iter().filter(|(_, file)| has(file)).map(|(controller, _)| *controller).collect();
    on.dedup();
    if on.iter().any(|controller| *controller != "cpuset") {
        fs::write(directory.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    }
    if !on.is_empty() {
        fs::write(directory.join("cgroup.controllers"), format!("{}\n", on.join(" "))).unwrap();
    }
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            complete(&path);
        }
    }
}

/// The ways to damage a file: a description of each, and the remaining content.
fn ways(original_bytes: &[u8], name: &str, is_kernels: bool) -> Vec<(String, Option<Vec<u8>>)> {
    if !is_kernels {
        let binary: Vec<u8> = (128..=255).collect();
        let binary = ("binary".into(), Some(binary));
        // For the kernel command line, a bracket is an option.
        let bracket = (!name.ends_with("cmdline")).then(|| ("[ without ]".into(), Some(b"[".to_vec())));
        return std::iter::once(binary).chain(bracket).collect();
    }
    let mut all = vec![("deleted".into(), None), ("emptied".into(), Some(Vec::new()))];
    for seed in 0..SEEDS {
        let mut random = Random::of(name, seed);
        let mut at = random.below(original_bytes.len());
        // A file that ends after a complete line is a valid, shorter file.
        if original_bytes.get(..at).is_some_and(|half| half.ends_with(b"\n")) {
            at = at.saturating_sub(1);
        }
        // Half of a number is a number, and half of a path is a path.
        let is_whole = |last: &u8| last.is_ascii_digit() || *last == b'/';
        if !original_bytes.get(at.wrapping_sub(1)).is_some_and(is_whole) {
            all.push((format!("cut off at {at}"), Some(original_bytes[..at].to_vec())));
        }
        let mut patched = original_bytes.to_vec();
        let from = random.below(original_bytes.len());
        let junk = b"xZ!~_%@\x01\x7f\xff\xc3?&";
        for byte in patched.iter_mut().skip(from).take(1 + random.below(6)) {
            *byte = junk[random.below(junk.len())];
        }
        all.push((format!("junk at {from}: {:?}", String::from_utf8_lossy(&patched)), Some(patched)));
    }
    all
}

#[test]
fn damage_never_raises_the_workers_silently() {
    let one_in = match std::env::var("CAREFUL").as_deref() {
        Ok("all") => 1,
        Ok(number) => number.parse().expect("CAREFUL is all, or a number"),
        Err(_) => SAMPLE,
    };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut runs, mut rose) = (0, Vec::new());
    let mut cases: Vec<PathBuf> = Vec::new();
    for group in fs::read_dir(&fixtures).unwrap() {
        cases.extend(fs::read_dir(group.unwrap().path()).unwrap().map(|case| case.unwrap().path()));
    }
    cases.sort();
    for case in &cases {
        let shown = case.strip_prefix(&fixtures).unwrap().display().to_string();
        let scratch = tempfile::tempdir().unwrap();
        let (root, out) = (scratch.path().join("root"), scratch.path().join("out"));
        let mut files = Vec::new();
        copy(&case.join("root"), &root, &mut files);
        files.sort();
        complete(&root.join("sys/fs/cgroup"));
        let mut original = None;
        for file in &files {
            let path = format!("/{}", file.strip_prefix(&root).unwrap().display());
            let original_bytes = fs::read(file).unwrap();
            let is_kernels =
                (path.starts_with("/proc/") || path.starts_with("/sys/")) && !path.ends_with("cmdline");
            let name = format!("{shown}{path}");
            if TWO_MISSING.contains(&name.as_str()) {
                continue;
            }
            for (way, left) in ways(&original_bytes, &name, is_kernels) {
                if Random::of(&format!("{name}{way}"), 7).below(usize::try_from(one_in).unwrap()) != 0 {
                    continue;
                }
                let (workers, messages) = original.get_or_insert_with(|| run(case, &root, &out));
                match left {
                    None => fs::remove_file(file).unwrap(),
                    Some(left) => fs::write(file, left).unwrap(),
                }
                let (spoilt, remarks) = run(case, &root, &out);
                fs::write(file, &original_bytes).unwrap();
                runs += 1;
                let new = remarks.lines().any(|line| !messages.lines().any(|old| old == line));
                for (unit, more) in &spoilt {
                    // A disabled switch is the operator's choice, and so is enabling it.
                    if let Some(was) = workers.get(unit)
                        && more > was
                        && !new
                    {
                        rose.push(format!("{name}: {way}: {was} to {more} workers"));
                    }
                }
            }
        }
    }
    assert!(runs > 300 || one_in > SAMPLE, "{runs} runs are few");
    assert!(rose.is_empty(), "{} of {runs}:\n{}", rose.len(), rose.join("\n"));
}
