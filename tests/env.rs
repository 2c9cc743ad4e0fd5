//! `pypnm-sizing env` as it is called by systemd's ExecStartPre=, by the entry point of a container, by an installer in
//! place of PyPNM's own script, and by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const KEYS: [&str; 4] = [
    "PYPNM_SERVE_CPU_COUNT",
    "PYPNM_SERVE_TOTAL_MEMORY_GIB",
    "PYPNM_SERVE_WORKERS",
    "PYPNM_SERVE_LIMIT_MAX_REQUESTS",
];
/// Variables that make the environment a complete profile.
const RESOLVED: [(&str, &str); 4] = [
    ("PYPNM_SERVE_CPU_COUNT", "12"),
    ("PYPNM_SERVE_TOTAL_MEMORY_GIB", "47.5"),
    ("PYPNM_SERVE_WORKERS", "3"),
    ("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "1500"),
];

/// The helper with only these environment variables.
fn env(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing"));
    command.arg("env").args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

/// As `env`, through a shell for what only a shell can set; `$P` is the helper.
fn sh(script: &str, arguments: &[&str]) -> Output {
    Command::new("bash")
        .args(["-euc", script, "bash"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("P", env!("CARGO_BIN_EXE_pypnm-sizing"))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn four(values: [&str; 4]) -> String {
    let lines: Vec<_> = KEYS.iter().zip(values).map(|(key, value)| format!("{key}={value}\n")).collect();
    lines.concat()
}

/// Checks what every successful `--write` must leave: the mode, no other hard link, no other files.
fn assert_whole(file: &Path, text: &str) {
    let there = fs::symlink_metadata(file).unwrap();
    assert!(there.is_file());
    assert_eq!((there.permissions().mode() & 0o7777, there.nlink()), (0o644, 1));
    assert_eq!(fs::read_to_string(file).unwrap(), text);
    let beside: Vec<_> =
        fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, [file.file_name().unwrap()]);
}

/// A machine with 4 CPUs and 16 GB in a directory, with this sizing.conf.
fn machine(configuration: &str) -> TempDir {
    let root = TempDir::new().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("sys/devices/system/cpu/online", "0-3\n");
    put("proc/meminfo", "MemTotal:       16389412 kB\nHugetlb:               0 kB\n");
    put("proc/1/status", "Name:\tsystemd\nCpus_allowed_list:\t0-3\n");
    put("etc/pypnm/sizing.conf", configuration);
    root
}

fn root_flag(root: &TempDir) -> String {
    format!("--root={}", root.path().display())
}

#[test]
fn the_four_lines_of_a_machine_below_a_root() {
    let root = machine("");
    let shown = env(&[&root_flag(&root)], &RESOLVED);
    assert_eq!(
        stdout(&shown),
        four(["4", "15.63", "4", "2000"]),
        "this process's environment is not that machine's"
    );
    assert_eq!((stderr(&shown), status(&shown)), ("", 0));
}

#[test]
fn another_machine_in_all_spellings() {
    for arguments in [
        &["--cpus", "4", "--memory", "16GiB"][..],
        &["--cpus", "4", "--memory", "16G"],
        &["--cpu-count", "4", "--memory-gib", "16", "--print-only"],
        &["--cpu-count=4", "--memory-gib=16.0", "--print-only", "--write", "/nowhere/at/all"],
    ] {
        let shown = env(arguments, &RESOLVED);
        assert_eq!(stdout(&shown), four(["4", "16.0", "4", "2000"]), "{arguments:?}");
        assert_eq!((stderr(&shown), status(&shown)), ("", 0));
    }
}

/// As Python prints `round(float(text), 2)`. tests/pypnm/run compares many more values with the real PyPNM.
#[test]
fn memory_is_formatted_as_by_pypnm() {
    for (text, written) in [
        ("8", "8.0"),
        ("15.63", "15.63"),
        ("0.5", "0.5"),
        ("3.125", "3.12"),
        ("3.375", "3.38"),
        ("2.675", "2.67"),
        ("8.005", "8.01"),
        ("15.630779266357422", "15.63"),
        ("7.6299999999999999", "7.63"),
    ] {
        let shown = env(&["--memory-gib", text, "--print-only"], &[]);
        assert!(stdout(&shown).contains(&format!("_GIB={written}\n")), "{text}: {}", stdout(&shown));
    }
    for text in ["", "0", "-8", "8 ", "8,5", "1e1", "nan", "inf", ".5", "99999999999999"] {
        let refused = env(&["--memory-gib", text, "--print-only"], &[]);
        assert_eq!((stdout(&refused), status(&refused)), ("", 2), "{text:?}");
    }
}

#[test]
fn exec_start_pre_uses_the_resolved_environment() {
    let dir = TempDir::new().unwrap();
    // The directory does not exist at the first start after boot.
    let file = dir.path().join("pypnm-sizing/pypnm.service.env");
    let path = file.to_str().unwrap();
    for _ in 0..2 {
        let written = env(&["--unit", "pypnm.service", "--write", path], &RESOLVED);
        assert_eq!((stdout(&written), stderr(&written), status(&written)), ("", "", 0));
        assert_whole(&file, &four(["12", "47.5", "3", "1500"]));
    }
}

#[test]
fn values_that_crash_pypnm_are_replaced_and_reported() {
    let sized: Vec<String> =
        stdout(&env(&[], &[])).lines().map(|line| line.split_once('=').unwrap().1.to_owned()).collect();
    for (at, insane) in [
        (0, "0"),
        (0, "2.0"),
        (0, "-1"),
        (1, "lots"),
        (1, "16,5"),
        (1, "1e3"),
        (1, "nan"),
        (1, "-1"),
        (1, "1.2.3"),
        (2, "abc"),
        (2, "2.0"),
        (2, "0"),
        (2, ""),
        (2, " 3"),
        (2, "\"3\""),
        (2, "3 # three"),
        (2, "3\nPYPNM_SERVE_WORKERS=5"),
        (2, "$(reboot)"),
        (2, "99999999999"),
        (3, "-1"),
        (3, "never"),
    ] {
        let mut variables = RESOLVED;
        variables[at].1 = insane;
        let shown = env(&[], &variables);
        let mut expected = RESOLVED.map(|(_, value)| value);
        expected[at] = &sized[at];
        assert_eq!(stdout(&shown), four(expected), "{insane:?}");
        let messages = stderr(&shown);
        assert_eq!(messages.lines().count(), 1, "{messages:?}");
        assert!(messages.contains(&format!("the environment: {}: '", KEYS[at])), "{messages}");
        assert!(messages.contains(&format!("the sized {} is used", sized[at])), "{messages}");
        assert_eq!(status(&shown), 0);
    }
    let sane = env(&[], &[("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "0"), ("PYPNM_SERVE_TOTAL_MEMORY_GIB", "8")]);
    assert_eq!(stderr(&sane), "");
    assert!(stdout(&sane).contains("_REQUESTS=0\n") && stdout(&sane).contains("_GIB=8\n"), "{sane:?}");
    // Not valid UTF-8, which a shell can set, but Rust's `envs(&str)` cannot.
    let binary = sh("PYPNM_SERVE_WORKERS=$'\\xff' \"$P\" env", &[]);
    assert!(stderr(&binary).contains("PYPNM_SERVE_WORKERS"), "{binary:?}");
    assert!(stdout(&binary).contains(&format!("_WORKERS={}\n", sized[2])));
}

#[test]
fn uvicorns_variables_are_kept() {
    let plain = env(&[], &[]);
    let with =
        env(&[], &[("UVICORN_WORKERS", "6"), ("WEB_CONCURRENCY", "5"), ("UVICORN_LIMIT_MAX_REQUESTS", "7")]);
    assert_eq!((stdout(&with), stderr(&with)), (stdout(&plain), ""));
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    let dir = TempDir::new().unwrap();
    for umask in ["0077", "0027", "0777", "0000"] {
        let file = dir.path().join(umask).join("below/pypnm.env");
        let done = sh(
            "umask $1; \"$P\" env --cpus 4 --memory 16GiB --write \"$2\"",
            &[umask, file.to_str().unwrap()],
        );
        assert_eq!((stderr(&done), status(&done)), ("", 0), "{umask}");
        assert_whole(&file, &four(["4", "16.0", "4", "2000"]));
        for made in [file.parent().unwrap(), &dir.path().join(umask)] {
            assert_eq!(
                fs::metadata(made).unwrap().permissions().mode() & 0o7777,
                0o755,
                "{umask} {}",
                made.display()
            );
        }
    }
}

#[test]
fn the_file_works_in_bash_and_in_environment_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("p.env");
    let path = file.to_str().unwrap();
    env(&["--write", path], &RESOLVED);
    let sourced = sh("set -a; source \"$1\"; env | grep ^PYPNM_ | sort", &[path]);
    let mut lines: Vec<_> = RESOLVED.iter().map(|(key, value)| format!("{key}={value}")).collect();
    lines.sort();
    assert_eq!(stdout(&sourced).lines().collect::<Vec<_>>(), lines);
    // Values that need no quoting are read in the same way everywhere (systemd.exec(5), EnvironmentFile=).
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() == 4);
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=.\n".contains(&b)), "{text}");
}

#[test]
fn a_link_is_replaced_and_its_target_kept() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let (file, precious) = (dir.path().join("p.env"), other.path().join("precious"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &file).unwrap();
    let done = env(&["--write", file.to_str().unwrap()], &RESOLVED);
    assert_eq!((stderr(&done), status(&done)), ("", 0));
    assert_whole(&file, &four(["12", "47.5", "3", "1500"]));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

/// A user other than root.
const SOMEBODY: u32 = 12345;

/// Root writes to a directory of the service's user: a file of that user is replaced, and the target of a symbolic link
/// is unchanged.
#[test]
fn root_writes_safely_to_a_directory_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("theirs/state")).unwrap();
    fs::create_dir_all(path("precious")).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(path("theirs/state/p.env"), "theirs").unwrap();
    symlink("../precious", path("theirs/link")).unwrap();
    symlink(path("precious"), path("theirs/absolute")).unwrap();
    for theirs in ["theirs", "theirs/state", "theirs/state/p.env", "theirs/link", "theirs/absolute"] {
        lchown(path(theirs), Some(SOMEBODY), None).unwrap();
    }
    symlink("theirs/link", path("link-of-roots")).unwrap();
    let text = four(["12", "47.5", "3", "1500"]);
    let write = |to: &str| {
        let done = env(&["--write", path(to).to_str().unwrap()], &RESOLVED);
        (status(&done), stderr(&done).to_owned())
    };
    for name in ["state/p.env", "p.env", "new/below/p.env"] {
        assert_eq!(write(&format!("theirs/{name}")), (0, String::new()), "{name}");
        let file = path(&format!("theirs/{name}"));
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "{name}");
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o644), "{name}");
    }
    fs::write(path("precious/p.env"), "precious").unwrap();
    for to in ["theirs/link", "theirs/link/new", "theirs/absolute", "theirs/state/../link", "link-of-roots"] {
        let (status, messages) = write(&format!("{to}/p.env"));
        assert!(
            status == 2 && messages.contains("user 12345") && messages.contains("nothing was written"),
            "{to}: {messages}"
        );
        // Nor is a file removed there when sizing is turned off.
        let root = machine("[Sizing]\nEnabled=no\n");
        let off = env(&[&root_flag(&root), "--write", path(to).join("p.env").to_str().unwrap()], &[]);
        assert!(stderr(&off).contains("user 12345") || to.ends_with("new"), "{to}: {off:?}");
    }
    let remaining: Vec<_> =
        fs::read_dir(path("precious")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(remaining, ["p.env"]);
    assert_eq!(fs::read_to_string(path("precious/p.env")).unwrap(), "precious");
}

/// The service's user repeatedly replaces a directory with a symbolic link while root writes below it.
#[test]
fn no_race_redirects_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("precious")).unwrap();
    fs::create_dir(path("theirs")).unwrap();
    lchown(path("theirs"), Some(SOMEBODY), None).unwrap();
    let script = r#"cd "$1"; i=0; while [ ! -e ../done ]; do
        ln -s ../precious s 2>/dev/null; mv s "old$((i += 1))" 2>/dev/null; mkdir s 2>/dev/null; mv s "old$((i += 1))" 2>/dev/null
    done"#;
    let mut attacker = Command::new("setpriv")
        .args(["--reuid", "12345", "--clear-groups", "bash", "-c", script, "bash"])
        .arg(path("theirs"))
        .spawn()
        .unwrap();
    for _ in 0..50 {
        env(&["--write", path("theirs/s/below/p.env").to_str().unwrap()], &RESOLVED);
    }
    fs::write(path("done"), "").unwrap();
    assert!(attacker.wait().unwrap().success());
    assert_eq!(fs::read_dir(path("precious")).unwrap().count(), 0, "root was led elsewhere");
}

