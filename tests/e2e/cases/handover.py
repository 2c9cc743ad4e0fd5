"""No request is lost when workers are recycled, or when the service is restarted, resized, moved or upgraded. With the real
PyPNM, the packaged unit and the load of load.py. Each case has a control, plain PyPNM in the same situation, which must lose
requests.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time

import images
from suite import KB_8G, KB_16G, case, dropin, equal, expect, processes, profile, workers

UNIT = "pypnm.service"
LOAD = "/usr/lib/e2e-load.py"
STOP = "/run/stop-load"
OFF = {"/etc/systemd/system/pypnm.service.d/20-plain.conf": dropin("Environment=PYPNM_HANDOVER=no")}


def _sizing(workers_, limit):
    return {"/etc/pypnm/sizing.conf": f"[Sizing]\nWorkers={workers_}\nLimitMaxRequests={limit}\n"}


@contextlib.contextmanager
def _booted(e2e, workers_=1, limit=2000, files=None, memory_kb=KB_8G):
    """Boots a machine whose packaged service responds, with this profile."""
    load = {LOAD: (images.HERE / "load.py").read_text()}
    with e2e.machine(memory_kb=memory_kb, files={**_sizing(workers_, limit), **load, **(files or {})}) as m:
        m.run("systemctl disable --quiet pypnm.service; rm /etc/systemd/system/pypnm.service; systemctl enable --quiet pypnm.service")
        m.boot()
        profile(m)
        yield m


class _Load:
    """Runs load.py in the machine until the end of the block. `result` is then its report."""

    def __init__(self, machine, *options, new=8, keep_alive=4, trickle=1):
        self.machine, self.result, self._errors = machine, {}, ""
        self.command = ["python3", LOAD, "--seconds", "400", "--stop-file", STOP, *options]
        self.command += ["--new", str(new), "--keep-alive", str(keep_alive), "--trickle", str(trickle)]

    def __enter__(self):
        self.machine.run(["rm", "-f", STOP])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        time.sleep(1)
        return self

    def _run(self):
        done = self.machine.run(self.command, check=False, timeout=500)
        self._errors = done.stderr
        with contextlib.suppress(ValueError):
            self.result = json.loads(done.stdout)

    def __exit__(self, kind, *_):
        self.machine.run(["touch", STOP], check=kind is None)
        self._thread.join()
        expect(kind is not None or self.result, f"the load printed no result: {self._errors}")

    def failures(self, how):
        """How many requests failed like this."""
        return sum(kind.get(how, 0) for kind in self.result.values() if isinstance(kind, dict))

    def slowest(self):
        """How long the slowest answer took, in seconds."""
        return max(kind["slowest"] for kind in self.result.values() if isinstance(kind, dict) and kind.get("answered"))

    def summary(self):
        """In a line, for the notes."""
        return f"{self.result['answered']} requests, {self.result['lost']} lost, slowest {self.slowest()} s"


def _nothing_lost(e2e, load, what):
    e2e.note(f"{what}: {load.summary()}")
    equal((load.result["lost"], load.result["losses"]), (0, []), f"requests lost, {what}")
    expect(load.result["answered"] >= 50, f"only {load.result['answered']} requests, {what}")


def _control(e2e, load, what):
    """Plain PyPNM must lose requests; otherwise, the load proves nothing."""
    e2e.note(f"plain PyPNM, {what}: {load.summary()}")
    expect(load.failures("refused") > 0, f"the control lost nothing: {load.result}")


def _main(m):
    return m.show(UNIT, "MainPID")


def _is_launcher(m):
    return "pypnm_handover" in m.run(f"tr '\\0' ' ' </proc/{_main(m)}/cmdline").stdout


def _started(m):
    """The number of workers started since boot."""
    return m.journal("-u", UNIT, "-o", "cat").count("Started server process")


def _recycles(e2e, workers_, limit, number):
    """Runs the load until `number` workers have been replaced."""
    with _booted(e2e, workers_, limit, memory_kb=KB_16G) as m:
        m.until(lambda: len(workers(m)) == workers_, f"{workers_} workers")
        m.until(lambda: _started(m) == workers_, "all workers to serve")
        main = _main(m)
        with _Load(m, new=15) as load:
            m.until(lambda: _started(m) >= workers_ + number, f"{number} workers to be recycled", timeout=180)
            time.sleep(1)
        _nothing_lost(e2e, load, f"{workers_} workers, {number} recycled")
        equal((_main(m), m.show(UNIT, "NRestarts")), (main, "0"), "main process, restarts by systemd")
        equal(profile(m)["active_limit_max_requests"], limit, "the limit that PyPNM reports")
        m.until(lambda: len(workers(m)) == workers_, f"{workers_} workers in the end")


@case(fast=(252,))
def recycle_of_one_worker(e2e):
    """Handover: a worker that reaches its limit is replaced under load without losing a request; plain PyPNM refuses
    some"""
    _recycles(e2e, 1, 150, 2)
    with _booted(e2e, 1, 150, files=OFF) as m:
        expect(not _is_launcher(m), "PYPNM_HANDOVER=no starts the launcher")
        with _Load(m, new=15) as load:
            m.until(lambda: int(m.show(UNIT, "NRestarts")) >= 1, "the worker to end at its limit")
            profile(m)
        _control(e2e, load, "one recycle")
        output = m.journal("-u", UNIT, "-o", "cat")
        equal(output.count("PYPNM_HANDOVER=no: starting plain pypnm, without handover"), output.count("Launching FastAPI"), "lines that say so")


@case()
def recycles_of_two_and_four_workers(e2e):
    """Handover: two and four workers that reach their limits are replaced one at a time, and no request is lost"""
    _recycles(e2e, 2, 150, 4)
    _recycles(e2e, 4, 100, 8)


@case(versions=(252, 262), fast=())
def controls_with_two_and_four_workers(e2e):
    """Handover: plain PyPNM with two and four workers loses requests at their limits, or has no serving worker for
    seconds"""
    for workers_, limit in ((2, 150), (4, 100)):
        with _booted(e2e, workers_, limit, files=OFF, memory_kb=KB_16G) as m:
            m.until(lambda count=workers_: _started(m) == count, "all workers to serve")
            with _Load(m, new=15) as load:
                m.until(lambda count=workers_: _started(m) >= 2 * count, "all workers to be recycled", timeout=240)
                time.sleep(1)
            e2e.note(f"plain PyPNM, {workers_} workers, all recycled: {load.summary()}")
            expect(load.result["lost"] > 0 or load.slowest() > 3, f"the control neither lost a request nor stalled: {load.result}")


@case(fast=(252,))
def restarts(e2e):
    """Handover: restarts, also during another restart, lose no request; plain PyPNM refuses some"""
    with _booted(e2e) as m:
        with _Load(m, "--slow", "1") as load:
            for pause in (2.0, 0.7, 0.0, 3.3):
                m.systemctl("restart", UNIT)
                time.sleep(pause)
            m.systemctl("restart", "--no-block", UNIT)
            time.sleep(1.5)
            m.systemctl("restart", UNIT)
            time.sleep(1)
        _nothing_lost(e2e, load, "6 restarts")
    with _booted(e2e, files=OFF) as m:
        with _Load(m) as load:
            m.systemctl("restart", UNIT)
        _control(e2e, load, "a restart")


@case()
def restarts_at_odd_moments(e2e):
    """Handover: restarts at every stage of a start, of two workers and of a successor, lose no request"""
    with _booted(e2e, 2) as m:
        with _Load(m) as load:
            for step in range(12):
                m.systemctl("restart", "--no-block", UNIT)
                time.sleep(0.45 * step)
            m.systemctl("restart", UNIT)
            for step in range(5):
                m.systemctl("reload", "--no-block", UNIT)
                time.sleep(0.3 + 0.8 * step)
                m.systemctl("restart", UNIT)
            time.sleep(1)
        _nothing_lost(e2e, load, "18 restarts, 5 of them during a reload")


@case(fast=(252,))
def resizes(e2e):
    """Handover: `systemctl reload` changes a running service from 1 to 2 to 1 workers without losing a request, and
    waits until it is complete"""
    with _booted(e2e, 1) as m:
        main = _main(m)
        with _Load(m) as load:
            for count, limit in ((2, 1500), (1, 900)):
                before = set(workers(m))
                m.install(_sizing(count, limit))
                m.systemctl("daemon-reload")
                m.systemctl("reload", UNIT)
                after = workers(m)
                equal((len(after), before & set(after)), (count, set()), "workers after the reload")
                running = profile(m)
                equal((running["active_workers"], running["active_limit_max_requests"]), (count, limit), "runtimeProfile after the reload")
        _nothing_lost(e2e, load, "1, 2, 1 workers")
        equal((_main(m), m.show(UNIT, "NRestarts"), m.show(UNIT, "ActiveState")), (main, "0", "active"), "the service")


@case(versions=(252, 262), fast=())
def controls(e2e):
    """Handover: plain PyPNM loses requests in the situations of the other cases: a new profile, a restart on another
    port, with TLS, SIGKILL, an upgrade of the package"""

    def upgrade(m):
        m.copy(e2e.package, "/tmp/product.deb")
        m.run("dpkg --force-depends --install /tmp/product.deb", timeout=300)
        m.systemctl("restart", UNIT)

    def resize(m):
        m.install(_sizing(2, 1500))
        m.systemctl("daemon-reload")
        m.systemctl("restart", UNIT)

    with _booted(e2e, files=OFF) as m:
        for what, change in (("1, 2 workers", resize), ("the package's upgrade", upgrade)):
            with _Load(m) as load:
                change(m)
            _control(e2e, load, what)
        m.install({**_sizing(1, 2000), "/etc/pypnm/pypnm.env": "PYPNM_PORT=9000\n"})
        m.run("systemctl daemon-reload; systemctl restart pypnm.service")
        with _Load(m, "--port", "9000") as load:
            m.systemctl("restart", UNIT)
        _control(e2e, load, "a restart on port 9000")
        # With one worker, the main process is the worker.
        with _Load(m, "--port", "9000") as load:
            restarts_before = m.show(UNIT, "NRestarts")
            m.run(["kill", "-KILL", _main(m)])
            m.until(lambda: m.show(UNIT, "NRestarts") != restarts_before and m.show(UNIT, "ActiveState") == "active", "the next start")
        _control(e2e, load, "SIGKILL of the worker")
        _certificate(m)
        m.install({"/etc/pypnm/pypnm.env": TLS})
        m.systemctl("restart", UNIT)
        with _Load(m, "--tls") as load:
            m.systemctl("restart", UNIT)
        _control(e2e, load, "a restart with TLS")


# A version 1 cgroup with a limit, on a machine whose version 2 has no memory controller. Not mounted in a standard
# place.
V1 = "/run/e2e-memory"


@contextlib.contextmanager
def _memory_group(m):
    """The service's memory: functions that return its usage and the killed processes, and one that sets its limit."""
    name = f"e2e-{m.dir.name}"
    native = "memory" in m.run("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()
    if native:
        yield {
            "usage": lambda: int(m.show(UNIT, "MemoryCurrent")) - _statistic(m, f"/sys/fs/cgroup{m.show(UNIT, 'ControlGroup')}/memory.stat", "inactive_file"),
            "limit": lambda size: m.systemctl("set-property", "--runtime", UNIT, f"MemoryMax={size or 'infinity'}"),
            "kills": lambda: _statistic(m, f"/sys/fs/cgroup{m.show(UNIT, 'ControlGroup')}/memory.events", "oom_kill"),
        }
        return
    group = f"{V1}/{name}"
    m.run(f"mkdir {V1} && mount -t cgroup -o memory memory {V1} && mkdir {group} && chown pypnm {group}/cgroup.procs")
    start = f"/bin/sh -c 'echo $$$$ >{group}/cgroup.procs && exec /usr/lib/pypnm-sizing/handover pypnm serve --host ${{PYPNM_HOST}} --port ${{PYPNM_PORT}}'"
    m.install({"/etc/systemd/system/pypnm.service.d/20-memory.conf": dropin("ExecStart=", f"ExecStart={start}", f"ReadWritePaths={group}")})
    m.run("systemctl daemon-reload; systemctl restart pypnm.service")
    try:
        yield {
            "usage": lambda: int(m.read(f"{group}/memory.usage_in_bytes")) - _statistic(m, f"{group}/memory.stat", "total_inactive_file"),
            "limit": lambda size: m.run(f"echo {size or -1} >{group}/memory.limit_in_bytes"),
            "kills": lambda: _statistic(m, f"{group}/memory.oom_control", "oom_kill"),
        }
    finally:
        m.run(f"systemctl stop pypnm.service; rmdir {group}", check=False)


def _statistic(m, file, key):
    return int(dict(line.split() for line in m.read(file).splitlines())[key])


@case(versions=(252, 262), fast=())
def little_memory(e2e):
    """Handover: if the memory limit leaves no room for one more worker, a worker is recycled without a successor: no
    request is refused, no process is killed, and a message says why"""
    with _booted(e2e, 1, 100) as m, _memory_group(m) as memory:
        profile(m)
        # Half a worker in addition.
        limit = memory["usage"]() + (100 << 20)
        memory["limit"](limit)
        before, most = _started(m), 0
        with _Load(m, new=15) as load:

            def recycled():
                nonlocal most
                # Between two workers there is none, and workers() would count the parent.
                most = max(most, sum("spawn_main" in command for _, command in processes(m)))
                return _started(m) >= before + 2

            m.until(recycled, "two recycles", timeout=180)
        _nothing_lost(e2e, load, f"two recycles in {limit >> 20} MiB")
        output = m.journal("-u", UNIT, "-o", "cat")
        line = re.search("not enough memory to start a successor first, so a worker is replaced after it has ended: .* leaves .*", output)
        expect(line, f"the journal does not say why:\n{output}")
        e2e.note(line[0])
        equal((memory["kills"](), most, m.show(UNIT, "NRestarts")), (0, 1, "0"), "processes that the kernel killed, workers at a time, restarts")
        # With enough memory again, the successor starts first.
        memory["limit"](None)
        m.systemctl("reload", "--no-block", UNIT)
        m.until(lambda: len(workers(m)) == 2, "a successor beside the worker")


TLS = "PYPNM_OPTIONS=--ssl --cert /etc/pypnm/cert.pem --key /etc/pypnm/key.pem\n"


def _certificate(m):
    m.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout /etc/pypnm/key.pem "
        "-out /etc/pypnm/cert.pem 2>/dev/null && chown pypnm /etc/pypnm/key.pem"
    )


