"""podman and its quadlets in QEMU: systemd 257, cgroup version 2 only, podman 5.4.2 from trixie, and an image with the entry point
and command of PyPNM's image. PyPNM is a stand-in, because its imports would take minutes under emulation."""

import json
import re
import shutil
import subprocess

import images
import product
from machine import Machine
from qemu import Guest
from suite import case, equal, expect, generated, loaded, written

EXAMPLE = product.TREE / "packaging/container/pypnm.container"
QUADLET = "/etc/containers/systemd/pypnm.container"
PACKAGES = ["podman", "crun", "netavark", "gosu", "busybox-static"]
IMAGE = "/var/lib/pypnm-image.tar"

# A shortened version of the entry point of PyPNM's own image.
ENTRY_POINT = """\
#!/bin/sh
set -e
mkdir -p /app/config /app/logs /app/.data
chown -R 10001:10001 /app/config /app/logs /app/.data
exec gosu 10001:10001 "$@"
"""
# Starts the same number of workers as uvicorn would, in the same way, with the command line of PyPNM's image.
UVICORN = """\
import http.server, multiprocessing, os, time

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

if __name__ == "__main__":
    count = int(os.environ.get("UVICORN_WORKERS") or os.environ.get("WEB_CONCURRENCY") or 1)
    if count > 1:
        context = multiprocessing.get_context("spawn")
        for _ in range(count):
            context.Process(target=time.sleep, args=(1e6,), daemon=True).start()
    http.server.HTTPServer(("127.0.0.1", 8000), Health).serve_forever()
"""
# Without kernel modules: each layer of an image is a directory, and there is no network but the host's.
STORAGE = '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n'
IMPORT = f"""\
[Unit]
Description=PyPNM's image
Before=pypnm.service
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=10min
ExecStart=/usr/bin/podman import --quiet --change 'ENTRYPOINT ["/app/entrypoint.sh"]' --change 'WORKDIR /app' {IMAGE} localhost/pypnm:latest
"""


def podman_layer():
    """The files that installing podman changes in trixie's root, and an image like PyPNM's own as a tar archive."""

    def build(place):
        images.say("installing podman over trixie's root file system (once)")
        with Machine(images.rootfs("trixie")) as machine:
            machine.copy("/etc/resolv.conf", "/etc/resolv.conf")
            install = f"apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends {' '.join(PACKAGES)}"
            machine.run(f"{install} && apt-get clean && rm -rf /var/lib/apt/lists /etc/resolv.conf /var/cache/apt/*.bin", timeout=600)
            libraries = machine.run("ldd /usr/bin/python3.13 /usr/lib/python3.13/lib-dynload/*.so | grep -o '/[^ :]*\\.so[^ :]*' | sort -u").stdout.split()
            machine.run(["sh", "-ec", IMAGE_SCRIPT, "sh", *libraries], timeout=300)
            machine.install({"/tmp/image/app/entrypoint.sh": (ENTRY_POINT, 0o755), "/tmp/image/app/uvicorn/__main__.py": UVICORN})
            machine.run(f"tar -C /tmp/image -cf {IMAGE} . && rm -rf /tmp/image", timeout=300)
            # Removed files are devices in an overlay, which must not be copied to a guest.
            subprocess.run(["find", machine.upper, "-type", "c", "-delete"], check=True)
            shutil.move(machine.upper, place)

    return images.cached("podman-trixie", ["2", PACKAGES, ENTRY_POINT, UVICORN, IMAGE_SCRIPT], build)


IMAGE_SCRIPT = """
mkdir -p /tmp/image/bin /tmp/image/usr/bin /tmp/image/usr/lib /tmp/image/app/uvicorn /tmp/image/tmp /tmp/image/run /tmp/image/etc
cd /tmp/image
for library; do mkdir -p ".${library%/*}"; cp -L "$library" ".$library"; done
cp /bin/busybox bin/busybox
for name in $(bin/busybox --list); do [ $name = busybox ] || ln -s busybox bin/$name; done
cp /usr/sbin/gosu /usr/bin/python3.13 usr/bin/
ln -s python3.13 usr/bin/python
cp -a /usr/lib/python3.13 usr/lib/
rm -rf usr/lib/python3.13/test usr/lib/python3.13/idlelib usr/lib/python3.13/ensurepip usr/lib/python3.13/pydoc_data
chmod 1777 tmp
"""


