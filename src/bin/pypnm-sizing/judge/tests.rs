//! Verdicts on constructed facts. tests/e2e/cases/helper.py tests the same states on a running systemd.

use std::collections::BTreeMap;
use std::time::Duration;

use pypnm_sizing::overrides::{Effect, Override, Overrides, Stage};
use pypnm_sizing::problem::{Problem, ProblemKind, Source};
use pypnm_sizing::pypnm::{self, Numbers};
use pypnm_sizing::root::ReadError;

use super::facts::{Expected, Facts, InForce, mistakes};
use super::live::Live;
use super::topic::{State, Topic};
use super::verdict::{self, Verdict};
use crate::service::generated;
use crate::service::generator::Generator;
use crate::service::in_use::Origin;
use crate::service::pypnm::LostProgram;
use crate::service::running::Running;
use crate::service::systemctl::LoadedUnit;

const UNIT: &str = "pypnm.service";
const FILE: &str = "/run/pypnm-sizing/pypnm.service.env";

fn numbers(workers: i64, limit_max_requests: i64) -> Numbers {
    Numbers { workers, limit_max_requests }
}

fn profile_of(numbers: Numbers, cpus: u64, gib: &str) -> BTreeMap<String, String> {
    let (workers, limit) = (numbers.workers.to_string(), numbers.limit_max_requests.to_string());
    [
        (pypnm::CPU_COUNT, cpus.to_string()),
        (pypnm::TOTAL_MEMORY_GIB, gib.to_owned()),
        (pypnm::WORKERS, workers.clone()),
        (pypnm::LIMIT_MAX_REQUESTS, limit.clone()),
        ("UVICORN_WORKERS", workers),
        ("UVICORN_LIMIT_MAX_REQUESTS", limit),
        (pypnm::ENV_FILE, FILE.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn file_of(environment: &BTreeMap<String, String>) -> String {
    pypnm::PROFILE_KEYS.iter().filter_map(|key| Some(format!("{key}={}\n", environment.get(*key)?))).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A healthy service with 4 CPUs and 7.77 GiB.
fn well() -> Facts {
    let environment = profile_of(numbers(2, 2000), 4, "7.77");
    Facts {
        unit: UNIT.to_owned(),
        expected: Ok(Expected {
            numbers: numbers(2, 2000),
            cpus: 4,
            gib: "7.77".to_owned(),
            memory: 8_343_000_000,
            set_by_hand: Vec::new(),
            overrides: Overrides::default(),
            default: numbers(2, 1000),
        }),
        in_force: None,
        drop_in: generated::path(UNIT),
        generated: Some(environment.clone()),
        generator: Generator::Installed,
        loaded: LoadedUnit {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            drop_ins: vec![generated::path(UNIT)],
            environment: environment.clone(),
            exec_start_pre: vec!["/usr/bin/pypnm-sizing env".to_owned()],
            exec_start: vec!["/opt/pypnm/bin/pypnm serve --port 8000".to_owned()],
            ..LoadedUnit::default()
        },
        rival: None,
        generator_has_run: true,
        now: Duration::from_secs(1000),
        was_restarted_meanwhile: false,
        failed_requirement: None,
        mistakes: Vec::new(),
        hidden_configuration: None,
        other_units: Vec::new(),
        other_process: None,
        was_reloaded_since_profile: false,
        changed_since_start: None,
        lost_program: Vec::new(),
        setup: None,
        hidden_files: Vec::new(),
        foreign_file: None,
        contained: None,
        live: Live::Running(Running {
            workers: 2,
            is_single: false,
            arguments: words("/opt/pypnm/bin/python /opt/pypnm/bin/pypnm serve --port 8000"),
            file: Some((FILE.to_owned(), Ok(file_of(&environment)))),
            environment: Some(environment),
            active: Some(numbers(2, 2000)),
            file_has_changed: false,
        }),
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Verdict {
    let mut facts = well();
    change(&mut facts);
    verdict::verdict(&facts, false)
}

fn expected(facts: &mut Facts) -> &mut Expected {
    facts.expected.as_mut().unwrap_or_else(|why| panic!("{why}"))
}

fn running(facts: &mut Facts) -> &mut Running {
    match &mut facts.live {
        Live::Running(running) => running,
        other => panic!("{other:?}"),
    }
}

/// The state, the topics of the findings, and whether a restart is needed.
fn found(verdict: &Verdict) -> (State, Vec<Topic>, bool) {
    let topics = verdict.findings.iter().map(|finding| finding.topic).collect();
    (verdict.state(), topics, verdict.needs_restart)
}

fn set(key: &'static str, value: &str, file: &'static str) -> Override {
    let value = value.to_owned();
    let (stage, effect) = if key.starts_with("--") {
        (Stage::Command, Effect::Flag { flag: key, value })
    } else {
        (Stage::Settings, Effect::Variable { key, value })
    };
    Override { source: Source::key(file, 2, "Environment"), stage, effect }
}

#[test]
fn everything_fits() {
    let verdict = with(|_| {});
    assert_eq!(found(&verdict), (State::Ok, vec![], false));
    assert_eq!(verdict.in_use.map(|used| used.origin), Some(Origin::Pypnm));
    // What an unprivileged user sees.
    let verdict = with(|facts| {
        running(facts).environment = None;
        running(facts).active = None;
    });
    assert_eq!(found(&verdict), (State::Ok, vec![], false));
    assert_eq!(verdict.in_use.map(|used| used.origin), Some(Origin::File));
}

#[test]
fn the_machine_changed() {
    let grown = |facts: &mut Facts| {
        let expected = expected(facts);
        (expected.numbers, expected.cpus, expected.gib) = (numbers(4, 2000), 4, "15.63".to_owned());
    };
    let verdict = with(grown);
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::MachineChanged, Topic::NotRestarted], true));
    assert_eq!(verdict.leading().and_then(|finding| finding.fix.as_deref()), Some("pypnm-sizing apply"));
    // Reloaded since then, so only a restart is needed.
    let verdict = with(|facts| {
        grown(facts);
        let environment = profile_of(numbers(4, 2000), 4, "15.63");
        facts.loaded.environment.clone_from(&environment);
        facts.generated = Some(environment);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
    // More memory with the same profile, and a difference that is too small to report.
    let verdict = with(|facts| "9.1".clone_into(&mut expected(facts).gib));
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::MachineChanged], false));
    let verdict = with(|facts| "7.9".clone_into(&mut expected(facts).gib));
    assert_eq!(found(&verdict), (State::Ok, vec![], false));
}

#[test]
fn overrides_of_the_operator() {
    // In a drop-in that is loaded, and in one that is not loaded yet.
    let in_a_drop_in = |facts: &mut Facts| {
        expected(facts).overrides.list = vec![set(pypnm::WORKERS, "3", "/etc/o.conf")];
    };
    let verdict = with(|facts| {
        in_a_drop_in(facts);
        facts.loaded.environment.insert(pypnm::WORKERS.to_owned(), "3".to_owned());
        running(facts).active = Some(numbers(3, 2000));
        running(facts).workers = 3;
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::Override], false));
    let verdict = with(in_a_drop_in);
    let topics = vec![Topic::Override, Topic::ConfigurationChanged, Topic::NotRestarted];
    assert_eq!(found(&verdict), (State::Warning, topics, true));
    // In an environment file, which systemd reads at the next start without a reload.
    let verdict = with(|facts| {
        expected(facts).overrides.list = vec![set(pypnm::WORKERS, "3", "/etc/x.env")];
        facts.loaded.environment_files = vec!["/etc/x.env".to_owned()];
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::Override, Topic::NotRestarted], true));
    // A value that would crash PyPNM is replaced and reported.
    let verdict = with(|facts| {
        expected(facts).overrides.list = vec![set(pypnm::WORKERS, "0", "/etc/o.conf")];
        facts.loaded.environment.insert(pypnm::WORKERS.to_owned(), "0".to_owned());
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::Override], false));
    assert!(verdict.findings.iter().any(|finding| finding.text.contains("the sized value is used")));
    // In a wrapper script, so only the command line of the process shows it.
    let verdict = with(|facts| {
        facts.loaded.exec_start = vec!["/usr/local/bin/start.sh".to_owned()];
        running(facts).arguments = words("python pypnm serve --workers 1 --limit-max-requests 2000");
        running(facts).active = None;
        running(facts).workers = 1;
        running(facts).is_single = true;
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::Override], false));
    // The wrapper has changed since, so the next start may be without it.
    let verdict = with(|facts| {
        facts.loaded.exec_start = vec!["/usr/local/bin/start.sh".to_owned()];
        facts.changed_since_start = Some("/usr/local/bin/start.sh".to_owned());
        running(facts).arguments = words("python pypnm serve --workers 1 --limit-max-requests 2000");
        (running(facts).workers, running(facts).is_single) = (1, true);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
    // An environment file that the caller is not permitted to read.
    let verdict = with(|facts| {
        facts.hidden_files = vec!["/root/x.env".to_owned()];
        running(facts).active = Some(numbers(3, 2000));
        running(facts).workers = 3;
    });
    assert_eq!(found(&verdict).0, State::Unknown);
}

#[test]
fn flags_of_a_wrapper_are_of_the_profile_it_was_started_with() {
    let verdict = with(|facts| {
        expected(facts).numbers = numbers(4, 2000);
        let environment = profile_of(numbers(4, 2000), 4, "7.77");
        facts.loaded.environment.clone_from(&environment);
        facts.generated = Some(environment);
        running(facts).arguments = words("python pypnm serve --workers 2 --limit-max-requests 2000");
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
}

#[test]
fn drop_in_not_in_effect() {
    let without = |facts: &mut Facts| {
        facts.generated = None;
        facts.loaded.drop_ins.clear();
    };
    for (verdict, topic) in [
        (with(|facts| facts.rival = Some(("/etc/m.conf".to_owned(), false))), Topic::DropInMasked),
        (with(|facts| facts.rival = Some(("/etc/m.conf".to_owned(), true))), Topic::DropInReplaced),
        (
            with(|facts| {
                without(facts);
                facts.generator = Generator::Masked("/etc/g".to_owned());
            }),
            Topic::GeneratorMasked,
        ),
        (
            with(|facts| {
                without(facts);
                facts.generator = Generator::Missing;
            }),
            Topic::GeneratorMissing,
        ),
        (with(without), Topic::NotGenerated),
    ] {
        assert_eq!(found(&verdict), (State::Warning, vec![topic, Topic::SizesItself], false), "{topic:?}");
        assert!(verdict.leading().is_some_and(|finding| finding.fix.is_some()), "{topic:?}");
    }
    // Masked since the last reload: what is loaded is still ours.
    let verdict = with(|facts| facts.generator = Generator::Masked("/etc/g".to_owned()));
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::GeneratorMasked], false));
    let verdict = with(|facts| facts.expected = Err("turned off".to_owned()));
    assert_eq!(found(&verdict).0, State::Warning, "turned off since the last reload");
    let verdict = with(|facts| {
        without(facts);
        facts.expected = Err("turned off".to_owned());
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::TurnedOff], false));
}