@case()
def applies(e2e):
    """Handover: `apply` reloads if only the profile changed, restarts if the port changed too, and says so; neither
    loses a request"""
    with _booted(e2e, 1) as m:
        main = _main(m)
        with _Load(m) as load:
            m.install(_sizing(2, 1500))
            expect("would be reloaded" in m.run("pypnm-sizing apply --dry-run").stdout, "--dry-run")
            done = m.run("pypnm-sizing apply")
            expect("its profile has changed, reloading" in done.stdout and "OK" in done.stdout, done.stdout)
            equal((_main(m), profile(m)["active_workers"]), (main, 2), "the main process, the workers")
        _nothing_lost(e2e, load, "apply by a reload")
        m.install({**_sizing(1, 900), "/etc/pypnm/pypnm.env": "PYPNM_PORT=8000\nMALLOC_ARENA_MAX=2\n"})
        with _Load(m) as load:
            done = m.run("pypnm-sizing apply")
            expect("its profile has changed, restarting (MALLOC_ARENA_MAX has changed)" in done.stdout, done.stdout)
            equal((_main(m) == main, profile(m)["active_workers"]), (False, 1), "the same main process, the workers")
        _nothing_lost(e2e, load, "apply by a restart")
    with _booted(e2e, 1, files=OFF) as m:
        with _Load(m) as load:
            m.install(_sizing(2, 1500))
            done = m.run("pypnm-sizing apply", check=False)
            expect("its profile has changed, restarting …" in done.stdout, done.stdout)
        _control(e2e, load, "apply")
        # A change that cannot be handed over is not applied by a reload.
        main = _main(m)
        m.systemctl("reload", UNIT)
        equal((_main(m), m.show(UNIT, "ActiveState")), (main, "active"), "plain PyPNM after a reload")


