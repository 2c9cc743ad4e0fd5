//! The generator as called by systemd (systemd.generator(7)): its arguments, where it logs, and what it leaves behind
//! if the output directory is full, read-only, missing or not a directory. The fixtures cover the resulting profiles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const GENERATOR: &str = env!("CARGO_BIN_EXE_pypnm-sizing-generator");
const DROP_IN: &str = "pypnm.service.d/10-pypnm-sizing.conf";

/// A machine in the guide: 4 cores, 8 GB.
fn machine() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rows/4-cores-8-gb/root")
}

/// Runs `program` with `PYPNM_SIZING_ROOT=` as the only environment variable.
fn over(root: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PYPNM_SIZING_ROOT", root).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    command
}

fn generator() -> Command {
    over(&machine(), GENERATOR)
}

/// Runs a shell script in a mount namespace of its own with all capabilities; `$1` is the generator, `$2` a directory.
fn in_a_namespace(script: &str, directory: &Path) -> Output {
    let mut command = over(&machine(), "unshare");
    command.args(["--map-root-user", "--mount", "sh", "-euc", script, "sh", GENERATOR]).arg(directory);
    command.output().unwrap()
}

fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// The paths of everything below a directory.
fn tree(directory: &Path) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|below| format!("{name}/{below}")));
        }
        found.push(name);
    }
    found.sort();
    found
}

const WRITTEN: [&str; 2] = ["pypnm.service.d", DROP_IN];

