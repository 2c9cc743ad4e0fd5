//! The numbers that the service gets at its next start: those expected on this machine, those that override them, or PyPNM's own.
//! Pure. [`super::verdict`] compares them with what was generated, and [`super::running`] with what is in use.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG};
use pypnm_sizing::overrides::{Effect, Override, Overrides, Stage};
use pypnm_sizing::pypnm::{self, Numbers, ProfileFile};

use super::facts::Expected;
use super::live::Live;
use super::topic::{Finding, State, Topic};
use super::verdict::Judge;
use crate::service::generated;
use crate::service::launch::{Keys, Launch};
use crate::wording::{brief, override_text};

impl Judge<'_> {
    /// What the service gets at its next start, with and without a reload: the expected numbers, or those that override them.
    pub(super) fn next_start(&mut self, expected: &Expected) -> (Numbers, Numbers) {
        for setting in &expected.set_by_hand {
            self.report(Finding::new(Topic::SetByHand, State::Ok, setting));
        }
        let (program, keys) = self.launched(&expected.overrides);
        if program != Program::Uvicorn
            && let Some(other) = self.other_profile(expected)
        {
            return (other, other);
        }
        let generated = self.facts.generated.as_ref().and_then(generated::numbers);
        let generated = generated.unwrap_or(expected.numbers);
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
            self.report(Finding::new(Topic::Override, State::Ok, override_text(found)));
        }
        let loaded = self.facts.loaded.environment.get(UVICORN_WORKERS);
        if let Some(loaded) = loaded.and_then(|value| value.parse::<i64>().ok()) {
            return (1, loaded);
        }
        let alive = match &self.facts.live {
            Live::Running(running) => running.workers.max(1),
            Live::Inactive | Live::Hidden => 1,
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
        let mut lowered = in_force.numbers;
        if set_by_hand(keys.workers) {
            lowered.workers = next_start.workers;
        }
        if set_by_hand(keys.limit) {
            lowered.limit_max_requests = next_start.limit_max_requests;
        }
        if lowered == next_start {
            return next_start;
        }
        let text = format!("the limits in force allow {}: {}", brief(lowered), in_force.why);
        let next = brief(next_start);
        if program == Program::Uvicorn {
            let text = format!("{text}; uvicorn is started directly and uses {next}");
            self.report(Finding::new(Topic::LimitsInForce, State::Warning, text));
            return next_start;
        }
        let text = format!("{text}; {next} is lowered to this at each start");
        // If it is running, what it uses is compared with the lowered numbers.
        self.report(if let Live::Running(_) = self.facts.live {
            Finding::new(Topic::LimitsInForce, State::Ok, text)
        } else {
            let fix = format!("systemctl restart {}", self.facts.unit);
            Finding::new(Topic::LimitsInForce, State::Warning, text).fixed_by(fix)
        });
        lowered
    }

    /// A number with and without a reload.
    fn effective(
        &mut self,
        expected: &Expected,
        keys: [&'static str; 2],
        minimum: u32,
        fitting: i64,
        generated: i64,
    ) -> (i64, i64) {
        let overrides = &expected.overrides;
        let number = |value: &str| value.parse::<u32>().ok().filter(|value| *value >= minimum).map(i64::from);
        for found in keys.into_iter().filter_map(|key| overrides.get(key)) {
            let text = override_text(found);
            let text = match &found.effect {
                Effect::Variable { value, .. } if number(value).is_none() => {
                    format!("{text}, is not a whole number of at least {minimum}: the sized value is used")
                }
                _ => text,
            };
            self.report(Finding::new(Topic::Override, State::Ok, text));
        }
        let [flag, variable] = keys;
        let removed = overrides.get(variable).filter(|found| matches!(found.effect, Effect::Unset { .. }));
        // Variables that are removed last are still among those that systemd has loaded.
        let is_last = |found: &Override| found.stage != Stage::Settings;
        if overrides.get(flag).is_none() && removed.is_some_and(is_last) {
            let remaining = match flag {
                WORKERS_FLAG => overrides.uvicorn_workers(1),
                _ => overrides.uvicorn_limit_max_requests(0),
            };
            return (remaining.value.into(), remaining.value.into());
        }
        let effective = overrides.effective_number(keys, minimum, u32::MAX);
        let after_reload = match (variable, effective.set_by) {
            (_, Some(_)) => i64::from(effective.value),
            // uvicorn's own default.
            (UVICORN_WORKERS, None) if removed.is_some() => 1,
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

    /// The numbers of the operator's profile file, or those of PyPNM's own sizing if it takes no file. `None`: it takes ours.
    fn other_profile(&mut self, expected: &Expected) -> Option<Numbers> {
        let facts = self.facts;
        let at = expected.overrides.get(pypnm::ENV_FILE);
        let at = at.map_or_else(String::new, |found| format!(", {}", found.source.place()));
        let name = pypnm::ENV_FILE;
        let withheld = expected.overrides.list.iter().find(|found| found.effect == Effect::Withheld);
        let why = match (withheld, &facts.foreign_file) {
            (Some(found), _) => format!("the command does not pass {name}= on, {}", found.source.place()),
            (None, None) if facts.loaded.environment.contains_key(name) => {
                if facts.loaded.exec_start_pre.iter().any(|command| command.contains("pypnm-sizing")) {
                    return None;
                }
                "nothing writes the profile for PyPNM: an empty ExecStartPre= in the unit removes the command that does"
                    .to_owned()
            }
            (None, None) => format!("an empty Environment= in the unit removes {name}="),
            (None, Some((path, Ok(text)))) => match pypnm::read_profile_file(text) {
                ProfileFile::Taken(numbers) => {
                    let text = format!("{name}={path}{at}");
                    self.report(Finding::new(Topic::Override, State::Ok, text));
                    return Some(numbers);
                }
                ProfileFile::Ignored(key) => format!("{name}={path}{at}: the file has no {key}"),
                ProfileFile::Crashes(key, value) => {
                    format!("{name}={path}{at}: PyPNM cannot start with its {key}={value}")
                }
            },
            (None, Some((path, Err(why)))) => format!("{name}={path}{at}: {why}"),
        };
        let expected_numbers = brief(expected.numbers);
        let text = format!("{why}; PyPNM falls back to its own sizing; expected: {expected_numbers}");
        self.report(Finding::new(Topic::NotRead, State::Warning, text));
        Some(expected.default)
    }

    /// The program that is running or would be started, and the names that determine its numbers. The operator's
    /// `WEB_CONCURRENCY` determines uvicorn's workers if `UVICORN_WORKERS` is not set.
    pub(super) fn launched(&self, overrides: &Overrides) -> (Program, Keys) {
        let launch = match &self.facts.live {
            Live::Running(running) => Launch::from_arguments(&running.arguments),
            Live::Inactive | Live::Hidden => self.command(),
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