@case()
def checks_meanwhile(e2e):
    """Handover: `check` does not warn while a reload is in progress or a worker is recycled"""
    with _booted(e2e, 2, 60) as m:
        m.until(lambda: m.run("pypnm-sizing check", check=False).returncode == 0, "check to be content")
        texts = {}
        with _Load(m, new=15) as load:
            deadline = time.monotonic() + 40
            while time.monotonic() < deadline:
                if m.show(UNIT, "ActiveState") == "active" and time.monotonic() > deadline - 20:
                    m.systemctl("reload", "--no-block", UNIT)
                done = m.run("pypnm-sizing check", check=False)
                texts.setdefault((done.returncode, m.show(UNIT, "ActiveState")), done.stdout)
        _nothing_lost(e2e, load, "recycles and reloads")
        expect(_started(m) > 2, "no worker was replaced meanwhile")
        equal([text for (status, _), text in texts.items() if status != 0], [], "what check complains of")
        expect((0, "reloading") in texts and (0, "active") in texts, f"the states that check met: {sorted(texts)}")


@case()
def another_address(e2e):
    """Handover: another port and host in pypnm.env take effect at a restart; the old socket is closed, and one is
    kept"""

    def kept(m):
        return m.show(UNIT, "NFileDescriptorStore")

    with _booted(e2e) as m:
        equal(kept(m), "1", "descriptors in the store")
        m.install({"/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n"})
        for host, port in (("127.0.0.1", 9000), ("127.0.0.2", 9000), ("::1", 9000), ("localhost", 8000)):
            m.install({"/etc/pypnm/pypnm.env": f"PYPNM_HOST={host}\nPYPNM_PORT={port}\n"})
            m.systemctl("restart", UNIT)
            listening = sorted(re.findall(r"LISTEN\s+\S+\s+\S+\s+(\S+)", m.run("ss -lnt").stdout))
            expected = {"localhost": ["127.0.0.1:8000", "[::1]:8000"], "::1": ["[::1]:9000"]}.get(host, [f"{host}:{port}"])
            equal(listening, expected, f"where it listens, {host} port {port}")
            equal(kept(m), str(len(listening)), "descriptors in the store")
            with _Load(m, "--host", host, "--port", str(port)) as load:
                m.systemctl("restart", UNIT)
            _nothing_lost(e2e, load, f"a restart on {host} port {port}")
        m.systemctl("stop", UNIT)
        equal((kept(m), "LISTEN" in m.run("ss -lnt").stdout), ("0", False), "descriptors and listeners of the stopped service")


