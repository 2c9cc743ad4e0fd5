"""The helper on a running systemd: every state that `check` distinguishes, and what `apply` does about it."""

import json

from suite import (
    ENV_FILE, GENERATOR, KB_4G, KB_8G, KB_16G, case, dropin, equal, expect, generated, profile, request, serves, workers,
)  # fmt: skip

OVERRIDE = "/etc/systemd/system/pypnm.service.d/override.conf"
OWN_NAME = "/etc/systemd/system/pypnm.service.d/10-pypnm-sizing.conf"
CONF = "/etc/pypnm/sizing.conf"
STATE = {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}


def helper(m, arguments, user=None):
    """Runs the helper as `user` or as root, and returns its status, stdout and stderr."""
    command = ["pypnm-sizing", *arguments.split()]
    done = m.run(["runuser", "-u", user, "--", *command] if user else command, check=False)
    return done.returncode, done.stdout, done.stderr


def check(m, status, *words, topic=None, user=None):
    """Runs `check`, which prints one line with `words` and exits with this status; its JSON agrees and has a finding
    of `topic`."""
    got, line, error = helper(m, "check", user)
    equal((got, error), (status, ""), f"check's status and stderr, with {line!r}")
    head = f"PYPNM-SIZING {STATE[status]} - "
    equal((line.startswith(head), line.count("\n")), (True, 1), f"one line that begins with {head!r}: {line!r}")
    for word in words:
        expect(word in line, f"{word!r} is not in {line!r}")
    got, text, _ = helper(m, "check --json", user)
    answer = json.loads(text)
    equal((got, answer["status"], answer["state"], answer["schema"]), (status, status, STATE[status].lower(), 1), "check --json")
    if topic:
        topics = [finding["topic"] for finding in answer["units"][0]["findings"]]
        expect(topic in topics, f"no {topic} among {topics}")
    got, text, _ = helper(m, "check --verbose", user)
    equal((got, text.startswith(line)), (status, True), "check --verbose")
    return answer["units"][0]


def everybody(m, status, *words, topic=None):
    """`check` as root and as an unprivileged user."""
    check(m, status, *words, topic=topic)
    return check(m, status, *words, topic=topic, user="bob")


def restarted(m):
    m.systemctl("daemon-reload")
    m.systemctl("restart", "pypnm.service")
    profile(m)


def user(m):
    m.run("useradd --create-home bob")


@case(fast=(252,))
def changed_hardware(e2e):
    """check and apply: the profile fits; after a hardware change; after a reload; --dry-run, --no-restart, restart"""
    with e2e.machine(cpus=2, memory_kb=KB_4G) as m:
        user(m)
        m.boot()
        serves(m, 1, 1000)
        unit = everybody(m, 0, "1 worker, recycled after 1000 requests", "2 CPUs, 3.84 GiB")
        equal(unit["running"]["workers_alive"], 1, "live workers")
        main = m.show("pypnm.service", "MainPID")

        status, output, _ = helper(m, "apply")
        equal((status, "has not changed, so it is not restarted" in output), (0, True), f"apply without a change: {output}")
        status, output, error = helper(m, "apply", "bob")
        equal((status, output, "permission denied" in error, error.count("\n")), (2, "", True, 1), f"apply of an unprivileged user: {error}")

        m.hardware(cpus=4, memory_kb=KB_16G)
        everybody(m, 1, "it may use 4 CPUs, 15.63 GiB now", "fix: pypnm-sizing apply", topic="machine-changed")
        status, output, _ = helper(m, "show", "bob")
        expect("Loaded   1 worker, recycled after 1000 requests" in output, output)
        status, output, _ = helper(m, "apply --dry-run", "bob")
        equal((status, "would be restarted" in output), (0, True), f"apply --dry-run: {output}")
        expect("PYPNM_SERVE_WORKERS=1" in generated(m), "the dry run reloaded")
        status, output, _ = helper(m, "apply --no-restart")
        equal((status, "not restarted, as requested" in output), (0, True), f"apply --no-restart: {output}")
        expect("PYPNM_SERVE_WORKERS=4" in generated(m), "it did not reload")
        equal(m.show("pypnm.service", "MainPID"), main, "the main process, which nobody restarted")
        everybody(m, 1, "it runs 1 worker (limit 1000) from before the last reload", "systemctl restart pypnm.service", topic="not-restarted")

        status, output, error = helper(m, "apply")
        equal((status, error), (0, ""), f"apply: {output}{error}")
        equal(len(workers(m)), 4, "live workers once apply has ended")
        expect("answers after" in output and "\nPYPNM-SIZING OK - pypnm.service: 4 workers, each recycled after 2000" in output, output)
        serves(m, 4, 2000)
        everybody(m, 0, "4 workers, each recycled after 2000 requests")

        # MemTotal varies slightly between boots.
        m.hardware(memory_kb=KB_16G - 300000)
        equal(everybody(m, 0)["findings"], [], "findings after a jitter of 2%")
        m.hardware(memory_kb=KB_16G + 2000000)
        everybody(m, 0, topic="machine-changed")


