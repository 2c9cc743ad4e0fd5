//! The running systemd, asked through `systemctl`.
//!
//! Why not D-Bus itself: `systemctl` starts polkit's prompt for an unprivileged operator who may manage units, reaches
//! PID 1 by its private socket where no bus runs (containers, rescue mode), is there wherever systemd is, and costs
//! the static helper no crate. Its `show` output is documented as stable ("systemctl show" is "intended for computers").
//!
//! It also knows where systemd keeps a unit's cgroup, and so the unit's processes.
//!
//! No child is waited for longer than its time; what it said becomes a message for a person.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pypnm_sizing::root::Root;
use rustix::io::Errno;

const PROGRAM: &str = "systemctl";
/// Where systemd keeps its cgroups: version 2, hybrid, version 1 (systemd fixes these places).
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// More processes than this are no PyPNM.
const MOST: usize = 4096;
/// For an answer from a manager that is up.
const TO_ANSWER: Duration = Duration::from_secs(10);
/// For a reload: systemd gives its generators 90 s.
const TO_RELOAD: Duration = Duration::from_mins(2);
/// Between two looks at a child.
const PAUSE: Duration = Duration::from_millis(5);

/// Why systemd could not be asked, or did not do it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no `systemctl`.
    NoSystemctl,
    /// PID 1 is no systemd, or can't be reached.
    NotRunning(String),
    /// No answer in time.
    Late(&'static str, Duration),
    /// The caller may not.
    Denied(&'static str),
    /// It said no: what was asked, and what it said.
    Failed(&'static str, String),
}

impl std::error::Error for Trouble {}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSystemctl => f.write_str("there is no systemctl here, so no systemd to ask"),
            Self::NotRunning(said) if said.is_empty() => f.write_str("no systemd runs here"),
            Self::NotRunning(said) => write!(f, "no systemd runs here ({said})"),
            Self::Late(what, time) => {
                write!(f, "systemctl {what} did not end in {} s; it was given up", time.as_secs())
            }
            Self::Denied(what) => {
                write!(
                    f,
                    "systemctl {what}: not permitted; try again as root (sudo), or as a polkit administrator"
                )
            }
            Self::Failed(what, said) => write!(f, "systemctl {what}: {said}"),
        }
    }
}

/// A unit as systemd has it loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// LoadState
    pub(crate) load: String,
    /// ActiveState
    pub(crate) active: String,
    /// FragmentPath
    pub(crate) fragment: String,
    /// DropInPaths
    pub(crate) drop_ins: Vec<String>,
    /// `Environment=`, all of them merged.
    pub(crate) environment: BTreeMap<String, String>,
    /// `EnvironmentFile=`, in order, without the remark on missing files.
    pub(crate) environment_files: Vec<String>,
    /// `ExecStartPre=`, as systemd prints it.
    pub(crate) exec_start_pre: String,
    /// `ExecStart=`, as systemd prints it: variables not yet expanded.
    pub(crate) exec_start: String,
    /// `ExecReload=`, likewise.
    pub(crate) exec_reload: String,
    /// MainPID; 0 where none runs.
    pub(crate) main: u32,
    /// ControlGroup; empty where none runs.
    pub(crate) cgroup: String,
}

const PROPERTIES: &str = "LoadState,ActiveState,FragmentPath,DropInPaths,Environment,EnvironmentFiles,\
                          ExecStartPre,ExecStart,ExecReload,MainPID,ControlGroup";

/// What systemd has loaded for `unit`; a unit that it does not know has the state `not-found`.
pub(crate) fn show(unit: &str) -> Result<Loaded, Trouble> {
    properties(unit, PROPERTIES).map(loaded)
}

/// Properties of a unit, named with commas between them; of some there are several.
pub(crate) fn properties(unit: &str, names: &str) -> Result<Vec<(String, String)>, Trouble> {
    let said = run("show", &[&format!("--property={names}"), "--", unit], TO_ANSWER)?;
    let lines = said.lines().filter_map(|line| line.split_once('='));
    let properties: Vec<_> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // In a chroot systemctl ignores what it is asked, with status 0.
    if properties.is_empty() { Err(Trouble::NotRunning(String::new())) } else { Ok(properties) }
}

