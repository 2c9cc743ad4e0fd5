//! `explain`: everything that led to the profile, from the same data that the generator uses: all limits, the guide's steps,
//! settings made by hand, the files that were read and the problems in them, and the result of PyPNM's own sizing.

mod answer;

use pypnm_sizing::capacity::Available;
use pypnm_sizing::limits::{Amount, Limit, Resource};
use pypnm_sizing::parse::quantity::{Cpus, Gb, Gib};
use pypnm_sizing::policy::{DEFAULT_MAX_WORKERS, LimitStep, WorkersStep};
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::{SizedUnit, Sizing};
use pypnm_sizing::sizing::size;

use crate::answer::{Answer, text};
use crate::cli::Show;
use crate::output::{Outcome, answer, remark};
use crate::page::{Ink, Page, TableRow};
use crate::service::pypnm::Installations;
use crate::service::{generated, own};
use crate::wording::{
    PypnmDefault, chosen, headline, made_by_another_generator, out_of_reach, settings, state, turned_off,
    unsized_units,
};
use answer::{ExplainAnswer, ExplainedUnit, scope};

const CPU_RULE: &str = "workers = min(4, cpu_count)";
const LOWER_OF: &str = "Choose a worker count from the lower of: CPU-based target, memory-based target";
const CAP_RULE: &str = "Only raise above 4 when concurrency demand is proven.";
const RECYCLE_RULE: &str = "limit-max-requests = 2000 as the default recycle safety valve";
const RECYCLE_SMALL_RULE: &str =
    "use limit-max-requests = 1000 on smaller systems or when investigating memory creep";

pub(crate) fn run(root: &Root, arguments: &Show) -> Outcome {
    let hypothetical = arguments.machine.hypothetical();
    let sizing = size(&own::request(root, &hypothetical));
    let units = chosen(&sizing, arguments.unit.as_deref())?;
    let default = PypnmDefault::new(&sizing.host, &hypothetical);
    if arguments.json {
        sizing.problems.iter().for_each(|problem| remark(problem));
        let units = units.iter().map(|unit| ExplainedUnit::new(root, unit, &default)).collect();
        return answer(&text(&ExplainAnswer {
            answer: Answer::new("explain", &sizing, units),
            configuration_files: sizing.config.files.iter().map(ToString::to_string).collect(),
        }));
    }
    let mut page = Page::new();
    if let Some(why) = turned_off(&sizing) {
        page.row("", 0, &format!("Nothing is sized: {why}."));
    }
    for unit in &units {
        let foreign_fragment = generated::foreign_fragment(root, unit.definition.as_ref(), &unit.name);
        explain(&mut page, unit, &default, foreign_fragment.as_deref());
        if foreign_fragment.is_none() {
            installations(&mut page, root, unit);
        }
    }
    if arguments.unit.is_none() {
        unsized_units(&mut page, &sizing);
    }
    configuration(&mut page, &sizing);
    page.print()
}

/// `foreign_fragment`: the unit's file, if another generator creates it.
fn explain(page: &mut Page, unit: &SizedUnit, default: &PypnmDefault, foreign_fragment: Option<&str>) {
    page.heading(&headline(unit));
    if let Some(path) = foreign_fragment {
        page.row("  ", 2, &made_by_another_generator(path));
    }
    resource(page, unit, Resource::Cpu);
    resource(page, unit, Resource::Memory);
    steps(page, unit);
    page.heading("Set by hand");
    let settings = settings(&unit.config);
    if settings.is_empty() && unit.overrides.list.is_empty() {
        page.row("  ", 2, "nothing");
    }
    for setting in &settings {
        page.row("  ", 2, &setting.to_string());
    }
    for found in &unit.overrides.list {
        page.row("  ", 2, &found.to_string());
    }
    page.heading("PyPNM's own sizing");
    let (what, why) = default.against(unit);
    page.row("  ", 2, &what);
    for reason in why {
        page.row("  - ", 4, &reason);
    }
    page.heading("Unit files read");
    match &unit.definition {
        Some(definition) => {
            if let Some(fragment) = &definition.fragment {
                let instead = if foreign_fragment.is_some() { ", which systemd does not load" } else { "" };
                page.row("  ", 2, &format!("{fragment}{instead}"));
            }
            definition.drop_ins.iter().for_each(|file| page.row("  ", 2, file));
            let state = state(definition).filter(|_| foreign_fragment.is_none());
            if let Some(state) = state {
                page.row("  ", 2, state);
            }
            for source in &definition.unread {
                page.row("  - ", 4, &format!("{source}: could not be read, and may contain settings"));
            }
        }
        None => page.row("  ", 2, "none"),
    }
}

