//! Determines which installation a unit starts from the words of its `ExecStart=`: directly, through a shell, env(1) or
//! a wrapper script, or through `PATH`. Runs nothing.

use pypnm_sizing::names::LAUNCHER;
use pypnm_sizing::parse::base_name;
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::Unit;

use super::commands::start_words;
use super::installation::{Installation, environments_of};
use super::metadata;
use super::paths::{prefix_of, real_path};
use super::program::PypnmProgram;
use super::search::{path_of_start, setting};

/// Shells, in which `-c` is followed by a script.
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ash"];
/// The maximum size of a wrapper script.
const MAX_SCRIPT_BYTES: usize = 16 << 10;

/// Finds the environments that the unit's commands refer to: by the program itself, by a Python or uvicorn next to it,
/// by activating an environment, or by a script of a checkout. If there is none, searches the unit's `PATH`.
/// Returns each with the assignment that refers to it.
pub(super) fn environments_of_unit(root: &Root, program: PypnmProgram, unit: &Unit) -> Vec<(String, Source)> {
    let mut environments = Vec::new();
    let mut path = None;
    let mut bare = None;
    let mut is_after_cd = false;
    let mut directory = working_directory(root, unit);
    for (word, source) in words_in_effect(root, unit) {
        let word = absolute(directory.as_deref(), word);
        if std::mem::replace(&mut is_after_cd, word == "cd") && word.starts_with('/') {
            directory = Some(word);
            continue;
        }
        if let Some(set) = word.strip_prefix("PATH=") {
            path = Some(set.to_owned());
        } else if word.starts_with('/') {
            let found = environments_of_path(root, program, &word).into_iter();
            environments.extend(found.map(|environment| (environment, source.clone())));
        } else if word == program.command {
            bare = bare.or(Some(source));
        }
    }
    let path = path.unwrap_or_else(|| path_of_start(program, unit));
    if let Some(source) = bare
        && let Some(prefix) = on_path(root, &path, program)
    {
        environments.push((prefix, source.clone()));
    }
    environments
}

/// The unit's working directory. `None`: none is set, or the path contains a specifier.
fn working_directory(root: &Root, unit: &Unit) -> Option<String> {
    let path = setting(root, unit, "WorkingDirectory")?;
    let path = path.trim_start_matches('-').trim_end_matches('/');
    (path.starts_with('/') && !path.contains('%')).then(|| path.to_owned())
}

/// A relative path of a command, below the directory in which the command runs. Other words are unchanged.
fn absolute(directory: Option<&str>, word: String) -> String {
    let is_path = word.contains('/') && !word.starts_with('/') && !word.contains('=');
    match directory.filter(|_| is_path) {
        Some(directory) => format!("{directory}/{}", word.trim_start_matches("./")),
        None => word,
    }
}

/// The environments that a path in a command refers to.
fn environments_of_path(root: &Root, program: PypnmProgram, word: &str) -> Vec<String> {
    let name = base_name(word);
    if name == program.command {
        let real = real_path(root, word).as_deref().and_then(prefix_of);
        return real.or_else(|| prefix_of(word)).into_iter().collect();
    }
    if name.starts_with("python") || name == "uvicorn" || name == "activate" {
        // In a virtual environment, Python is a symbolic link that leads out of it, so it is not resolved.
        return prefix_of(word).into_iter().collect();
    }
    match word.rsplit_once("/scripts/") {
        Some((checkout, _)) => environments_of(root, checkout).into_iter().map(|(place, _)| place).collect(),
        None => Vec::new(),
    }
}

/// The words of the unit's commands, and of the scripts that they run.
fn words_in_effect<'u>(root: &Root, unit: &'u Unit) -> Vec<(String, &'u Source)> {
    let mut all = Vec::new();
    let mut is_after_shell = false;
    let directory = working_directory(root, unit);
    for (word, source) in start_words(unit) {
        if is_after_shell && word.contains(|c: char| c.is_ascii_whitespace()) {
            all.extend(script_words(&word).map(|word| (word, source)));
            continue;
        }
        let file = if is_after_shell && !word.starts_with(['/', '-']) {
            directory.as_deref().map(|directory| format!("{directory}/{word}"))
        } else {
            Some(word.clone()).filter(|word| word.starts_with('/') && word != LAUNCHER)
        };
        is_after_shell |= SHELLS.contains(&base_name(&word));
        if let Some(file) = file {
            let script = wrapper(root, &file).unwrap_or_default();
            all.extend(script_words(&script).map(|word| (word, source)));
        }
        all.push((word, source));
    }
    all
}

/// The text of a shell script without comments. `None`: it is not a shell script; pip's script for PyPNM is not one.
fn wrapper(root: &Root, path: &str) -> Option<String> {
    let text =
        root.text(path).ok().filter(|text| text.len() <= MAX_SCRIPT_BYTES && text.starts_with("#!"))?;
    let shell = metadata::shell(&text)?;
    if !SHELLS.contains(&base_name(shell)) {
        return None;
    }
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// Splits a script into words roughly as a shell does, which is enough to recognize a path.
fn script_words(script: &str) -> impl Iterator<Item = String> {
    let is_end = |c: char| c.is_ascii_whitespace() || ";&|()<>`".contains(c);
    script.split(is_end).map(|word| word.replace(['"', '\''], "")).filter(|word| !word.is_empty())
}

/// Whether the unit's commands contain the name of the program.
pub(crate) fn starts(unit: &Unit, program: PypnmProgram) -> bool {
    start_words(unit).iter().any(|(word, _)| word == program.command)
}

/// The command of the unit that starts the installation. `None`: none does.
pub(crate) fn started_by(root: &Root, unit: &Unit, installation: &Installation) -> Option<Source> {
    let mut environments = environments_of_unit(root, installation.program, unit).into_iter();
    environments.find(|(environment, _)| *environment == installation.environment).map(|(_, source)| source)
}

/// An operator's `ExecStart=` that replaces the packaged one, which would start the program on the unit's `PATH`, and
/// does not start this installation.
pub(crate) fn started_otherwise(root: &Root, unit: &Unit, installation: &Installation) -> Option<Source> {
    let words = start_words(unit);
    let is_of_fragment = |source: &Source| unit.fragment.as_deref() == Some(&*source.file);
    let (_, source) = words.iter().find(|(_, source)| !is_of_fragment(source))?;
    // As an argument of the launcher or of env(1), without a path.
    let is_on_path = words.iter().skip(1).any(|(word, _)| word == installation.program.command);
    let is_started = is_on_path || started_by(root, unit, installation).is_some();
    (!is_started).then(|| (*source).clone())
}

/// The prefix of the first directory in `path` that contains the program.
pub(super) fn on_path(root: &Root, path: &str, program: PypnmProgram) -> Option<String> {
    prefix_of(&program.in_path(path).find_map(|command| real_path(root, &command))?)
}