@case()
def drop_in_and_generator(e2e):
    """check: the drop-in is masked or replaced; the generator is masked, not executable, missing, turned off, or has
    not run yet"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.boot()
        serves(m, 2, 2000)
        m.run(f"mkdir -p {OWN_NAME.rpartition('/')[0]} && ln -s /dev/null {OWN_NAME}")
        m.systemctl("daemon-reload")
        everybody(m, 1, f"masked by {OWN_NAME}", "its own sizing", f"rm {OWN_NAME}", topic="drop-in-masked")
        m.run(f"rm {OWN_NAME}")
        m.install({OWN_NAME: dropin("Environment=A=1")})
        m.systemctl("daemon-reload")
        everybody(m, 1, f"replaced by {OWN_NAME}", topic="drop-in-replaced")
        m.run(f"rm {OWN_NAME}")
        m.systemctl("daemon-reload")
        everybody(m, 0)

        mask = "/etc/systemd/system-generators/pypnm-sizing-generator"
        m.run(f"mkdir -p /etc/systemd/system-generators && ln -s /dev/null {mask}")
        everybody(m, 1, f"masked by {mask}", topic="generator-masked")
        m.systemctl("daemon-reload")
        everybody(m, 1, f"masked by {mask}", "its own sizing", topic="generator-masked")
        m.run(f"rm {mask}; mv {GENERATOR} /root/generator")
        everybody(m, 1, "not installed", topic="generator-missing")
        m.run(f"cp /root/generator {GENERATOR}; chmod -x {GENERATOR}")
        everybody(m, 1, f"chmod +x {GENERATOR}", topic="generator-masked")
        m.run(f"chmod +x {GENERATOR}")
        everybody(m, 1, "has not run", "fix: pypnm-sizing apply", topic="not-generated")
        status, output, _ = helper(m, "apply --dry-run")
        expect("would be restarted: it has no profile yet" in output, output)
        m.systemctl("daemon-reload")
        everybody(m, 0)

        m.install({CONF: "[Sizing]\nEnabled=no\n"})
        everybody(m, 1, f"Enabled=no, {CONF}:2", topic="turned-off")
        m.systemctl("daemon-reload")
        everybody(m, 0, f"Enabled=no, {CONF}:2", topic="turned-off")
        m.install({CONF: "[Sizing]\nWorker=3\nMaxWorkers=none\n"})
        m.systemctl("daemon-reload")
        everybody(m, 1, "did you mean", "and 1 more mistake", topic="configuration-ignored")
        status, output, _ = helper(m, "check --verbose", "bob")
        expect("did you mean" in output and f"{CONF}:3: MaxWorkers" in output, output)


@case()
def switched_off_at_boot(e2e):
    """check: pypnm.sizing=no for this boot"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.boot("pypnm.sizing=no")
        profile(m)
        everybody(m, 0, "turned off by pypnm.sizing=", topic="turned-off")


