//! What the verdict needs to know, gathered from systemd and from files of the running machine. Nothing is changed and
//! no privilege is needed; what only root may read is left open.

use std::collections::BTreeMap;

use pypnm_sizing::names;
use pypnm_sizing::parse::quantity::Gib;
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::sizing::{Hypothetical, SizedUnit, Sizing};
use pypnm_sizing::watch::role::{Candidate, Role, main_process, roles};

use super::verdict::{Facts, Generator, Live, Running, Sized};
use crate::service::generated;
use crate::service::systemctl::{self, Loaded, Trouble};
use crate::verbs::explain::Own;
use crate::wording;

/// systemd.generator(7): the first of a name wins.
const GENERATORS: [&str; 4] = [
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];
const GENERATOR: &str = "pypnm-sizing-generator";
/// systemd.unit(5), "System Unit Search Path": what comes before the generators' directory.
const STRONGER: [&str; 8] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
];

/// Gathers what there is to know of `name`.
pub(crate) fn gather(root: &Root, sizing: &Sizing, name: &str) -> Result<Facts, Trouble> {
    let loaded = systemctl::show(name)?;
    // An instance lives by its template's drop-in.
    let template =
        name.split_once('@').map_or_else(|| name.to_owned(), |(stem, _)| format!("{stem}@.service"));
    let unit = [name, &template].iter().find_map(|name| sizing.units.iter().find(|unit| unit.name == **name));
    let of = unit.map_or(name, |unit| unit.name.as_str());
    let generated = generated::read(root, of, name).ok().flatten();
    let cant_read = |path: &&String| !matches!(root.bytes(path), Ok(_) | Err(ReadError::Missing));
    let hidden_files = loaded.environment_files.iter().filter(cant_read).cloned().collect();
    let sized = match unit {
        Some(unit) => Ok(of_unit(root, unit)),
        None => Err(wording::turned_off(sizing)
            .or_else(|| wording::not_sized(sizing, name))
            .unwrap_or_else(|| "not in Units= of sizing.conf(5)".to_owned())),
    };
    let ours = generated.as_ref().and_then(|generated| generated.environment.get(pypnm::ENV_FILE));
    let foreign_file = loaded
        .environment
        .get(pypnm::ENV_FILE)
        .filter(|path| Some(*path) != ours)
        .map(|path| (path.clone(), text(root, path)));
    let live = live(root, &loaded, ours);
    Ok(Facts {
        unit: name.to_owned(),
        sized,
        generator: generator(root),
        drop_in: generated::path(of),
        rival: rival(root, of),
        generated,
        hidden_files,
        foreign_file,
        live,
        loaded,
    })
}

fn of_unit(root: &Root, unit: &SizedUnit) -> Sized {
    let settings = wording::settings(&unit.config).into_iter().filter(wording::Setting::matters);
    Sized {
        numbers: Numbers {
            workers: unit.profile.workers.into(),
            limit_max_requests: unit.profile.limit_max_requests.into(),
        },
        cpus: unit.capacity.whole_cpus(),
        gib: Gib(unit.capacity.memory.amount).to_string(),
        by_hand: settings.map(|setting| setting.to_string()).collect(),
        overrides: unit.overrides.clone(),
        own: Own::of(root, &Hypothetical::default()).numbers,
    }
}

fn text(root: &Root, path: &str) -> Result<String, String> {
    root.text(path).map_err(|error| error.to_string())
}

fn generator(root: &Root) -> Generator {
    for directory in GENERATORS {
        let path = format!("{directory}/{GENERATOR}");
        match std::fs::metadata(&path) {
            _ if root.link(&path).is_some_and(|to| to == "/dev/null") => return Generator::Masked(path),
            Err(_) => {}
            Ok(file) if file.len() == 0 => return Generator::Masked(path),
            Ok(file) if std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o111 == 0 => {
                return Generator::NotExecutable(path);
            }
            Ok(_) => return Generator::Installed,
        }
    }
    Generator::Missing
}

