//! Judges PyPNM by a process: in a container, including one that a unit starts, seen from inside or from its host, or started
//! by hand. Compares what its cgroups at every visible level and its affinity permit with what its workers were started with.

use pypnm_sizing::command::Program;
use pypnm_sizing::limits::process::LimitedProcess;
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG,
};
use pypnm_sizing::pypnm::{self, LIMIT_MAX_REQUESTS, Numbers, WORKERS};
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::Sizing;
use pypnm_sizing::sizing::{Request, size};
use pypnm_sizing::watch::role::main_process;

use super::facts::{Facts, ProcessFacts, expected, mistakes};
use super::judged::{Judged, judged_when_complete};
use super::topic::{Finding, State, Topic};
use super::verdict::Verdict;
use crate::service::container::ProcessFiles;
use crate::service::exec_profile;
use crate::service::family::{self, Presence, Service};
use crate::service::in_use::{InUse, Origin, in_use};
use crate::service::launch::Launch;
use crate::service::process;
use crate::service::running::Running;
use crate::wording::{self, brief, flag_text, workers_text};

/// Judges the process `pid`, or its parent if it is a worker; again while only a worker seems to be missing. Also returns the
/// sizing, if there is one.
pub(crate) fn judge(machine: &Root, pid: u32) -> (Judged, Option<Sizing>) {
    judged_when_complete(&mut || judge_once(machine, pid), |(judged, _)| &judged.verdict)
}

fn judge_once(machine: &Root, pid: u32) -> (Judged, Option<Sizing>) {
    let unit = format!("process {pid}");
    match gather(machine, pid) {
        Ok((process, sizing)) => {
            let verdict = verdict(&process, None);
            (Judged { unit, facts: None, process: Some(process), verdict }, Some(sizing))
        }
        Err(finding) => (Judged { unit, facts: None, process: None, verdict: Verdict::only(finding) }, None),
    }
}