@case()
def overrides(e2e):
    """check: the operator's setting, in every possible place, is OK and is named; apply leaves it unchanged"""
    files = {
        "/root/secret.env": ("PYPNM_SERVE_WORKERS=3\n", 0o600),
        "/etc/open.env": "# ours\nPYPNM_SERVE_LIMIT_MAX_REQUESTS=77\nOPTIONS=--workers 1\n",
        "/etc/own.env": "PYPNM_SERVE_CPU_COUNT=4\nPYPNM_SERVE_TOTAL_MEMORY_GIB=7\nPYPNM_SERVE_WORKERS=1\nPYPNM_SERVE_LIMIT_MAX_REQUESTS=5000\n",
    }
    with e2e.machine(cpus=4, memory_kb=KB_8G, files=files) as m:
        user(m)
        m.boot()
        serves(m, 2, 2000)
        m.install({OVERRIDE: dropin("Environment=PYPNM_SERVE_WORKERS=3")})
        everybody(m, 1, "the configuration has changed", "expected: 3 workers", topic="configuration-changed")
        status, output, _ = helper(m, "apply")
        equal((status, f"set by hand: PYPNM_SERVE_WORKERS=3, {OVERRIDE}:2" in output), (0, True), output)
        serves(m, 3, 2000)
        everybody(m, 0, f"PYPNM_SERVE_WORKERS=3, {OVERRIDE}:2", topic="override")
        # A change of the hardware makes no difference.
        m.hardware(cpus=8)
        everybody(m, 0, topic="override")
        m.hardware(cpus=4)

        m.install({OVERRIDE: dropin("EnvironmentFile=/root/secret.env")})
        restarted(m)
        check(m, 0, "PYPNM_SERVE_WORKERS=3, /root/secret.env:1", topic="override")
        check(m, 3, "/root/secret.env, which this user may not read", topic="hidden", user="bob")

        m.install({OVERRIDE: dropin("EnvironmentFile=/etc/open.env", "ExecStart=", "ExecStart=/opt/pypnm/bin/pypnm serve $OPTIONS")})
        restarted(m)
        everybody(m, 0, "--workers 1, /etc/open.env:3", "LIMIT_MAX_REQUESTS=77, /etc/open.env:2", topic="override")

        m.install({OVERRIDE: dropin("Environment=PYPNM_SERVE_ENV_FILE=/etc/own.env")})
        restarted(m)
        serves(m, 1, 5000)
        everybody(m, 0, "1 worker, recycled after 5000", "PYPNM_SERVE_ENV_FILE=/etc/own.env", topic="override")

        m.install({OVERRIDE: dropin("Environment=PYPNM_SERVE_WORKERS=lots")})
        restarted(m)
        everybody(m, 0, "PYPNM_SERVE_WORKERS=lots", "the sized value is used", topic="override")

        m.run(f"rm {OVERRIDE}")
        m.install({CONF: "[Sizing]\nWorkers=1\n"})
        status, output, _ = helper(m, "apply")
        equal((status, f"set by hand: Workers=1, {CONF}:2" in output), (0, True), output)
        serves(m, 1, 2000)
        everybody(m, 0, f"Workers=1, {CONF}:2", topic="set-by-hand")


@case()
def not_read(e2e):
    """check: PyPNM does not read its profile: no file, an invalid one, no ExecStartPre= that writes it, no variable
    that names it"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.boot()
        serves(m, 2, 2000)
        m.install({OVERRIDE: dropin("Environment=PYPNM_SERVE_ENV_FILE=/etc/none.env")})
        restarted(m)
        everybody(m, 1, "/etc/none.env", "no such file", topic="not-read")
        m.install({OVERRIDE: dropin("Environment=PYPNM_SERVE_ENV_FILE=/etc/half.env"), "/etc/half.env": "PYPNM_SERVE_WORKERS=2\n"})
        restarted(m)
        everybody(m, 1, "has no PYPNM_SERVE_CPU_COUNT", topic="not-read")
        m.install({OVERRIDE: dropin("ExecStartPre=")})
        restarted(m)
        everybody(m, 1, "nothing writes the profile", topic="not-read")
        m.install({OVERRIDE: dropin("Environment=")})
        restarted(m)
        everybody(m, 1, "removes PYPNM_SERVE_ENV_FILE=", topic="not-read")
        m.run(f"rm {OVERRIDE}")
        restarted(m)
        serves(m, 2, 2000)
        everybody(m, 0)
        # A cleaner of temporary files removed it: the running service still has its values, and a restart writes it
        # again.
        m.run(f"rm {ENV_FILE}")
        check(m, 1, "cannot read its profile", "systemctl restart pypnm.service", topic="not-read", user="bob")
        status, output, _ = helper(m, "apply")
        equal(status, 0, output)
        everybody(m, 0)


@case()
def started_before_it_was_sized(e2e):
    """apply after the package was installed while the service was running: restarted with its first profile"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.run(f"mv {GENERATOR} /root/generator")
        m.boot()
        profile(m)
        m.run(f"mv /root/generator {GENERATOR}")
        m.systemctl("daemon-reload")
        check(m, 1, "it was started before it was sized", "systemctl restart", topic="not-read")
        status, output, error = helper(m, "apply")
        equal((status, error), (0, ""), output)
        serves(m, 2, 2000)
        everybody(m, 0)