#[test]
fn not_read() {
    let itself = |facts: &mut Facts| running(facts).active = Some(numbers(2, 1000));
    let verdict = with(|facts| {
        itself(facts);
        running(facts).file = Some((FILE.to_owned(), Err(ReadError::Missing)));
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], true));
    let verdict = with(|facts| {
        itself(facts);
        running(facts).environment = Some(BTreeMap::new());
        running(facts).file = None;
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], true), "started before it was sized");
    // A restart would not fix this.
    let verdict = with(|facts| facts.loaded.exec_start_pre.clear());
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], false));
    let verdict = with(|facts| drop(facts.loaded.environment.remove(pypnm::ENV_FILE)));
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], false));
    let verdict = with(|facts| {
        facts.foreign_file = Some(("/etc/x".to_owned(), Ok("PYPNM_SERVE_WORKERS=2.0\n".to_owned())));
    });
    assert!(verdict.leading().is_some_and(|finding| finding.text.contains("cannot start")));
    // The same if the command empties its own environment, regardless of what systemd has loaded.
    let verdict = with(|facts| {
        itself(facts);
        running(facts).environment = Some(BTreeMap::new());
        running(facts).file = None;
        if let Ok(expected) = &mut facts.expected {
            let source = Source::key("/etc/systemd/system/pypnm.service", 2, "ExecStart");
            let effect = Effect::Withheld;
            expected.overrides.list.push(Override { source, stage: Stage::Command, effect });
        }
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], false));
    assert!(verdict.leading().is_some_and(|finding| finding.text.contains("does not pass")));
    // PyPNM before 1.6: a single process, regardless of the file.
    let verdict = with(|facts| {
        running(facts).active = None;
        (running(facts).is_single, running(facts).workers) = (true, 1);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRead], false));
}

