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

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use cli::{Command, Options};
use pypnm_sizing::root::Root;
use verbs::{apply, check, env, explain, preview, ready, report, show};

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
        Some(Command::Report(arguments)) => report::run(&root, options.common.root.as_deref(), arguments),
    };
    outcome.unwrap_or_else(|error| failed(&format!("{error:#}")))
}

fn failed(message: &str) -> ExitCode {
    output::remark(&message);
    ExitCode::from(2)
}