def quadlet(*replacements):
    """The example, on the host's network, with words replaced."""
    text = EXAMPLE.read_text()
    for old, new in (("PublishPort=8000:8000\n", "Network=host\n"), *replacements):
        expect(text.count(old) == 1, f"{old!r} in {EXAMPLE}")
        text = text.replace(old, new)
    return text


def environment_of(machine):
    """The command line and environment of the container's main process, once it is PyPNM."""

    def look():
        pid = machine.run("podman inspect -f '{{.State.Pid}}' systemd-pypnm", check=False).stdout.strip()
        command = machine.run(f"tr '\\0' ' ' < /proc/{pid}/cmdline", check=False).stdout
        return pid if command.startswith("python -m uvicorn") else None

    pid = machine.until(look, "the container to become PyPNM", timeout=120, pause=0.5)
    return pid, dict(pair.split("=", 1) for pair in machine.run(f"tr '\\0' '\\n' < /proc/{pid}/environ").stdout.splitlines())


def given_by(machine, workers, limit):
    """Checks the file written at the start, and that PyPNM in the container got the same values."""
    file, (_, environment) = written(machine), environment_of(machine)
    expected = (str(workers), str(limit))
    equal((file["PYPNM_SERVE_WORKERS"], file["PYPNM_SERVE_LIMIT_MAX_REQUESTS"]), expected, "the file written at the start")
    equal((environment["UVICORN_WORKERS"], environment["UVICORN_LIMIT_MAX_REQUESTS"]), expected, "what uvicorn got")


def checked(machine, status, *options):
    """Waits until `check` has this status, as workers may still be starting, and returns its output."""
    printed = []

    def look():
        printed.append(machine.run(["pypnm-sizing", "check", *options], check=False))
        return printed[-1].returncode == status

    try:
        machine.until(look, f"check to end with {status}", timeout=120, pause=1)
    except Exception as error:
        raise type(error)(f"{error}\ncheck printed: {printed[-1].stdout}{printed[-1].stderr}") from None
    return printed[-1].stdout