@case()
def ways_of_starting(e2e):
    """check and apply: a unit that starts uvicorn, and a wrapper that passes options"""
    uvicorn = "/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app --host 127.0.0.1 --port 8000"
    wrapper = f"#!/bin/bash\n. {ENV_FILE}\n/opt/pypnm/bin/pypnm serve --port 8000 --workers $PYPNM_SERVE_WORKERS --limit-max-requests $PYPNM_SERVE_LIMIT_MAX_REQUESTS\n"
    starts = {"uvicorn": uvicorn, "wrapper": "/usr/local/bin/wrapper"}
    for name, start in starts.items():
        files = {"/usr/local/bin/wrapper": (wrapper, 0o755)}
        with e2e.machine(cpus=2, memory_kb=KB_8G, start=start, files=files) as m:
            user(m)
            m.boot()
            m.until(lambda: len(workers(m)) == 2, "2 live workers")
            profile(m)
            everybody(m, 0, "2 workers")
            m.hardware(cpus=4, memory_kb=KB_16G)
            m.systemctl("daemon-reload")
            everybody(m, 1, "it runs 2 workers", topic="not-restarted")
            status, output, error = helper(m, "apply")
            equal((status, error), (0, ""), f"{name}: {output}")
            everybody(m, 0, "4 workers")
            equal(len(workers(m)), 4, f"live workers by {name}")


@case()
def packaged_unit(e2e):
    """check and apply: the packaged pypnm.service with options in /etc/pypnm/pypnm.env"""
    with e2e.machine(cpus=2, memory_kb=KB_8G) as m:
        user(m)
        m.run("systemctl disable --quiet pypnm.service; rm /etc/systemd/system/pypnm.service; systemctl enable --quiet pypnm.service")
        m.boot()
        serves(m, 2, 1000)
        everybody(m, 0, "2 workers, each recycled after 1000 requests")
        m.hardware(cpus=4, memory_kb=KB_16G)
        status, output, error = helper(m, "apply")
        equal((status, error, "OK - pypnm.service: 4 workers" in output), (0, "", True), output)
        m.run("echo 'PYPNM_OPTIONS=--workers 1' >> /etc/pypnm/pypnm.env")
        check(m, 1, "it runs 4 workers", topic="not-restarted")
        status, output, error = helper(m, "apply")
        equal((status, error, "set by hand: --workers 1, /etc/pypnm/pypnm.env:" in output), (0, "", True), output)
        equal(len(workers(m)), 1, "live workers")
        everybody(m, 0, "--workers 1, /etc/pypnm/pypnm.env:")