#[test]
fn workers_that_are_alive() {
    let verdict = with(|facts| running(facts).workers = 1);
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::WorkersMissing], false));
    let verdict = with(|facts| facts.live = Live::Hidden);
    assert_eq!(found(&verdict), (State::Unknown, vec![Topic::Hidden], false));
    // It may contain any setting, such as Workers=1.
    let verdict = with(|facts| {
        expected(facts).numbers = numbers(1, 1000);
        facts.hidden_configuration = Some("/etc/pypnm/sizing.conf".to_owned());
    });
    assert_eq!(found(&verdict), (State::Unknown, vec![Topic::Hidden], false));
}

#[test]
fn a_unit_that_starts_uvicorn() {
    let uvicorn = |facts: &mut Facts| {
        running(facts).arguments = words("/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app");
        (running(facts).file, running(facts).active) = (None, None);
    };
    assert_eq!(found(&with(uvicorn)), (State::Ok, vec![], false));
    // Its environment is hidden from other users, but its workers can be counted.
    let verdict = with(|facts| {
        uvicorn(facts);
        running(facts).environment = None;
    });
    assert_eq!(found(&verdict), (State::Ok, vec![], false));
    let verdict = with(|facts| {
        uvicorn(facts);
        running(facts).environment = None;
        running(facts).workers = 4;
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
}

/// The operator's `WEB_CONCURRENCY` determines the workers, because the drop-in then omits its own variable.
#[test]
fn concurrency_of_uvicorn() {
    let file = "/etc/systemd/system/pypnm.service.d/override.conf";
    let concurrent = |facts: &mut Facts| {
        let running = running(facts);
        running.arguments = words("/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app");
        (running.file, running.active, running.workers) = (None, None, 3);
        let mut environment = profile_of(numbers(2, 2000), 4, "7.77");
        environment.remove("UVICORN_WORKERS");
        environment.insert("WEB_CONCURRENCY".to_owned(), "3".to_owned());
        running.environment = Some(environment.clone());
        facts.loaded.environment = environment;
        expected(facts).overrides.list = vec![set("WEB_CONCURRENCY", "3", file)];
    };
    assert_eq!(found(&with(concurrent)), (State::Ok, vec![Topic::Override], false));
    // Added, and not reloaded yet.
    let verdict = with(|facts| {
        let before = facts.loaded.environment.clone();
        concurrent(facts);
        facts.loaded.environment = before;
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::Override, Topic::ConfigurationChanged], false));
    // Removed, and not reloaded yet.
    let verdict = with(|facts| {
        concurrent(facts);
        expected(facts).overrides.list.clear();
    });
    assert_eq!(
        found(&verdict),
        (State::Warning, vec![Topic::ConfigurationChanged, Topic::NotRestarted], true)
    );
    // In a file that uvicorn reads itself, which systemd does not load.
    let in_a_file = |facts: &mut Facts| {
        concurrent(facts);
        facts.loaded.environment.remove("WEB_CONCURRENCY");
        expected(facts).overrides.list = vec![set("WEB_CONCURRENCY", "3", "/etc/app.env")];
    };
    assert_eq!(found(&with(in_a_file)), (State::Ok, vec![Topic::Override], false));
    // Taken out of it: until a reload, nothing sets the workers.
    let verdict = with(|facts| {
        in_a_file(facts);
        expected(facts).overrides.list.clear();
    });
    assert_eq!(
        found(&verdict),
        (State::Warning, vec![Topic::ConfigurationChanged, Topic::NotRestarted], true)
    );
}

/// Without the variable of the drop-in, uvicorn starts one worker.
#[test]
fn variables_of_uvicorn_that_are_removed() {
    let removed_by = |stage, is_loaded: bool| {
        with(|facts| {
            let running = running(facts);
            running.arguments = words("/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app");
            (running.file, running.active) = (None, None);
            (running.workers, running.is_single) = (1, true);
            if let Some(environment) = &mut running.environment {
                environment.remove("UVICORN_WORKERS");
            }
            if !is_loaded {
                facts.loaded.environment.remove("UVICORN_WORKERS");
            }
            let source = Source::key("/etc/o.conf", 2, "");
            let effect = Effect::Unset { key: "UVICORN_WORKERS" };
            expected(facts).overrides.list = vec![Override { source, stage, effect }];
        })
    };
    for verdict in [
        removed_by(Stage::UnsetEnvironment, true),
        removed_by(Stage::Command, true),
        removed_by(Stage::Settings, false),
    ] {
        assert_eq!(found(&verdict).0, State::Ok, "{:?}", verdict.findings);
        assert_eq!(verdict.next_start.map(|numbers| numbers.workers), Some(1));
    }
}

fn inactive(facts: &mut Facts, active: &str, sub: &str, result: &str) {
    facts.live = Live::Inactive;
    active.clone_into(&mut facts.loaded.active);
    sub.clone_into(&mut facts.loaded.sub);
    result.clone_into(&mut facts.loaded.result);
}

#[test]
fn a_service_that_is_not_running() {
    let verdict = with(|facts| inactive(facts, "inactive", "dead", "success"));
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::NotRunning], false));
    let mut facts = well();
    inactive(&mut facts, "inactive", "dead", "success");
    assert_eq!(verdict::verdict(&facts, true).state(), State::Critical, "--must-run");
    let verdict = with(|facts| inactive(facts, "failed", "failed", "exit-code"));
    assert_eq!(found(&verdict), (State::Critical, vec![Topic::Failed], false));
    let verdict = with(|facts| {
        inactive(facts, "inactive", "dead", "success");
        facts.loaded.conditions_met = Some(false);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::ConditionFailed], false));
    let verdict = with(|facts| {
        inactive(facts, "inactive", "dead", "success");
        "not-found".clone_into(&mut facts.loaded.load);
        facts.other_units = vec!["pypnm-api.service".to_owned()];
    });
    assert_eq!(found(&verdict), (State::Critical, vec![Topic::UnitMissing, Topic::OtherUnit], false));
    assert!(verdict.findings.iter().any(|finding| finding.text.contains("Units=pypnm-api.service")));
    let verdict = with(|facts| "masked".clone_into(&mut facts.loaded.load));
    assert_eq!(found(&verdict), (State::Unknown, vec![Topic::UnitMasked], false));
}

