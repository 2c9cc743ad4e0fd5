//! Tests of [`super`].

use std::collections::BTreeMap;

use super::super::facts::Expected;
use super::*;
use pypnm_sizing::overrides::Overrides;

const ENVIRONMENT_FILE: &str = "/run/pypnm-sizing/pypnm.env";

fn facts(arguments: &[&str], variables: &[(&str, &str)], file: Option<&str>, workers: i64) -> ProcessFacts {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let numbers = Numbers { workers: 2, limit_max_requests: 1000 };
    ProcessFacts {
        expected: Ok(Expected {
            numbers,
            cpus: 2,
            gib: "8.0".to_owned(),
            memory: 8 << 30,
            set_by_hand: Vec::new(),
            overrides: Overrides::default(),
            default: Numbers { workers: 4, limit_max_requests: 2000 },
        }),
        running: Running {
            file_has_changed: false,
            workers,
            is_single: workers < 2,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            environment: Some(variables.iter().map(pair).collect::<BTreeMap<_, _>>()),
            active: None,
            file: file.map(|text| (ENVIRONMENT_FILE.to_owned(), Ok(text.to_owned()))),
        },
        user: Some((10001, 10001)),
        mistakes: Vec::new(),
    }
}

fn profile(workers: u32, limit: u32) -> String {
    format!(
        "PYPNM_SERVE_CPU_COUNT=2\nPYPNM_SERVE_TOTAL_MEMORY_GIB=8\nPYPNM_SERVE_WORKERS={workers}\n\
         PYPNM_SERVE_LIMIT_MAX_REQUESTS={limit}\n"
    )
}

/// The state, and the beginning of the text.
fn judged(facts: &ProcessFacts) -> (State, Option<Topic>) {
    judged_with(facts, None)
}

fn judged_with(facts: &ProcessFacts, passed_on: Option<Numbers>) -> (State, Option<Topic>) {
    let verdict = verdict(facts, passed_on);
    (verdict.state(), verdict.findings.first().map(|finding| finding.topic))
}

const SERVE: [&str; 2] = ["/opt/pypnm/bin/pypnm", "serve"];
const UVICORN: [&str; 4] = ["python", "-m", "uvicorn", "pypnm.api.main:app"];

#[test]
fn what_exec_gave_it_fits() {
    let of_exec = |workers, limit| exec_profile::text(&profile(workers, limit), [].into_iter());
    let variables = [("UVICORN_WORKERS", "2"), ("UVICORN_LIMIT_MAX_REQUESTS", "1000")];
    for words in [SERVE.as_slice(), UVICORN.as_slice()] {
        assert_eq!(judged(&facts(words, &variables, Some(&of_exec(2, 1000)), 2)), (State::Ok, None));
    }
    let fewer = judged(&facts(&SERVE, &variables, Some(&of_exec(2, 1000)), 1));
    assert_eq!(fewer, (State::Warning, Some(Topic::WorkersMissing)));
    // Its limits were lowered after it was started.
    let stale = judged(&facts(&SERVE, &variables, Some(&of_exec(4, 2000)), 4));
    assert_eq!(stale, (State::Warning, Some(Topic::MachineChanged)));
}

#[test]
fn manual_settings_are_ok() {
    let by_hand = [("PYPNM_SERVE_WORKERS", "WEB_CONCURRENCY")];
    let of_exec = exec_profile::text(&profile(3, 1000), by_hand.into_iter());
    let by_hand = (State::Ok, Some(Topic::Override));
    assert_eq!(judged(&facts(&SERVE, &[], Some(&of_exec), 3)), by_hand);
    assert_eq!(judged(&facts(&SERVE, &[], Some(&profile(3, 1000)), 3)), by_hand, "the operator's file");
    let flags = [SERVE.as_slice(), &["--workers", "3", "--limit-max-requests", "1000"]].concat();
    assert_eq!(judged(&facts(&flags, &[], None, 3)), by_hand);
    let variables = [("WEB_CONCURRENCY", "3"), ("UVICORN_LIMIT_MAX_REQUESTS", "1000")];
    assert_eq!(judged(&facts(&UVICORN, &variables, None, 3)), by_hand);
}

#[test]
fn numbers_from_env_are_not_set_by_hand() {
    let by_variable = [("PYPNM_SERVE_WORKERS", WORKERS), (LIMIT_MAX_REQUESTS, LIMIT_MAX_REQUESTS)];
    let of_exec = exec_profile::text(&profile(4, 2000), by_variable.into_iter());
    let facts = facts(&SERVE, &[], Some(&of_exec), 4);
    let passed_on = |workers, limit_max_requests| Some(Numbers { workers, limit_max_requests });
    let stale = (State::Warning, Some(Topic::MachineChanged));
    assert_eq!(judged_with(&facts, passed_on(4, 2000)), stale);
    assert_eq!(judged_with(&facts, passed_on(3, 2000)), (State::Warning, Some(Topic::Override)), "4 are");
    assert_eq!(judged_with(&facts, None), (State::Ok, Some(Topic::Override)));
}

#[test]
fn the_image_as_it_is_does_not_fit() {
    let found = judged(&facts(&UVICORN, &[], None, 1));
    assert_eq!(found, (State::Warning, Some(Topic::NotRead)));
    assert_eq!(judged(&facts(&SERVE, &[], None, 4)), (State::Warning, Some(Topic::NotRead)));
}

#[test]
fn a_hidden_environment_is_unknown() {
    let mut hidden = facts(&UVICORN, &[], None, 2);
    hidden.running.environment = None;
    assert_eq!(judged(&hidden), (State::Unknown, Some(Topic::Hidden)));
}
