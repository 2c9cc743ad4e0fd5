//! Which files can influence root, and what can block PID 1: the built generator over trees that other users can write,
//! and over mounts that never respond.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pypnm_sizing::root::{ReadError, Root};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

const GENERATOR: &str = env!("CARGO_BIN_EXE_pypnm-sizing-generator");
/// A user other than root.
const SOMEBODY: u32 = 12345;
/// A run takes a few milliseconds; PID 1 gives up after 90 s.
const IN_TIME: Duration = Duration::from_secs(20);

/// A machine in a directory, with enough resources for four workers.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Self { directory };
        fs::create_dir_all(machine.path("/")).unwrap();
        machine.put("/sys/devices/system/cpu/online", "0-7\n");
        machine.put("/proc/meminfo", "MemTotal: 65852000 kB\n");
        machine.put("/etc/systemd/system/pypnm.service", "[Service]\nExecStart=/bin/pypnm serve\n");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    /// The number of workers in the drop-in, and the messages.
    fn run(&self) -> (u32, String) {
        let out = self.directory.path().join("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir(&out).unwrap();
        run(Some(&self.path("/")), &out)
    }
}

/// Runs the generator; a timeout is a failure.
fn run(root: Option<&Path>, out: &Path) -> (u32, String) {
    let mut command = Command::new(GENERATOR);
    command.arg(out).env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
    if let Some(root) = root {
        command.env("PYPNM_SIZING_ROOT", root);
    }
    let child = command.spawn().unwrap();
    let output = in_time(child);
    assert!(output.status.success(), "{output:?}");
    let names: Vec<_> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["pypnm.service.d"], "no other unit gets a drop-in");
    let text = fs::read_to_string(out.join("pypnm.service.d/10-pypnm-sizing.conf")).unwrap();
    let workers = text.lines().find_map(|line| line.strip_prefix("Environment=PYPNM_SERVE_WORKERS="));
    assert_eq!(text.lines().filter(|line| line.starts_with("ExecStartPre=")).count(), 1, "{text}");
    (workers.unwrap().parse().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn in_time(mut child: Child) -> std::process::Output {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > IN_TIME {
            let _ = child.kill();
            panic!("it waits");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

const CONF: &str = "/etc/pypnm/sizing.conf";
const DROP_IN: &str = "/etc/pypnm/sizing.conf.d/50.conf";
const THREE: &str = "[Sizing]\nWorkers=3\n";

#[test]
fn files_writable_by_other_users_are_ignored() {
    for (way, path, wrong, mode) in [
        ("the file, its group", CONF, CONF, 0o664),
        ("the file, everybody", CONF, CONF, 0o646),
        ("its directory", CONF, "/etc/pypnm", 0o775),
        ("its directory, sticky", CONF, "/etc/pypnm", 0o1777),
        ("a directory above", CONF, "/etc", 0o777),
        ("the root", CONF, "/", 0o777),
        ("a drop-in", DROP_IN, DROP_IN, 0o666),
        ("the drop-ins' directory", DROP_IN, "/etc/pypnm/sizing.conf.d", 0o1777),
    ] {
        let machine = Machine::new();
        machine.put(path, THREE);
        assert_eq!(machine.run(), (3, String::new()), "{way}");
        machine.mode(wrong, mode);
        let (workers, messages) = machine.run();
        assert_eq!(workers, 4, "{way}: {messages}");
        let mode = format!("(mode {mode:04o})");
        assert!(
            messages.contains("not trusted") && messages.contains(&mode) && messages.contains(wrong),
            "{way}: {messages}"
        );
    }
}

#[test]
fn files_owned_by_other_users_are_ignored() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (way, wrong) in [("the file", CONF), ("its directory", "/etc/pypnm"), ("the directory above", "/etc")]
    {
        let machine = Machine::new();
        machine.put(CONF, THREE);
        chown(machine.path(wrong), Some(SOMEBODY), None).unwrap();
        let (workers, messages) = machine.run();
        assert_eq!(workers, 4, "{way}: {messages}");
        assert!(messages.contains("user 12345"), "{way}: {messages}");
    }
    // A symbolic link of another user to a file of root, and a symbolic link of root to a file of another user.
    for (theirs_is, link_owner, file_owner) in [("the link", SOMEBODY, 0), ("the file", 0, SOMEBODY)] {
        let machine = Machine::new();
        machine.put("/srv/x.conf", THREE);
        fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
        symlink("/srv/x.conf", machine.path(CONF)).unwrap();
        assert_eq!(machine.run(), (3, String::new()));
        lchown(machine.path(CONF), Some(link_owner), None).unwrap();
        chown(machine.path("/srv/x.conf"), Some(file_owner), None).unwrap();
        let (workers, messages) = machine.run();
        assert_eq!(workers, 4, "{theirs_is}: {messages}");
        assert!(messages.contains("user 12345"), "{theirs_is}: {messages}");
    }
}

#[test]
fn an_ignored_file_masks_nothing() {
    let machine = Machine::new();
    machine.put("/run/pypnm/sizing.conf", "[Sizing]\nWorkers=2\n");
    machine.put("/run/pypnm/sizing.conf.d/50.conf", "[Sizing]\nLimitMaxRequests=7\n");
    machine.put("/usr/lib/pypnm/sizing.conf", THREE);
    machine.put("/usr/lib/pypnm/sizing.conf.d/50.conf", "[Sizing]\nWorkers=1\n");
    assert_eq!(machine.run().0, 2);
    machine.mode("/run/pypnm/sizing.conf.d/50.conf", 0o666);
    assert_eq!(machine.run().0, 1);
    machine.mode("/run/pypnm", 0o777);
    assert_eq!(machine.run().0, 1);
    fs::remove_dir_all(machine.path("/usr/lib/pypnm/sizing.conf.d")).unwrap();
    assert_eq!(machine.run().0, 3);
}

/// A configuration file of root's that exists and cannot be read may say `Workers=1`.
#[test]
fn an_unreadable_file_means_one_worker_unless_a_later_one_sets_the_number() {
    fn pipe(machine: &Machine, path: &str) {
        fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
        let made = Command::new("mkfifo").arg(machine.path(path)).status().unwrap();
        assert!(made.success());
    }
    type Make = fn(&Machine, &str);
    let ways: [(&str, Make); 5] = [
        ("a FIFO", pipe),
        ("a directory", |machine, path| fs::create_dir_all(machine.path(path)).unwrap()),
        ("too large", |machine, path| machine.put(path, &"#".repeat(5 << 20))),
        ("a loop", |machine, path| {
            fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
            symlink(path, machine.path(path)).unwrap();
        }),
        ("on a file system that is not mounted", |machine, path| {
            fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
            symlink("../../../srv/site/x.conf", machine.path(path)).unwrap();
        }),
    ];
    for (way, make) in ways {
        for path in [CONF, DROP_IN] {
            let machine = Machine::new();
            machine.put(
                "/usr/lib/pypnm/sizing.conf.d/10.conf",
                "[Sizing]\nWorkers=8\n[pypnm.service]\nWorkers=7\n",
            );
            make(&machine, path);
            let (workers, messages) = machine.run();
            let expected = if path == CONF { 7 } else { 1 };
            assert_eq!(workers, expected, "{way}, {path}: {messages}");
            assert!(
                messages.contains(&format!("{path}: ")) && messages.contains("assuming 1 worker"),
                "{way}: {messages}"
            );
            machine.put("/etc/pypnm/sizing.conf.d/60.conf", "[Sizing]\nMaxWorkers=8\n");
            assert_eq!(machine.run().0, expected, "{way}, {path}: another key");
            machine.put("/etc/pypnm/sizing.conf.d/60.conf", THREE);
            let expected = if path == CONF { 7 } else { 3 };
            assert_eq!(machine.run().0, expected, "{way}, {path}: a later number");
        }
    }
    let machine = Machine::new();
    machine.put(CONF, THREE);
    symlink("/srv/site", machine.path("/etc/pypnm/sizing.conf.d")).unwrap();
    let (workers, messages) = machine.run();
    assert_eq!(workers, 1, "the directory of drop-ins: {messages}");
    assert!(messages.contains("/etc/pypnm/sizing.conf.d: "), "{messages}");
}

/// Another user can neither raise nor lower the number of workers, whatever that user creates, or links to.
#[test]
fn what_another_user_creates_does_not_count_as_unreadable() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let pipe = |machine: &Machine, path: &str| {
        fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(machine.path(path)).status().unwrap().success());
    };
    let theirs = |machine: &Machine, path: &str| {
        lchown(machine.path(path), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    };
    for path in ["/run/pypnm/sizing.conf", "/run/pypnm/sizing.conf.d/50.conf"] {
        let machine = Machine::new();
        pipe(&machine, path);
        theirs(&machine, Path::new(path).parent().unwrap().to_str().unwrap());
        let (workers, messages) = machine.run();
        assert_eq!(workers, 4, "{path}: {messages}");
    }
    // A link of root's into a directory of theirs, to a FIFO and to nothing.
    let machine = Machine::new();
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    symlink("/home/x/sizing.conf", machine.path(CONF)).unwrap();
    pipe(&machine, "/home/x/sizing.conf");
    theirs(&machine, "/home/x");
    assert_eq!(machine.run().0, 4);
    fs::remove_file(machine.path("/home/x/sizing.conf")).unwrap();
    assert_eq!(machine.run().0, 4);
    // A link of theirs.
    let machine = Machine::new();
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    symlink("/srv/nothing", machine.path(CONF)).unwrap();
    theirs(&machine, CONF);
    assert_eq!(machine.run().0, 4);
}

/// The name of a file becomes part of root's drop-in, of a log message, and of terminal output.
#[test]
fn names_with_control_characters_are_skipped_and_reported() {
    let machine = Machine::new();
    let attack = "10-a\n[Service]\nExecStartPre=+\\x2fvar\\x2flib\\x2fpypnm\\x2fx\n#.conf";
    for name in [attack, "\u{1b}]0;x\u{7}.conf", "\u{202e}fnoc.conf", "caf\u{e9}.conf"] {
        machine.put(&format!("/etc/pypnm/sizing.conf.d/{name}"), "[Sizing]\nWorkers=3\nBad=1\n");
    }
    fs::remove_file(machine.path("/etc/pypnm/sizing.conf.d/caf\u{e9}.conf")).unwrap();
    let (workers, messages) = machine.run();
    assert_eq!((workers, messages.lines().count()), (4, 3), "{messages}");
    assert!(messages.contains("10-a\\n[Service]\\nExecStartPre=+\\x2f"), "{messages}");
    assert!(messages.contains("\\x1b]0;x\\x07.conf: its name has a control character"), "{messages}");
    assert!(messages.contains("\\u202e"), "{messages}");
    machine.put("/etc/pypnm/sizing.conf.d/caf\u{e9}.conf", THREE);
    assert_eq!(machine.run().0, 3);
}

/// systemd reads unit files regardless of their names, so the names must be harmless when they are printed.
#[test]
fn drop_ins_with_control_characters_in_their_names_are_harmless() {
    let machine = Machine::new();
    let name = "20-a\n[Service]\nExecStartPre=+\\x2fx\n#.conf";
    machine.put(
        &format!("/etc/systemd/system/pypnm.service.d/{name}"),
        "[Service]\nMemoryMax=7G\nMemoryHigh=x\n",
    );
    let (workers, messages) = machine.run();
    assert_eq!((workers, messages.lines().count()), (2, 1), "{messages}");
}

/// systemd reads a drop-in whose name cannot be represented here, and it can contain any setting.
#[test]
fn names_that_are_not_utf_8_are_reported() {
    let machine = Machine::new();
    for directory in ["/etc/pypnm/sizing.conf.d", "/etc/systemd/system/pypnm.service.d"] {
        machine.put(&format!("{directory}/x.conf"), "");
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.conf");
        fs::rename(machine.path(directory).join("x.conf"), machine.path(directory).join(name)).unwrap();
    }
    let (workers, messages) = machine.run();
    assert_eq!(
        (workers, messages.matches("caf\u{fffd}.conf: its name is not UTF-8").count()),
        (1, 2),
        "{messages}"
    );
}

/// FIFOs, devices and sockets are never opened, because that alone can have side effects.
#[test]
fn only_regular_files_are_opened() {
    let machine = Machine::new();
    machine.put(
        "/etc/systemd/system/pypnm.service",
        "[Service]\nEnvironmentFile=-/etc/pypnm/env\nExecStart=/bin/pypnm serve\n",
    );
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    for path in [CONF, "/etc/pypnm/env"] {
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, machine.path(path), fifo, mode, 0).unwrap();
    }
    let (_, messages) = machine.run();
    assert_eq!(messages.matches("it is not a regular file").count(), 2, "{messages}");
}

