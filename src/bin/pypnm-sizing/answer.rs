//! Answers for programs: the JSON types that several verbs share. The types that belong to a single verb are in its module.
//! These types are the schema; docs/json.md describes it, and a test compares the two.
//!
//! Sizes are in bytes, CPUs in milli-CPUs; unknown values are null. `schema` is incremented when the meaning of a field
//! changes or a field is removed, but not when fields are added.

use pypnm_sizing::overrides::{Effect, Override};
use pypnm_sizing::problem::{Problem, Source};
use pypnm_sizing::pypnm::Numbers;
use pypnm_sizing::reasons;
use pypnm_sizing::root::Root;
use pypnm_sizing::sized::{SizedUnit, Sizing};
use serde::Serialize;

use crate::service::pypnm::{Installation, Installations};
use crate::wording::{ConfigSetting, effective, settings, turned_off};

/// The version of the schema.
const SCHEMA: u32 = 1;

/// The common part of all answers. `U`: the type for a unit, which depends on the verb.
#[derive(Serialize)]
pub(crate) struct Answer<U> {
    pub(crate) schema: u32,
    pub(crate) verb: &'static str,
    pub(crate) turned_off: Option<String>,
    pub(crate) units: Vec<U>,
    pub(crate) problems: Vec<ProblemAnswer>,
}

impl<U> Answer<U> {
    pub(crate) fn new(verb: &'static str, sizing: &Sizing, units: Vec<U>) -> Self {
        let problem = |problem: &Problem| ProblemAnswer {
            source: SourceAnswer::new(&problem.source),
            message: problem.to_string(),
        };
        let problems = sizing.problems.iter().map(problem).collect();
        Self { schema: SCHEMA, verb, turned_off: turned_off(sizing), units, problems }
    }
}

/// Where a value is set.
#[derive(Serialize)]
pub(crate) struct SourceAnswer {
    pub(crate) file: String,
    pub(crate) line: Option<u32>,
    pub(crate) key: Option<String>,
}

impl SourceAnswer {
    pub(crate) fn new(source: &Source) -> Self {
        Self {
            file: source.file.to_string(),
            line: (source.line > 0).then_some(source.line),
            key: (!source.key.is_empty()).then(|| source.key.to_string()),
        }
    }
}

/// An input that could not be read or is invalid.
#[derive(Serialize)]
pub(crate) struct ProblemAnswer {
    pub(crate) source: SourceAnswer,
    pub(crate) message: String,
}

/// The fields of a unit that `show` and `explain` share.
#[derive(Serialize)]
pub(crate) struct ProfileAnswer {
    pub(crate) unit: String,
    pub(crate) workers: u32,
    pub(crate) limit_max_requests: u32,
    pub(crate) cpu_milli: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) reasons: ReasonsAnswer,
    pub(crate) in_effect: Numbers,
    pub(crate) settings: Vec<SettingAnswer>,
    pub(crate) overrides: Vec<OverrideAnswer>,
}

/// What determined each of the four values, in a few words.
#[derive(Serialize)]
pub(crate) struct ReasonsAnswer {
    pub(crate) cpu: String,
    pub(crate) memory: String,
    pub(crate) workers: String,
    pub(crate) limit_max_requests: String,
}

/// A key of sizing.conf(5).
#[derive(Serialize)]
pub(crate) struct SettingAnswer {
    pub(crate) key: &'static str,
    pub(crate) value: String,
    pub(crate) source: SourceAnswer,
}

/// A setting in the unit's own files that overrides the generated drop-in.
#[derive(Serialize)]
pub(crate) struct OverrideAnswer {
    pub(crate) key: Option<&'static str>,
    pub(crate) value: Option<String>,
    pub(crate) text: String,
    pub(crate) source: SourceAnswer,
}

impl ProfileAnswer {
    pub(crate) fn new(unit: &SizedUnit) -> Self {
        let profile = &unit.profile;
        let setting = |setting: ConfigSetting| SettingAnswer {
            key: setting.key,
            value: setting.value,
            source: SourceAnswer::new(&setting.source),
        };
        Self {
            unit: unit.name.clone(),
            workers: profile.workers,
            limit_max_requests: profile.limit_max_requests,
            cpu_milli: unit.capacity.cpu.amount,
            memory_bytes: unit.capacity.memory.amount,
            reasons: ReasonsAnswer {
                cpu: reasons::cpu_reason(unit),
                memory: reasons::memory_reason(unit),
                workers: reasons::workers_reason(unit),
                limit_max_requests: reasons::limit_reason(unit),
            },
            in_effect: effective(unit),
            settings: settings(&unit.config).into_iter().map(setting).collect(),
            overrides: unit.overrides.list.iter().map(OverrideAnswer::new).collect(),
        }
    }
}

