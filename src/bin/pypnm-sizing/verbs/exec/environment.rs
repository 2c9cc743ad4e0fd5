//! How `exec` changes the environment, given its variables and the operator's profile file. Pure.
//!
//! Variables that are set and not empty keep their values. The precedence is that of uvicorn (main.py and config.py of 0.34.2:
//! `UVICORN_WORKERS` before `WEB_CONCURRENCY`) and of PyPNM (`load_seeded_profile()`: the file before the environment). A value
//! that would make the program exit with a traceback is replaced by the sized one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use pypnm_sizing::names::{UVICORN_LIMIT_MAX_REQUESTS, UVICORN_WORKERS, WEB_CONCURRENCY};
use pypnm_sizing::overrides::is_valid_value;
use pypnm_sizing::problem::{Problem, ProblemKind, Source};
use pypnm_sizing::pypnm::{
    CPU_COUNT, LIMIT_MAX_REQUESTS, PROFILE_KEYS, ProfileFile, TOTAL_MEMORY_GIB, WORKERS, integer,
    profile_values, read_profile_file,
};

use crate::wording::{bad_variable, expected_value};

/// All variables that determine the numbers.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    PROFILE_KEYS.into_iter().chain([UVICORN_WORKERS, UVICORN_LIMIT_MAX_REQUESTS, WEB_CONCURRENCY])
}

/// The numbers that the machine gets, as texts for [`PROFILE_KEYS`].
pub(crate) struct SizedValues {
    pub(crate) cpu_count: String,
    pub(crate) total_memory_gib: String,
    pub(crate) workers: u32,
    pub(crate) limit_max_requests: u32,
}

/// The profile file that `PYPNM_SERVE_ENV_FILE` names.
pub(crate) struct OperatorFile<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
}

/// A number and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// Workers, or requests; 0 requests: never recycled.
    pub(crate) value: i64,
    /// The variable or file that sets it. `None`: it is sized.
    pub(crate) set_by: Option<String>,
}

/// The resulting changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Variables to set, or to remove (`None`). Others are unchanged.
    pub(crate) changes: BTreeMap<&'static str, Option<String>>,
    /// PyPNM's four lines, to be written; `None`: the operator's file has them.
    pub(crate) profile: Option<String>,
    /// The numbers that `pypnm serve` uses: workers, recycle limit.
    pub(crate) serve: [Number; 2],
    /// The numbers that `uvicorn` uses.
    pub(crate) uvicorn: [Number; 2],
    /// Values that were replaced.
    pub(crate) problems: Vec<Problem>,
}

