//! The sockets that the service listens on, and the process that has its port instead.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use pypnm_sizing::command::CommandReader;
use pypnm_sizing::names::PORT_FLAG;
use rustix::io::Errno;

use super::owner::Owner;
use super::{MAX_SOCKETS, NotReady, Socket, Wait};
use crate::service::family::Presence;
use crate::service::probe::Vantage;
use crate::service::process;
use crate::service::process::sockets::{self, Address, HeldSockets, Listener};

/// The default of both programs.
const DEFAULT_PORT: u16 = 8000;

impl Wait<'_> {
    /// How the service's sockets are distinguished from others.
    pub(super) fn owner(&self, presence: Presence) -> Owner {
        let held = HeldSockets::read(self.alive());
        let mut users: BTreeSet<u32> =
            held.denied.iter().filter_map(|pid| process::user(self.machine, *pid)).collect();
        if presence == Presence::Hidden {
            // Of a user's own processes, /proc hides only those that are not dumpable.
            users.insert(rustix::process::geteuid().as_raw());
        }
        // A socket of root may belong to any service.
        users.remove(&0);
        let mut denied = held.denied.clone();
        denied.extend((presence == Presence::Hidden).then_some(self.service.main()));
        Owner { held, denied, users, by_user: false }
    }

    /// The processes of the service that have not ended.
    fn alive(&self) -> impl Iterator<Item = u32> {
        self.family.iter().filter(|(_, stat)| !stat.has_ended()).map(|(pid, _)| *pid)
    }

    /// Finds the sockets that the service listens on: by its descriptors, or by its user if these show no socket and some
    /// of them are not readable.
    pub(super) fn find(&mut self, owner: &mut Owner) -> Result<(), NotReady> {
        let views = self.views(owner)?;
        self.update_own(&views, owner);
        self.denied = None;
        if self.own.is_empty()
            && let Some(denied) = owner.denied.first()
        {
            let all_denied = self.alive().all(|pid| owner.denied.contains(&pid));
            if owner.users.is_empty() && all_denied {
                return Err(NotReady::Unknown(format!(
                    "the descriptors of process {denied} are not readable: run ready as its user, with its capabilities, \
                     or as root"
                )));
            }
            self.denied = Some(*denied);
            owner.by_user = true;
            self.update_own(&views, owner);
        }
        self.record_other_process(&views, owner);
        Ok(())
    }

    /// The listening sockets in each network namespace in which the service has processes.
    fn views(&self, owner: &Owner) -> Result<Vec<(Vantage, Vec<Listener>)>, NotReady> {
        let own_namespace = process::namespace("self", "net").ok();
        let mut pids: Vec<u32> = self.alive().filter(|pid| !owner.denied.contains(pid)).collect();
        if pids.is_empty() {
            // A process whose descriptors are not readable still shows its socket tables, unless it is hidden altogether.
            // In that case its namespace is assumed to be that of ExecStartPost=.
            pids.push(self.alive().next().unwrap_or_else(std::process::id));
        }
        let mut seen = BTreeSet::new();
        let mut views = Vec::new();
        for pid in pids {
            let namespace = process::namespace(&pid.to_string(), "net").ok();
            let foreign = namespace.is_some() && namespace != own_namespace;
            if !seen.insert(namespace) {
                continue;
            }
            match sockets::listening(pid) {
                Ok(listeners) => views.push((Vantage { holder: pid, foreign }, listeners)),
                // The process has ended.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // ESRCH: it ended between open(2) and read(2).
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                Err(error) => return Err(NotReady::Unknown(format!("/proc/{pid}/net: {error}"))),
            }
        }
        Ok(views)
    }

    /// Updates the service's own sockets, and keeps the state of those that are still there.
    fn update_own(&mut self, views: &[(Vantage, Vec<Listener>)], owner: &Owner) {
        let mut found = BTreeSet::new();
        for (vantage, listeners) in views {
            for listener in listeners.iter().filter(|listener| owner.owns(listener)) {
                if found.len() == MAX_SOCKETS {
                    break;
                }
                let key = (listener.inode, listener.address.clone());
                found.insert(key.clone());
                let new = || Socket {
                    vantage: vantage.clone(),
                    probed: None,
                    pending: 0,
                    answer: None,
                    why: None,
                    denied: None,
                };
                self.own.entry(key).or_insert_with(new).vantage = vantage.clone();
            }
        }
        self.own.retain(|key, _| found.contains(key));
    }

    /// Records which other process has the port that the service is probably meant to use, for a message.
    fn record_other_process(&mut self, views: &[(Vantage, Vec<Listener>)], owner: &Owner) {
        let arguments = process::arguments(self.machine, self.service.main());
        // A process that is ending has no arguments and shows no sockets. What was found before is the reason why it ends.
        if arguments.is_empty() {
            return;
        }
        let port = intended_port(&arguments);
        let has_port =
            |listener: &&Listener| matches!(listener.address, Address::Tcp(at) if at.port() == port);
        let stranger = views
            .iter()
            .flat_map(|(_, listeners)| listeners)
            .filter(has_port)
            .find(|listener| !owner.owns(listener));
        // Examining every process takes long on a large machine.
        let known = self.taken.as_ref().map(|(inode, _)| *inode);
        if stranger.map(|stranger| stranger.inode) != known {
            self.taken = stranger.map(|stranger| {
                let who = self.holder_of(stranger.inode, stranger.user);
                (
                    stranger.inode,
                    format!("{} belongs to {who}, which is not part of the service", stranger.address),
                )
            });
        }
    }

    /// A description of the process that holds a socket.
    pub(super) fn holder_of(&self, inode: u64, user: Option<u32>) -> String {
        let holds = |pid: &u32| sockets::held(*pid).is_ok_and(|held| held.contains(&inode));
        match (process::all_pids(self.machine).into_iter().find(holds), user) {
            (Some(pid), _) => self.with_name(pid),
            (None, Some(user)) => format!("a process of user {user} that is not visible"),
            (None, None) => "a process that is not visible".to_owned(),
        }
    }

    pub(super) fn with_name(&self, pid: u32) -> String {
        match process::name(self.machine, pid) {
            Some(name) => format!("process {pid} ({name})"),
            None => format!("process {pid}"),
        }
    }
}

/// The port on the command line of PyPNM or uvicorn, or their default. Used only in a message.
fn intended_port(arguments: &[String]) -> u16 {
    let mut reader = CommandReader::for_flags(&[PORT_FLAG]);
    let values = arguments.iter().filter_map(|word| reader.word(word));
    values.filter_map(|(_, value)| value.parse().ok()).last().unwrap_or(DEFAULT_PORT)
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
        assert_eq!(port("pypnm serve -- --port 5"), 8000);
        assert_eq!(port("/v/bin/python3 -m uvicorn a:b --port 9000"), 9000);
        assert_eq!(port("/v/bin/python3 serve.py --port 9000"), 9000);
    }
}
