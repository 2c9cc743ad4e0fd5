"""The real PyPNM as a service under a real systemd, started in every supported way."""

from pathlib import Path

from suite import (
    ENV_FILE, FOREIGN, KB_4G, KB_8G, KB_16G, case, dropin, equal, expect, generated, loaded, processes, profile, request, serves,
    workers,
)  # fmt: skip

WRAPPER = (Path(__file__).resolve().parents[2] / "pypnm/start-fastapi-service.sh").read_text()
# A thousand reloads in the background; /run/reloads contains the count.
RELOADS = """
echo 0 > /run/reloads
(
    i=0
    while [ $i -lt 1000 ] && systemctl daemon-reload; do i=$((i+1)); echo $i > /run/reloads; done
    if [ $i = 1000 ]; then echo done; else echo failed; fi > /run/reloads
) >/dev/null 2>&1 &
"""
UVICORN = "/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app --host 127.0.0.1 --port 8000"


@case(fast=(252, 257, 262))
def first_proof(e2e):
    """A unit without any reference to sizing, right after boot; after new hardware, daemon-reload and restart: new
    numbers"""
    with e2e.machine(cpus=2, memory_kb=KB_4G) as m:
        m.boot()
        equal(int(m.run("systemctl --version").stdout.split()[1]), e2e.version, "systemd's version")
        running = serves(m, 1, 1000)
        equal((running["profile_env_path"], running["profile_exists"]), (ENV_FILE, True), "the file that PyPNM reads")
        expect("PYPNM_SERVE_WORKERS=1" in m.read(ENV_FILE), "the file's text")

        m.hardware(cpus=4, memory_kb=KB_16G)
        m.systemctl("daemon-reload")
        equal(loaded(m)["PYPNM_SERVE_WORKERS"], "4", "what systemd loaded after the reload")
        equal(len(workers(m)), 1, "live workers of the service that was not restarted")
        m.systemctl("restart", "pypnm.service")
        serves(m, 4, 2000)
        e2e.note("2c/4G: 1 worker, 1000; after the reload and a restart on 4c/16G: 4 workers, 2000")


@case(fast=(254,))
def packaged_unit(e2e):
    """The packaged pypnm.service, enabled and booted"""
    with e2e.machine(cpus=2, memory_kb=KB_8G) as m:
        m.run("systemctl disable --quiet pypnm.service; rm /etc/systemd/system/pypnm.service; systemctl enable --quiet pypnm.service")
        m.boot()
        serves(m, 2, 1000)
# Versions before 254 print /lib in the path even if /usr is merged.
        unit = m.show("pypnm.service", "FragmentPath")
        expect(unit.removeprefix("/usr") == "/lib/systemd/system/pypnm.service", f"the unit: {unit}")
        verified = m.run("systemd-analyze verify pypnm.service", check=False)
        equal((verified.returncode, verified.stderr), (0, ""), "systemd-analyze verify")


@case(fast=(257,))
def wrapper(e2e):
    """PyPNM's start-fastapi-service.sh (a stand-in with the same behavior): the profile's numbers, the caller's
    options"""
    script = "/usr/local/bin/start-fastapi-service.sh"
    start = f"/usr/bin/env PATH=/opt/pypnm/bin:/usr/bin:/bin {script} --host 127.0.0.1"
    with e2e.machine(cpus=2, memory_kb=KB_8G, files={script: (WRAPPER, 0o755)}, start=start) as m:
        m.boot()
        serves(m, 2, 1000, source="explicit_cli")
        m.install({"/etc/systemd/system/pypnm.service.d/flag.conf": dropin("ExecStart=", f"ExecStart={start} --workers 1")})
        m.systemctl("daemon-reload")
        m.systemctl("restart", "pypnm.service", timeout=200)
        serves(m, 1, 1000, source="explicit_cli")


