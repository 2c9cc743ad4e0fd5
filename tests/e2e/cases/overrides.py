"""The operator's settings in every possible place, with the real PyPNM. The machine is 2c/4G: 1 worker, 1000."""

import re

from suite import (
    ENV_FILE, FOREIGN, GENERATED, GENERATOR, IDLE, KB_8G, KB_16G, SERVE, case, dropin, equal, expect, generated, loaded, serves, sized,
    written,
)  # fmt: skip

TWO = dropin("Environment=PYPNM_SERVE_WORKERS=2")
OPERATORS = "/etc/systemd/system/pypnm.service.d"


def _again(m, workers, limit, source="seeded_profile"):
    """The values after a reload and a restart."""
    m.systemctl("daemon-reload")
    m.systemctl("restart", "pypnm.service")
    return serves(m, workers, limit, source)


@case(fast=(257,))
def systemctl_edit(e2e):
    """`systemctl edit`: `Environment=PYPNM_SERVE_WORKERS=2`; `systemctl revert` restores the sized value"""
    with e2e.machine() as m:
        m.boot()
        serves(m, 1, 1000)
        m.install({"/tmp/editor": (f"#!/bin/sh\n# Newer ones give a line number before the file.\nfor file; do :; done\ncat > \"$file\" <<'end'\n{TWO}end\n", 0o755)})
        # It requires a terminal.
        m.run("SYSTEMD_EDITOR=/tmp/editor script -qec 'systemctl edit pypnm.service' /dev/null")
        expect(m.exists(f"{OPERATORS}/override.conf"), "systemctl edit wrote no override.conf")
        m.systemctl("restart", "pypnm.service")
        serves(m, 2, 1000)
        m.systemctl("revert", "pypnm.service")
        # The unit itself is in /etc, and there is none in /usr that it replaces, so revert keeps it.
        _again(m, 1, 1000)


@case()
def dropin_in_etc(e2e):
    """A drop-in in `/etc`, present since boot, sets both numbers"""
    both = dropin("Environment=PYPNM_SERVE_WORKERS=2 PYPNM_SERVE_LIMIT_MAX_REQUESTS=300")
    with e2e.machine(files={f"{OPERATORS}/20-site.conf": both}) as m:
        m.boot()
        serves(m, 2, 300)
        expect("Environment=PYPNM_SERVE_WORKERS=1\n" in generated(m), "the generated drop-in has the computed number")


@case()
def dropin_in_run(e2e):
    """A drop-in in `/run` (`systemctl edit --runtime`)"""
    with e2e.machine() as m:
        m.boot()
        m.install({"/run/systemd/system/pypnm.service.d/override.conf": TWO})
        _again(m, 2, 1000)


@case()
def unit_of_its_own(e2e):
    """`Environment=PYPNM_SERVE_WORKERS=2` in the operator's own unit, before the drop-in: it is kept; without it,
    sized again"""
    place = "/etc/systemd/system/pypnm.service"
    plain = FOREIGN.format(start=SERVE)
    unit = plain.replace("ExecStart=", "Environment=PYPNM_SERVE_WORKERS=2\nExecStart=")
    line = unit.splitlines().index("Environment=PYPNM_SERVE_WORKERS=2") + 1
    with e2e.machine(files={place: unit}) as m:
        m.boot()
        serves(m, 2, 1000)
        expect(GENERATED in m.show("pypnm.service", "DropInPaths"), "systemd shows the drop-in")
        expect(f"# Set in {place}:{line}" in generated(m), f"the drop-in names the place:\n{generated(m)}")
        output = m.run("pypnm-sizing explain").stdout
        expect(re.search(rf"{re.escape(place)}:{line}:\s+Environment:\s+PYPNM_SERVE_WORKERS=2\s+is\s+in\s+effect", output), f"explain names it:\n{output}")
        m.install({place: plain})
        _again(m, 1, 1000)


@case(fast=(252,))
def environment_file(e2e):
    """`EnvironmentFile=` in a drop-in"""
    files = {f"{OPERATORS}/20-site.conf": dropin("EnvironmentFile=/etc/default/pypnm"), "/etc/default/pypnm": "PYPNM_SERVE_WORKERS=2\n"}
    with e2e.machine(files=files) as m:
        m.boot()
        serves(m, 2, 1000)


@case()
def sizing_conf(e2e):
    """`Workers=` and `LimitMaxRequests=` in `sizing.conf`, then in `sizing.conf.d`, then masked"""
    files = {"/etc/pypnm/sizing.conf": "[Sizing]\nWorkers=2\nLimitMaxRequests=300\n"}
    with e2e.machine(files=files) as m:
        m.boot()
        serves(m, 2, 300)
        m.install({"/etc/pypnm/sizing.conf.d/50-site.conf": "[Sizing]\nLimitMaxRequests=400\n"})
        _again(m, 2, 400)
        m.run("ln -sf /dev/null /etc/pypnm/sizing.conf && rm /etc/pypnm/sizing.conf.d/50-site.conf")
        _again(m, 1, 1000)


@case()
def flags(e2e):
    """`--workers` and `--limit-max-requests` on the command line"""
    with e2e.machine(start=f"{SERVE} --workers 2 --limit-max-requests 300") as m:
        m.boot()
        serves(m, 2, 300, source="explicit_cli")


