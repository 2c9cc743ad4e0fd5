//! PyPNM's default profile file: `pypnm-serve.env` in `PnmFileRetrieval.runtime_dir`, which is set in the system.json
//! of its package (pypnm/support/worker_profile.py, pypnm/config/config_manager.py of 1.6).
//!
//! Runs no Python: the package is found through the program `pypnm`.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use pypnm_sizing::pypnm::ENV_FILE;
use pypnm_sizing::root::{ReadError, Root};
use serde_json::Value;

use super::installation;
use super::installed::find;
use super::program::PYPNM;

/// Relative to the directory of the package.
const SETTINGS: &str = "pypnm/settings/system.json";
const PROFILE: &str = "pypnm-serve.env";
/// PyPNM's default if system.json sets none.
const DEFAULT_RUNTIME_DIR: &str = ".data/runtime";

/// The path of the profile file. Like PyPNM, returns a path relative to the working directory if system.json contains
/// one.
pub(crate) fn profile_file() -> anyhow::Result<PathBuf> {
    if let Some(file) = std::env::var_os(ENV_FILE).filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let machine = Root::machine();
    let mut looked = Vec::new();
    for packages in package_directories(&machine) {
        let file = std::path::absolute(packages.join(SETTINGS));
        let Some(path) = file.as_ref().ok().and_then(|file| file.to_str()) else {
            continue;
        };
        // A file that the service's user can write must not redirect root.
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
            Err(error) => bail!("{path}: {error}; use --write PATH"),
        }
    }
    let looked = if looked.is_empty() { "no Python packages found".to_owned() } else { looked.join(", ") };
    Err(anyhow!(
        "PyPNM's own profile file is unknown: there is no {SETTINGS} (in: {looked}); use --write PATH"
    ))
}

/// Returns `PnmFileRetrieval.runtime_dir` from a system.json.
fn runtime_dir(path: &str, text: &str) -> anyhow::Result<String> {
    let settings: Value = serde_json::from_str(text).map_err(|error| {
        anyhow!("{path}: {error}; PyPNM would not start with it. Fix it, or use --write PATH")
    })?;
    match settings.pointer("/PnmFileRetrieval/runtime_dir") {
        Some(Value::String(dir)) if !dir.trim().is_empty() => Ok(dir.clone()),
        _ => Ok(DEFAULT_RUNTIME_DIR.to_owned()),
    }
}

/// Directories of Python packages, in the order in which `pypnm serve` searches them: `src` in its working directory,
/// the active environment, then the other installations.
fn package_directories(machine: &Root) -> Vec<PathBuf> {
    let active = std::env::var("VIRTUAL_ENV").ok().filter(|directory| !directory.is_empty());
    let active =
        active.map(|directory| installation::package_directories(machine, &directory)).unwrap_or_default();
    let installations = find(machine, PYPNM, None);
    let installed = installations.into_iter().filter_map(|installation| installation.packages);
    std::iter::once("src".to_owned()).chain(active).chain(installed).map(PathBuf::from).collect()
}
