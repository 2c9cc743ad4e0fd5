//! The verdict on made-up facts; the same states on a running systemd: tests/e2e/cases/helper.py.

use std::collections::BTreeMap;

use pypnm_sizing::overrides::{Effect, Override, Overrides};
use pypnm_sizing::problem::Source;
use pypnm_sizing::pypnm::{self, Numbers};

use super::verdict::{By, Facts, Generator, Live, Running, Sized, Status, Verdict, verdict};
use crate::service::generated::{self, Generated};
use crate::service::systemctl::Loaded;

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
    pypnm::KEYS.iter().filter_map(|key| Some(format!("{key}={}\n", environment.get(*key)?))).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A service on 4 CPUs and 7.77 GiB with which all is well.
fn well() -> Facts {
    let environment = profile_of(numbers(2, 2000), 4, "7.77");
    Facts {
        unit: UNIT.to_owned(),
        sized: Ok(Sized {
            numbers: numbers(2, 2000),
            cpus: 4,
            gib: "7.77".to_owned(),
            by_hand: Vec::new(),
            overrides: Overrides::default(),
            own: numbers(2, 1000),
        }),
        drop_in: generated::path(UNIT),
        generated: Some(Generated { environment: environment.clone() }),
        generator: Generator::Installed,
        loaded: Loaded {
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            drop_ins: vec![generated::path(UNIT)],
            environment: environment.clone(),
            exec_start_pre: "{ path=/usr/bin/pypnm-sizing ; argv[]=/usr/bin/pypnm-sizing env".to_owned(),
            exec_start: "{ path=/opt/pypnm/bin/pypnm ; argv[]=pypnm serve --port 8000 ;".to_owned(),
            ..Loaded::default()
        },
        rival: None,
        hidden_files: Vec::new(),
        foreign_file: None,
        live: Live::Is(Running {
            workers: 2,
            alone: false,
            arguments: words("/opt/pypnm/bin/python /opt/pypnm/bin/pypnm serve --port 8000"),
            file: Some((FILE.to_owned(), Ok(file_of(&environment)))),
            environment: Some(environment),
            active: Some(numbers(2, 2000)),
        }),
    }
}

fn with(change: impl FnOnce(&mut Facts)) -> Verdict {
    let mut facts = well();
    change(&mut facts);
    verdict(&facts)
}

fn sized(facts: &mut Facts) -> &mut Sized {
    facts.sized.as_mut().unwrap_or_else(|why| panic!("{why}"))
}

fn running(facts: &mut Facts) -> &mut Running {
    match &mut facts.live {
        Live::Is(running) => running,
        other => panic!("{other:?}"),
    }
}

/// Status, the topics found, and whether a restart is due.
fn told(verdict: &Verdict) -> (Status, Vec<&'static str>, bool) {
    let topics = verdict.findings.iter().map(|finding| finding.topic).collect();
    (verdict.status(), topics, verdict.restart_is_due)
}

fn set(key: &'static str, value: &str, file: &'static str) -> Override {
    let effect = if key.starts_with("--") {
        Effect::Flag { flag: key, value: value.to_owned() }
    } else {
        Effect::Variable { key, value: value.to_owned() }
    };
    Override { source: Source::key(file, 2, "Environment"), effect }
}

#[test]
fn all_is_well() {
    let verdict = with(|_| {});
    assert_eq!(told(&verdict), (Status::Fits, vec![], false));
    assert_eq!(verdict.in_use.map(|used| used.by), Some(By::Pypnm));
    // What an unprivileged user sees.
    let verdict = with(|facts| {
        running(facts).environment = None;
        running(facts).active = None;
    });
    assert_eq!(told(&verdict), (Status::Fits, vec![], false));
    assert_eq!(verdict.in_use.map(|used| used.by), Some(By::File));
}