#[test]
fn stopped_or_exited() {
    let ended = |code, status, main_exited| {
        with(|facts| {
            inactive(facts, "inactive", "dead", "success");
            facts.loaded.main_ended = (code, status);
            (facts.loaded.active_exited, facts.loaded.main_exited) = (2000, main_exited);
        })
    };
    let exited = (State::Critical, vec![Topic::Failed], false);
    let stopped = (State::Ok, vec![Topic::NotRunning], false);
    // At its recycle limit, and by SIGHUP.
    assert_eq!(found(&ended(1, 0, 1999)), exited);
    assert_eq!(found(&ended(2, 1, 1999)), exited);
    // By systemctl stop: it exits with status 0, or is killed by the signal.
    assert_eq!(found(&ended(1, 0, 2001)), stopped);
    assert_eq!(found(&ended(2, 15, 2001)), stopped);
    // It failed, and an operator has reset that state.
    assert_eq!(found(&ended(1, 3, 1999)), stopped);
    assert_eq!(found(&ended(2, 9, 1999)), stopped);
    assert_eq!(found(&ended(1, 0, 0)), stopped, "another start failed before its main process");
}

#[test]
fn enabled_and_not_started() {
    let never = |change: &dyn Fn(&mut Facts)| {
        with(|facts| {
            inactive(facts, "inactive", "dead", "success");
            "enabled".clone_into(&mut facts.loaded.file_state);
            change(facts);
        })
    };
    assert_eq!(found(&never(&|_| {})), (State::Warning, vec![Topic::NotRunning], false));
    let critical = (State::Critical, vec![Topic::NotRunning], false);
    let required = never(&|facts| facts.failed_requirement = Some("network.target".to_owned()));
    assert_eq!(found(&required), critical);
    assert!(
        required
            .leading()
            .is_some_and(|finding| finding.text.ends_with(": network.target, which it requires, has failed"))
    );
    assert_eq!(found(&never(&|facts| facts.loaded.assertion_failed = true)), critical);
    let stopped = (State::Ok, vec![Topic::NotRunning], false);
    assert_eq!(found(&never(&|facts| "disabled".clone_into(&mut facts.loaded.file_state))), stopped);
    assert_eq!(found(&never(&|facts| facts.loaded.inactive_exited = 1)), stopped);
    assert_eq!(found(&never(&|facts| facts.loaded.has_job = true)), stopped);
    assert_eq!(found(&never(&|facts| facts.loaded.conditions_met = Some(false))).1, [Topic::ConditionFailed]);
}

