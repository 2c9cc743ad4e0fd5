//! The terminal while `watch` draws on it: the alternate screen, without echo and cursor. Restored however the program
//! ends.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::bail;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::{emulate_default_handler, pipe};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The time is up.
    Time,
    /// A signal or a key to stop.
    End,
    /// The screen must be redrawn.
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
            // A second signal ends the program immediately, in case a write blocks. This handler must be registered
            // first.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&end))?;
            signal_hook::flag::register(signal, Arc::clone(&end))?;
        }
        signal_hook::flag::register(SIGTSTP, Arc::clone(&stop))?;
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH, SIGCONT] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe: read, end, stop })
    }

    /// Waits until `until`, or for an event.
    pub(super) fn wait(&self, until: Instant, screen: Option<&mut Screen>) -> anyhow::Result<Woken> {
        let remaining = until.saturating_duration_since(Instant::now());
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(&self.pipe, PollFlags::IN)];
        if screen.is_some() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let timeout = Timespec::try_from(remaining).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => bail!("cannot wait for events: {}", io::Error::from(errno)),
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

/// Stops the program as Ctrl-Z does without a handler; returns when the shell continues it.
fn stop() {
    // Fails only for an unknown signal.
    let _ = emulate_default_handler(SIGTSTP);
}

/// Whether `q` was pressed or the terminal is gone.
fn wants_to_end(stdin: BorrowedFd<'_>) -> bool {
    let mut keys = [0; 64];
    match rustix::io::read(stdin, &mut keys) {
        Ok(0) => true,
        Ok(count) => keys.iter().take(count).any(|key| matches!(key, b'q' | b'Q' | 3)),
        Err(Errno::INTR | Errno::AGAIN) => false,
        Err(_) => true,
    }
}

/// The screen.
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
            // If this fails, there is nowhere to report it.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
    }

    /// Draws all lines over the old ones in a single write, to avoid flicker.
    pub(super) fn draw(lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            // Erase before writing: after a line as wide as the screen, the cursor is still on its last character.
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
    // A terminal that is gone does not need to be restored.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Whether the character set of the locale has block characters.
pub(super) fn locale_is_utf8() -> bool {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut locales = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable);
    let locale = locales.next().unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
