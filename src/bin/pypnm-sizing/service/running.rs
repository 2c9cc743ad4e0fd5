//! A running service: its workers, and what its server was started with. Reads /proc and the profile file;
//! [`super::in_use`] interprets the result.

use std::collections::BTreeMap;

use pypnm_sizing::names;
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::root::{ReadError, Root};
use pypnm_sizing::watch::role::{Role, roles};

use super::container::{self, ProcessFiles};
use super::process::{self, Process};
use super::{generated, moment};

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
    pub(crate) file: Option<(String, Result<String, ReadError>)>,
    /// Whether that file has changed since the process started, which read it before.
    pub(crate) file_has_changed: bool,
}

impl Running {
    /// Reads a service from its processes. `main`: the process that serves, or whose children do. `files`: those that it sees.
    pub(crate) fn read(machine: &Root, files: &ProcessFiles, processes: &[Process], main: u32) -> Self {
        let candidates = process::candidates(processes);
        let roles = roles(&candidates);
        let with_role = |role| roles.iter().zip(&candidates).filter(move |(known, _)| **known == role);
        // The newest worker: during a handover, an older one may still be finishing requests with the previous profile.
        let worker = with_role(Role::Worker).map(|(_, worker)| worker.pid).filter(|pid| *pid != main).max();
        let arguments = processes.iter().find(|process| process.pid == main);
        let mut running = Self {
            workers: i64::try_from(with_role(Role::Worker).count()).unwrap_or(i64::MAX),
            is_single: with_role(Role::Parent).next().is_none(),
            arguments: arguments.map(|main| main.arguments.clone()).unwrap_or_default(),
            environment: process::environment(machine, main),
            active: worker.and_then(|pid| active_numbers(machine, pid)),
            file: None,
            file_has_changed: false,
        };
        let path = running.environment.as_ref().and_then(|all| all.get(pypnm::ENV_FILE));
        if let Some(path) = path.filter(|path| !path.is_empty()).cloned() {
            running.read_profile(machine, files, processes, &path);
        }
        running
    }

    /// Reads the profile file at `path`, as the service sees it.
    pub(crate) fn read_profile(
        &mut self,
        machine: &Root,
        files: &ProcessFiles,
        processes: &[Process],
        path: &str,
    ) {
        let family: Vec<u32> = processes.iter().map(|process| process.pid).collect();
        let text = container::profile_text(machine, files, &family, path);
        self.file = Some((path.to_owned(), text));
    }

    /// For a unit: determines whether the profile file has changed since `main` started. `ours`, the file of the generated
    /// drop-in, is written before each start and each reload, and then read.
    ///
    /// The start of a process in a container, or of one that was started by hand, tells nothing: it may be that of a script
    /// that writes the file and then executes PyPNM.
    pub(crate) fn compare_times(
        &mut self,
        machine: &Root,
        files: &ProcessFiles,
        main: u32,
        ours: Option<&str>,
    ) {
        let path = self.file.as_ref().map(|(path, _)| path.as_str()).filter(|path| Some(*path) != ours);
        let changed = path.zip(files.root(machine)).and_then(|(path, root)| moment::changed(root, path));
        let started = moment::started(machine, main);
        self.file_has_changed = started.zip(changed).is_some_and(|(started, changed)| changed > started);
    }

    /// The numbers in its profile file, if PyPNM takes them.
    pub(crate) fn profile(&self) -> Option<Numbers> {
        let (_, text) = self.file.as_ref()?;
        pypnm::read_profile_file(text.as_ref().ok()?).taken()
    }
}

