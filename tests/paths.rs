//! How paths are resolved, and how much is read: limits on symbolic links, components, entries and sizes, and what is in
//! place of a directory. tests/trust.rs has who may influence a path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pypnm_sizing::root::{MAX_FILE_BYTES, ReadError, Root};
use pypnm_sizing::write::Directory;
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

/// A directory with the file `end`, and the directory `d`. Its name has no dot, so that paths without links are opened with a
/// single call.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("paths-").tempdir().unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    fs::write(directory.path().join("end"), "text").unwrap();
    directory
}

fn below(directory: &tempfile::TempDir) -> Root {
    Root::below(directory.path()).unwrap()
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

/// What `look` returns; waiting for longer than 20 s is a failure.
fn in_time<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(look()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("it waits")
}

/// As many as the kernel follows (path_resolution(7)).
#[test]
fn forty_links_are_followed() {
    let directory = directory();
    symlink("end", directory.path().join("1")).unwrap();
    for link in 2..=41 {
        symlink((link - 1).to_string(), directory.path().join(link.to_string())).unwrap();
    }
    for root in [below(&directory), Root::machine()] {
        let prefix = if root.is_machine() { directory.path().to_str().unwrap() } else { "" };
        assert_eq!(root.text(&format!("{prefix}/40")).as_deref(), Ok("text"));
        assert_eq!(root.text(&format!("{prefix}/41")), Err(ReadError::Os(Errno::LOOP)));
    }
    assert_eq!(fs::read_to_string(directory.path().join("40")).unwrap(), "text", "as the kernel does");
    assert!(fs::read_to_string(directory.path().join("41")).is_err());
}

#[test]
fn paths_of_4096_components_are_resolved() {
    let directory = directory();
    // Links to links, each of them with many components: a component for the link itself, and two for each `d/..`.
    let link = |name: &str, pairs: usize, to: &str| {
        symlink(format!("{}{to}", "d/../".repeat(pairs)), directory.path().join(name)).unwrap();
    };
    link("c", 700, "end");
    link("b", 700, "c");
    link("a", 646, "b");
    link("longer", 647, "b");
    let root = below(&directory);
    assert_eq!(root.text("/a").as_deref(), Ok("text"), "1 + 2 * 646 + 1 + 2 * 700 + 1 + 2 * 700 + 1");
    assert_eq!(root.text("/longer"), Err(ReadError::Os(Errno::NAMETOOLONG)));
    assert_eq!(root.text(&format!("/{}end", "d/../".repeat(3000))), Err(ReadError::Os(Errno::NAMETOOLONG)));
}

#[test]
fn paths_that_are_not_normalized_are_checked_for_mounts_too() {
    let directory = directory();
    fs::create_dir_all(directory.path().join("proc/1")).unwrap();
    let mountinfo = "24 22 0:30 / /srv rw - nfs4 server:/ rw\n";
    fs::write(directory.path().join("proc/1/mountinfo"), mountinfo).unwrap();
    fs::create_dir(directory.path().join("srv")).unwrap();
    fs::write(directory.path().join("srv/x"), "text").unwrap();
    let root = below(&directory);
    for path in ["/srv/x", "//srv/x", "/./srv/x", "/d/../srv/x", "/srv/./x", "/srv//x", "/srv/../srv/x"] {
        assert_eq!(root.text(path), Err(ReadError::Remote("nfs4".into())), "{path}");
    }
    for path in ["/end", "//end", "/./end", "/d/../end", "/d/../../../end", "/end/"] {
        assert_eq!(root.text(path).as_deref(), Ok("text"), "{path}");
    }
    for path in ["/srv", "/srv/", "//srv"] {
        assert_eq!(root.entries(path), Err(ReadError::Remote("nfs4".into())), "{path}");
    }
}

#[test]
fn what_is_in_place_of_a_directory_is_not_opened() {
    let directory = directory();
    fifo(&directory.path().join("fifo"));
    symlink("fifo", directory.path().join("link")).unwrap();
    symlink("/dev/null", directory.path().join("mask")).unwrap();
    symlink("end", directory.path().join("to-end")).unwrap();
    for place in ["fifo", "link", "mask", "end", "fifo/x", "mask/x", "end/x", "to-end", "to-end/x"] {
        let root = below(&directory);
        let path = format!("/{place}");
        let found = in_time(move || (root.entries(&path), root.has_directory(&path), root.identity(&path)));
        assert_eq!(found, (Err(ReadError::Missing), false, None), "{place}");
        let (root, path) = (Root::machine(), directory.path().join(place).to_str().unwrap().to_owned());
        let found = in_time(move || (root.entries(&path), root.has_directory(&path), root.identity(&path)));
        assert_eq!(found, (Err(ReadError::Missing), false, None), "{place} on the machine");
    }
    for (place, error) in [
        ("fifo", ReadError::NotAFile),
        ("link", ReadError::NotAFile),
        ("d", ReadError::Directory),
        ("to-end/x", ReadError::Missing),
    ] {
        let (root, path) = (below(&directory), format!("/{place}"));
        assert_eq!(in_time(move || root.text(&path)), Err(error.clone()), "{place}");
        let (root, path) = (Root::machine(), directory.path().join(place).to_str().unwrap().to_owned());
        assert_eq!(in_time(move || root.text(&path)), Err(error), "{place} on the machine");
    }
    let root = below(&directory);
    assert_eq!(in_time(move || root.file_type("/fifo")), Some(FileType::Fifo));
    assert_eq!(below(&directory).text("/mask").as_deref(), Ok(""), "a masked file is empty");
}

#[test]
fn no_root_is_the_machine() {
    for none in [None, Some(""), Some("/")] {
        assert!(Root::at(none.map(OsStr::new)).unwrap().is_machine(), "{none:?}");
    }
    let directory = directory();
    let root = Root::at(Some(directory.path().as_os_str())).unwrap();
    assert_eq!((root.is_machine(), root.text("/end").as_deref()), (false, Ok("text")));
    assert_eq!((root.is_early(), root.for_a_generator().is_early()), (false, true));
}

#[test]
fn every_component_is_checked() {
    let directory = directory();
    let root = below(&directory);
    let mode = |path: &str, mode| {
        fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let check = |path: &str| {
        (root.with_trusted_bytes(path, |_| ()).is_ok(), root.with_owned_bytes(path, |_| ()).is_ok())
    };
    assert_eq!(check("/end"), (true, true));
    mode("end", 0o666);
    assert_eq!(check("/end"), (false, false));
    mode("end", 0o644);
    fs::write(directory.path().join("d/x"), "").unwrap();
    mode("d", 0o1777);
    assert_eq!(check("/d/x"), (false, true), "as /tmp");
    mode("d", 0o777);
    assert_eq!(check("/d/x"), (false, false));
    assert_eq!(root.with_trusted_bytes("/missing", |_| ()), Err(ReadError::Missing));
}

/// In a container with a user namespace, its root user owns its files.
#[test]
fn the_root_user_of_a_user_namespace_is_trusted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can map users");
        return;
    }
    let directory = directory();
    let path = directory.path().join("end");
    chown(&path, Some(12345), None).unwrap();
    let mut container = Command::new("unshare").args(["--user", "sleep", "60"]).spawn().unwrap();
    let pid = container.id();
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::write(format!("/proc/{pid}/uid_map"), "0 12345 1").unwrap();
    let is_trusted = |root: Root| root.with_owned_bytes(path.to_str().unwrap(), |_| ()).is_ok();
    let (inside, outside) = (is_trusted(Root::of_process(pid).unwrap()), is_trusted(Root::machine()));
    container.kill().unwrap();
    container.wait().unwrap();
    assert_eq!((inside, outside), (true, false));
}