/// The changes for the variables `set` (those of [`variables`] that are in the environment) and the operator's file, if any.
pub(crate) fn decide(
    set: &BTreeMap<&'static str, String>,
    file: Option<&OperatorFile<'_>>,
    sized: &SizedValues,
) -> Decision {
    let mut decision =
        Deciding { set, changes: BTreeMap::new(), replaced: BTreeSet::new(), problems: Vec::new() };
    let sized_text = |key| match key {
        CPU_COUNT => sized.cpu_count.clone(),
        TOTAL_MEMORY_GIB => sized.total_memory_gib.clone(),
        LIMIT_MAX_REQUESTS | UVICORN_LIMIT_MAX_REQUESTS => sized.limit_max_requests.to_string(),
        _ => sized.workers.to_string(),
    };
    // Each variable, if it is not empty and would not make the program exit.
    let own: BTreeMap<&str, String> =
        variables().filter_map(|key| Some((key, decision.checked(key, &sized_text(key))?))).collect();
    // A sized value that replaces one that would crash the program is not set by hand.
    let replaced = std::mem::take(&mut decision.replaced);
    let variable = |key: &str, minimum: i64| {
        let value = integer(own.get(key)?.trim())?.max(minimum);
        Some(Number { value, set_by: (!replaced.contains(key)).then(|| key.to_owned()) })
    };
    let first = |keys: &[&str], minimum| keys.iter().find_map(|key| variable(key, minimum));

    let (values, is_complete) = file.map_or_else(Default::default, |file| decision.of_file(file));
    let in_file = |key: &str| {
        let value = integer(values.get(key)?)?;
        file.map(|file| Number { value, set_by: Some(file.path.to_owned()) })
    };
    let of_sizing = |value: u32| Number { value: value.into(), set_by: None };
    let serve_workers = in_file(WORKERS)
        .or_else(|| first(&[WORKERS, UVICORN_WORKERS, WEB_CONCURRENCY], 1))
        .unwrap_or_else(|| of_sizing(sized.workers));
    let serve_limit = in_file(LIMIT_MAX_REQUESTS)
        .or_else(|| first(&[LIMIT_MAX_REQUESTS, UVICORN_LIMIT_MAX_REQUESTS], 0))
        .unwrap_or_else(|| of_sizing(sized.limit_max_requests));
    let uvicorn_workers =
        first(&[UVICORN_WORKERS, WEB_CONCURRENCY], 1).unwrap_or_else(|| serve_workers.clone());
    let uvicorn_limit = variable(UVICORN_LIMIT_MAX_REQUESTS, 0).unwrap_or_else(|| serve_limit.clone());

    if !own.contains_key(UVICORN_WORKERS) && !own.contains_key(WEB_CONCURRENCY) {
        decision.changes.insert(UVICORN_WORKERS, Some(uvicorn_workers.value.to_string()));
    }
    // With a limit of 0, uvicorn exits before the first request.
    if uvicorn_limit.value <= 0 {
        decision.remove(UVICORN_LIMIT_MAX_REQUESTS);
    } else if !own.contains_key(UVICORN_LIMIT_MAX_REQUESTS) {
        decision.changes.insert(UVICORN_LIMIT_MAX_REQUESTS, Some(uvicorn_limit.value.to_string()));
    }

    let mut profile = String::new();
    for key in PROFILE_KEYS {
        let number = match key {
            WORKERS => Some(serve_workers.value.to_string()),
            LIMIT_MAX_REQUESTS => Some(serve_limit.value.to_string()),
            _ => values.get(key).cloned(),
        };
        let value = number.or_else(|| own.get(key).cloned()).unwrap_or_else(|| sized_text(key));
        // Writing to a string cannot fail.
        let _ = writeln!(profile, "{key}={value}");
        // PyPNM's start script and its wrapper read the variables.
        if !own.contains_key(key) {
            decision.changes.insert(key, Some(value));
        }
    }
    let Deciding { changes, problems, .. } = decision;
    Decision {
        changes,
        profile: (!is_complete).then_some(profile),
        serve: [serve_workers, serve_limit],
        uvicorn: [uvicorn_workers, uvicorn_limit],
        problems,
    }
}

/// The state of the decision.
struct Deciding<'a> {
    set: &'a BTreeMap<&'static str, String>,
    changes: BTreeMap<&'static str, Option<String>>,
    /// Variables whose values would crash the program, and are replaced by sized ones.
    replaced: BTreeSet<&'static str>,
    problems: Vec<Problem>,
}

impl Deciding<'_> {
    /// Removes a variable from the environment, if it is set.
    fn remove(&mut self, key: &'static str) {
        self.changes.remove(key);
        if self.set.contains_key(key) {
            self.changes.insert(key, None);
        }
    }

    /// The value of a variable, or the sized value if it would crash the program. An empty variable is removed.
    fn checked(&mut self, key: &'static str, sized: &str) -> Option<String> {
        let value = self.set.get(key)?;
        if value.is_empty() {
            self.remove(key);
            return None;
        }
        if is_accepted(key, value) {
            return Some(value.clone());
        }
        self.problems.push(bad_variable(key, value, sized));
        self.replaced.insert(key);
        self.changes.insert(key, Some(sized.to_owned()));
        Some(sized.to_owned())
    }

    /// The valid values of the operator's file, and whether PyPNM takes the file as it is.
    fn of_file(&mut self, file: &OperatorFile<'_>) -> (BTreeMap<String, String>, bool) {
        let read = read_profile_file(file.text);
        let is_taken = matches!(read, ProfileFile::Taken(_));
        let mut values = BTreeMap::new();
        for (key, value) in
            profile_values(file.text).into_iter().filter(|(key, _)| PROFILE_KEYS.contains(key))
        {
            if is_taken || is_accepted(key, value) {
                values.insert(key.to_owned(), value.to_owned());
            } else if !value.is_empty() {
                let source = Source::key(file.path.to_owned(), 0, key.to_owned());
                let instead = "the sized one is used, from another file";
                self.problems.push(Problem::bad_value(source, value, expected_value(key), instead));
            }
        }
        if let ProfileFile::Ignored(missing) = read {
            self.problems.push(Problem::new(
                Source::key(file.path.to_owned(), 0, missing),
                ProblemKind::Absent,
                "PyPNM would ignore the file; a complete copy is written elsewhere",
            ));
        }
        (values, is_taken)
    }
}

