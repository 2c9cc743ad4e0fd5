"""The check at the start of the service, for limits that only its own cgroup shows, after the generator has run. In QEMU, whose
kernel has the memory and CPU controllers of cgroup version 2."""

import re

from suite import STAND_IN, STAND_IN_FILES, case, dropin, equal, expect, generated, written

# A unit from another generator, such as podman's for a quadlet, which runs in parallel and whose limits ours cannot
# see.
OTHER_GENERATOR = """\
#!/bin/sh
cat >"$1/pypnm.service" <<'END'
[Service]
Type=exec
ExecStart={start}
MemoryMax=2G
END
"""


def numbers(machine):
    """Workers and recycle limit in the file that PyPNM reads."""
    values = written(machine)
    return int(values["PYPNM_SERVE_WORKERS"]), int(values["PYPNM_SERVE_LIMIT_MAX_REQUESTS"])


def restarted(machine):
    """The contents of the file after a restart."""
    machine.systemctl("restart", "pypnm.service")
    return numbers(machine)


def drop_in_says(machine, workers, limit):
    """The values that the generator wrote at the last boot or reload."""
    for key, value in (("WORKERS", workers), ("LIMIT_MAX_REQUESTS", limit)):
        expect(f"Environment=PYPNM_SERVE_{key}={value}\n" in generated(machine), f"the drop-in's {key}:\n{generated(machine)}")


@case(versions=(252, 257), fast=())
def at_a_boot_and_after_it(e2e):
    """Huge pages from sysctl.d at boot; limits set on the service and its slice after the last reload; an operator's
    number"""
    files = {
        "/etc/sysctl.d/50-huge-pages.conf": "vm.nr_hugepages = 2400\n",
        # The kernel clears every page, which takes longer on an emulated machine than systemd waits.
        "/etc/systemd/system/systemd-sysctl.service.d/50-slow.conf": dropin("TimeoutStartSec=10min"),
        **STAND_IN_FILES,
    }
    with e2e.guest(4, "16G", files=files, start=STAND_IN) as m:
        m.boot()
        m.wait("pypnm.service", timeout=120)
        drop_in_says(m, 4, 2000)
        equal(numbers(m), (2, 2000), "16 GB with 5 GB of huge pages from sysctl.d, at the first start")
        output = m.journal("-u", "pypnm.service", "-o", "cat")
        expect(re.search(r"lowered to 2 workers.*PYPNM_SERVE_WORKERS 4", output), f"the journal:\n{output}")

        m.run("sysctl -q vm.nr_hugepages=0")
        equal(restarted(m), (4, 2000), "without huge pages: what the drop-in says")
        m.systemctl("set-property", "--runtime", "pypnm.service", "MemoryMax=2G")
        equal(restarted(m), (1, 1000), "MemoryMax=2G by set-property, without a reload")
        drop_in_says(m, 4, 2000)
        m.systemctl("set-property", "--runtime", "pypnm.service", "MemoryMax=infinity")
        equal(restarted(m), (4, 2000), "no limit again")
        m.systemctl("set-property", "--runtime", "system.slice", "CPUQuota=250%")
        equal(restarted(m), (2, 2000), "CPUQuota=250% of the slice, set after the last reload")
        m.systemctl("set-property", "--runtime", "system.slice", "CPUQuota=")

        # An operator's number is kept, even if it equals the sized one.
        m.systemctl("set-property", "--runtime", "pypnm.service", "MemoryMax=2G")
        m.install({"/etc/systemd/system/pypnm.service.d/50-own.conf": dropin("Environment=PYPNM_SERVE_WORKERS=3")})
        m.systemctl("daemon-reload")
        equal(restarted(m)[0], 3, "an operator's three workers in 2 GiB")


@case(versions=(252, 257), fast=())
def units_of_others(e2e):
    """A unit from another generator, such as a quadlet with MemoryMax= in [Service]; a transient unit of systemd-run"""
    unit = "/etc/systemd/system/pypnm.service"
    files = {"/etc/systemd/system-generators/other": (OTHER_GENERATOR.format(start=STAND_IN), 0o755), **STAND_IN_FILES}
    with e2e.guest(4, "16G", files=files, start=STAND_IN) as m:
        m.boot()
        m.run(f"systemctl stop pypnm.service; rm {unit} /etc/systemd/system/multi-user.target.wants/pypnm.service")
        m.systemctl("daemon-reload")
        equal(m.show("pypnm.service", "FragmentPath"), "/run/systemd/generator/pypnm.service", "the unit's file")
        drop_in_says(m, 4, 2000)
        # With Restart=no, a single worker that reached a recycle limit would end the service for good.
        equal(restarted(m), (1, 0), "a unit of another generator with MemoryMax=2G")
        equal(m.show("pypnm.service", "Restart"), "no", "Restart= of another generator's unit")

        # A transient unit cannot use the name of one that has a file or is still remembered as failed.
        m.run("systemctl stop pypnm.service; systemctl reset-failed; rm /etc/systemd/system-generators/other")
        m.run("rm -f /usr/lib/systemd/system/pypnm.service")
        m.systemctl("daemon-reload")
        m.run(f"systemd-run --quiet --unit=pypnm.service -p Type=exec -p MemoryMax=2G {STAND_IN}")
        equal(numbers(m), (1, 0), "a transient unit with MemoryMax=2G")
