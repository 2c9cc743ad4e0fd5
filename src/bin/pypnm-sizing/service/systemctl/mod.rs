//! Queries and controls the running systemd through `systemctl`. No other module runs it or parses its output.
//!
//! `systemctl` has advantages over D-Bus: it shows polkit's prompt to unprivileged operators who may manage units, it reaches
//! PID 1 through its private socket where no bus is running (containers, rescue mode), it is available wherever systemd is,
//! and it needs no crate. Its `show` output is documented as stable ("intended for computers").
//!
//! `show` prints line feeds inside values unescaped (systemd issue 40079), so a line of its output may be part of an argument
//! of `ExecStart=`. Therefore only properties whose values are words or numbers of systemd's own are queried together. Each of
//! the others is queried separately, with `--value`, and its output is never split into properties.

mod child;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use child::SystemctlError;
use child::{Deadline, QUERY_TIMEOUT, run};

/// The timeout of a reload: systemd gives its generators 90 s.
const RELOAD_TIMEOUT: Duration = Duration::from_mins(2);
/// The maximum number of required units whose state is queried.
const MAX_REQUIRED: usize = 64;

/// A unit as loaded by systemd, and its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LoadedUnit {
    /// LoadState
    pub(crate) load: String,
    /// ActiveState
    pub(crate) active: String,
    /// SubState
    pub(crate) sub: String,
    /// Result: `success`, or why the service failed.
    pub(crate) result: String,
    /// ConditionResult, if conditions have been checked.
    pub(crate) conditions_met: Option<bool>,
    /// Whether assertions have been checked and AssertResult is `no`.
    pub(crate) assertion_failed: bool,
    /// NRestarts: automatic restarts since it was started by hand.
    pub(crate) automatic_restarts: u64,
    /// Microseconds of CLOCK_MONOTONIC; 0: never.
    pub(crate) active_entered: u64,
    pub(crate) active_exited: u64,
    pub(crate) inactive_exited: u64,
    /// When the state or the substate last changed.
    pub(crate) state_changed: u64,
    /// When its main process started and ended.
    pub(crate) main_started: u64,
    pub(crate) main_exited: u64,
    /// ExecMainCode and ExecMainStatus: how its main process ended (`si_code` and `si_status` in sigaction(2)).
    pub(crate) main_ended: (i64, i64),
    /// UnitFileState
    pub(crate) file_state: String,
    /// Type
    pub(crate) service_type: String,
    /// Whether a job, such as its start, is queued or running.
    pub(crate) has_job: bool,
    /// Whether that job starts it, now or after it has stopped.
    pub(crate) will_start: bool,
    /// MemoryMax and MemoryHigh in bytes; `None`: infinity.
    pub(crate) memory_max: Option<u64>,
    pub(crate) memory_high: Option<u64>,
    /// ControlGroup; empty if there is none.
    pub(crate) cgroup: String,
    /// DropInPaths
    pub(crate) drop_ins: Vec<String>,
    /// `Environment=`, merged.
    pub(crate) environment: BTreeMap<String, String>,
    /// `EnvironmentFile=`, in order, without `(ignore_errors=…)`.
    pub(crate) environment_files: Vec<String>,
    /// The commands of `ExecStartPre=`: words separated by spaces.
    pub(crate) exec_start_pre: Vec<String>,
    /// The commands of `ExecStart=`; their variables are not expanded.
    pub(crate) exec_start: Vec<String>,
    /// The commands of `ExecReload=`.
    pub(crate) exec_reload: Vec<String>,
}

impl LoadedUnit {
    /// Whether the boot should have started the service but did not, although no condition of the unit prevented it.
    pub(crate) fn is_due_since_boot(&self) -> bool {
        let is_enabled = matches!(self.file_state.as_str(), "enabled" | "enabled-runtime");
        let was_never_started = self.active == "inactive" && self.inactive_exited == 0 && !self.has_job;
        is_enabled && was_never_started && self.conditions_met != Some(false)
    }
}

/// Properties whose values contain no line feeds: systemd's own words, numbers and, in the cgroup's path, escaped names.
const STATE: [&str; 22] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "AssertResult",
    "AssertTimestampMonotonic",
    "NRestarts",
    "ActiveEnterTimestampMonotonic",
    "ActiveExitTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    "ExecMainStartTimestampMonotonic",
    "ExecMainExitTimestampMonotonic",
    "ExecMainCode",
    "ExecMainStatus",
    "UnitFileState",
    "Type",
    "Job",
    "MemoryMax",
    "MemoryHigh",
];

