"""The machine changes while it runs, followed by daemon-reload, check and apply. In QEMU, except the restart of the
real PyPNM."""

import re

from machine import Failure
from suite import KB_4G, KB_16G, STAND_IN, case, equal, expect, loaded, serves, sized, workers, written

BALLOON = ["-device", "virtio-balloon-pci,id=balloon0"]


def _check(m, status):
    """Waits until `check` exits with this status, as workers may still be starting, and returns its output."""

    def checked():
        done = m.run("pypnm-sizing check", check=False)
        printed.append(f"status {done.returncode}: {done.stdout}{done.stderr}")
        return done.returncode == status and done.stdout

    printed = []
    try:
        return m.until(checked, f"check to end with {status}", timeout=120, pause=1)
    except Failure as failure:
        raise Failure(f"{printed[-1]}{failure}") from None


def _resized(m, workers_, limit):
    """After a hardware change: check reports it, a reload leaves the service running, apply puts the new profile
    into effect."""
    main = m.show("pypnm.service", "MainPID")
    line = _check(m, 1)
    m.systemctl("daemon-reload")
    sized(m, workers_, limit)
    equal(m.show("pypnm.service", "MainPID"), main, "the main process after a reload")
    _check(m, 1)
    # The check that apply runs may come before all workers are up on an emulated machine: status 1.
    done = m.run("pypnm-sizing apply", check=False)
    expect(done.returncode in (0, 1), f"apply: {done.stdout}{done.stderr}")
    expect(m.show("pypnm.service", "MainPID") != main, "apply did not restart the service")
    equal((written(m)["PYPNM_SERVE_WORKERS"], written(m)["PYPNM_SERVE_LIMIT_MAX_REQUESTS"]), (str(workers_), str(limit)), "PyPNM's file")
    _check(m, 0)
    return line


def _blocks(m):
    """The number of memory blocks known to the kernel."""
    return int(m.run("ls -d /sys/devices/system/memory/memory[0-9]* | wc -l").stdout)


