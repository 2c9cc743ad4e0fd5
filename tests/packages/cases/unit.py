"""The packaged units with the real PyPNM: it starts or fails, stops, and works with the hardening."""

import json
import re
import struct
import time

from common import (
    SUITES, UNIT, case, computer, equal, expect, health, install, note, with_cmts, workers,
)  # fmt: skip

MAC = "00:11:22:33:44:55"
ANALYSIS = {"type": "basic", "output": {"type": "json"}, "plot": {"ui": {"theme": "dark"}}}


def rxmer(subcarriers=3800):
    """A capture in the format that a modem sends: RxMER per subcarrier, in quarters of a dB (CM-SP-CM-OSSIv3.1,
    annex D)."""
    values = bytes(150 + number % 20 for number in range(subcarriers))
    head = struct.pack("!B6sIHBI", 33, bytes.fromhex(MAC.replace(":", "")), 600_000_000, 148, 50, subcarriers)
    return b"PNN" + struct.pack("!BBBI", 4, 1, 0, 1_700_000_000) + head + values


def ask(machine, path, data=None, file=None, port=8000):
    """The status of a response, and the beginning of its body."""
    options = ""
    if data is not None:
        machine.install({"/tmp/request.json": json.dumps(data)})
        options = "-H 'Content-Type: application/json' -d @/tmp/request.json"
    if file is not None:
        machine.install({"/tmp/capture.bin": file})
        options = "-F file=@/tmp/capture.bin"
    printed = machine.run(f"curl -s -m 60 -o /tmp/answer -w '%{{http_code}}' {options} 'http://127.0.0.1:{port}{path}'; echo; cat /tmp/answer").stdout
    status, _, body = printed.partition("\n")
    return int(status), body


def modem(address):
    """A request about a modem at `address`, and for a capture from it."""
    snmp = {"snmpV2C": {"community": "private"}}
    tftp = {"ipv4": "192.0.2.9", "ipv6": "2001:db8::9"}
    asked = {"mac_address": MAC, "ip_address": address, "snmp": snmp, "pnm_parameters": {"tftp": tftp}}
    return {"cable_modem": asked, "analysis": ANALYSIS}


def exposure(machine, unit):
    """Checks the unit with systemd-analyze verify and security, and returns the output of the latter."""
    done = machine.run(f"systemd-analyze verify {unit}", check=False)
    equal((done.returncode, done.stdout + done.stderr), (0, ""), f"systemd-analyze verify {unit}")
    printed = machine.run(f"systemd-analyze security --no-pager {unit}").stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", printed)
    expect(found and float(found[1]) <= 2.0, printed)
    return f"systemd-analyze security {unit}: {found[1]}"


def works_without_a_modem(machine):
    """Every path of PyPNM that works without a modem, and those that end at the ping."""
    status, body = ask(machine, "/docs/pnm/files/upload", file=rxmer())
    equal(status, 200, f"upload: {body}; status")
    transaction = json.loads(body)["transaction_id"]
    for output in ("json", "archive"):
        request = {"search": {"transaction_id": transaction}, "analysis": {**ANALYSIS, "output": {"type": output}}}
        status, body = ask(machine, "/docs/pnm/files/getAnalysis", data=request)
        expect(status == 200 and len(body) > 10_000, f"analysis as {output}: {status} {body[:300]}")
    for path in (
        "/docs/pnm/files/getMacAddresses/", f"/docs/pnm/files/searchFiles/{MAC}", f"/docs/pnm/files/download/transactionID/{transaction}",
        "/docs/pnm/files/download/filename/capture.bin", f"/docs/pnm/files/download/macAddress/{MAC}",
        f"/docs/pnm/files/getHexdump/transactionID/{transaction}", "/pypnm/system/log/download", "/openapi.json",
    ):  # fmt: skip
        status, body = ask(machine, path)
        equal(status, 200, f"{path}: {body[:300]}; status")
    # Past the ping only if something responds to it: 2 is a failure of SNMP, 19 of the ping.
    for path in ("/system/sysDescr", "/docs/pnm/ds/ofdm/rxMer/getCapture", "/docs/pnm/us/ofdma/preEqualization/getCapture"):
        answers = [ask(machine, path, data=modem(address)) for address in ("127.0.0.1", "192.0.2.1")]
        found = [json.loads(body).get("status", body) for _, body in answers]
        equal(found, [2, 19], f"{path} of an address that answers a ping, and of one that does not")


