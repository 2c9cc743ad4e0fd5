//! What the helper prints: an answer on stdout, remarks on stderr, and what a verb ends with.

use std::io::Write as _;
use std::process::ExitCode;

/// What a verb ends with: a status, or a message for stderr and status 2.
pub(crate) type Outcome = Result<ExitCode, String>;

/// Writes an answer to stdout. A reader that has gone away (`| head`) is no error.
pub(crate) fn answer(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a remark to stderr.
pub(crate) fn remark(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "pypnm-sizing: {text}");
}