@case()
def one_flag(e2e):
    """`--workers` alone: the recycle limit is still the sized one"""
    with e2e.machine(start=f"{SERVE} --workers 2") as m:
        m.boot()
        running = serves(m, 2, 1000, source=None)
        e2e.note(f"active_source: {running['active_source']}")


@case(fast=(257,))
def kernel_switch(e2e):
    """`pypnm.sizing=no` for one boot (a container's arguments): no drop-in; the next boot sizes again"""
    with e2e.machine() as m:
        m.boot("pypnm.sizing=no")
        equal(generated(m), "", "the drop-in")
        equal(m.exists(ENV_FILE), False, f"{ENV_FILE} exists")
        serves(m, None, None, source="hardware_auto")
        m.reboot()
        serves(m, 1, 1000)


@case(versions=(252, 262))
def kernel_switch_really_booted(e2e):
    """`pypnm.sizing=no` on a real kernel's command line (QEMU)"""
    with e2e.guest(2, "4G", start=IDLE) as m:
        m.boot("pypnm.sizing=no")
        equal(generated(m), "", "the drop-in")
        expect("PYPNM_SERVE_WORKERS" not in m.show("pypnm.service", "Environment"), "nothing of it is loaded")


@case()
def disabled(e2e):
    """`Enabled=no`; then the generator masked by a symbolic link to /dev/null"""
    with e2e.machine(files={"/etc/pypnm/sizing.conf": "[Sizing]\nEnabled=no\n"}, start=IDLE) as m:
        m.boot()
        equal(generated(m), "", "the drop-in")
        m.run("rm /etc/pypnm/sizing.conf")
        m.systemctl("daemon-reload")
        sized(m, 1, 1000)
        m.run(f"mkdir -p /etc/systemd/system-generators && ln -s /dev/null /etc/systemd/system-generators/{GENERATOR.rpartition('/')[2]}")
        m.systemctl("daemon-reload")
        equal(generated(m), "", "the drop-in of a masked generator")


@case()
def dropin_masked(e2e):
    """The generated drop-in masked by a file of the same name in `/etc`"""
    with e2e.machine(start=IDLE) as m:
        m.run(f"mkdir -p {OPERATORS} && ln -s /dev/null {OPERATORS}/10-pypnm-sizing.conf")
        m.boot()
        expect("PYPNM_SERVE_WORKERS" not in m.show("pypnm.service", "Environment"), "nothing of it is loaded")


@case()
def bad_value(e2e):
    """An override that would crash PyPNM (`PYPNM_SERVE_WORKERS=abc`): the sized value is used instead, and the log
    names it"""
    with e2e.machine(files={f"{OPERATORS}/20-site.conf": dropin("Environment=PYPNM_SERVE_WORKERS=abc")}) as m:
        m.boot()
        serves(m, 1, 1000)
        output = m.journal("-b", "-o", "cat")
        expect("abc" in output and "PYPNM_SERVE_WORKERS" in output, f"the journal does not name it:\n{output[-3000:]}")


@case(fast=(262,))
def set_property(e2e):
    """`systemctl set-property MemoryMax=5G` on a 16 GB machine: counts like any other limit after the next reload"""
    with e2e.machine(cpus=4, memory_kb=KB_16G, start=IDLE) as m:
        m.boot()
        sized(m, 4, 2000)
        m.systemctl("set-property", "pypnm.service", "MemoryMax=5G")
        m.systemctl("daemon-reload")
        sized(m, 1, 1000)
        m.systemctl("set-property", "pypnm.service", "MemoryMax=infinity")
        m.systemctl("daemon-reload")
        sized(m, 4, 2000)


@case()
def slice_limit(e2e):
    """The operator's unit in their own slice with `MemoryMax=7G` and `CPUQuota=300%`"""
    files = {
        "/etc/systemd/system/docsis.slice": "[Slice]\nMemoryMax=7G\nCPUQuota=300%\n",
        f"{OPERATORS}/20-site.conf": dropin("Slice=docsis.slice"),
    }
    with e2e.machine(cpus=4, memory_kb=KB_16G, start=IDLE, files=files) as m:
        m.boot()
        text = sized(m, 2, 2000)
        expect("docsis.slice" in text, f"the drop-in names the slice:\n{text}")
        equal(loaded(m)["PYPNM_SERVE_CPU_COUNT"], "3", "CPUs")


@case()
def two_units(e2e):
    """`Units=` with PyPNM and PyPNM-CMTS on one machine: each gets an equal share"""
    other = FOREIGN.format(start="/opt/pypnm/bin/pypnm serve --host 127.0.0.1 --port 8080").replace("pypnm-docsis", "pypnm-other")
    files = {
        "/etc/pypnm/sizing.conf": "[Sizing]\nUnits=pypnm.service pypnm-cmts.service\n",
        "/etc/systemd/system/pypnm-cmts.service": other,
    }
    with e2e.machine(cpus=4, memory_kb=KB_8G, files=files) as m:
        m.run("systemctl enable --quiet pypnm-cmts.service")
        m.boot()
        serves(m, 1, 1000)
        equal(loaded(m, "pypnm-cmts.service")["PYPNM_SERVE_WORKERS"], "1", "workers of the other unit")
        equal(written(m)["PYPNM_SERVE_CPU_COUNT"], "2", "CPUs of each")
        expect(m.exists("/run/pypnm-sizing/pypnm-cmts.service.env"), "the other unit's file")