/// On NixOS, /etc consists of links to links into the store, which the builders' group can add to.
#[test]
fn the_links_of_nixos_are_followed() {
    let machine = Machine::new();
    machine.put("/nix/store/abc-sizing.conf", THREE);
    fs::create_dir_all(machine.path("/nix/store/def-etc/etc/pypnm")).unwrap();
    symlink("/nix/store/abc-sizing.conf", machine.path("/nix/store/def-etc/etc/pypnm/sizing.conf")).unwrap();
    symlink("/nix/store/def-etc/etc", machine.path("/etc/static")).unwrap();
    symlink("/etc/static/pypnm", machine.path("/etc/pypnm")).unwrap();
    machine.mode("/nix/store", 0o1775);
    assert_eq!(machine.run(), (3, String::new()));
}

/// Paths in an image never lead out of it.
#[test]
fn links_do_not_lead_out_of_another_root() {
    let machine = Machine::new();
    let outside = machine.directory.path().join("outside.conf");
    fs::write(&outside, THREE).unwrap();
    fs::set_permissions(&outside, Permissions::from_mode(0o644)).unwrap();
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    for target in [outside.to_str().unwrap(), "../../../outside.conf", "../../../../../../../../etc/passwd"] {
        let _ = fs::remove_file(machine.path(CONF));
        symlink(target, machine.path(CONF)).unwrap();
        assert_eq!(machine.run().0, 1, "{target}");
    }
}