/// Without a path, the file is written where PyPNM's system.json says. Root ignores a system.json that the service's
/// user can write.
#[test]
fn root_ignores_a_system_json_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (theirs, reason) in [
        ("src/pypnm/settings/system.json", "user 12345"),
        ("src/pypnm/settings", "user 12345"),
        ("src", "user 12345"),
        (".data", "user 12345"),
    ] {
        let here = Installed::new();
        fs::set_permissions(here.dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(here.path("precious")).unwrap();
        let text = if theirs == ".data" { "{}".to_owned() } else { runtime_dir(&here.path("precious/x")) };
        here.put("src/pypnm/settings/system.json", &text);
        symlink("precious", here.path(".data")).unwrap();
        assert_eq!(status(&here.env(&SEED, &[])), 0, "all is root's");
        fs::remove_dir_all(here.path("precious")).unwrap();
        fs::create_dir(here.path("precious")).unwrap();
        lchown(here.path(theirs), Some(SOMEBODY), None).unwrap();
        let done = here.env(&SEED, &[]);
        assert!(status(&done) == 2 && stderr(&done).contains(reason), "{theirs}: {done:?}");
        assert_eq!(fs::read_dir(here.path("precious")).unwrap().count(), 0, "{theirs}");
    }
}

#[test]
fn a_hard_link_keeps_the_old_text() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new_in(dir.path().parent().unwrap()).unwrap();
    let (file, second) = (dir.path().join("p.env"), other.path().join("second"));
    fs::write(&file, "old").unwrap();
    fs::hard_link(&file, &second).unwrap();
    env(&["--write", file.to_str().unwrap()], &RESOLVED);
    assert_eq!(fs::read_to_string(&second).unwrap(), "old", "replaced by a rename, not written into");
    assert_whole(&file, &four(["12", "47.5", "3", "1500"]));
}

