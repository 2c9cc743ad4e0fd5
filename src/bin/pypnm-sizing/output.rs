//! Prints answers on stdout and remarks on stderr, and defines the outcome of a verb.
//!
//! This is the only filter between foreign data and a terminal: file names, configuration keys, and the arguments and
//! environments of processes may contain any characters. The layout is in `page`.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use pypnm_sizing::parse::printable::is_hidden;

/// The outcome of a verb: an exit status, or an error, which is printed on stderr and leads to status 2.
pub(crate) type Outcome = anyhow::Result<ExitCode>;

/// Writes an answer to stdout. Line feeds are kept; all other characters that are not printable are replaced. A closed pipe
/// (`| head`) is not an error.
pub(crate) fn answer(text: &str) -> Outcome {
    write(&printable_lines(text))
}

/// Writes an answer that consists of [`printable`] parts and our own colors.
pub(crate) fn answer_painted(text: &str) -> Outcome {
    write(text)
}

/// Writes a message of several lines to stderr, except for characters that are not printable.
pub(crate) fn message(text: &str) {
    // If stderr is closed, there is nowhere to report that.
    let _ = write!(std::io::stderr(), "{}", printable_lines(text));
}

fn write(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    is_read(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())).map(|_| ExitCode::SUCCESS)
}

/// Writes a line to stdout, and returns whether the output is still being read.
pub(crate) fn print_line(line: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    is_read(writeln!(stdout, "{line}").and_then(|()| stdout.flush()))
}

/// Whether what was written to stdout is being read: a closed pipe is not an error, any other failure is.
pub(crate) fn is_read(written: std::io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// Writes a remark to stderr, on one line.
pub(crate) fn remark(text: &dyn Display) {
    // If stderr is closed, there is nowhere to report that.
    let _ = writeln!(std::io::stderr(), "pypnm-sizing: {}", printable(&text.to_string()));
}

/// `text` as a single line that cannot control a terminal: control characters, including line feeds, are replaced by `?`, as
/// in `ls -q`, and so are characters that are invisible or change the text direction.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, |c| !is_hidden(c))
}

/// The same, but line feeds are kept.
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
    fn no_control_sequence_passes() {
        assert_eq!(printable("a\x1b]0;X\x07b"), "a?]0;X?b");
        assert_eq!(printable("a\nb\tc\u{9b}31m\u{7f}"), "a?b?c?31m?");
        assert_eq!(printable("\u{202e}txt\u{2066}\u{200f}\u{feff}\u{2028}"), "?txt????");
        assert_eq!(printable("Überwachung … µ"), "Überwachung … µ");
        assert_eq!(printable_lines("a\nb\rc\n"), "a\nb?c\n");
    }
}
