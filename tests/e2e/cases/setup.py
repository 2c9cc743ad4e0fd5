"""setup: a checkout in a home directory, as installed by PyPNM's install.sh, becomes a sized, hardened service."""

import contextlib
import json
import re
import shutil
import struct
import subprocess
import sys

import images
from machine import Machine
from suite import KB_4G, KB_16G, case, equal, expect, loaded, serves, workers

CHECKOUT = "/home/op/PyPNM"
PLACE = "/etc/systemd/system/pypnm.service.d/50-place.conf"
UNIT = "pypnm.service"
UID = 1000
MAC = "00:11:22:33:44:55"
# The root file systems of these versions are bookworm's except for systemd, so one checkout fits all of them.
BOOKWORM = (247, 252, 254)


def checkout(root):
    """A layer with the user op, and PyPNM's source distribution in their home, installed editable into .env; no
    /opt/pypnm."""

    def build(place):
        images.say("installing PyPNM from a checkout (once)")
        with Machine(root) as machine:
            place_of = machine.upper / "tmp/sources"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place_of]
            subprocess.run([*pip, "--no-binary=:all:", images.PYPNM], check=True, stdout=sys.stderr)
            subprocess.run([*pip, "setuptools>=77", "wheel"], check=True, stdout=sys.stderr)
            machine.run(f"useradd --uid {UID} --create-home --shell /bin/bash op && chmod 0750 /home/op", timeout=600)
            machine.run(f"""
                set -e
                mkdir {CHECKOUT} && tar -xzf /tmp/sources/*.tar.gz -C {CHECKOUT} --strip-components=1 --no-same-owner
                mv /opt/pypnm {CHECKOUT}/.env
                cd {CHECKOUT}
                sed -i 's,/opt/pypnm,{CHECKOUT}/.env,g' .env/pyvenv.cfg $(grep -lI /opt/pypnm .env/bin/*)
                .env/bin/pip install --quiet --no-index --upgrade /tmp/sources/*.whl
                .env/bin/pip uninstall --quiet --yes pypnm-docsis
                .env/bin/pip install --quiet --no-index --no-deps --no-build-isolation --editable .
                rm -r /tmp/sources
                chown -R op:op /home/op
            """, timeout=600)
            shutil.move(machine.upper, place)

    return images.cached("checkout", ["1", root.name, images.PYPNM], build)


@contextlib.contextmanager
def machine(e2e):
    """A machine (off) with this package, and PyPNM only in op's checkout."""
    # The layer contains no files of systemd. The product's layer would hide its accounts.
    root = images.rootfs("bookworm") if e2e.version in BOOKWORM else e2e.root
    with Machine(e2e.root, layers=[checkout(root), e2e.layer]) as m:
        m.run(f"useradd --uid {UID} --no-create-home --shell /bin/bash op")
        yield m


def setup(m, *arguments, check=True):
    """Runs `pypnm-sizing setup`, and returns status, stdout and stderr."""
    done = m.run(["pypnm-sizing", "setup", *arguments], check=False)
    if check:
        equal((done.returncode, done.stderr), (0, ""), f"setup {arguments}: {done.stdout}; status and stderr")
    return done.returncode, done.stdout, done.stderr