#[test]
fn one_directory_or_three_and_only_the_first_is_written_to() {
    let out = tempfile::tempdir().unwrap();
    let [normal, early, late] = ["normal", "early", "late"].map(|name| out.path().join(name));
    for directory in [&normal, &early, &late] {
        fs::create_dir(directory).unwrap();
    }
    let done = generator().args([&normal, &early, &late]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(tree(&normal), WRITTEN);
    assert!(tree(&early).is_empty() && tree(&late).is_empty());
    let three = fs::read(normal.join(DROP_IN)).unwrap();

    let alone = tempfile::tempdir().unwrap();
    assert!(generator().arg(alone.path()).status().unwrap().success());
    assert_eq!(fs::read(alone.path().join(DROP_IN)).unwrap(), three);
}

#[test]
fn wrong_usage_writes_nothing() {
    let out = tempfile::tempdir().unwrap();
    for count in [0, 2, 4, 5] {
        let done = generator().args(vec![out.path(); count]).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{count} arguments");
        assert!(stderr(&done).contains("expected NORMAL_DIR [EARLY_DIR LATE_DIR]"), "{}", stderr(&done));
    }
    assert!(tree(out.path()).is_empty());
}

#[test]
fn an_invalid_root_is_reported_and_nothing_is_written() {
    let out = tempfile::tempdir().unwrap();
    let done = over(&out.path().join("nowhere"), GENERATOR).arg(out.path()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(stderr(&done).contains("PYPNM_SIZING_ROOT="), "{}", stderr(&done));
    assert!(tree(out.path()).is_empty());
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let out = tempfile::tempdir().unwrap();
    let mut shell = over(&machine(), "sh");
    let done =
        shell.args(["-c", "umask 0777; exec \"$@\"", "sh", GENERATOR]).arg(out.path()).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let mode = |path| fs::metadata(out.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("pypnm.service.d"), mode(DROP_IN)), (0o755, 0o644));
}

/// Between two calls with the same path, another user could replace the directory with a symbolic link.
#[test]
fn modes_and_names_use_descriptors() {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/need");
    assert!(Command::new(need).arg("strace").status().unwrap().success(), "strace is needed");
    let out = tempfile::tempdir().unwrap();
    let log = out.path().join("strace");
    let calls = "trace=chmod,fchmod,fchmodat,openat,rename,renameat,renameat2,unlink,unlinkat";
    let mut traced = over(&machine(), "strace");
    traced.args(["-qq", "-e", calls, "-o"]).arg(&log).arg(GENERATOR).arg(out.path());
    assert!(traced.status().unwrap().success());
    let log = fs::read_to_string(&log).unwrap();
    let of = |call: &str| log.lines().filter(|line| line.starts_with(&format!("{call}("))).count();
    assert_eq!((of("chmod"), of("fchmodat"), of("fchmod")), (0, 0, 2), "{log}");
    assert_eq!(of("rename") + of("renameat") + of("renameat2"), 1, "{log}");
    let pinned = |line: &&str| line.contains("10-pypnm-sizing.conf") || line.contains(".pypnm-sizing-");
    assert!(log.lines().filter(pinned).all(|line| line.contains("/proc/self/fd/")), "{log}");
    assert!(log.lines().any(|line| line.contains("O_NOFOLLOW") && line.contains("pypnm.service.d")), "{log}");
}

#[test]
fn an_older_drop_in_is_replaced_and_a_link_in_its_place_is_not_followed() {
    let out = tempfile::tempdir().unwrap();
    let elsewhere = out.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    fs::create_dir(out.path().join("pypnm.service.d")).unwrap();
    let drop_in = out.path().join(DROP_IN);
    std::os::unix::fs::symlink(&elsewhere, &drop_in).unwrap();
    for _ in 0..2 {
        assert!(generator().arg(out.path()).status().unwrap().success());
        assert!(fs::read_to_string(&drop_in).unwrap().contains("PYPNM_SERVE_WORKERS=2\n"));
        assert!(!drop_in.is_symlink());
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");
}

#[test]
fn obstacles_are_reported_and_nothing_is_left_behind() {
    let out = tempfile::tempdir().unwrap();
    let fails = |directory: &Path, doing: &str, what: &str| {
        let done = generator().arg(directory).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{what}");
        let messages = stderr(&done);
        assert!(
            messages.contains(&format!("pypnm.service: cannot {doing} "))
                && messages.contains("PyPNM falls back to its own sizing"),
            "{what}: {messages}"
        );
        assert_eq!(messages.lines().count(), 1, "{what}: {messages}");
    };
    fails(&out.path().join("missing"), "create the directory", "no such directory");
    assert!(tree(out.path()).is_empty(), "its parents are not made");
    fs::write(out.path().join("file"), "").unwrap();
    fails(&out.path().join("file"), "create the directory", "a file instead of the directory");
    fs::write(out.path().join("pypnm.service.d"), "").unwrap();
    fails(out.path(), "open the directory", "a file instead of the drop-ins' directory");
    fs::remove_file(out.path().join("pypnm.service.d")).unwrap();
    fs::create_dir_all(out.path().join(DROP_IN)).unwrap();
    fails(out.path(), "replace", "a directory instead of the drop-in");
    assert_eq!(tree(out.path()), ["file", WRITTEN[0], WRITTEN[1]]);
}

#[test]
fn a_full_file_system_leaves_no_drop_in() {
    let out = tempfile::tempdir().unwrap();
    // No page for the text; then no inode for the file; then none for the directory.
    let script = r#"
        mount -t tmpfs -o size=4k,mode=755 tmpfs "$2"
        echo full >"$2/other"
        "$1" "$2" && echo "status 0"
        find "$2" -type f
        for inodes in 3 2; do
            mount -t tmpfs -o nr_inodes=$inodes,mode=755 tmpfs "$2"
            echo taken >"$2/other" || true
            "$1" "$2" && echo "status 0"
            find "$2" -type f
        done"#;
    let done = in_a_namespace(script, out.path());
    let other = format!("{}/other\n", out.path().display());
    assert_eq!(String::from_utf8_lossy(&done.stdout), other.repeat(3), "{}", stderr(&done));
    assert_eq!(stderr(&done).matches("No space left on device").count(), 3, "{}", stderr(&done));
}

#[test]
fn a_full_file_system_keeps_an_older_drop_in() {
    let out = tempfile::tempdir().unwrap();
    let script = r#"
        mount -t tmpfs -o size=8k,mode=755 tmpfs "$2"
        "$1" "$2"
        cp "$2"/pypnm.service.d/* /dev/shm/before-$$
        dd if=/dev/zero of="$2/other" bs=4k count=1 2>/dev/null
        "$1" "$2" && echo "status 0"
        cmp /dev/shm/before-$$ "$2"/pypnm.service.d/10-pypnm-sizing.conf && echo complete
        rm /dev/shm/before-$$
        ls -A "$2/pypnm.service.d""#;
    let done = in_a_namespace(script, out.path());
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "complete\n10-pypnm-sizing.conf\n",
        "{}",
        stderr(&done)
    );
}

#[test]
fn a_read_only_file_system_is_reported() {
    let out = tempfile::tempdir().unwrap();
    let script = r#"
        mount -t tmpfs tmpfs "$2"
        mount -o remount,ro "$2"
        "$1" "$2" && echo "status 0"
        ls -A "$2""#;
    let done = in_a_namespace(script, out.path());
    assert_eq!(String::from_utf8_lossy(&done.stdout), "", "{}", stderr(&done));
    assert!(stderr(&done).contains("Read-only file system"), "{}", stderr(&done));
}

/// Runs the generator as PID 1 does, with its own process ID in `SYSTEMD_EXEC_PID`, and returns what it writes to
/// /dev/kmsg and stderr.
fn called_by_pid_1(root: &Path, kmsg: &str) -> (String, String) {
    called_by_a_manager(root, "SYSTEMD_EXEC_PID=$$; export SYSTEMD_EXEC_PID", kmsg)
}

/// As `called_by_pid_1`, but first runs the shell command `setting` while /dev is still the host's.
fn called_by_a_manager(root: &Path, setting: &str, kmsg: &str) -> (String, String) {
    let out = tempfile::tempdir().unwrap();
    fs::create_dir(out.path().join("out")).unwrap();
    // At boot, stdout and stderr are /dev/null, where messages would be lost.
    let script = format!(
        r#"
        {setting}
        mount -t tmpfs tmpfs /dev -o mode=755
        : >/dev/null
        {kmsg}
        exec "$1" "$2/out""#
    );
    let script = format!(
        r#"generator=$1 directory=$2
        (sh -euc '{}' sh "$generator" "$directory")
        cat /dev/kmsg 2>/dev/null || true"#,
        script.replace('\'', r"'\''")
    );
    let mut command = over(root, "unshare");
    command.args(["--map-root-user", "--mount", "sh", "-euc", &script, "sh", GENERATOR]).arg(out.path());
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(tree(&out.path().join("out")), WRITTEN, "{}", stderr(&done));
    (String::from_utf8_lossy(&done.stdout).into_owned(), stderr(&done))
}

#[test]
fn problems_are_logged_to_the_kernel_log_under_pid_1() {
    let blind = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/meminfo-missing/root");
    let (kmsg, stderr) = called_by_pid_1(&blind, ": >/dev/kmsg");
    assert!(kmsg.starts_with("<4>pypnm-sizing-generator["), "{kmsg}");
    assert!(kmsg.contains("]: /proc/meminfo: there is no such file; assuming minimal memory"), "{kmsg}");
    assert_eq!(stderr, "");
}

#[test]
fn a_null_stderr_means_the_kernel_log() {
    let blind = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/meminfo-missing/root");
    let null = "unset SYSTEMD_EXEC_PID; exec 2>/dev/null";
    let (kmsg, _) = called_by_a_manager(&blind, null, ": >/dev/kmsg");
    assert!(kmsg.starts_with("<4>pypnm-sizing-generator["), "{kmsg}");
    let (kmsg, stderr) = called_by_a_manager(&blind, "unset SYSTEMD_EXEC_PID", ": >/dev/kmsg");
    assert_eq!(kmsg, "", "a person at a terminal");
    assert!(stderr.starts_with("pypnm-sizing-generator: /proc/meminfo:"), "{stderr}");
    let (kmsg, _) =
        called_by_a_manager(&blind, "export SYSTEMD_EXEC_PID=1; exec 2>/dev/null", ": >/dev/kmsg");
    assert_eq!(kmsg, "", "started by some program of a service");
}

#[test]
fn success_is_silent_under_pid_1() {
    assert_eq!(called_by_pid_1(&machine(), ": >/dev/kmsg"), (String::new(), String::new()));
}

#[test]
fn a_missing_kernel_log_is_accepted() {
    let blind = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/meminfo-missing/root");
    assert_eq!(called_by_pid_1(&blind, ""), (String::new(), String::new()), "a container without one");
    assert_eq!(called_by_pid_1(&blind, "mkdir /dev/kmsg"), (String::new(), String::new()), "not writable");
}

#[test]
fn closed_standard_streams_are_accepted() {
    let out = tempfile::tempdir().unwrap();
    let blind = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/meminfo-missing/root");
    let mut shell = over(&blind, "sh");
    shell.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh", GENERATOR]).arg(out.path());
    assert!(shell.status().unwrap().success());
    // The reader of stderr has exited.
    let mut shell = over(&blind, "bash");
    shell.args(["-c", "\"$@\" 2> >(exec 0<&-; exec true); exit $?", "sh", GENERATOR]).arg(out.path());
    assert!(shell.status().unwrap().success());
    assert_eq!(tree(out.path()), WRITTEN, "and nothing of it went into a file that took the place of stderr");
}