#[test]
fn stopping_and_without_a_process() {
    let verdict = with(|facts| inactive(facts, "deactivating", "stop-sigterm", "success"));
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::NotRunning], false));
    let verdict = with(|facts| inactive(facts, "deactivating", "stop-post", "exit-code"));
    assert_eq!(found(&verdict), (State::Critical, vec![Topic::Failed], false));
    let verdict = with(|facts| inactive(facts, "active", "exited", "success"));
    assert_eq!(found(&verdict), (State::Critical, vec![Topic::NotRunning], false));
    // Like a unit that starts containers.
    let oneshot = |facts: &mut Facts| {
        inactive(facts, "active", "exited", "success");
        "oneshot".clone_into(&mut facts.loaded.service_type);
    };
    assert_eq!(found(&with(oneshot)), (State::Unknown, vec![Topic::NotRunning], false));
    let mut facts = well();
    oneshot(&mut facts);
    assert_eq!(verdict::verdict(&facts, true).state(), State::Critical, "--must-run");
}

/// Between two crashes, the service is active.
#[test]
fn a_service_that_was_restarted_meanwhile() {
    let verdict = with(|facts| facts.was_restarted_meanwhile = true);
    assert_eq!(found(&verdict), (State::Critical, vec![Topic::Looping], false));
    let unsettled = |restarts, seconds: u64, meanwhile| {
        let mut facts = well();
        facts.loaded.automatic_restarts = restarts;
        facts.loaded.main_started = 1_000_000_000 - seconds * 1_000_000;
        facts.was_restarted_meanwhile = meanwhile;
        facts.is_unsettled()
    };
    assert!(unsettled(1, 1, false));
    assert!(!unsettled(0, 1, false) && !unsettled(2, 5, false) && !unsettled(2, 1, true));
    let starting = |sub: &str| {
        let mut facts = well();
        inactive(&mut facts, "activating", sub, "success");
        (facts.loaded.automatic_restarts, facts.loaded.state_changed) = (1, 999_000_000);
        facts
    };
    assert!(starting("start-pre").is_unsettled() && !starting("auto-restart").is_unsettled());
    let mut facts = starting("start-pre");
    facts.was_restarted_meanwhile = true;
    assert_eq!(found(&verdict::verdict(&facts, false)), (State::Critical, vec![Topic::Looping], false));
}

