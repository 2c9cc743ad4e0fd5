//! The helper's `main`: what a person types, one module a verb. Sizing itself is the library's.

mod apply;
mod args;
mod check;
mod env;
mod explain;
mod generated;
mod json;
mod page;
mod preview;
mod ready;
mod show;
mod sized;
mod systemd;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Command, Options};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use pypnm_sizing::root::Root;

/// What a verb ends with: a status, or a message for stderr and status 2.
type Outcome = Result<ExitCode, String>;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.command.is_some() && options.show.is_given() {
        let message = "flags of a verb stand behind it: pypnm-sizing VERB --cpus N";
        Options::command().error(ErrorKind::ArgumentConflict, message).exit();
    }
    let root = match Root::at(options.common.root.as_deref().map(AsRef::as_ref)) {
        Ok(root) => root,
        Err(error) => {
            return failed(&format!("--root={}: {error}", options.common.root.unwrap_or_default().display()));
        }
    };
    let outcome = match &options.command {
        None => show::run(&root, &options.show),
        Some(Command::Show(arguments)) => show::run(&root, arguments),
        Some(Command::Explain(arguments)) => explain::run(&root, arguments),
        Some(Command::Preview(arguments)) => preview::run(&root, arguments),
        Some(Command::Env(arguments)) => env::run(&root, arguments),
        Some(Command::Check(arguments)) => check::run(&root, arguments),
        Some(Command::Apply(arguments)) => apply::run(&root, arguments),
        Some(Command::Ready(arguments)) => ready::run(&root, arguments),
        Some(Command::Watch(arguments)) => watch::run(&root, arguments),
    };
    outcome.unwrap_or_else(|message| failed(&message))
}

fn failed(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "pypnm-sizing: {message}");
    ExitCode::from(2)
}

/// Writes an answer to stdout. A reader that has gone away (`| head`) is no error.
fn answer(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes a remark to stderr.
fn remark(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "pypnm-sizing: {text}");
}