/// openat2 is missing before Linux 5.6, and in containers whose seccomp profile denies it.
#[test]
fn the_result_is_the_same_without_openat2() {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/need");
    assert!(Command::new(need).arg("strace").status().unwrap().success(), "strace is needed");
    let machine = Machine::new();
    machine.put("/srv/x.conf", THREE);
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    symlink("../../srv/x.conf", machine.path(CONF)).unwrap();
    machine
        .put("/etc/systemd/system/pypnm.service.d/50.conf", "[Service]\nMemoryMax=infinity\nMemoryHigh=x\n");
    let undisturbed = machine.run();
    assert_eq!(undisturbed.0, 3);
    for error in ["ENOSYS", "EPERM", "EACCES", "EINVAL", "E2BIG", "EAGAIN"] {
        let out = machine.directory.path().join(error);
        fs::create_dir(&out).unwrap();
        let output = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", &format!("inject=openat2:error={error}")])
            .arg(GENERATOR)
            .arg(&out)
            .env_clear()
            .env("PYPNM_SIZING_ROOT", machine.path("/"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(out.join("pypnm.service.d/10-pypnm-sizing.conf")).unwrap();
        assert!(text.contains("PYPNM_SERVE_WORKERS=3\n"), "{error}: {text}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), undisturbed.1, "{error}");
    }
}

/// The mountinfo of an image shows which file systems must not be entered.
#[test]
fn remote_file_systems_of_mountinfo_are_not_entered() {
    let machine = Machine::new();
    machine.put("/proc/1/status", "Cpus_allowed_list:\t0-7\n");
    machine.put(
        "/proc/1/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:40 / /srv rw - nfs4 server:/ rw\n\
         24 22 0:41 / /opt rw - autofs systemd-1 rw\n25 22 0:42 / /odd rw - neverheardof x rw\n\
         26 22 8:2 / /disk rw - neverheardof /dev/sda2 rw\n",
    );
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    for (place, kind) in [("/srv", "nfs4"), ("/opt", "autofs"), ("/odd", "neverheardof")] {
        machine.put(&format!("{place}/x.conf"), THREE);
        let _ = fs::remove_file(machine.path(CONF));
        symlink(format!("{place}/x.conf"), machine.path(CONF)).unwrap();
        let (workers, messages) = machine.run();
        assert_eq!(workers, 1, "{place}: {messages}");
        assert!(
            messages.contains(CONF)
                && messages.contains("skipped: the path leads to")
                && messages.contains(kind),
            "{messages}"
        );
    }
    machine.put("/disk/x.conf", THREE);
    fs::remove_file(machine.path(CONF)).unwrap();
    symlink("/disk/x.conf", machine.path(CONF)).unwrap();
    assert_eq!(machine.run(), (3, String::new()));
}

/// A file system that never responds in every place that root may be led to, in a mount namespace of the thread.
#[test]
fn mounts_that_never_respond_do_not_block() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can mount");
        return;
    }
    assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is needed (modprobe fuse)");
    let machine = Machine::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            hang_below_another_root(&machine);
            hang_in_etc(&machine);
            hang_in_proc(&machine);
        });
    });
}