@case()
def tls(e2e):
    """Handover: with TLS, during recycling, a restart and a reload"""
    with _booted(e2e, 1, 150) as m:
        _certificate(m)
        m.install({"/etc/pypnm/pypnm.env": TLS})
        m.systemctl("restart", UNIT)
        before = _started(m)
        with _Load(m, "--tls", new=15) as load:
            m.until(lambda: _started(m) >= before + 2, "two recycles", timeout=120)
            m.systemctl("restart", UNIT)
            m.systemctl("reload", UNIT)
        _nothing_lost(e2e, load, "TLS")


@case()
def killed(e2e):
    """Handover: after SIGKILL of the worker or the parent, connections wait and are not refused; only requests in
    progress are lost"""
    for who in ("worker", "parent"):
        with _booted(e2e) as m:
            with _Load(m) as load:
                pid = workers(m)[0] if who == "worker" else _main(m)
                m.run(["kill", "-KILL", str(pid)])
                m.until(lambda old=pid: str(old) not in map(str, workers(m)) and _main(m) != str(old) and profile(m), "the service to serve again")
            e2e.note(f"SIGKILL of the {who}: {load.summary()}")
            expect(load.failures("refused") == 0 and load.result["lost"] <= 6, f"SIGKILL of the {who}: {load.result}")
            equal(m.show(UNIT, "NRestarts"), "0" if who == "worker" else "1", "restarts by systemd")
    with _booted(e2e, files=OFF) as m:
        with _Load(m) as load:
            m.run(["kill", "-KILL", _main(m)])
            m.until(lambda: int(m.show(UNIT, "NRestarts")) >= 1 and profile(m), "the service to serve again")
        _control(e2e, load, "SIGKILL")


