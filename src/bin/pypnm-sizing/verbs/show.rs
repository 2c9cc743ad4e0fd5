//! `show`: the profile at a glance, with a line on the reason for each number, and which command shows more.

use pypnm_sizing::dropin::DropIn;
use pypnm_sizing::parse::quantity::{Cpus, Gb, Gib};
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::SizedUnit;
use pypnm_sizing::sizing::{Hypothetical, size};
use serde::Serialize;

use crate::answer::{Answer, ProfileAnswer, installations, text};
use crate::cli::Show;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::pypnm::{Installation, Installations};
use crate::service::{generated, own};
use crate::wording::{
    ConfigSetting, chosen, headline, made_by_another_generator, out_of_reach, override_text, profile,
    settings, state, turned_off, unsized_units, warnings,
};

/// A unit in `show --json`.
#[derive(Serialize)]
struct ShownUnit {
    #[serde(flatten)]
    profile: ProfileAnswer,
    loaded: Option<LoadedAnswer>,
    installations: Vec<Installation>,
}

/// The profile that the generator wrote at the last reload; without numbers: none.
#[derive(Clone, Copy, Serialize)]
struct LoadedAnswer {
    /// Whether it would write the same now.
    same: bool,
    workers: Option<i64>,
    limit_max_requests: Option<i64>,
}

/// The width of the labels.
const LABEL: usize = 11;

pub(crate) fn run(root: &Root, arguments: &Show) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&own::request(root, &hypothetical));
    sizing.problems.iter().for_each(|problem| remark(problem));
    let units = chosen(&sizing, arguments.unit.as_deref())?;
    let loaded = |unit: &SizedUnit| loaded(root, &hypothetical, unit);
    if arguments.json {
        let units = units.iter().map(|unit| ShownUnit {
            profile: ProfileAnswer::new(unit),
            loaded: loaded(unit),
            installations: installations(root, unit),
        });
        return answer(&text(&Answer::new("show", &sizing, units.collect())));
    }
    let mut page = Page::new();
    if let Some(why) = turned_off(&sizing) {
        page.row("", 0, &format!("Nothing is sized: {why}. PyPNM falls back to its own sizing."));
    }
    for unit in &units {
        let is_hypothetical = hypothetical != Hypothetical::default();
        show(&mut page, unit, loaded(unit));
        let foreign_fragment = generated::foreign_fragment(root, unit.definition.as_ref(), &unit.name);
        match foreign_fragment.filter(|_| !is_hypothetical) {
            Some(path) => page.row("  Unit", LABEL, &made_by_another_generator(&path)),
            None if is_hypothetical => {}
            None => {
                // A hypothetical machine is not expected to have the unit.
                if let Some(state) = unit.definition.as_ref().and_then(state) {
                    page.row("  Unit", LABEL, state);
                }
                show_installation(&mut page, root, unit);
            }
        }
    }
    if arguments.unit.is_none() {
        unsized_units(&mut page, &sizing);
    }
    if !units.is_empty() {
        let next = "Reasons: pypnm-sizing explain. Running service: pypnm-sizing check.";
        page.gap();
        page.row("", 0, next);
    }
    page.print()
}

fn show(page: &mut Page, unit: &SizedUnit, loaded: Option<LoadedAnswer>) {
    page.heading(&headline(unit));
    page.gap();
    let capacity = &unit.capacity;
    let memory = capacity.memory.amount;
    page.row("  CPUs", LABEL, &format!("{}: {}", Cpus(capacity.cpu.amount), reasons::cpu_reason(unit)));
    page.row(
        "  Memory",
        LABEL,
        &format!("{} = {} GiB: {}", Gb(memory), Gib(memory), reasons::memory_reason(unit)),
    );
    page.row("  Workers", LABEL, &format!("{}: {}", unit.profile.workers, reasons::workers_reason(unit)));
    page.row(
        "  Recycle",
        LABEL,
        &format!("{}: {}", unit.profile.limit_max_requests, reasons::limit_reason(unit)),
    );
    // The two lines above already name these keys.
    let named = |setting: &&ConfigSetting| matches!(setting.key, "Workers" | "LimitMaxRequests");
    for setting in settings(&unit.config).iter().filter(|setting| setting.matters() && !named(setting)) {
        page.row("  By hand", LABEL, &setting.to_string());
    }
    for found in &unit.overrides.list {
        page.row("  By hand", LABEL, &override_text(found));
    }
    for warning in warnings(unit) {
        page.row("  Note", LABEL, &warning);
    }
    match loaded {
        None | Some(LoadedAnswer { same: true, .. }) => {}
        Some(LoadedAnswer {
            workers: Some(workers), limit_max_requests: Some(limit_max_requests), ..
        }) => {
            // The generator may be able to read what this user cannot.
            let why = match unit.config.unread {
                Some(_) => "at the last reload",
                None => "which is out of date; run 'pypnm-sizing apply'",
            };
            let loaded = profile(Numbers { workers, limit_max_requests });
            page.row("  Loaded", LABEL, &format!("{loaded}, {why}"));
        }
        Some(_) => page.row(
            "  Loaded",
            LABEL,
            "nothing: systemd has no drop-in from the generator; see 'pypnm-sizing check'",
        ),
    }
}

/// The PyPNM that the unit starts, or else the only one on the machine.
fn show_installation(page: &mut Page, root: &Root, unit: &SizedUnit) {
    let installations = Installations::find(root, &unit.name, unit.definition.as_ref());
    let first = installations.found.first();
    let text = first.map_or_else(|| installations.program.none_found(), Installation::text);
    page.row("  PyPNM", LABEL, &text);
    if let Some(command) = installations.out_of_reach() {
        page.row("", LABEL, &out_of_reach(&unit.name, &command));
    }
}

/// What the generator wrote for a unit. `None`: the machine is a hypothetical one, or systemd is not running.
fn loaded(root: &Root, hypothetical: &Hypothetical, unit: &SizedUnit) -> Option<LoadedAnswer> {
    if *hypothetical != Hypothetical::default() || !own::is_booted(root) {
        return None;
    }
    let numbers = |drop_in: DropIn| generated::numbers(&drop_in.environment());
    let written = generated::drop_in(root, &unit.name, &unit.name).and_then(numbers);
    Some(LoadedAnswer {
        same: written.is_some() && written == numbers(DropIn::new(unit)),
        workers: written.map(|numbers| numbers.workers),
        limit_max_requests: written.map(|numbers| numbers.limit_max_requests),
    })
}

#[cfg(test)]
mod tests {
    use super::{LoadedAnswer, ShownUnit};
    use crate::answer::tests::{COMMON, answer, assert_documented, example_installations, profile};

    #[test]
    fn the_schema_is_documented() {
        let loaded = LoadedAnswer { same: true, workers: Some(1), limit_max_requests: Some(1) };
        let unit =
            ShownUnit { profile: profile(), loaded: Some(loaded), installations: example_installations() };
        assert_documented(&[COMMON, "`show`"], &answer(unit));
    }
}
