//! `apply`: reloads systemd, applies a changed profile to a running service, waits until it answers, and checks the result. A
//! service under the launcher is reloaded if only its profile has changed; otherwise it is restarted. Services that are not
//! running are not started.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Request, size};

use crate::cli::Apply;
use crate::judge::summary::{print_line, summary};
use crate::judge::{Judged, Live, Question, State, Topic, names, server};
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::family::Service;
use crate::service::handover;
use crate::service::readiness::{self, NotReady};
use crate::service::systemctl;
use crate::wording;

/// The interval between two looks at a service.
const PAUSE: Duration = Duration::from_millis(500);
/// The time for the other workers to start after the first one.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do with a unit after the reload.
enum Action {
    /// Reload it: the launcher replaces the workers.
    Reload,
    /// Restart it, and why a reload is not sufficient, in parentheses, if it runs under the launcher.
    Restart(String),
    /// Leave it unchanged, and why.
    Leave(String),
}

pub(crate) fn run(root: &Root, arguments: &Apply) -> Outcome {
    if !root.is_machine() {
        bail!("apply controls the running systemd, so --root is not supported");
    }
    let sizing = size(&Request::new(root));
    sizing.problems.iter().for_each(|problem| remark(problem));
    let question = Question { root, sizing: &sizing, must_run: false };
    let names = names(&sizing, arguments.unit.as_deref());
    let before = question.judge_all(&names);
    // systemd has no such unit: there is nothing to apply to.
    if let Some(first) = before.first()
        && before.iter().all(|judged| why_not(judged).is_some())
    {
        bail!("{}: {}", names.join(" "), why_not(first).unwrap_or_default());
    }
    if arguments.dry_run {
        return plan(root, &before, arguments.no_restart).print();
    }
    systemctl::reload()?;
    progress("systemd has reloaded.")?;
    let mut is_ok = true;
    for name in &names {
        is_ok &= apply(&question, name, arguments)?;
    }
    Ok(if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why nothing can be applied to a unit. `None`: it can.
fn why_not(judged: &Judged) -> Option<&str> {
    let lacks_unit = matches!(
        judged.verdict.leading()?.topic,
        Topic::UnitMissing | Topic::UnitMasked | Topic::NoSystemd | Topic::Template
    );
    lacks_unit.then_some(judged.verdict.leading()?.text.as_str())
}

/// Reloads or restarts a unit if necessary, and reports its state. Returns whether all is well.
fn apply(question: &Question<'_>, name: &str, arguments: &Apply) -> anyhow::Result<bool> {
    let timeout = Duration::from_secs(arguments.timeout);
    let began = Instant::now();
    let (mut judged, has_waited) = started_up(question, name, timeout)?;
    if judged.verdict.has(Topic::Starting) && !arguments.no_restart {
        remark(&format!(
            "{name}: still starting after {} s; run apply again once it is up (see 'systemctl status {name}')",
            timeout.as_secs()
        ));
        return Ok(false);
    }
    let is_up = judged.facts.as_ref().is_some_and(|facts| matches!(facts.live, Live::Running(_)));
    if has_waited && is_up && !judged.verdict.needs_restart {
        if !answers(question.root, name, began, timeout)? {
            return Ok(false);
        }
        judged = settled(question, name, timeout.saturating_sub(began.elapsed()));
    }
    let action = action(question.root, &judged);
    if let Action::Leave(why) = &action {
        progress(&format!("{name}: {why}."))?;
    } else if arguments.no_restart {
        let next_start = judged.verdict.next_start;
        let numbers = next_start
            .map_or_else(String::new, |next| format!(": {} from its next start on", wording::profile(next)));
        progress(&format!("{name}: not restarted, as requested{numbers}."))?;
        return Ok(true);
    } else {
        let restarted = Instant::now();
        if let Action::Restart(why) = action {
            progress(&format!("{name}: its profile has changed, restarting{why} …"))?;
            systemctl::restart(name, timeout)?;
        } else {
            progress(&format!("{name}: its profile has changed, reloading …"))?;
            systemctl::reload_unit(name, timeout)?;
        }
        if !answers(question.root, name, restarted, timeout)? {
            return Ok(false);
        }
        judged = settled(question, name, timeout.saturating_sub(restarted.elapsed()));
    }
    print_line(judged.state(), &format!(" - {}", summary(&judged)))?;
    Ok(judged.state() == State::Ok)
}

/// Waits until a unit that was started at `since` answers. If it does not in time, reports that and returns false.
fn answers(root: &Root, name: &str, since: Instant, timeout: Duration) -> anyhow::Result<bool> {
    let mut service =
        || systemctl::show(name).ok().and_then(|loaded| server(root, &loaded)).map(Service::Unit);
    match readiness::wait(root, &mut service, timeout.saturating_sub(since.elapsed())) {
        Ok(None) => progress(&format!("{name}: answers after {} s.", since.elapsed().as_secs()))?,
        Ok(Some(caveat)) => progress(&format!("{name}: {caveat}."))?,
        Err(NotReady::Unknown(why)) => bail!(why),
        Err(NotReady::No(why)) => {
            remark(&format!("{name}: {why}; see 'journalctl -u {name}'"));
            return Ok(false);
        }
    }
    Ok(true)
}

/// Judges a unit once it is no longer starting, and returns whether that took a while. A service that is about to be restarted
/// automatically gets one more attempt.
fn started_up(question: &Question<'_>, name: &str, timeout: Duration) -> anyhow::Result<(Judged, bool)> {
    let began = Instant::now();
    let mut judged = question.judge(name);
    let restarts = |judged: &Judged| judged.facts.as_ref().map(|facts| facts.loaded.automatic_restarts);
    let before = restarts(&judged);
    let is_starting = |judged: &Judged| {
        let waits = judged.facts.as_ref().is_some_and(|facts| facts.loaded.sub.starts_with("auto-restart"));
        judged.verdict.has(Topic::Starting) || (waits && restarts(judged) == before)
    };
    let waits = is_starting(&judged);
    if waits {
        progress(&format!("{name}: the service is starting, waiting …"))?;
    }
    while is_starting(&judged) && began.elapsed() < timeout {
        std::thread::sleep(PAUSE);
        judged = question.judge(name);
    }
    Ok((judged, waits))
}

/// Judges a unit once all its workers have had time to start: the first one that answers is rarely the last to start.
fn settled(question: &Question<'_>, name: &str, patience: Duration) -> Judged {
    let began = Instant::now();
    loop {
        let judged = question.judge(name);
        let is_passing = judged.verdict.has(Topic::WorkersMissing) || judged.verdict.has(Topic::Starting);
        if !is_passing || began.elapsed() >= patience.min(SETTLE_TIMEOUT) {
            return judged;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What to do with a unit after the reload.
fn action(root: &Root, judged: &Judged) -> Action {
    let (None, Some(facts)) = (why_not(judged), &judged.facts) else {
        return Action::Leave(why_not(judged).unwrap_or_default().to_owned());
    };
    let active = &facts.loaded.active;
    match &facts.live {
        Live::Running(running)
            if judged.verdict.needs_restart && handover::is_launcher(&running.arguments) =>
        {
            let environment = running.environment.as_ref();
            let why = handover::why_restart(root, &facts.loaded, &running.arguments, environment);
            why.map_or(Action::Reload, |why| Action::Restart(format!(" ({why})")))
        }
        _ if judged.verdict.needs_restart => Action::Restart(String::new()),
        Live::Inactive if active == "activating" => {
            Action::Leave("it is still starting, not restarted".to_owned())
        }
        Live::Inactive => Action::Leave(format!("it is not running ({active}) and is not started")),
        Live::Hidden | Live::Running(_) => Action::Leave(
            "the profile of the running service has not changed, so it is not restarted".to_owned(),
        ),
    }
}

/// What would be done.
fn plan(root: &Root, before: &[Judged], no_restart: bool) -> Page {
    let mut page = Page::new();
    page.row("", 0, "Would reload systemd (systemctl daemon-reload).");
    for judged in before {
        let name = &judged.unit;
        // A service without our drop-in gets its first profile with the reload.
        let is_unsized_yet = judged.verdict.has(Topic::NotGenerated);
        let runs = judged.facts.as_ref().is_some_and(|facts| matches!(facts.live, Live::Running(_)));
        let text = match action(root, judged) {
            Action::Restart(_) | Action::Reload if no_restart => {
                "would be left unchanged (--no-restart)".to_owned()
            }
            Action::Reload => "would be reloaded: its profile has changed".to_owned(),
            Action::Restart(why) => format!("would be restarted: its profile has changed{why}"),
            Action::Leave(_) if is_unsized_yet && runs && !no_restart => {
                "would be restarted: it has no profile yet".to_owned()
            }
            Action::Leave(why) => format!("would be left unchanged: {why}"),
        };
        page.row("", 0, &format!("{name}: {text}."));
        page.row("", 0, &format!("Now: {}", summary(judged)));
    }
    page
}

/// Prints a line about the progress immediately.
fn progress(text: &str) -> anyhow::Result<()> {
    answer(&format!("{text}\n")).map(drop)
}