/// A FUSE file system whose daemon never responds. Dropping the file unmounts it.
fn dead_fuse(point: &Path, subtype: Option<&str>) -> File {
    let daemon = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let is_directory = point.is_dir();
    let options = format!(
        "fd={},rootmode={},user_id=0,group_id=0",
        daemon.as_raw_fd(),
        if is_directory { "40000" } else { "100000" }
    );
    let kind = subtype.map_or("fuse".to_owned(), |subtype| format!("fuse.{subtype}"));
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("dead", point, kind, MountFlags::empty(), Some(options.as_c_str())).unwrap();
    daemon
}

/// Below another root, the actual mounts count.
fn hang_below_another_root(machine: &Machine) {
    fs::create_dir_all(machine.path("/etc/pypnm")).unwrap();
    fs::create_dir_all(machine.path("/mnt/dead")).unwrap();
    symlink("/mnt/dead/x.conf", machine.path(CONF)).unwrap();
    machine.put(
        "/etc/systemd/system/pypnm.service",
        "[Service]\nEnvironmentFile=-/etc/pypnm/env\nExecStart=/bin/pypnm serve\n",
    );
    symlink("../../mnt/dead", machine.path("/etc/pypnm/env")).unwrap();
    symlink("/mnt/dead/d", machine.path("/etc/pypnm/sizing.conf.d")).unwrap();
    let _daemon = dead_fuse(&machine.path("/mnt/dead"), None);
    let (workers, messages) = machine.run();
    assert_eq!(workers, 1, "{messages}");
    assert_eq!(messages.matches("skipped: the path leads to").count(), 3, "{messages}");
}