/// A file of our drop-in's name in a directory that systemd prefers.
fn rival(root: &Root, unit: &str) -> Option<(String, bool)> {
    STRONGER.iter().find_map(|directory| {
        let path = format!("{directory}/{unit}.d/{}", names::DROP_IN);
        match root.bytes(&path) {
            Err(ReadError::Missing) => None,
            Err(_) => Some((path, true)),
            Ok(bytes) => Some((path, !bytes.is_empty())),
        }
    })
}

/// The processes of a unit's cgroup.
fn processes(root: &Root, cgroup: &str) -> Vec<(u32, u32, Vec<String>)> {
    systemctl::processes(root, cgroup).into_iter().filter_map(|pid| process(root, pid)).collect()
}

fn candidates(processes: &[(u32, u32, Vec<String>)]) -> Vec<Candidate<'_>> {
    let all = processes.iter();
    all.map(|(pid, parent, arguments)| Candidate { pid: *pid, parent: *parent, arguments }).collect()
}

/// The process of a service that serves, or whose children do.
pub(crate) fn server(root: &Root, loaded: &Loaded) -> Option<u32> {
    main_process(&candidates(&processes(root, &loaded.cgroup)))
}

/// The service's processes, and what they were given.
fn live(root: &Root, loaded: &Loaded, ours: Option<&String>) -> Live {
    if !matches!(loaded.active.as_str(), "active" | "reloading") {
        return Live::Not;
    }
    let processes = processes(root, &loaded.cgroup);
    let candidates = candidates(&processes);
    let Some(main) = main_process(&candidates) else {
        return Live::Hidden("it runs, but its processes are hidden from you".to_owned());
    };
    let roles = roles(&candidates);
    let of_role = |role| roles.iter().zip(&candidates).filter(move |(known, _)| **known == role);
    let environment = environment(root, main);
    // The newest: after a reload of pypnm-sizing-handover(7) an older one may still finish its last requests.
    let worker = of_role(Role::Worker).map(|(_, worker)| worker.pid).filter(|pid| *pid != main).max();
    let active = worker.and_then(|pid| self::environment(root, pid)).and_then(|environment| {
        let number = |key: &str| environment.get(key).and_then(|value| pypnm::integer(value));
        Some(Numbers {
            workers: number("PYPNM_ACTIVE_WORKERS")?,
            limit_max_requests: number("PYPNM_ACTIVE_LIMIT_MAX_REQUESTS")?,
        })
    });
    let path = match &environment {
        Some(environment) => environment.get(pypnm::ENV_FILE).cloned(),
        // Not permitted: what it was started with is most probably what systemd has.
        None => loaded.environment.get(pypnm::ENV_FILE).or(ours).cloned(),
    };
    Live::Is(Running {
        workers: of_role(Role::Worker).count(),
        alone: of_role(Role::Parent).next().is_none(),
        arguments: candidates
            .iter()
            .find(|one| one.pid == main)
            .map(|one| one.arguments.to_vec())
            .unwrap_or_default(),
        environment,
        active,
        file: path.map(|path| {
            let text = text(root, &path);
            (path, text)
        }),
    })
}

/// A process: its pid, its parent's, its arguments.
fn process(root: &Root, pid: u32) -> Option<(u32, u32, Vec<String>)> {
    let status = root.text(&format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    Some((pid, parent, words(&root.bytes(&format!("/proc/{pid}/cmdline")).ok()?)))
}

/// The environment that a process was started with; `None`: not permitted, or gone.
fn environment(root: &Root, pid: u32) -> Option<BTreeMap<String, String>> {
    let bytes = root.bytes(&format!("/proc/{pid}/environ")).ok()?;
    let words = words(&bytes);
    Some(words.iter().filter_map(|w| w.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// Words that end in NUL.
fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