/// Has systemd run its generators and read its units anew.
pub(crate) fn reload() -> Result<(), Trouble> {
    run("daemon-reload", &[], TO_RELOAD).map(drop)
}

/// Restarts a unit that runs, and waits until systemd calls it started.
pub(crate) fn restart(unit: &str, time: Duration) -> Result<(), Trouble> {
    // Never starts what has ended meanwhile.
    run("try-restart", &["--", unit], time).map(drop)
}

/// Reloads a unit, and waits until systemd calls the reload complete.
pub(crate) fn reload_unit(unit: &str, time: Duration) -> Result<(), Trouble> {
    run("reload", &["--", unit], time).map(drop)
}

fn loaded(properties: Vec<(String, String)>) -> Loaded {
    let mut loaded = Loaded::default();
    for (key, value) in properties {
        match key.as_str() {
            "LoadState" => loaded.load = value,
            "ActiveState" => loaded.active = value,
            "FragmentPath" => loaded.fragment = value,
            "DropInPaths" => {
                loaded.drop_ins = value.split(' ').filter(|p| !p.is_empty()).map(str::to_owned).collect();
            }
            "Environment" => {
                let words = words(&value);
                let pairs = words.iter().filter_map(|word| word.split_once('='));
                loaded.environment = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            }
            "EnvironmentFiles" => {
                let path = value.rsplit_once(" (ignore_errors=").map_or(value.as_str(), |(path, _)| path);
                loaded.environment_files.push(path.to_owned());
            }
            "ExecStart" => loaded.exec_start = format!("{}{value}\n", loaded.exec_start),
            "ExecStartPre" => loaded.exec_start_pre = format!("{}{value}\n", loaded.exec_start_pre),
            "ExecReload" => loaded.exec_reload = format!("{}{value}\n", loaded.exec_reload),
            "MainPID" => loaded.main = value.parse().unwrap_or(0),
            "ControlGroup" => loaded.cgroup = value,
            _ => {}
        }
    }
    loaded
}

/// All processes of a unit's cgroup and of those below. Empty: it is down.
pub(crate) fn processes(machine: &Root, cgroup: &str) -> Vec<u32> {
    let mut pids = Vec::new();
    // The root cgroup is everybody's.
    if cgroup.len() > 1 {
        for hierarchy in HIERARCHIES {
            if pids.is_empty() {
                processes_below(machine, &format!("{hierarchy}{cgroup}"), 0, &mut pids);
            }
        }
    }
    pids
}

/// The processes of a cgroup and of those below it.
fn processes_below(machine: &Root, dir: &str, depth: u32, pids: &mut Vec<u32>) {
    if let Ok(text) = machine.text(&format!("{dir}/cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).take(MOST));
    }
    // A service without Delegate= has no cgroups below; a container's engine may make some.
    if depth < 4
        && let Ok(entries) = machine.entries(dir)
    {
        for entry in entries.iter().filter(|entry| !entry.name.contains('.') && !entry.link) {
            processes_below(machine, &format!("{dir}/{}", entry.name), depth + 1, pids);
        }
    }
}

/// Words as `systemctl show` quotes them: `A=1 "B=two words" $'C=\t'`; of the escapes only `\\` and `\"` matter here.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (None, '$') if word.is_empty() && characters.peek() == Some(&'\'') => {}
            (None, '"' | '\'') => quote = Some(c),
            (Some(mark), c) if c == mark => quote = None,
            (Some(_), '\\') => word.extend(characters.next()),
            (None, ' ') => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            (_, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Runs `systemctl verb arguments`; its stdout.
fn run(verb: &'static str, arguments: &[&str], time: Duration) -> Result<String, Trouble> {
    let mut child = Command::new(PROGRAM)
        .args(["--no-pager", verb])
        .args(arguments)
        .env("SYSTEMD_COLORS", "0")
        .env("LC_ALL", "C.UTF-8")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Trouble::NoSystemctl,
            _ => Trouble::Failed(verb, error.to_string()),
        })?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let Some(status) = wait(&mut child, time).map_err(|error| Trouble::Failed(verb, error.to_string()))?
    else {
        // Its agent for passwords goes with it, or with the terminal.
        let _ = child.kill();
        let _ = child.wait();
        return Err(Trouble::Late(verb, time));
    };
    let text = |from: &Receiver<String>| from.recv_timeout(TO_ANSWER).unwrap_or_default();
    let (said, complained) = (text(&stdout), text(&stderr));
    if status.success() {
        return Ok(said);
    }
    Err(trouble(verb, complained.trim()))
}

