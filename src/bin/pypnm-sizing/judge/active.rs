//! Findings from the states of the unit in systemd: whether the service is running at all. Pure.

use std::time::Duration;

use super::live::Live;
use super::topic::{Finding, State, Topic};
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
    pub(super) fn service(&mut self) -> bool {
        let facts = self.facts;
        let (unit, load) = (&facts.unit, facts.loaded.load.as_str());
        let finding = match load {
            "loaded" => self.activity(),
            "not-found" => {
                Some(Finding::new(Topic::UnitMissing, State::Critical, "systemd has no such unit"))
            }
            "masked" => {
                let state = self.critical_if_required(State::Unknown);
                let finding = Finding::new(Topic::UnitMasked, state, "the unit is masked");
                Some(finding.fixed_by(format!("systemctl unmask {unit}")))
            }
            other => {
                let text = format!("systemd cannot load the unit ({other})");
                let finding = Finding::new(Topic::UnitMissing, State::Critical, text);
                Some(finding.fixed_by(format!("systemctl status {unit}")))
            }
        };
        self.verdict.findings.extend(finding);
        if matches!(load, "not-found" | "masked") || load == "loaded" && facts.live == Live::Inactive {
            self.other_units();
        }
        load == "loaded"
    }

    /// `--must-run` makes a service that is not running critical.
    fn critical_if_required(&self, otherwise: State) -> State {
        if self.must_run { State::Critical } else { otherwise }
    }

    /// The finding on the state of a unit that systemd has loaded. `None`: it is active.
    fn activity(&self) -> Option<Finding> {
        let facts = self.facts;
        let (unit, loaded) = (&facts.unit, &facts.loaded);
        let log = format!("journalctl -u {unit}");
        Some(match loaded.active.as_str() {
            "reloading" if self.is_handed_over() => {
                let text = "a reload is in progress; workers are being replaced";
                Finding::new(Topic::Reloading, State::Ok, text)
            }
            "active" | "activating" if facts.was_restarted_meanwhile => self.looping().fixed_by(log),
            "active" if loaded.sub == "exited" => {
                // Such a unit may have started a container, whose processes are not in the unit.
                let is_oneshot = loaded.service_type == "oneshot" && !self.must_run;
                let state = if is_oneshot { State::Unknown } else { State::Critical };
                let text = "the service is active, but it has no process (exited)";
                Finding::new(Topic::NotRunning, state, text).fixed_by(log)
            }
            "active" | "reloading" | "refreshing" => return None,
            "failed" => {
                let text = format!("the service has failed ({})", loaded.result);
                Finding::new(Topic::Failed, State::Critical, text).fixed_by(log)
            }
            "activating" if self.is_looping() => self.looping().fixed_by(log),
            "activating" => {
                let text = format!("the service is starting ({})", loaded.sub);
                Finding::new(Topic::Starting, State::Ok, text)
            }
            "inactive" | "deactivating" if loaded.will_start => {
                let text = format!("the service is about to start ({})", loaded.sub);
                Finding::new(Topic::Starting, State::Ok, text)
            }
            "deactivating" if loaded.result == "success" => {
                self.not_running(format!("the service is stopping ({})", loaded.sub), log)
            }
            "deactivating" => {
                let text =
                    format!("the service has failed ({}) and is stopping ({})", loaded.result, loaded.sub);
                Finding::new(Topic::Failed, State::Critical, text).fixed_by(log)
            }
            "inactive" if self.has_exited_alone() => {
                let text =
                    "the service has exited without having been stopped, and systemd does not restart it";
                Finding::new(Topic::Failed, State::Critical, text).fixed_by(log)
            }
            "inactive" if loaded.is_due_since_boot() => self.not_started(),
            "inactive" if loaded.conditions_met == Some(false) => {
                let text = "the service was not started: a condition of its unit is not met; for the packaged \
                            unit, PyPNM is not installed where the unit looks for it";
                let fix = facts.setup.clone().unwrap_or_else(|| format!("systemctl status {unit}"));
                let state = self.critical_if_required(State::Warning);
                Finding::new(Topic::ConditionFailed, state, text).fixed_by(fix)
            }
            state => self.not_running(
                format!("the service is not running ({state})"),
                format!("systemctl start {unit}"),
            ),
        })
    }

    /// The finding on a service that an operator has stopped.
    fn not_running(&self, text: String, fix: String) -> Finding {
        let finding = Finding::new(Topic::NotRunning, self.critical_if_required(State::Ok), text);
        if self.must_run { finding.fixed_by(fix) } else { finding }
    }

    /// The boot should have started the service. Without a reason, it may have been enabled since then.
    fn not_started(&self) -> Finding {
        let facts = self.facts;
        let reason = match &facts.failed_requirement {
            _ if facts.loaded.assertion_failed => ": an assertion of its unit is not met".to_owned(),
            Some(required) => format!(": {required}, which it requires, has failed"),
            None => String::new(),
        };
        let otherwise = if reason.is_empty() { State::Warning } else { State::Critical };
        let text = format!("the service is enabled, but has not been started since boot{reason}");
        let finding = Finding::new(Topic::NotRunning, self.critical_if_required(otherwise), text);
        // Two of them would use the same port.
        let is_only = facts.other_units.is_empty() && facts.other_process.is_none();
        if is_only { finding.fixed_by(format!("systemctl start {}", facts.unit)) } else { finding }
    }

    fn looping(&self) -> Finding {
        let times = match self.facts.loaded.automatic_restarts {
            0 => String::new(),
            1 => ", restarted once".to_owned(),
            times => format!(", restarted {times} times"),
        };
        let text = format!("the service keeps exiting and being restarted{times}");
        Finding::new(Topic::Looping, State::Critical, text)
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
            self.report(Finding::new(Topic::ProgramPath, state, &lost.text));
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
            self.report(Finding::new(Topic::OtherUnit, State::Warning, text).fixed_by(APPLY));
        }
        if let Some(text) = &self.facts.other_process {
            self.report(Finding::new(Topic::OtherUnit, State::Warning, text));
        }
    }
}