@case()
def not_running(e2e):
    """check and apply: stopped, failed, unknown, masked; nothing is started"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.run("systemctl disable --quiet pypnm.service")
        m.boot()
        everybody(m, 0, "not running (inactive)", topic="not-running")
        status, line, _ = helper(m, "check --must-run")
        equal((status, "systemctl start pypnm.service" in line), (2, True), line)
        status, output, _ = helper(m, "apply")
        equal((status, "not started" in output, m.show("pypnm.service", "ActiveState")), (0, True, "inactive"), output)
        m.install({OVERRIDE: dropin("ExecStart=", "ExecStart=/bin/false", "Restart=no")})
        m.systemctl("daemon-reload")
        m.systemctl("start", "pypnm.service", check=False)
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "failed", "the service to fail")
        everybody(m, 2, "has failed (exit-code)", "journalctl -u pypnm.service", topic="failed")
        equal(helper(m, "check --unit nope.service", "bob")[0], 2, "check of an unknown unit")
        status, output, error = helper(m, "apply --unit nope.service")
        equal((status, "no such unit" in error), (2, True), error)
        m.run("rm -f /etc/systemd/system/pypnm.service /usr/lib/systemd/system/pypnm.service; systemctl daemon-reload")
        check(m, 2, "no such unit", user="bob", topic="unit-missing")
        m.run("systemctl mask pypnm.service")
        check(m, 3, "masked", user="bob", topic="unit-masked")
        equal(helper(m, "check --must-run")[0], 2, "a masked unit that must run")


@case(fast=(252,))
def looping(e2e):
    """check: a service that keeps crashing is CRITICAL at every stage of the loop; one that is skipped because PyPNM
    is missing is a WARNING"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.run("systemctl disable --quiet pypnm.service")
        loop = ("ExecStart=", "ExecStart=/bin/sh -c 'sleep 0.3; exit 3'", "Restart=always", "RestartSec=2", "ExecStartPost=")
        m.install({OVERRIDE: "[Unit]\nStartLimitIntervalSec=0\n" + dropin(*loop)})
        m.boot()
        m.systemctl("start", "pypnm.service", check=False)
        m.until(lambda: m.show("pypnm.service", "SubState") == "auto-restart", "the first restart")
        everybody(m, 2, "keeps exiting and being restarted", "journalctl -u pypnm.service", topic="looping")
        # For most of the time, this one is active.
        m.install({OVERRIDE: "[Unit]\nStartLimitIntervalSec=0\n" + dropin(*loop[:1], "ExecStart=/bin/sh -c 'sleep 2; exit 3'", *loop[2:], "RestartSec=100ms")})
        m.systemctl("daemon-reload")
        m.until(lambda: m.show("pypnm.service", "NRestarts") > "0" and m.show("pypnm.service", "SubState") == "running", "a restart")
        # The number of restarts differs from one look to the next.
        for name in (None, "bob"):
            status, line, _ = helper(m, "check", name)
            equal((status, "keeps exiting and being restarted" in line), (2, True), line)
        m.systemctl("stop", "pypnm.service")
        everybody(m, 0, "not running", topic="not-running")
        m.install({OVERRIDE: "[Unit]\nConditionPathExists=/nonexistent\n"})
        # systemd forgets the result of a unit that nothing references.
        m.systemctl("enable", "--quiet", "pypnm.service")
        m.systemctl("daemon-reload")
        m.systemctl("start", "pypnm.service")
        everybody(m, 1, "a condition of its unit is not met", topic="condition-failed")


@case(fast=(252,))
def ended_or_never_started(e2e):
    """check: a service that the boot could not start, that exits with status 0, or that has no process is CRITICAL; one
    that was stopped is OK"""
    broken = {"/etc/systemd/system/broken.service": "[Service]\nType=oneshot\nExecStart=/bin/false\n"}
    requires = "[Unit]\nRequires=broken.service\nAfter=broken.service\n"
    with e2e.machine(cpus=4, memory_kb=KB_8G, files={**broken, OVERRIDE: requires}) as m:
        user(m)
        m.boot()
        everybody(m, 2, "not been started since boot: broken.service, which it requires, has failed", topic="not-running")
        ends = ("ExecStartPost=", "Restart=on-failure", "ExecStart=")

        def started(*lines):
            m.systemctl("stop", "pypnm.service")
            m.install({OVERRIDE: dropin(*ends, *lines)})
            m.systemctl("daemon-reload")
            m.systemctl("start", "pypnm.service")

        # As a single worker at its recycle limit.
        started("ExecStart=/bin/sleep 0.5")
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "inactive", "the service to exit")
        everybody(m, 2, "has exited without having been stopped", topic="failed")
        # It answers SIGTERM with status 0, as two workers do.
        started("ExecStart=/bin/sh -c 'trap \"exit 0\" TERM; while :; do sleep 0.1; done'")
        m.systemctl("stop", "pypnm.service")
        everybody(m, 0, "not running (inactive)", topic="not-running")
        started("ExecStart=/bin/true", "RemainAfterExit=yes")
        m.until(lambda: m.show("pypnm.service", "SubState") == "exited", "the process to exit")
        everybody(m, 2, "it has no process", topic="not-running")
        started("ExecStart=/bin/sh -c 'sleep 0.5; exit 3'", "ExecStopPost=/bin/sleep 60")
        m.until(lambda: m.show("pypnm.service", "SubState") == "stop-post", "the service to fail")
        everybody(m, 2, "has failed (exit-code) and is stopping (stop-post)", topic="failed")


