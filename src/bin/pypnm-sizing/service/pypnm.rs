//! Where PyPNM looks for its profile file when nobody tells it: `pypnm-serve.env` in `PnmFileRetrieval.runtime_dir` of
//! the system.json that lies in its package (pypnm/support/worker_profile.py, pypnm/config/config_manager.py of 1.6).
//!
//! Owns finding that file. Runs no Python: the package is where `pypnm` is.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use pypnm_sizing::pypnm::ENV_FILE;
use pypnm_sizing::root::{ReadError, Root};
use serde_json::Value;

/// In the package's directory.
const SETTINGS: &str = "pypnm/settings/system.json";
const PROFILE: &str = "pypnm-serve.env";
/// What PyPNM takes where system.json says nothing.
const DEFAULT_RUNTIME_DIR: &str = ".data/runtime";
/// Where pypnm.service looks first.
const PACKAGED: &str = "/opt/pypnm";

/// The profile file, as PyPNM names it: relative to its working directory, where system.json says it so.
pub(crate) fn profile_file() -> anyhow::Result<PathBuf> {
    if let Some(file) = std::env::var_os(ENV_FILE).filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let machine = Root::machine();
    let mut looked = Vec::new();
    for packages in package_directories(&machine) {
        let file = packages.join(SETTINGS);
        let Some(path) = file.to_str() else {
            continue;
        };
        // What a service's user can write must not lead root anywhere.
        let is_root = rustix::process::geteuid().is_root();
        let text = if is_root {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| ReadError::NotText);
            machine.with_owned_bytes(path, text).and_then(|text| text)
        } else {
            machine.text(path)
        };
        match text {
            Ok(text) => return Ok(Path::new(&runtime_dir(path, &text)?).join(PROFILE)),
            Err(ReadError::Missing) => looked.push(packages.display().to_string()),
            Err(error) => bail!("{path}: {error}; --write PATH says where to write"),
        }
    }
    let looked = if looked.is_empty() { "no Python packages found".to_owned() } else { looked.join(", ") };
    Err(anyhow!(
        "where does PyPNM look? There is no {SETTINGS} (in: {looked}). --write PATH says where to write"
    ))
}

/// `PnmFileRetrieval.runtime_dir` of a system.json.
fn runtime_dir(path: &str, text: &str) -> anyhow::Result<String> {
    let settings: Value = serde_json::from_str(text).map_err(|error| {
        anyhow!("{path}: {error}; PyPNM would not start with it. Mend it, or --write PATH")
    })?;
    match settings.pointer("/PnmFileRetrieval/runtime_dir") {
        Some(Value::String(dir)) if !dir.trim().is_empty() => Ok(dir.clone()),
        _ => Ok(DEFAULT_RUNTIME_DIR.to_owned()),
    }
}

/// Directories that Python packages lie in, in the order in which PyPNM would be found: a source checkout's (`pypnm
/// serve` puts `src` of its working directory first), the active virtual environment's, that of `pypnm` on PATH, and
/// the one that the packaged unit looks into.
fn package_directories(machine: &Root) -> Vec<PathBuf> {
    let mut directories = vec![PathBuf::from("src")];
    let on_path = std::env::var_os("PATH").and_then(|path| {
        let mut programs = std::env::split_paths(&path).map(|dir| dir.join("pypnm"));
        // A link to it (pipx makes one) leads to the environment that it belongs to.
        programs
            .find(|program| program.is_file())?
            .canonicalize()
            .ok()?
            .parent()?
            .parent()
            .map(Path::to_owned)
    });
    let environments = [std::env::var_os("VIRTUAL_ENV").map(PathBuf::from), on_path, Some(PACKAGED.into())];
    for environment in environments.into_iter().flatten() {
        let lib = environment.join("lib");
        let mut pythons: Vec<String> = lib
            .to_str()
            .and_then(|lib| machine.entries(lib).ok())
            .into_iter()
            .flatten()
            .map(|entry| entry.name)
            .filter(|name| name.starts_with("python3"))
            .collect();
        pythons.sort();
        for python in pythons {
            for packages in ["site-packages", "dist-packages"] {
                let directory = lib.join(&python).join(packages);
                if directory.is_dir() && !directories.contains(&directory) {
                    directories.push(directory);
                }
            }
        }
    }
    directories
}
