//! The helper's `main`: what a person types, one module a verb. Sizing itself is the library's.

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
use clap::{CommandFactory as _, Parser as _};
use cli::{Command, Options};
use pypnm_sizing::root::Root;
use verbs::{apply, check, env, exec, explain, preview, ready, setup, show};

fn main() -> ExitCode {
    let parsed = Options::try_parse().and_then(|options| {
        if options.command.is_some() && options.show.is_given() {
            let message = "flags of a verb stand behind it: pypnm-sizing VERB --cpus N";
            return Err(Options::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(options)
    });
    let options = match parsed {
        Ok(options) => options,
        Err(error) => {
            // Nobody is left to be told that stderr is closed.
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
            let is_exec = matches!(options.command, Some(Command::Exec(_)));
            return if is_exec { ExitCode::from(exec::OWN_FAILURE) } else { failed };
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
    };
    outcome.unwrap_or_else(|error| failed(&format!("{error:#}")))
}

/// The status for wrong usage, of the verb that was meant.
fn usage_status(arguments: impl Iterator<Item = OsString>) -> u8 {
    let mut arguments = arguments.skip_while(|word| word.as_encoded_bytes().starts_with(b"--root="));
    let verb = match arguments.next() {
        Some(root) if root == "--root" => arguments.nth(1),
        other => other,
    };
    if verb.is_some_and(|verb| verb == "exec") { exec::OWN_FAILURE } else { 2 }
}

fn failed(message: &str) -> ExitCode {
    output::remark(&message);
    ExitCode::from(2)
}
