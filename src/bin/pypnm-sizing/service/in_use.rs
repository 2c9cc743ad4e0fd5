//! The numbers that the running processes use, from the most reliable source. Pure.

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG,
};
use pypnm_sizing::pypnm::Numbers;
use serde::Serialize;

use super::launch::Launch;
use super::running::Running;

/// Where the numbers in use come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// What PyPNM reports to its workers.
    Pypnm,
    /// Flags on its command line.
    Flag,
    /// The profile file.
    File,
    /// The environment, for uvicorn.
    Environment,
    /// PyPNM sized itself.
    Itself,
    /// The workers were counted.
    Unknown,
}

/// The numbers in use; `None`: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) workers: Option<i64>,
    pub(crate) limit_max_requests: Option<i64>,
    pub(crate) origin: Origin,
}

/// The numbers that `running` uses. `default`: the result of PyPNM's own sizing; `None`: only numbers that it was given count.
pub(crate) fn in_use(running: &Running, default: Option<Numbers>) -> InUse {
    let launch = Launch::from_arguments(&running.arguments);
    let number = |name| launch.flag(name).and_then(|value| value.parse::<i64>().ok());
    let (workers, limit) = (number(WORKERS_FLAG), number(LIMIT_MAX_REQUESTS_FLAG));
    if launch.program() == Program::Uvicorn {
        return uvicorn_in_use(running, workers, limit);
    }
    if let (Some(workers), Some(limit)) = (workers, limit) {
        return InUse { workers: Some(workers), limit_max_requests: Some(limit), origin: Origin::Flag };
    }
    let alive = running.workers;
    if running.file_has_changed && running.active.is_none() {
        let workers = Some(workers.unwrap_or(alive));
        return InUse { workers, limit_max_requests: limit, origin: Origin::Unknown };
    }
    let (numbers, origin) = match (running.active, running.profile()) {
        // These are in effect. Only the file shows whether PyPNM took them from it or sized itself.
        (Some(active), Some(_)) => (active, Origin::Pypnm),
        (Some(active), None) => (active, Origin::Itself),
        (None, Some(numbers)) => (numbers, Origin::File),
        (None, None) => match default {
            Some(default) if workers.is_some() || alive == default.workers => (default, Origin::Itself),
            // The result of its own sizing cannot be derived here.
            _ => {
                let workers = Some(workers.unwrap_or(alive));
                return InUse { workers, limit_max_requests: limit, origin: Origin::Itself };
            }
        },
    };
    InUse {
        workers: Some(workers.unwrap_or(numbers.workers)),
        limit_max_requests: Some(limit.unwrap_or(numbers.limit_max_requests)),
        origin,
    }
}

fn uvicorn_in_use(running: &Running, workers: Option<i64>, limit: Option<i64>) -> InUse {
    let environment = running.environment.as_ref();
    let variable = |key| environment.and_then(|all| all.get(key)).and_then(|value| value.parse::<i64>().ok());
    InUse {
        workers: workers
            .or_else(|| variable(UVICORN_WORKERS))
            .or_else(|| variable(WEB_CONCURRENCY))
            .or(Some(running.workers)),
        limit_max_requests: limit.or_else(|| variable(UVICORN_LIMIT_MAX_REQUESTS)).or(environment.map(|_| 0)),
        origin: match (workers, environment) {
            (Some(_), _) => Origin::Flag,
            (None, Some(_)) => Origin::Environment,
            (None, None) => Origin::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{InUse, Numbers, Origin, Running, in_use};

    const DEFAULT: Numbers = Numbers { workers: 2, limit_max_requests: 1000 };

    fn running(arguments: &[&str]) -> Running {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Running { workers: 2, arguments, environment: Some([].into()), ..Running::default() }
    }

    #[test]
    fn without_a_profile_only_the_result_of_its_own_sizing_is_derived() {
        let service = running(&["/opt/pypnm/bin/pypnm", "serve"]);
        let own = InUse { workers: Some(2), limit_max_requests: Some(1000), origin: Origin::Itself };
        assert_eq!(in_use(&service, Some(DEFAULT)), own);
        assert_eq!(in_use(&service, None), InUse { limit_max_requests: None, ..own });
        let reports = Numbers { workers: 2, limit_max_requests: 4000 };
        let service = Running { active: Some(reports), ..service };
        assert_eq!(in_use(&service, None), InUse { limit_max_requests: Some(4000), ..own });
    }

    #[test]
    fn a_flag_counts_even_if_the_rest_is_unknown() {
        let service = running(&["/opt/pypnm/bin/pypnm", "serve", "--limit-max-requests", "25"]);
        for default in [None, Some(Numbers { workers: 4, ..DEFAULT })] {
            assert_eq!(in_use(&service, default).limit_max_requests, Some(25));
        }
    }

    #[test]
    fn uvicorn_recycles_only_if_told_to() {
        let mut service = running(&["python3", "-m", "uvicorn", "pypnm.api.main:app"]);
        assert_eq!(in_use(&service, None).limit_max_requests, Some(0));
        service.environment = None;
        assert_eq!(in_use(&service, None).limit_max_requests, None, "its environment is hidden");
    }
}
