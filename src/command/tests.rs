//! Command lines, and what is read from them.

use super::{Change, CommandReader, Confinement, Program};
use crate::parse::cpu_list::CpuSet;

fn read(command: &str) -> (Program, Vec<String>) {
    let mut reader = CommandReader::default();
    let flags = command.split(' ').filter_map(|word| reader.word(word).map(|(f, v)| format!("{f} {v}")));
    let flags = flags.collect();
    (reader.program(), flags)
}

#[test]
fn what_is_started() {
    for command in [
        "pypnm serve",
        "/opt/pypnm/bin/pypnm serve --port 1",
        "-/opt/pypnm/bin/pypnm-cmts serve",
        "@/opt/pypnm/bin/pypnm x serve",
        ":+/usr/bin/python3 -u -X dev /opt/pypnm/bin/pypnm serve",
        "/usr/bin/python3.11 -m pypnm.cli serve",
        "/usr/bin/env -i A=1 pypnm serve",
        "/usr/bin/env python3 -m pypnm.cli serve",
        "/usr/lib/pypnm-sizing/handover pypnm serve --port 1",
        "/v/bin/python3 -P /usr/lib/pypnm-sizing/pypnm_handover /v/bin/pypnm-cmts serve",
        "/v/bin/python3 -m pypnm_handover /v/bin/pypnm serve",
        "/usr/bin/pypnm-sizing exec -- pypnm serve",
        "/usr/bin/pypnm-sizing exec pypnm serve",
        "/usr/bin/pypnm-sizing exec --unit pypnm.service -- pypnm serve --host ::",
        "/usr/bin/pypnm-sizing exec --unit=pypnm --root / -- /usr/bin/env A=1 pypnm serve",
        "@/usr/bin/nice x -n 5 pypnm serve",
        "/usr/bin/nice pypnm serve",
        "/usr/bin/nice -5 pypnm serve",
        "/usr/bin/nice -n5 --adjustment=5 --adjustment 5 -- pypnm serve",
        "/usr/bin/ionice -c2 -n 0 -tc 3 --class idle --ignore pypnm serve",
        "/usr/bin/chrt -b 0 pypnm serve",
        "/usr/bin/chrt -vR --fifo -- 10 nice ionice -c 3 pypnm serve",
        "/usr/bin/stdbuf -oL -e L --input=0 pypnm serve",
        "/usr/bin/setpriv --reuid=pypnm --regid pypnm --init-groups --nnp pypnm serve",
        "/usr/bin/systemd-cat -t pypnm --priority=info -- pypnm serve",
        "/usr/bin/nohup -- pypnm serve",
        "/usr/sbin/gosu pypnm env A=1 pypnm serve",
        "/usr/bin/taskset -ac 0-1 pypnm serve",
        "/usr/bin/taskset 3 numactl -N 0 --membind=0 -- pypnm serve",
        "/usr/bin/numactl -al --all --localalloc pypnm serve",
    ] {
        assert_eq!(read(command).0, Program::Pypnm, "{command}");
    }
    for command in [
        "/v/bin/uvicorn a:b",
        "/v/bin/python -m uvicorn a:b",
        "python3 -Wd -muvicorn a:b",
        "python3 -Wignore::ResourceWarning -Xpycache_prefix=/x -m uvicorn a:b",
        "/usr/bin/python3 -B /v/bin/uvicorn a:b",
    ] {
        assert_eq!(read(command).0, Program::Uvicorn, "{command}");
    }
    for command in [
        "",
        "pypnm",
        "pypnm --version",
        "/bin/bash -c uvicorn",
        "/opt/app/start.sh",
        "/usr/bin/env",
        "/usr/bin/env -S a b",
        "/usr/bin/pypnm-sizing watch",
        "/usr/bin/pypnm-sizing watch pypnm serve",
        "python3 -c pypnm serve",
        "python3 - pypnm serve",
        "python3 start.py",
        "python3 -m gunicorn",
        "/usr/bin/python-wrapper -m uvicorn",
        "/v/bin/gunicorn -k uvicorn",
        "/v/bin/gunicorn -k uvicorn.workers.UvicornWorker pypnm.api.main:app",
        "/v/bin/hypercorn pypnm.api.main:app",
        "/v/bin/fastapi run --workers 2",
        "/v/bin/python -m fastapi run",
        "/v/bin/python -m pypnm.server serve",
        "/bin/bash -lc pypnm serve",
        "/usr/bin/pypnm-sizing exec --verbose pypnm serve",
        "/usr/bin/pypnm-sizing exec --unit pypnm serve",
        "/usr/bin/pypnm-sizing exec --units=pypnm pypnm serve",
        // These start it as a child, so that its parent is not the server.
        "/usr/bin/timeout 1d pypnm serve",
        "/usr/bin/flock /run/lock pypnm serve",
        "/usr/sbin/runuser -u pypnm -- pypnm serve",
        "/usr/bin/podman exec c pypnm serve",
        // These change the environment, or what PyPNM may use.
        "/usr/bin/sudo -u pypnm pypnm serve",
        "/usr/bin/setpriv --reset-env pypnm serve",
        "/usr/bin/prlimit --as=1G pypnm serve",
        // Options that these do not have, or that do something else.
        "/usr/bin/nice -x pypnm serve",
        "/usr/bin/nice -n pypnm serve",
        "/usr/bin/ionice -p 1 pypnm serve",
        "/usr/bin/ionice -tp pypnm serve",
        "/usr/bin/ionice --classes 2 pypnm serve",
        "/usr/bin/ionice --ignore=1 pypnm serve",
        "/usr/bin/chrt pypnm serve",
        "/usr/bin/chrt -b 0 -v pypnm serve",
        "/usr/bin/gosu -- pypnm serve",
        "/usr/bin/taskset -p 3 pypnm serve",
        "/usr/bin/taskset -- 3 pypnm serve",
        "/usr/bin/numactl --hardware pypnm serve",
        "/usr/bin/numactl --cpunode=0 pypnm serve",
    ] {
        assert_eq!(read(command).0, Program::Unknown, "{command}");
    }
}

