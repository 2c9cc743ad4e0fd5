//! How the operator's units and the manager's configuration override the generated drop-in.
//!
//! The drop-in sets variables, so an `Environment=` that systemd reads later takes precedence, and so does any
//! `EnvironmentFile=`; flags in `ExecStart=` take precedence over both. If the operator sets a variable in a place that the
//! drop-in would override (the operator's own unit, a drop-in that sorts before ours, or the manager's configuration), the
//! drop-in repeats that value ([`Overrides::repeated`]). It omits `UVICORN_WORKERS` if the operator sets `WEB_CONCURRENCY`
//! ([`Overrides::is_left_out`]). Values in a package's unit, below /usr/lib, are replaced. Settings in sizing.conf(5) take
//! precedence over all files except those that systemd reads later.
//!
//! The result is data: `explain` and `check` print it, and the generator uses it to determine whether a single worker may
//! run. This module collects it. [`environment`] and [`commands`] determine what the service gets to see, [`effective`] what
//! all overrides amount to.

mod commands;
mod effect;
mod effective;
mod environment;
mod position;
mod value;

use std::collections::BTreeMap;

use crate::command::{Confinement, Program};
use crate::manager::Manager;
use crate::names;
use crate::problem::{Problem, Source};
use crate::root::Root;
use crate::units::{Assignment, Unit};

pub use effect::{Effect, Override, Stage};
pub use effective::{Effective, Overrides, SingleWorker};
use environment::Environment;
use position::{Position, position};
pub use value::is_valid_value;

/// Finds the overrides in the settings of `unit` and of its manager, and reads its environment files below `root`.
/// `decided`: the variables that sizing.conf(5) sets, with their sources.
pub fn read(
    root: &Root,
    unit: &Unit,
    manager: &Manager,
    decided: &BTreeMap<&'static str, Source>,
    problems: &mut Vec<Problem>,
) -> Overrides {
    let mut overrides = Overrides::default();
    let replaced = unit.drop_ins.iter().find(|file| position(unit, file) == Position::Replacing);
    if let Some(file) = replaced {
        overrides.list.push(Override::new(Source::file(file.clone()), Effect::Replaced));
    }
    let commands = commands::find(unit);
    let mut environment = Environment::new(commands.iter().flat_map(commands::ExecCommand::expanded_words));
    environment.inherit(root, unit, manager);
    environment.assign(unit, replaced.is_none(), decided, problems);
    environment.read_files(root, unit, problems);
    environment.unset(unit);
    let env_file = format!("{}/{}.env", names::RUNTIME_DIRECTORY, unit.name);
    let program = commands::program(&commands);
    environment.change_by_commands(commands::changes(&commands, &environment), program, &env_file);
    if program == Program::Uvicorn {
        let is_decided = decided.contains_key(names::UVICORN_WORKERS);
        if let Some((path, named_at)) = commands::dotenv(&commands, &environment) {
            environment.read_dotenv(root, &path, &named_at, is_decided, problems);
        }
    }
    environment.resolve_concurrency(program, decided, problems);
    environment.report(&mut overrides);
    let commands_known = commands::flags(&commands, &environment, &mut overrides.list, problems);
    restart_and_hand_over(unit, &mut overrides.list);
    // The numbers in another profile file are unknown, and so are those of PyPNM's own sizing without one.
    let has_other_profile = program != Program::Uvicorn && !overrides.is_handed_over();
    overrides.may_be_single = environment.has_late_files || !commands_known || has_other_profile;
    overrides.refuses_restart =
        unit.assignments_of("Type").next_back().is_some_and(|last| last.value == "oneshot");
    overrides.list.append(&mut environment.not_read);
    overrides.repeated = environment.repeated;
    overrides.left_out = environment.left_out;
    overrides
}

/// Adds overrides by `Restart=` and `ExecStartPre=` that systemd reads after the drop-in.
fn restart_and_hand_over(unit: &Unit, list: &mut Vec<Override>) {
    const RESTART: [&str; 7] =
        ["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"];
    let after = |assignment: &&Assignment| position(unit, &assignment.source.file) == Position::After;
    let restart =
        unit.assignments_of("Restart").rfind(|assignment| RESTART.contains(&assignment.value.as_str()));
    if let Some(restart) = restart.filter(after).filter(|restart| restart.value != "always") {
        let effect = Effect::Restart { value: restart.value.clone() };
        list.push(Override::new(restart.source.clone(), effect));
    }
    let reset =
        unit.assignments_of("ExecStartPre").filter(after).rfind(|assignment| assignment.value.is_empty());
    if let Some(reset) = reset {
        list.push(Override::new(reset.source.clone(), Effect::NoHandOver));
    }
}

/// The CPUs and memory nodes to which the commands of the unit confine it.
pub fn confinements(unit: &Unit) -> Vec<(Confinement, Source)> {
    commands::confinements(&commands::find(unit))
}

/// The program that all commands of the unit start, if it is known.
pub fn program(unit: &Unit) -> Program {
    commands::program(&commands::find(unit))
}

#[cfg(test)]
mod tests;
