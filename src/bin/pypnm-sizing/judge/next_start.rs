//! The numbers that the service gets at its next start: those expected on this machine, those that override them, or PyPNM's own.
//! Pure. [`super::verdict`] compares them with what was generated, and [`super::running`] with what is in use.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG};
use pypnm_sizing::overrides::{Effect, Override, Overrides};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::Expected;
use super::live::Live;
use super::topic::{State, Topic};
use super::verdict::{Judge, numbers_text};
use crate::service::generated::Generated;
use crate::service::launch::{Keys, Launch};
use crate::wording::override_text;

/// The profile file that PyPNM gets.
enum Given {
    Ours,
    /// That of the operator, with these numbers.
    Numbers(Numbers),
    /// None, or one that it does not accept.
    Nothing,
}

impl Judge<'_> {
    /// What the service gets at its next start, with and without a reload: the expected numbers, or those that override them.
    pub(super) fn next_start(&mut self, expected: &Expected) -> (Numbers, Numbers) {
        for setting in &expected.set_by_hand {
            self.report(Topic::SetByHand, State::Ok, setting.clone(), None);
        }
        let (program, keys) = self.launched(&expected.overrides);
        if program != Program::Uvicorn {
            match self.profile_file(expected) {
                Given::Ours => {}
                Given::Numbers(numbers) => return (numbers, numbers),
                Given::Nothing => return (expected.default, expected.default),
            }
        }
        let generated =
            self.facts.generated.as_ref().and_then(Generated::numbers).unwrap_or(expected.numbers);
        let (workers, loaded_workers) = if program == Program::Uvicorn && leaves_workers_open(expected) {
            self.open_workers(expected)
        } else {
            self.effective(expected, keys.workers, 1, expected.numbers.workers, generated.workers)
        };
        let (limit, loaded_limit) = self.effective(
            expected,
            keys.limit,
            0,
            expected.numbers.limit_max_requests,
            generated.limit_max_requests,
        );
        (
            Numbers { workers, limit_max_requests: limit },
            Numbers { workers: loaded_workers, limit_max_requests: loaded_limit },
        )
    }

    /// The workers with and without a reload, if a file that cannot be read determines them: as many as there are.
    fn open_workers(&mut self, expected: &Expected) -> (i64, i64) {
        let is_not_read = |found: &&Override| matches!(found.effect, Effect::NotRead { .. });
        for found in expected.overrides.list.iter().filter(is_not_read) {
            self.report(Topic::Override, State::Ok, override_text(found), None);
        }
        let loaded = self.facts.loaded.environment.get(UVICORN_WORKERS);
        if let Some(loaded) = loaded.and_then(|value| value.parse::<i64>().ok()) {
            return (1, loaded);
        }
        let alive = match &self.facts.live {
            Live::Running(running) => i64::try_from(running.workers).unwrap_or(i64::MAX).max(1),
            Live::Not | Live::Hidden(_) => 1,
        };
        (alive, alive)
    }

    /// The numbers after `env` has run at the start, which lowers those that were not set by hand to what the limits in force
    /// allow. It cannot change the environment of a unit that starts uvicorn directly.
    pub(super) fn lowered_at_start(&mut self, expected: &Expected, next_start: Numbers) -> Numbers {
        let Some(in_force) = &self.facts.in_force else {
            return next_start;
        };
        let (program, keys) = self.launched(&expected.overrides);
        let set_by_hand = |keys| expected.overrides.effective_number(keys, 0, 0).set_by.is_some();
        let allowed = in_force.numbers;
        let lowered = Numbers {
            workers: if set_by_hand(keys.workers) { next_start.workers } else { allowed.workers },
            limit_max_requests: if set_by_hand(keys.limit) {
                next_start.limit_max_requests
            } else {
                allowed.limit_max_requests
            },
        };
        if lowered == next_start {
            return next_start;
        }
        let text = format!("the limits in force allow {}: {}", numbers_text(lowered), in_force.why);
        if program == Program::Uvicorn {
            let text = format!("{text}; uvicorn is started directly and uses {}", numbers_text(next_start));
            self.report(Topic::LimitsInForce, State::Warning, text, None);
            return next_start;
        }
        // If it is running, what it uses is compared with the lowered numbers.
        let (state, fix) = match &self.facts.live {
            Live::Running(_) => (State::Ok, None),
            Live::Not | Live::Hidden(_) => {
                (State::Warning, Some(format!("systemctl restart {}", self.facts.unit)))
            }
        };
        let text = format!("{text}; {} is lowered to this at each start", numbers_text(next_start));
        self.report(Topic::LimitsInForce, state, text, fix.as_deref());
        lowered
    }

    /// A number with and without a reload.
    fn effective(
        &mut self,
        expected: &Expected,
        keys: [&'static str; 2],
        least: u32,
        fitting: i64,
        generated: i64,
    ) -> (i64, i64) {
        let number = |value: &str| value.parse::<u32>().ok().filter(|value| *value >= least).map(i64::from);
        for found in keys.into_iter().filter_map(|key| expected.overrides.get(key)) {
            let text = override_text(found);
            let text = match &found.effect {
                Effect::Variable { value, .. } if number(value).is_none() => {
                    format!("{text}, is not a whole number of at least {least}: the sized value is used")
                }
                _ => text,
            };
            self.report(Topic::Override, State::Ok, text, None);
        }
        // Variables that are removed last are still among those that systemd has loaded.
        let is_taken_away = |found: &Override| {
            let is_last = matches!(&*found.source.key, "ExecStart" | "UnsetEnvironment");
            matches!(found.effect, Effect::Unset { .. }) && is_last
        };
        let [flag, variable] = keys;
        if expected.overrides.get(flag).is_none()
            && expected.overrides.get(variable).is_some_and(is_taken_away)
        {
            let overrides = &expected.overrides;
            let remaining = if flag == WORKERS_FLAG {
                overrides.uvicorn_workers(1).value
            } else {
                overrides.uvicorn_limit_max_requests(0).value
            };
            return (remaining.into(), remaining.into());
        }
        let effective = expected.overrides.effective_number(keys, least, u32::MAX);
        let is_removed = |found: &Override| matches!(found.effect, Effect::Unset { .. });
        let after_reload = match (variable, effective.set_by) {
            (_, Some(_)) => i64::from(effective.value),
            // uvicorn's own default.
            (UVICORN_WORKERS, None) if expected.overrides.get(variable).is_some_and(is_removed) => 1,
            (_, None) => fitting,
        };
        // Flags and environment files take effect without a reload.
        let is_read_at_start = |found: &Override| {
            matches!(found.effect, Effect::Flag { .. })
                || self.facts.loaded.environment_files.iter().any(|file| *file == *found.source.file)
        };
        if effective.set_by.is_some_and(is_read_at_start) {
            return (after_reload, after_reload);
        }
        let loaded = |key| self.facts.loaded.environment.get(key);
        let loaded = match variable {
            // uvicorn reads the other variable, possibly from its own file, only if the first is not set.
            UVICORN_WORKERS | WEB_CONCURRENCY => match loaded(UVICORN_WORKERS).or(loaded(WEB_CONCURRENCY)) {
                Some(value) => number(value).unwrap_or(generated),
                None if variable == WEB_CONCURRENCY => after_reload,
                None => 1,
            },
            _ => loaded(variable).and_then(|value| number(value)).unwrap_or(generated),
        };
        (after_reload, loaded)
    }

    /// Whether PyPNM reads our profile file, that of the operator, or none.
    fn profile_file(&mut self, expected: &Expected) -> Given {
        let facts = self.facts;
        let at = expected.overrides.get(pypnm::ENV_FILE);
        let at = at.map_or_else(String::new, |found| format!(", {}", found.source.place()));
        let name = pypnm::ENV_FILE;
        let is_withheld = |found: &&Override| found.effect == Effect::Withheld;
        let withheld = expected.overrides.list.iter().find(is_withheld);
        let why = match &facts.foreign_file {
            _ if withheld.is_some() => {
                let place = withheld.map(|found| found.source.place()).unwrap_or_default();
                format!("the command does not pass {name}= on, {place}")
            }
            None if facts.loaded.environment.contains_key(name) => {
                if facts.loaded.exec_start_pre.iter().any(|command| command.contains("pypnm-sizing")) {
                    return Given::Ours;
                }
                "nothing writes the profile for PyPNM: an empty ExecStartPre= in the unit removes the command that does"
                    .to_owned()
            }
            None => format!("an empty Environment= in the unit removes {name}="),
            Some((path, Ok(text))) => match pypnm::read_profile_file(text) {
                ProfileFile::Taken(numbers) => {
                    self.report(Topic::Override, State::Ok, format!("{name}={path}{at}"), None);
                    return Given::Numbers(numbers);
                }
                ProfileFile::Ignored(key) => format!("{name}={path}{at}: the file has no {key}"),
                ProfileFile::Crashes(key, value) => {
                    format!("{name}={path}{at}: PyPNM cannot start with its {key}={value}")
                }
            },
            Some((path, Err(why))) => format!("{name}={path}{at}: {why}"),
        };
        let text = format!(
            "{why}; PyPNM falls back to its own sizing; expected: {}",
            numbers_text(expected.numbers)
        );
        self.report(Topic::NotRead, State::Warning, text, None);
        Given::Nothing
    }

    /// The program that is running or would be started, and the names that determine its numbers. The operator's
    /// `WEB_CONCURRENCY` determines uvicorn's workers if `UVICORN_WORKERS` is not set.
    pub(super) fn launched(&self, overrides: &Overrides) -> (Program, Keys) {
        let launch = match &self.facts.live {
            Live::Running(running) => Launch::of_arguments(&running.arguments),
            Live::Not | Live::Hidden(_) => self.command(),
        };
        let mut keys = launch.keys();
        let [flag, variable] = keys.workers;
        if variable == UVICORN_WORKERS
            && overrides.get(variable).is_none()
            && overrides.get(WEB_CONCURRENCY).is_some()
        {
            keys.workers = [flag, WEB_CONCURRENCY];
        }
        (launch.program(), keys)
    }
}

/// Whether a file that cannot be read determines uvicorn's workers.
fn leaves_workers_open(expected: &Expected) -> bool {
    let overrides = &expected.overrides;
    let is_set = |key: &str| overrides.get(key).is_some();
    overrides.is_left_out(UVICORN_WORKERS) && !is_set(WEB_CONCURRENCY) && !is_set(WORKERS_FLAG)
}