/// All installations of PyPNM, and how they were found. The one that the unit starts comes first.
fn installations(page: &mut Page, root: &Root, unit: &SizedUnit) {
    page.heading("PyPNM installed");
    let installations = Installations::find(root, &unit.name, unit.definition.as_ref());
    if installations.found.is_empty() {
        page.row("  ", 2, &installations.program.none_found());
    }
    for installation in &installations.found {
        page.row("  ", 2, &format!("{}; {}", installation.text(), installation.found));
        if let Some(source) = &installation.source {
            page.row("  - ", 4, &format!("editable: its source is {source}"));
        }
    }
    for lost in installations.lost_program(true) {
        page.row("  - ", 4, &lost.text);
    }
    if let Some(command) = installations.out_of_reach() {
        page.row("  - ", 4, &out_of_reach(&unit.name, &command));
    }
}

/// The limits of a resource, and what remains of the tightest one.
fn resource(page: &mut Page, unit: &SizedUnit, resource: Resource) {
    let (title, available) = match resource {
        Resource::Cpu => ("CPUs: every limit found; > marks the tightest", unit.capacity.cpu),
        Resource::Memory => ("Memory: every limit found; > marks the tightest", unit.capacity.memory),
    };
    page.heading(title);
    let limits = || unit.limits.iter().enumerate().filter(|(_, limit)| limit.resource() == resource);
    if limits().next().is_none() {
        page.row("  ", 2, "none could be read; the minimum is assumed");
    }
    let widest = limits().map(|(_, limit)| amount(limit).chars().count()).max().unwrap_or(0);
    let rows: Vec<TableRow> = limits()
        .map(|(index, limit)| {
            let binds = available.binding == Some(index);
            let mark = if binds { ">" } else { " " };
            TableRow {
                label: format!("  {mark} {:<widest$}  {:<9}  ", amount(limit), scope(limit.scope)),
                text: source(limit),
                ink: binds.then_some(Ink::Bold),
            }
        })
        .collect();
    page.table(&rows);
    page.row("  = ", 4, &remainder(unit, available, resource));
}

/// What remains of the tightest limit after the share, the reserve, and rounding.
fn remainder(unit: &SizedUnit, available: Available, resource: Resource) -> String {
    let written = |value| match resource {
        Resource::Cpu => Cpus(value).to_string(),
        Resource::Memory => format!("{} ({} GiB)", Gb(value), Gib(value)),
    };
    let mut parts = vec![written(available.amount)];
    if let Some(limit) = available.binding.and_then(|index| unit.limits.get(index)) {
        let offered = available.amount.saturating_add(available.reserved);
        let sharing = u64::from(limit.shared_by.max(1));
        if let Amount::Cpus(set) = &limit.amount
            && u64::from(set.count()) * 1000 / sharing != offered
        {
            parts.push(", the CPUs in all of these lists".to_owned());
        }
        if sharing > 1 {
            let all = match &limit.amount {
                Amount::CpuTime(milli) => *milli,
                // Shares are rounded down, but there are only whole CPUs to be shared.
                Amount::Cpus(_) => offered.saturating_mul(sharing).div_ceil(1000).saturating_mul(1000),
                _ => offered.saturating_mul(sharing),
            };
            parts.push(format!(", an equal share of {} for each of {sharing} units", written(all)));
        }
        if available.reserved > 0 {
            let set = match resource {
                Resource::Cpu => unit.config.reserve_cpus.as_ref().map(|set| &set.source),
                Resource::Memory => unit.config.reserve_memory.as_ref().map(|set| &set.source),
            };
            let at =
                set.map_or_else(String::new, |source| format!(" by {}=, {}", source.key, source.place()));
            parts.push(format!(", {} minus {} reserved{at}", written(offered), written(available.reserved)));
        }
    }
    if resource == Resource::Cpu && !available.amount.is_multiple_of(1000) {
        parts.push(format!("; rounded down to whole CPUs, at least 1: {}", unit.capacity.whole_cpus()));
    }
    parts.concat()
}