#[test]
fn special_files_are_kept() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in ["/dev/null", "/dev/stdout", "/", "..", dir.path().to_str().unwrap(), pipe.to_str().unwrap()]
    {
        let before = fs::symlink_metadata(path).unwrap();
        let refused = env(&["--write", path], &RESOLVED);
        assert_eq!(status(&refused), 2, "{path}: {refused:?}");
        assert!(stderr(&refused).contains("not a regular file"), "{path}: {}", stderr(&refused));
        let after = fs::symlink_metadata(path).unwrap();
        assert_eq!((before.ino(), before.file_type()), (after.ino(), after.file_type()), "{path}");
    }
}

/// With `-`, the service starts anyway, so the file from a previous start must not remain.
#[test]
fn a_failed_write_removes_the_stale_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("p.env");
    fs::write(&file, four(["1", "1.0", "1", "1"])).unwrap();
    // No byte can be written; ENOSPC and EIO are handled in the same way. Without ignoring it, SIGXFSZ would come
    // first.
    let full = sh("trap '' XFSZ; ulimit -f 0; exec \"$P\" env --write \"$1\"", &[file.to_str().unwrap()]);
    assert_eq!(status(&full), 2, "{full:?}");
    assert!(
        stderr(&full).contains("cannot write") && stderr(&full).contains("removed the old file"),
        "{full:?}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "neither the old file nor half of a new one");
    let no_directory = env(&["--write", "/proc/version/p.env"], &RESOLVED);
    assert_eq!(status(&no_directory), 2);
    assert!(stderr(&no_directory).contains("Not a directory"), "{no_directory:?}");
}

