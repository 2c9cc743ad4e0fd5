//! Golden tests of the helper with fixture roots.
//!
//! A case is a directory `tests/helper/cases/<case>/` with
//!
//! - `arguments`: the command line, separated by spaces, where `{fixtures}` and `{roots}` are tests/fixtures and
//!   tests/helper/roots;
//! - `stdout`, `stderr`: the expected output, byte for byte; missing if there must be none;
//! - `status`: the expected exit status; missing if it is 0.
//!
//! `BLESS=1 cargo test --test helper` updates them: read the diff before you commit it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use similar::TextDiff;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn helper() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

fn run(arguments: &str) -> Output {
    let place = |name: &str| tests().join(name).to_str().unwrap().to_owned();
    let arguments =
        arguments.replace("{fixtures}", &place("fixtures")).replace("{roots}", &place("helper/roots"));
    helper().args(arguments.split_whitespace()).output().unwrap()
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn cases() -> Vec<(String, PathBuf)> {
    let directory = tests().join("helper/cases");
    names(&directory).into_iter().map(|name| (name.clone(), directory.join(name))).collect()
}

#[test]
fn golden_answers() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let mut wrong = String::new();
    for (name, directory) in cases() {
        let arguments = fs::read_to_string(directory.join("arguments")).unwrap();
        let done = run(&arguments);
        let status = done.status.code().expect("no signal");
        let status = if status == 0 { String::new() } else { format!("{status}\n") };
        let files = [
            ("stdout", String::from_utf8(done.stdout).unwrap()),
            ("stderr", String::from_utf8(done.stderr).unwrap()),
            ("status", status),
        ];
        for (file, written) in files {
            let path = directory.join(file);
            if bless {
                let _ = fs::remove_file(&path);
                if !written.is_empty() {
                    fs::write(&path, &written).unwrap();
                }
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            if expected != written {
                let diff = TextDiff::from_lines(&expected, &written);
                let diff = diff.unified_diff().context_radius(2).header("expected", "written").to_string();
                writeln!(wrong, "── {name}: {file}\n{diff}").unwrap();
            }
        }
        for file in names(&directory) {
            assert!(
                ["arguments", "stdout", "stderr", "status"].contains(&file.as_str()),
                "{name}: {file} is no part"
            );
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}\nBLESS=1 takes what is written now for right\n");
}

#[test]
fn nothing_is_wider_than_80_columns() {
    for (name, directory) in cases() {
        let text = fs::read_to_string(directory.join("stdout")).unwrap_or_default();
        // JSON and unit files are read by programs, so they are not wrapped.
        if text.starts_with('{') || name.starts_with("preview") || text.contains("\n[Service]\n") {
            continue;
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
}

/// The helper shows what the generator writes, for every machine in the guide and with the operator's settings.
#[test]
fn preview_is_what_the_generator_writes() {
    for group in ["rows", "config"] {
        for name in names(&tests().join("fixtures").join(group)) {
            let case = tests().join("fixtures").join(group).join(&name);
            let expected = fs::read_to_string(case.join("drop-in.conf")).unwrap_or_default();
            let root = case.join("root");
            let done =
                helper().args(["preview", "--unit", "pypnm.service", "--root"]).arg(&root).output().unwrap();
            // A unit that is not sized is an error if it is named on the command line.
            if expected.is_empty() {
                assert_eq!((done.stdout.len(), done.status.code()), (0, Some(2)), "{group}/{name}");
            } else {
                assert_eq!(String::from_utf8(done.stdout).unwrap(), expected, "{group}/{name}");
            }
        }
    }
}

/// `show` and `explain` print the same numbers, as text and as JSON, for every fixture.
#[test]
fn one_answer_in_every_form() {
    for group in ["rows", "config", "situations"] {
        for name in names(&tests().join("fixtures").join(group)) {
            let root = tests().join("fixtures").join(group).join(&name).join("root");
            let say = |arguments: &[&str]| {
                let done = helper().args(arguments).arg("--root").arg(&root).output().unwrap();
                assert_eq!(done.status.code(), Some(0), "{group}/{name}: {arguments:?}");
                String::from_utf8(done.stdout).unwrap()
            };
            let (show, explain) = (say(&["show"]), say(&["explain"]));
            let of = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
            let (show_json, explain_json) = (of(say(&["show", "--json"])), of(say(&["explain", "--json"])));
            for (brief, complete) in
                show_json["units"].as_array().unwrap().iter().zip(explain_json["units"].as_array().unwrap())
            {
                for key in [
                    "unit",
                    "workers",
                    "limit_max_requests",
                    "cpu_milli",
                    "memory_bytes",
                    "in_effect",
                    "reasons",
                ] {
                    assert_eq!(brief[key], complete[key], "{group}/{name}: {key}");
                }
                let effect = &brief["in_effect"];
                let head = format!(
                    "{}: {} worker{}, ",
                    brief["unit"].as_str().unwrap(),
                    effect["workers"],
                    if effect["workers"] == 1 { "" } else { "s" }
                );
                assert!(show.contains(&head) && explain.contains(&head), "{group}/{name}: {head}\n{show}");
                // The tightest limit is the minimum of its kind, minus the reserve.
                for (kind, amount) in [("cpu", &brief["cpu_milli"]), ("memory", &brief["memory_bytes"])] {
                    let limits = complete["limits"].as_array().unwrap().iter();
                    let binding: Vec<&Value> =
                        limits.filter(|limit| limit["resource"] == kind && limit["binds"] == true).collect();
                    assert!(binding.len() <= 1, "{group}/{name}");
                    if let [limit] = binding[..] {
                        let granted =
                            limit["amount"].as_u64().unwrap_or(0) / limit["shared_by"].as_u64().unwrap();
                        assert!(amount.as_u64().unwrap() <= granted, "{group}/{name}: {kind}");
                    }
                }
            }
        }
    }
}

/// Without a running systemd, `check` still responds as a monitoring plugin, and prints its JSON.
#[test]
fn check_without_systemd_is_unknown() {
    let check = |arguments: &[&str]| helper().arg("check").args(arguments).env("PATH", "").output().unwrap();
    let done = check(&[]);
    let line = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), line.lines().count()), (Some(3), 1), "{line}");
    assert!(line.starts_with("PYPNM-SIZING UNKNOWN - pypnm.service: systemd is not available"), "{line}");
    let done = check(&["--json"]);
    let object: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&object["schema"], &object["verb"]), (&Value::from(1), &Value::from("check")));
    assert_eq!((&object["status"], &object["state"]), (&Value::from(3), &Value::from("unknown")));
    let unit = &object["units"][0];
    assert_eq!((&unit["status"], &unit["findings"][0]["topic"]), (&"unknown".into(), &"no-systemd".into()));
    // Wrong usage is UNKNOWN too, including errors found before the command is known.
    for wrong in [&["--nonsense"][..], &["--unit=a/b"], &["--root=/nonexistent"]] {
        assert_eq!(check(wrong).status.code(), Some(3), "{wrong:?}");
    }
    assert_eq!(helper().args(["--root", "/nonexistent", "check"]).output().unwrap().status.code(), Some(3));
}

