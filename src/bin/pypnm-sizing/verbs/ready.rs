//! `ready`: waits until the service answers. PyPNM tells systemd nothing, and where every worker dies at its start
//! its parent stays up and starts another for ever; as `ExecStartPost=` this verb makes that a start that failed, as
//! soon as it is clear.
//!
//! It needs no configuration: address and port stand on the command line of the service's main process.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pypnm_sizing::root::{ReadError, Root};

use crate::cli::Ready;
use crate::output::{Outcome, remark};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// For one connection, and for its answer. A worker that is busy starting others answers late.
const PATIENCE: Duration = Duration::from_secs(5);
/// So often may each worker die before the first one answers.
const LIVES: usize = 3;

pub(crate) fn run(root: &Root, arguments: &Ready) -> Outcome {
    let inherited = || std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok());
    let pid = arguments
        .pid
        .or_else(inherited)
        .context("which process? --pid=PID; under systemd, as ExecStartPost=, $MAINPID says it")?;
    match wait(root, &mut || Some(pid), Duration::from_secs(arguments.timeout))? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            remark(&format!("{why}; the service's log says why"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Waits until the process that `server` names answers. Inner error: it did not.
///
/// `server` is asked anew each time; `None`: there is none yet.
pub(crate) fn wait(
    root: &Root,
    server: &mut dyn FnMut() -> Option<u32>,
    timeout: Duration,
) -> anyhow::Result<Result<(), String>> {
    let started = Instant::now();
    let mut looked_at = None;
    let mut workers = Workers::default();
    loop {
        let why = match server() {
            None => "no process serves".to_owned(),
            Some(pid) => {
                let path = format!("/proc/{pid}/cmdline");
                // Read anew each time: systemd may have forked the process but not yet executed the service in it.
                let words = match root.bytes(&path) {
                    Ok(bytes) => words(&bytes),
                    Err(ReadError::Missing) => {
                        return Ok(Err(format!("process {pid} has ended before it answered")));
                    }
                    Err(error) => bail!("{path}: {error}"),
                };
                let at = Address::of(&words);
                let error = match at.ask() {
                    Ok(()) => return Ok(Ok(())),
                    Err(error) => error,
                };
                // Of another main process the workers are others.
                if looked_at != Some(pid) {
                    looked_at = Some(pid);
                    workers = Workers::default();
                }
                workers.look(&running(root, pid));
                if workers.die_at_their_start() {
                    let gone = workers.gone();
                    return Ok(Err(format!(
                        "{gone} workers have died at their start, and none has answered"
                    )));
                }
                format!("http://{}:{}/: {error}", at.host, at.port)
            }
        };
        if started.elapsed() >= timeout {
            return Ok(Err(format!("no answer in {} s ({why})", timeout.as_secs())));
        }
        std::thread::sleep(PAUSE);
    }
}

fn words(cmdline: &[u8]) -> Vec<String> {
    cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The workers that the main process has at this moment. A kernel that doesn't list children leaves the timeout.
fn running(root: &Root, main: u32) -> BTreeSet<u32> {
    let Ok(children) = root.bytes(&format!("/proc/{main}/task/{main}/children")) else {
        return BTreeSet::new();
    };
    String::from_utf8_lossy(&children)
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| {
            // uvicorn starts them by Python's multiprocessing, whose other child tracks resources.
            root.bytes(&format!("/proc/{pid}/cmdline"))
                .is_ok_and(|cmdline| words(&cmdline).iter().any(|word| word.contains("spawn_main")))
        })
        .collect()
}

/// The workers seen so far.
#[derive(Default)]
struct Workers {
    seen: BTreeSet<u32>,
    alive: usize,
    /// The most that there were at one time.
    most: usize,
}

impl Workers {
    fn look(&mut self, running: &BTreeSet<u32>) {
        self.alive = running.len();
        self.most = self.most.max(self.alive);
        self.seen.extend(running);
    }

    fn gone(&self) -> usize {
        self.seen.len() - self.alive
    }

    fn die_at_their_start(&self) -> bool {
        self.most > 0 && self.gone() >= LIVES * self.most
    }
}

/// Where the service listens.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// What the flags of `pypnm serve` and of `uvicorn` say; of a flag given twice the last counts, as for them.
    fn of(words: &[String]) -> Self {
        let mut host = "127.0.0.1";
        let mut port = 8000;
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            match flag {
                "--host-all" => host = "127.0.0.1",
                "--host" => host = value.or_else(|| words.next()).unwrap_or(host),
                "--port" => {
                    port = value.or_else(|| words.next()).and_then(|text| text.parse().ok()).unwrap_or(port);
                }
                _ => {}
            }
        }
        // Every address of the machine: any of them will do.
        let host = match host {
            "" | "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Self { host: host.to_owned(), port }
    }

    /// Asks for the service's health. A worker that says anything, or takes the connection and ends it in good order
    /// (as one with TLS does), is up; a connection that nobody takes is not.
    fn ask(&self) -> std::io::Result<()> {
        let address = (self.host.as_str(), self.port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, "no such host"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        stream.read(&mut [0; 16]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(cmdline: &str) -> (String, u16) {
        let Address { host, port } = Address::of(&words(cmdline.replace(' ', "\0").as_bytes()));
        (host, port)
    }

    #[test]
    fn the_command_line_says_where() {
        let serve = "/opt/pypnm/bin/python3 /opt/pypnm/bin/pypnm serve";
        for (flags, host, port) in [
            ("", "127.0.0.1", 8000),
            ("--host 10.1.2.3 --port 9000", "10.1.2.3", 9000),
            ("--host=fe80::1 --port=9000", "fe80::1", 9000),
            ("--host 0.0.0.0", "127.0.0.1", 8000),
            ("--host ::", "::1", 8000),
            ("--host-all", "127.0.0.1", 8000),
            ("--port 1 --host 10.0.0.1 --port 2", "10.0.0.1", 2),
            ("--port", "127.0.0.1", 8000),
            ("--port http", "127.0.0.1", 8000),
            ("--port 99999", "127.0.0.1", 8000),
        ] {
            assert_eq!(address(&format!("{serve} {flags}")), (host.to_owned(), port), "{flags}");
        }
    }

    #[test]
    fn workers_that_keep_dying_are_noticed() {
        let mut workers = Workers::default();
        workers.look(&BTreeSet::new());
        assert!(!workers.die_at_their_start());
        // Two start, one by one.
        workers.look(&BTreeSet::from([10]));
        workers.look(&BTreeSet::from([10, 11]));
        assert_eq!((workers.gone(), workers.die_at_their_start()), (0, false));
        // Each is replaced, twice; the kernel ran out of memory, say, and now has some.
        workers.look(&BTreeSet::from([11, 12]));
        workers.look(&BTreeSet::from([13]));
        workers.look(&BTreeSet::from([14, 15]));
        assert_eq!((workers.gone(), workers.die_at_their_start()), (4, false));
        workers.look(&BTreeSet::from([16, 17]));
        assert_eq!((workers.gone(), workers.die_at_their_start()), (6, true));
    }

    #[test]
    fn only_an_answer_counts() -> std::io::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let at = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr()?.port() };
        let worker = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut request = [0; 512];
            let read = stream.read(&mut request)?;
            assert!(request.get(..read).is_some_and(|text| text.starts_with(b"GET /health HTTP/1.1\r\n")));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")
        });
        assert!(at.ask().is_ok());
        assert!(worker.join().is_ok_and(|done| done.is_ok()));
        // Nobody listens any more.
        assert!(at.ask().is_err());
        Ok(())
    }
}
