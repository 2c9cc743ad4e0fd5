//! The launcher of the packaged units, pypnm-sizing-handover(7): recognizes its main process, and determines whether a reload
//! applies what systemd has loaded.
//!
//! A reload reads only the profile again. Everything else, including the address and PyPNM's options, is read at a start.

use std::collections::BTreeMap;

use pypnm_sizing::names;
use pypnm_sizing::parse::base_name;
use pypnm_sizing::parse::environment::variables;
use pypnm_sizing::root::{ReadError, Root};

use super::systemctl::LoadedUnit;

/// The end of the packaged `ExecReload=`.
const RELOAD: &str = "handover --reload";

/// Whether these are the arguments of the launcher's main process.
pub(crate) fn is_launcher(arguments: &[String]) -> bool {
    arguments.iter().take(4).any(|argument| base_name(argument) == names::LAUNCHER_PACKAGE)
}

/// Why only a restart applies what systemd has loaded to a service under the launcher. `None`: a reload does.
///
/// `arguments` and `environment` are those of its main process.
pub(crate) fn why_restart(
    machine: &Root,
    loaded: &LoadedUnit,
    arguments: &[String],
    environment: Option<&BTreeMap<String, String>>,
) -> Option<String> {
    if !loaded.exec_reload.iter().any(|command| command.ends_with(RELOAD)) {
        return Some("the unit has no ExecReload= for the launcher".to_owned());
    }
    let Some(environment) = environment else {
        return Some("its environment cannot be read".to_owned());
    };
    let mut wanted: BTreeMap<&str, String> =
        loaded.environment.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let mut files = Vec::new();
    for path in &loaded.environment_files {
        match machine.bytes(path).map(|bytes| variables(&bytes)) {
            Ok(Ok(variables)) => files.push(variables),
            Err(ReadError::Missing) => {}
            Ok(Err(_)) | Err(_) => return Some(format!("{path} cannot be read")),
        }
    }
    for variable in files.iter().flatten() {
        wanted.insert(&variable.key, variable.value.clone());
    }
    let is_of_the_profile = |key: &str| names::VARIABLES.contains(&key) && key != names::ENV_FILE;
    let mut changed = wanted
        .iter()
        .filter(|(key, value)| !is_of_the_profile(key) && environment.get(**key) != Some(value))
        .map(|(key, _)| *key);
    if let Some(key) = changed.next() {
        return Some(format!("{key} has changed"));
    }
    if loaded.exec_start.iter().any(|command| command_line_differs(command, arguments)) {
        return Some("ExecStart= has changed".to_owned());
    }
    None
}

/// Whether a word of `ExecStart=` is not on the command line. Words with variables are left to the comparison of
/// environments; the first, the launcher's script, is replaced by an interpreter.
fn command_line_differs(exec_start: &str, arguments: &[String]) -> bool {
    let is_there =
        |word: &str| arguments.iter().any(|argument| argument == word || base_name(argument) == word);
    let mut words = exec_start.split(' ').skip(1).filter(|word| !word.is_empty() && !word.contains('$'));
    words.any(|word| !is_there(word.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXEC_START: &str = "/usr/lib/pypnm-sizing/handover pypnm serve --host ${PYPNM_HOST} --port ${PYPNM_PORT} \
                              $PYPNM_OPTIONS";
    const EXEC_RELOAD: &str = "/usr/lib/pypnm-sizing/handover --reload";

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn arguments() -> Vec<String> {
        words(
            "/opt/pypnm/bin/python3 /usr/lib/pypnm-sizing/pypnm_handover /opt/pypnm/bin/pypnm serve --host 127.0.0.1 \
             --port 8000",
        )
    }

    fn environment(more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fixed = [("PYPNM_HOST", "127.0.0.1"), ("PYPNM_PORT", "8000"), ("PYPNM_SERVE_WORKERS", "1")];
        fixed.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn loaded(more: &[(&str, &str)]) -> LoadedUnit {
        LoadedUnit {
            environment: environment(more),
            exec_start: vec![EXEC_START.to_owned()],
            exec_reload: vec![EXEC_RELOAD.to_owned()],
            ..LoadedUnit::default()
        }
    }

    /// A root without the environment files that a unit may name.
    fn nowhere() -> Root {
        Root::below(std::path::Path::new("/proc/self/task")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn why(loaded: &LoadedUnit) -> Option<String> {
        why_restart(&nowhere(), loaded, &arguments(), Some(&environment(&[("LISTEN_FDS", "1")])))
    }

    #[test]
    fn the_main_process_is_recognized() {
        assert!(is_launcher(&arguments()));
        assert!(!is_launcher(&words("/opt/pypnm/bin/python3 /opt/pypnm/bin/pypnm serve")));
        assert!(!is_launcher(&words("grep -r -e x pypnm_handover")));
    }

    #[test]
    fn a_reload_applies_the_profile_only() {
        assert_eq!(why(&loaded(&[])), None);
        assert_eq!(why(&loaded(&[("PYPNM_SERVE_WORKERS", "4"), ("UVICORN_WORKERS", "4")])), None);
        assert_eq!(why(&loaded(&[("PYPNM_PORT", "9000")])), Some("PYPNM_PORT has changed".to_owned()));
        assert_eq!(
            why(&loaded(&[("MALLOC_ARENA_MAX", "2")])),
            Some("MALLOC_ARENA_MAX has changed".to_owned())
        );
        let moved = [(names::ENV_FILE, "/run/elsewhere")];
        assert_eq!(why(&loaded(&moved)), Some("PYPNM_SERVE_ENV_FILE has changed".to_owned()));
    }

    #[test]
    fn a_changed_command_line_requires_a_restart() {
        let mut changed = loaded(&[]);
        changed.exec_start = vec![EXEC_START.replace("serve --host", "serve --ssl --host")];
        assert_eq!(why(&changed), Some("ExecStart= has changed".to_owned()));
    }

    #[test]
    fn an_unknown_state_requires_a_restart() {
        let mut foreign = loaded(&[]);
        foreign.exec_reload.clear();
        assert_eq!(why(&foreign), Some("the unit has no ExecReload= for the launcher".to_owned()));
        let why = why_restart(&nowhere(), &loaded(&[]), &arguments(), None);
        assert_eq!(why, Some("its environment cannot be read".to_owned()));
    }
}