#[test]
fn a_crash_loop_is_not_recycling() {
    let minute = 60_000_000;
    // A single worker at its recycle limit, after an hour.
    let recycled = |facts: &mut Facts| {
        inactive(facts, "activating", "auto-restart", "success");
        (facts.loaded.main_started, facts.loaded.main_exited) = (minute, 15 * minute);
        (facts.loaded.active_entered, facts.loaded.active_exited) = (minute, 15 * minute);
        facts.loaded.automatic_restarts = 7;
        facts.now = Duration::from_secs(15 * 60 + 1);
    };
    assert_eq!(found(&with(recycled)), (State::Ok, vec![Topic::Starting], false));
    let starts_again = |facts: &mut Facts| {
        recycled(facts);
        "start-post".clone_into(&mut facts.loaded.sub);
        facts.now = Duration::from_secs(15 * 60 + 8);
    };
    assert_eq!(found(&with(starts_again)), (State::Ok, vec![Topic::Starting], false));
    let looping = (State::Critical, vec![Topic::Looping], false);
    let verdict = with(|facts| {
        recycled(facts);
        "exit-code".clone_into(&mut facts.loaded.result);
    });
    assert_eq!(found(&verdict), looping);
    let verdict = with(|facts| {
        recycled(facts);
        facts.loaded.main_exited = minute + 1_000_000;
    });
    assert_eq!(found(&verdict), looping, "a second after its start");
    let verdict = with(|facts| {
        starts_again(facts);
        facts.now = Duration::from_mins(20);
    });
    assert_eq!(found(&verdict), looping, "five minutes without having been active");
}

