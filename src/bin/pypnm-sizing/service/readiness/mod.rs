//! Waits until a service answers on a socket of its own.
//!
//! The kernel determines which sockets the service listens on, and which process has answered; the command line, the
//! environment and inherited descriptors are not consulted. An answer from any other process on PyPNM's port does not count.

mod listeners;
mod owner;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pypnm_sizing::root::Root;

use self::owner::{Owner, may_accept};
use self::workers::Workers;
use crate::service::family::{self, Presence, Service};
use crate::service::probe::{self, Connection, ProbeReport, Response, Vantage};
use crate::service::process::sockets::{self, Address};
use crate::service::process::{self, Stat};

/// The interval at which processes are examined: uvicorn's parent reaps a dead worker within half a second, and only until
/// then can its exit status be read.
const PAUSE: Duration = Duration::from_millis(100);
/// The minimum interval at which sockets are examined.
const SOCKET_INTERVAL: Duration = Duration::from_millis(250);
/// The interval is at least this multiple of the time that it takes, which is long on a host with many connections.
const SOCKET_INTERVAL_FACTOR: u32 = 9;
/// The interval at which the service's main process is queried.
const MAIN_PROCESS_INTERVAL: Duration = Duration::from_secs(1);
/// After this time without an answer, another connection is made, because a worker that hangs may have accepted the first
/// one. The first connection remains open, so that it keeps its place in the queue.
const TIME_TO_ANSWER: Duration = Duration::from_secs(5);
/// The interval between connections to a socket that closes or refuses them.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The time after which a service is assumed to be up if the caller is not permitted to connect to its sockets.
const TIME_TO_ASSUME_UP: Duration = Duration::from_secs(10);
/// The maximum number of connections to a socket that wait for an answer.
const MAX_PENDING: usize = 4;
/// The maximum number of sockets that are probed.
const MAX_SOCKETS: usize = 64;

/// Why a service is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// It has ended, its workers keep failing, or the timeout has expired.
    No(String),
    /// The caller is not permitted to examine it.
    Unknown(String),
}