# First on PyPNM's import path; only workers import it.
BROKEN = "/var/lib/pypnm/src/fastapi/__init__.py"


@case()
def workers_die_at_their_start(e2e):
    """Handover: if successors cannot start, the old worker continues to serve; without one, the service fails with
    status 3"""
    with _booted(e2e) as m:
        old = workers(m)
        with _Load(m) as load:
            m.install({BROKEN: "raise RuntimeError('broken')\n"})
            done = m.run(["systemctl", "reload", UNIT], check=False)
            expect(done.returncode != 0, "the reload does not fail")
            expect("the reload failed, and the service continues as before" in m.journal("-u", UNIT), "the journal does not say that the reload has failed")
            equal(m.show(UNIT, "ActiveState"), "active", "the service after the failed reload")
            expect(set(old) <= set(workers(m)), "the old worker does not serve on")
            expect("failed to start (status 1)" in m.journal("-u", UNIT), "the journal does not say that a worker died")
            m.run(["rm", BROKEN])
            m.until(lambda: not set(old) & set(workers(m)), "the successor to take over", timeout=120)
        _nothing_lost(e2e, load, "a reload that failed, then succeeded")
        m.install({BROKEN: "raise RuntimeError('broken')\n", "/etc/systemd/system/pypnm.service.d/20-test.conf": dropin("ExecStartPost=", "Restart=no")})
        m.systemctl("daemon-reload")
        m.systemctl("restart", UNIT)
        m.until(lambda: m.show(UNIT, "ActiveState") == "failed", "the service to fail", timeout=120)
        equal((m.show(UNIT, "ExecMainStatus"), m.show(UNIT, "NFileDescriptorStore")), ("3", "0"), "its status, descriptors in the store")
        expect("LISTEN" not in m.run("ss -lnt").stdout, "the failed service still listens")


