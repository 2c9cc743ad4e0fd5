//! What the helper prints: answers on stdout, remarks on stderr, and what a verb ends with.
//!
//! This is the one filter between other people's data and a terminal: names of files, keys of a configuration, arguments
//! and environments of processes may hold anything. Owns no layout; `page` does.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use pypnm_sizing::parse::printable::is_hidden;

/// What a verb ends with: a status for the shell, or an error for stderr and status 2.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// Writes an answer to stdout; lines stay lines, everything else that is not printable is replaced. A reader that has
/// gone away (`| head`) is no error.
pub(crate) fn answer(text: &str) -> Outcome {
    write(&printable_lines(text))
}

/// Writes an answer that is composed of [`printable`] pieces and of colours of our own.
pub(crate) fn answer_painted(text: &str) -> Outcome {
    write(text)
}

fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a remark to stderr, on one line.
pub(crate) fn remark(text: &dyn Display) {
    // There is nowhere left to report that stderr is closed.
    let _ = writeln!(std::io::stderr(), "pypnm-sizing: {}", printable(&text.to_string()));
}

/// `text` as one line that a terminal only displays: each control character, line feeds included, becomes `?`, as in
/// `ls -q`, and so does each character that is invisible or reorders its neighbours.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, |c| !is_hidden(c))
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c == '\n' || !is_hidden(c))
}

fn replaced(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&keeps) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if keeps(c) { c } else { '?' }).collect())
}

#[cfg(test)]
mod tests {
    use super::{printable, printable_lines};

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        assert_eq!(printable("a\x1b]0;X\x07b"), "a?]0;X?b");
        assert_eq!(printable("a\nb\tc\u{9b}31m\u{7f}"), "a?b?c?31m?");
        assert_eq!(printable("\u{202e}txt\u{2066}\u{200f}\u{feff}\u{2028}"), "?txt????");
        assert_eq!(printable("Überwachung … µ"), "Überwachung … µ");
        assert_eq!(printable_lines("a\nb\rc\n"), "a\nb?c\n");
    }
}