#[test]
fn flags_and_their_beginnings() {
    let flags = |command: &str| read(command).1.join(", ");
    assert_eq!(
        flags("pypnm serve --workers 3 --limit-max-requests=7"),
        "--workers 3, --limit-max-requests 7"
    );
    assert_eq!(flags("pypnm serve --worker 1 --limit 500"), "--workers 1, --limit-max-requests 500");
    assert_eq!(flags("pypnm serve --w=1 --l 5"), "--workers 1, --limit-max-requests 5");
    assert_eq!(flags("pypnm serve --work --workers"), "--workers --workers");
    assert_eq!(flags("pypnm serve --=5 -w 5"), "");
    assert_eq!(flags("pypnm serve --workersx 1 -- --workers 2 --reload"), "");
    assert_eq!(flags("uvicorn a:b --worker 1 --workers 2"), "--workers 2", "click takes no beginnings");
    assert_eq!(flags("/usr/bin/env pypnm serve --worker 1"), "--workers 1");
    assert_eq!(flags("pypnm --workers 3 serve"), "", "not one of the verb's");
    assert_eq!(flags("nice -n 5 pypnm serve --workers 3"), "--workers 3");
    assert_eq!(flags("pypnm-sizing exec --unit u -- pypnm serve --w 3"), "--workers 3");
    assert_eq!(flags("taskset -c 0 pypnm serve --workers 3"), "--workers 3");
}

