//! What the service listens on, and who else has the port that it was to have.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use rustix::io::Errno;

use super::owner::Owner;
use super::{MAX_SOCKETS, NotReady, Socket, Wait};
use crate::service::family::Presence;
use crate::service::probe::Vantage;
use crate::service::process;
use crate::service::process::sockets::{self, Address, Held, Listener};

impl Wait<'_> {
    /// What tells the service's sockets from others.
    pub(super) fn owner(&self, presence: Presence) -> Owner {
        let held = Held::by(self.alive());
        let mut users: BTreeSet<u32> =
            held.denied.iter().filter_map(|pid| process::user(self.machine, *pid)).collect();
        if presence == Presence::Hidden {
            // /proc hides from nobody the processes of a user but those that are not dumpable.
            users.insert(rustix::process::geteuid().as_raw());
        }
        // Whatever listens as root need not be of this service.
        users.remove(&0);
        let mut denied = held.denied.clone();
        denied.extend((presence == Presence::Hidden).then_some(self.service.main()));
        Owner { held, denied, users, by_user: false }
    }

    /// The processes of the service that have not ended.
    fn alive(&self) -> impl Iterator<Item = u32> {
        self.family.iter().filter(|(_, stat)| !stat.has_ended()).map(|(pid, _)| *pid)
    }

    /// Finds what the service listens on: by its descriptors, and where these show nothing and some are not readable, by
    /// its user.
    pub(super) fn find(&mut self, owner: &mut Owner) -> Result<(), NotReady> {
        let views = self.views(owner)?;
        self.keep(&views, owner);
        self.denied = None;
        if self.own.is_empty()
            && let Some(denied) = owner.denied.first()
        {
            let all_denied = self.alive().all(|pid| owner.denied.contains(&pid));
            if owner.users.is_empty() && all_denied {
                return Err(NotReady::Unknown(format!(
                    "the descriptors of process {denied} are not readable: run ready as its user with its capabilities, \
                     or as root"
                )));
            }
            self.denied = Some(*denied);
            owner.by_user = true;
            self.keep(&views, owner);
        }
        self.note_stranger(&views, owner);
        Ok(())
    }

    /// What listens in each network namespace that the service has processes in.
    fn views(&self, owner: &Owner) -> Result<Vec<(Vantage, Vec<Listener>)>, NotReady> {
        let own_namespace = sockets::network_namespace("self");
        let mut pids: Vec<u32> = self.alive().filter(|pid| !owner.denied.contains(pid)).collect();
        if pids.is_empty() {
            // A process that does not show its descriptors shows its tables, unless it is hidden altogether. Then it has
            // the namespace of its ExecStartPost=.
            pids.push(self.alive().next().unwrap_or_else(std::process::id));
        }
        let mut seen = BTreeSet::new();
        let mut views = Vec::new();
        for pid in pids {
            let namespace = sockets::network_namespace(&pid.to_string());
            let foreign = namespace.is_some() && namespace != own_namespace;
            if !seen.insert(namespace) {
                continue;
            }
            match sockets::listening(pid) {
                Ok(listeners) => views.push((Vantage { holder: pid, foreign }, listeners)),
                // It has ended.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // ESRCH: likewise, between open(2) and read(2).
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                Err(error) => return Err(NotReady::Unknown(format!("/proc/{pid}/net: {error}"))),
            }
        }
        Ok(views)
    }

    /// Keeps the service's own sockets among these, and what is known of them.
    fn keep(&mut self, views: &[(Vantage, Vec<Listener>)], owner: &Owner) {
        let mut found = BTreeSet::new();
        for (vantage, listeners) in views {
            for listener in listeners.iter().filter(|listener| owner.has(listener)) {
                if found.len() == MAX_SOCKETS {
                    break;
                }
                let key = (listener.inode, listener.address.clone());
                found.insert(key.clone());
                let new =
                    || Socket { vantage: vantage.clone(), asked: None, pending: 0, answer: None, why: None };
                self.own.entry(key).or_insert_with(new).vantage = vantage.clone();
            }
        }
        self.own.retain(|key, _| found.contains(key));
    }

    /// Notes who has the port that the service seems to be meant for. It serves a message only.
    fn note_stranger(&mut self, views: &[(Vantage, Vec<Listener>)], owner: &Owner) {
        let port = intended_port(&process::arguments(self.machine, self.service.main()));
        let has_port =
            |listener: &&Listener| matches!(listener.address, Address::Tcp(at) if at.port() == port);
        let stranger = views
            .iter()
            .flat_map(|(_, listeners)| listeners)
            .filter(has_port)
            .find(|listener| !owner.has(listener));
        // To look at every process takes long on a large machine.
        let known = self.taken.as_ref().map(|(inode, _)| *inode);
        if stranger.map(|stranger| stranger.inode) != known {
            self.taken = stranger.map(|stranger| {
                let who = self.who_holds(stranger.inode, stranger.user);
                (
                    stranger.inode,
                    format!("{} belongs to {who}, which is not part of the service", stranger.address),
                )
            });
        }
    }

    /// Names a process that holds a socket.
    pub(super) fn who_holds(&self, inode: u64, user: Option<u32>) -> String {
        let holds = |pid: &u32| sockets::held(*pid).is_ok_and(|held| held.contains(&inode));
        match (process::all_pids(self.machine).into_iter().find(holds), user) {
            (Some(pid), _) => self.with_name(pid),
            (None, Some(user)) => format!("a process of user {user} that is not visible from here"),
            (None, None) => "a process that is not visible from here".to_owned(),
        }
    }

    pub(super) fn with_name(&self, pid: u32) -> String {
        match process::name(self.machine, pid) {
            Some(name) => format!("process {pid} ({name})"),
            None => format!("process {pid}"),
        }
    }
}

/// The port that a command line of PyPNM or uvicorn names, for a message. argparse takes a prefix of an option's name.
fn intended_port(words: &[String]) -> u16 {
    let mut port = 8000;
    for (at, word) in words.iter().enumerate() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word.as_str(), words.get(at + 1).map(String::as_str)),
        };
        if option.len() > 3 && "--port".starts_with(option) {
            port = value.and_then(|value| value.parse().ok()).unwrap_or(port);
        }
    }
    port
}

#[cfg(test)]
mod tests {
    use super::intended_port;

    #[test]
    fn the_port_that_a_command_line_names() {
        let port = |line: &str| intended_port(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(port("pypnm serve"), 8000);
        assert_eq!(port("pypnm serve --host 10.0.0.1 --port 9000"), 9000);
        assert_eq!(port("pypnm serve --por=9000"), 9000);
        assert_eq!(port("pypnm serve --port 1 --port 2"), 2);
        assert_eq!(port("pypnm serve --port"), 8000);
        assert_eq!(port("pypnm serve --port 99999 -- 5"), 8000);
    }
}