/// The machine itself, with a different /etc.
fn hang_in_etc(machine: &Machine) {
    let etc = machine.directory.path().join("etc");
    fs::create_dir_all(etc.join("pypnm")).unwrap();
    let point = Path::new("/etc/dead");
    fs::create_dir(etc.join("dead")).unwrap();
    symlink(point.join("x.conf"), etc.join("pypnm/sizing.conf")).unwrap();
    symlink(point, etc.join("pypnm/sizing.conf.d")).unwrap();
    fs::create_dir_all(etc.join("systemd/system/pypnm.service.d")).unwrap();
    fs::write(
        etc.join("systemd/system/pypnm.service"),
        "[Service]\nEnvironmentFile=/etc/pypnm/env\nExecStart=/bin/pypnm serve\n",
    )
    .unwrap();
    symlink(point, etc.join("pypnm/env")).unwrap();
    symlink(point.join("u.conf"), etc.join("systemd/system/pypnm.service.d/50.conf")).unwrap();
    rustix::mount::mount_bind(&etc, "/etc").unwrap();
    let _daemon = dead_fuse(point, Some("sshfs"));
    let out = machine.directory.path().join("out2");
    fs::create_dir(&out).unwrap();
    let started = Instant::now();
    let (workers, messages) = run(None, &out);
    assert_eq!(workers, 1, "what a drop-in of the unit may say is not known: {messages}");
    assert_eq!(messages.matches("skipped: the path leads to").count(), 4, "{messages}");
    assert!(started.elapsed() < Duration::from_secs(5));
    rustix::mount::unmount("/etc", UnmountFlags::DETACH).unwrap();
}

/// /proc/meminfo is provided by lxcfs, and its daemon is stopped.
fn hang_in_proc(machine: &Machine) {
    let _daemon = dead_fuse(Path::new("/proc/meminfo"), Some("lxcfs"));
    let out = machine.directory.path().join("out3");
    fs::create_dir(&out).unwrap();
    let (workers, messages) = run(None, &out);
    assert_eq!(workers, 1, "{messages}");
    assert!(messages.contains("/proc/meminfo: ") && messages.contains("timed out"), "{messages}");
}

/// A process in a mount namespace mounts a file system over a directory that has already been read, as in a hostile
/// container during `check --pid` or `watch --pid`.
#[test]
fn a_mount_made_after_the_first_look_does_not_block() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can mount");
        return;
    }
    // Its name has no dot, so that paths without links could be opened with a single call.
    let directory = tempfile::Builder::new().prefix("container-").tempdir().unwrap();
    let place = directory.path().join("data");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("x"), "A=1\n").unwrap();
    let mut container = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "600"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = container.id();
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    while namespace(&pid.to_string()) == namespace("self") || comm() != "sleep\n" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let path = place.join("x").to_str().unwrap().to_owned();
    let in_container = |words: &[&str], stdin: Stdio| {
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid.to_string(), "-m", "mount"]).args(words).arg(&place).stdin(stdin);
        assert!(command.status().unwrap().success(), "mount {words:?}");
    };

    let root = Root::of_process(pid).unwrap();
    assert_eq!(root.text(&path).as_deref(), Ok("A=1\n"));
    // A local file system is entered.
    in_container(&["-t", "tmpfs", "none"], Stdio::null());
    assert_eq!(root.text(&path), Err(ReadError::Missing));
    let daemon = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0";
    in_container(&["-i", "-t", "fuse", "-o", options, "dead"], daemon.try_clone().unwrap().into());
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || sender.send(root.text(&path)));
    let read = receiver.recv_timeout(Duration::from_secs(20));
    // Anyone who waits for the daemon can continue.
    drop(daemon);
    container.kill().unwrap();
    container.wait().unwrap();
    reader.join().unwrap().unwrap();
    assert_eq!(read, Ok(Err(ReadError::Remote("fuse".to_owned()))), "Err(Timeout): it was waited for");
}