@case(versions=(257,), fast=())
def podman_and_its_quadlet(e2e):
    """A quadlet with MemoryMax= in [Service] at boot and after changes; the packaged example; podman run with limits
    and without capabilities"""
    of_service = quadlet(("PodmanArgs=--memory=8g --cpus=4\n", "EnvironmentFile=/run/pypnm-sizing/pypnm.service.env\n"), ("[Service]\n", "[Service]\nMemoryMax=2G\n"))
    files = {
        QUADLET: of_service,
        "/etc/containers/storage.conf": STORAGE,
        "/etc/systemd/system/pypnm-image.service": IMPORT,
        "/etc/systemd/system/multi-user.target.wants/pypnm-image.service": ("/etc/systemd/system/pypnm-image.service", None),
    }
    with Guest("trixie", 4, "16G", layers=[e2e.layer, podman_layer()], files=files) as m:
        m.boot(timeout=600)
        # The generator cannot see the limits in [Service]; the check at the start does.
        equal(m.show("pypnm.service", "FragmentPath"), "/run/systemd/generator/pypnm.service", "the unit's file")
        equal(m.show("pypnm.service", "SourcePath"), QUADLET, "what podman's generator made it of")
        equal(loaded(m)["PYPNM_SERVE_WORKERS"], "4", "what systemd loaded")
        expect("Environment=PYPNM_SERVE_WORKERS=4\n" in generated(m), "the drop-in")
        given_by(m, 1, 1000)
        printed = m.journal("-u", "pypnm.service", "-o", "cat")
        expect(re.search(r"lowered to 1 worker, recycled after 1000 requests, from PYPNM_SERVE_WORKERS 4", printed), f"the journal:\n{printed}")
        equal(checked(m, 0).split(" | ")[0], "PYPNM-SIZING OK - pypnm.service: 1 worker, recycled after 1000 requests, on 4 CPUs, 2.0 GiB", "check")
        expect("systemd loads /run/systemd/generator/pypnm.service" in m.run("pypnm-sizing explain").stdout, "explain on the unit's file")

        # When limits change, the next start uses them, and check reports a missing one.
        m.systemctl("set-property", "--runtime", "pypnm.service", "MemoryMax=8G")
        m.systemctl("restart", "pypnm.service")
        given_by(m, 2, 2000)
        checked(m, 0)
        m.systemctl("set-property", "--runtime", "pypnm.service", "MemoryMax=2G")
        printed = checked(m, 1)
        expect(re.search(r"it runs 2 workers \(limit 2000\);.* 1 worker \(limit 1000\)", printed), f"check of stale numbers: {printed}")
        expect("fix: systemctl restart pypnm.service" in printed, f"the fix: {printed}")
        m.run("systemctl revert pypnm.service")

        # The packaged example: limits of the container, which exec sees.
        m.install({QUADLET: quadlet()})
        m.systemctl("daemon-reload")
        m.systemctl("restart", "pypnm.service")
        pid, environment = environment_of(m)
        equal((environment["UVICORN_WORKERS"], environment["UVICORN_LIMIT_MAX_REQUESTS"]), ("2", "2000"), "in 8 GiB and 4 CPUs")
        checked(m, 0)
        checked(m, 0, f"--pid={pid}")
        inside = ["podman", "exec", "-u", "10001:10001", "systemd-pypnm", "pypnm-sizing", "check", "--pid=1"]
        done = m.run(inside, check=False)
        equal(done.returncode, 0, f"check inside: {done.stdout}{done.stderr}")
        equal(m.run(["pypnm-sizing", "ready", "--timeout=60", f"--pid={pid}"], check=False).returncode, 0, "ready from the host")
        m.systemctl("stop", "pypnm.service")

        # cgroup version 2 in a private namespace, with the fewest privileges for users and file systems.
        script = "grep Cap /proc/self/status; id -u; touch /x 2>/dev/null || echo read-only; cat /proc/self/cgroup; echo; env; echo; cat $PYPNM_SERVE_ENV_FILE"
        hard = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges", "--user=10001"]
        limits = ["--memory=2g", "--cpus=1.5", "--cpuset-cpus=0,2"]
        command = ["podman", "run", "--rm", "--network=none", *limits, *hard, "-v", "/usr/bin/pypnm-sizing:/usr/bin/pypnm-sizing:ro"]
        command += ["--entrypoint", json.dumps(["/usr/bin/pypnm-sizing", "exec", "--"]), "localhost/pypnm:latest", "sh", "-c", script]
        done = m.run(command)
        state, environment, profile = done.stdout.split("\n\n")
        equal(set(re.findall(r"Cap\w+:\s+(\w+)", state)), {"0" * 16}, "capabilities")
        equal(state.splitlines()[-3:], ["10001", "read-only", "0::/"], "user, root file system, cgroup")
        for line in ("PYPNM_SERVE_CPU_COUNT=1", "PYPNM_SERVE_TOTAL_MEMORY_GIB=2.0", "PYPNM_SERVE_WORKERS=1", "PYPNM_SERVE_LIMIT_MAX_REQUESTS=1000"):
            expect(line in profile.splitlines() and line in environment.splitlines(), f"no {line}:\n{done.stdout}")
        for words in ("1.5 CPUs by /sys/fs/cgroup/cpu.max", "2.0 GiB by /sys/fs/cgroup/memory.max", "/proc/1/fd/"):
            expect(words in done.stderr, f"no {words!r}: {done.stderr}")