#[test]
fn a_root_must_be_a_directory() {
    let directory = directory();
    fifo(&directory.path().join("fifo"));
    for place in ["fifo", "end", "missing"] {
        let path = directory.path().join(place);
        assert!(in_time(move || Root::below(&path)).is_err(), "{place}");
    }
}

#[test]
fn links_are_described_and_not_followed() {
    let directory = directory();
    symlink("d", directory.path().join("link")).unwrap();
    symlink("missing", directory.path().join("dangling")).unwrap();
    let root = below(&directory);
    assert_eq!(root.file_type("/link"), Some(FileType::Symlink));
    assert_eq!(root.link("/link").as_deref(), Some("d"));
    assert_eq!((root.file_type("/d"), root.link("/d")), (Some(FileType::Directory), None));
    assert_eq!((root.file_type("/dangling"), root.file_type("/missing")), (Some(FileType::Symlink), None));
    symlink("../end", directory.path().join("d/inner")).unwrap();
    assert_eq!(root.link("/link/inner").as_deref(), Some("../end"));
    assert_eq!(root.text("/link/inner").as_deref(), Ok("text"));
    let mut entries = root.entries("/").unwrap();
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.link)).collect();
    assert_eq!(entries, [("d", false), ("dangling", true), ("end", false), ("link", true)]);
    assert_eq!(root.identity("/link"), root.identity("/d"));
    assert_ne!(root.identity("/"), root.identity("/d"));
}