/// `--workers 3` was in the environment file when the service was started, and has been taken out since.
#[test]
fn a_flag_of_the_running_process_is_not_a_setting() {
    let verdict = with(|facts| {
        facts.loaded.exec_start = vec!["/usr/bin/env pypnm serve --port 8000 $PYPNM_OPTIONS".to_owned()];
        running(facts).arguments = words("python pypnm serve --port 8000 --workers 3");
        running(facts).workers = 3;
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
}

#[test]
fn mistakes_in_the_configuration_are_a_warning() {
    let verdict = with(|facts| facts.mistakes = vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::ConfigurationIgnored], false));
    assert_eq!(verdict.leading().map(|finding| finding.text.as_str()), Some("a (and 1 more mistake)"));
}

/// Regardless of the names of their files: this one is not that of the configuration.
#[test]
fn mistakes_are_problems_with_the_configuration() {
    let source = || Source::file("/srv/pypnm/sizing.conf");
    let other = Problem::new(source(), ProblemKind::Absent, "it is skipped");
    assert_eq!(mistakes(std::slice::from_ref(&other)), [""; 0]);
    assert_eq!(mistakes(&[other.in_configuration()]), ["/srv/pypnm/sizing.conf: missing; it is skipped"]);
}

#[test]
fn one_cpu_is_singular() {
    let verdict = with(|facts| expected(facts).cpus = 1);
    let text = verdict.findings.first().map(|finding| finding.text.as_str()).unwrap_or_default();
    assert!(text.starts_with("it may use 1 CPU, 7.77 GiB now; at the last reload: 4 CPUs, "), "{text}");
}

#[test]
fn a_unit_that_was_just_added() {
    let without = |facts: &mut Facts, has_run| {
        facts.generated = None;
        facts.loaded.drop_ins.clear();
        facts.generator_has_run = has_run;
    };
    let text = |verdict: &Verdict| verdict.leading().map(|finding| finding.text.clone()).unwrap_or_default();
    assert!(text(&with(|facts| without(facts, true))).contains("added to Units=, or its sizing was enabled"));
    assert!(text(&with(|facts| without(facts, false))).contains("since it was installed"));
}

/// The operator's own profile file has been edited since the service read it.
#[test]
fn the_current_profile_file_is_not_what_the_process_read() {
    let verdict = with(|facts| {
        let text = file_of(&profile_of(numbers(3, 500), 4, "7.77"));
        facts.foreign_file = Some(("/etc/own.env".to_owned(), Ok(text.clone())));
        let running = running(facts);
        running.file = Some(("/etc/own.env".to_owned(), Ok(text)));
        (running.active, running.file_has_changed) = (None, true);
        (running.workers, running.is_single) = (1, true);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::Override, Topic::NotRestarted], true));
    assert_eq!(verdict.in_use.map(|used| (used.workers, used.origin)), Some((Some(1), Origin::Unknown)));
}

/// A reload during the start: the profile file is from before it, the environment from after it.
#[test]
fn a_profile_file_from_before_a_reload_during_the_start() {
    let verdict = with(|facts| {
        facts.was_reloaded_since_profile = true;
        let environment = profile_of(numbers(1, 1000), 2, "3.5");
        let running = running(facts);
        running.file = Some((FILE.to_owned(), Ok(file_of(&environment))));
        (running.active, running.workers, running.is_single) = (Some(numbers(1, 1000)), 1, true);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
}

fn in_one_worker(facts: &mut Facts) {
    facts.in_force = Some(InForce { numbers: numbers(1, 1000), why: "2 GiB by memory.max".to_owned() });
}

#[test]
fn numbers_lowered_at_the_start_are_no_drift() {
    let verdict = with(|facts| {
        in_one_worker(facts);
        let mut environment = profile_of(numbers(2, 2000), 4, "7.77");
        let running = running(facts);
        running.environment = Some(environment.clone());
        environment.extend(profile_of(numbers(1, 1000), 4, "2.0"));
        running.file = Some((FILE.to_owned(), Ok(file_of(&environment))));
        running.active = None;
        (running.workers, running.is_single) = (1, true);
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::LimitsInForce], false));
    assert_eq!(verdict.next_start, Some(numbers(1, 1000)));
}

#[test]
fn tighter_limits_in_force_are_a_warning() {
    let verdict = with(in_one_worker);
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::LimitsInForce, Topic::NotRestarted], true));
    let stopped = with(|facts| {
        in_one_worker(facts);
        facts.loaded.active = "inactive".to_owned();
        facts.live = Live::Inactive;
    });
    assert_eq!(found(&stopped).0, State::Warning);
    let uvicorn = with(|facts| {
        in_one_worker(facts);
        running(facts).arguments = words("python -m uvicorn pypnm.api.main:app");
    });
    assert_eq!(found(&uvicorn), (State::Warning, vec![Topic::LimitsInForce], false));
}