@case(fast=(252,))
def names_and_other_units(e2e):
    """check: `.service` is appended as by systemctl; a PyPNM in a unit with another name is found; a unit that was
    just added"""
    api = "/etc/systemd/system/pypnm-api.service"
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.run(f"systemctl disable --quiet pypnm.service; cp /etc/systemd/system/pypnm.service {api}")
        m.boot()
        m.systemctl("start", "pypnm-api.service")
        m.until(lambda: "other-unit" in helper(m, "check --json")[1], "PyPNM to run and be found")
        check(m, 1, "PyPNM runs as pypnm-api.service, which is not sized", "Units=pypnm-api.service", topic="other-unit")
        m.install({CONF: "[Sizing]\nUnits=pypnm-api\n"})
        for name in ("pypnm-api", "pypnm-api.service"):
            status, line, _ = helper(m, f"check --unit {name}")
            equal((status, "added to Units=, or its sizing was enabled, after the last reload" in line), (1, True), line)
        status, output, error = helper(m, "apply --unit pypnm-api")
        equal((status, error, "OK - pypnm-api.service: 2 workers" in output), (0, "", True), output)
        # Several units: one line, the worst first.
        m.install({CONF: "[Sizing]\nUnits=pypnm pypnm-api\n"})
        status, line, _ = helper(m, "check")
        equal((status, line.count("\n")), (1, 1), line)
        first = line.index("WARNING pypnm")
        expect(line.startswith("PYPNM-SIZING WARNING - WARNING ") and "OK pypnm" not in line[:first], line)
        expect("'pypnm-api.service workers'=" in line.partition(" | ")[2], line)


@case(fast=(252,))
def apply_waits_for_a_start(e2e):
    """apply: waits for a service that is starting, then restarts it with the new profile"""
    with e2e.machine(cpus=2, memory_kb=KB_4G) as m:
        m.install({OVERRIDE: dropin("ExecStartPost=", "ExecStartPost=/bin/sleep 6")})
        m.boot()
        serves(m, 1, 1000)
        m.systemctl("stop", "pypnm.service")
        m.systemctl("start", "--no-block", "pypnm.service")
        m.until(lambda: m.show("pypnm.service", "SubState") == "start-post", "the start")
        m.hardware(cpus=4, memory_kb=KB_16G)
        status, output, error = helper(m, "apply")
        equal((status, error), (0, ""), output + error)
        expect("is starting, waiting" in output and "OK - pypnm.service: 4 workers" in output, output)
        serves(m, 4, 2000)


@case(fast=(252,))
def a_flag_that_was_taken_back(e2e):
    """check and apply: an option of the running process that has since been removed from pypnm.env"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        m.run("systemctl disable --quiet pypnm.service; rm /etc/systemd/system/pypnm.service; systemctl enable --quiet pypnm.service")
        m.install({"/etc/pypnm/pypnm.env": "PYPNM_OPTIONS=--worker 3\n"})
        m.boot()
        m.until(lambda: len(workers(m)) == 3, "3 live workers")
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "active", "the service to be active")
        check(m, 0, "--workers 3, /etc/pypnm/pypnm.env:1", topic="override")
        m.install({"/etc/pypnm/pypnm.env": "PYPNM_OPTIONS=\n"})
        check(m, 1, "it runs 3 workers", "2 workers", topic="not-restarted")
        status, output, error = helper(m, "apply")
        equal((status, error, "OK - pypnm.service: 2 workers" in output), (0, "", True), output + error)
        equal(len(workers(m)), 2, "live workers")


@case(fast=(252,))
def what_others_name(e2e):
    """check: a line feed in an argument cannot fake a property; a FIFO named as the profile by a process is not
    opened"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.run("mkfifo -m 666 /run/fifo")
        exec_start = r'ExecStart=/bin/bash -c "exec -a pypnm sleep 1000" "x\nLoadState=masked\nActiveState=failed\nMainPID=1"'
        m.install({OVERRIDE: dropin("ExecStart=", exec_start, "ExecStartPost=", "Environment=PYPNM_SERVE_ENV_FILE=/run/fifo")})
        m.boot()
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "active", "the service to be active")
        output = m.run("systemctl show --property=ExecStart pypnm.service").stdout
        expect("\nLoadState=masked" in output, f"this systemd escapes line feeds: {output}")
        for who in (None, "bob"):
            status, line, _ = helper(m, "check", who)
            expect("masked" not in line and "failed" not in line, line)
            expect("/run/fifo" in line and status == 1, line)


