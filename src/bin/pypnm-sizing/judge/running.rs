//! Findings from the numbers that the running processes use. Pure.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{LIMIT_MAX_REQUESTS_FLAG, WORKERS_FLAG};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::Expected;
use super::in_use::{InUse, Origin, Running, in_use};
use super::live::Live;
use super::topic::{State, Topic};
use super::verdict::{Judge, numbers_text};
use crate::service::launch::Launch;
use crate::service::{generated, handover};
use crate::wording::brief;

impl Judge<'_> {
    /// Compares the running processes with what they get at the next start. Also returns whether a restart fixes the difference.
    pub(super) fn running(&mut self, expected: &Expected, next_start: Numbers) -> (Option<InUse>, bool) {
        let running = match &self.facts.live {
            Live::Not => return (None, false),
            Live::Hidden(why) => {
                self.report(Topic::Hidden, State::Unknown, why.clone(), Some("run it as root"));
                return (None, false);
            }
            Live::Running(running) => running,
        };
        let in_use = in_use(running, expected.default);
        let mut differs = false;
        let is_lowered =
            !self.facts.was_reloaded_since_profile && lowered_at_start(running, in_use, next_start);
        for (flag, used, due, of) in [
            (WORKERS_FLAG, in_use.workers, next_start.workers, (|n| n.workers) as fn(&Numbers) -> i64),
            (LIMIT_MAX_REQUESTS_FLAG, in_use.limit_max_requests, next_start.limit_max_requests, |n| {
                n.limit_max_requests
            }),
        ] {
            if is_lowered || used.is_none_or(|used| used == due) {
                continue;
            }
            match self.standing_flag(running, flag, due, of) {
                Some(value) => {
                    let text = format!("{flag} {value} on its command line");
                    self.report(Topic::Override, State::Ok, text, None);
                }
                None => differs = true,
            }
        }
        if is_lowered {
            let uses = brief(in_use.workers.unwrap_or_default(), in_use.limit_max_requests);
            let text =
                format!("less was available when it was started than at the last reload: it runs {uses}");
            self.report(Topic::MachineChanged, State::Ok, text, None);
        }
        // If it sizes itself, equal numbers are a coincidence.
        let is_other = differs || in_use.origin == Origin::Itself;
        let is_reported = self.findings.iter().any(|finding| finding.topic == Topic::NotRead);
        let mut restart = is_other && !is_reported && self.other_numbers(running, in_use, next_start);
        self.alive(running, in_use, &mut restart);
        (Some(in_use), restart)
    }

    /// A flag on the command line of the running process that will be there at the next start as well. If the unit starts
    /// PyPNM or uvicorn directly, the sizing has found every such flag, so a flag of the process alone is from before a change.
    /// A script adds its own flags: fixed ones, unless it has changed since, or some with numbers from the profile that it was
    /// started with.
    fn standing_flag(
        &self,
        running: &Running,
        flag: &str,
        next_start: i64,
        of: fn(&Numbers) -> i64,
    ) -> Option<String> {
        if self.command().program() != Program::Unknown {
            return None;
        }
        let value = Launch::of_arguments(&running.arguments).flag(flag)?.to_owned();
        let started_with = match running.profile() {
            Some(ProfileFile::Taken(numbers)) => Some(of(&numbers)),
            _ => None,
        };
        let is_fixed = started_with == Some(next_start) && self.facts.changed_since_start.is_none();
        is_fixed.then_some(value)
    }

    /// Reports why the running service uses other numbers. Returns whether a restart fixes it.
    fn other_numbers(&mut self, running: &Running, in_use: InUse, next_start: Numbers) -> bool {
        let facts = self.facts;
        let uses = in_use.workers.map_or_else(
            || "unknown numbers".to_owned(),
            |workers| brief(workers, in_use.limit_max_requests),
        );
        let fix = format!("systemctl restart {}", facts.unit);
        if in_use.origin == Origin::Itself {
            let has_variable =
                running.environment.as_ref().is_none_or(|all| all.contains_key(pypnm::ENV_FILE));
            let text = match (&running.file, has_variable) {
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
            let text = format!("{text}; it sizes itself: {uses}; expected: {}", numbers_text(next_start));
            self.report(Topic::NotRead, State::Warning, text, Some(&fix));
            return true;
        }
        if !facts.hidden_files.is_empty() {
            let files = facts.hidden_files.join(", ");
            let text = format!(
                "it runs {uses}, loaded: {}; {files}, which this user may not read, may override that",
                numbers_text(next_start)
            );
            self.report(Topic::Hidden, State::Unknown, text, Some("run it as root"));
            return false;
        }
        let text = if self.findings.iter().any(|finding| finding.state == State::Warning) {
            format!("it runs {uses}")
        } else {
            format!(
                "it runs {uses} from before the last reload or change; loaded: {}",
                numbers_text(next_start)
            )
        };
        self.report(Topic::NotRestarted, State::Warning, text, Some(&fix));
        true
    }

    /// Whether the service runs under the launcher of pypnm-sizing-handover(7).
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(&self.facts.live, Live::Running(running) if handover::is_launcher(&running.arguments))
    }

    /// Checks the number of workers that are alive.
    fn alive(&mut self, running: &Running, in_use: InUse, restart: &mut bool) {
        let (Some(wanted), alive) = (in_use.workers, running.workers) else {
            return;
        };
        let alive = i64::try_from(alive).unwrap_or(i64::MAX);
        let has_warning = self.findings.iter().any(|finding| finding.state >= State::Warning);
        if alive == wanted || has_warning {
            return;
        }
        // One worker is starting, or finishing its requests, while another one serves in its place.
        let is_successor = alive == wanted.saturating_add(1) && self.is_handed_over();
        if is_successor || self.findings.iter().any(|finding| finding.topic == Topic::Reloading) {
            return;
        }
        if running.is_single && wanted > 1 {
            let text = format!(
                "PyPNM runs as a single process although its profile specifies {wanted} workers: it does not read \
                 the profile (versions before 1.6 do not)"
            );
            self.report(Topic::NotRead, State::Warning, text, None);
        } else {
            let text = format!("{alive} of {wanted} workers are alive");
            let fix = format!("journalctl -u {}", self.facts.unit);
            self.report(Topic::WorkersMissing, State::Warning, text, Some(&fix));
        }
        *restart = false;
    }
}

/// Whether the service was started with the numbers that are loaded, and `env` lowered them at that start: its environment
/// has the numbers from systemd, and its profile file the lowered ones.
fn lowered_at_start(running: &Running, in_use: InUse, next_start: Numbers) -> bool {
    let given = running.environment.as_ref().and_then(generated::numbers);
    let Some(ProfileFile::Taken(written)) = running.profile() else {
        return false;
    };
    let is_used = in_use.workers == Some(written.workers)
        && in_use.limit_max_requests == Some(written.limit_max_requests);
    let is_lower = written.workers <= next_start.workers
        && written.limit_max_requests <= next_start.limit_max_requests
        && written != next_start;
    given == Some(next_start) && is_used && is_lower
}
