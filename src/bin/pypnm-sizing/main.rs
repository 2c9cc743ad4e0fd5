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
use pypnm_sizing::config;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::Index;
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
    let mut options = match parsed {
        Ok(options) => options,
        Err(error) => return stopped(&error),
    };
    let root = match Root::at(options.common.root.as_deref().map(AsRef::as_ref)) {
        Ok(root) => root,
        Err(error) => {
            let message = format!("--root={}: {error}", options.common.root.unwrap_or_default().display());
            return failed(options.command.as_ref(), &message);
        }
    };
    if let Some(unit) = options.unit() {
        // systemd has a unit under all its names; here it is the one in Units=.
        let listed = config::read(&root, &mut Vec::new()).units();
        *unit = Index::listed_name(&root, &listed, unit).unwrap_or_else(|| std::mem::take(unit));
    }
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
    outcome.unwrap_or_else(|error| failed(options.command.as_ref(), &format!("{error:#}")))
}

/// Prints the help or the version, or what is wrong with the command line, which may contain any characters.
fn stopped(stop: &clap::Error) -> ExitCode {
    let status = ExitCode::from(usage_status(std::env::args_os().skip(1)));
    let text = stop.render().to_string();
    if stop.use_stderr() {
        output::message(&text);
        return status;
    }
    output::answer(&text).unwrap_or_else(|error| {
        output::remark(&format!("{error:#}"));
        status
    })
}

/// The exit status on incorrect usage, which depends on the first verb on the command line, even if an earlier argument is
/// the mistake.
fn usage_status(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let command = Options::command();
    while let Some(word) = arguments.next() {
        if word == "--root" {
            arguments.next();
        } else if let Some(verb) = word.to_str().filter(|word| command.find_subcommand(word).is_some()) {
            return match verb {
                "exec" => exec::OWN_FAILURE,
                "check" => check::WRONG_USAGE,
                _ => 2,
            };
        }
    }
    2
}

/// Prints an error, and returns the verb's exit status for it: for monitoring systems, 2 is CRITICAL.
fn failed(command: Option<&Command>, message: &str) -> ExitCode {
    output::remark(&message);
    ExitCode::from(match command {
        Some(Command::Exec(_)) => exec::OWN_FAILURE,
        Some(Command::Check(_)) => check::WRONG_USAGE,
        _ => 2,
    })
}