/// The unit as systemd has loaded it. The load state of an unknown unit is `not-found`.
pub(crate) fn show(unit: &str) -> Result<LoadedUnit, SystemctlError> {
    let deadline = Deadline::after(QUERY_TIMEOUT);
    let mut loaded = state(&properties_until(unit, &[&STATE[..], &["ControlGroup"]].concat(), deadline)?);
    loaded.will_start = loaded.has_job && starts(unit, deadline);
    if loaded.load == "loaded" {
        let [drop_ins, variables, files, start_pre, start, reload] = values(
            unit,
            ["DropInPaths", "Environment", "EnvironmentFiles", "ExecStartPre", "ExecStart", "ExecReload"],
            deadline,
        )?;
        loaded.drop_ins = words(&drop_ins);
        loaded.environment = environment(&variables);
        loaded.environment_files = environment_files(&files);
        loaded.exec_start_pre = commands(&start_pre);
        loaded.exec_start = commands(&start);
        loaded.exec_reload = commands(&reload);
    }
    Ok(loaded)
}

/// Whether the job of a unit starts it. A restart is a job of its own type until the unit has stopped.
fn starts(unit: &str, deadline: Deadline) -> bool {
    let jobs = run("list-jobs", &["--plain", "--no-legend", "--", unit], deadline).unwrap_or_default();
    jobs.lines().any(is_start)
}

/// Whether a line of `list-jobs` (number, unit, type, state) is about a start (`job_type_to_string()` of systemd).
fn is_start(line: &str) -> bool {
    line.split_ascii_whitespace()
        .nth(2)
        .is_some_and(|kind| matches!(kind, "start" | "restart" | "try-restart" | "reload-or-start"))
}

/// The first unit that `unit` requires and that has failed. `None`: there is none, or it is unknown.
pub(crate) fn failed_requirement(unit: &str) -> Option<String> {
    let deadline = Deadline::after(QUERY_TIMEOUT);
    let units = |property| value(unit, property, deadline).unwrap_or_default();
    let required = ["Requires", "BindsTo", "Requisite"].map(units).concat();
    // A unit's name contains neither spaces nor line feeds.
    required.split_ascii_whitespace().take(MAX_REQUIRED).map(str::to_owned).find(|name| {
        let state = properties_until(name, &["ActiveState"], deadline);
        state.is_ok_and(|state| state.get("ActiveState").is_some_and(|state| state == "failed"))
    })
}

