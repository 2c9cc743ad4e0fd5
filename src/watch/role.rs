//! The roles of a service's processes. Pure.
//!
//! With one worker PyPNM serves from its first process. With more, uvicorn (`uvicorn.supervisors.multiprocess`) stays
//! the parent and starts each worker by multiprocessing's spawn method, which first starts a resource tracker:
//!
//! ```text
//!  python3 /usr/bin/pypnm serve --workers 2                            parent
//!  ├─ python3 -c from multiprocessing.resource_tracker import main;…   tracker
//!  ├─ python3 -c from multiprocessing.spawn import spawn_main; …       worker
//!  │  └─ ping …                                                        other
//!  └─ python3 -c from multiprocessing.spawn import spawn_main; …       worker
//! ```

use serde::{Deserialize, Serialize};

use crate::command::{Program, program};

/// The role of a process in the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves requests; with one worker it is the first process.
    Worker,
    /// Supervises the workers, and serves no requests.
    Parent,
    /// multiprocessing's resource tracker.
    Tracker,
    /// Anything else, such as a wrapper's shell or a ping.
    #[default]
    #[serde(other)]
    Other,
}

impl Role {
    /// A word for the role.
    pub fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Parent => "parent",
            Self::Tracker => "tracker",
            Self::Other => "other",
        }
    }
}

/// A process whose role is to be determined.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The process ID.
    pub pid: u32,
    /// The parent's process ID.
    pub parent: u32,
    /// The arguments.
    pub arguments: &'a [String],
}

impl Candidate<'_> {
    fn says(&self, word: &str) -> bool {
        self.arguments.iter().any(|argument| argument.contains(word))
    }

    /// Started by multiprocessing's spawn method.
    pub fn is_spawned(&self) -> bool {
        self.says("from multiprocessing.spawn import")
    }

    fn is_tracker(&self) -> bool {
        self.says("from multiprocessing.resource_tracker import")
    }

    /// Whether these are the arguments of PyPNM or uvicorn, regardless of the Python or the wrapper before them.
    pub fn is_server(&self) -> bool {
        program(self.arguments) != Program::Unknown
    }
}

