//! Waits until a service answers on a socket of its own.
//!
//! What the service listens on is the kernel's word, whatever its command line, its environment or the manager that handed
//! it a descriptor says; and that the answer came from one of its processes is the kernel's word as well. Somebody else on
//! the port that PyPNM was to have is a stranger, however healthy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pypnm_sizing::root::Root;
use rustix::io::Errno;

use super::family::{self, Presence, Service};
use super::probe::{self, Answer, Connection, Report, Vantage};
use super::process::{self, Stat};
use super::sockets::{self, Address, Held, Listener, TcpSocket};

/// Between two looks at the processes: uvicorn's parent reaps a dead worker within half a second, and how it ended can
/// be seen only before that.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at the sockets, and this many times what a look costs, so that a host with many connections does
/// not pay for them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
const TIMES_THE_COST: u32 = 9;
/// Between two questions for the service's main process.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// After this time without an answer another connection is made: a worker that hangs may have accepted the first one. The
/// first stays, since it has its place in the queue.
const UNTIL_ANOTHER: Duration = Duration::from_secs(5);
/// Between two connections to a socket that closes or refuses them.
const UNTIL_RETRY: Duration = Duration::from_millis(500);
/// The most connections that wait for an answer of one socket.
const MAX_PENDING: usize = 4;
/// The most sockets that are asked.
const MAX_SOCKETS: usize = 64;
/// A service is given up when its workers have failed this many times each before the first answer.
const FAILURES: usize = 3;

/// Why a service is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// It ended, its workers keep failing, or the time was up.
    No(String),
    /// The caller may not look.
    Unknown(String),
}

/// Waits until the service that `service` names answers, at most for `timeout`.
///
/// `service` is called again and again, since systemd may have started another main process; `None`: none runs yet.
pub(crate) fn wait(
    machine: &Root,
    service: &mut dyn FnMut() -> Option<Service>,
    timeout: Duration,
) -> Result<(), NotReady> {
    let deadline = Instant::now() + timeout;
    let mut watched: Option<Wait<'_>> = None;
    let mut next_asked = Instant::now();
    loop {
        if next_asked <= Instant::now() {
            let named = service();
            if watched.as_ref().map(|wait| wait.service) != named {
                watched = named.map(|service| Wait::new(machine, service, deadline));
            }
            next_asked = Instant::now() + BETWEEN_QUESTIONS;
        }
        let state = match &mut watched {
            Some(wait) => {
                if wait.look()? {
                    return Ok(());
                }
                wait.to_string()
            }
            None => "no process of it runs".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(NotReady::No(format!("no answer in {} s: {state}", timeout.as_secs())));
        }
        match &mut watched {
            Some(wait) => wait.receive(PAUSE),
            None => std::thread::sleep(PAUSE),
        }
    }
}

/// What is known of a service that does not answer yet.
struct Wait<'a> {
    machine: &'a Root,
    service: Service,
    deadline: Instant,
    family: BTreeMap<u32, Stat>,
    workers: Workers,
    /// When the sockets are looked at next.
    next_look: Instant,
    /// The service's own sockets, by inode and address: lines of the table of Unix sockets can be forged.
    own: BTreeMap<(u64, Address), Socket>,
    /// A process whose descriptors are not readable, where that matters.
    denied: Option<u32>,
    /// Who has the port that the service was to have: the inode of the socket, and a clause of a message.
    taken: Option<(u64, String)>,
    sender: Sender<Report>,
    receiver: Receiver<Report>,
    received: Vec<Report>,
}

/// A socket that the service listens on.
struct Socket {
    vantage: Vantage,
    /// When it was last asked.
    asked: Option<Instant>,
    /// The number of connections that wait for an answer.
    pending: usize,
    answer: Option<Answer>,
    /// Why the last connection brought no answer.
    why: Option<String>,
}

impl<'a> Wait<'a> {
    fn new(machine: &'a Root, service: Service, deadline: Instant) -> Self {
        let (sender, receiver) = channel();
        Self {
            machine,
            service,
            deadline,
            family: BTreeMap::new(),
            workers: Workers::default(),
            next_look: Instant::now(),
            own: BTreeMap::new(),
            denied: None,
            taken: None,
            sender,
            receiver,
            received: Vec::new(),
        }
    }