/// Whether a value is valid. uvicorn accepts whatever Python's `int()` does.
fn is_accepted(key: &str, value: &str) -> bool {
    match key {
        UVICORN_WORKERS | WEB_CONCURRENCY => integer(value.trim()).is_some(),
        UVICORN_LIMIT_MAX_REQUESTS => integer(value.trim()).is_some_and(|limit| limit >= 0),
        _ => is_valid_value(key, value),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Decision, OperatorFile, SizedValues, decide, variables};

    fn decided(environment: &[(&str, &str)], file: Option<&str>) -> Decision {
        let set = variables()
            .filter_map(|key| {
                let (_, value) = environment.iter().find(|(name, _)| *name == key)?;
                Some((key, (*value).to_owned()))
            })
            .collect();
        let sized = SizedValues {
            cpu_count: "2".into(),
            total_memory_gib: "8".into(),
            workers: 2,
            limit_max_requests: 1000,
        };
        let file = file.map(|text| OperatorFile { path: "/data/profile.env", text });
        decide(&set, file.as_ref(), &sized)
    }

    /// What the program finds: the environment after the changes, and the file's lines.
    fn outcome(
        environment: &[(&str, &str)],
        file: Option<&str>,
    ) -> (BTreeMap<String, String>, Option<String>, usize) {
        let decision = decided(environment, file);
        let mut after: BTreeMap<String, String> =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        for (key, value) in decision.changes {
            match value {
                Some(value) => after.insert(key.to_owned(), value),
                None => after.remove(key),
            };
        }
        (after, decision.profile, decision.problems.len())
    }

    /// Workers and limit in the file, `UVICORN_WORKERS`, `UVICORN_LIMIT_MAX_REQUESTS` and `WEB_CONCURRENCY`, warnings.
    fn short(environment: &[(&str, &str)]) -> String {
        let (after, profile, problems) = outcome(environment, None);
        let profile = profile.unwrap_or_default();
        let line = |key| profile.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("-").to_owned();
        let variable = |key: &str| after.get(key).cloned().unwrap_or_else(|| "-".to_owned());
        format!(
            "{} {} {} {} {} {problems}",
            line("PYPNM_SERVE_WORKERS="),
            line("PYPNM_SERVE_LIMIT_MAX_REQUESTS="),
            variable("UVICORN_WORKERS"),
            variable("UVICORN_LIMIT_MAX_REQUESTS"),
            variable("WEB_CONCURRENCY"),
        )
    }

    #[test]
    fn unset_values_are_sized() {
        let (after, profile, problems) = outcome(&[], None);
        assert_eq!(
            profile.as_deref(),
            Some(
                "PYPNM_SERVE_CPU_COUNT=2\nPYPNM_SERVE_TOTAL_MEMORY_GIB=8\nPYPNM_SERVE_WORKERS=2\n\
                 PYPNM_SERVE_LIMIT_MAX_REQUESTS=1000\n"
            )
        );
        assert_eq!((after.len(), problems), (6, 0));
        assert_eq!(short(&[]), "2 1000 2 1000 - 0");
    }

    #[test]
    fn existing_values_are_kept_and_passed_to_uvicorn() {
        assert_eq!(short(&[("PYPNM_SERVE_WORKERS", "3")]), "3 1000 3 1000 - 0");
        assert_eq!(short(&[("UVICORN_WORKERS", "3")]), "3 1000 3 1000 - 0");
        assert_eq!(short(&[("WEB_CONCURRENCY", "3")]), "3 1000 - 1000 3 0");
        assert_eq!(short(&[("UVICORN_WORKERS", "3"), ("WEB_CONCURRENCY", "4")]), "3 1000 3 1000 4 0");
        assert_eq!(short(&[("PYPNM_SERVE_WORKERS", "5"), ("WEB_CONCURRENCY", "4")]), "5 1000 - 1000 4 0");
        assert_eq!(short(&[("PYPNM_SERVE_WORKERS", "5"), ("UVICORN_WORKERS", "4")]), "5 1000 4 1000 - 0");
        assert_eq!(short(&[("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "70")]), "2 70 2 70 - 0");
        assert_eq!(short(&[("UVICORN_LIMIT_MAX_REQUESTS", "70")]), "2 70 2 70 - 0");
    }

    #[test]
    fn a_limit_of_zero_is_not_passed_to_uvicorn() {
        assert_eq!(short(&[("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "0")]), "2 0 2 - - 0");
        assert_eq!(short(&[("UVICORN_LIMIT_MAX_REQUESTS", "0")]), "2 0 2 - - 0");
        assert_eq!(
            short(&[("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "7"), ("UVICORN_LIMIT_MAX_REQUESTS", "0")]),
            "2 7 2 - - 0"
        );
    }

    #[test]
    fn empty_is_unset() {
        for key in variables() {
            assert_eq!(short(&[(key, "")]), "2 1000 2 1000 - 0", "{key}");
        }
    }

    #[test]
    fn a_value_that_would_crash_is_replaced_and_reported() {
        for key in variables() {
            let (after, _, problems) = outcome(&[(key, "two")], None);
            assert_eq!(problems, 1, "{key}");
            assert!(!after.values().any(|value| value == "two"), "{key}: {after:?}");
        }
        assert_eq!(short(&[("PYPNM_SERVE_WORKERS", "abc")]), "2 1000 2 1000 - 1");
        assert_eq!(short(&[("UVICORN_WORKERS", "2.0")]), "2 1000 2 1000 - 1");
        assert_eq!(short(&[("WEB_CONCURRENCY", "abc")]), "2 1000 - 1000 2 1");
        assert_eq!(short(&[("UVICORN_LIMIT_MAX_REQUESTS", "-1")]), "2 1000 2 1000 - 1");
        // Python reads these, and so does the program that they are for.
        assert_eq!(short(&[("UVICORN_WORKERS", "0")]), "1 1000 0 1000 - 0");
        assert_eq!(short(&[("WEB_CONCURRENCY", " 3 ")]), "3 1000 - 1000  3  0");
    }

    #[test]
    fn a_replaced_value_is_not_set_by_hand() {
        let decision = decided(&[("PYPNM_SERVE_WORKERS", "abc"), ("UVICORN_LIMIT_MAX_REQUESTS", "-1")], None);
        for numbers in [&decision.serve, &decision.uvicorn] {
            assert_eq!(numbers.each_ref().map(|number| number.set_by.as_deref()), [None, None]);
        }
        let decision = decided(&[("PYPNM_SERVE_WORKERS", "3")], None);
        let set_by = decision.serve.each_ref().map(|number| number.set_by.as_deref());
        assert_eq!(set_by, [Some("PYPNM_SERVE_WORKERS"), None]);
    }

    const COMPLETE: &str = "PYPNM_SERVE_CPU_COUNT=8\nPYPNM_SERVE_TOTAL_MEMORY_GIB=16\nPYPNM_SERVE_WORKERS=7\n\
                            PYPNM_SERVE_LIMIT_MAX_REQUESTS=0\n";

    #[test]
    fn a_complete_file_is_kept_and_works_for_uvicorn() {
        let (after, profile, problems) = outcome(&[], Some(COMPLETE));
        assert_eq!((profile, problems), (None, 0));
        assert_eq!(after.get("UVICORN_WORKERS").map(String::as_str), Some("7"));
        assert_eq!(after.get("UVICORN_LIMIT_MAX_REQUESTS"), None);
        assert_eq!(after.get("PYPNM_SERVE_CPU_COUNT").map(String::as_str), Some("8"));
        let (after, _, _) = outcome(&[("UVICORN_WORKERS", "3")], Some(COMPLETE));
        assert_eq!(after.get("UVICORN_WORKERS").map(String::as_str), Some("3"), "set by hand");
    }

    #[test]
    fn an_incomplete_file_is_completed_elsewhere() {
        let (_, profile, problems) = outcome(&[], Some("PYPNM_SERVE_WORKERS=3\n"));
        assert!(profile.is_some_and(|text| text.contains("PYPNM_SERVE_WORKERS=3\n")), "its number counts");
        assert_eq!(problems, 1);
        let (_, profile, problems) = outcome(&[], Some(&COMPLETE.replace("=7", "=\"7\"")));
        assert!(profile.is_some_and(|text| text.contains("PYPNM_SERVE_WORKERS=2\n")), "no traceback");
        assert_eq!(problems, 1);
    }
}