@case(versions=(252, 254, 257), fast=(252,))
def hardened(packages, version):
    """systemd-analyze verify and security; uploads, analyses, downloads and the ping all work as the account pypnm"""
    with computer(version) as m:
        install(m, packages.deb)
        exposed = exposure(m, UNIT)
        m.systemctl("start", UNIT)
        # The service counts as started once it responds.
        equal(ask(m, "/health")[0], 200, "the answer right after the start")
        works_without_a_modem(m)
        pid = m.show(UNIT, "MainPID")
        equal(m.run(f"ps -o user= -p {pid}").stdout.strip(), "pypnm", "the account")
        started = time.monotonic()
        m.systemctl("stop", UNIT)
        took = time.monotonic() - started
        equal((m.show(UNIT, "ActiveState"), m.show(UNIT, "Result")), ("inactive", "success"), "the stopped service is")
        expect(took < 10, f"it took {took:.1f} s to stop when idle")
        note(f"{exposed}\nstopped in {took:.1f} s when idle")


@case(versions=(252, 254, 257), fast=())
def cmts(packages, version):
    """pypnm-cmts.service with its real package, next to pypnm.service: each has half of the machine"""
    with computer(version, layers=[with_cmts(SUITES[version])], boot=False) as m:
        m.hardware(cpus=4, memory_kb=16389412)
        m.install({"/etc/pypnm/sizing.conf.d/50-both.conf": "[Sizing]\nUnits=pypnm.service pypnm-cmts.service\n"})
        m.boot()
        install(m, packages.deb)
        exposed = exposure(m, "pypnm-cmts.service")
        m.systemctl("start", UNIT, "pypnm-cmts.service", timeout=200)
        health(m)
        equal(ask(m, "/health", port=8080)[0], 200, "the answer of PyPNM-CMTS right after its start")
        # With its service groups (SGW) enabled, as by default, it uses one worker out of those in the profile.
        equal([workers(m, unit) for unit in (UNIT, "pypnm-cmts.service")], [2, 1], "workers of the two")
        expect("PYPNM_SERVE_WORKERS=2" in m.read("/run/pypnm-sizing/pypnm-cmts.service.env"), "the profile of PyPNM-CMTS")
        printed = m.journal("-u", "pypnm-cmts.service")
        expect("limit_max_requests=1000 profile=/run/pypnm-sizing/pypnm-cmts.service.env" in printed, printed)
        m.systemctl("stop", "pypnm-cmts.service")
        equal(m.show("pypnm-cmts.service", "Result"), "success", "its result")
        note(exposed)


@case(versions=(252, 254, 257), fast=(252,))
def crash_loop(packages, version):
    """Workers that keep failing: the start fails quickly and with a reason, and the service is not active"""
    # A working directory that PyPNM cannot write to.
    broken = "[Service]\nWorkingDirectory=/usr\nRestart=no\n"
    with computer(version, files={"/etc/systemd/system/pypnm.service.d/broken.conf": broken}) as m:
        install(m, packages.deb)
        started = time.monotonic()
        done = m.run(f"systemctl start {UNIT}", check=False, timeout=200)
        took = time.monotonic() - started
        printed = m.journal("-u", UNIT)
        expect(done.returncode != 0, f"the start succeeded\n{printed}")
        equal(m.show(UNIT, "ActiveState"), "failed", "the service is")
        expect("workers failed to start" in printed, printed)
        expect(took < 60, f"it took {took:.0f} s to fail")
        equal(m.run("pgrep -u pypnm", check=False).stdout, "", "processes that are left")
        note(f"failed after {took:.0f} s")