    /// Waits for a report of a probe, or for `time`.
    fn receive(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(report) = self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.received.push(report);
            if self.received.len() >= MAX_SOCKETS {
                break;
            }
            // One is enough to look again at once.
            if self.received.iter().any(|report| report.outcome.is_ok()) {
                break;
            }
        }
    }

    /// Looks at the processes, at their sockets, and at what came back from those. Whether the service is up.
    fn look(&mut self) -> Result<bool, NotReady> {
        let pid = self.service.main();
        let presence = family::presence(self.machine, pid);
        if presence == Presence::Ended {
            let taken = self.taken.as_ref().map_or_else(String::new, |(_, taken)| format!("; {taken}"));
            return Err(NotReady::No(format!("process {pid} has ended before it answered{taken}")));
        }
        self.family = family::processes(self.machine, self.service);
        let command_line = |pid| process::arguments(self.machine, pid);
        self.workers.look(&self.family, pid, &command_line);
        if self.workers.keep_failing() {
            let failed = self.workers.failed.len();
            return Err(NotReady::No(format!(
                "{failed} workers have died at their start, and none has answered"
            )));
        }
        let reports = std::mem::take(&mut self.received);
        if self.next_look <= Instant::now() || !reports.is_empty() {
            let started = Instant::now();
            let mut owner = self.owner(presence);
            self.find(&mut owner)?;
            for report in reports {
                self.judge(report, &owner)?;
            }
            self.next_look = started + BETWEEN_LOOKS.max(started.elapsed() * TIMES_THE_COST);
        }
        if self.is_up() {
            return Ok(true);
        }
        self.ask();
        Ok(false)
    }

    /// PyPNM says that it is healthy, or speaks TLS; otherwise, with `/health` behind something else, all that it listens
    /// on has answered.
    fn is_up(&self) -> bool {
        let answers = || self.own.values().map(|socket| socket.answer);
        answers().any(|answer| matches!(answer, Some(Answer::Healthy | Answer::Tls)))
            || (!self.own.is_empty() && answers().all(|answer| answer.is_some()))
    }

    /// How the service's sockets are told from others.
    fn owner(&self, presence: Presence) -> Owner {
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
    fn find(&mut self, owner: &mut Owner) -> Result<(), NotReady> {
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
    fn who_holds(&self, inode: u64, user: Option<u32>) -> String {
        let holds = |pid: &u32| sockets::held(*pid).is_ok_and(|held| held.contains(&inode));
        match (process::all_pids(self.machine).into_iter().find(holds), user) {
            (Some(pid), _) => self.with_name(pid),
            (None, Some(user)) => format!("a process of user {user} that cannot be seen from here"),
            (None, None) => "a process that cannot be seen from here".to_owned(),
        }
    }

    fn with_name(&self, pid: u32) -> String {
        match process::name(self.machine, pid) {
            Some(name) => format!("process {pid} ({name})"),
            None => format!("process {pid}"),
        }
    }

    /// Asks each socket that has not answered and has been silent for long enough.
    fn ask(&mut self) {
        let now = Instant::now();
        for ((inode, address), socket) in &mut self.own {
            let pause = if socket.pending == 0 { UNTIL_RETRY } else { UNTIL_ANOTHER };
            let waits = socket.asked.is_some_and(|last| now.duration_since(last) < pause);
            if socket.answer.is_some() || waits || socket.pending >= MAX_PENDING {
                continue;
            }
            socket.asked = Some(now);
            let key = (*inode, address.clone());
            match probe::start(key, socket.vantage.clone(), self.deadline, self.sender.clone()) {
                Ok(()) => socket.pending += 1,
                Err(error) => socket.why = Some(error.to_string()),
            }
        }
    }

    /// Takes a report for what it is worth.
    fn judge(&mut self, report: Report, owner: &Owner) -> Result<(), NotReady> {
        let Some(socket) = self.own.get(&report.socket) else { return Ok(()) };
        let vantage = socket.vantage.clone();
        let (answer, why) = match report.outcome {
            Err(error) if vantage.foreign && error.kind() == ErrorKind::PermissionDenied => {
                return Err(NotReady::Unknown(format!(
                    "process {} listens on {} in another network namespace, which only root can enter",
                    vantage.holder, report.socket.1
                )));
            }
            Err(error) => (None, in_words(&error)),
            Ok((answer, connection)) => match self.stranger(&connection, &vantage, owner) {
                None => (Some(answer), None),
                Some(stranger) => {
                    (None, Some(format!("{stranger} answered, which is not part of the service")))
                }
            },
        };
        if let Some(socket) = self.own.get_mut(&report.socket) {
            socket.pending = socket.pending.saturating_sub(1);
            socket.answer = socket.answer.or(answer);
            socket.why = why;
        }
        Ok(())
    }

    /// Who else than the service answered on a connection.
    fn stranger(&self, connection: &Connection, vantage: &Vantage, owner: &Owner) -> Option<String> {
        match connection {
            Connection::Tcp { local, remote, .. } => {
                let mut accepted = None;
                let mut rivals = Vec::new();
                let read = sockets::each_tcp(vantage.holder, |socket| {
                    if (socket.local, socket.remote) == (*remote, *local) && socket.inode != 0 {
                        accepted = Some(socket);
                    }
                    if let Some(listener) = socket.listener()
                        && may_take(&listener, *remote)
                        && !owner.has(&listener)
                    {
                        rivals.push(listener);
                    }
                });
                match (read, accepted) {
                    (Ok(()), Some(socket)) if owner.accepted(&socket) => None,
                    (Ok(()), Some(socket)) => Some(self.who_holds(socket.inode, Some(socket.user))),
                    // It has closed the connection; with one listener only there is no doubt.
                    (Ok(()), None) => rivals.first().map(|rival| self.who_holds(rival.inode, rival.user)),
                    (Err(error), _) => Some(format!("somebody unknown ({error})")),
                }
            }
            // A socket that systemd or a launcher has listened on and handed down is theirs by this measure.
            Connection::Unix { peer } => {
                let known = self.family.contains_key(peer)
                    || family::ancestors(self.machine, self.service.main()).contains(peer)
                    || (*peer != 0 && family::presence(self.machine, *peer) == Presence::Ended);
                (!known).then(|| self.with_name(*peer))
            }
        }
    }
}

impl fmt::Display for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut silent = self.own.iter().filter(|(_, socket)| socket.answer.is_none());
        match silent.next() {
            Some(((_, address), Socket { why, .. })) => {
                write!(f, "{address}: {}", why.as_deref().unwrap_or("nobody answers"))?;
            }
            None => write!(f, "process {} listens on no socket", self.service.main())?,
        }
        if let Some((_, taken)) = &self.taken {
            write!(f, "; {taken}")?;
        }
        if let Some(denied) = self.denied {
            write!(
                f,
                "; the descriptors of process {denied} are not readable, so the sockets of its user were asked"
            )?;
        }
        Ok(())
    }
}