#[test]
fn what_env_does_to_the_environment() {
    let outcome = |command: &str| {
        let (mut reader, mut changes) = (CommandReader::default(), Vec::new());
        for word in command.split(' ') {
            reader.changes(word, &mut |change| {
                changes.push(match change {
                    Change::Clear => "clear".to_owned(),
                    Change::Unset(name) => format!("-{name}"),
                    Change::Assign(name, value) => format!("{name}={value}"),
                });
            });
            reader.word(word);
        }
        (reader.program(), changes.join(" "))
    };
    for (options, changes) in [
        ("A=1 B=2", "A=1 B=2"),
        ("-i A=1", "clear A=1"),
        ("-", "clear"),
        ("- A=1", "clear A=1"),
        ("--ignore-environment", "clear"),
        ("--ignore-e -- A=", "clear A="),
        ("--ignore-signal", ""),
        ("-u A -uB --unset=C --unset D --un E", "-A -B -C -D -E"),
        ("-iuA -v0 -C /x --chdir /y --chdir=/z -a b", "clear -A"),
        ("-C/x -a/b -vaname A=1", "A=1"),
        ("--default-signal=PIPE --debug", ""),
        ("--undefined A=1", "A=1"),
        ("-i env -u A", "clear -A"),
    ] {
        for command in ["uvicorn C=3 -i", "pypnm serve -u"] {
            let program = if command.starts_with('u') { Program::Uvicorn } else { Program::Pypnm };
            let read = outcome(&format!("/usr/bin/env {options} {command}"));
            assert_eq!(read, (program, changes.to_owned()), "{options} {command}");
        }
    }
    for command in
        ["-S uvicorn", "-iSuvicorn", "--split-string=-i uvicorn", "--version uvicorn", "-x uvicorn"]
    {
        assert_eq!(outcome(&format!("env {command}")).0, Program::Unknown, "{command}");
    }
    assert_eq!(outcome("env -- -i uvicorn"), (Program::Unknown, String::new()), "no option any more");
    assert_eq!(outcome("uvicorn A=1").1, "");
    assert_eq!(outcome("/usr/lib/pypnm-sizing/handover -i A=1 pypnm serve").1, "", "no option of its");
}

#[test]
fn reloading_its_code() {
    let reloads = |command: &str| {
        let mut reader = CommandReader::default();
        for word in command.split(' ') {
            reader.word(word);
        }
        reader.reloads()
    };
    assert!(reloads("pypnm serve --reload") && !reloads("pypnm serve --reload-dir x"));
}

#[test]
fn confinement_by_taskset_and_numactl() {
    let confined = |command: &str| {
        let (mut reader, mut found) = (CommandReader::default(), Vec::new());
        for word in command.split(' ') {
            found.extend(reader.confinement(word).map(|confinement| match confinement {
                Confinement::Cpus(set) => ("CPUs", set),
                Confinement::CpusOfNodes(set) => ("nodes' CPUs", set),
                Confinement::MemoryOfNodes(set) => ("nodes' memory", set),
            }));
            reader.word(word);
        }
        let shown = |set: Result<CpuSet, String>| {
            set.map_or_else(|value| format!("unknown: {value}"), |set| set.to_string())
        };
        found.into_iter().map(|(what, set)| format!("{what} {}", shown(set))).collect::<Vec<_>>().join(", ")
    };
    for (command, expected) in [
        ("taskset -c 0,2 pypnm serve", "CPUs 0,2"),
        ("taskset --cpu-list 0-1 pypnm serve", "CPUs 0-1"),
        ("taskset 0x3 pypnm serve", "CPUs 0-1"),
        ("taskset -a 10 pypnm serve --workers 2", "CPUs 4"),
        ("nice -n 5 taskset -c 1 env A=c taskset 1 pypnm serve", "CPUs 1, CPUs 0"),
        ("taskset -c $CPUS pypnm serve", "CPUs unknown: $CPUS"),
        ("numactl --cpunodebind=0 --membind=0 pypnm serve", "nodes' CPUs 0, nodes' memory 0"),
        ("numactl --physcpubind 0-3 -m 1 taskset 1 pypnm serve", "CPUs 0-3, nodes' memory 1, CPUs 0"),
        ("numactl -N1 -l pypnm serve -m 0", "nodes' CPUs 1"),
        ("numactl -N 0 /home/a/bin/pypnm serve", "nodes' CPUs 0"),
        ("numactl --membind=0 taskset 3 pypnm serve", "nodes' memory 0, CPUs 0-1"),
        ("systemd-cat -tN1 pypnm serve", ""),
        ("numactl -C +0-3 pypnm serve", "CPUs unknown: +0-3"),
        ("numactl -m all -N all pypnm serve", ""),
        ("numactl --interleave=all --preferred 0 pypnm serve", ""),
        ("@/usr/bin/taskset 7 3 pypnm serve", "CPUs 0-1"),
        ("pypnm serve -N 0 taskset -c 0", ""),
    ] {
        assert_eq!(confined(command), expected, "{command}");
    }
}