/// If the directory is not writable, the stale file remains, and a message says so. A read-only mount affects root as
/// well.
#[test]
fn a_stale_file_that_cannot_be_removed_is_reported() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_str().unwrap();
    let script = r#"mount -t tmpfs none "$1"; mkdir "$1/d"; echo old >"$1/d/p.env"; mount -o remount,ro "$1"
        status=0; "$P" env --write "$1/d/p.env" || status=$?; cat "$1/d/p.env"; exit $status"#;
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--user", "--mount", "--", "bash", "-euc", script, "bash", path])
        .env("P", env!("CARGO_BIN_EXE_pypnm-sizing"))
        .output()
        .unwrap();
    assert_eq!((stdout(&tried), status(&tried)), ("old\n", 2), "{tried:?}");
    assert!(
        stderr(&tried).contains("p.env, which is out of date, cannot be removed: Read-only"),
        "{tried:?}"
    );
}

#[test]
fn when_turned_off_pypnm_sizes_itself() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("p.env");
    for (configuration, unit) in
        [("[Sizing]\nEnabled=no\n", "pypnm.service"), ("[x.service]\nEnabled=no\n", "x.service")]
    {
        let root = machine(&format!("{configuration}[Sizing]\nUnits=pypnm.service x.service\n"));
        fs::write(&file, "old").unwrap();
        let path = file.to_str().unwrap();
        let off = env(&[&root_flag(&root), "--unit", unit, "--write", path], &RESOLVED);
        assert_eq!((stdout(&off), status(&off)), ("", 0));
        assert!(
            stderr(&off).contains("turned off") && stderr(&off).contains("removed the old file"),
            "{off:?}"
        );
        assert!(!file.exists());
        let shown = env(&[&root_flag(&root), "--unit", unit], &RESOLVED);
        assert_eq!((stdout(&shown), status(&shown)), ("", 0));
        assert!(stderr(&shown).contains("turned off"), "{shown:?}");
    }
}