/// A `systemctl` that prints too much, or hangs, costs neither memory nor time.
#[test]
fn systemctl_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("systemctl");
    let with = |script: &str, option: &str| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", directory.path().display());
        // 64 MiB of address space in addition to what the program needs is far less than 300 MB of output.
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "ulimit -v 262144; exec \"$0\" check $1",
            env!("CARGO_BIN_EXE_pypnm-sizing"),
            option,
        ]);
        let done = command.env_clear().env("PATH", path).stdin(Stdio::null()).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (status, line) = with("exec head -c 300000000 /dev/zero", "");
    assert_eq!(status, Some(3), "{line}");
    assert!(line.contains("printed more than 1024 KiB"), "{line}");
    // The processes of a query share its time.
    let script = r#"case "$*" in
        *LoadState*) printf 'LoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success\n' ;;
        *DropInPaths*) sleep 2 ;;
        *) exec sleep 60 ;;
        esac"#;
    let started = Instant::now();
    let (status, line) = with(script, "");
    assert_eq!(status, Some(3), "{line}");
    assert!(line.contains("systemctl show did not finish within 10 s"), "{line}");
    assert!(started.elapsed().as_secs() < 50);
    // A value that contains line feeds is not mistaken for other properties.
    let script = r#"case "$*" in
        *ExecStart*) printf '{ path=/a ; argv[]=/a x\nLoadState=masked\nMainPID=1 ; ignore_errors=no ; }\n' ;;
        *LoadState*) printf 'LoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success\n' ;;
        esac"#;
    let (_, answer) = with(script, "--json");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let topics: Vec<&Value> =
        answer["units"][0]["findings"].as_array().unwrap().iter().map(|f| &f["topic"]).collect();
    assert!(
        topics.contains(&&"not-running".into()) && !topics.contains(&&"unit-masked".into()),
        "{topics:?}"
    );
    assert_eq!(answer["units"][0]["active"], "inactive");
}

