//! The terminal while it is drawn on: the alternate screen, no echo, no cursor; and back as it was, whatever ends us.

use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::anyhow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::{emulate_default_handler, pipe};

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The time is up.
    Time,
    /// A signal or a key says that it is enough.
    End,
    /// The screen must be drawn anew.
    Redraw,
}

/// Signals and keys.
pub(super) struct Events {
    pipe: UnixStream,
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let (end, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The second one ends us at once, should we be stuck in a write that nobody reads. Its place is first.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&end))?;
            signal_hook::flag::register(signal, Arc::clone(&end))?;
        }
        signal_hook::flag::register(SIGTSTP, Arc::clone(&stop))?;
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH, SIGCONT] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe: read, end, stop })
    }

    /// Waits until `until`, or for what comes first.
    pub(super) fn wait(&self, until: Instant, screen: Option<&mut Screen>) -> Result<Woken, String> {
        let left = until.saturating_duration_since(Instant::now());
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(&self.pipe, PollFlags::IN)];
        if screen.is_some() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(format!("can't wait: {}", io::Error::from(errno))),
        }
        let (woken, typed) = (is_ready(fds.first()), is_ready(fds.get(1)));
        drop(fds);
        if self.end.load(Ordering::Relaxed) || (typed && wants_to_end(stdin.as_fd())) {
            return Ok(Woken::End);
        }
        if !woken {
            return Ok(Woken::Time);
        }
        let mut bytes = [0; 64];
        while rustix::io::read(&self.pipe, &mut bytes).is_ok_and(|count| count > 0) {}
        if self.stop.swap(false, Ordering::Relaxed) {
            match screen {
                Some(screen) => {
                    screen.leave();
                    stop();
                    screen.enter();
                }
                None => stop(),
            }
        }
        Ok(Woken::Redraw)
    }
}

fn is_ready(fd: Option<&PollFd<'_>>) -> bool {
    fd.is_some_and(|fd| !fd.revents().is_empty())
}

/// Ctrl-Z as if there were no handler; returns when the shell lets us go on.
fn stop() {
    // Only an unknown signal fails.
    let _ = emulate_default_handler(SIGTSTP);
}

/// `q`, or the end of the terminal.
fn wants_to_end(stdin: BorrowedFd<'_>) -> bool {
    let mut keys = [0; 64];
    match rustix::io::read(stdin, &mut keys) {
        Ok(0) => true,
        Ok(count) => keys.iter().take(count).any(|key| matches!(key, b'q' | b'Q' | 3)),
        Err(Errno::INTR | Errno::AGAIN) => false,
        Err(_) => true,
    }
}

/// The screen that is drawn on.
pub(super) struct Screen {
    before: Option<Termios>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let mut screen = Self { before: None };
        screen.enter();
        screen
    }

    fn enter(&mut self) {
        if let Ok(modes) = tcgetattr(io::stdin()) {
            let mut quiet = modes.clone();
            quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            if tcsetattr(io::stdin(), OptionalActions::Now, &quiet).is_ok() {
                self.before = Some(modes);
            }
        }
        // The alternate screen, no cursor, no wrapping of long lines.
        write_raw("\x1b[?1049h\x1b[?25l\x1b[?7l");
    }

    fn leave(&mut self) {
        write_raw("\x1b[?7h\x1b[?25h\x1b[?1049l");
        if let Some(modes) = self.before.take() {
            // Nobody is left to be told.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        let size = tcgetwinsize(io::stdout());
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let or = |given: u16, usual| if given == 0 { usual } else { usize::from(given) };
        (or(columns, 80), or(rows, 24))
    }

    /// Draws all lines in one write over the old ones, so that nothing flickers.
    pub(super) fn draw(lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            // What was there goes first: after a line as wide as the screen the cursor stands on its last character.
            let is_last = index + 1 == lines.len();
            text.push_str(if is_last { "\x1b[J" } else { "\x1b[K" });
            text.push_str(line);
            text.push_str(if is_last { "" } else { "\r\n" });
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn write_raw(text: &str) {
    let mut stdout = io::stdout().lock();
    // A terminal that has gone away needs nothing put back.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes a line to stdout. Whether somebody reads it.
pub(super) fn print_line(line: &str) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    is_read(writeln!(stdout, "{line}").and_then(|()| stdout.flush()))
}

/// A reader that has gone away ends a watch; anything else that keeps it from being written is an error.
pub(super) fn is_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow!(error).context("cannot write to standard output")),
    }
}

/// Whether the locale's character set has block characters.
pub(super) fn speaks_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
