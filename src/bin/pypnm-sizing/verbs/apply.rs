//! `apply`: has systemd reload, restarts a running service only where its profile changed, waits until it answers, and
//! checks. Nothing that does not run is started.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, Sizing, size};

use super::check;
use crate::cli::Apply;
use crate::judge::{Judged, Live, Status, judge, names, server};
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::family::Service;
use crate::service::readiness::{self, NotReady};
use crate::service::systemctl;
use crate::wording;

/// What is to be done with one unit after the reload.
enum Step {
    Restart,
    /// Leave it, and why.
    Leave(String),
}

pub(crate) fn run(root: &Root, arguments: &Apply) -> Outcome {
    if !root.is_machine() {
        bail!("apply asks the running systemd; a machine below --root has none");
    }
    let sizing = size(&Request::new(root));
    sizing.problems.iter().for_each(|problem| remark(problem));
    let names = names(&sizing, arguments.unit.as_deref());
    let before: Vec<Judged> = names.iter().map(|name| judge(root, &sizing, name)).collect();
    // Nothing of it is known to systemd: nothing to apply to.
    if let Some(Err(why)) = before.iter().map(|one| &one.verdict).find(|verdict| verdict.is_err())
        && before.iter().all(|one| one.verdict.is_err())
    {
        bail!("{}: {why}", names.join(" "));
    }
    if arguments.dry_run {
        return plan(&before, arguments.no_restart).print();
    }
    systemctl::reload()?;
    say("systemd has reloaded.")?;
    let mut all_well = true;
    for name in &names {
        all_well &= one(root, &sizing, name, arguments)?;
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Restarts one unit if it must be, and says how it is then. Whether all is well.
fn one(root: &Root, sizing: &Sizing, name: &str, arguments: &Apply) -> anyhow::Result<bool> {
    let mut judged = judge(root, sizing, name);
    let due = judged.verdict.as_ref().ok().and_then(|verdict| verdict.due);
    match step(&judged) {
        Step::Leave(why) => say(&format!("{name}: {why}."))?,
        Step::Restart if arguments.no_restart => {
            let due = due.map_or_else(String::new, |due| {
                format!(": {} from its next start on", wording::profile(due.workers, due.limit_max_requests))
            });
            say(&format!("{name}: not restarted, as asked{due}."))?;
            return Ok(true);
        }
        Step::Restart => {
            say(&format!("{name}: its profile changed, restarting …"))?;
            let started = Instant::now();
            let timeout = Duration::from_secs(arguments.timeout);
            systemctl::restart(name, timeout)?;
            let mut service =
                || systemctl::show(name).ok().and_then(|loaded| server(root, &loaded)).map(Service::Unit);
            match readiness::wait(root, &mut service, timeout.saturating_sub(started.elapsed())) {
                Ok(()) => say(&format!("{name}: answers after {} s.", started.elapsed().as_secs()))?,
                Err(NotReady::Unknown(why)) => bail!(why),
                Err(NotReady::No(why)) => {
                    remark(&format!("{name}: {why}; journalctl -u {name} says why"));
                    return Ok(false);
                }
            }
            judged = settled(root, sizing, name, timeout.saturating_sub(started.elapsed()));
        }
    }
    let (word, ink) = check::word(judged.status());
    let mut page = Page::new();
    page.one_line(word, ink, &format!(": {}", check::summary(&judged)));
    page.print()?;
    Ok(judged.status() == Status::Fits)
}

/// The first worker that answers is seldom the last one that starts.
fn settled(root: &Root, sizing: &Sizing, name: &str, patience: Duration) -> Judged {
    let started = Instant::now();
    loop {
        let judged = judge(root, sizing, name);
        if judged.status() == Status::Fits || started.elapsed() >= patience.min(Duration::from_secs(30)) {
            return judged;
        }
    }
}

/// What is to be done with a unit, after a reload.
fn step(judged: &Judged) -> Step {
    let verdict = match &judged.verdict {
        Ok(verdict) => verdict,
        Err(why) => return Step::Leave(why.clone()),
    };
    let state = judged.facts.as_ref().map(|facts| (&facts.live, facts.loaded.active.as_str()));
    match state {
        _ if verdict.restart_is_due => Step::Restart,
        Some((Live::Not, state)) => Step::Leave(format!("it does not run ({state}), and is not started")),
        _ => Step::Leave("the profile of the running service has not changed, not restarted".to_owned()),
    }
}

/// What would be done.
fn plan(before: &[Judged], no_restart: bool) -> Page {
    let mut page = Page::new();
    page.row("", 0, "Would have systemd reload (systemctl daemon-reload).");
    for judged in before {
        let name = &judged.unit;
        // Without our drop-in nothing has told the service anything yet; with one after the reload it is to be told.
        let unsized_yet = judged.verdict.as_ref().is_ok_and(|verdict| {
            verdict.leading().is_some_and(|finding| matches!(finding.topic, "not-generated"))
        });
        let runs = judged.facts.as_ref().is_some_and(|facts| matches!(facts.live, Live::Is(_)));
        let text = match step(judged) {
            Step::Restart if no_restart => "would be left as it is (--no-restart)".to_owned(),
            Step::Restart => "would be restarted: its profile changes".to_owned(),
            Step::Leave(_) if unsized_yet && runs && !no_restart => {
                "would be restarted: it has no profile yet".to_owned()
            }
            Step::Leave(why) => format!("would be left as it is: {why}"),
        };
        page.row("", 0, &format!("{name}: {text}."));
        page.row("", 0, &format!("Now: {}", check::summary(judged)));
    }
    page
}

/// A line of what happened, at once.
fn say(text: &str) -> anyhow::Result<()> {
    answer(&format!("{text}\n")).map(drop)
}
