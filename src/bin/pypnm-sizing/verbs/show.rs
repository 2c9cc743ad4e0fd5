//! `show`: the answer at a glance. The profile, a line each for what decided it, and where to look next.

use pypnm_sizing::parse::quantity::{Cpus, Gb, Gib};
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{Hypothetical, Request, SizedUnit, Sizing, size};

use crate::answer as json;
use crate::cli::Show;
use crate::output::{Outcome, answer, remark};
use crate::page::Page;
use crate::service::pypnm::{self, Program};
use crate::service::{generated, own};
use crate::wording::{
    Setting, brief, chosen, effective, not_sized, override_text, profile, settings, state, turned_off,
};

/// The width of the labels.
const LABEL: usize = 11;

pub(crate) fn run(root: &Root, arguments: &Show) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&Request {
        hypothetical: hypothetical.clone(),
        process: own::without_systemd(root),
        ..Request::new(root)
    });
    sizing.problems.iter().for_each(|problem| remark(problem));
    let units = chosen(&sizing, arguments.unit.as_deref())?;
    let loaded = |unit: &SizedUnit| loaded(root, &hypothetical, unit);
    if arguments.json {
        return answer(&json::show(root, &sizing, &units, &loaded));
    }
    let mut page = Page::new();
    if let Some(why) = turned_off(&sizing) {
        page.row("", 0, &format!("Nothing is sized: {why}. PyPNM counts CPUs and memory itself."));
    }
    for unit in &units {
        let is_tried = hypothetical != Hypothetical::default();
        one(&mut page, unit, &loaded(unit), is_tried);
        if !is_tried {
            installation(&mut page, root, unit);
        }
    }
    if arguments.unit.is_none() {
        unsized_units(&mut page, &sizing);
    }
    if !units.is_empty() {
        let next = "Why: pypnm-sizing explain. Does it fit what runs: pypnm-sizing check.";
        page.gap();
        page.row("", 0, next);
    }
    page.print()
}

/// The units that are named but not sized.
pub(crate) fn unsized_units(page: &mut Page, sizing: &Sizing) {
    if !sizing.is_enabled() {
        return;
    }
    for name in sizing.config.units() {
        if let Some(why) = not_sized(sizing, &name) {
            page.heading(&format!("{name}: not sized, {why}"));
        }
    }
}

fn one(page: &mut Page, unit: &SizedUnit, loaded: &Loaded, is_tried: bool) {
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
    // The two lines above name their own keys already.
    let named = |setting: &&Setting| matches!(setting.key, "Workers" | "LimitMaxRequests");
    for setting in settings(&unit.config).iter().filter(|one| one.matters() && !named(one)) {
        page.row("  By hand", LABEL, &setting.to_string());
    }
    for one in &unit.overrides.list {
        page.row("  By hand", LABEL, &override_text(one));
    }
    // Of a machine to try nobody expects that it has one.
    let here = unit.definition.as_ref().filter(|_| !is_tried);
    if let Some(state) = here.and_then(state) {
        page.row("  Unit", LABEL, state);
    }
    match loaded {
        Loaded::NotAsked | Loaded::Same => {}
        Loaded::Other(numbers) => page.row(
            "  Loaded",
            LABEL,
            &format!(
                "{}: systemd has that from before a change; 'pypnm-sizing apply' brings it up to date",
                profile(numbers.workers, numbers.limit_max_requests)
            ),
        ),
        Loaded::Nothing => page.row(
            "  Loaded",
            LABEL,
            "nothing: systemd has no drop-in from the generator; 'pypnm-sizing check' says why",
        ),
    }
}

/// The PyPNM that the unit starts, or the one that there is.
fn installation(page: &mut Page, root: &Root, unit: &SizedUnit) {
    let program = Program::of(&unit.name, unit.definition.as_ref());
    let text = match pypnm::find(root, program, unit.definition.as_ref()).as_slice() {
        [] => program.none_found(),
        [first, ..] => first.text(program),
    };
    page.row("  PyPNM", LABEL, &text);
}

/// The unit and its profile, as it comes out in the end.
pub(crate) fn headline(unit: &SizedUnit) -> String {
    let sized = Numbers {
        workers: unit.profile.workers.into(),
        limit_max_requests: unit.profile.limit_max_requests.into(),
    };
    let numbers = effective(unit);
    let but = if numbers == sized {
        String::new()
    } else {
        format!(", by hand; sized: {}", brief(sized.workers, Some(sized.limit_max_requests)))
    };
    format!("{}: {}{but}", unit.name, profile(numbers.workers, numbers.limit_max_requests))
}

/// What the running systemd has loaded for a unit, as far as a look at the generator's output tells.
pub(crate) enum Loaded {
    /// Another machine is tried, or no systemd runs.
    NotAsked,
    /// The same profile.
    Same,
    /// Another one.
    Other(Numbers),
    /// None of ours.
    Nothing,
}

fn loaded(root: &Root, hypothetical: &Hypothetical, unit: &SizedUnit) -> Loaded {
    if *hypothetical != Hypothetical::default() || !own::is_booted(root) {
        return Loaded::NotAsked;
    }
    match generated::read(root, &unit.name, &unit.name)
        .ok()
        .flatten()
        .and_then(|generated| generated.numbers())
    {
        None => Loaded::Nothing,
        Some(numbers)
            if numbers.workers == i64::from(unit.profile.workers)
                && numbers.limit_max_requests == i64::from(unit.profile.limit_max_requests) =>
        {
            Loaded::Same
        }
        Some(numbers) => Loaded::Other(numbers),
    }
}
