//! The log of the generator: the kernel log if it was started by PID 1, otherwise stderr.
//!
//! At boot, stderr is /dev/null and the journal is not running yet, but messages to /dev/kmsg appear in `dmesg` and later in
//! the journal (systemd.generator(7), "Notes about writing generators"). In a container without /dev/kmsg, nothing is
//! logged.

use std::fmt::Write as _;
use std::io::Write as _;

use rustix::fs::{FileType, Mode, OFlags};

/// The priorities that are used, see syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// The run failed.
    Error = 3,
    /// An input is invalid or cannot be read.
    Warning = 4,
}

/// The kernel accepts a burst of ten records (`printk_devkmsg=ratelimit`). The last one states how many are omitted.
const MAX_LINES: usize = 10;
/// The kernel rejects records longer than 1 KiB, including their header.
const MAX_BYTES: usize = 900;
/// The exit status of a program with an internal error (sysexits(3)).
const EX_SOFTWARE: i32 = 70;

/// The destination of messages.
#[derive(Debug)]
pub struct Log {
    name: &'static str,
    kernel: bool,
}

impl Log {
    /// The generator was started by PID 1 if `SYSTEMD_EXEC_PID` is its own PID, which is also systemd's own test. systemd
    /// sets this variable since version 248. If it is not set, the generator was started by PID 1 if stderr is /dev/null.
    pub fn of_generator(name: &'static str) -> Self {
        let pid = std::process::id();
        let kernel = match std::env::var_os("SYSTEMD_EXEC_PID") {
            Some(value) => value.to_str().is_some_and(|value| value.parse() == Ok(pid)),
            None => stderr_is_null(),
        };
        Self { name, kernel }
    }

    /// Writes all lines, each with its priority.
    pub fn write(&self, lines: &[(Priority, String)]) {
        if lines.is_empty() {
            return;
        }
        if !self.kernel {
            let mut stderr = std::io::stderr().lock();
            for (_, line) in lines {
                // If stderr is closed, there is nowhere to report that.
                let _ = writeln!(stderr, "{}: {line}", self.name);
            }
            return;
        }
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(kmsg) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else {
            return;
        };
        let shown = if lines.len() > MAX_LINES { MAX_LINES - 1 } else { lines.len() };
        for (priority, line) in lines.iter().take(shown) {
            self.record(&kmsg, *priority, line);
        }
        if shown < lines.len() {
            let rest = format!("and {} more; 'pypnm-sizing explain' shows them", lines.len() - shown);
            self.record(&kmsg, Priority::Warning, &rest);
        }
    }

    /// Writes a record with a single write(2), as the kernel requires.
    fn record(&self, kmsg: &rustix::fd::OwnedFd, priority: Priority, line: &str) {
        let mut record = String::with_capacity(256);
        // Writing to a string cannot fail.
        let _ = write!(record, "<{}>{}[{}]: {line}", priority as u8, self.name, std::process::id());
        record.truncate(record.floor_char_boundary(MAX_BYTES));
        let mut record = record.replace('\n', " ");
        // Without a newline, the kernel waits for a continuation and does not show the record before the next one, which may
        // be much later.
        record.push('\n');
        let _ = rustix::io::write(kmsg, record.as_bytes());
    }
}

/// Whether stderr is the null device, character device 1:3 (Linux, Documentation/admin-guide/devices.txt).
fn stderr_is_null() -> bool {
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3)
}

/// Turns a panic, which is a bug, into a log message and an exit status instead of SIGABRT: if a generator is killed by a
/// signal, PID 1 ignores the output of all generators.
pub fn no_signal_on_panic(name: &'static str) {
    std::panic::set_hook(Box::new(move |info| {
        Log::of_generator(name).write(&[(Priority::Error, format!("internal error: {info}"))]);
        std::process::exit(EX_SOFTWARE);
    }));
}