#[test]
fn a_named_unit_is_sized_by_its_own_settings() {
    let root = machine(
        "[Sizing]\nUnits=a.service b.service\nWorkers=2\n[b.service]\nWorkers=3\n[c.service]\nWorkers=5\n",
    );
    let workers = |arguments: &[&str]| {
        let flag = root_flag(&root);
        let shown = env(&[&[flag.as_str()], arguments].concat(), &[]);
        stdout(&shown).lines().nth(2).unwrap_or_default().to_owned()
    };
    assert_eq!(workers(&[]), "PYPNM_SERVE_WORKERS=2", "the first of Units=");
    assert_eq!(workers(&["--unit", "b.service"]), "PYPNM_SERVE_WORKERS=3");
    // Its drop-in is still loaded although Units= no longer lists it: it must not get the profile of another unit.
    assert_eq!(workers(&["--unit", "c.service"]), "PYPNM_SERVE_WORKERS=5");
    // The suffix is appended as by systemctl.
    assert_eq!(workers(&["--unit", "c"]), "PYPNM_SERVE_WORKERS=5");
    for name in ["../x.service", "x/y", "", "x.timer"] {
        assert_eq!(status(&env(&["--unit", name], &[])), 2, "{name:?}");
    }
}

#[test]
fn nothing_readable_gives_the_baseline() {
    let root = TempDir::new().unwrap();
    let shown = env(&[&root_flag(&root)], &[]);
    assert_eq!(stdout(&shown), four(["1", "0.0", "1", "1000"]));
    assert!(stderr(&shown).contains("/proc/meminfo"), "{shown:?}");
    assert_eq!(status(&shown), 0);
}

/// A directory in which `pypnm serve` would be started.
struct Installed {
    dir: TempDir,
}

impl Installed {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A virtual environment `name` as created by pip.
    fn environment(&self, name: &str, system_json: &str) {
        self.put(&format!("{name}/lib/python3.11/site-packages/pypnm/settings/system.json"), system_json);
        self.put(&format!("{name}/bin/pypnm"), "#!/bin/sh\n");
    }

    fn env(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing"));
        command.arg("env").args(arguments).env_clear().envs(variables.iter().copied());
        command.current_dir(self.dir.path()).output().unwrap()
    }

    fn path(&self, path: &str) -> String {
        self.dir.path().canonicalize().unwrap().join(path).to_str().unwrap().to_owned()
    }
}

fn runtime_dir(dir: &str) -> String {
    format!("{{\"PnmFileRetrieval\": {{\"runtime_dir\": \"{dir}\"}}}}")
}

