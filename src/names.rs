//! The fixed names that packagers, operators and PyPNM rely on, each once.

/// The drop-in's name in `<unit>.d`: a low number, so that an operator's `override.conf` and any 20-…99- file win.
pub const DROP_IN: &str = "10-pypnm-sizing.conf";
/// What the drop-in sets in the service's environment.
pub const VARIABLES: [&str; 7] = [
    "PYPNM_SERVE_CPU_COUNT",
    "PYPNM_SERVE_TOTAL_MEMORY_GIB",
    "PYPNM_SERVE_WORKERS",
    "PYPNM_SERVE_LIMIT_MAX_REQUESTS",
    "UVICORN_WORKERS",
    "UVICORN_LIMIT_MAX_REQUESTS",
    "PYPNM_SERVE_ENV_FILE",
];
/// Where the helper writes the file that PyPNM reads, `<unit>.env` (PyPNM takes nothing from its environment).
pub const RUNTIME_DIRECTORY: &str = "/run/pypnm-sizing";
/// The helper, as packaged.
pub const HELPER: &str = "/usr/bin/pypnm-sizing";