/// How the sockets of a service are told from others.
struct Owner {
    held: Held,
    /// Its processes whose descriptors are not readable: programs with capabilities of their own, or of another user.
    denied: BTreeSet<u32>,
    /// The users of those, but root.
    users: BTreeSet<u32>,
    /// Whether a listening socket of such a user counts as the service's.
    by_user: bool,
}

impl Owner {
    /// Whether a listening socket is the service's.
    fn has(&self, listener: &Listener) -> bool {
        if self.held.has(listener.inode) {
            return true;
        }
        // The kernel does not say whose a Unix socket is; its file does.
        let file = match &listener.address {
            Address::Path(path) if self.by_user => std::fs::symlink_metadata(path).ok(),
            _ => None,
        };
        let user = listener.user.or(file.map(|file| file.uid()));
        self.by_user && user.is_some_and(|user| self.users.contains(&user))
    }

    /// Whether the service has accepted a connection.
    fn accepted(&self, connection: &TcpSocket) -> bool {
        self.held.has(connection.inode) || self.users.contains(&connection.user)
    }
}

/// Why a connection brought no answer. `None`: there was none in time.
fn in_words(error: &io::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => None,
        ErrorKind::UnexpectedEof => Some("it closes connections without an answer".to_owned()),
        _ => Some(error.to_string()),
    }
}

/// Whether a connection to `remote` may have been taken by this listener.
fn may_take(listener: &Listener, remote: SocketAddr) -> bool {
    match listener.address {
        Address::Tcp(at) if at.port() == remote.port() => match at.ip() {
            // A socket on :: may take IPv4 as well.
            IpAddr::V6(ip) if ip.is_unspecified() => true,
            ip => ip == remote.ip() || (ip.is_unspecified() && remote.is_ipv4()),
        },
        _ => false,
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

/// The workers seen so far: the processes that uvicorn's parent starts by Python's multiprocessing.
#[derive(Debug, Default)]
struct Workers {
    seen: BTreeSet<u32>,
    /// Those that failed, as the kernel says while they are not yet reaped.
    failed: BTreeSet<u32>,
    /// The most that were alive at one time.
    most: usize,
}

impl Workers {
    fn look(&mut self, family: &BTreeMap<u32, Stat>, main: u32, command_line: &dyn Fn(u32) -> Vec<String>) {
        for (pid, stat) in family {
            if stat.has_failed() && self.seen.contains(pid) {
                self.failed.insert(*pid);
            } else if !stat.has_ended()
                && *pid != main
                && !self.seen.contains(pid)
                && command_line(*pid).iter().any(|word| word.contains("spawn_main"))
            {
                self.seen.insert(*pid);
            }
        }
        let alive = family.iter().filter(|(pid, stat)| !stat.has_ended() && self.seen.contains(pid)).count();
        self.most = self.most.max(alive);
    }

    /// Whether each of them has failed several times. Those that others killed don't count: an overloaded machine is slow,
    /// not broken.
    fn keep_failing(&self) -> bool {
        self.most > 0 && self.failed.len() >= FAILURES * self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

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

    #[test]
    fn who_may_take_a_connection() {
        let may = |listens: &str, remote: &str| {
            let address = Address::Tcp(address(listens));
            may_take(&Listener { inode: 1, address, accept_queue: None, user: None }, self::address(remote))
        };
        assert!(may("127.0.0.1:80", "127.0.0.1:80") && may("0.0.0.0:80", "127.0.0.1:80"));
        assert!(may("[::]:80", "127.0.0.1:80") && may("[::]:80", "[::1]:80"));
        assert!(!may("127.0.0.2:80", "127.0.0.1:80") && !may("127.0.0.1:81", "127.0.0.1:80"));
        assert!(!may("0.0.0.0:80", "[::1]:80"));
    }
}
