//! Judges PyPNM by a process: in a container, including one that a unit starts, seen from inside or from its host, or started
//! by hand. Compares what its cgroups at every visible level and its affinity permit with what its workers were started with.

use pypnm_sizing::command::Program;
use pypnm_sizing::limits::process::Process as SizedProcess;
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG,
};
use pypnm_sizing::pypnm::{self, LIMIT_MAX_REQUESTS, Numbers, ProfileFile, WORKERS};
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, Sizing, size};
use pypnm_sizing::watch::role::main_process;

use super::facts::{Facts, ProcessFacts, expected, mistakes};
use super::in_use::{InUse, Origin, Running, in_use};
use super::judged::{Judged, judged_when_complete};
use super::live::{self, Live, candidates};
use super::topic::{Finding, State, Topic};
use super::verdict::{Verdict, mistakes_text, numbers_text};
use crate::service::container::{self, Files};
use crate::service::exec_profile;
use crate::service::family::{self, Presence, Service};
use crate::service::launch::Launch;
use crate::service::process;
use crate::wording::{self, brief};

/// Judges the process `pid`, or its parent if it is a worker; again while only a worker seems to be missing. Also returns the
/// sizing, if there is one.
pub(crate) fn judge(machine: &Root, pid: u32) -> (Judged, Option<Sizing>) {
    judged_when_complete(&mut || judge_once(machine, pid), |(judged, _)| &judged.verdict)
}

fn judge_once(machine: &Root, pid: u32) -> (Judged, Option<Sizing>) {
    let name = format!("process {pid}");
    match gather(machine, pid) {
        Ok((facts, sizing)) => {
            let verdict = verdict(&facts, None);
            (Judged { unit: name, facts: None, process: Some(facts), verdict }, Some(sizing))
        }
        Err(finding) => {
            (Judged { unit: name, facts: None, process: None, verdict: Verdict::only(finding) }, None)
        }
    }
}

/// Judges a unit whose PyPNM `pid` runs in a container. `judged`: the verdict on the unit's state in systemd.
pub(super) fn judge_contained(machine: &Root, pid: u32, unit: Facts, judged: Verdict) -> Judged {
    let name = unit.unit.clone();
    let (process, mut verdict) = match gather(machine, pid) {
        Ok((facts, _)) => {
            let verdict = verdict(&facts, handed(machine, &unit));
            (Some(facts), verdict)
        }
        Err(finding) => (None, Verdict::only(finding)),
    };
    for finding in verdict.findings.iter_mut().filter(|finding| finding.topic == Topic::MachineChanged) {
        finding.fix = Some(format!("systemctl restart {name}"));
        verdict.needs_restart = true;
    }
    verdict.findings.splice(0..0, judged.findings);
    Judged { unit: name, facts: Some(unit), process, verdict }
}

/// The profile that `env` wrote when the unit was started, which may have been passed to the container.
fn handed(machine: &Root, unit: &Facts) -> Option<Numbers> {
    let path = unit.generated.as_ref()?.environment.get(pypnm::ENV_FILE)?;
    match pypnm::read_profile_file(&machine.text(path).ok()?) {
        ProfileFile::Taken(numbers) => Some(numbers),
        _ => None,
    }
}

fn finding(topic: Topic, state: State, text: String) -> Finding {
    Finding { topic, state, text, fix: None }
}

