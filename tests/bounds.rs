//! The cost of each kind of line: time and memory are linear in the size of the input, whatever it contains.
//!
//! Each row is a large file with one kind of line, and another one of a quarter of its size. The kernel kills a run
//! that exceeds the limits on memory and time. `BOUNDS=4194304 cargo test --release --test bounds -- --nocapture`
//! prints the table for the maximum size of a file, 4 MB. By default, files are smaller, because a debug build is slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The size in bytes unless `BOUNDS=` is set.
const SIZE: usize = 512 << 10;
/// Address space in KiB. A debug build of the program needs some of it before it reads anything.
const MEMORY_KIB: &str = "1000000";
const CPU_SECONDS: &str = "20";
const UNIT: &str = "/etc/systemd/system/pypnm.service";
const SERVICE: &str = "[Service]\nExecStart=/bin/pypnm serve\n";

/// A kind of line: its description, the file that it is in, and a function that creates the file in a given size.
type Kind = (&'static str, &'static str, Box<dyn Fn(usize) -> String>);

/// The time of a run, and its maximum memory in KiB as observed by frequent polling.
fn run(root: &Path) -> (Duration, u64) {
    let out = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut child = Command::new("/bin/sh")
        .args(["-c", "ulimit -v $1 && ulimit -t $2 && exec $3 $4", "sh", MEMORY_KIB, CPU_SECONDS])
        .args([Path::new(env!("CARGO_BIN_EXE_pypnm-sizing-generator")), out.path()])
        .env_clear()
        .env("PYPNM_SIZING_ROOT", root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(ended.success(), "{ended}");
    assert!(out.path().join("pypnm.service.d/10-pypnm-sizing.conf").exists());
    (started.elapsed(), peak)
}

fn fill(head: &str, line: &str, size: usize) -> String {
    let mut text = String::with_capacity(size);
    text.push_str(head);
    while text.len() + line.len() < size {
        text.push_str(line);
    }
    text
}

/// The unit beside the large file at `path`.
fn unit(kind: &str, path: &str, size: usize) -> String {
    let environment_files = match kind {
        "an environment file again and again" => size / 100,
        _ => usize::from(path == "/etc/e"),
    };
    format!("{SERVICE}{}", "EnvironmentFile=/etc/e\n".repeat(environment_files))
}

/// Nearly as many as `fs.mount-max` permits.
fn remote_and_local_mounts(size: usize) -> String {
    let mut text = String::new();
    for id in 100..100 + size / 6 {
        writeln!(text, "{id} 23 0:27 / /r{id} rw - nfs c rw").unwrap();
    }
    for id in 100..100 + size / 6 {
        writeln!(text, "{} 23 8:1 / /l{id} rw - ext4 /dev/sda rw", id + size).unwrap();
    }
    text
}

#[test]
fn time_and_memory_are_linear() {
    let words = |size: usize| {
        let half = size / 2;
        let mut text = fill("[Service]\nEnvironment=\"A=", "x ", half);
        text.push_str("\"\nExecStart=/bin/x ");
        fill(&text, "$A ", size - 1) + "\n"
    };
    let quoted = |size: usize| fill("[Service]\nEnvironment=", "'A'=\"1\" ", size - 1) + "\n";
    let variables = |size: usize| {
        let mut text = String::from("[Service]\nExecStart=/bin/x ");
        let mut number = 0;
        while text.len() < size / 2 {
            number += 1;
            write!(text, "$A{number} ").unwrap();
        }
        text.push('\n');
        while text.len() + 40 < size {
            number -= i32::from(number > 1);
            writeln!(text, "Environment=A{number}=1").unwrap();
        }
        text
    };
    let lines = |head: &'static str, line: &'static str| move |size: usize| fill(head, line, size);
    let specifiers = |size: usize| fill("[Service]\nExecStart=/bin/x ", "%n", size - 1) + "\n";
    let conf = "/etc/pypnm/sizing.conf";
    let kinds: Vec<Kind> = vec![
        ("a variable of many words, many times", UNIT, Box::new(words)),
        ("many quoted words", UNIT, Box::new(quoted)),
        ("many variables, each used", UNIT, Box::new(variables)),
        ("%n in one word", UNIT, Box::new(specifiers)),
        ("%n in words", UNIT, Box::new(|size| fill("[Service]\nExecStart=/bin/x ", "%n ", size - 1) + "\n")),
        ("bad values", UNIT, Box::new(lines("[Service]\n", "MemoryMax=x\n"))),
        ("bad lists of CPUs", UNIT, Box::new(lines("[Service]\n", "AllowedCPUs=0-9,x\n"))),
        ("good lists of CPUs", UNIT, Box::new(lines("[Service]\n", "AllowedCPUs=0-8191\n"))),
        ("settings", UNIT, Box::new(lines("[Service]\n", "Slice=a.slice\n"))),
        ("commands", UNIT, Box::new(lines("[Service]\n", "ExecStart=/bin/x --workers 2\n"))),
        ("continued lines", UNIT, Box::new(lines("[Service]\n", "Environment=\\\n"))),
        ("lines that are none", UNIT, Box::new(lines("[Service]\n", "x\n"))),
        ("environment files", UNIT, Box::new(lines("[Service]\n", "EnvironmentFile=-/etc/e\n"))),
        ("unset variables", UNIT, Box::new(lines("[Service]\n", "UnsetEnvironment=A B C D\n"))),
        ("an environment file's lines", "/etc/e", Box::new(lines("", "PYPNM_SERVE_WORKERS=2\n"))),
        ("bad keys", conf, Box::new(lines("[Sizing]\n", "Wokers=2\n"))),
        ("bad values of sizing.conf", conf, Box::new(lines("[Sizing]\n", "Workers=x\n"))),
        ("sections", conf, Box::new(lines("[Sizing]\n", "[a.service]\n"))),
        (
            "units",
            conf,
            Box::new(|size| fill("[Sizing]\nUnits=pypnm.service ", "a.service ", size - 1) + "\n"),
        ),
        ("words of the kernel command line", "/proc/cmdline", Box::new(lines("", "pypnm.sizing=x "))),
        ("variables of the kernel command line", "/proc/cmdline", Box::new(lines("", "systemd.setenv=A=1 "))),
        ("control groups", "/proc/1/cgroup", Box::new(lines("", "1:cpu:/a\n"))),
        (
            "mounts of control groups",
            "/proc/1/mountinfo",
            Box::new(lines("", "31 23 0:27 / /c rw - cgroup2 c rw\n")),
        ),
        (
            "remote mounts, and local ones on top of others",
            "/proc/1/mountinfo",
            Box::new(remote_and_local_mounts),
        ),
        ("an environment file again and again", "/etc/e", Box::new(lines("", "PYPNM_SERVE_WORKERS=2\n"))),
        ("remote mounts", "/proc/1/mountinfo", Box::new(lines("", "31 23 0:27 / /c rw - nfs c rw\n"))),
    ];
    let size =
        std::env::var("BOUNDS").map_or(SIZE, |size| size.parse().expect("BOUNDS is a number of bytes"));
    println!(
        "{:40} {:>9} {:>9} {:>9} {:>9}",
        format!("{size} bytes of, and a quarter"),
        "ms",
        "ms",
        "KiB",
        "KiB"
    );
    for (kind, path, text) in kinds {
        let mut costs = Vec::new();
        for size in [size - 1, size / 4] {
            let machine = tempfile::tempdir().unwrap();
            let put = |path: &str, content: &str| {
                let path = machine.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            };
            put("/sys/devices/system/cpu/online", "0-7\n");
            put("/proc/meminfo", "MemTotal: 65852000 kB\n");
            put(UNIT, &unit(kind, path, size));
            put(path, &text(size));
            costs.push(run(machine.path()));
        }
        let ms = |at: usize| costs[at].0.as_millis();
        println!("{kind:40} {:>9} {:>9} {:>9} {:>9}", ms(0), ms(1), costs[0].1, costs[1].1);
        // Four times as much, and some allowance for other processes on the machine.
        assert!(ms(0) < 16 * ms(1) + 1500, "{kind}: {} ms, {} ms for a quarter", ms(0), ms(1));
    }
}