#[test]
fn the_machine_changed() {
    let grown = |facts: &mut Facts| {
        let sized = sized(facts);
        (sized.numbers, sized.cpus, sized.gib) = (numbers(4, 2000), 4, "15.63".to_owned());
    };
    let verdict = with(grown);
    assert_eq!(told(&verdict), (Status::Differs, vec!["machine-changed", "not-restarted"], true));
    assert_eq!(verdict.leading().and_then(|one| one.mend.as_deref()), Some("pypnm-sizing apply"));
    // Reloaded since: only the restart is missing.
    let verdict = with(|facts| {
        grown(facts);
        let environment = profile_of(numbers(4, 2000), 4, "15.63");
        facts.loaded.environment.clone_from(&environment);
        facts.generated = Some(Generated { environment });
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-restarted"], true));
    // More memory, the same profile; and a jitter that is not worth a word.
    let verdict = with(|facts| "9.1".clone_into(&mut sized(facts).gib));
    assert_eq!(told(&verdict), (Status::Fits, vec!["machine-changed"], false));
    let verdict = with(|facts| "7.9".clone_into(&mut sized(facts).gib));
    assert_eq!(told(&verdict), (Status::Fits, vec![], false));
}

#[test]
fn the_operators_word() {
    // In a drop-in that is loaded, and in one that is not yet.
    let in_a_drop_in = |facts: &mut Facts| {
        sized(facts).overrides.list = vec![set(pypnm::WORKERS, "3", "/etc/o.conf")];
    };
    let verdict = with(|facts| {
        in_a_drop_in(facts);
        facts.loaded.environment.insert(pypnm::WORKERS.to_owned(), "3".to_owned());
        running(facts).active = Some(numbers(3, 2000));
        running(facts).workers = 3;
    });
    assert_eq!(told(&verdict), (Status::Fits, vec!["override"], false));
    let verdict = with(in_a_drop_in);
    let topics = vec!["override", "configuration-changed", "not-restarted"];
    assert_eq!(told(&verdict), (Status::Differs, topics, true));
    // In an environment file, which systemd reads at the next start without a reload.
    let verdict = with(|facts| {
        sized(facts).overrides.list = vec![set(pypnm::WORKERS, "3", "/etc/x.env")];
        facts.loaded.environment_files = vec!["/etc/x.env".to_owned()];
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["override", "not-restarted"], true));
    // A value that PyPNM can't bear is replaced, and named.
    let verdict = with(|facts| {
        sized(facts).overrides.list = vec![set(pypnm::WORKERS, "0", "/etc/o.conf")];
        facts.loaded.environment.insert(pypnm::WORKERS.to_owned(), "0".to_owned());
    });
    assert_eq!(told(&verdict), (Status::Fits, vec!["override"], false));
    assert!(verdict.findings.iter().any(|finding| finding.text.contains("the sized one is used")));
    // Written into a wrapper, where nobody but the process shows it.
    let verdict = with(|facts| {
        running(facts).arguments = words("python pypnm serve --workers 1 --limit-max-requests 2000");
        running(facts).active = None;
        running(facts).workers = 1;
        running(facts).alone = true;
    });
    assert_eq!(told(&verdict), (Status::Fits, vec!["override"], false));
    // An environment file that the caller may not read.
    let verdict = with(|facts| {
        facts.hidden_files = vec!["/root/x.env".to_owned()];
        running(facts).active = Some(numbers(3, 2000));
        running(facts).workers = 3;
    });
    assert_eq!(told(&verdict).0, Status::Unknown);
}

#[test]
fn flags_of_a_wrapper_are_of_the_profile_it_was_started_with() {
    let verdict = with(|facts| {
        sized(facts).numbers = numbers(4, 2000);
        let environment = profile_of(numbers(4, 2000), 4, "7.77");
        facts.loaded.environment.clone_from(&environment);
        facts.generated = Some(Generated { environment });
        running(facts).arguments = words("python pypnm serve --workers 2 --limit-max-requests 2000");
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-restarted"], true));
}

#[test]
fn not_in_force() {
    let without = |facts: &mut Facts| {
        facts.generated = None;
        facts.loaded.drop_ins.clear();
    };
    for (verdict, topic) in [
        (with(|facts| facts.rival = Some(("/etc/m.conf".to_owned(), false))), "drop-in-masked"),
        (with(|facts| facts.rival = Some(("/etc/m.conf".to_owned(), true))), "drop-in-replaced"),
        (
            with(|facts| {
                without(facts);
                facts.generator = Generator::Masked("/etc/g".to_owned());
            }),
            "generator-masked",
        ),
        (
            with(|facts| {
                without(facts);
                facts.generator = Generator::Missing;
            }),
            "generator-missing",
        ),
        (with(without), "not-generated"),
    ] {
        assert_eq!(told(&verdict), (Status::Differs, vec![topic, "sizes-itself"], false), "{topic}");
        assert!(verdict.leading().is_some_and(|finding| finding.mend.is_some()), "{topic}");
    }
    // Masked since the last reload: what is loaded is still ours.
    let verdict = with(|facts| facts.generator = Generator::Masked("/etc/g".to_owned()));
    assert_eq!(told(&verdict), (Status::Differs, vec!["generator-masked"], false));
    let verdict = with(|facts| facts.sized = Err("turned off".to_owned()));
    assert_eq!(told(&verdict).0, Status::Differs, "turned off since the last reload");
    let verdict = with(|facts| {
        without(facts);
        facts.sized = Err("turned off".to_owned());
    });
    assert_eq!(told(&verdict), (Status::Fits, vec!["turned-off"], false));
}

#[test]
fn not_read() {
    let itself = |facts: &mut Facts| running(facts).active = Some(numbers(2, 1000));
    let verdict = with(|facts| {
        itself(facts);
        running(facts).file = Some((FILE.to_owned(), Err("there is no such file".to_owned())));
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-read"], true));
    let verdict = with(|facts| {
        itself(facts);
        running(facts).environment = Some(BTreeMap::new());
        running(facts).file = None;
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-read"], true), "started before it was sized");
    // Nothing that a restart would mend.
    let verdict = with(|facts| facts.loaded.exec_start_pre.clear());
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-read"], false));
    let verdict = with(|facts| drop(facts.loaded.environment.remove(pypnm::ENV_FILE)));
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-read"], false));
    let verdict = with(|facts| {
        facts.foreign_file = Some(("/etc/x".to_owned(), Ok("PYPNM_SERVE_WORKERS=2.0\n".to_owned())));
    });
    assert!(verdict.leading().is_some_and(|finding| finding.text.contains("can't start")));
    // PyPNM before 1.6: one process, whatever the file says.
    let verdict = with(|facts| {
        running(facts).active = None;
        (running(facts).alone, running(facts).workers) = (true, 1);
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-read"], false));
}

#[test]
fn the_workers_that_are_there() {
    let verdict = with(|facts| running(facts).workers = 1);
    assert_eq!(told(&verdict), (Status::Differs, vec!["workers-missing"], false));
    let verdict = with(|facts| facts.live = Live::Hidden("hidden".to_owned()));
    assert_eq!(told(&verdict), (Status::Unknown, vec!["hidden"], false));
    let verdict = with(|facts| facts.live = Live::Not);
    assert_eq!(told(&verdict), (Status::Fits, vec!["not-running"], false));
}

#[test]
fn uvicorn_itself() {
    let uvicorn = |facts: &mut Facts| {
        running(facts).arguments = words("/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app");
        (running(facts).file, running(facts).active) = (None, None);
    };
    assert_eq!(told(&with(uvicorn)), (Status::Fits, vec![], false));
    // Its environment is hidden from others: its workers can be counted.
    let verdict = with(|facts| {
        uvicorn(facts);
        running(facts).environment = None;
    });
    assert_eq!(told(&verdict), (Status::Fits, vec![], false));
    let verdict = with(|facts| {
        uvicorn(facts);
        running(facts).environment = None;
        running(facts).workers = 4;
    });
    assert_eq!(told(&verdict), (Status::Differs, vec!["not-restarted"], true));
}
