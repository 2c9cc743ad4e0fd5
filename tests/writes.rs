//! Where root writes: each command that creates or replaces a file, with another user's symbolic link in the path, with
//! what that user created in place of the file, and with special files. tests/env.rs does the same for `env --write`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const HELPER: &str = env!("CARGO_BIN_EXE_pypnm-sizing");
/// A user other than root.
const SOMEBODY: u32 = 12345;

/// A directory of root, `precious`, and one of another user, `theirs`, with a symbolic link to it.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: tempfile::tempdir().unwrap() };
        fs::set_permissions(machine.directory.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(machine.path("precious")).unwrap();
        fs::create_dir(machine.path("theirs")).unwrap();
        symlink("../precious", machine.path("theirs/link")).unwrap();
        machine.give_away(&["theirs", "theirs/link"]);
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn give_away(&self, paths: &[&str]) {
        for path in paths {
            lchown(self.path(path), Some(SOMEBODY), None).unwrap();
        }
    }

    /// Runs the helper with the words of a command line, in which `DIR` is this directory.
    fn run(&self, words: &str) -> Output {
        let directory = self.directory.path().to_str().unwrap();
        let mut command = Command::new(HELPER);
        command.args(words.split(' ').map(|word| word.replace("DIR", directory)));
        command.stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn assert_nothing_in(&self, directory: &str) {
        let found: Vec<_> = fs::read_dir(self.path(directory)).unwrap().map(Result::unwrap).collect();
        assert!(found.is_empty(), "root was led to {found:?}");
    }

    /// Runs a script in a mount namespace; `$P` is the helper, `$1` this directory.
    fn in_a_mount_namespace(&self, script: &str) -> Output {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash", "-euc", script, "bash"]);
        command.arg(self.directory.path()).env("P", HELPER).stdin(Stdio::null()).output().unwrap()
    }

    /// Recordings from which a report suggests a setting.
    fn recordings(&self) {
        let mut text = String::new();
        for n in 0..720 {
            let workers: Vec<String> = (11..15).map(|pid| process(pid, "worker", n)).collect();
            let _ = writeln!(
                text,
                r#"{{"schema":1,"type":"sample","unix_seconds":{unix},"seconds":{seconds},"service":"pypnm.service","main_pid":10,"workers":4,"memory":1100000000,"memory_limit":68719476736,"memory_peak":1100000000,"cpu_milli":3800,"cpu_milli_limit":16000,"oom_kills":0,"restarts":0,"recycles":0,"processes":[{workers}]}}"#,
                unix = 1_764_028_800 + n * 10,
                seconds = n * 10,
                workers = workers.join(",")
            );
        }
        self.put("recordings/pypnm.service/2025-11-25.jsonl", &text);
    }

    /// A machine with 16 CPUs and 64 GiB in `image`.
    fn image(&self) {
        self.put("image/sys/devices/system/cpu/online", "0-15\n");
        self.put("image/proc/1/status", "Cpus_allowed_list:\t0-15\n");
        self.put("image/proc/meminfo", "MemTotal:       67108864 kB\n");
        fs::create_dir_all(self.path("image/etc/pypnm")).unwrap();
    }
}

fn process(pid: u32, role: &str, n: u32) -> String {
    let age = n * 10 + 900;
    format!(r#"{{"pid":{pid},"role":"{role}","age_seconds":{age},"rss":246415360,"cpu_percent":95.0}}"#)
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not run: only root can be led");
    }
    is_root
}

fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that nothing is written, with status 2 and the reason.
#[track_caller]
fn assert_refused(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(messages(output).contains(reason), "{output:?}");
}

/// Starts a process whose command line is that of `pypnm serve`: a shell that waits for the end of its input.
fn pypnm(directory: &Path) -> Child {
    fs::write(directory.join("serve"), "read -r line\n").unwrap();
    let mut command = Command::new("/bin/sh");
    command.arg0("/v/bin/pypnm").arg("serve").current_dir(directory).stdin(Stdio::piped()).spawn().unwrap()
}

fn end(mut pypnm: Child) {
    drop(pypnm.stdin.take());
    pypnm.wait().unwrap();
}

#[test]
fn exec_uses_another_file() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    for path in ["theirs/link/p.env", "theirs/link/below/p.env"] {
        let script = format!(
            r#"mount -t tmpfs none /run; PYPNM_SERVE_ENV_FILE="$1/{path}" "$P" exec -- sh -c 'echo "$PYPNM_SERVE_ENV_FILE"; cat "$PYPNM_SERVE_ENV_FILE"'"#
        );
        let done = machine.in_a_mount_namespace(&script);
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && output.starts_with("/run/pypnm-sizing/pypnm.env\n"), "{done:?}");
        assert!(output.contains("PYPNM_SERVE_WORKERS="), "{done:?}");
        assert!(
            messages(&done).contains("user 12345") && messages(&done).contains("another file is used"),
            "{done:?}"
        );
        machine.assert_nothing_in("precious");
    }
}