@case()
def upgrades(e2e):
    """Handover: the package is reinstalled under load, then reloaded and restarted: no request is lost"""
    with _booted(e2e) as m:
        m.copy(e2e.package, "/tmp/product.deb")
        main = _main(m)
        with _Load(m) as load:
            m.run("dpkg --force-depends --install /tmp/product.deb", timeout=300)
            equal(_main(m), main, "the main process after the upgrade")
            m.systemctl("reload", UNIT)
            m.systemctl("restart", UNIT)
        _nothing_lost(e2e, load, "the package's upgrade, a reload, a restart")


# As in pypnm-sizing-handover(7).
OWN_UNIT = """\
/usr/lib/pypnm-sizing/handover pypnm serve --host 127.0.0.1 --port 8000
Environment=PATH=/opt/pypnm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
NotifyAccess=main
FileDescriptorStoreMax=8
KillMode=mixed
ExecReload=-+/usr/bin/pypnm-sizing env --unit=%n --write /run/pypnm-sizing/%n.env
ExecReload=/usr/lib/pypnm-sizing/handover --reload"""


@contextlib.contextmanager
def _own_unit(e2e, files=None):
    """Boots a machine where the operator's own unit starts the launcher, and waits until it responds."""
    load = {LOAD: (images.HERE / "load.py").read_text()}
    with e2e.machine(memory_kb=KB_8G, start=OWN_UNIT, files={**_sizing(1, 2000), **load, **(files or {})}) as m:
        m.boot()
        profile(m)
        yield m


