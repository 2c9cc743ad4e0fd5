//! All overrides of a unit, and what they amount to: the numbers in effect for `pypnm serve` and for uvicorn, and whether
//! a single worker may run. Pure.

use std::collections::BTreeMap;

use crate::names;
use crate::overrides::effect::{Effect, Override};
use crate::parse::quantity::decimal;
use crate::problem::Sourced;

/// All overrides of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In this order: the drop-in as a whole, variables, flags, commands, others.
    pub list: Vec<Override>,
    /// Variables that the operator sets, and that the drop-in repeats instead of overriding them.
    pub(super) repeated: BTreeMap<&'static str, Sourced<String>>,
    /// Variables that the drop-in omits, so that another variable set by the operator takes effect.
    pub(super) left_out: Vec<&'static str>,
    /// A single worker cannot be ruled out, regardless of the numbers, because of an unknown command or an environment file
    /// that a generator cannot read.
    pub(super) may_be_single: bool,
    /// `Type=oneshot`
    pub(super) refuses_restart: bool,
}

/// Whether a single worker runs. When it reaches its recycle limit, the whole service exits with status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SingleWorker {
    /// A single worker runs.
    Certain,
    /// A single worker cannot be ruled out.
    Possible,
}

/// A number in effect, and the override that sets it, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effective<'a> {
    /// The number.
    pub value: u32,
    /// `None`: it is the sized value.
    pub set_by: Option<&'a Override>,
}

impl Overrides {
    /// The override of a variable or flag.
    pub fn get(&self, key: &str) -> Option<&Override> {
        let is_effective = |effect: &Effect| !matches!(effect, Effect::Ineffective { .. });
        self.list.iter().find(|o| o.effect.key() == Some(key) && is_effective(&o.effect))
    }

    /// The override that removes a variable.
    fn removed(&self, key: &str) -> Option<&Override> {
        self.get(key).filter(|found| matches!(found.effect, Effect::Unset { .. }))
    }

    /// Whether PyPNM finds the profile that is written for it, as far as the unit decides that.
    pub fn is_handed_over(&self) -> bool {
        let is_obstacle = |effect: &Effect| matches!(effect, Effect::NoHandOver | Effect::Withheld);
        self.get(names::ENV_FILE).is_none() && !self.list.iter().any(|o| is_obstacle(&o.effect))
    }

    /// The operator's value of a variable that the drop-in repeats.
    pub fn repeated(&self, key: &str) -> Option<&Sourced<String>> {
        self.repeated.get(key)
    }

    /// Whether the drop-in omits a variable, because it would take precedence over another one that the operator sets.
    pub fn is_left_out(&self, key: &str) -> bool {
        self.left_out.contains(&key)
    }

    /// The number of workers that `pypnm serve` will start. An invalid value is replaced by the sized one, as in
    /// `env --write`.
    pub fn workers(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::WORKERS_FLAG, names::WORKERS], 1, sized)
    }

    /// The recycle limit that `pypnm serve` will use; 0: never.
    pub fn limit_max_requests(&self, sized: u32) -> Effective<'_> {
        self.effective_number([names::LIMIT_MAX_REQUESTS_FLAG, names::LIMIT_MAX_REQUESTS], 0, sized)
    }

    /// The number of workers that `uvicorn` will start; 1 by default.
    pub fn uvicorn_workers(&self, sized: u32) -> Effective<'_> {
        let removed = self.removed(names::UVICORN_WORKERS);
        if !self.is_left_out(names::UVICORN_WORKERS) && removed.is_none() {
            return self.effective_number([names::WORKERS_FLAG, names::UVICORN_WORKERS], 1, sized);
        }
        let set = self.effective_number([names::WORKERS_FLAG, names::UVICORN_WORKERS], 1, 1);
        if set.set_by.is_some() {
            return set;
        }
        let concurrency = self.effective_number([names::WEB_CONCURRENCY; 2], 1, 1);
        Effective { value: concurrency.value, set_by: concurrency.set_by.or(removed) }
    }

    /// The recycle limit that `uvicorn` will use; 0: never.
    pub fn uvicorn_limit_max_requests(&self, sized: u32) -> Effective<'_> {
        let removed = self.removed(names::UVICORN_LIMIT_MAX_REQUESTS);
        let sized = if removed.is_some() { 0 } else { sized };
        let keys = [names::LIMIT_MAX_REQUESTS_FLAG, names::UVICORN_LIMIT_MAX_REQUESTS];
        let set = self.effective_number(keys, 0, sized);
        Effective { set_by: set.set_by.or(removed), ..set }
    }

    /// Whether the service may exit at its recycle limit because a single worker runs, for `pypnm serve` or uvicorn. The
    /// generator and the helper use the same answer.
    pub fn single_worker(&self, sized_workers: u32, sized_limit: u32) -> Option<SingleWorker> {
        let ends = |workers: Effective<'_>, limit: Effective<'_>| workers.value == 1 && limit.value > 0;
        if self.refuses_restart {
            return None;
        }
        if ends(self.workers(sized_workers), self.limit_max_requests(sized_limit))
            || ends(self.uvicorn_workers(sized_workers), self.uvicorn_limit_max_requests(sized_limit))
        {
            return Some(SingleWorker::Certain);
        }
        self.may_be_single.then_some(SingleWorker::Possible)
    }

    /// Whether systemd would refuse the unit with `Restart=always` (`Type=oneshot`).
    pub fn refuses_restart(&self) -> bool {
        self.refuses_restart
    }

    /// The first of `keys` that is overridden with a valid number, at least `least`; otherwise the sized number.
    pub fn effective_number(&self, keys: [&str; 2], least: u32, sized: u32) -> Effective<'_> {
        let set = keys.into_iter().find_map(|key| {
            let set_by = self.get(key)?;
            let (Effect::Variable { value, .. } | Effect::Flag { value, .. }) = &set_by.effect else {
                return None;
            };
            let value = decimal::<u32>(value).filter(|value| *value >= least)?;
            Some(Effective { value, set_by: Some(set_by) })
        });
        set.unwrap_or(Effective { value: sized, set_by: None })
    }
}