/// The amount of a limit as text.
fn amount(limit: &Limit) -> String {
    match &limit.amount {
        Amount::Memory(bytes) => format!("{} = {} GiB", Gb(*bytes), Gib(*bytes)),
        Amount::MemoryNodes(nodes) => format!("{} = {} GiB", Gb(nodes.bytes()), Gib(nodes.bytes())),
        Amount::CpuTime(milli) => Cpus(*milli).to_string(),
        Amount::Cpus(set) => set.count().to_string(),
        Amount::Unknown(_) => "unknown".to_owned(),
    }
}

fn source(limit: &Limit) -> String {
    match &limit.amount {
        Amount::Cpus(set) => format!("{} ({set})", limit.source),
        Amount::MemoryNodes(nodes) => format!("{} (memory nodes {nodes})", limit.source),
        Amount::Unknown(_) => format!("{}, assumed to be minimal", limit.source),
        Amount::Memory(_) | Amount::CpuTime(_) => limit.source.to_string(),
    }
}

/// The steps of the policy, in order.
fn steps(page: &mut Page, unit: &SizedUnit) {
    page.heading("The steps of the guide \"PyPNM Worker Sizing\"");
    // A step: its name, its result, the reason, and the wording of the guide.
    let mut step = |name: &str, value: u32, why: &str, guide: Option<&str>| {
        page.row(&format!("  {name:<8}{value:>5}  "), 17, why);
        if let Some(guide) = guide {
            page.row("", 17, &format!("\"{guide}\""));
        }
    };
    let profile = &unit.profile;
    let (cap, rule) = match &unit.config.max_workers {
        Some(set) => {
            let rule = if set.value > DEFAULT_MAX_WORKERS { CAP_RULE } else { CPU_RULE };
            (format!("MaxWorkers={} ({})", set.value, set.source.place()), rule)
        }
        None => (format!("MaxWorkers= ({DEFAULT_MAX_WORKERS} by default)"), CPU_RULE),
    };
    let why = format!("the lower of {cap} and the whole CPUs ({})", unit.capacity.whole_cpus());
    step("CPUs", profile.cpu_target, &why, Some(rule));
    let memory = Gb(unit.capacity.memory.amount);
    let guardrail = profile.guardrail;
    step("Memory", guardrail.workers, &format!("the maximum for {memory}"), Some(guardrail.guide));
    if let (Some(value), Some(set)) = (profile.per_worker_target, &unit.config.memory_per_worker) {
        let why = format!("{memory} / MemoryPerWorker={} GiB ({})", Gib(set.value), set.source.place());
        step("Each", value, &why, None);
    }
    let reason = reasons::workers_reason(unit);
    let (why, rule) = match profile.workers_step {
        WorkersStep::Operator => (format!("{reason}; the steps above give {}", profile.lowest_target), None),
        WorkersStep::Incomplete => (reason, None),
        _ => (reason, Some(LOWER_OF)),
    };
    step("Workers", profile.workers, &why, rule);
    let rule = match profile.limit_step {
        LimitStep::Operator | LimitStep::Incomplete => None,
        LimitStep::MemoryCreep | LimitStep::SmallSystem => Some(RECYCLE_SMALL_RULE),
        LimitStep::Default => Some(RECYCLE_RULE),
    };
    step("Recycle", profile.limit_max_requests, &reasons::limit_reason(unit), rule);
}

/// The configuration files that were read, and the problems.
fn configuration(page: &mut Page, sizing: &Sizing) {
    page.heading("Configuration files read; later files take precedence");
    if sizing.config.files.is_empty() {
        page.row("  ", 2, "none; the defaults of sizing.conf(5) apply");
    }
    for file in &sizing.config.files {
        page.row("  ", 2, file);
    }
    if let Some((true, file)) = sizing.kernel_switch {
        page.row("  ", 2, &format!("{file}: pypnm.sizing=yes"));
    }
    if !sizing.problems.is_empty() {
        page.heading("Unreadable or invalid inputs");
    }
    for problem in &sizing.problems {
        page.row("  - ", 4, &problem.to_string());
    }
}