const SEED: [&str; 4] = ["--cpu-count", "8", "--memory-gib", "16"];

/// Like PyPNM's own script, writes to the path in system.json, relative to the working directory.
#[test]
fn the_default_path_is_the_one_pypnm_reads() {
    let here = Installed::new();
    here.environment("venv", &runtime_dir("var/run-here"));
    here.environment("other", &runtime_dir(&here.path("absolute")));
    here.environment("silent", "{}");
    here.environment("blank", &runtime_dir(" "));
    fs::create_dir(here.path("bin")).unwrap();
    symlink("../other/bin/pypnm", here.path("bin/pypnm")).unwrap();
    for (variable, value, file) in [
        ("VIRTUAL_ENV", here.path("venv"), "var/run-here/pypnm-serve.env"),
        ("PATH", here.path("venv/bin"), "var/run-here/pypnm-serve.env"),
        ("PATH", here.path("bin"), "absolute/pypnm-serve.env"),
        ("VIRTUAL_ENV", here.path("silent"), ".data/runtime/pypnm-serve.env"),
        ("VIRTUAL_ENV", here.path("blank"), ".data/runtime/pypnm-serve.env"),
        ("PYPNM_SERVE_ENV_FILE", here.path("told/x.env"), "told/x.env"),
    ] {
        for arguments in [&SEED[..], &["--cpus", "8", "--memory", "16GiB", "--write"]] {
            let done = here.env(arguments, &[(variable, &value)]);
            assert_eq!(status(&done), 0, "{done:?}");
            assert_eq!(stdout(&done), four(["8", "16.0", "4", "2000"]));
            assert_eq!(stderr(&done), format!("pypnm-sizing: wrote {}\n", here.path(file)));
            assert_whole(Path::new(&here.path(file)), stdout(&done));
            fs::remove_file(here.path(file)).unwrap();
        }
    }
    // The settings of a checkout take precedence, because `pypnm serve` runs the code in src.
    here.put("src/pypnm/settings/system.json", &runtime_dir("checkout"));
    let done = here.env(&SEED, &[("VIRTUAL_ENV", &here.path("venv"))]);
    assert!(Path::new(&here.path("checkout/pypnm-serve.env")).is_file(), "{done:?}");
}

/// Reports what PyPNM's script reports, but only with the options of that script: the journal does not need that line.
#[test]
fn the_report_of_pypnms_script() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("new/pypnm-serve.env");
    let path = file.to_str().unwrap();
    let done = env(&["--cpu-count", "8", "--memory-gib", "8", "--write", path], &[]);
    assert_eq!((status(&done), stderr(&done)), (0, ""));
    assert_eq!(stdout(&done), format!("Wrote PyPNM worker profile to {path}\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), four(["8", "8.0", "2", "2000"]));
    let done = env(&["--cpus", "8", "--memory", "8GiB", "--write", path], &[]);
    assert_eq!((status(&done), stdout(&done), stderr(&done)), (0, "", ""));
}

#[test]
fn an_unknown_default_path_is_an_error() {
    let here = Installed::new();
    let done = here.env(&SEED, &[("PATH", "/nowhere")]);
    if Path::new("/opt/pypnm").exists() {
        assert_eq!(status(&done), 0);
    } else {
        assert_eq!((status(&done), stdout(&done)), (2, four(["8", "16.0", "4", "2000"]).as_str()));
        assert!(
            stderr(&done).contains("not written: ") && stderr(&done).contains("--write PATH"),
            "{done:?}"
        );
    }
    here.environment("broken", "{\"PnmFileRetrieval\": ");
    let done = here.env(&["--write"], &[("VIRTUAL_ENV", &here.path("broken"))]);
    assert_eq!(status(&done), 2);
    assert!(stderr(&done).contains("system.json: EOF") && stderr(&done).contains("--write PATH"), "{done:?}");
    let root = machine("");
    let done = here.env(&["--write", &root_flag(&root)], &[("PYPNM_SERVE_ENV_FILE", &here.path("x.env"))]);
    assert_eq!(status(&done), 2);
    assert!(!Path::new(&here.path("x.env")).exists(), "another machine's numbers are not this one's");
    assert!(stderr(&done).contains("--root"), "{done:?}");
}