/// Without `O_NONBLOCK`, open(2) waits for up to 45 s for the holder of a lease (`/proc/sys/fs/lease-break-time`), which any
/// user can take on their own files.
#[test]
fn a_lease_does_not_block() {
    let directory = directory();
    let path = directory.path().join("end");
    // SIGIO asks the holder to give it up.
    let lease = "import fcntl, signal, sys, time\nfile = open(sys.argv[1], 'r+')\n\
        signal.signal(signal.SIGIO, signal.SIG_IGN)\nfcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
        print(flush=True)\ntime.sleep(60)\n";
    let mut holder = Command::new("python3");
    let mut holder = holder.args(["-c", lease]).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(BufReader::new(holder.stdout.take().unwrap()).read_line(&mut String::new()).unwrap(), 1);
    let (root, path) = (Root::machine(), path.to_str().unwrap().to_owned());
    assert_eq!(in_time(move || root.text(&path)), Err(ReadError::Os(Errno::AGAIN)));
    let place = directory.path().to_owned();
    let appended = in_time(move || Directory::open(&place).unwrap().append("end").map(|_| ()));
    assert_eq!(appended.unwrap_err().error.kind(), std::io::ErrorKind::WouldBlock);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// By users other than root, whom permissions do not stop.
#[test]
fn a_root_that_may_only_be_searched_is_sufficient() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    let machine = tempfile::tempdir().unwrap();
    let root = machine.path().join("root");
    for (path, text) in [
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("proc/meminfo", "MemTotal: 65852000 kB\n"),
        ("etc/pypnm/sizing.conf", "[Sizing]\nUnits=a.service\n"),
        ("etc/systemd/system/a.service", "[Service]\nExecStart=/bin/pypnm serve\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let out = machine.path().join("out");
    fs::create_dir(&out).unwrap();
    chown(&out, Some(12345), None).unwrap();
    for directory in [machine.path(), &root] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let mut generator = Command::new(env!("CARGO_BIN_EXE_pypnm-sizing-generator"));
    generator.arg(&out).env_clear().env("PYPNM_SIZING_ROOT", &root).uid(12345).gid(12345);
    let output = generator.output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(out.join("a.service.d/10-pypnm-sizing.conf").exists());
}

#[test]
fn files_of_4_mib_are_read() {
    let directory = directory();
    let file = File::create(directory.path().join("end")).unwrap();
    for (size, read) in
        [(0, true), (8192, true), (8193, true), (MAX_FILE_BYTES, true), (MAX_FILE_BYTES + 1, false)]
    {
        file.set_len(size as u64).unwrap();
        let expected = if read { Ok(size) } else { Err(ReadError::TooLarge) };
        assert_eq!(below(&directory).with_bytes("/end", <[u8]>::len), expected);
    }
}

#[test]
fn directories_of_100_000_entries_are_read() {
    // In memory, where creating a file is cheap.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    // With `.` and `..`.
    for entry in 2..100_000 {
        symlink("x", directory.path().join(entry.to_string())).unwrap();
    }
    assert_eq!(below(&directory).entries("/").map(|entries| entries.len()), Ok(99_998));
    symlink("x", directory.path().join("1")).unwrap();
    assert_eq!(below(&directory).entries("/"), Err(ReadError::TooLarge));
}

/// A process may name /proc/kmsg as its profile, and reading that consumes the kernel's messages.
#[test]
fn files_of_the_kernel_are_not_opened_for_others() {
    let directory = directory();
    let place = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("x"), "A=1\n").unwrap();
    symlink("/proc/self/status", directory.path().join("link")).unwrap();
    let machine = Root::machine();
    assert_eq!(machine.foreign_text(&format!("{place}/x")).as_deref(), Ok("A=1\n"));
    for path in ["/proc/self/status", "/proc/kmsg", "//proc/1/../self/status", "/sys/kernel/uevent_seqnum"] {
        assert!(Path::new(path).exists(), "{path}");
        assert_eq!(machine.foreign_text(path), Err(ReadError::NotAFile), "{path}");
    }
    assert_eq!(machine.foreign_text(&format!("{place}/link")), Err(ReadError::NotAFile));
    assert!(machine.text("/proc/self/status").is_ok());
}
