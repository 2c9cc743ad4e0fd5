"""The guide's seven machines, booted by QEMU with that number of CPUs and that amount of memory."""

from suite import ENV_FILE, STAND_IN, case, equal, expect, generated, loaded, serves, sized, written

# CPUs, memory, and the guide's values: workers, recycle limit.
ROWS = [
    (2, "4G", 1, 1000),
    (2, "8G", 2, 1000),
    (4, "8G", 2, 2000),
    (4, "16G", 4, 2000),
    (8, "16G", 4, 2000),
    (8, "32G", 4, 2000),
    (16, "64G", 4, 2000),
]


def _row(cpus, memory, workers, limit, fast=()):
    def row(e2e):
        with e2e.guest(cpus, memory, start=STAND_IN) as m:
            m.boot()
            facts = m.run("nproc; sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").stdout.split()
            equal(int(facts[0]), cpus, "CPUs of the guest")
            text = sized(m, workers, limit)
            found = loaded(m)
            equal(found["PYPNM_SERVE_CPU_COUNT"], str(cpus), "CPU count that systemd loaded")
            gib = float(found["PYPNM_SERVE_TOTAL_MEMORY_GIB"])
            expect(abs(gib - int(facts[1]) / 1048576) <= 0.01, f"{gib} GiB of {facts[1]} kB")
            m.wait("pypnm.service", "active")
            # The values that a PyPNM would get if it started now.
            equal((written(m)["PYPNM_SERVE_WORKERS"], written(m)["PYPNM_SERVE_LIMIT_MAX_REQUESTS"]), (str(workers), str(limit)), ENV_FILE)
            equal(m.run("pypnm-sizing preview").stdout, text, "preview against the drop-in")
            equal(m.run("dmesg | grep pypnm-sizing", check=False).stdout, "", "the kernel's log of an ordinary boot")

            def fits():
                checked.append(m.run("pypnm-sizing check", check=False))
                return checked[-1].returncode == 0

            # The workers may still be starting.
            checked = []
            m.until(fits, "check to say that it fits", timeout=180, pause=1)
            checked = checked[-1]
            e2e.note(f"{cpus} CPUs, MemTotal {facts[1]} kB: {workers} workers, {limit}; check: {checked.stdout.strip()}")

    row.__name__ = f"row_{cpus}c_{memory}"
    row.__doc__ = f"The guide's {cpus} cores / {memory}B, really booted: {workers} worker{'s' if workers > 1 else ''}, {limit}"
    row.__module__ = __name__
    return case(fast=fast)(row)


for number, values in enumerate(ROWS):
    _row(*values, fast=(252,) if number == 0 else ())


@case(versions=(252,))
def proven_concurrency(e2e):
    """16 cores / 64GB with MaxWorkers=8, booted in QEMU: 8 workers, 2000"""
    with e2e.guest(16, "64G", start=STAND_IN, files={"/etc/pypnm/sizing.conf": "[Sizing]\nMaxWorkers=8\n"}) as m:
        m.boot()
        sized(m, 8, 2000)


@case()
def the_real_pypnm(e2e):
    """4 cores / 8GB, booted in QEMU, with the real PyPNM serving: 2 live workers, 2000"""
    with e2e.guest(4, "8G") as m:
        m.boot()
        running = serves(m, 2, 2000, timeout=600)
        e2e.note(f"runtimeProfile: {running['active_workers']} workers, {running['active_limit_max_requests']}, {running['active_source']}")
        expect("memory" in generated(m).lower(), "the drop-in's reasons")
