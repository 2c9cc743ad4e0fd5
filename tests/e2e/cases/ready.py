"""`ready` as used by the packaged unit, with the real PyPNM: it is up if and only if PyPNM itself responds."""

import tempfile
import time
from pathlib import Path

import images
from harness import write_certificate
from suite import KB_8G, KB_16G, case, dropin, equal, expect

UNIT = "pypnm.service"
OVERRIDE = f"/etc/systemd/system/{UNIT}.d/override.conf"
PYTHON = "/opt/pypnm/bin/python -m uvicorn pypnm.api.main:app"
# Responds at /health as PyPNM does.
STRANGER = """\
import http.server
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", 8000), Health).serve_forever()
"""


def packaged(e2e, files=None, memory_kb=KB_8G, environment=""):
    """A machine (off) with the packaged unit instead of the minimal one."""
    return e2e.machine(
        cpus=4, memory_kb=memory_kb, files={"/etc/pypnm/pypnm.env": environment, **(files or {})}, start="/bin/false",
    )  # fmt: skip


def certificate():
    """A key and a certificate, as files for the machine."""
    images.need("openssl")
    with tempfile.TemporaryDirectory() as directory:
        write_certificate(directory)
        return {f"/etc/pypnm/tls/{path.name}": path.read_bytes() for path in Path(directory).iterdir()}


def boot(m):
    m.run(f"rm /etc/systemd/system/{UNIT}; systemctl disable --quiet {UNIT} 2>/dev/null || true")
    m.boot()


def started(m, *lines):
    """Starts the service with these lines as an override, and returns the status of systemctl and the seconds it
    took."""
    m.run(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}", check=False)
    m.install({OVERRIDE: dropin(*lines)})
    m.systemctl("daemon-reload")
    begun = time.monotonic()
    status = m.run(f"systemctl start {UNIT}", check=False, timeout=200).returncode
    return status, time.monotonic() - begun


def messages(m):
    """The journal of the service since its last start."""
    return m.journal("-o", "cat", "-b", f"_SYSTEMD_INVOCATION_ID={m.show(UNIT, 'InvocationID')}")


def is_up(m, what, ask, *lines):
    """Checks that the start succeeds, and that the service responds immediately to `ask`, arguments for curl."""
    status, took = started(m, *lines)
    equal(status, 0, f"{what}: systemctl start, after {took:.0f} s, with {messages(m)[-1000:]}")
    done = m.run(f"curl -sk -m 10 -o /dev/null -w '%{{http_code}}' {ask}", check=False)
    equal(done.stdout, "200", f"{what}: its health")
    return took


@case(fast=(252,), row="A name with an IPv4 and an IPv6 address: a service that listens on one of them is up (A1)")
def every_address_of_a_name(e2e):
    """A1"""
    hosts = "127.0.0.1 localhost\n::1 localhost\n"
    with packaged(e2e, {"/etc/hosts": hosts}, environment="PYPNM_HOST=localhost\n") as m:
        boot(m)
        took = is_up(m, "localhost, two workers", "http://127.0.0.1:8000/health")
        e2e.note(f"two workers on localhost: up after {took:.0f} s")
        m.run("echo 'nameserver 192.0.2.1' > /etc/resolv.conf")
        m.install({"/etc/pypnm/pypnm.env": "PYPNM_HOST=0.0.0.0\n"})
        is_up(m, "a dead resolver", "http://127.0.0.1:8000/health")
        equal(m.show(UNIT, "NRestarts"), "0", "automatic restarts")


