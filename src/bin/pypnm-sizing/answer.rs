//! Answers for programs: one JSON object a verb, described in docs/json.md and pinned by the golden files of
//! tests/helper. Bytes, milli-CPUs, whole numbers; what is not known is null. `schema` rises when a field changes its
//! meaning or goes; new fields may come without.

use pypnm_sizing::capacity::Available;
use pypnm_sizing::limits::{Amount, Limit, Resource};
use pypnm_sizing::overrides::Effect;
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sizing::{SizedUnit, Sizing};
use serde_json::{Map, Value, json};

use crate::judge::{Judged, Live, Status};
use crate::service::pypnm::{self, Program};
use crate::verbs::check;
use crate::verbs::explain::{Own, scope};
use crate::verbs::show::Loaded;
use crate::wording::{effective, settings, turned_off};

/// The schema's number.
pub(crate) const SCHEMA: u32 = 1;

/// `show --json`.
pub(crate) fn show(
    root: &Root,
    sizing: &Sizing,
    units: &[&SizedUnit],
    loaded: &dyn Fn(&SizedUnit) -> Loaded,
) -> String {
    let units = units.iter().map(|unit| {
        let mut value = common(root, unit);
        let loaded = match loaded(unit) {
            Loaded::NotAsked => Value::Null,
            Loaded::Same => json!({ "same": true, "workers": unit.profile.workers,
                "limit_max_requests": unit.profile.limit_max_requests }),
            Loaded::Other(numbers) => json!({ "same": false, "workers": numbers.workers,
                "limit_max_requests": numbers.limit_max_requests }),
            Loaded::Nothing => json!({ "same": false, "workers": null, "limit_max_requests": null }),
        };
        value.insert("loaded".into(), loaded);
        Value::Object(value)
    });
    text(&whole("show", sizing, units.collect()))
}

/// `explain --json`.
pub(crate) fn explain(root: &Root, sizing: &Sizing, units: &[&SizedUnit], own: &Own) -> String {
    let units = units.iter().map(|unit| {
        let mut value = common(root, unit);
        let binds = |index| {
            [unit.capacity.cpu, unit.capacity.memory].iter().any(|grant| grant.binding == Some(index))
        };
        let limits = unit.limits.iter().enumerate().map(|(index, one)| limit(one, binds(index)));
        value.insert("limits".into(), limits.collect());
        value.insert(
            "capacity".into(),
            json!({ "cpu": grant(unit.capacity.cpu), "memory": grant(unit.capacity.memory) }),
        );
        value.insert(
            "targets".into(),
            json!({
                "cpu": unit.profile.cpu_target,
                "memory": unit.profile.guardrail.workers,
                "memory_per_worker": unit.profile.per_worker_target,
            }),
        );
        let (_, reasons) = own.against(unit);
        value.insert(
            "pypnm_by_itself".into(),
            json!({
                "workers": own.numbers.workers,
                "limit_max_requests": own.numbers.limit_max_requests,
                "differs_because": reasons,
            }),
        );
        let files = unit.definition.iter().flat_map(|unit| unit.fragment.iter().chain(&unit.drop_ins));
        value.insert("unit_files".into(), files.map(String::as_str).collect());
        Value::Object(value)
    });
    let mut value = whole("explain", sizing, units.collect());
    value.insert("configuration_files".into(), json!(sizing.config.files));
    text(&value)
}

/// `check --json`.
pub(crate) fn check(sizing: &Sizing, judged: &[Judged], status: u8) -> String {
    let units = judged.iter().map(|one| {
        let facts = one.facts.as_ref();
        let verdict = one.verdict.as_ref().ok();
        let findings = verdict.map_or(&[][..], |verdict| &verdict.findings);
        json!({
            "unit": one.unit,
            "status": word(one.status()),
            "summary": check::summary(one),
            "mend": verdict.and_then(|verdict| verdict.leading()?.mend.as_deref()),
            "sized": numbers(facts.and_then(|facts| Some(facts.sized.as_ref().ok()?.numbers))),
            "loaded": numbers(facts.and_then(|facts| facts.generated.as_ref()?.numbers())),
            "due": numbers(verdict.and_then(|verdict| verdict.due)),
            "running": facts.and_then(|facts| match &facts.live {
                Live::Is(running) => Some(json!({
                    "workers_alive": running.workers,
                    "workers": verdict.and_then(|verdict| verdict.in_use?.workers),
                    "limit_max_requests": verdict.and_then(|verdict| verdict.in_use?.limit_max_requests),
                    "by": verdict.and_then(|verdict| Some(verdict.in_use?.by.word())),
                })),
                Live::Not | Live::Hidden(_) => None,
            }),
            "findings": findings.iter().map(|finding| json!({
                "topic": finding.topic,
                "status": word(finding.status),
                "text": finding.text,
                "mend": finding.mend,
            })).collect::<Vec<Value>>(),
        })
    });
    let mut value = whole("check", sizing, units.collect());
    value.insert("status".into(), status.into());
    text(&value)
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Fits => "fits",
        Status::Differs => "differs",
        Status::Unknown => "unknown",
    }
}