fn gather(machine: &Root, pid: u32) -> Result<(ProcessFacts, Sizing), Finding> {
    let gone = || finding(Topic::NotRunning, State::Critical, "there is no such process".to_owned());
    match family::presence(machine, pid) {
        Presence::Running => {}
        Presence::Ended => return Err(gone()),
        Presence::Hidden => {
            let text = "/proc hides it from this user".to_owned();
            return Err(finding(Topic::Hidden, State::Unknown, text));
        }
    }
    let of_pid = process::of_pids(machine, &[pid]);
    let given = of_pid.first().ok_or_else(gone)?;
    let top = if given.candidate().is_spawned() && given.parent > 1 { given.parent } else { pid };
    let family: Vec<u32> = family::processes(machine, Service::Tree(top)).into_keys().collect();
    let mut processes = process::of_pids(machine, &family);
    // A process that has ended has no arguments.
    processes.retain(|process| !process.arguments.is_empty());
    let candidates = candidates(&processes);
    let serves = candidates.iter().any(|candidate| candidate.is_server() || candidate.is_spawned());
    let Some(main) = main_process(&candidates).filter(|_| serves) else {
        let text = "neither it nor a process that it started is PyPNM or uvicorn".to_owned();
        return Err(finding(Topic::NotRunning, State::Unknown, text));
    };
    let files = Files::of(machine, main).map_err(|error| {
        finding(Topic::Hidden, State::Unknown, format!("its files cannot be read: {error}"))
    })?;
    let Some(root) = files.root(machine) else {
        let text =
            "this user is not permitted to read the files and the environment of its container".to_owned();
        return Err(Finding {
            fix: Some("run it as root".to_owned()),
            ..finding(Topic::Hidden, State::Unknown, text)
        });
    };
    let sizing = size(&Request {
        kernel: Some(machine),
        process: Some(SizedProcess::OutsideUnits(main)),
        ..Request::new(root)
    });
    let expected = match sizing.units.first() {
        Some(unit) => Ok(expected(&sizing.host, unit)),
        None => Err(wording::turned_off(&sizing).unwrap_or_else(|| "nothing to size".to_owned())),
    };
    let mut running = live::running(machine, &processes, main);
    let path = running.environment.as_ref().and_then(|all| all.get(pypnm::ENV_FILE));
    running.file = path.filter(|path| !path.is_empty()).map(|path| {
        let text = container::profile_text(machine, &files, &family, path);
        (path.clone(), text.map_err(|error| error.to_string()))
    });
    let facts = ProcessFacts {
        expected,
        live: Live::Running(running),
        user: process::user(machine, main).zip(process::group(machine, main)),
        mistakes: mistakes(&sizing.problems),
    };
    Ok((facts, sizing))
}

/// Judges the facts. `handed`: numbers that were not set by hand, although variables set them. Pure.
fn verdict(facts: &ProcessFacts, handed: Option<Numbers>) -> Verdict {
    let mut findings = Vec::new();
    let mut verdict = Verdict { findings: Vec::new(), next_start: None, in_use: None, needs_restart: false };
    if let (Ok(expected), Live::Running(running)) = (&facts.expected, &facts.live) {
        let in_use = in_use(running, expected.default);
        for setting in &expected.set_by_hand {
            findings.push(finding(Topic::SetByHand, State::Ok, setting.clone()));
        }
        verdict.next_start = Some(expected.numbers);
        if running.environment.is_none() && in_use.origin != Origin::Flag {
            findings.push(hidden(facts, running, expected.numbers));
        } else {
            verdict.in_use = Some(in_use);
            verdict.next_start = Some(compare(running, in_use, expected.numbers, handed, &mut findings));
        }
    }
    if let Err(why) = &facts.expected {
        let text = format!("it is not sized: {why}");
        findings.push(finding(Topic::TurnedOff, State::Ok, text));
    }
    if let Some(text) = mistakes_text(&facts.mistakes) {
        findings.push(finding(Topic::ConfigurationIgnored, State::Warning, text));
    }
    verdict.findings = findings;
    verdict
}

fn hidden(facts: &ProcessFacts, running: &Running, expected: Numbers) -> Finding {
    let alive = brief(i64::try_from(running.workers).unwrap_or(i64::MAX), None);
    let text = format!(
        "its environment, and so its recycle limit and its profile, cannot be read (this requires its user \
         and group, or CAP_SYS_PTRACE); {alive} alive; expected: {}",
        numbers_text(expected)
    );
    let fix =
        facts.user.map(|(user, group)| format!("run it in the container with 'exec -u {user}:{group}'"));
    Finding { fix, ..finding(Topic::Hidden, State::Unknown, text) }
}

