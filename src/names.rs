//! The fixed names that packagers, operators, PyPNM and uvicorn rely on, each once.

/// The drop-in's name in `<unit>.d`. The number is low, so an operator's `override.conf` and any 20-…99- file win.
pub const DROP_IN: &str = "10-pypnm-sizing.conf";
/// Where the helper writes the file that PyPNM reads, `<unit>.env`: PyPNM takes no number from its environment.
pub const RUNTIME_DIRECTORY: &str = "/run/pypnm-sizing";
/// The helper, as packaged.
pub const HELPER: &str = "/usr/bin/pypnm-sizing";

/// PyPNM: whole CPUs.
pub const CPU_COUNT: &str = "PYPNM_SERVE_CPU_COUNT";
/// PyPNM: GiB, with two decimals at most.
pub const TOTAL_MEMORY_GIB: &str = "PYPNM_SERVE_TOTAL_MEMORY_GIB";
/// PyPNM: workers to start.
pub const WORKERS: &str = "PYPNM_SERVE_WORKERS";
/// PyPNM: requests after which a worker is recycled; 0: never.
pub const LIMIT_MAX_REQUESTS: &str = "PYPNM_SERVE_LIMIT_MAX_REQUESTS";
/// PyPNM, in its environment: the path of the profile file.
pub const ENV_FILE: &str = "PYPNM_SERVE_ENV_FILE";
/// The keys of PyPNM's profile file, in its order.
pub const PROFILE_KEYS: [&str; 4] = [CPU_COUNT, TOTAL_MEMORY_GIB, WORKERS, LIMIT_MAX_REQUESTS];

/// uvicorn: workers to start; wins over [`WEB_CONCURRENCY`].
pub const UVICORN_WORKERS: &str = "UVICORN_WORKERS";
/// uvicorn: requests after which a worker is recycled.
pub const UVICORN_LIMIT_MAX_REQUESTS: &str = "UVICORN_LIMIT_MAX_REQUESTS";
/// uvicorn, and many other servers: workers to start. Never set by the drop-in, but often by hand.
pub const WEB_CONCURRENCY: &str = "WEB_CONCURRENCY";

/// What the drop-in sets in the service's environment.
pub const VARIABLES: [&str; 7] = [
    CPU_COUNT,
    TOTAL_MEMORY_GIB,
    WORKERS,
    LIMIT_MAX_REQUESTS,
    UVICORN_WORKERS,
    UVICORN_LIMIT_MAX_REQUESTS,
    ENV_FILE,
];

/// The flag of PyPNM and of uvicorn for the workers; it wins over files and variables.
pub const WORKERS_FLAG: &str = "--workers";
/// The same for the recycle limit.
pub const LIMIT_MAX_REQUESTS_FLAG: &str = "--limit-max-requests";
/// The TCP port, for both programs.
pub const PORT_FLAG: &str = "--port";