#[test]
fn the_operators_number_stays_in_tighter_limits() {
    let verdict = with(|facts| {
        in_one_worker(facts);
        let file = "/etc/systemd/system/pypnm.service.d/override.conf";
        let list =
            vec![set("PYPNM_SERVE_WORKERS", "2", file), set("PYPNM_SERVE_LIMIT_MAX_REQUESTS", "2000", file)];
        expected(facts).overrides.list = list;
    });
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::Override, Topic::Override], false));
}

/// `env --write` found tighter limits at the start than the generator did, such as huge pages.
#[test]
fn numbers_lowered_at_the_start_are_ok_until_the_next_reload() {
    let lowered = |facts: &mut Facts| {
        let environment = profile_of(numbers(1, 1000), 2, "3.5");
        running(facts).file = Some((FILE.to_owned(), Ok(file_of(&environment))));
        (running(facts).active, running(facts).workers) = (Some(numbers(1, 1000)), 1);
        running(facts).is_single = true;
    };
    let verdict = with(lowered);
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::MachineChanged], false));
    // Reloaded since then with other numbers: the running profile is from before that.
    let verdict = with(|facts| {
        lowered(facts);
        let environment = profile_of(numbers(4, 2000), 4, "7.77");
        facts.loaded.environment.clone_from(&environment);
        facts.generated = Some(environment);
        expected(facts).numbers = numbers(4, 2000);
    });
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::NotRestarted], true));
}

/// A program that systemd does not find prevents the next start. It is the leading finding if the service has failed.
#[test]
fn a_program_that_is_not_found() {
    let lost = |is_harmful| vec![LostProgram { text: "ExecStart=pypnm".to_owned(), is_harmful }];
    let verdict = with(|facts| facts.lost_program = lost(true));
    assert_eq!(found(&verdict), (State::Warning, vec![Topic::ProgramPath], false));
    let verdict = with(|facts| facts.lost_program = lost(false));
    assert_eq!(found(&verdict), (State::Ok, vec![Topic::ProgramPath], false));
    let failed = with(|facts| {
        facts.lost_program = lost(true);
        facts.live = Live::Inactive;
        "failed".clone_into(&mut facts.loaded.active);
    });
    assert_eq!(found(&failed), (State::Critical, vec![Topic::ProgramPath, Topic::Failed], false));
    assert_eq!(failed.leading().map(|finding| finding.topic), Some(Topic::ProgramPath));
    let not_loaded = with(|facts| {
        facts.lost_program = lost(true);
        facts.live = Live::Inactive;
        "bad-setting".clone_into(&mut facts.loaded.load);
    });
    assert_eq!(found(&not_loaded), (State::Critical, vec![Topic::ProgramPath, Topic::UnitMissing], false));
}

/// If the unit does not find a PyPNM that is installed elsewhere, the fix is the `setup` command for it.
#[test]
fn a_condition_failed_and_pypnm_is_elsewhere() {
    let verdict = with(|facts| {
        facts.setup = Some("pypnm-sizing setup /home/op/PyPNM".to_owned());
        facts.live = Live::Inactive;
        "inactive".clone_into(&mut facts.loaded.active);
        facts.loaded.conditions_met = Some(false);
    });
    let fix = verdict.findings.first().and_then(|finding| finding.fix.as_deref());
    assert_eq!(fix, Some("pypnm-sizing setup /home/op/PyPNM"));
}