/// The profile in effect, which PyPNM passes to its workers.
fn active_numbers(machine: &Root, worker: u32) -> Option<Numbers> {
    generated::numbers_in(&process::environment(machine, worker)?, names::ACTIVE_VARIABLES)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use rustix::time::ClockId;

    use super::{Numbers, Process, ProcessFiles, Root, Running, moment};
    use crate::service::in_use::{Origin, in_use};

    const PROFILE: &str = "/run/own.env";
    const AGE: Duration = Duration::from_hours(1);

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
    }

    fn put(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path.trim_start_matches('/'));
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
    }

    fn profile(limit: u32) -> String {
        format!(
            "PYPNM_SERVE_CPU_COUNT=1\nPYPNM_SERVE_TOTAL_MEMORY_GIB=4\nPYPNM_SERVE_WORKERS=1\n\
             PYPNM_SERVE_LIMIT_MAX_REQUESTS={limit}\n"
        )
    }

    fn stat(started: u128) -> String {
        format!("7 (pypnm) S 1 {}{started} {}", "0 ".repeat(17), "0 ".repeat(29))
    }

    fn root(dir: &tempfile::TempDir) -> Root {
        Root::below(dir.path()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A machine where process 7 is a PyPNM that started an hour ago and reads the profile file.
    fn machine() -> (tempfile::TempDir, Root) {
        let dir = directory();
        // Not before the boot, which may have been a minute ago.
        let started = moment::on_clock(ClockId::Boottime).saturating_sub(AGE).as_millis() / 10;
        put(dir.path(), "/proc/7/stat", &stat(started));
        put(dir.path(), "/proc/7/environ", &format!("PYPNM_SERVE_ENV_FILE={PROFILE}\0"));
        put(dir.path(), PROFILE, &profile(25));
        let root = root(&dir);
        (dir, root)
    }

    fn read(root: &Root, files: &ProcessFiles) -> Running {
        let arguments = ["/opt/pypnm/bin/python", "/opt/pypnm/bin/pypnm", "serve"];
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        Running::read(root, files, &[Process { pid: 7, parent: 1, arguments }], 7)
    }

    #[test]
    fn the_profile_of_a_container_is_the_one_that_it_sees() {
        let (_dir, machine) = machine();
        let container = directory();
        put(container.path(), PROFILE, &profile(50));
        for (files, limit) in [
            (ProcessFiles::Same, Some(25)),
            (ProcessFiles::Own(Box::new(root(&container))), Some(50)),
            (ProcessFiles::Own(Box::new(root(&directory()))), None),
            (ProcessFiles::Denied, None),
        ] {
            let running = read(&machine, &files);
            assert_eq!(in_use(&running, None).limit_max_requests, limit, "{files:?}");
        }
    }

    #[test]
    fn a_profile_that_changed_since_the_start_is_not_in_use() {
        let (dir, machine) = machine();
        let files = ProcessFiles::Same;
        let mut running = read(&machine, &files);
        let mut limit = |ours: Option<&str>| {
            running.compare_times(&machine, &files, 7, ours);
            let in_use = in_use(&running, None);
            (in_use.limit_max_requests, in_use.origin)
        };
        assert_eq!(limit(None), (None, Origin::Unknown), "written just now");
        assert_eq!(limit(Some("/run/other.env")), (None, Origin::Unknown));
        assert_eq!(limit(Some(PROFILE)), (Some(25), Origin::File), "it is read again at each reload");
        let before = SystemTime::now().checked_sub(AGE * 100);
        let file = File::options().write(true).open(dir.path().join(PROFILE.trim_start_matches('/')));
        let aged = file.and_then(|file| file.set_modified(before.unwrap_or(SystemTime::UNIX_EPOCH)));
        aged.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(limit(None), (Some(25), Origin::File));
    }

    #[test]
    fn a_file_that_is_written_during_the_start_has_not_changed_since() {
        let (dir, machine) = machine();
        let before = moment::ago(Duration::ZERO);
        // The start is known to a hundredth of a second.
        let ticks = moment::on_clock(ClockId::Boottime).as_millis() / 10;
        put(dir.path(), "/proc/7/stat", &stat(ticks));
        assert!(moment::started(&machine, 7) >= before, "the end of the tick");
    }

    #[test]
    fn what_it_reports_counts_more_than_its_file() {
        let (_dir, machine) = machine();
        let mut running = read(&machine, &ProcessFiles::Same);
        running.active = Some(Numbers { workers: 1, limit_max_requests: 75 });
        running.file_has_changed = true;
        assert_eq!(in_use(&running, None).limit_max_requests, Some(75));
    }
}
