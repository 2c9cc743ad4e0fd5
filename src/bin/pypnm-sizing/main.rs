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

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};
use cli::{Command, Options};
use output::Outcome;
use pypnm_sizing::config;
use pypnm_sizing::root::Root;
use pypnm_sizing::units::Index;
use verbs::{apply, check, env, exec, explain, preview, ready, report, setup, show};

fn main() -> ExitCode {
    let parser = Options::command().term_width(page::columns());
    let parsed = parser.try_get_matches().and_then(|matches| Options::from_arg_matches(&matches)).and_then(
        |options| {
            if options.command.is_some() && options.show.is_given() {
                let message = "put options after the command: pypnm-sizing COMMAND --cpus N";
                return Err(Options::command().error(ErrorKind::ArgumentConflict, message));
            }
            Ok(options)
        },
    );
    let Options { common, show, command } = match parsed {
        Ok(options) => options,
        Err(stop) => return stopped(&stop),
    };
    let outcome = run(common.root.as_deref(), command.unwrap_or(Command::Show(show)));
    outcome.unwrap_or_else(|error| {
        output::remark(&format!("{error:#}"));
        failure_status()
    })
}

fn run(top: Option<&Path>, mut command: Command) -> Outcome {
    let root = Root::at(top.map(AsRef::as_ref))
        .map_err(|error| anyhow!("--root={}: {error}", top.unwrap_or(Path::new("")).display()))?;
    if let Some(unit) = command.unit() {
        // systemd has a unit under all its names; here it is the one in Units=.
        let listed = config::read(&root, &mut Vec::new()).units();
        *unit = Index::listed_name(&root, &listed, unit).unwrap_or_else(|| std::mem::take(unit));
    }
    match &command {
        Command::Show(arguments) => show::run(&root, arguments),
        Command::Explain(arguments) => explain::run(&root, arguments),
        Command::Preview(arguments) => preview::run(&root, arguments),
        Command::Env(arguments) => env::run(&root, arguments),
        Command::Exec(arguments) => Ok(exec::run(&root, arguments)),
        Command::Check(arguments) => check::run(&root, arguments),
        Command::Apply(arguments) => apply::run(&root, arguments),
        Command::Setup(arguments) => setup::run(&root, arguments),
        Command::Ready(arguments) => ready::run(&root, arguments),
        Command::Watch(arguments) => watch::run(&root, arguments),
        Command::Report(arguments) => report::run(&root, top, arguments),
    }
}

/// Prints the help or the version, or what is wrong with the command line, which may contain any characters.
fn stopped(stop: &clap::Error) -> ExitCode {
    let text = stop.render().to_string();
    if stop.use_stderr() {
        output::message(&text);
        return failure_status();
    }
    output::answer(&text).unwrap_or_else(|error| {
        output::remark(&format!("{error:#}"));
        failure_status()
    })
}

/// The exit status on errors and on incorrect usage. It depends on the first verb on the command line, even if an earlier
/// argument is the mistake: for monitoring systems, 2 is CRITICAL.
fn failure_status() -> ExitCode {
    let parser = Options::command();
    let takes_value = |word: &str| {
        let mut options = parser.get_arguments().filter(|option| option.get_action().takes_values());
        word.strip_prefix("--").is_some_and(|name| options.any(|option| option.get_long() == Some(name)))
    };
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.as_str() {
            "exec" => return ExitCode::from(exec::OWN_FAILURE),
            "check" => return ExitCode::from(check::WRONG_USAGE),
            verb if parser.find_subcommand(verb).is_some() => break,
            option if takes_value(option) => drop(words.next()),
            _ => {}
        }
    }
    ExitCode::from(2)
}
