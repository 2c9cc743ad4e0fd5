//! The fixed names that packagers, operators, PyPNM and uvicorn rely on. Each is defined only here.
//!
//! Paths that only one module reads, and the settings of systemd, are defined where they are used.

/// The name of the drop-in in `<unit>.d`. Because of its low number, an operator's `override.conf` takes precedence.
pub const DROP_IN: &str = "10-pypnm-sizing.conf";
/// The directory of the profile files, `<unit>.env`. PyPNM reads its numbers from a file, not from its environment.
pub const RUNTIME_DIRECTORY: &str = "/run/pypnm-sizing";
/// The path of the packaged helper.
pub const HELPER: &str = "/usr/bin/pypnm-sizing";
/// The path of the launcher in the packaged units, see pypnm-sizing-handover(7).
pub const LAUNCHER: &str = "/usr/lib/pypnm-sizing/handover";
/// The file name of [`LAUNCHER`].
pub const LAUNCHER_NAME: &str = "handover";
/// The Python package of the launcher: a directory beside it, which the interpreter executes.
pub const LAUNCHER_PACKAGE: &str = "pypnm_handover";

/// PyPNM: whole CPUs.
pub const CPU_COUNT: &str = "PYPNM_SERVE_CPU_COUNT";
/// PyPNM: GiB, with at most two decimal places.
pub const TOTAL_MEMORY_GIB: &str = "PYPNM_SERVE_TOTAL_MEMORY_GIB";
/// PyPNM: workers to start.
pub const WORKERS: &str = "PYPNM_SERVE_WORKERS";
/// PyPNM: requests after which a worker is recycled; 0: never.
pub const LIMIT_MAX_REQUESTS: &str = "PYPNM_SERVE_LIMIT_MAX_REQUESTS";
/// PyPNM: the path of the profile file. Unlike the others, this is read from the environment.
pub const ENV_FILE: &str = "PYPNM_SERVE_ENV_FILE";
/// The keys of PyPNM's profile file, in the order in which PyPNM writes them.
pub const PROFILE_KEYS: [&str; 4] = [CPU_COUNT, TOTAL_MEMORY_GIB, WORKERS, LIMIT_MAX_REQUESTS];

/// The variables in which PyPNM passes the workers and the recycle limit in effect to its workers.
pub const ACTIVE_VARIABLES: [&str; 2] = ["PYPNM_ACTIVE_WORKERS", "PYPNM_ACTIVE_LIMIT_MAX_REQUESTS"];

/// uvicorn: workers to start; takes precedence over [`WEB_CONCURRENCY`].
pub const UVICORN_WORKERS: &str = "UVICORN_WORKERS";
/// uvicorn: requests after which a worker is recycled.
pub const UVICORN_LIMIT_MAX_REQUESTS: &str = "UVICORN_LIMIT_MAX_REQUESTS";
/// uvicorn and many other servers: workers to start. The drop-in never sets it, but operators often do.
pub const WEB_CONCURRENCY: &str = "WEB_CONCURRENCY";

/// uvicorn: a file that sets what is missing in its environment.
pub const UVICORN_ENV_FILE: &str = "UVICORN_ENV_FILE";

/// The variables that the drop-in sets in the environment of the service.
pub const VARIABLES: [&str; 7] = [
    CPU_COUNT,
    TOTAL_MEMORY_GIB,
    WORKERS,
    LIMIT_MAX_REQUESTS,
    UVICORN_WORKERS,
    UVICORN_LIMIT_MAX_REQUESTS,
    ENV_FILE,
];

/// The flag of PyPNM and uvicorn for the number of workers; it takes precedence over files and variables.
pub const WORKERS_FLAG: &str = "--workers";
/// The flag of PyPNM and uvicorn for the recycle limit.
pub const LIMIT_MAX_REQUESTS_FLAG: &str = "--limit-max-requests";
/// uvicorn's flag for a file that sets what is missing in its environment.
pub const ENV_FILE_FLAG: &str = "--env-file";
/// The flag of PyPNM and uvicorn for the TCP port.
pub const PORT_FLAG: &str = "--port";
