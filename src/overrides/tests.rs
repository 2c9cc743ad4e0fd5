//! Units on a fixture machine, and the overrides that are found in them.

use super::{Overrides, SingleWorker, Stage};
use crate::root::Root;
use crate::sizing::{Request, size};

/// The overrides of a unit on a machine for four workers.
fn overrides(unit: &str) -> Overrides {
    with_drop_in(unit, "")
}

/// The same with a drop-in of the operator's that is read after the generated one.
fn with_drop_in(unit: &str, drop_in: &str) -> Overrides {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    for (path, text) in [
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("proc/1/status", "Cpus_allowed_list:\t0-7\n"),
        ("proc/meminfo", "MemTotal: 65852000 kB\n"),
        ("etc/systemd/system/pypnm.service", &format!("[Service]\n{unit}")),
        ("etc/systemd/system/pypnm.service.d/50.conf", &format!("[Service]\n{drop_in}")),
    ] {
        let path = directory.path().join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{error}"));
    }
    let root = Root::below(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    size(&Request::new(&root)).units.pop().map(|unit| unit.overrides).unwrap_or_default()
}

fn texts(unit: &str) -> Vec<String> {
    let list = overrides(unit).list;
    list.iter().map(|o| o.to_string().replace("/etc/systemd/system/pypnm.service:", "")).collect()
}

#[test]
fn variables_removed_by_env_are_missing() {
    let withheld =
        "ExecStart: PYPNM_SERVE_ENV_FILE is not passed on to PyPNM, which falls back to its own sizing";
    for clears in
        ["-i", "-", "-u PYPNM_SERVE_ENV_FILE", "--unset=PYPNM_SERVE_ENV_FILE", "-i PYPNM_SERVE_WORKERS=3"]
    {
        let unit = format!("ExecStart=/usr/bin/env {clears} /opt/pypnm/bin/pypnm serve\n");
        let found = texts(&unit);
        assert_eq!(found, [format!("2: {withheld}")], "{clears}");
        assert_eq!(overrides(&unit).single_worker(4, 2000), Some(SingleWorker::Possible), "{clears}");
    }
    for passes in ["A=1", "-u A", "-i PYPNM_SERVE_ENV_FILE=/run/pypnm-sizing/%n.env"] {
        let unit = format!("ExecStart=/usr/bin/env {passes} /opt/pypnm/bin/pypnm serve\n");
        let found = texts(&unit);
        assert!(!found.iter().any(|text| text.contains("PYPNM_SERVE_ENV_FILE")), "{passes}: {found:?}");
        assert_eq!(overrides(&unit).single_worker(4, 2000), None, "{passes}");
    }
    let in_the_file = overrides("ExecStart=/usr/bin/env PYPNM_SERVE_WORKERS=3 pypnm serve\n");
    assert_eq!(in_the_file.workers(4).value, 4, "PyPNM reads the file, which is written before");
    let other = overrides("ExecStart=/usr/bin/env PYPNM_SERVE_ENV_FILE=/etc/x pypnm serve\n");
    assert!(!other.is_handed_over());
    assert_eq!(other.single_worker(4, 2000), Some(SingleWorker::Possible), "what is in it is not known");

    // uvicorn reads its own variables, and needs no file.
    let cleared = overrides("ExecStart=/usr/bin/env -i uvicorn a:b\n");
    assert_eq!((cleared.uvicorn_workers(4).value, cleared.uvicorn_limit_max_requests(2000).value), (1, 0));
    assert!(cleared.uvicorn_limit_max_requests(2000).set_by.is_some());
    assert_eq!(cleared.single_worker(4, 2000), None, "it is never recycled");
    let own =
        overrides("ExecStart=/usr/bin/env -i UVICORN_WORKERS=2 UVICORN_LIMIT_MAX_REQUESTS=9 uvicorn a:b\n");
    assert_eq!((own.uvicorn_workers(4).value, own.uvicorn_limit_max_requests(2000).value), (2, 9));
    let concurrency = overrides("ExecStart=/usr/bin/env -i WEB_CONCURRENCY=3 uvicorn a:b\n");
    assert_eq!(concurrency.uvicorn_workers(4).value, 3);
    let unset = overrides("ExecStart=/usr/bin/env -u UVICORN_LIMIT_MAX_REQUESTS uvicorn a:b\n");
    assert_eq!((unset.uvicorn_workers(4).value, unset.uvicorn_limit_max_requests(2000).value), (4, 0));
}

#[test]
fn what_the_unit_takes_away() {
    let serve = "ExecStart=uvicorn a:b\n";
    let with = |lines: &str| texts(&format!("{serve}{lines}")).join("; ");
    assert_eq!(with("UnsetEnvironment=UVICORN_WORKERS\n"), "3: UnsetEnvironment: UVICORN_WORKERS is removed");
    assert_eq!(with("UnsetEnvironment=UVICORN_WORKERS\nUnsetEnvironment=\n"), "");
    assert_eq!(with("UnsetEnvironment=UVICORN_WORKERS=4\n"), "", "not the value that it has");
    let concurrency = |taken: &str| {
        let unit = format!("{serve}Environment=WEB_CONCURRENCY=2\nUnsetEnvironment={taken}\n");
        overrides(&unit).uvicorn_workers(4).value
    };
    assert_eq!((concurrency(""), concurrency("WEB_CONCURRENCY=3")), (2, 2));
    assert_eq!((concurrency("WEB_CONCURRENCY"), concurrency("WEB_CONCURRENCY=2")), (4, 4));
    let stage = |unit: &str| overrides(unit).get("UVICORN_WORKERS").map(|found| found.stage);
    assert_eq!(stage(&format!("{serve}UnsetEnvironment=UVICORN_WORKERS\n")), Some(Stage::UnsetEnvironment));
    for command in ["-u UVICORN_WORKERS", "UVICORN_WORKERS=3"] {
        let unit = format!("ExecStart=/usr/bin/env {command} uvicorn a:b\n");
        assert_eq!(stage(&unit), Some(Stage::Command), "{command}");
    }
    let reset = with_drop_in(serve, "Environment=\n");
    assert_eq!(reset.get("UVICORN_WORKERS").map(|found| found.stage), Some(Stage::Settings));
    // Even if the word comes from a variable.
    let flag = overrides("Environment=N=3\nExecStart=uvicorn a:b --workers $N\n");
    assert_eq!(flag.get("--workers").map(|found| found.stage), Some(Stage::Command));
}

#[test]
fn what_the_unit_sets_after_the_drop_in() {
    let serve = "ExecStart=/opt/pypnm/bin/pypnm serve\n";
    assert_eq!(texts(serve), [""; 0]);
    let refuses = |type_of: &str| overrides(&format!("{serve}{type_of}")).refuses_restart();
    assert!(refuses("Type=oneshot\n") && !refuses("Type=exec\n") && !refuses("Type=oneshot\nType=exec\n"));
    assert_eq!(
        texts("ExecStart=/opt/pypnm/bin/pypnm serve --workers 2 --limit-max-requests 0\n"),
        [
            "2: ExecStart: --workers 2 on the command line is in effect",
            "2: ExecStart: --limit-max-requests 0 on the command line is in effect"
        ]
    );
    let with_variable = |prefix: &str| {
        texts(&format!(
            "Environment=N=3\nExecStart={prefix}/opt/pypnm/bin/pypnm serve --workers $N --limit-max-requests 0\n"
        ))
    };
    assert_eq!(
        with_variable("").first().map(String::as_str),
        Some("2: Environment: --workers 3 on the command line is in effect")
    );
    assert_eq!(
        with_variable(":").first().map(String::as_str),
        Some("3: ExecStart: --workers $N on the command line is in effect")
    );
    let twice = texts(&format!("Type=oneshot\nEnvironment=WEB_CONCURRENCY=2\n{serve}{serve}"));
    assert!(twice.iter().any(|text| text.ends_with("pypnm serve does not read it")), "{twice:?}");
    let different =
        texts(&format!("Type=oneshot\nEnvironment=WEB_CONCURRENCY=2\n{serve}ExecStart=uvicorn a:b\n"));
    assert!(!different.iter().any(|text| text.contains("does not read it")), "{different:?}");
    let after = |drop_in: &str| {
        let list = with_drop_in(&format!("{serve}Restart=no\nExecStartPre=\n"), drop_in).list;
        list.iter().map(|o| o.to_string().replace("/etc/systemd/system/", "")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(after(""), "", "what comes before the drop-in is replaced");
    assert_eq!(
        after("Restart=on-failure\nRestart=sometimes\n"),
        "pypnm.service.d/50.conf:2: Restart: Restart=on-failure is in effect"
    );
    assert_eq!(after("Restart=no\nRestart=always\n"), "");
    assert_eq!(
        after("ExecStartPre=\n"),
        "pypnm.service.d/50.conf:2: ExecStartPre: the profile is not passed to PyPNM, which falls back to its own sizing"
    );
    assert_eq!(after("ExecStartPre=/bin/true\n"), "");
    assert_eq!(
        texts("ExecStart=/usr/bin/sudo -u x pypnm serve\n"),
        ["2: ExecStart: what /usr/bin/sudo starts is unknown; it may run a single worker"]
    );
}
