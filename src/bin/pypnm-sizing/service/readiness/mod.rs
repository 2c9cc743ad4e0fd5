//! Waits until a service answers on a socket of its own.
//!
//! What the service listens on is the kernel's word, whatever its command line, its environment or the manager that handed
//! it a descriptor says; and that the answer came from one of its processes is the kernel's word as well. Somebody else on
//! the port that PyPNM was to have is a stranger, however healthy.

mod listeners;
mod owner;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use pypnm_sizing::root::Root;

use self::owner::{Owner, may_take};
use self::workers::Workers;
use crate::service::family::{self, Presence, Service};
use crate::service::probe::{self, Answer, Connection, Report, Vantage};
use crate::service::process::sockets::{self, Address};
use crate::service::process::{self, Stat};

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
/// A service whose sockets the caller may not connect to is assumed to be up after this time.
const TIME_TO_TRUST: Duration = Duration::from_secs(10);
/// The most connections that wait for an answer of one socket.
const MAX_PENDING: usize = 4;
/// The most sockets that are asked.
const MAX_SOCKETS: usize = 64;
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
/// `service` is called again and again, since systemd may have started another main process; `None`: none runs yet. Returns
/// a remark if the service is only assumed to be up.
pub(crate) fn wait(
    machine: &Root,
    service: &mut dyn FnMut() -> Option<Service>,
    timeout: Duration,
) -> Result<Option<String>, NotReady> {
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
                "{failed} workers have died at startup, and none has answered"
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

    /// Whether the service keeps running, but the mode of its Unix sockets does not let the caller connect.
    fn is_out_of_reach(&self) -> bool {
        let is_denied = |socket: &Socket| socket.denied.is_some_and(|since| since.elapsed() >= TIME_TO_TRUST);
        !self.own.is_empty() && self.own.values().all(is_denied)
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
            socket.denied = if denied { socket.denied.or_else(|| Some(Instant::now())) } else { None };
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
                    (Err(error), _) => Some(format!("an unknown process ({error})")),
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

/// Why a connection brought no answer. `None`: there was none in time.
fn in_words(error: &io::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => None,
        ErrorKind::UnexpectedEof => Some("it closes connections without answering".to_owned()),
        _ => Some(error.to_string()),
    }
}