/// Pages use the width of the terminal, and no line is wider.
#[test]
fn pages_fit_60_80_and_200_columns() {
    for (columns, most) in [("60", 60), ("80", 80), ("200", 200), ("20", 60), ("1000", 200), ("x", 80)] {
        let mut widest = 0;
        for (name, directory) in cases() {
            let arguments = fs::read_to_string(directory.join("arguments")).unwrap();
            if !(arguments.starts_with("show") || arguments.starts_with("explain")) || name.contains("json") {
                continue;
            }
            let place = |name: &str| tests().join(name).to_str().unwrap().to_owned();
            let arguments = arguments
                .replace("{fixtures}", &place("fixtures"))
                .replace("{roots}", &place("helper/roots"));
            let done = helper().args(arguments.split_whitespace()).env("COLUMNS", columns).output().unwrap();
            for line in String::from_utf8(done.stdout).unwrap().lines() {
                widest = widest.max(line.chars().count());
                // A path that is longer than a line is not broken, because it may be copied.
                let is_one_word = !line.trim().contains(' ');
                assert!(line.chars().count() <= most || is_one_word, "{name}, {columns} columns: {line}");
            }
        }
        assert!(widest > most / 2, "{columns}: {widest}");
    }
}

#[test]
fn every_help_has_examples_and_fits_the_terminal() {
    for verb in [
        "", "show", "explain", "preview", "env", "exec", "check", "setup", "apply", "report", "watch",
        "ready",
    ] {
        let help = |columns: usize| {
            let mut command = helper();
            command.args(verb.split_whitespace()).arg("--help").env("COLUMNS", columns.to_string());
            let done = command.output().unwrap();
            let text = String::from_utf8(done.stdout).unwrap();
            assert!(done.status.success() && text.contains("Examples:\n  pypnm-sizing"), "{verb}:\n{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= columns, "{verb}, {columns} columns: {line}");
            }
            text
        };
        // The lines of lists and examples are not wrapped at any width.
        let lists = |text: &str| {
            let is_list = |block: &&str| block.starts_with("Examples:") || block.starts_with("Exit status");
            text.split("\n\n").filter(is_list).map(|block| block.trim_end().to_owned()).collect::<Vec<_>>()
        };
        let at_200 = lists(&help(200));
        for columns in [60, 80] {
            assert_eq!(lists(&help(columns)), at_200, "{verb}, {columns} columns");
        }
        // Each example begins with a command, and what it does or its second line is indented further.
        let commands = ["pypnm-sizing", "sudo", "systemctl", "podman", "ssh"];
        let examples = at_200.last().into_iter().flat_map(|examples| examples.lines().skip(1));
        for line in examples.filter(|line| !line.starts_with("      ")) {
            assert!(commands.iter().any(|command| line.trim_start().starts_with(command)), "{verb}: {line}");
        }
    }
}

/// Starts a process whose command line is that of `pypnm serve`: a shell that waits for the end of its input.
fn pypnm_with_profile(directory: &Path, profile: &str) -> std::process::Child {
    fs::write(directory.join("serve"), "read -r line\n").unwrap();
    fs::write(directory.join("profile"), profile).unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg0("/v/bin/pypnm").arg("serve").current_dir(directory).stdin(Stdio::piped());
    command.env("PYPNM_SERVE_ENV_FILE", directory.join("profile")).spawn().unwrap()
}

#[test]
fn watch_reads_the_recycle_limit_as_by_pypnm() {
    let complete = "PYPNM_SERVE_CPU_COUNT=4\nPYPNM_SERVE_TOTAL_MEMORY_GIB=15.63\nPYPNM_SERVE_WORKERS=1\n\
                    PYPNM_SERVE_LIMIT_MAX_REQUESTS=777\n";
    let incomplete = "PYPNM_SERVE_LIMIT_MAX_REQUESTS=777\n";
    for (profile, limit) in [(complete, Some(777)), (incomplete, None)] {
        let directory = tempfile::tempdir().unwrap();
        let mut service = pypnm_with_profile(directory.path(), profile);
        let pid = service.id().to_string();
        let done = helper()
            .args(["watch", "--pid", &pid, "--interval", "50ms", "--duration", "100ms", "--json"])
            .output()
            .unwrap();
        drop(service.stdin.take());
        service.wait().unwrap();
        let last = String::from_utf8(done.stdout).unwrap().lines().last().unwrap_or_default().to_owned();
        let summary: Value = serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last}"));
        assert_eq!(summary["limit_max_requests"].as_u64(), limit, "{profile}");
    }
}

