//! Finds installations: by what a unit starts, the caller's environment, and the places where PyPNM is usually kept.

use pypnm_sizing::parse::words::{Words, is_whitespace};
use pypnm_sizing::problem::Source;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::{Unit, specifier};

use super::search::path_of_start;
use super::{Found, Installation, PACKAGED, Program, base_name, names, prefix_of, real_path};

/// systemd's `DEFAULT_PATH` where /usr is merged, and where pip installs to as root.
const SYSTEM_PREFIXES: [&str; 2] = ["/usr/local", "/usr"];
/// What `git clone` names a checkout, in the places where one is usually kept.
const CHECKOUT: &str = "PyPNM";
const CHECKOUT_PARENTS: [&str; 3] = ["/root", "/opt", "/srv"];
/// Environments of pipx and uv, below a home directory, and pipx's for all users.
const TOOLS: [&str; 3] = [".local/share/pipx/venvs", ".local/pipx/venvs", ".local/share/uv/tools"];
const TOOLS_OF_ALL: &str = "/opt/pipx/venvs";

/// All installations of the program that are found, the one that the unit starts first.
pub(crate) fn find(root: &Root, program: Program, unit: Option<&Unit>) -> Vec<Installation> {
    let mut places = Vec::new();
    if let Some(unit) = unit {
        of_unit(root, program, unit, &mut places);
    }
    let prefix_on = |path: &str| on_path(root, path, program);
    if root.is_machine() {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        places.extend(variable("VIRTUAL_ENV").map(|directory| (directory, Found::VirtualEnv)));
        places.extend(variable("PATH").and_then(|path| prefix_on(&path)).map(|prefix| (prefix, Found::Path)));
    }
    places.push((PACKAGED.to_owned(), Found::Packaged));
    places.extend(SYSTEM_PREFIXES.map(|prefix| (prefix.to_owned(), Found::System)));
    if root.is_machine()
        && let Some(directory) = std::env::current_dir().ok().as_deref().and_then(|path| path.to_str())
    {
        places.extend(environments_of(root, directory));
    }
    let mut homes = names(root, "/home").into_iter().map(|name| format!("/home/{name}")).collect::<Vec<_>>();
    homes.push("/root".to_owned());
    for home in &homes {
        places.extend(TOOLS.map(|tools| (format!("{home}/{tools}/{}", program.package), Found::Tool)));
        places.push((format!("{home}/.local"), Found::System));
    }
    places.push((format!("{TOOLS_OF_ALL}/{}", program.package), Found::Tool));
    for parent in homes.iter().map(String::as_str).chain(CHECKOUT_PARENTS) {
        places.extend(environments_of(root, &format!("{parent}/{CHECKOUT}")));
    }
    let mut found: Vec<Installation> = Vec::new();
    let mut seen = Vec::new();
    for (environment, how) in places {
        // A command on PATH is most often a link into its environment.
        let command = format!("{}/bin/{}", environment.trim_end_matches('/'), program.command);
        let Some(environment) =
            real_path(root, &command).and_then(|command| prefix_of(&command)).or(Some(environment))
        else {
            continue;
        };
        if !seen.contains(&environment) {
            found.extend(Installation::read(root, &environment, program, how));
            seen.push(environment);
        }
    }
    found
}

/// The installations in a directory that a person named: it is an environment, or a checkout that has some, whatever
/// their names are.
pub(crate) fn in_directory(root: &Root, directory: &str, program: Program) -> Vec<Installation> {
    let own = Installation::read(root, directory, program, Found::Given);
    let inside = environments_of(root, directory);
    own.into_iter()
        .chain(inside.into_iter().filter_map(|(place, how)| Installation::read(root, &place, program, how)))
        .collect()
}

/// The directory that a person may have meant who named one without an installation: above it, or a checkout in it.
pub(crate) fn nearest(root: &Root, directory: &str, program: Program) -> Option<String> {
    let above = directory.match_indices('/').rev().filter_map(|(end, _)| directory.get(..end));
    let near = above.filter(|path| !path.is_empty()).map(str::to_owned);
    let mut near = std::iter::once(format!("{directory}/{CHECKOUT}")).chain(near);
    near.find(|path| !in_directory(root, path, program).is_empty())
}

/// Whether one of the words that a unit starts is this.
pub(crate) fn starts(unit: &Unit, word: &str) -> bool {
    start_words(unit).iter().any(|(started, _)| started == word)
}