/// Compares what it uses with what fits. Returns what it gets at its next start.
fn compare(
    running: &Running,
    in_use: InUse,
    expected: Numbers,
    handed: Option<Numbers>,
    findings: &mut Vec<Finding>,
) -> Numbers {
    let mut next = expected;
    let mut differs = false;
    for (used, due, place) in [
        (
            in_use.workers,
            expected.workers,
            [WORKERS_FLAG, WORKERS, UVICORN_WORKERS, WEB_CONCURRENCY].as_slice(),
        ),
        (
            in_use.limit_max_requests,
            expected.limit_max_requests,
            [LIMIT_MAX_REQUESTS_FLAG, LIMIT_MAX_REQUESTS, UVICORN_LIMIT_MAX_REQUESTS].as_slice(),
        ),
    ] {
        let Some(used) = used.filter(|used| *used != due) else {
            continue;
        };
        let is_workers = place.contains(&WORKERS_FLAG);
        let of_env =
            handed.map(|numbers| if is_workers { numbers.workers } else { numbers.limit_max_requests });
        match set_by(running, place) {
            Some(set_by) if of_env != Some(used) || set_by.starts_with("--") => {
                let what = if is_workers { "workers" } else { "recycle limit" };
                *(if is_workers { &mut next.workers } else { &mut next.limit_max_requests }) = used;
                findings.push(finding(Topic::Override, State::Ok, format!("{what} {used} by {set_by}")));
            }
            _ => differs = true,
        }
    }
    let uses = in_use
        .workers
        .map_or_else(|| "unknown numbers".to_owned(), |workers| brief(workers, in_use.limit_max_requests));
    let is_sized = match &running.file {
        Some((_, Ok(_))) => true,
        _ => in_use.origin == Origin::Flag || set_by(running, &[UVICORN_WORKERS, WEB_CONCURRENCY]).is_some(),
    };
    if differs && is_sized {
        let text = format!("it runs {uses}; its present limits allow {}", numbers_text(expected));
        let fix = Some("restart the container, or the process".to_owned());
        findings.push(Finding { fix, ..finding(Topic::MachineChanged, State::Warning, text) });
    } else if differs {
        let why = match &running.file {
            Some((path, Err(why))) => format!("its profile cannot be read: {path}: {why}"),
            _ => "it was started without being sized".to_owned(),
        };
        let text = format!("{why}: it runs {uses}; expected: {}", numbers_text(expected));
        let fix = Some("start it with 'pypnm-sizing exec'".to_owned());
        findings.push(Finding { fix, ..finding(Topic::NotRead, State::Warning, text) });
    }
    let alive = i64::try_from(running.workers).unwrap_or(i64::MAX);
    if let Some(wanted) = in_use.workers.filter(|wanted| *wanted != alive && !differs) {
        let text = format!("{alive} of {wanted} workers are alive");
        findings.push(finding(Topic::WorkersMissing, State::Warning, text));
    }
    next
}

/// What set a number by hand: a flag, a variable, or the operator's own file. `exec` records this in its file; without that
/// file, variables are assumed to be the operator's.
fn set_by(running: &Running, places: &[&'static str]) -> Option<String> {
    let launch = Launch::of_arguments(&running.arguments);
    if let Some((flag, value)) = places.iter().find_map(|name| Some((name, launch.flag(name)?))) {
        return Some(format!("{flag} {value} on its command line"));
    }
    match &running.file {
        Some((_, Ok(text))) if exec_profile::is_ours(text) => {
            places.iter().find_map(|key| exec_profile::set_by(text, key)).map(str::to_owned)
        }
        Some((path, Ok(_))) => Some(format!("{}={path}", pypnm::ENV_FILE)),
        _ if launch.program() == Program::Uvicorn => {
            let environment = running.environment.as_ref()?;
            let is_set = |key: &&&str| environment.get(**key).is_some_and(|value| !value.is_empty());
            places.iter().find(is_set).map(|key| (*key).to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