def verified(m):
    """systemd-analyze verify reports nothing, and systemd-analyze security stays within the limit."""
    done = m.run(f"cd /tmp && systemd-analyze verify {UNIT}", check=False)
    equal((done.returncode, done.stdout + done.stderr), (0, ""), "systemd-analyze verify")
    printed = m.run(f"systemd-analyze security --no-pager {UNIT}", check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", printed)
    expect(found and float(found[1]) <= 3.0, printed)
    return f"systemd-analyze security: {found[1]}"


def rxmer(subcarriers=3800):
    """A capture in the format that a modem sends: RxMER per subcarrier, in quarters of a dB (CM-SP-CM-OSSIv3.1,
    annex D)."""
    values = bytes(150 + number % 20 for number in range(subcarriers))
    head = struct.pack("!B6sIHBI", 33, bytes.fromhex(MAC.replace(":", "")), 600_000_000, 148, 50, subcarriers)
    return b"PNN" + struct.pack("!BBBI", 4, 1, 0, 1_700_000_000) + head + values


def upload_and_analyse(m, port=8000):
    """Uploads and analyzes a capture, so that PyPNM writes below its working directory, and libraries write their
    caches."""
    m.install({"/tmp/capture.bin": rxmer()})
    url = f"http://127.0.0.1:{port}/docs/pnm/files"
    printed = m.run(f"curl -s -m 60 -F file=@/tmp/capture.bin {url}/upload").stdout
    transaction = json.loads(printed)["transaction_id"]
    for output in ("json", "archive"):
        analysis = {"type": "basic", "output": {"type": output}, "plot": {"ui": {"theme": "dark"}}}
        m.install({"/tmp/request.json": json.dumps({"search": {"transaction_id": transaction}, "analysis": analysis})})
        status = m.run(f"curl -s -m 60 -o /tmp/answer -w '%{{http_code}} %{{size_download}}' -H 'Content-Type: application/json' -d @/tmp/request.json {url}/getAnalysis").stdout
        code, size = status.split()
        expect(code == "200" and int(size) > 10_000, f"analysis as {output}: {status} {m.run('head -c 300 /tmp/answer').stdout}")


@case()
def whole_life(e2e):
    """A checkout in a home directory: setup, start, analysis, new hardware and apply, removal"""
    with machine(e2e) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        m.boot()
        printed = m.run("pypnm-sizing show").stdout
        expect(re.search(rf"PyPNM +1\.6\.4\.0 in {CHECKOUT}/.env", printed), printed)
        _, drop_in, _ = setup(m, CHECKOUT)
        expect(not m.exists(PLACE), "printing wrote it")
        _, printed, _ = setup(m, CHECKOUT, "--write")
        equal(m.read(PLACE), drop_in, "what was written")
        expect(f"systemctl enable --now {UNIT}" in printed, printed)
        equal(m.show(UNIT, "ActiveState"), "inactive", "the service that nobody started is")
        e2e.note(verified(m))

        m.systemctl("enable", "--now", UNIT, timeout=200)
        serves(m, 1, 1000)
        pid = m.show(UNIT, "MainPID")
        equal(m.run(f"ps -o user= -p {pid}").stdout.strip(), "op", "the account")
        upload_and_analyse(m)
        equal(m.run(f"find {CHECKOUT}/.data {CHECKOUT}/logs ! -user op").stdout, "", "files of others in the checkout")
        # The rest of the home directory is hidden, and the environment is read-only.
        m.run("touch /home/op/secret && chown op /home/op/secret")
        inside = f"nsenter -t {pid} -m -S $(id -u op) -G $(id -g op)"
        # On systemd 247, only root can list the parent directories of a bind mount; see UMask= in the drop-in.
        seen = m.run(f"nsenter -t {pid} -m ls -A /home/op").stdout.split()
        equal(seen, ["PyPNM"], "op's home as the service sees it")
        expect(m.run(f"{inside} touch {CHECKOUT}/.env/x", check=False).returncode != 0, "it can write to its environment")
        equal(m.run("journalctl -u pypnm.service -p err -o cat").stdout, "", "errors in its log")

        _, printed, _ = setup(m, CHECKOUT, "--write")
        expect("is up to date" in printed and f"systemctl restart {UNIT}" in printed, printed)
        m.hardware(cpus=2, memory_kb=KB_16G)
        m.run("pypnm-sizing apply", check=False, timeout=200)
        serves(m, 2, 2000)
        m.until(lambda: m.run("pypnm-sizing check", check=False).returncode == 0, "check to say OK")

        m.run("mkdir /home/op/other")
        for other in ("/home/op/other", "/nonexistent"):
            status, printed, error = setup(m, other, "--remove", check=False)
            expect(status == 2 and f"is for {CHECKOUT}/.env" in error and m.exists(PLACE), f"--remove for {other}: {printed}{error}")
        _, printed, _ = setup(m, CHECKOUT, "--remove")
        expect("Removed" in printed and not m.exists(PLACE) and not m.exists(PLACE.rsplit("/", 1)[0]), printed)
        equal(len(workers(m)), 2, "live workers of the service that runs on")
        _, printed, _ = setup(m, "--remove")
        expect("nothing to remove" in printed, printed)
        m.systemctl("stop", UNIT)
        m.systemctl("start", UNIT)
        equal(m.show(UNIT, "ConditionResult"), "no", "the condition without the drop-in")


@case(versions=(252,))
def recycled(e2e):
    """A checkout's service after setup: the only worker reaches its limit, and the service is restarted"""
    with machine(e2e) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        m.install({"/etc/pypnm/sizing.conf.d/50-limit.conf": "[Sizing]\nLimitMaxRequests=20\n"})
        m.boot()
        setup(m, CHECKOUT, "--write", "--port", "8123", "--host", "0.0.0.0")
        equal(loaded(m)["PYPNM_PORT"], "8123", "the port")
        m.systemctl("start", UNIT, timeout=200)
        first = m.show(UNIT, "MainPID")
        m.run("for i in $(seq 30); do curl -s -m 5 -o /dev/null http://127.0.0.1:8123/health; done", check=False)
        m.until(lambda: m.run("curl -sf -m 5 http://127.0.0.1:8123/health", check=False).returncode == 0, "an answer after the recycle")
        e2e.note(f"main process {first}, then {m.show(UNIT, 'MainPID')}; restarts: {m.show(UNIT, 'NRestarts')}")


@case(versions=(252,))
def user_installation(e2e):
    """An environment as `pip install --user` leaves it, without a Python of its own: setup makes a service that finds its packages"""
    with machine(e2e) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        m.run(f"cd {CHECKOUT}/.env && rm pyvenv.cfg bin/python* && sed -i '1s,.*,#!/usr/bin/python3,' bin/pypnm")
        m.boot()
        setup(m, f"{CHECKOUT}/.env", "--write")
        e2e.note(verified(m))
        m.systemctl("start", UNIT, timeout=200)
        serves(m, 1, 1000)


@case(versions=(247, 252, 254, 257))
def home_elsewhere(e2e):
    """A home directory that is not in /home is hidden from the service in the same way, apart from the checkout"""
    home = "/srv/op"
    place = CHECKOUT.replace("/home/op", home)
    with machine(e2e) as m:
        m.hardware(cpus=4, memory_kb=KB_16G)
        m.run(f"""
            set -e
            mv /home/op {home}
            usermod --home {home} op
            sed -i 's,{CHECKOUT},{place},g' $(grep -rlI {CHECKOUT} {place}/.env/bin {place}/.env/pyvenv.cfg \
                {place}/.env/lib/python*/site-packages/*.pth {place}/.env/lib/python*/site-packages/*editable* \
                {place}/.env/lib/python*/site-packages/pypnm_docsis*)
            echo secret >{home}/secret
            chown op {home}/secret
        """)
        m.boot()
        setup(m, place, "--write")
        e2e.note(verified(m))
        m.systemctl("start", UNIT, timeout=200)
        serves(m, 4, 2000)
        upload_and_analyse(m)
        pid = m.show(UNIT, "MainPID")
        equal(m.run(f"nsenter -t {pid} -m ls -A {home}").stdout.split(), ["PyPNM"], "op's home as the service sees it")
        done = m.run(f"nsenter -t {pid} -m -S {UID} -G {UID} touch {home}/new", check=False)
        expect(done.returncode != 0, "the service can write to op's home directory")


@case(versions=(247, 252, 254, 257), fast=False)
def reached_by_a_link(e2e):
    """A checkout whose environment was created under the name of a symbolic link, which is hidden from the service with
    the rest of the home directory"""
    with machine(e2e) as m:
        m.hardware(cpus=4, memory_kb=KB_16G)
        name = "/home/op/current"
        packages = f"{CHECKOUT}/.env/lib/python*/site-packages"
        m.run(f"""
            set -e
            ln -s PyPNM {name}
            sed -i 's,{CHECKOUT},{name},g' {CHECKOUT}/.env/bin/pypnm {packages}/*.pth {packages}/*editable* {packages}/pypnm_docsis*/direct_url.json
            mkdir -p {CHECKOUT}/.data/db
            touch {CHECKOUT}/.data/db/x
            chown -R op {CHECKOUT}/.data
        """)
        m.boot()
        setup(m, name, "--write")
        expect(f"BindReadOnlyPaths={CHECKOUT}:{name}\n" in m.read(PLACE), m.read(PLACE))
        e2e.note(verified(m))
        m.systemctl("start", UNIT, timeout=200)
        serves(m, 4, 2000)
        upload_and_analyse(m)
        pid = m.show(UNIT, "MainPID")
        equal(sorted(m.run(f"nsenter -t {pid} -m ls -A /home/op").stdout.split()), ["PyPNM", "current"], "op's home as the service sees it")
        # As left by 'sudo pypnm serve'.
        m.run(f"chown root {CHECKOUT}/.data/db/x")
        _, _, error = setup(m, name, check=False)
        expect(f"op cannot write to {CHECKOUT}/.data/db/x" in error, error)


@case(versions=(252,))
def refused(e2e):
    """setup refuses what would not work, says why, and writes nothing"""
    with machine(e2e) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        m.install({"/etc/systemd/system/api.service": f"[Service]\nUser=op\nExecStart={CHECKOUT}/.env/bin/pypnm serve\n"})
        m.run(f"useradd --system stranger; mkdir -p /opt/copy-of/src && cp -a {CHECKOUT}/src/pypnm /opt/copy-of/src")
        m.boot()

        def refuses(*arguments, why):
            status, printed, error = setup(m, *arguments, "--write", check=False)
            equal((status, printed), (2, ""), f"setup {arguments}: {error}; status and stdout")
            expect(why in error, f"setup {arguments}: {error}")
            expect(not m.exists(PLACE.rsplit("/", 1)[0]), f"setup {arguments} wrote something")

        refuses(CHECKOUT, why="Units=api.service")
        m.run("rm /etc/systemd/system/api.service")
        refuses(CHECKOUT, "--user", "nobody-here", why="there is no such user")
        refuses(CHECKOUT, "--user", "stranger", why="stranger cannot enter /home/op")
        refuses(CHECKOUT, "--user", "root", why="should not run as root")
        refuses("/opt/copy-of", why="run ./install.sh")
        refuses("~/PyPNM", why="the shell expands ~ only if it is not quoted")
        refuses(f"{CHECKOUT}/.env/bin/pypnm", why="is not a directory")
        refuses(f"{CHECKOUT}/src", why=f"did you mean {CHECKOUT}?")
        refuses("/home/op", why=f"did you mean {CHECKOUT}?")
        for unit in ("dbus", "systemd-journald", "pypnm-sizing-watch"):
            refuses(CHECKOUT, "--unit", unit, why="is not a PyPNM service")
        for option, value, why in (
            ("--host", "fe80::1", "needs its interface"), ("--host", "fe80::1%none0", "no network interface none0"),
            ("--host", "fe80::1%lo", "not an address of this machine"), ("--host", "[::1]", "without brackets"), ("--host", "-x", "expected an address"),
            ("--host", "127.0.0.1:80", "the port is --port 80"), ("--host", "300.1.1.1", "expected an address"), ("--host", "224.0.0.1", "multicast"),
            ("--host", "no-such-host.invalid", "this machine cannot resolve"), ("--port", "-1", "from 1 to 65535"),
            ("--port", "0", "from 1 to 65535"), ("--port", "65536", "from 1 to 65535"), ("--port", "http", "from 1 to 65535"),
            ("--user", "-1", "there is no such user"), ("--user", "", "there is no such user"),
        ):  # fmt: skip
            refuses(CHECKOUT, option, value, why=why)
        # An environment whose name has a special meaning in some settings of a unit.
        for name in ("a b", "a%b", "a$b", "a'b", 'a"b', "a\\b", "a\nb", "a:b", "a\u00a0b"):
            place = f"{CHECKOUT}/{name}"
            m.run(["sh", "-c", f'mkdir "$1" && mount --bind {CHECKOUT}/.env "$1"', "sh", place])
            refuses(place, why="has a special meaning for systemd")
            m.run(["sh", "-c", 'umount "$1" && rmdir "$1"', "sh", place])
        m.run(f"chown root {CHECKOUT}")
        refuses(CHECKOUT, why="belongs to root")
        refuses(CHECKOUT, "--user", "op", why=f"op cannot write to {CHECKOUT}")
        m.run(f"chown op {CHECKOUT}; chmod 644 {CHECKOUT}/.env/bin/pypnm")
        refuses(CHECKOUT, why="op cannot execute")
        m.run(f"chmod 755 {CHECKOUT}/.env/bin/pypnm; chmod 700 {CHECKOUT}/src; chown root {CHECKOUT}/src")
        refuses(CHECKOUT, why=f"op cannot read {CHECKOUT}/src")
        m.run(f"chown op {CHECKOUT}/src; chmod 755 {CHECKOUT}/src")
        refuses("/srv/none", why="there is no such directory")
        refuses("/var", why="there is no pypnm in /var")
        server = m.run("python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 & echo $!").stdout.strip()
        m.until(lambda: m.run("curl -s -o /dev/null http://127.0.0.1:8000/", check=False).returncode == 0, "the other server")
        refuses(CHECKOUT, why="python3 -m http.server 8000")
        refuses(CHECKOUT, "--port", "8001", "--host", "192.0.2.1", why="not an address of this machine")
        m.run(f"kill {server}")
        m.run(f"ln -sfn /usr/bin/python3.9 {CHECKOUT}/.env/bin/python3")
        refuses(CHECKOUT, why="dangling symbolic link")
        m.run(f"""
            set -e
            cd {CHECKOUT}; ln -sfn /usr/bin/python3 .env/bin/python3
            packages=lib/python3.11/site-packages
            mkdir -p second/$packages; cp -a .env/bin .env/pyvenv.cfg second; cp -a .env/$packages/pypnm_docsis* second/$packages
        """)
        refuses(CHECKOUT, why="choose one")
        m.run(f"rm -r {CHECKOUT}/second; chown -R root {CHECKOUT}/logs 2>/dev/null || {{ mkdir {CHECKOUT}/logs; chmod 755 {CHECKOUT}/logs; }}")
        refuses(CHECKOUT, why="op cannot write to /home/op/PyPNM/logs")
        m.run(f"rm -r {CHECKOUT}/logs")
        m.run(f"mount --bind {CHECKOUT} {CHECKOUT} && mount -o remount,bind,noexec {CHECKOUT}")
        refuses(CHECKOUT, why="noexec")
        m.run(f"umount {CHECKOUT}")
        own = f"/etc/systemd/system/{UNIT}"
        for command, why in (
            (f"systemctl mask --quiet {UNIT}", f"'systemctl unmask {UNIT}' first"), (f": >{own}", "which is empty"),
            (f"ln -s /srv/none {own}", "dangling link"), (f"printf '[Service]\nExecStart=/bin/true\n' >{own}", "is your own unit"),
        ):  # fmt: skip
            m.run(command)
            refuses(CHECKOUT, why=why)
            m.run(f"rm {own}")
        m.run(f"systemctl mask --quiet --runtime {UNIT}")
        refuses(CHECKOUT, why=f"'systemctl unmask --runtime {UNIT}' first")
        m.run(f"systemctl unmask --quiet --runtime {UNIT}; printf '[Service]\nExecStart=/bin/true\n' >/run/systemd/generator/{UNIT}")
        refuses(CHECKOUT, why="another generator")
        m.run(f"rm /run/systemd/generator/{UNIT}; mkdir {PLACE.rsplit('/', 1)[0]}; echo '[Service]' >{PLACE}")
        status, _, error = setup(m, CHECKOUT, "--write", check=False)
        equal((status, m.read(PLACE)), (2, "[Service]\n"), f"a file of the operator's: {error}")
        status, _, error = setup(m, "--remove", check=False)
        equal((status, m.read(PLACE)), (2, "[Service]\n"), f"a file of the operator's: {error}")


@case(versions=(252,))
def other_drop_ins(e2e):
    """setup with an operator's drop-ins: it refuses if one would prevent the start, and names the others; and with
    an edited drop-in of its own"""
    with machine(e2e) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        # Without systemd, no files are left.
        status, _, error = setup(m, CHECKOUT, "--write", check=False)
        expect(status == 2 and "systemd is not running" in error and not m.exists(PLACE.rsplit("/", 1)[0]), error)
        m.boot()
        later = PLACE.replace("50-place", "override")
        for setting, why in (
            ("User=nobody", "User=nobody takes precedence over setup"), ("Environment=PATH=/usr/bin", "PATH=/usr/bin takes precedence"),
            ("Environment=PYPNM_PORT=9000", "change it there to 8001"), ("ExecStart=\nExecStart=/opt/pypnm/bin/pypnm serve", "does not start"),
            ("ExecStart=\nExecStart=pypnm serve", "does not start"),
        ):  # fmt: skip
            m.install({later: f"[Service]\n{setting}\n"})
            status, _, error = setup(m, CHECKOUT, "--port", "8001", "--write", check=False)
            expect(status == 2 and f"{later}:" in error and why in error and not m.exists(PLACE), f"{setting}: {status} {error}")
        for setting in ("ExecStart=\nExecStart=/usr/lib/pypnm-sizing/handover pypnm serve --port 8001", f"ExecStart=\nExecStart={CHECKOUT}/.env/bin/pypnm serve", "User=op"):
            m.install({later: f"[Service]\n{setting}\n"})
            setup(m, CHECKOUT)
        m.install({later: "[Service]\nWorkingDirectory=/srv\n"})
        status, _, error = setup(m, CHECKOUT, "--port", "8001", "--write", check=False)
        expect(status == 0 and f"{later}:2: WorkingDirectory=/srv takes precedence" in error, error)
        m.run(f"rm {later}; echo BindReadOnlyPaths=/home/op/keys >>{PLACE}")
        _, _, error = setup(m, CHECKOUT, "--port", "8001", check=False)
        expect("--write would remove these settings from it: BindReadOnlyPaths=/home/op/keys" in error, error)
        _, printed, _ = setup(m, CHECKOUT, "--write")
        expect("no longer in it:\n  Environment=PYPNM_PORT=8001\n  BindReadOnlyPaths=/home/op/keys\n" in printed, printed)
        e2e.note(verified(m))
        m.run(f"echo Nice=5 >>{PLACE}; echo '[Service]' >{later}")
        _, printed, _ = setup(m, "--remove")
        expect("which setup did not write, were in it:\n  Nice=5\n" in printed and not m.exists(PLACE) and m.exists(later), printed)


@case(versions=(252, 254))
def readme(e2e):
    """README's commands for a checkout, run exactly as written: from nothing to a sized service"""
    text = (images.HERE.parents[1] / "README.md").read_text()
    section = text.split("\n## A checkout in a home directory\n")[1].split("\n## ")[0]
    commands = [line.partition("#")[0].strip() for line in re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1].splitlines()]
    equal(len(commands), 5, "README's commands")
    with Machine(e2e.root, layers=[checkout(images.rootfs("bookworm"))]) as m:
        m.hardware(cpus=2, memory_kb=KB_4G)
        m.copy(e2e.package, "/home/op/pypnm-sizing_0_amd64.deb")
        m.boot()
        for command in commands:
            # The machine has no sudo: root runs those commands, with op's home directory for ~.
            as_root = command.startswith("sudo ")
            command = f"cd ~ && {command.removeprefix('sudo ')}"
            user = ["env", "HOME=/home/op", "sh", "-c", command] if as_root else ["runuser", "-u", "op", "--", "env", "HOME=/home/op", "sh", "-c", command]
            done = m.run(user, check=False, timeout=200)
            equal(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}; status")
            if "apt-get" in command:
                # The steps that setup prints are those in README.
                expect(f"Next: pypnm-sizing setup {CHECKOUT} --write" in done.stdout, f"{command}: {done.stdout}")
        serves(m, 1, 1000)