fn numbers(numbers: Option<Numbers>) -> Value {
    numbers.map_or(
        Value::Null,
        |numbers| json!({ "workers": numbers.workers, "limit_max_requests": numbers.limit_max_requests }),
    )
}

/// What every answer begins with.
fn whole(verb: &str, sizing: &Sizing, units: Vec<Value>) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("schema".into(), SCHEMA.into());
    value.insert("verb".into(), verb.into());
    value.insert("turned_off".into(), turned_off(sizing).into());
    value.insert("units".into(), units.into());
    value.insert("problems".into(), sizing.problems.iter().map(problem).collect());
    value
}

/// What `show` and `explain` say of a unit alike.
fn common(root: &Root, unit: &SizedUnit) -> Map<String, Value> {
    let mut value = Map::new();
    let profile = &unit.profile;
    value.insert("unit".into(), unit.name.as_str().into());
    value.insert("workers".into(), profile.workers.into());
    value.insert("limit_max_requests".into(), profile.limit_max_requests.into());
    value.insert("cpu_milli".into(), unit.capacity.cpu.amount.into());
    value.insert("memory_bytes".into(), unit.capacity.memory.amount.into());
    value.insert(
        "reasons".into(),
        json!({
            "cpu": reasons::cpu_reason(unit),
            "memory": reasons::memory_reason(unit),
            "workers": reasons::workers_reason(unit),
            "limit_max_requests": reasons::limit_reason(unit),
        }),
    );
    value.insert("in_effect".into(), numbers(Some(effective(unit))));
    let settings = settings(&unit.config).into_iter().map(
        |setting| json!({ "key": setting.key, "value": setting.value, "source": source(&setting.source) }),
    );
    value.insert("settings".into(), settings.collect());
    let overrides = unit.overrides.list.iter().map(|one| {
        let given = match &one.effect {
            Effect::Variable { value, .. } | Effect::Ineffective { value, .. } | Effect::Flag { value, .. } | Effect::Restart { value } => Some(value),
            Effect::NotRead { path } => Some(path),
            Effect::UnknownCommand { program } => Some(program),
            Effect::Unset { .. } | Effect::Passed { .. } | Effect::NoHandOver | Effect::Replaced => None,
        };
        json!({ "key": one.effect.key(), "value": given, "text": one.to_string(), "source": source(&one.source) })
    });
    value.insert("overrides".into(), overrides.collect());
    let program = Program::of(&unit.name, unit.definition.as_ref());
    let installations = pypnm::find(root, program, unit.definition.as_ref());
    let installations = installations.iter().map(|installation| {
        json!({
            "environment": installation.environment,
            "command": installation.command,
            "version": installation.version,
            "takes_profile": installation.takes_profile(),
            "editable_source": installation.source,
            "found": installation.found.to_string(),
            "fault": installation.fault,
        })
    });
    value.insert("installations".into(), installations.collect());
    value
}

fn grant(grant: Available) -> Value {
    json!({
        "amount": grant.amount,
        "before_reserve": grant.amount.saturating_add(grant.reserved),
        "reserved": grant.reserved,
    })
}

fn limit(limit: &Limit, binds: bool) -> Value {
    let (amount, cpus) = match &limit.amount {
        Amount::Memory(bytes) => (Some(*bytes), None),
        Amount::CpuTime(milli) => (Some(*milli), None),
        Amount::Cpus(set) => (Some(u64::from(set.count()) * 1000), Some(set.to_string())),
        Amount::Unknown(_) => (None, None),
    };
    json!({
        "resource": match limit.resource() { Resource::Cpu => "cpu", Resource::Memory => "memory" },
        "scope": scope(limit.scope),
        "amount": amount,
        "cpus": cpus,
        "shared_by": limit.shared_by,
        "binds": binds,
        "source": source(&limit.source),
    })
}

fn source(source: &Source) -> Value {
    let line = (source.line > 0).then_some(source.line);
    let key = (!source.key.is_empty()).then_some(&source.key);
    json!({ "file": &*source.file, "line": line, "key": key })
}

fn problem(problem: &Problem) -> Value {
    json!({ "source": source(&problem.source), "message": problem.to_string() })
}

/// Pretty, since people read it as well.
pub(crate) fn text(value: &Map<String, Value>) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