/// What a complaint of systemctl's means.
fn trouble(verb: &'static str, complaint: &str) -> Trouble {
    let one_line = complaint.lines().next().unwrap_or("it failed without a word").trim().to_owned();
    let says = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if says(&["not been booted with systemd"]) {
        // The rest of what it says is for who knows systemd already.
        Trouble::NotRunning(String::new())
    } else if says(&["Failed to connect to", "Host is down"]) {
        Trouble::NotRunning(one_line)
    } else if says(&["Access denied", "Permission denied", "authentication required", "Not authorized"]) {
        Trouble::Denied(verb)
    } else {
        Trouble::Failed(verb, one_line)
    }
}

/// Reads all of a pipe beside the wait, so that a child that says much never waits for us.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        // The receiver may have given up.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The status of a child that ends in time.
fn wait(child: &mut Child, time: Duration) -> Result<Option<ExitStatus>, Errno> {
    let until = Instant::now() + time;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if Instant::now() >= until => return Ok(None),
            Ok(None) => std::thread::sleep(PAUSE),
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::CHILD)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{Loaded, Trouble, loaded, trouble, wait, words};

    fn parse(said: &str) -> Loaded {
        let lines = said.lines().filter_map(|line| line.split_once('='));
        loaded(lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn recorded_show_of_systemd_252() {
        let loaded = parse(
            "MainPID=71\n\
             ExecStart={ path=/usr/bin/pypnm ; argv[]=pypnm serve $PYPNM_OPTIONS ; ignore_errors=no ; pid=71 }\n\
             Environment=A=1 \"B=two words\" PYPNM_SERVE_WORKERS=3\n\
             EnvironmentFiles=/etc/pypnm/pypnm.env (ignore_errors=yes)\nEnvironmentFiles=/etc/x (ignore_errors=no)\n\
             ControlGroup=/system.slice/pypnm.service\nLoadState=loaded\nActiveState=active\n\
             FragmentPath=/etc/systemd/system/pypnm.service\n\
             DropInPaths=/run/systemd/generator/pypnm.service.d/10-pypnm-sizing.conf /etc/a.conf\n",
        );
        assert_eq!(loaded.environment.get("B").map(String::as_str), Some("two words"));
        assert_eq!(loaded.environment_files, ["/etc/pypnm/pypnm.env", "/etc/x"]);
        assert_eq!((loaded.main, loaded.drop_ins.len()), (71, 2));
        assert_eq!((loaded.load.as_str(), loaded.active.as_str()), ("loaded", "active"));
        assert_eq!(parse("LoadState=not-found\nDropInPaths=\nEnvironment=\n").drop_ins.len(), 0);
    }

    #[test]
    fn quoted_words() {
        assert_eq!(words(r#"A=1 "B=a \"b\" \\" $'C=x y'  D="#), ["A=1", r#"B=a "b" \"#, "C=x y", "D="]);
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn no_child_is_waited_for_longer_than_its_time() -> std::io::Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let started = Instant::now();
        assert_eq!(wait(&mut child, Duration::from_millis(50)), Ok(None));
        assert!(started.elapsed() < Duration::from_secs(30));
        child.kill()?;
        let ended = wait(&mut child, Duration::from_secs(30));
        assert!(ended.is_ok_and(|status| status.is_some_and(|status| !status.success())));
        Ok(())
    }

    #[test]
    fn complaints() {
        let booted = "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed";
        assert!(matches!(trouble("show", booted), Trouble::NotRunning(_)));
        let denied = "Failed to reload daemon: Interactive authentication required.";
        assert_eq!(trouble("daemon-reload", denied), Trouble::Denied("daemon-reload"));
        assert!(matches!(trouble("show", ""), Trouble::Failed("show", _)));
    }
}