@case(fast=(252,), row="Another process on the port: the start fails, and the log names the process (A2)")
def a_stranger_on_the_port(e2e):
    """A2"""
    with packaged(e2e, {"/usr/lib/stranger.py": STRANGER}) as m:
        boot(m)
        m.run("systemd-run --unit=stranger python3 /usr/lib/stranger.py")
        m.until(lambda: m.run("curl -sf http://127.0.0.1:8000/health", check=False).returncode == 0, "the stranger")
        # The launcher listens before PyPNM does, and reports the error itself; plain PyPNM may fail long after the
        # start.
        for handover, reason in (("yes", "Address already in use"), ("no", "127.0.0.1:8000 belongs to")):
            for workers in (1, 2):
                where = f"{workers} workers, PYPNM_HANDOVER={handover}"
                options = f"Environment=PYPNM_OPTIONS='--workers {workers}' PYPNM_HANDOVER={handover}"
                status, took = started(m, options, "Restart=no")
                expect(status != 0, f"{where}: systemctl start says 0 after {took:.0f} s")
                equal(m.show(UNIT, "ActiveState"), "failed", f"{where}: the service")
                # uvicorn's parent process binds before it does anything else: systemd may end ready before that can report.
                also = "Address already in use" if workers == 2 else reason
                expect(reason in messages(m) or also in messages(m), f"{where}: {messages(m)}")
                e2e.note(next((line for line in messages(m).splitlines() if "belongs to" in line), f"{where}: {also}"))
        # The port is free again.
        m.systemctl("stop", "stranger")
        is_up(m, "after the stranger", "http://127.0.0.1:8000/health")


@case(fast=(252,), row="A Unix socket, an inherited descriptor, uvicorn's variables, abbreviated options, TLS: the actual listening socket counts (A3)")
def wherever_it_listens(e2e):
    """A3"""
    socket = f"[Socket]\nListenStream=127.0.0.1:8003\nService={UNIT}\n"
    with packaged(e2e, {"/etc/systemd/system/pypnm.socket": socket}, memory_kb=KB_16G) as m:
        boot(m)
        setting = "Environment=UVICORN_WORKERS=1"
        is_up(m, "--uds, one worker", "--unix-socket /run/pypnm/s http://x/health", "RuntimeDirectory=pypnm", "ExecStart=", f"ExecStart={PYTHON} --uds /run/pypnm/s --workers 1")
        is_up(m, "--uds, two workers", "--unix-socket /run/pypnm/s http://x/health", "RuntimeDirectory=pypnm", "ExecStart=", f"ExecStart={PYTHON} --uds /run/pypnm/s --workers 2")
        is_up(m, "UVICORN_PORT=", "http://127.0.0.1:8001/health", "Environment=UVICORN_HOST=127.0.0.1 UVICORN_PORT=8001", setting, "ExecStart=", f"ExecStart={PYTHON}")
        is_up(m, "--por", "http://127.0.0.1:8002/health", "Environment=PYPNM_PORT=8002", "ExecStart=", "ExecStart=/opt/pypnm/bin/pypnm serve --host 127.0.0.1 --por 8002 --work 2")
        is_up(m, "IPv6", "http://[::1]:8000/health", "Environment=PYPNM_HOST=::1 PYPNM_OPTIONS='--workers 1'")
        is_up(m, "--fd", "http://127.0.0.1:8003/health", "Sockets=pypnm.socket", setting, "ExecStart=", f"ExecStart={PYTHON} --fd 3 --workers 1")
        m.systemctl("stop", "pypnm.socket")
        m.install(certificate())
        tls = "--ssl-keyfile /etc/pypnm/tls/key --ssl-certfile /etc/pypnm/tls/certificate"
        is_up(m, "TLS", "https://127.0.0.1:8000/health", "ExecStart=", f"ExecStart={PYTHON} --workers 2 {tls}")


@case(row="The start fails if workers keep failing, and immediately if the main process ends")
def what_cannot_come_up(e2e):
    """A16"""
    with packaged(e2e, memory_kb=KB_16G) as m:
        boot(m)
        broken = "Environment=PYTHONPATH=/usr/lib/broken"
        m.install({"/usr/lib/broken/fastapi.py": "import time; time.sleep(0.5); raise SystemExit(3)\n"})
        status, took = started(m, broken, "ExecStart=", f"ExecStart={PYTHON} --workers 2", "Restart=no")
        expect(status != 0 and took < 60, f"systemctl start: {status} after {took:.0f} s: {messages(m)}")
        expect("workers have died at startup" in messages(m), messages(m))
        status, took = started(m, "ExecStart=", "ExecStart=/bin/sh -c 'sleep 2; exit 1'", "Restart=no")
        expect(status != 0 and took < 10, f"systemctl start: {status} after {took:.0f} s")
