"""Shared by the cases: the service's units, PyPNM's responses, its live processes."""

import json
import re

import harness
import images
from harness import equal, expect
from machine import Machine
from qemu import Guest

VERSIONS = (247, 252, 254, 257, 262)
GENERATED = "/run/systemd/generator/pypnm.service.d/10-pypnm-sizing.conf"
ENV_FILE = "/run/pypnm-sizing/pypnm.service.env"
GENERATOR = "/usr/lib/systemd/system-generators/pypnm-sizing-generator"

# A unit without any reference to sizing, as an operator writes it after reading PyPNM's documentation.
FOREIGN = """\
[Unit]
Description=PyPNM
[Service]
Type=exec
User=docsis
StateDirectory=pypnm-docsis
WorkingDirectory=/var/lib/pypnm-docsis
Environment=HOME=/var/lib/pypnm-docsis
ExecStart={start}
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""
# For machines on which PyPNM itself would take minutes to start, such as emulated ones.
IDLE = "/bin/sleep infinity"
SERVE = "/opt/pypnm/bin/pypnm serve --host 127.0.0.1 --port 8000"
# A stand-in for PyPNM: reads the profile where PyPNM does, has the same number of workers, started as Python starts
# them, and responds at /health.
STAND_IN = "/usr/bin/python3 /usr/lib/e2e-stand-in.py"
STAND_IN_FILES = {"/usr/lib/e2e-stand-in.py": """\
import http.server, multiprocessing, os, time

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if __name__ == "__main__":
    with open(os.environ["PYPNM_SERVE_ENV_FILE"]) as file:
        profile = dict(line.strip().split("=") for line in file if "=" in line and not line.startswith("#"))
    count = int(profile["PYPNM_SERVE_WORKERS"])
    if count > 1:
        context = multiprocessing.get_context("spawn")
        for _ in range(count):
            context.Process(target=time.sleep, args=(1e6,), daemon=True).start()
    http.server.HTTPServer(("127.0.0.1", 8000), Health).serve_forever()
"""}
# kB of MemTotal as reported by such machines.
KB_4G, KB_8G, KB_16G, KB_32G, KB_64G = 4022032, 8144656, 16389412, 32878856, 65857740

def case(versions=VERSIONS, fast=(), row=None):
    """Registers a function as a case that runs on `versions`, and with --fast on those in `fast`. `row`: its text in
    the matrix."""
    return harness.case(versions, fast, row)


class Context:
    """Passed to a case: the version to run on, and machines with the product installed."""

    note = staticmethod(harness.note)

    def __init__(self, version, root, layer, package):
        self.version, self.root, self.layer, self.package = version, root, layer, package

    def machine(self, cpus=2, memory_kb=KB_4G, files=None, start=SERVE, **options):
        """A machine (off) with the product and a unit that starts PyPNM with `start`."""
        machine = Machine(self.root, layers=[self.layer], **options)
        machine.__enter__()
        try:
            machine.hardware(cpus=cpus, memory_kb=memory_kb)
            machine.install({"/etc/systemd/system/pypnm.service": FOREIGN.format(start=start), **(files or {})})
            machine.run("useradd --system --no-create-home docsis && systemctl enable --quiet pypnm.service")
        except BaseException:
            machine.__exit__()
            raise
        return _Entered(machine)

    def guest(self, cpus, memory, files=None, start=SERVE, **options):
        """As `machine`, booted by QEMU."""
        (suite,) = (name for name, version in images.SUITES.items() if version == self.version)
        unit = "/etc/systemd/system/pypnm.service"
        files = {
            unit: FOREIGN.format(start=start),
            "/etc/systemd/system/multi-user.target.wants/pypnm.service": (unit, None),
            "/etc/sysusers.d/docsis.conf": "u docsis - - /nonexistent\n",
            **STAND_IN_FILES,
            **(files or {}),
        }
        return Guest(suite, cpus, memory, layers=[self.layer], files=files, **options)


class _Entered:
    """An existing machine, for `with`."""

    def __init__(self, machine):
        self.machine = machine

    def __enter__(self):
        return self.machine

    def __exit__(self, *_):
        self.machine.__exit__()


def profile(machine, timeout=90):
    """The effective values as reported by PyPNM, once it responds."""

    def ask():
        done = machine.run(["curl", "-sf", "http://127.0.0.1:8000/pypnm/system/webService/runtimeProfile"], check=False)
        return done.stdout if done.returncode == 0 else None

    return json.loads(machine.until(ask, "PyPNM to answer", timeout))["profile"]


def request(machine):
    """Sends one more request; returns whether it was answered."""
    return machine.run(["curl", "-sf", "-m", "10", "http://127.0.0.1:8000/health"], check=False).returncode == 0


def processes(machine):
    """The service's processes: PID and command line."""
    group = machine.show("pypnm.service", "ControlGroup")
    script = f'for p in $(cat /sys/fs/cgroup{group}/cgroup.procs); do echo "$p $(tr "\\0" " " < /proc/$p/cmdline)"; done'
    lines = machine.run(script).stdout.splitlines()
    return [(int(pid), command) for pid, _, command in (line.partition(" ") for line in lines)]


def workers(machine):
    """The PIDs of the live workers: the children of the main process, or the main process itself."""
    all_of_it = processes(machine)
    spawned = [pid for pid, command in all_of_it if "spawn_main" in command]
    return spawned or [pid for pid, _ in all_of_it]


def serves(machine, expected_workers, limit, source="seeded_profile", timeout=120):
    """Checks that PyPNM responds, that this profile is active, from this source (None: any), and the number of live
    workers."""
    running = profile(machine, timeout)
    found = (running["active_workers"], running["active_limit_max_requests"], running["active_source"])
    expected = (expected_workers, limit, source)
    equal(tuple(value for value, other in zip(found, expected) if other is not None), tuple(other for other in expected if other is not None), "runtimeProfile")
    count = running["active_workers"]
    machine.until(lambda: len(workers(machine)) == count, f"{count} live workers", timeout)
    return running


def generated(machine):
    """The text of the drop-in, '' if there is none."""
    return machine.run(["cat", GENERATED], check=False).stdout


def loaded(machine, unit="pypnm.service"):
    """The environment that systemd has loaded for the unit."""
    return dict(re.findall(r"(\S+?)=(\S*)", machine.show(unit, "Environment")))


def written(machine):
    """Keys and values in the file that PyPNM reads."""
    return dict(re.findall(r"^(\w+)=(.*)$", machine.read(ENV_FILE), re.MULTILINE))


def sized(machine, workers, limit):
    """Checks the generated drop-in, what systemd has loaded from it, and the file for PyPNM if the service has
    started."""
    expected = {"PYPNM_SERVE_WORKERS": str(workers), "PYPNM_SERVE_LIMIT_MAX_REQUESTS": str(limit)}
    text = generated(machine)
    for key, value in expected.items():
        expect(f"Environment={key}={value}\n" in text, f"{key}={value} is not in the drop-in:\n{text}")
    environment = loaded(machine)
    equal({key: environment.get(key) for key in expected}, expected, "what systemd loaded")
    return text


def dropin(*lines):
    """The text of a drop-in from lines of [Service]."""
    return "[Service]\n" + "".join(f"{line}\n" for line in lines)