@case(fast=(257,))
def uvicorn_itself(e2e):
    """A unit that starts uvicorn directly"""
    with e2e.machine(cpus=2, memory_kb=KB_8G, start=UVICORN) as m:
        m.boot()
        profile(m)
        m.until(lambda: len(workers(m)) == 2, "2 live workers")
        m.run(f"! tr '\\0' ' ' < /proc/{m.show('pypnm.service', 'MainPID')}/cmdline | grep -e --workers")


@case(fast=(252,))
def recycle_one_worker(e2e):
    """A single worker that reaches its limit is restarted; without the drop-in's Restart=always, the service would
    end"""
    files = {"/etc/pypnm/sizing.conf": "[Sizing]\nLimitMaxRequests=5\n"}
    with e2e.machine(files=files) as m:
        m.boot()
        serves(m, 1, 5)
        main = m.show("pypnm.service", "MainPID")
        m.until(lambda: not request(m) or m.show("pypnm.service", "MainPID") != main, "the worker to reach its limit")
        m.until(lambda: int(m.show("pypnm.service", "NRestarts")) >= 1, "systemd to start it again")
        serves(m, 1, 5)

        m.install({"/etc/systemd/system/pypnm.service.d/20-test.conf": dropin("Restart=on-failure")})
        m.systemctl("daemon-reload")
        m.systemctl("restart", "pypnm.service")
        profile(m)
        m.until(lambda: not request(m) and m.show("pypnm.service", "ActiveState") == "inactive", "the service to end for good")
        equal(m.show("pypnm.service", "Result"), "success", "its result")


@case(fast=(257,))
def recycle_several_workers(e2e):
    """Two workers that reach their limits are replaced, and the service stays up"""
    files = {"/etc/pypnm/sizing.conf": "[Sizing]\nLimitMaxRequests=5\n"}
    with e2e.machine(memory_kb=KB_8G, files=files) as m:
        m.boot()
        serves(m, 2, 5)
        before, main = set(workers(m)), m.show("pypnm.service", "MainPID")
        m.until(lambda: request(m) and not before & set(workers(m)), "both workers to be replaced", timeout=120)
        m.until(lambda: len(workers(m)) == 2, "2 live workers")
        equal(m.show("pypnm.service", "MainPID"), main, "the main process")
        equal(m.show("pypnm.service", "NRestarts"), "0", "restarts by systemd")


@case(fast=(252,))
def crash_loop(e2e):
    """A service that crashes at every start ends as failed, not in an endless loop; after it is fixed, it is sized"""
    with e2e.machine() as m:
        m.install({"/etc/systemd/system/pypnm.service.d/20-broken.conf": dropin("ExecStartPre=/bin/false", "RestartSec=0")})
        m.boot()
        m.until(lambda: m.show("pypnm.service", "ActiveState") == "failed", "the service to fail")
        expect("PYPNM_SERVE_WORKERS=1" in generated(m), "the drop-in")
        m.run("rm /etc/systemd/system/pypnm.service.d/20-broken.conf")
        m.systemctl("daemon-reload")
        m.systemctl("reset-failed", "pypnm.service")
        m.systemctl("start", "pypnm.service")
        serves(m, 1, 1000)


@case()
def thousand_reloads(e2e):
    """A thousand daemon-reloads while the service restarts: PyPNM never sizes itself"""
    with e2e.machine() as m:
        m.boot()
        serves(m, 1, 1000)
        m.run(RELOADS)
        starts = 0
        while (count := m.read("/run/reloads").strip()) != "done":
            expect(count != "failed", "a reload failed")
            m.systemctl("restart", "pypnm.service")
            serves(m, 1, 1000)
            starts += 1
        expect(starts > 3, f"only {starts} restarts while it reloaded")
        journal = m.journal("-u", "pypnm.service", "-o", "cat")
        equal(journal.count("Auto-selected FastAPI runtime profile: workers=1 limit_max_requests=1000 profile=/run/pypnm-sizing"), starts + 1, "starts with the sized profile")
        e2e.note(f"{starts} restarts during 1000 reloads, each with the sized profile")