/// The role of each process, in the same order.
pub fn roles(processes: &[Candidate<'_>]) -> Vec<Role> {
    let main = main_process(processes);
    let parented = |pid| processes.iter().any(|p| p.parent == pid && (p.is_spawned() || p.is_tracker()));
    processes
        .iter()
        .map(|process| {
            if Some(process.pid) == main {
                if parented(process.pid) { Role::Parent } else { Role::Worker }
            } else if process.is_tracker() {
                Role::Tracker
            } else if process.is_spawned() && Some(process.parent) == main {
                Role::Worker
            } else {
                Role::Other
            }
        })
        .collect()
}

/// The process that serves, or whose children do: the topmost server; otherwise the parent of the processes that
/// multiprocessing has started; otherwise (an unknown program) the topmost process.
pub fn main_process(processes: &[Candidate<'_>]) -> Option<u32> {
    let topmost = |is: &dyn Fn(&Candidate<'_>) -> bool| {
        let chosen: Vec<&Candidate<'_>> = processes.iter().filter(|process| is(process)).collect();
        chosen
            .iter()
            .filter(|process| !chosen.iter().any(|other| other.pid == process.parent))
            .map(|process| process.pid)
            .min()
    };
    let ours = |process: &Candidate<'_>| !process.is_spawned() && !process.is_tracker();
    topmost(&|process| ours(process) && process.is_server())
        .or_else(|| {
            topmost(&|process| {
                ours(process) && processes.iter().any(|p| p.parent == process.pid && p.is_spawned())
            })
        })
        .or_else(|| topmost(&ours))
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Role, roles};

    const SPAWN: &str =
        "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=7, pipe_handle=9)";
    const TRACKER: &str = "from multiprocessing.resource_tracker import main;main(6)";

    fn roles_of(processes: &[(u32, u32, &[&str])]) -> Vec<Role> {
        let arguments: Vec<Vec<String>> =
            processes.iter().map(|(_, _, words)| words.iter().map(|w| (*w).to_owned()).collect()).collect();
        let candidates: Vec<Candidate<'_>> = processes
            .iter()
            .zip(&arguments)
            .map(|((pid, parent, _), arguments)| Candidate { pid: *pid, parent: *parent, arguments })
            .collect();
        roles(&candidates)
    }

    #[test]
    fn recorded_pypnm_serve_with_two_workers() {
        let got = roles_of(&[
            (13263, 1, &["/v/bin/python3", "/v/bin/pypnm", "serve", "--port", "1", "--workers", "2"]),
            (13280, 13263, &["/v/bin/python3", "-B", "-c", TRACKER]),
            (13281, 13263, &["/v/bin/python3", "-B", "-c", SPAWN, "--multiprocessing-fork"]),
            (13282, 13263, &["/v/bin/python3", "-B", "-c", SPAWN, "--multiprocessing-fork"]),
            (13300, 13282, &["ping", "-c", "1", "192.0.2.1"]),
        ]);
        assert_eq!(got, [Role::Parent, Role::Tracker, Role::Worker, Role::Worker, Role::Other]);
    }

    #[test]
    fn recorded_python_m_uvicorn() {
        let got = roles_of(&[
            (13271, 1, &["/v/bin/python", "-m", "uvicorn", "pypnm.api.main:app", "--workers", "2"]),
            (13273, 13271, &["/v/bin/python", "-B", "-c", TRACKER]),
            (13274, 13271, &["/v/bin/python", "-B", "-c", SPAWN, "--multiprocessing-fork"]),
        ]);
        assert_eq!(got, [Role::Parent, Role::Tracker, Role::Worker]);
    }

    #[test]
    fn one_worker_is_the_first_process() {
        assert_eq!(roles_of(&[(1, 0, &["/v/bin/python3", "/v/bin/pypnm", "serve"])]), [Role::Worker]);
        let forked = roles_of(&[
            (1, 0, &["/v/bin/python3", "/v/bin/pypnm", "serve"]),
            (9, 1, &["/v/bin/python3", "/v/bin/pypnm", "serve"]),
        ]);
        assert_eq!(
            forked,
            [Role::Worker, Role::Other],
            "a child between fork and exec looks like its parent"
        );
    }

    #[test]
    fn a_parent_without_workers_is_still_a_parent() {
        let got = roles_of(&[
            (1, 0, &["/v/bin/python3", "/v/bin/pypnm", "serve"]),
            (2, 1, &["/v/bin/python3", "-c", TRACKER]),
        ]);
        assert_eq!(got, [Role::Parent, Role::Tracker]);
    }

    #[test]
    fn a_wrappers_shell_is_not_the_server() {
        let got = roles_of(&[
            (1, 0, &["/bin/bash", "./scripts/start-fastapi-service.sh"]),
            (2, 1, &["/v/bin/python3", "/v/bin/pypnm-cmts", "serve"]),
            (3, 2, &["/v/bin/python3", "-c", SPAWN]),
        ]);
        assert_eq!(got, [Role::Other, Role::Parent, Role::Worker]);
        assert_eq!(
            roles_of(&[(1, 0, &["/bin/sh", "-c", "exec pypnm serve"])]),
            [Role::Worker],
            "nothing better"
        );
    }

    #[test]
    fn processes_of_a_pool_inside_a_worker_are_not_workers() {
        let got = roles_of(&[
            (1, 0, &["python3", "/v/bin/pypnm", "serve"]),
            (2, 1, &["python3", "-c", SPAWN]),
            (3, 2, &["python3", "-c", SPAWN]),
        ]);
        assert_eq!(got, [Role::Parent, Role::Worker, Role::Other]);
        assert_eq!(roles_of(&[(5, 1, &["python3", "-c", SPAWN])]), [Role::Other], "an orphan");
        assert_eq!(roles_of(&[]), []);
    }
}