@case()
def an_instance(e2e):
    """check and apply: an instance of a sized template"""
    with e2e.machine(cpus=2, memory_kb=KB_4G, files={CONF: "[Sizing]\nUnits=pypnm@.service\n"}) as m:
        m.run("systemctl disable --quiet pypnm.service; mv /etc/systemd/system/pypnm.service /etc/systemd/system/pypnm@.service")
        m.boot()
        m.systemctl("start", "pypnm@1.service")
        profile(m)
        status, output, _ = helper(m, "check")
        equal((status, "--unit=pypnm@NAME.service" in output), (3, True), output)
        status, output, _ = helper(m, "check --unit pypnm@1.service")
        expect(status == 0 and output.startswith("PYPNM-SIZING OK - pypnm@1.service: 1 worker, recycled after 1000 requests, on 2 CPUs, 3.84 GiB | workers=1;"), output)
        m.hardware(cpus=4, memory_kb=KB_8G)
        status, output, error = helper(m, "apply --unit pypnm@1.service")
        equal((status, error, "OK - pypnm@1.service: 2 workers, each recycled after 2000" in output), (0, "", True), output)


@case()
def an_alias(e2e):
    """check, apply and the check at the start: the unit in Units= is an alias, and systemd knows the service by another name"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        place = "/etc/systemd/system"
        m.run(f"systemctl disable --quiet pypnm.service; cd {place}; mv pypnm.service pypnm-api.service; ln -s pypnm-api.service pypnm.service")
        m.systemctl("enable", "--quiet", "pypnm-api.service")
        m.boot()
        serves(m, 2, 2000)
        for unit in ("pypnm", "pypnm-api"):
            status, line, error = helper(m, f"check --unit {unit}")
            equal((status, error), (0, ""), line)
            expect("OK - pypnm.service: 2 workers" in line, line)
        m.run("systemctl set-property --runtime pypnm-api.service MemoryMax=3G && systemctl restart pypnm-api.service")
        serves(m, 1, None)
        m.hardware(memory_kb=KB_16G)
        m.run("systemctl set-property --runtime pypnm-api.service MemoryMax=infinity")
        status, output, error = helper(m, "apply --unit pypnm-api")
        equal((status, error, "OK - pypnm.service: 4 workers" in output), (0, "", True), output + error)
        # Both names: it is still one service.
        m.install({CONF: "[Sizing]\nUnits=pypnm pypnm-api\n"})
        m.systemctl("daemon-reload")
        status, line, _ = helper(m, "check")
        equal((status, line.count("pypnm-api.service is the same unit as pypnm.service")), (1, 1), line)
        expect("PYPNM_SERVE_WORKERS=4" in generated(m), generated(m))


@case()
def apply_waits_for_a_queued_start(e2e):
    """apply: waits for a start that is queued, and for a restart in progress; one that takes too long is an error"""
    slow = {
        "/etc/systemd/system/slow.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 6\n",
        "/etc/systemd/system/pypnm.service.d/slow.conf": "[Unit]\nWants=slow.service\nAfter=slow.service\n",
    }
    with e2e.machine(cpus=2, memory_kb=KB_4G, files=slow) as m:
        m.boot()
        serves(m, 1, 1000)
        m.run("systemctl stop pypnm.service slow.service; systemctl start --no-block pypnm.service")
        equal(m.show("pypnm.service", "ActiveState"), "inactive", "the state, while the start is queued")
        m.hardware(cpus=4, memory_kb=KB_16G)
        status, output, error = helper(m, "apply")
        equal((status, error), (0, ""), output + error)
        expect("is starting, waiting" in output and "OK - pypnm.service: 4 workers" in output, output)
        m.install({OVERRIDE: dropin("ExecStop=/bin/sleep 5")})
        m.run("systemctl daemon-reload; systemctl restart --no-block pypnm.service")
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "deactivating", "the restart")
        m.hardware(cpus=2, memory_kb=KB_8G)
        status, output, error = helper(m, "apply")
        equal((status, error), (0, ""), output + error)
        expect("is starting, waiting" in output and "OK - pypnm.service: 2 workers" in output, output)
        m.install({OVERRIDE: dropin("ExecStartPost=/bin/sleep 1000", "TimeoutStartSec=infinity")})
        m.run("systemctl daemon-reload; systemctl restart --no-block pypnm.service")
        status, output, error = helper(m, "apply --timeout 8")
        equal((status, "still starting after 8 s" in error), (1, True), output + error)


@case()
def uvicorns_own_settings(e2e):
    """check and apply: `WEB_CONCURRENCY` for uvicorn, in a drop-in and in a file that uvicorn reads itself"""
    uvicorn = "/opt/pypnm/bin/uvicorn pypnm.api.main:app --host 127.0.0.1 --port 8000"
    with e2e.machine(cpus=4, memory_kb=KB_16G, start=uvicorn) as m:
        m.boot()

        def runs(count, *words):
            m.until(lambda: request(m) and len(workers(m)) == count, f"{count} workers", 90)
            m.until(lambda: helper(m, "check")[0] == 0, "the workers to settle", 30)
            check(m, 0, *words)
            status, output, _ = helper(m, "apply")
            equal((status, "so it is not restarted" in output), (0, True), output)

        runs(4)
        m.install({OVERRIDE: dropin("Environment=WEB_CONCURRENCY=3")})
        check(m, 1, "expected: 3 workers", topic="configuration-changed")
        helper(m, "apply")
        runs(3, "set by hand: WEB_CONCURRENCY=3")
        m.install({OVERRIDE: dropin("ExecStart=", f"ExecStart={uvicorn} --env-file /etc/app.env"), "/etc/app.env": "export WEB_CONCURRENCY='1' # x\n"})
        helper(m, "apply")
        runs(1, "WEB_CONCURRENCY=1, /etc/app.env:1")
        # A generator cannot read this one.
        m.install({OVERRIDE: dropin("ExecStart=", f"ExecStart={uvicorn} --env-file /srv/app.env"), "/srv/app.env": "WEB_CONCURRENCY=2\n"})
        restarted = m.run("systemctl daemon-reload; systemctl restart pypnm.service", check=False)
        equal(restarted.returncode, 0, "the restart")
        runs(2)
        expect("UVICORN_WORKERS=" not in generated(m), generated(m))


@case()
def a_restart_that_fails(e2e):
    """apply: a service that does not start again is an error that says where to look, and apply does not wait
    forever"""
    with e2e.machine(cpus=2, memory_kb=KB_4G) as m:
        m.boot()
        serves(m, 1, 1000)
        m.hardware(cpus=4, memory_kb=KB_16G)
        m.install({OVERRIDE: dropin("ExecStart=", "ExecStart=/bin/sleep 1000")})
        status, output, error = helper(m, "apply --timeout 5")
        equal((status, "no answer in" in error, "journalctl -u pypnm.service" in error), (1, True, True), output + error)


@case(versions=(252,))
def hidden_processes(e2e):
    """check: with /proc mounted hidepid=, or a configuration that only root may read, an unprivileged user gets
    UNKNOWN"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        user(m)
        m.boot()
        serves(m, 2, 2000)
        m.install({CONF: ("[Sizing]\nMaxWorkers=8\n", 0o600)})
        check(m, 3, f"{CONF} cannot be read by this user", "as root", topic="hidden", user="bob")
        check(m, 0)
        m.run(f"rm {CONF}")
        m.run("mount -o remount,hidepid=2 /proc")
        check(m, 3, "hidden from this user", "as root", topic="hidden", user="bob")
        check(m, 0)


@case(versions=(252,))
def without_systemd(e2e):
    """show, check and apply in a container without systemd: answers and messages, no stack traces"""
    with e2e.machine(cpus=4, memory_kb=KB_8G) as m:
        m.start("/bin/sleep", "1000")
        for command, status in {"": 0, "show": 0, "explain": 0, "preview": 0, "check": 3, "apply": 2, "apply -n": 2}.items():
            got, output, error = helper(m, command, "nobody")
            equal(got, status, f"{command}: {output}{error}")
            expect("panicked" not in error, error)
        line = helper(m, "check")[1]
        expect(line.startswith("PYPNM-SIZING UNKNOWN - pypnm.service: systemd is not running") and "env --write" in line, line)
        m.run("mv /usr/bin/systemctl /root/; mv /bin/systemctl /root/ 2>/dev/null; true")
        line = helper(m, "check")[1]
        expect("there is no systemctl" in line, line)