#[test]
fn a_broken_pipe_is_silent() {
    for verb in ["show", "explain", "explain --json", "preview", "check"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let root = concat!("--root=", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rows/4-cores-8-gb/root");
        let done = helper().args(verb.split_whitespace()).arg(root).stdout(writer).output().unwrap();
        assert!(done.stderr.is_empty(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(matches!(done.status.code(), Some(0..=3)), "{verb}: {:?}", done.status);
    }
}

/// The help and the version are answers as well.
#[test]
fn a_full_device_is_an_error() {
    for verb in ["show", "preview", "env", "--help", "--version", "help explain", "check --help"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let done = helper().args(verb.split_whitespace()).stdout(full).output().unwrap();
        let expected = if verb.starts_with("check") { 3 } else { 2 };
        assert_eq!(done.status.code(), Some(expected), "{verb}");
        assert!(
            String::from_utf8_lossy(&done.stderr).contains("No space left on device"),
            "{verb}: {done:?}"
        );
    }
}

#[test]
fn arguments_are_shown_without_control_characters() {
    for arguments in [
        ["show", "--unit", "a\x1b]0;X\x07"],
        ["show", "--memory", "\u{202e}4G"],
        ["check", "--\u{9b}2J", "x"],
        ["\x1b[2J", "x", "x"],
    ] {
        let done = helper().args(arguments).output().unwrap();
        let messages = String::from_utf8(done.stderr).unwrap();
        let hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(
            messages.starts_with("error: ") && messages.contains('?') && !messages.contains(hidden),
            "{messages:?}"
        );
    }
}

/// Bold and colors on terminals only, but not with NO_COLOR or TERM=dumb, or without TERM.
#[test]
fn colors_on_terminals_only() {
    let on_a_terminal = |environment: &[(&str, &str)]| {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("{} show", env!("CARGO_BIN_EXE_pypnm-sizing")), "/dev/null"]);
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(environment.iter().copied());
        let done = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    assert!(on_a_terminal(&[]).contains("\x1b[1m"));
    assert!(on_a_terminal(&[("NO_COLOR", "")]).contains("\x1b[1m"), "empty counts as not set");
    assert!(!on_a_terminal(&[("NO_COLOR", "1")]).contains('\x1b'));
    for terminal in ["dumb", ""] {
        assert!(!on_a_terminal(&[("TERM", terminal)]).contains('\x1b'), "TERM={terminal}");
    }
    let piped = helper().arg("show").env("TERM", "xterm").output().unwrap();
    assert!(!piped.stdout.contains(&0x1b));
}

/// Status 2 means CRITICAL to a monitoring system, so an error of the check itself is UNKNOWN.
#[test]
fn errors_of_check_are_unknown() {
    for arguments in [
        "check --bad",
        "--bad check",
        "--cpus 4 check",
        "--root=/no/such check",
        "check --unit=a/b",
        "check x",
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments}: {output:?}");
    }
    assert_eq!(run("--bad explain").status.code(), Some(2));
    assert_eq!(run("--root check explain --bad").status.code(), Some(2), "a directory of that name");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = helper().arg("check").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

/// `hidepid=` hides PID 1, so what it passes on is not known.
#[test]
fn the_environment_of_a_hidden_pid_1_is_unknown() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can mount");
        return;
    }
    let units = tempfile::tempdir().unwrap();
    let unit = "[Service]\nExecStart=/bin/uvicorn a:b\nPassEnvironment=WEB_CONCURRENCY\n";
    fs::write(units.path().join("pypnm.service"), unit).unwrap();
    let script = "mount --bind \"$1\" /etc/systemd/system && mount -t tmpfs none /proc/1 && exec \"$2\" explain --json";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([units.path().as_os_str(), OsStr::new(env!("CARGO_BIN_EXE_pypnm-sizing"))])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("WEB_CONCURRENCY is taken from PID 1's environment"), "{text}");
}
