//! The helper's `main`: parses the command line, runs a verb, and exits with its status. No other module imports this one.
//!
//! ```text
//!  verbs    gather data, build the answer, print it     each verb owns its answer
//!  answer   JSON types that verbs share       judge   facts, verdicts, topics       watch   the live view
//!  wording  texts about a sizing
//!  service  systemd, processes, generated files, installations of PyPNM
//!  cli  page  output                          used by all of them
//! ```
//!
//! Modules import only from the layers below them. The sizing itself is in the library.

mod answer;
mod cli;
mod judge;
mod output;
mod page;
mod service;
mod verbs;
mod watch;
mod wording;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};
use cli::{Command, Options};
use pypnm_sizing::root::Root;
use verbs::{apply, check, env, exec, explain, preview, ready, report, setup, show};

fn main() -> ExitCode {
    let command = Options::command().term_width(page::columns_of_stdout());
    let parsed = command.try_get_matches().and_then(|matches| Options::from_arg_matches(&matches)).and_then(
        |options| {
            if options.command.is_some() && options.show.is_given() {
                let message = "put options after the command: pypnm-sizing COMMAND --cpus N";
                return Err(Options::command().error(ErrorKind::ArgumentConflict, message));
            }
            Ok(options)
        },
    );
    let options = match parsed {
        Ok(options) => options,
        Err(error) => {
            // If stderr is closed, there is nowhere to report that.
            let _ = error.print();
            let usage = std::env::args_os().skip(1);
            return if error.use_stderr() { ExitCode::from(usage_status(usage)) } else { ExitCode::SUCCESS };
        }
    };
    let root = match Root::at(options.common.root.as_deref().map(AsRef::as_ref)) {
        Ok(root) => root,
        Err(error) => {
            let failed =
                failed(&format!("--root={}: {error}", options.common.root.unwrap_or_default().display()));
            return match options.command {
                Some(Command::Exec(_)) => ExitCode::from(exec::OWN_FAILURE),
                Some(Command::Check(_)) => ExitCode::from(check::WRONG_USAGE),
                _ => failed,
            };
        }
    };
    let outcome = match &options.command {
        None => show::run(&root, &options.show),
        Some(Command::Show(arguments)) => show::run(&root, arguments),
        Some(Command::Explain(arguments)) => explain::run(&root, arguments),
        Some(Command::Preview(arguments)) => preview::run(&root, arguments),
        Some(Command::Env(arguments)) => env::run(&root, arguments),
        Some(Command::Exec(arguments)) => Ok(exec::run(&root, arguments)),
        Some(Command::Check(arguments)) => check::run(&root, arguments),
        Some(Command::Apply(arguments)) => apply::run(&root, arguments),
        Some(Command::Setup(arguments)) => setup::run(&root, arguments),
        Some(Command::Ready(arguments)) => ready::run(&root, arguments),
        Some(Command::Watch(arguments)) => watch::run(&root, arguments),
        Some(Command::Report(arguments)) => report::run(&root, options.common.root.as_deref(), arguments),
    };
    outcome.unwrap_or_else(|error| failed(&format!("{error:#}")))
}

/// The exit status on incorrect usage, which depends on the verb.
fn usage_status(arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut arguments = arguments.skip_while(|word| word.as_encoded_bytes().starts_with(b"--root="));
    let verb = match arguments.next() {
        Some(root) if root == "--root" => arguments.nth(1),
        other => other,
    };
    match verb.as_ref().and_then(|verb| verb.to_str()) {
        Some("exec") => exec::OWN_FAILURE,
        Some("check") => check::WRONG_USAGE,
        _ => 2,
    }
}

fn failed(message: &str) -> ExitCode {
    output::remark(&message);
    ExitCode::from(2)
}