@case(versions=(252, 254, 257), fast=())
def slow_client(packages, version):
    """A request that never ends delays a stop until TimeoutStopSec=, and no longer"""
    # The timeout, shorter than in the packaged unit.
    files = {"/etc/systemd/system/pypnm.service.d/bound.conf": "[Service]\nTimeoutStopSec=5\n"}
    with computer(version, files=files) as m:
        install(m, packages.deb)
        m.systemctl("start", UNIT)
        half = "POST /docs/pnm/files/getAnalysis HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: 1000\\r\\n\\r\\n{"
        m.run(f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/8000; printf \"{half}\" >&3; exec sleep 60' >/dev/null 2>&1 &")
        time.sleep(1)
        started = time.monotonic()
        m.systemctl("stop", UNIT)
        took = time.monotonic() - started
        expect(4 < took < 9, f"it took {took:.1f} s")
        equal(m.run("pgrep -u pypnm", check=False).stdout, "", "processes that are left")
        note(f"ended after {took:.1f} s")


@case(versions=(252, 254, 257), fast=())
def overridden(packages, version):
    """Address, port, options and environment set in pypnm.env and with 'systemctl edit'; without the drop-in; killed
    and restarted"""
    with computer(version) as m:
        install(m, packages.deb)
        m.install({"/etc/pypnm/pypnm.env": "PYPNM_HOST=0.0.0.0\nPYPNM_PORT=81\nPYPNM_OPTIONS=--workers 1 --no-access-log\n"})
        m.systemctl("start", UNIT)
        equal(ask(m, "/health", port=81)[0], 200, "the answer on the port of pypnm.env")
        equal(workers(m), 1, "workers by the flag in pypnm.env")
        main = m.show(UNIT, "MainPID")
        m.run(f"kill -KILL {main}")
        m.until(lambda: m.show(UNIT, "ActiveState") == "active" and m.show(UNIT, "MainPID") not in ("0", main), "it to be back")
        equal(ask(m, "/health", port=81)[0], 200, "the answer after it was killed")

        edit = "[Service]\nEnvironment=PYPNM_SERVE_WORKERS=3\nExecStart=\nExecStart=/opt/pypnm/bin/pypnm serve --port 9000\n"
        # It requires a terminal, and an editor that writes between its two comments.
        editor = "#!/bin/sh\nfor file; do :; done\nexec sed -i '/^### Anything between here/r /tmp/edit' \"$file\"\n"
        m.install({"/tmp/edit": edit, "/usr/local/bin/editor": (editor, 0o755)})
        m.run(["script", "-qec", "EDITOR=/usr/local/bin/editor systemctl edit pypnm.service", "/dev/null"])
        m.systemctl("restart", UNIT)
        equal(ask(m, "/health", port=9000)[0], 200, "the answer on the port of the edited unit")
        m.until(lambda: workers(m) == 3, "the three workers of the edited unit")

        m.run("rm /etc/pypnm/pypnm.env /etc/systemd/system/pypnm.service.d/override.conf")
        m.install({"/etc/pypnm/sizing.conf.d/off.conf": "[Sizing]\nEnabled=no\n"})
        m.systemctl("daemon-reload")
        expect("10-pypnm-sizing" not in m.show(UNIT, "DropInPaths"), "there is a drop-in")
        m.systemctl("restart", UNIT)
        status, body = ask(m, "/pypnm/system/webService/runtimeProfile")
        equal((status, json.loads(body)["profile"]["active_source"]), (200, "hardware_auto"), "without the drop-in PyPNM says")


@case(versions=(252, 254, 257), fast=())
def not_there(packages, version):
    """Without PyPNM, the service is skipped and does not fail; once PyPNM is installed, it starts"""
    with computer(version) as m:
        m.run("mv /opt/pypnm/bin/pypnm /opt/pypnm/bin/later")
        install(m, packages.deb)
        m.systemctl("start", UNIT)
        equal((m.show(UNIT, "ActiveState"), m.show(UNIT, "ConditionResult")), ("inactive", "no"), "the service without PyPNM is")
        equal(m.systemctl("--failed", "--no-legend"), "", "failed units")
        m.run("mv /opt/pypnm/bin/later /opt/pypnm/bin/pypnm")
        m.systemctl("start", UNIT)
        equal(ask(m, "/health")[0], 200, "the answer")