@case(fast=())
def own_unit_and_new_environment(e2e):
    """Handover: an own unit with the lines from the man page: a reload, a restart, and switching PATH= to a PyPNM in
    a new environment lose no request"""
    new = "/opt/pypnm-new"
    with _own_unit(e2e) as m:
        m.run(f"cp -a /opt/pypnm {new} && sed -i '1s,^#!.*,#!{new}/bin/python3,' {new}/bin/pypnm")
        path = dropin(f"Environment=PATH={new}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
        with _Load(m) as load:
            m.install(_sizing(2, 1500))
            m.run("systemctl daemon-reload && systemctl reload pypnm.service")
            equal(profile(m)["active_workers"], 2, "workers after the reload")
            m.install({"/etc/systemd/system/pypnm.service.d/20-path.conf": path})
            m.run("systemctl daemon-reload && systemctl restart pypnm.service")
            profile(m)
        _nothing_lost(e2e, load, "a reload, a restart in a new environment")
        # The interpreter, the command, and PyPNM itself.
        commands = [command for _, command in processes(m)]
        expect(all(command.startswith(f"{new}/bin/python3 ") for command in commands), f"processes: {commands}")
        equal(re.findall(r"/opt/[^/]+/", m.run(f"cat /proc/{workers(m)[0]}/maps").stdout).count("/opt/pypnm/"), 0, "files of the old environment in use")


@case(fast=())
def socket_unit(e2e):
    """Handover: with an operator's socket unit: a restart, a reload, and a stop followed by a start on demand lose
    no request"""
    socket = "[Socket]\nListenStream=127.0.0.1:8000\n[Install]\nWantedBy=sockets.target\n"
    with _own_unit(e2e, {"/etc/systemd/system/pypnm.socket": socket}) as m:
        # The service already listens on the port of the socket unit.
        m.run("systemctl stop pypnm.service && systemctl enable --quiet --now pypnm.socket")
        profile(m)
        expect("listening on the sockets of the socket unit: 127.0.0.1:8000" in m.journal("-u", UNIT), "the journal does not say where it listens")
        with _Load(m) as load:
            m.systemctl("restart", UNIT)
            m.systemctl("reload", UNIT)
            main = _main(m)
            m.systemctl("stop", UNIT)
            m.until(lambda: _main(m) not in ("0", main) and profile(m), "a connection to start the service")
        _nothing_lost(e2e, load, "a restart, a reload, a stop of a service with a socket unit")
        equal(m.show(UNIT, "NFileDescriptorStore"), "0", "descriptors in the store")


@case()
def pip_upgrades(e2e):
    """Handover: `pip install --force-reinstall` of the same PyPNM under load, while workers are recycled, then a
    reload"""

    def download(place):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, images.PYPNM]
        subprocess.run(command, check=True, stdout=sys.stderr)

    (wheel,) = images.cached("wheel-pypnm", [images.PYPNM], download).glob("*.whl")
    with _booted(e2e, 1, 150) as m:
        m.copy(wheel, f"/tmp/{wheel.name}")
        before = _started(m)
        with _Load(m, new=15) as load:
            for _ in range(3):
                m.run(f"/opt/pypnm/bin/pip install --quiet --force-reinstall --no-deps --no-index /tmp/{wheel.name}", timeout=300)
            m.systemctl("reload", UNIT)
            m.until(lambda: _started(m) >= before + 3, "workers of the new files", timeout=120)
        died = m.journal("-u", UNIT).count("failed to start (")
        e2e.note(f"three pip upgrades, {_started(m) - before} workers started, {died} died at their start: {load.summary()}")
        # While pip replaces files, a worker answers 500 if PyPNM needs one that is missing; the handover cannot change
        # that.
        equal(load.failures("status-500"), load.result["lost"], f"requests lost otherwise than by PyPNM's own answer: {load.result}")


@case()
def stop_within_its_bound(e2e):
    """Handover: clients that never finish a request delay a stop for the launcher's 30 s, not until systemd sends
    SIGKILL"""
    half = "import socket, time; s = socket.create_connection(('127.0.0.1', 8000)); s.sendall({!r}); time.sleep(300)"
    request = b"POST /system/sysDescr HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with _booted(e2e) as m:
        m.install({"/usr/lib/e2e-half.py": half.format(request)})
        m.run("systemd-run --quiet python3 /usr/lib/e2e-half.py && sleep 2")
        started = time.monotonic()
        m.systemctl("stop", UNIT)
        took = time.monotonic() - started
        equal((m.show(UNIT, "Result"), m.show(UNIT, "ActiveState")), ("success", "inactive"), "how the service ended")
        expect(took < 44, f"the stop took {took:.0f} s")
        e2e.note(f"a request that never ends: stopped after {took:.0f} s")


@case()
def what_it_costs(e2e):
    """Handover: memory of the idle service compared with plain PyPNM, and at most one additional worker while a
    successor starts"""

    def memory(m):
        """Sum of PSS, MiB."""
        files = " ".join(f"/proc/{pid}/smaps_rollup" for pid, _ in processes(m))
        return sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", m.run(f"cat {files}", check=False).stdout, re.MULTILINE)) >> 10

    idle = {}
    for name, files in (("plain", OFF), ("handed over", None)):
        with _booted(e2e, files=files) as m:
            time.sleep(2)
            idle[name] = memory(m)
            if files is None:
                m.systemctl("reload", "--no-block", UNIT)
                peak, alive = 0, 0
                deadline = time.monotonic() + 60
                while m.show(UNIT, "ActiveState") == "reloading" or time.monotonic() < deadline - 58:
                    peak, alive = max(peak, memory(m)), max(alive, len(workers(m)))
                    expect(time.monotonic() < deadline, "the reload does not end")
    e2e.note(f"one worker, idle: plain {idle['plain']} MiB, handed over {idle['handed over']} MiB, at a handover {peak} MiB")
    equal(alive, 2, "workers at a handover")
    expect(idle["handed over"] - idle["plain"] < 60, f"the parent costs too much: {idle}")