def _memory_kb(m):
    return int(m.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").stdout)


ONLINE_MEMORY = """
for block in /sys/devices/system/memory/memory[0-9]*; do
    [ "$(cat $block/state)" = online ] || echo online > $block/state
done
"""
ONLINE_CPUS = """
for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do
    [ "$(cat $cpu)" = 1 ] || echo 1 > $cpu
done
"""


@case(versions=(252,))
def cpu_and_memory_hotplug(e2e):
    """CPUs and a DIMM added at run time (QEMU, Linux 6.1): 2c/4G becomes 4c/8G, then 4c/16G"""
    with e2e.guest(2, "4G", start=STAND_IN, sockets=8, slots=(4, "32G")) as m:
        m.boot()
        sized(m, 1, 1000)
        _check(m, 0)
        for number in (2, 3):
            m.monitor("device_add", driver="qemu64-x86_64-cpu", id=f"cpu{number}", **{"socket-id": number, "core-id": 0, "thread-id": 0})
        m.until(lambda: m.exists("/sys/devices/system/cpu/cpu3"), "the new CPUs to show")
        # They are offline at first, and offline CPUs do not count.
        m.systemctl("daemon-reload")
        equal(loaded(m)["PYPNM_SERVE_CPU_COUNT"], "2", "CPUs while the new ones are offline")
        m.run(ONLINE_CPUS)
        _add_memory(m, 4)
        equal(int(m.run("nproc").stdout), 4, "CPUs of the guest")
        e2e.note(_resized(m, 2, 2000).strip())
        _add_memory(m, 8)
        e2e.note(_resized(m, 4, 2000).strip())


@case(versions=(257, 262))
def memory_hotplug(e2e):
    """A DIMM added at run time (QEMU, Linux 6.12): 4c/4G becomes 4c/16G"""
    with e2e.guest(4, "4G", start=STAND_IN, slots=(4, "32G")) as m:
        m.boot()
        sized(m, 1, 1000)
        _add_memory(m, 12)
        e2e.note(_resized(m, 4, 2000).strip())


def _add_memory(m, gib):
    before = _blocks(m)
    name = f"dimm{before}"
    m.monitor("object-add", **{"qom-type": "memory-backend-ram", "id": f"{name}-ram", "size": gib << 30, "reserve": False})
    m.monitor("device_add", driver="pc-dimm", id=name, memdev=f"{name}-ram")
    m.until(lambda: _blocks(m) >= before + gib * 8, "the new memory to show")
    kb = _memory_kb(m)
    m.run(ONLINE_MEMORY)
    m.until(lambda: _memory_kb(m) > kb or _memory_kb(m) > gib << 20, "the new memory to count")


@case()
def cpu_offline(e2e):
    """A CPU taken offline and online again (QEMU): 4c/16G"""
    with e2e.guest(4, "16G", start=STAND_IN) as m:
        m.boot()
        sized(m, 4, 2000)
        m.run("echo 0 > /sys/devices/system/cpu/cpu3/online")
        e2e.note(_resized(m, 3, 2000).strip())
        m.run("echo 1 > /sys/devices/system/cpu/cpu3/online")
        _resized(m, 4, 2000)


@case(versions=(252, 262))
def balloon(e2e):
    """The host takes memory through a balloon device, and returns it (QEMU): 2c/8G to 4G"""
    with e2e.guest(2, "8G", start=STAND_IN, devices=BALLOON) as m:
        m.boot()
        sized(m, 2, 1000)
        m.run("modprobe -a virtio_pci virtio_balloon")
        m.monitor("balloon", value=4 << 30)
        m.until(lambda: _memory_kb(m) < 4_400_000, "the balloon to fill", timeout=200)
        e2e.note(_resized(m, 1, 1000).strip())
        m.monitor("balloon", value=8 << 30)
        m.until(lambda: _memory_kb(m) > 8_000_000, "the balloon to empty", timeout=200)
        _resized(m, 2, 1000)


@case()
def container_limits(e2e):
    """A container with its own `memory.max` and `cpu.max` (QEMU), changed at run time: 2 GiB and 1.5 CPUs of 4c/16G"""
    with e2e.guest(4, "16G", start=STAND_IN, container=(2 << 30, 150000)) as m:
        m.boot()
        expect(m.run("systemd-detect-virt --container").stdout.strip() not in ("", "none"), "systemd sees the container")
        text = sized(m, 1, 1000)
        expect(re.search(r"# Memory .*memory\.max", text) and re.search(r"# CPUs .*cpu\.max", text), f"the drop-in names the limits:\n{text}")
        equal(loaded(m)["PYPNM_SERVE_CPU_COUNT"], "1", "CPUs")
        m.outside.run("cd /sys/fs/cgroup/container && echo 14G > memory.max && echo 'max 100000' > cpu.max")
        e2e.note(_resized(m, 4, 2000).strip())
        m.outside.run("cd /sys/fs/cgroup/container && echo 7G > memory.max && echo 0-1 > cpuset.cpus")
        e2e.note(_resized(m, 2, 1000).strip())


@case()
def apply_on_the_real_pypnm(e2e):
    """`pypnm-sizing apply` with the real PyPNM after the machine grew (namespaces); a second time, nothing is
    restarted"""
    with e2e.machine(cpus=2, memory_kb=KB_4G) as m:
        m.boot()
        serves(m, 1, 1000)
        _check(m, 0)
        m.hardware(cpus=4, memory_kb=KB_16G)
        _check(m, 1)
        m.run("pypnm-sizing apply --dry-run")
        equal(len(workers(m)), 1, "live workers after --dry-run")
        m.run("pypnm-sizing apply")
        serves(m, 4, 2000)
        _check(m, 0)
        main = m.show("pypnm.service", "MainPID")
        m.run("pypnm-sizing apply")
        equal(m.show("pypnm.service", "MainPID"), main, "the main process after an apply that had nothing to do")
