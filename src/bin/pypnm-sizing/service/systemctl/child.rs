//! Runs `systemctl` as a child that is killed after a timeout, keeps at most [`MAX_BYTES`] of its output, and interprets its
//! errors. [`super`] determines the queries, and parses the output.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PROGRAM: &str = "systemctl";
/// The timeout of a query, which may take several processes.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which a child is polled.
const PAUSE: Duration = Duration::from_millis(5);
/// The maximum size of the output, which is normally a few KiB.
const MAX_BYTES: u64 = 1 << 20;

/// When the processes of a query or an operation must have ended.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    /// The timeout for all of them.
    time: Duration,
    until: Instant,
}

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self { time, until: Instant::now() + time }
    }
}

/// Why a query or an operation failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SystemctlError {
    /// There is no `systemctl`.
    NoSystemctl,
    /// PID 1 is not systemd, or cannot be reached.
    NotRunning(String),
    /// There was no answer before the timeout.
    Late(&'static str, Duration),
    /// The answer is longer than [`MAX_BYTES`].
    TooLong(&'static str),
    /// The caller is not permitted to do this.
    Denied(&'static str),
    /// The operation failed: its name, and the error message.
    Failed(&'static str, String),
}

impl std::error::Error for SystemctlError {}

impl fmt::Display for SystemctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSystemctl => f.write_str("systemd is not available: there is no systemctl"),
            Self::NotRunning(message) if message.is_empty() => f.write_str("systemd is not running"),
            Self::NotRunning(message) => write!(f, "systemd is not running ({message})"),
            Self::Late(what, time) => {
                write!(f, "systemctl {what} did not finish within {} s and was killed", time.as_secs())
            }
            Self::TooLong(what) => {
                write!(f, "systemctl {what} printed more than {} KiB and was killed", MAX_BYTES >> 10)
            }
            Self::Denied(what) => {
                write!(
                    f,
                    "systemctl {what}: permission denied; run it as root (sudo) or authorize it with polkit"
                )
            }
            Self::Failed(what, message) => write!(f, "systemctl {what}: {message}"),
        }
    }
}

/// Runs `systemctl verb arguments`, and returns its stdout.
pub(super) fn run(
    verb: &'static str,
    arguments: &[&str],
    deadline: Deadline,
) -> Result<String, SystemctlError> {
    let failed = |error: io::Error| SystemctlError::Failed(verb, error.to_string());
    let mut child = Command::new(PROGRAM)
        .args(["--no-pager", verb])
        .args(arguments)
        .env("SYSTEMD_COLORS", "0")
        .env("LC_ALL", "C.UTF-8")
        .stdin(if verb == "show" { Stdio::null() } else { Stdio::inherit() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SystemctlError::NoSystemctl,
            _ => failed(error),
        })?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let Some(status) = wait(&mut child, deadline.until).map_err(failed)? else {
        // Its password agent ends with it, or with the terminal.
        let _ = child.kill();
        let _ = child.wait();
        return Err(SystemctlError::Late(verb, deadline.time));
    };
    let bytes = |from: &Receiver<Vec<u8>>| from.recv_timeout(QUERY_TIMEOUT).unwrap_or_default();
    let (output, message) = (bytes(&stdout), bytes(&stderr));
    if u64::try_from(output.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(SystemctlError::TooLong(verb));
    }
    if status.success() {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    Err(error_of(verb, String::from_utf8_lossy(&message).trim()))
}

/// Interprets an error message of systemctl.
fn error_of(verb: &'static str, message: &str) -> SystemctlError {
    let first_line = message.lines().next().unwrap_or("it failed without a message").trim().to_owned();
    let contains = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if contains(&["not been booted with systemd"]) {
        // The rest of the message would only repeat this.
        SystemctlError::NotRunning(String::new())
    } else if contains(&["Failed to connect to", "Host is down"]) {
        SystemctlError::NotRunning(first_line)
    } else if contains(&["Access denied", "Permission denied", "authentication required", "Not authorized"]) {
        SystemctlError::Denied(verb)
    } else {
        SystemctlError::Failed(verb, first_line)
    }
}

/// Reads a pipe in a separate thread, so that a child with much output never blocks, up to one byte more than
/// [`MAX_BYTES`]. Then the pipe is closed, and a child that writes more is killed by SIGPIPE.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // After an error, use what was read before.
            let _ = pipe.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        }
        // The receiver may have given up.
        let _ = sender.send(bytes);
    });
    receiver
}

/// The exit status of a child. `None`: it has not ended before the timeout.
fn wait(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= until {
            return Ok(ended);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{SystemctlError, error_of, wait};

    #[test]
    fn children_are_killed_after_the_timeout() -> std::io::Result<()> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let started = Instant::now();
        assert_eq!(wait(&mut child, started + Duration::from_millis(50))?, None);
        assert!(started.elapsed() < Duration::from_secs(30));
        child.kill()?;
        let ended = wait(&mut child, Instant::now() + Duration::from_secs(30))?;
        assert!(ended.is_some_and(|status| !status.success()));
        Ok(())
    }

    #[test]
    fn complaints() {
        let booted = "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed";
        assert!(matches!(error_of("show", booted), SystemctlError::NotRunning(_)));
        let denied = "Failed to reload daemon: Interactive authentication required.";
        assert_eq!(error_of("daemon-reload", denied), SystemctlError::Denied("daemon-reload"));
        assert!(matches!(error_of("show", ""), SystemctlError::Failed("show", _)));
    }
}