impl OverrideAnswer {
    fn new(found: &Override) -> Self {
        let value = match &found.effect {
            Effect::Variable { value, .. }
            | Effect::Ineffective { value, .. }
            | Effect::Flag { value, .. }
            | Effect::Restart { value } => Some(value.clone()),
            Effect::NotRead { path } => Some(path.clone()),
            Effect::UnknownCommand { program } => Some(program.clone()),
            _ => None,
        };
        let source = SourceAnswer::new(&found.source);
        Self { key: found.effect.key(), value, text: found.to_string(), source }
    }
}

/// An answer as text, indented because people read it as well.
pub(crate) fn text(answer: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(answer).unwrap_or_default();
    text.push('\n');
    text
}

/// The installations of the unit's program.
pub(crate) fn installations(root: &Root, unit: &SizedUnit) -> Vec<Installation> {
    Installations::find(root, &unit.name, unit.definition.as_ref()).found
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use serde::Serialize;
    use serde_json::Value;

    use super::{
        Answer, Installation, Numbers, OverrideAnswer, ProblemAnswer, ProfileAnswer, ReasonsAnswer,
        SettingAnswer, SourceAnswer,
    };

    pub(crate) fn source() -> SourceAnswer {
        SourceAnswer { file: String::new(), line: Some(1), key: Some(String::new()) }
    }

    pub(crate) fn numbers() -> Numbers {
        Numbers { workers: 1, limit_max_requests: 1 }
    }

    pub(crate) fn profile() -> ProfileAnswer {
        ProfileAnswer {
            unit: String::new(),
            workers: 1,
            limit_max_requests: 1,
            cpu_milli: 1,
            memory_bytes: 1,
            reasons: ReasonsAnswer {
                cpu: String::new(),
                memory: String::new(),
                workers: String::new(),
                limit_max_requests: String::new(),
            },
            in_effect: numbers(),
            settings: vec![SettingAnswer { key: "", value: String::new(), source: source() }],
            overrides: vec![OverrideAnswer {
                key: Some(""),
                value: Some(String::new()),
                text: String::new(),
                source: source(),
            }],
        }
    }

    pub(crate) fn example_installations() -> Vec<Installation> {
        vec![Installation::example()]
    }

    pub(crate) fn answer<U>(unit: U) -> Answer<U> {
        Answer {
            schema: 1,
            verb: "",
            turned_off: Some(String::new()),
            units: vec![unit],
            problems: vec![ProblemAnswer { source: source(), message: String::new() }],
        }
    }

    /// The section on the fields that the answers of `show`, `explain` and `check` have in common.
    pub(crate) const COMMON: &str = "Common fields";

    /// Compares an answer in which every field has a value with the sections of docs/json.md, paths and all.
    pub(crate) fn assert_documented(sections: &[&str], answer: &impl Serialize) {
        fn paths(value: &Value, at: &str, into: &mut BTreeSet<String>) {
            match value {
                Value::Object(object) => {
                    for (key, value) in object {
                        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                        paths(value, &path, into);
                    }
                }
                Value::Array(values) => {
                    for value in values {
                        paths(value, &format!("{at}[]"), into);
                    }
                }
                _ => {
                    into.insert(at.to_owned());
                }
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json.md");
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let of = |name: &str| {
            let heading = format!("\n## {name}\n");
            let section = text.split(heading.as_str()).nth(1).unwrap_or_else(|| panic!("no section {name}"));
            let section = section.split("\n## ").next().unwrap_or_default();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
            rows.map(|(path, what)| (path.to_owned(), what.to_owned())).collect::<Vec<_>>()
        };
        let mut documented = BTreeSet::new();
        for (path, what) in sections.iter().flat_map(|section| of(section)) {
            if what.starts_with("a source") {
                documented.extend(of("Sources").into_iter().map(|(field, _)| format!("{path}.{field}")));
            } else if !what.starts_with("an object") {
                documented.insert(path);
            }
        }
        let mut known = BTreeSet::new();
        paths(&serde_json::to_value(answer).unwrap_or_default(), "", &mut known);
        assert_eq!(known, documented, "docs/json.md, {sections:?}");
    }
}
