//! Findings from the numbers that the running processes use. Pure.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::Expected;
use super::live::Live;
use super::topic::{Finding, State, Topic};
use super::verdict::Judge;
use crate::service::in_use::{InUse, Origin, in_use};
use crate::service::launch::Launch;
use crate::service::running::Running;
use crate::service::{generated, handover};
use crate::wording::{self, brief, flag_text};

impl Judge<'_> {
    /// Compares the running processes with what they get at the next start.
    pub(super) fn running(&mut self, expected: &Expected, next_start: Numbers) {
        let running = match &self.facts.live {
            Live::Inactive => return,
            Live::Hidden => {
                let text = "it is active, but its processes are hidden from this user";
                return self.report(Finding::hidden(text));
            }
            Live::Running(running) => running,
        };
        let in_use = in_use(running, Some(expected.default));
        self.verdict.in_use = Some(in_use);
        let differs =
            if !self.facts.was_reloaded_since_profile && lowered_at_start(running, in_use, next_start) {
                let text = format!(
                    "fewer resources were available at its start than at the last reload: it runs {}",
                    wording::in_use(in_use)
                );
                self.report(Finding::new(Topic::MachineChanged, State::Ok, text));
                false
            } else {
                self.differs(running, in_use, next_start)
            };
        // If it sizes itself, equal numbers are a coincidence.
        if (differs || in_use.origin == Origin::Itself) && !self.verdict.has(Topic::NotRead) {
            self.other_numbers(running, in_use, next_start);
        }
        self.alive(running, in_use);
    }

    /// Whether it uses other numbers than at the next start, except for those that its flags will set again.
    fn differs(&mut self, running: &Running, in_use: InUse, next_start: Numbers) -> bool {
        let started_with = running.profile();
        let mut differs = false;
        for (flag, used, due, started_with) in [
            (WORKERS_FLAG, in_use.workers, next_start.workers, started_with.map(|numbers| numbers.workers)),
            (
                LIMIT_MAX_REQUESTS_FLAG,
                in_use.limit_max_requests,
                next_start.limit_max_requests,
                started_with.map(|numbers| numbers.limit_max_requests),
            ),
        ] {
            if used.is_none_or(|used| used == due) {
                continue;
            }
            match self.standing_flag(running, flag).filter(|_| started_with == Some(due)) {
                Some(value) => {
                    self.report(Finding::new(Topic::Override, State::Ok, flag_text(flag, value)));
                }
                None => differs = true,
            }
        }
        differs
    }

    /// A flag on the command line of the running process that may be there at the next start as well. If the unit starts
    /// PyPNM or uvicorn directly, the sizing has found every such flag, so a flag of the process alone is from before a change.
    /// A script adds its own flags: fixed ones, unless it has changed since, or some with numbers from the profile that it was
    /// started with.
    fn standing_flag<'a>(&self, running: &'a Running, flag: &str) -> Option<&'a str> {
        let is_script =
            self.command().program() == Program::Unknown && self.facts.changed_since_start.is_none();
        Launch::from_arguments(&running.arguments).flag(flag).filter(|_| is_script)
    }

    /// Reports why the running service uses other numbers.
    fn other_numbers(&mut self, running: &Running, in_use: InUse, next_start: Numbers) {
        let facts = self.facts;
        let (uses, due) = (wording::in_use(in_use), brief(next_start));
        let (topic, text) = if in_use.origin == Origin::Itself {
            let has_variable =
                running.environment.as_ref().is_none_or(|all| all.contains_key(pypnm::ENV_FILE));
            let why = match (&running.file, has_variable) {
                (_, false) => "it was started before it was sized".to_owned(),
                (None, true) => "PyPNM has no profile file".to_owned(),
                (Some((path, Err(why))), true) => format!("PyPNM cannot read its profile: {path}: {why}"),
                (Some((path, Ok(text))), true) => match pypnm::read_profile_file(text) {
                    ProfileFile::Ignored(key) => format!("PyPNM ignores its profile: {path} has no {key}"),
                    ProfileFile::Taken(_) | ProfileFile::Crashes(..) => {
                        format!("PyPNM does not take its profile from {path}")
                    }
                },
            };
            (Topic::NotRead, format!("{why}; it sizes itself: {uses}; expected: {due}"))
        } else if !facts.hidden_files.is_empty() {
            let files = facts.hidden_files.join(", ");
            return self.report(Finding::hidden(format!(
                "it runs {uses}, loaded: {due}; {files}, which this user may not read, may override that"
            )));
        } else if self.verdict.findings.iter().any(|finding| finding.state == State::Warning) {
            (Topic::NotRestarted, format!("it runs {uses}"))
        } else {
            let text = format!("it runs {uses} from before the last reload or change; loaded: {due}");
            (Topic::NotRestarted, text)
        };
        let fix = format!("systemctl restart {}", facts.unit);
        self.report(Finding::new(topic, State::Warning, text).fixed_by(fix));
        self.verdict.needs_restart = true;
    }

    /// Whether the service runs under the launcher of pypnm-sizing-handover(7).
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(&self.facts.live, Live::Running(running) if handover::is_launcher(&running.arguments))
    }

    /// Checks the number of workers that are alive, unless there is a reason for a different one.
    fn alive(&mut self, running: &Running, in_use: InUse) {
        let alive = running.workers;
        let Some(wanted) = in_use.workers.filter(|wanted| *wanted != alive) else { return };
        // One worker is starting, or finishing its requests, while another one serves in its place.
        let is_successor = alive == wanted.saturating_add(1) && self.is_handed_over();
        if self.verdict.state() >= State::Warning || is_successor || self.verdict.has(Topic::Reloading) {
            return;
        }
        self.report(if running.is_single && wanted > 1 {
            let text = format!(
                "PyPNM runs as a single process although its profile specifies {wanted} workers: it does not read \
                 the profile (versions before 1.6 do not)"
            );
            Finding::new(Topic::NotRead, State::Warning, text)
        } else {
            let text = format!("{alive} of {wanted} workers are alive");
            let finding = Finding::new(Topic::WorkersMissing, State::Warning, text);
            finding.fixed_by(format!("journalctl -u {}", self.facts.unit))
        });
    }
}

/// Whether the service was started with the numbers that are loaded, and `env` lowered them at that start: its environment
/// has the numbers from systemd, and its profile file the lowered ones.
fn lowered_at_start(running: &Running, in_use: InUse, next_start: Numbers) -> bool {
    let given = running.environment.as_ref().and_then(generated::numbers);
    running.profile().is_some_and(|written| {
        let is_used = in_use.workers == Some(written.workers)
            && in_use.limit_max_requests == Some(written.limit_max_requests);
        let is_lower = written.workers <= next_start.workers
            && written.limit_max_requests <= next_start.limit_max_requests
            && written != next_start;
        given == Some(next_start) && is_used && is_lower
    })
}
