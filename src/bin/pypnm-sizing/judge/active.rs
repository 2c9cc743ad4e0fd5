//! Findings from the states of the unit in systemd: whether the service is running at all. Pure.

use std::time::Duration;

use super::live::Live;
use super::topic::{State, Topic};
use super::verdict::{APPLY, Judge};

/// A service whose main process ends sooner than this has not reached its recycle limit.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// A service whose single worker reached the recycle limit is active again within this time.
const TIME_TO_RECYCLE: Duration = Duration::from_mins(1);
/// `si_code` of a process that exited, or was killed (sigaction(2)).
const EXITED: i64 = 1;
const KILLED: i64 = 2;

impl Judge<'_> {
    /// Checks whether systemd has the unit, and its state. Returns whether there is more to judge.
    pub(super) fn service(&mut self, must_run: bool) -> bool {
        let facts = self.facts;
        let (unit, loaded) = (&facts.unit, &facts.loaded);
        match loaded.load.as_str() {
            "loaded" => {}
            "not-found" => {
                let text = "systemd has no such unit".to_owned();
                self.report(Topic::UnitMissing, State::Critical, text, None);
                self.other_units();
                return false;
            }
            "masked" => {
                let state = if must_run { State::Critical } else { State::Unknown };
                let fix = format!("systemctl unmask {unit}");
                self.report(Topic::UnitMasked, state, "the unit is masked".to_owned(), Some(&fix));
                self.other_units();
                return false;
            }
            other => {
                let text = format!("systemd cannot load the unit ({other})");
                let fix = format!("systemctl status {unit}");
                self.report(Topic::UnitMissing, State::Critical, text, Some(&fix));
                return false;
            }
        }
        let log = format!("journalctl -u {unit}");
        match loaded.active.as_str() {
            "reloading" if self.is_handed_over() => {
                let text = "a reload is in progress; workers are being replaced".to_owned();
                self.report(Topic::Reloading, State::Ok, text, None);
            }
            "active" | "activating" if facts.was_restarted_meanwhile => self.looping(&log),
            "active" if loaded.sub == "exited" => {
                // Such a unit may have started a container, whose processes are not in the unit.
                let is_oneshot = loaded.service_type == "oneshot" && !must_run;
                let state = if is_oneshot { State::Unknown } else { State::Critical };
                let text = "the service is active, but it has no process (exited)".to_owned();
                self.report(Topic::NotRunning, state, text, Some(&log));
            }
            "active" | "reloading" | "refreshing" => {}
            "failed" => {
                let text = format!("the service has failed ({})", loaded.result);
                self.report(Topic::Failed, State::Critical, text, Some(&log));
            }
            "activating" if self.is_looping() => self.looping(&log),
            "activating" => {
                let text = format!("the service is starting ({})", loaded.sub);
                self.report(Topic::Starting, State::Ok, text, None);
            }
            "inactive" | "deactivating" if loaded.will_start => {
                let text = format!("the service is about to start ({})", loaded.sub);
                self.report(Topic::Starting, State::Ok, text, None);
            }
            "deactivating" => self.stopping(must_run, &log),
            "inactive" if self.has_exited_alone() => {
                let text =
                    "the service has exited without having been stopped, and systemd does not restart it";
                self.report(Topic::Failed, State::Critical, text.to_owned(), Some(&log));
            }
            "inactive" if loaded.is_due_since_boot() => self.not_started(must_run),
            state => {
                let (topic, text, own) = if loaded.conditions_met == Some(false) && state == "inactive" {
                    let text =
                        "the service was not started: a condition of its unit is not met; for the packaged \
                                unit, PyPNM is not installed where the unit looks for it"
                            .to_owned();
                    (Topic::ConditionFailed, text, State::Warning)
                } else {
                    (Topic::NotRunning, format!("the service is not running ({state})"), State::Ok)
                };
                let fix = match topic {
                    Topic::ConditionFailed => {
                        facts.setup.clone().unwrap_or_else(|| format!("systemctl status {unit}"))
                    }
                    _ => format!("systemctl start {unit}"),
                };
                let found = if must_run { State::Critical } else { own };
                self.report(topic, found, text, (found != State::Ok).then_some(&fix));
            }
        }
        if facts.live == Live::Not {
            self.other_units();
        }
        true
    }

    fn stopping(&mut self, must_run: bool, log: &str) {
        let loaded = &self.facts.loaded;
        let (topic, own, text) = if loaded.result == "success" {
            (Topic::NotRunning, State::Ok, format!("the service is stopping ({})", loaded.sub))
        } else {
            let text = format!("the service has failed ({}) and is stopping ({})", loaded.result, loaded.sub);
            (Topic::Failed, State::Critical, text)
        };
        let state = if must_run { State::Critical } else { own };
        self.report(topic, state, text, (state != State::Ok).then_some(log));
    }

    /// The boot should have started the service. Without a reason, it may have been enabled since then.
    fn not_started(&mut self, must_run: bool) {
        let facts = self.facts;
        let reason = match &facts.failed_requirement {
            _ if facts.loaded.assertion_failed => Some("an assertion of its unit is not met".to_owned()),
            Some(required) => Some(format!("{required}, which it requires, has failed")),
            None => None,
        };
        let state = if must_run || reason.is_some() { State::Critical } else { State::Warning };
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let text = format!("the service is enabled, but has not been started since the boot{reason}");
        // Two of them would use the same port.
        let is_only = facts.other_units.is_empty() && facts.other_process.is_none();
        let fix = is_only.then(|| format!("systemctl start {}", facts.unit));
        self.report(Topic::NotRunning, state, text, fix.as_deref());
    }

    fn looping(&mut self, log: &str) {
        let times = match self.facts.loaded.automatic_restarts {
            0 => String::new(),
            1 => ", restarted once".to_owned(),
            times => format!(", restarted {times} times"),
        };
        let text = format!("the service keeps exiting and being restarted{times}");
        self.report(Topic::Looping, State::Critical, text, Some(log));
    }

    /// Whether the main process ended on its own in a way that counts as success, such as with status 0 at its recycle limit.
    /// If a unit is stopped, it is no longer active when its processes end; here the order is reversed.
    fn has_exited_alone(&self) -> bool {
        let loaded = &self.facts.loaded;
        // The signals of a clean exit: SIGHUP, SIGINT, SIGPIPE, SIGTERM (systemd.service(5)). After any other end, the unit
        // has failed; if it no longer counts as failed, an operator has reset that state.
        let is_clean = matches!(loaded.main_ended, (EXITED, 0) | (KILLED, 1 | 2 | 13 | 15));
        is_clean && loaded.main_exited > 0 && loaded.main_exited < loaded.active_exited
    }

    /// Reports settings because of which systemd or the launcher does not find the program.
    pub(super) fn lost_program(&mut self) {
        let loaded = &self.facts.loaded;
        let cannot_start =
            loaded.load != "loaded" || matches!(loaded.active.as_str(), "failed" | "activating");
        for lost in &self.facts.lost_program {
            let state = match lost.is_harmful {
                false => State::Ok,
                true if cannot_start => State::Critical,
                true => State::Warning,
            };
            self.report(Topic::ProgramPath, state, lost.text.clone(), None);
        }
    }

    /// Whether a service that is starting exits soon after each start. A service whose single worker reached the recycle
    /// limit is restarted as well, but it ran for longer, exited successfully, and is soon active again.
    fn is_looping(&self) -> bool {
        let loaded = &self.facts.loaded;
        let since = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        let now = u64::try_from(self.facts.now.as_micros()).unwrap_or(u64::MAX);
        if loaded.sub.starts_with("auto-restart") {
            let had_short_life = loaded.main_exited >= loaded.main_started
                && since(loaded.main_started, loaded.main_exited) < SHORT_LIFE;
            return loaded.result != "success" || had_short_life;
        }
        let was_never_active = loaded.active_entered == 0;
        let is_long_inactive = since(loaded.active_exited, now) > TIME_TO_RECYCLE;
        loaded.automatic_restarts > 1 && (was_never_active || is_long_inactive)
    }

    /// Reports PyPNM in another unit, if this one is not running.
    fn other_units(&mut self) {
        for unit in &self.facts.other_units {
            let text = format!("PyPNM runs as {unit}, which is not sized; in sizing.conf(5): Units={unit}");
            self.report(Topic::OtherUnit, State::Warning, text, Some(APPLY));
        }
        if let Some(text) = &self.facts.other_process {
            self.report(Topic::OtherUnit, State::Warning, text.clone(), None);
        }
    }
}