/// Properties of a unit, each of which is a word, a number or the path of a cgroup; see the module's documentation.
pub(crate) fn properties(unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>, SystemctlError> {
    properties_until(unit, names, Deadline::after(QUERY_TIMEOUT))
}

fn properties_until(
    unit: &str,
    names: &[&str],
    deadline: Deadline,
) -> Result<BTreeMap<String, String>, SystemctlError> {
    let output = run("show", &[&format!("--property={}", names.join(",")), "--", unit], deadline)?;
    let lines = output.lines().filter_map(|line| line.split_once('='));
    let known = lines.filter(|(name, _)| names.contains(name));
    let properties: BTreeMap<_, _> = known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // In a chroot, systemctl ignores requests and exits with status 0.
    if properties.is_empty() { Err(SystemctlError::NotRunning(String::new())) } else { Ok(properties) }
}

/// The value of a single property, which may contain any characters.
fn value(unit: &str, property: &str, deadline: Deadline) -> Result<String, SystemctlError> {
    run("show", &["--value", &format!("--property={property}"), "--", unit], deadline)
}

/// The values of several properties, see [`value`]. They are queried at the same time, because on a slow machine one after the
/// other would take too long.
fn values<const N: usize>(
    unit: &str,
    properties: [&str; N],
    deadline: Deadline,
) -> Result<[String; N], SystemctlError> {
    let answers = std::thread::scope(|scope| {
        let queries = properties.map(|property| scope.spawn(move || value(unit, property, deadline)));
        queries.map(|query| {
            query.join().unwrap_or_else(|_| Err(SystemctlError::Failed("show", "no answer".to_owned())))
        })
    });
    let mut values = [const { String::new() }; N];
    for (value, answer) in values.iter_mut().zip(answers) {
        *value = answer?;
    }
    Ok(values)
}

/// Reloads systemd, which runs the generators and reads all units again.
pub(crate) fn reload() -> Result<(), SystemctlError> {
    run("daemon-reload", &[], Deadline::after(RELOAD_TIMEOUT)).map(drop)
}

/// Restarts a unit that is active, and waits until systemd considers it started.
pub(crate) fn restart(unit: &str, time: Duration) -> Result<(), SystemctlError> {
    // Unlike `restart`, this does not start a unit that has stopped in the meantime.
    run("try-restart", &["--", unit], Deadline::after(time)).map(drop)
}

/// Reloads a unit, and waits until systemd considers the reload complete.
pub(crate) fn reload_unit(unit: &str, time: Duration) -> Result<(), SystemctlError> {
    run("reload", &["--", unit], Deadline::after(time)).map(drop)
}

fn state(properties: &BTreeMap<String, String>) -> LoadedUnit {
    let word = |name: &str| properties.get(name).cloned().unwrap_or_default();
    let number = |name: &str| word(name).parse::<u64>().unwrap_or(0);
    let status = |name: &str| word(name).parse::<i64>().unwrap_or(0);
    LoadedUnit {
        load: word("LoadState"),
        active: word("ActiveState"),
        sub: word("SubState"),
        result: word("Result"),
        conditions_met: (number("ConditionTimestampMonotonic") > 0).then(|| word("ConditionResult") == "yes"),
        assertion_failed: number("AssertTimestampMonotonic") > 0 && word("AssertResult") == "no",
        automatic_restarts: number("NRestarts"),
        active_entered: number("ActiveEnterTimestampMonotonic"),
        active_exited: number("ActiveExitTimestampMonotonic"),
        inactive_exited: number("InactiveExitTimestampMonotonic"),
        state_changed: number("StateChangeTimestampMonotonic"),
        main_started: number("ExecMainStartTimestampMonotonic"),
        main_exited: number("ExecMainExitTimestampMonotonic"),
        main_ended: (status("ExecMainCode"), status("ExecMainStatus")),
        file_state: word("UnitFileState"),
        service_type: word("Type"),
        has_job: number("Job") > 0,
        memory_max: word("MemoryMax").parse().ok(),
        memory_high: word("MemoryHigh").parse().ok(),
        cgroup: word("ControlGroup"),
        ..LoadedUnit::default()
    }
}

fn environment(value: &str) -> BTreeMap<String, String> {
    let words = words(value);
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Parses lines of the form `PATH (ignore_errors=yes)`. A path may contain line feeds.
fn environment_files(value: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut pieces = value.split(" (ignore_errors=");
    let mut path = pieces.next().unwrap_or_default();
    for piece in pieces {
        files.push(path.to_owned());
        path = piece.split_once(")\n").map_or("", |(_, next)| next);
    }
    files
}

/// The commands in a sequence of the form `{ path=… ; argv[]=… ; ignore_errors=… ; … }`.
fn commands(value: &str) -> Vec<String> {
    let after = value.split(" ; argv[]=").skip(1);
    after.filter_map(|text| Some(text.split_once(" ; ignore_errors=")?.0.to_owned())).collect()
}

/// Words as `systemctl show` quotes them: `A=1 "B=two words" $'C=\t'`; of the escapes only `\\` and `\"` matter here.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.trim_end_matches('\n').chars().peekable();
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

#[cfg(test)]
mod tests {
    use super::{commands, environment, environment_files, is_start, state, words};

    #[test]
    fn recorded_answers_of_systemd_252() {
        let output = "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\n\
                    NRestarts=3\nConditionResult=no\nConditionTimestampMonotonic=0\n\
                    AssertResult=no\nAssertTimestampMonotonic=0\nExecMainCode=2\nExecMainStatus=15\nJob=\n\
                    ControlGroup=/system.slice/pypnm.service\n";
        let lines = output.lines().filter_map(|line| line.split_once('='));
        let loaded = state(&lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
        assert_eq!((loaded.load.as_str(), loaded.sub.as_str()), ("loaded", "auto-restart"));
        assert_eq!((loaded.conditions_met, loaded.automatic_restarts), (None, 3));
        assert_eq!((loaded.assertion_failed, loaded.main_ended, loaded.has_job), (false, (2, 15), false));
        let variables = environment("A=1 \"B=two words\" PYPNM_SERVE_WORKERS=3\n");
        assert_eq!(variables.get("B").map(String::as_str), Some("two words"));
        assert_eq!(variables.get("PYPNM_SERVE_WORKERS").map(String::as_str), Some("3"));
        let files = environment_files("/etc/a b.env (ignore_errors=yes)\n/etc/x (ignore_errors=no)\n");
        assert_eq!(files, ["/etc/a b.env", "/etc/x"]);
        assert_eq!(environment_files("\n"), Vec::<String>::new());
        let exec = "{ path=/bin/a ; argv[]=/bin/a --x $Y ; ignore_errors=no ; start_time=[n/a] ; pid=0 }\n\
                    { path=/bin/b ; argv[]=/bin/b ; ignore_errors=yes ; pid=0 }\n";
        assert_eq!(commands(exec), ["/bin/a --x $Y", "/bin/b"]);
    }

    /// systemd prints line feeds in arguments unescaped.
    #[test]
    fn an_argument_cannot_fake_a_property() {
        let exec =
            "{ path=/bin/a ; argv[]=/bin/a x\nLoadState=masked\nMainPID=1 ; ignore_errors=no ; pid=0 }\n";
        assert_eq!(commands(exec), ["/bin/a x\nLoadState=masked\nMainPID=1"]);
        assert_eq!(
            environment_files("/etc/a\nLoadState=masked (ignore_errors=no)\n"),
            ["/etc/a\nLoadState=masked"]
        );
    }

    #[test]
    fn jobs_that_start_a_unit() {
        assert!(is_start("66 pypnm.service start waiting") && is_start("7 pypnm.service restart running"));
        assert!(!is_start("7 pypnm.service stop running") && !is_start("7 pypnm.service reload running"));
        assert!(!is_start("") && !is_start("No jobs running."));
    }

    #[test]
    fn quoted_words() {
        assert_eq!(words(r#"A=1 "B=a \"b\" \\" $'C=x y'  D="#), ["A=1", r#"B=a "b" \"#, "C=x y", "D="]);
        assert_eq!(words(""), Vec::<String>::new());
    }
}