/// Waits until the service that `service` returns answers, for at most `timeout`.
///
/// `service` is called repeatedly, because systemd may have started another main process; `None`: none is running yet.
/// Returns a remark if the service is only assumed to be up.
pub(crate) fn wait(
    machine: &Root,
    service: &mut dyn FnMut() -> Option<Service>,
    timeout: Duration,
) -> Result<Option<String>, NotReady> {
    let deadline = Instant::now() + timeout;
    let mut watched: Option<Wait<'_>> = None;
    let mut next_query = Instant::now();
    loop {
        if next_query <= Instant::now() {
            let named = service();
            if watched.as_ref().map(|wait| wait.service) != named {
                watched = named.map(|service| Wait::new(machine, service, deadline));
            }
            next_query = Instant::now() + MAIN_PROCESS_INTERVAL;
        }
        let state = match &mut watched {
            Some(wait) => {
                if wait.update()? {
                    return Ok(None);
                }
                if wait.is_out_of_reach() {
                    return Ok(Some(format!("{wait}; it is assumed to be up")));
                }
                wait.to_string()
            }
            None => "it has no running process".to_owned(),
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

/// A service that has not answered yet.
struct Wait<'a> {
    machine: &'a Root,
    service: Service,
    deadline: Instant,
    family: BTreeMap<u32, Stat>,
    workers: Workers,
    /// When the sockets are due to be examined.
    next_socket_update: Instant,
    /// The service's own sockets, by inode and address: lines in the table of Unix sockets can be forged.
    own: BTreeMap<(u64, Address), Socket>,
    /// A process whose descriptors are not readable, if that matters.
    denied: Option<u32>,
    /// The process that has the port intended for the service: the inode of its socket, and a clause of a message.
    taken: Option<(u64, String)>,
    sender: Sender<ProbeReport>,
    receiver: Receiver<ProbeReport>,
    received: Vec<ProbeReport>,
}

/// A socket that the service listens on.
struct Socket {
    vantage: Vantage,
    /// When it was last probed.
    probed: Option<Instant>,
    /// The number of connections that wait for an answer.
    pending: usize,
    answer: Option<Response>,
    /// Why there was no answer on the last connection.
    why: Option<String>,
    /// When the kernel first denied the caller a connection: the mode of a Unix socket does not allow it.
    denied: Option<Instant>,
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
            next_socket_update: Instant::now(),
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
            // A single answer is a reason to update immediately.
            if self.received.iter().any(|report| report.outcome.is_ok()) {
                break;
            }
        }
    }

    /// Examines the processes, their sockets, and the reports of probes. Returns whether the service is up.
    fn update(&mut self) -> Result<bool, NotReady> {
        let pid = self.service.main();
        let presence = family::presence(self.machine, pid);
        if presence == Presence::Ended {
            let taken = self.taken.as_ref().map_or_else(String::new, |(_, taken)| format!("; {taken}"));
            return Err(NotReady::No(format!("process {pid} has ended before it answered{taken}")));
        }
        self.family = family::processes(self.machine, self.service);
        let command_line = |pid| process::arguments(self.machine, pid);
        self.workers.update(&self.family, pid, &command_line);
        if self.workers.keep_failing() {
            let failed = self.workers.failed.len();
            return Err(NotReady::No(format!(
                "{failed} workers have died at startup, and none has answered"
            )));
        }
        let reports = std::mem::take(&mut self.received);
        if self.next_socket_update <= Instant::now() || !reports.is_empty() {
            let started = Instant::now();
            let mut owner = self.owner(presence);
            self.find(&mut owner)?;
            for report in reports {
                self.evaluate(report, &owner)?;
            }
            self.next_socket_update =
                started + SOCKET_INTERVAL.max(started.elapsed() * SOCKET_INTERVAL_FACTOR);
        }
        if self.is_up() {
            return Ok(true);
        }
        self.probe();
        Ok(false)
    }

    /// Whether PyPNM reports that it is healthy, or uses TLS, or all its sockets have answered in some other way (something
    /// else may respond to `/health`).
    fn is_up(&self) -> bool {
        let answers = || self.own.values().map(|socket| socket.answer);
        answers().any(|answer| matches!(answer, Some(Response::Healthy | Response::Tls)))
            || (!self.own.is_empty() && answers().all(|answer| answer.is_some()))
    }

    /// Whether the service keeps running, but the mode of its Unix sockets does not let the caller connect.
    fn is_out_of_reach(&self) -> bool {
        let is_denied =
            |socket: &Socket| socket.denied.is_some_and(|since| since.elapsed() >= TIME_TO_ASSUME_UP);
        !self.own.is_empty() && self.own.values().all(is_denied)
    }

    /// Probes each socket that has not answered, if the last probe was long enough ago.
    fn probe(&mut self) {
        let now = Instant::now();
        for ((inode, address), socket) in &mut self.own {
            let pause = if socket.pending == 0 { RETRY_INTERVAL } else { TIME_TO_ANSWER };
            let waits = socket.probed.is_some_and(|last| now.duration_since(last) < pause);
            if socket.answer.is_some() || waits || socket.pending >= MAX_PENDING {
                continue;
            }
            socket.probed = Some(now);
            let key = (*inode, address.clone());
            match probe::start(key, socket.vantage.clone(), self.deadline, self.sender.clone()) {
                Ok(()) => socket.pending += 1,
                Err(error) => socket.why = Some(error.to_string()),
            }
        }
    }

    /// Evaluates the report of a probe.
    fn evaluate(&mut self, report: ProbeReport, owner: &Owner) -> Result<(), NotReady> {
        let Some(socket) = self.own.get(&report.socket) else { return Ok(()) };
        let vantage = socket.vantage.clone();
        let is_unix = !matches!(report.socket.1, Address::Tcp(_));
        let denied =
            matches!(&report.outcome, Err(error) if is_unix && error.kind() == ErrorKind::PermissionDenied);
        let (answer, why) = match report.outcome {
            Err(error) if vantage.foreign && error.kind() == ErrorKind::PermissionDenied => {
                return Err(NotReady::Unknown(format!(
                    "process {} listens on {} in another network namespace, which only root can enter",
                    vantage.holder, report.socket.1
                )));
            }
            Err(error) => (None, reason(&error)),
            Ok((answer, connection)) => match self.other_process(&connection, &vantage, owner) {
                None => (Some(answer), None),
                Some(other) => (None, Some(format!("{other} answered, which is not part of the service"))),
            },
        };
        if let Some(socket) = self.own.get_mut(&report.socket) {
            socket.pending = socket.pending.saturating_sub(1);
            socket.answer = socket.answer.or(answer);
            socket.why = why;
            socket.denied = if denied { socket.denied.or_else(|| Some(Instant::now())) } else { None };
        }
        Ok(())
    }

    /// A description of the process that answered on a connection. `None`: it belongs to the service.
    fn other_process(&self, connection: &Connection, vantage: &Vantage, owner: &Owner) -> Option<String> {
        match connection {
            Connection::Tcp { local, remote, .. } => {
                let mut accepted = None;
                let mut others = Vec::new();
                let read = sockets::each_tcp(vantage.holder, |socket| {
                    if (socket.local, socket.remote) == (*remote, *local) && socket.inode != 0 {
                        accepted = Some(socket);
                    }
                    if let Some(listener) = socket.listener()
                        && may_accept(&listener, *remote)
                        && !owner.owns(&listener)
                    {
                        others.push(listener);
                    }
                });
                match (read, accepted) {
                    (Ok(()), Some(socket)) if owner.accepted(&socket) => None,
                    (Ok(()), Some(socket)) => Some(self.holder_of(socket.inode, Some(socket.user))),
                    // The connection has been closed. If there is only one listener, that one must have accepted it.
                    (Ok(()), None) => others.first().map(|other| self.holder_of(other.inode, other.user)),
                    (Err(error), _) => Some(format!("an unknown process ({error})")),
                }
            }
            // The peer is the process that called listen(2), which may be systemd or a launcher that passed the socket on.
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
                write!(f, "{address}: {}", why.as_deref().unwrap_or("no answer"))?;
            }
            None => write!(f, "process {} does not listen on any socket", self.service.main())?,
        }
        if let Some((_, taken)) = &self.taken {
            write!(f, "; {taken}")?;
        }
        if let Some(denied) = self.denied {
            write!(
                f,
                "; the descriptors of process {denied} are not readable, so the sockets of its user were queried"
            )?;
        }
        Ok(())
    }
}

/// Why there was no answer on a connection. `None`: the timeout has expired.
fn reason(error: &io::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => None,
        ErrorKind::UnexpectedEof => Some("it closes connections without answering".to_owned()),
        _ => Some(error.to_string()),
    }
}