/// Whether a directory is a checkout of the program's source, installed or not.
pub(crate) fn is_checkout(root: &Root, directory: &str, program: Program) -> bool {
    root.has_directory(&format!("{directory}/src/{}", program.import))
}

/// The virtual environments (PEP 405) right below a directory.
pub(crate) fn environments_of(root: &Root, directory: &str) -> Vec<(String, Found)> {
    let mut found: Vec<String> = names(root, directory)
        .into_iter()
        .map(|name| format!("{directory}/{name}"))
        .filter(|path| root.file_type(&format!("{path}/pyvenv.cfg")).is_some())
        // A link is another name of the same.
        .filter_map(|path| real_path(root, &path))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|path| (path, Found::Checkout(directory.to_owned()))).collect()
}

/// What the unit's commands lead to: a program of that name, a Python or a uvicorn beside one, a checkout's script; else
/// what the unit's `PATH` has.
fn of_unit(root: &Root, program: Program, unit: &Unit, places: &mut Vec<(String, Found)>) {
    let words = start_words(unit);
    for (word, source) in &words {
        let how = || Found::Unit((*source).clone());
        let Some(prefix) = real_path(root, word).as_deref().and_then(prefix_of).or_else(|| prefix_of(word))
        else {
            continue;
        };
        let name = base_name(word);
        if name == program.command {
            places.push((prefix, how()));
        } else if name.starts_with("python") || name == "uvicorn" {
            // Of a virtual environment, whose Python is a link: not resolved.
            places.extend(prefix_of(word).map(|prefix| (prefix, how())));
        } else if let Some((checkout, _)) = word.rsplit_once("/scripts/") {
            let inside = environments_of(root, checkout);
            places.extend(inside.into_iter().map(|(place, _)| (place, how())));
        }
    }
    if let Some((_, source)) =
        words.iter().find(|(word, _)| !word.starts_with('/') && base_name(word) == program.command)
        && let Some(prefix) = on_path(root, &path_of_start(program, unit), program)
    {
        places.push((prefix, Found::Unit((*source).clone())));
    }
}

/// The words of the unit's `ExecStart=` in effect, without systemd's prefixes, specifiers replaced.
pub(super) fn start_words(unit: &Unit) -> Vec<(String, &Source)> {
    let mut all = Vec::new();
    for assignment in unit.assignments_of("ExecStart") {
        if assignment.value.is_empty() {
            all.clear();
        }
        let words = Words::new(&assignment.value, is_whitespace, true).map_while(Result::ok);
        for (index, word) in words.enumerate() {
            let word =
                if index == 0 { word.trim_start_matches(['@', '-', '+', '!', '|', ':']) } else { &word };
            let name = unit.name_at(assignment);
            let expanded = name.and_then(|name| specifier::expand(word, &name).ok().map(Into::into));
            all.push((expanded.unwrap_or_else(|| word.to_owned()), &assignment.source));
        }
    }
    all
}

/// Which command of the unit starts the installation; `None`: none does.
pub(crate) fn started_by(
    root: &Root,
    program: Program,
    unit: &Unit,
    installation: &Installation,
) -> Option<Source> {
    let mut places = Vec::new();
    of_unit(root, program, unit, &mut places);
    places.into_iter().find_map(|(environment, found)| match found {
        Found::Unit(source) if environment == installation.environment => Some(source),
        _ => None,
    })
}

/// Where an operator has put another command in the place of the packaged one, which starts what the unit's `PATH` leads
/// to, and it does not start this installation.
pub(crate) fn started_otherwise(
    root: &Root,
    program: Program,
    unit: &Unit,
    installation: &Installation,
) -> Option<Source> {
    let words = start_words(unit);
    let is_of_fragment = |source: &Source| unit.fragment.as_deref() == Some(&*source.file);
    let (_, source) = words.iter().find(|(_, source)| !is_of_fragment(source))?;
    // By its bare name as an argument: of the launcher, or of env(1).
    let is_on_path = words.iter().skip(1).any(|(word, _)| word == program.command);
    let is_started = is_on_path || started_by(root, program, unit, installation).is_some();
    (!is_started).then(|| (*source).clone())
}

/// The prefix of the first directory on `path` that has the program.
fn on_path(root: &Root, path: &str, program: Program) -> Option<String> {
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    let command = directories
        .map(|directory| format!("{}/{}", directory.trim_end_matches('/'), program.command))
        .find(|command| real_path(root, command).is_some())?;
    prefix_of(&real_path(root, &command)?)
}
