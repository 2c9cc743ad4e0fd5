//! The numbers that the running processes use, from the most reliable source. Pure.

use std::collections::BTreeMap;

use pypnm_sizing::command::Program;
use pypnm_sizing::names::{
    LIMIT_MAX_REQUESTS_FLAG, UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WEB_CONCURRENCY, WORKERS_FLAG,
};
use pypnm_sizing::pypnm::{self, Numbers};
use serde::Serialize;

use crate::service::launch::Launch;
use crate::wording::{brief, workers_text};

/// A running service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// The number of workers that are alive.
    pub(crate) workers: i64,
    /// Whether a single process serves requests, without a parent and workers.
    pub(crate) is_single: bool,
    /// The arguments of the process that serves, or whose children do.
    pub(crate) arguments: Vec<String>,
    /// Its environment; `None`: the caller is not permitted to read it.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    /// The profile in effect, which PyPNM passes to its workers (`PYPNM_ACTIVE_…`).
    pub(crate) active: Option<Numbers>,
    /// The profile file that it reads, if known: its path, and its text, or why it cannot be read.
    pub(crate) file: Option<(String, Result<String, String>)>,
    /// Whether that file has changed since the process started, which read it before.
    pub(crate) file_has_changed: bool,
}

impl Running {
    /// The numbers in its profile file, if PyPNM takes them.
    pub(crate) fn profile(&self) -> Option<Numbers> {
        let (_, text) = self.file.as_ref()?;
        pypnm::read_profile_file(text.as_ref().ok()?).taken()
    }
}

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

impl Origin {
    /// A description that follows the numbers.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Pypnm => "as PyPNM reports",
            Self::Flag => "from flags on its command line",
            Self::File => "from its profile file",
            Self::Environment => "from its environment",
            Self::Itself => "from PyPNM's own sizing",
            Self::Unknown => "by counting its workers",
        }
    }
}

/// The numbers in use; `None`: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) workers: Option<i64>,
    pub(crate) limit_max_requests: Option<i64>,
    pub(crate) origin: Origin,
}

impl InUse {
    /// The numbers that are known.
    pub(crate) fn text(self) -> String {
        match (self.workers, self.limit_max_requests) {
            (Some(workers), Some(limit_max_requests)) => brief(Numbers { workers, limit_max_requests }),
            (Some(workers), None) => workers_text(workers),
            (None, _) => "unknown numbers".to_owned(),
        }
    }
}

/// The numbers that `running` uses. `default`: the result of PyPNM's own sizing.
pub(crate) fn in_use(running: &Running, default: Numbers) -> InUse {
    let launch = Launch::of_arguments(&running.arguments);
    let number = |name| launch.flag(name).and_then(|value| value.parse::<i64>().ok());
    let (workers, limit) = (number(WORKERS_FLAG), number(LIMIT_MAX_REQUESTS_FLAG));
    if launch.program() == Program::Uvicorn {
        return of_uvicorn(running, workers, limit);
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
        // The result of its own sizing cannot be derived here.
        (None, None) if workers.is_none() && alive != default.workers => {
            return InUse { workers: Some(alive), limit_max_requests: limit, origin: Origin::Itself };
        }
        (None, None) => (default, Origin::Itself),
    };
    InUse {
        workers: Some(workers.unwrap_or(numbers.workers)),
        limit_max_requests: Some(limit.unwrap_or(numbers.limit_max_requests)),
        origin,
    }
}

fn of_uvicorn(running: &Running, workers: Option<i64>, limit: Option<i64>) -> InUse {
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