#[test]
fn watch_does_not_follow_links_of_other_users() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let service = pypnm(machine.directory.path());
    let watch = format!("watch --pid {} --interval 50ms --duration 100ms", service.id());
    for place in ["theirs/link", "theirs/link/below"] {
        assert_refused(&machine.run(&format!("{watch} --record=DIR/{place}")), "user 12345");
        machine.assert_nothing_in("precious");
    }
    let metrics = machine.run(&format!("{watch} --metrics=DIR/theirs/link/p.prom"));
    assert_refused(&metrics, "user 12345");
    machine.assert_nothing_in("precious");
    end(service);
}

/// Root records into a directory of another user, which contains symbolic links and FIFOs in place of files.
#[test]
fn watch_appends_only_to_its_own_files() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    let service = pypnm(machine.directory.path());
    let watch = format!("watch --pid {} --interval 50ms --duration 100ms --record=DIR/theirs", service.id());
    let recorded = machine.run(&watch);
    assert!(recorded.status.success(), "{recorded:?}");
    let directory = fs::read_dir(machine.path("theirs")).unwrap();
    let unit =
        directory.map(|entry| entry.unwrap()).find(|entry| entry.file_type().unwrap().is_dir()).unwrap();
    let unit = unit.path();
    let names = || {
        let entries =
            fs::read_dir(&unit).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<Vec<_>>()
    };
    let day = names().into_iter().find(|name| name.ends_with(".jsonl")).unwrap();
    lchown(&unit, Some(SOMEBODY), None).unwrap();
    for name in [".lock", &day] {
        fs::remove_file(unit.join(name)).unwrap();
        symlink(machine.path("precious/new"), unit.join(name)).unwrap();
        lchown(unit.join(name), Some(SOMEBODY), None).unwrap();
        let led = machine.run(&watch);
        assert!(messages(&led).contains(name), "{name}: {led:?}");
        machine.assert_nothing_in("precious");
        fs::remove_file(unit.join(name)).unwrap();

        assert!(Command::new("mkfifo").arg(unit.join(name)).status().unwrap().success());
        let waits = machine.run(&watch);
        assert!(messages(&waits).contains(name), "{name}: {waits:?}");
        assert!(fs::symlink_metadata(unit.join(name)).unwrap().file_type().is_fifo());
        fs::remove_file(unit.join(name)).unwrap();
    }
    // A file is copied before it is shortened, under a name that nobody can predict.
    let long = format!("{}\n", "x".repeat(200)).repeat(20_000);
    fs::write(unit.join(&day), &long).unwrap();
    symlink(machine.path("precious/new"), unit.join(Path::new(&day).with_extension("shortened"))).unwrap();
    let shortened = machine.run(&format!("{watch} --keep=1M"));
    assert!(shortened.status.success(), "{shortened:?}");
    assert!(fs::metadata(unit.join(&day)).unwrap().len() < 1 << 20, "{shortened:?}");
    machine.assert_nothing_in("precious");
    end(service);
}

#[test]
fn report_does_not_follow_links_of_other_users() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.recordings();
    assert_refused(&machine.run("report --html=DIR/theirs/link/page.html DIR/recordings"), "user 12345");
    machine.assert_nothing_in("precious");
    let into_theirs = machine.run("report --html=DIR/theirs/page.html DIR/recordings");
    assert!(into_theirs.status.success(), "{into_theirs:?}");
    let page = fs::metadata(machine.path("theirs/page.html")).unwrap();
    assert_eq!((page.uid(), page.mode() & 0o7777), (0, 0o644));
}

#[test]
fn report_adopts_no_files_of_other_users() {
    if !is_root() {
        return;
    }
    let adopt = "report --root=DIR/image --adopt DIR/recordings";
    let measured = "image/etc/pypnm/sizing.conf.d/60-measured.conf";

    let machine = Machine::new();
    machine.recordings();
    machine.image();
    fs::create_dir_all(machine.path("image/srv")).unwrap();
    symlink("/srv", machine.path("image/etc/pypnm/sizing.conf.d")).unwrap();
    machine.give_away(&["image/etc/pypnm/sizing.conf.d"]);
    assert_refused(&machine.run(adopt), "user 12345");
    machine.assert_nothing_in("image/srv");

    // A symbolic link does not lead out of another root either.
    let machine = Machine::new();
    machine.recordings();
    machine.image();
    symlink(machine.path("precious"), machine.path("image/etc/pypnm/sizing.conf.d")).unwrap();
    machine.run(adopt);
    machine.assert_nothing_in("precious");

    // What they wrote does not become a file of root.
    let machine = Machine::new();
    machine.recordings();
    machine.image();
    machine.put(measured, "[Sizing]\nReserveCPUs=1\n");
    machine.give_away(&[measured]);
    assert_refused(&machine.run(adopt), "user 12345");
    assert_eq!(fs::read_to_string(machine.path(measured)).unwrap(), "[Sizing]\nReserveCPUs=1\n");
    lchown(machine.path(measured), Some(0), None).unwrap();
    assert!(machine.run(adopt).status.success());
    let text = fs::read_to_string(machine.path(measured)).unwrap();
    assert!(text.contains("\nMaxWorkers=") && text.contains("\nReserveCPUs=1\n"), "{text}");
}