/// Judges a unit whose PyPNM `pid` runs in a container. `judged`: the verdict on the unit's state in systemd.
pub(super) fn judge_contained(machine: &Root, pid: u32, unit: Facts, judged: Verdict) -> Judged {
    let name = unit.unit.clone();
    let (process, mut verdict) = match gather(machine, pid) {
        Ok((facts, _)) => {
            let verdict = verdict(&facts, passed_on(machine, &unit));
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
fn passed_on(machine: &Root, unit: &Facts) -> Option<Numbers> {
    let path = unit.generated.as_ref()?.get(pypnm::ENV_FILE)?;
    pypnm::read_profile_file(&machine.text(path).ok()?).taken()
}

fn gather(machine: &Root, pid: u32) -> Result<(ProcessFacts, Sizing), Finding> {
    let gone = || Finding::new(Topic::NotRunning, State::Critical, "there is no such process");
    match family::presence(machine, pid) {
        Presence::Running => {}
        Presence::Ended => return Err(gone()),
        Presence::Hidden => {
            return Err(Finding::new(Topic::Hidden, State::Unknown, "/proc hides it from this user"));
        }
    }
    let found = process::read(machine, &[pid]);
    let given = found.first().ok_or_else(gone)?;
    let top = if given.candidate().is_spawned() && given.parent > 1 { given.parent } else { pid };
    let family: Vec<u32> = family::processes(machine, Service::Tree(top)).into_keys().collect();
    let mut processes = process::read(machine, &family);
    // A process that has ended has no arguments.
    processes.retain(|process| !process.arguments.is_empty());
    let candidates = process::candidates(&processes);
    let serves = candidates.iter().any(|candidate| candidate.is_server() || candidate.is_spawned());
    let Some(main) = main_process(&candidates).filter(|_| serves) else {
        let text = "neither it nor any process that it started is PyPNM or uvicorn";
        return Err(Finding::new(Topic::NotRunning, State::Unknown, text));
    };
    let files = ProcessFiles::find(machine, main).map_err(|error| {
        Finding::new(Topic::Hidden, State::Unknown, format!("its files cannot be read: {error}"))
    })?;
    let Some(root) = files.root(machine) else {
        let text = "this user is not permitted to read the files and the environment of its container";
        return Err(Finding::hidden(text));
    };
    let sizing = size(&Request {
        kernel: Some(machine),
        process: Some(LimitedProcess::OutsideUnits(main)),
        ..Request::new(root)
    });
    let expected = match sizing.units.first() {
        Some(unit) => Ok(expected(&sizing.host, unit)),
        None => Err(wording::turned_off(&sizing).unwrap_or_else(|| "nothing to size".to_owned())),
    };
    let facts = ProcessFacts {
        expected,
        running: Running::read(machine, &files, &processes, main),
        user: process::user(machine, main).zip(process::group(machine, main)),
        mistakes: mistakes(&sizing.problems),
    };
    Ok((facts, sizing))
}

/// Judges the facts. `passed_on`: numbers that were not set by hand, although variables set them. Pure.
fn verdict(facts: &ProcessFacts, passed_on: Option<Numbers>) -> Verdict {
    let mut verdict = Verdict::default();
    match &facts.expected {
        Ok(expected) => {
            let in_use = in_use(&facts.running, Some(expected.default));
            for setting in &expected.set_by_hand {
                verdict.report(Finding::new(Topic::SetByHand, State::Ok, setting));
            }
            verdict.next_start = Some(expected.numbers);
            if facts.running.environment.is_none() && in_use.origin != Origin::Flag {
                verdict.report(hidden(facts, expected.numbers));
            } else {
                verdict.in_use = Some(in_use);
                compare(&mut verdict, &facts.running, in_use, expected.numbers, passed_on);
            }
        }
        Err(why) => {
            verdict.report(Finding::new(Topic::TurnedOff, State::Ok, format!("it is not sized: {why}")));
        }
    }
    verdict.report_mistakes(&facts.mistakes);
    verdict
}

fn hidden(facts: &ProcessFacts, expected: Numbers) -> Finding {
    let text = format!(
        "its environment, and so its recycle limit and its profile, cannot be read (this requires its user \
         and group, or CAP_SYS_PTRACE); {} alive; expected: {}",
        workers_text(facts.running.workers),
        brief(expected)
    );
    let finding = Finding::new(Topic::Hidden, State::Unknown, text);
    match facts.user {
        Some((user, group)) => {
            finding.fixed_by(format!("run it in the container with 'exec -u {user}:{group}'"))
        }
        None => finding,
    }
}

/// Compares what it uses with what fits. Determines what it gets at its next start.
fn compare(
    verdict: &mut Verdict,
    running: &Running,
    in_use: InUse,
    expected: Numbers,
    passed_on: Option<Numbers>,
) {
    let mut next = expected;
    let mut differs = false;
    for (what, used, due, passed_on, places) in [
        (
            "workers",
            in_use.workers,
            &mut next.workers,
            passed_on.map(|numbers| numbers.workers),
            &[WORKERS_FLAG, WORKERS, UVICORN_WORKERS, WEB_CONCURRENCY][..],
        ),
        (
            "recycle limit",
            in_use.limit_max_requests,
            &mut next.limit_max_requests,
            passed_on.map(|numbers| numbers.limit_max_requests),
            &[LIMIT_MAX_REQUESTS_FLAG, LIMIT_MAX_REQUESTS, UVICORN_LIMIT_MAX_REQUESTS],
        ),
    ] {
        let Some(used) = used.filter(|used| used != due) else {
            continue;
        };
        match set_by(running, places) {
            Some(set_by) if passed_on != Some(used) || set_by.starts_with("--") => {
                *due = used;
                let text = format!("{what} {used} by {set_by}");
                verdict.report(Finding::new(Topic::Override, State::Ok, text));
            }
            _ => differs = true,
        }
    }
    verdict.next_start = Some(next);
    let (uses, expected) = (wording::in_use(in_use), brief(expected));
    let is_sized = match &running.file {
        Some((_, Ok(_))) => true,
        _ => in_use.origin == Origin::Flag || set_by(running, &[UVICORN_WORKERS, WEB_CONCURRENCY]).is_some(),
    };
    let alive = running.workers;
    verdict.findings.extend(if differs && is_sized {
        let text = format!("it runs {uses}; its current limits allow {expected}");
        let finding = Finding::new(Topic::MachineChanged, State::Warning, text);
        Some(finding.fixed_by("restart the container, or the process"))
    } else if differs {
        let why = match &running.file {
            Some((path, Err(why))) => format!("its profile cannot be read: {path}: {why}"),
            _ => "it was started without being sized".to_owned(),
        };
        let text = format!("{why}: it runs {uses}; expected: {expected}");
        let finding = Finding::new(Topic::NotRead, State::Warning, text);
        Some(finding.fixed_by("start it with 'pypnm-sizing exec'"))
    } else {
        in_use.workers.filter(|wanted| *wanted != alive).map(|wanted| {
            let text = format!("{alive} of {wanted} workers are alive");
            Finding::new(Topic::WorkersMissing, State::Warning, text)
        })
    });
}

/// What set a number by hand: a flag, a variable, or the operator's own file. `exec` records this in its file; without that
/// file, variables are assumed to be the operator's.
fn set_by(running: &Running, places: &[&'static str]) -> Option<String> {
    let launch = Launch::from_arguments(&running.arguments);
    if let Some((flag, value)) = places.iter().find_map(|name| Some((name, launch.flag(name)?))) {
        return Some(flag_text(flag, value));
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