/// A directory of unit files in which another user's symbolic link redirects root.
#[test]
fn setup_does_not_follow_links_of_other_users() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.put("etc/placeholder", "");
    machine.put("units/pypnm.service", "[Service]\nExecStart=pypnm serve\nUser=pypnm\n");
    machine.put("srv/v/bin/pypnm", "#!/bin/sh\n");
    machine.put("srv/v/pyvenv.cfg", "version = 3.11.2\n");
    machine.put("srv/v/bin/python3", "");
    let metadata = "srv/v/lib/python3.11/site-packages/pypnm_docsis-1.6.4.0.dist-info";
    machine.put(&format!("{metadata}/METADATA"), "Name: pypnm-docsis\nVersion: 1.6.4.0\n");
    machine.put(&format!("{metadata}/entry_points.txt"), "[console_scripts]\npypnm = pypnm.cli:main\n");
    for program in ["pypnm", "python3"] {
        fs::set_permissions(machine.path(&format!("srv/v/bin/{program}")), Permissions::from_mode(0o755))
            .unwrap();
    }
    // If systemd cannot be reloaded, the file is removed.
    machine.put("bin/systemctl", "#!/bin/sh\n");
    fs::set_permissions(machine.path("bin/systemctl"), Permissions::from_mode(0o755)).unwrap();
    let mounts = r#"PATH=$1/bin:$PATH; mkdir -p /etc/systemd/system /usr/lib/systemd/system; mount --bind "$1/etc" /etc/systemd/system
        mount --bind "$1/units" /usr/lib/systemd/system; mount --bind "$1/srv" /srv; "#;
    let setup = format!(r#"{mounts} "$P" setup /srv/v --port 8001 --write"#);
    let remove = format!(r#"{mounts} "$P" setup --remove"#);

    machine.in_a_mount_namespace(&setup);
    let written = machine.path("etc/pypnm.service.d/50-place.conf");
    let text = fs::read_to_string(&written).expect("without a link it writes");

    fs::remove_dir_all(machine.path("etc/pypnm.service.d")).unwrap();
    symlink(machine.path("precious"), machine.path("etc/pypnm.service.d")).unwrap();
    machine.give_away(&["etc/pypnm.service.d"]);
    assert_refused(&machine.in_a_mount_namespace(&setup), "user 12345");
    machine.assert_nothing_in("precious");

    machine.put("precious/50-place.conf", &text);
    assert_refused(&machine.in_a_mount_namespace(&remove), "user 12345");
    assert!(machine.path("precious/50-place.conf").exists());
}

/// A rename would replace a device with a regular file.
#[test]
fn special_files_are_kept() {
    if !is_root() {
        return;
    }
    let machine = Machine::new();
    machine.recordings();
    let service = pypnm(machine.directory.path());
    assert!(Command::new("mkfifo").arg(machine.path("pipe")).status().unwrap().success());
    for words in [
        "report --html=DIR/pipe DIR/recordings".to_owned(),
        format!("watch --pid {} --interval 50ms --duration 100ms --metrics=DIR/pipe", service.id()),
    ] {
        assert_refused(&machine.run(&words), "not a regular file");
        assert!(fs::symlink_metadata(machine.path("pipe")).unwrap().file_type().is_fifo(), "{words}");
    }
    // /dev itself, or a copy of it: the links there lead to files that other processes have opened.
    let script = format!(
        r#"mkdir "$1/dev"; cp -a /dev/null "$1/dev"; ln -s /proc/self/fd/1 "$1/dev/stdout"; mount --bind "$1/dev" /dev
        for name in null stdout; do
            "$P" report --html=/dev/$name "$1/recordings" || echo $?
            "$P" watch --pid {} --interval 50ms --duration 100ms --metrics=/dev/$name || echo $?
        done"#,
        service.id()
    );
    let tried = machine.in_a_mount_namespace(&script);
    assert_eq!(String::from_utf8_lossy(&tried.stdout), "2\n".repeat(4), "{tried:?}");
    assert!(fs::symlink_metadata(machine.path("dev/null")).unwrap().file_type().is_char_device());
    assert!(fs::symlink_metadata(machine.path("dev/stdout")).unwrap().is_symlink());
    end(service);
}
