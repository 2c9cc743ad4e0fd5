"""Failures around the generator. In each case, the boot completes, the service gets either a valid profile or none, and the
log says why."""

import collections
import re
import subprocess

import images
import suite
from suite import (
    GENERATED, GENERATOR, IDLE, KB_8G, KB_16G, case, equal, expect, generated, loaded, serves, sized,
)  # fmt: skip

NAME = GENERATOR.rpartition("/")[2]
# Replaces the generator: runs the real one under strace, which injects the faults configured in /etc/fault. With -D, it
# remains the process that PID 1 started, so that PID 1 sees its exit status, and it sees its caller.
FAULTY = {
    f"/etc/systemd/system-generators/{NAME}": (f'#!/bin/sh\nexec strace -D -o /dev/null $(cat /etc/fault) {GENERATOR} "$@"\n', 0o755)
}
# All inputs from the kernel.
KERNEL_FILES = (
    "/proc/meminfo", "/proc/1/status", "/proc/1/cgroup", "/proc/1/mountinfo", "/proc/cmdline", "/proc/1/cmdline",
    "/sys/devices/system/cpu/online", "/sys/fs/cgroup/cgroup.controllers",
)  # fmt: skip
# By read(2) as well: if openat2(2) fails, the generator opens each component on its own, which -P does not match.
UNREADABLE = " ".join(["-e inject=open,openat,openat2,read:error=EACCES", *(f"-P {path}" for path in KERNEL_FILES)])
FILL_RUN = "dd if=/dev/zero of=/run/filler bs=4k 2>/dev/null || true; dd if=/dev/zero of=/run/filler2 bs=1 2>/dev/null || true"


def _complaints(m):
    """The generator's messages in the kernel log since the last call."""
    return [line for line in m.kernel_log().splitlines() if NAME in line]


def _complained(m, *words):
    messages = _complaints(m)
    expect(messages and all(any(word in line for line in messages) for word in words), f"{words} expected in the kernel's log: {messages}")
    return messages


def _sane(m, workers=1, limit=1000):
    """Checks that the drop-in is complete and has these values, or that there is none; returns which."""
    text = generated(m)
    if text:
        sized(m, workers, limit)
        expect(text.endswith("'systemctl edit pypnm.service'.\n"), f"the drop-in is cut off:\n{text}")
    leftovers = m.run("ls -A /run/systemd/generator/pypnm.service.d 2>/dev/null", check=False).stdout.split()
    expect(not [name for name in leftovers if name.endswith(".conf") and name != "10-pypnm-sizing.conf"], f"left behind: {leftovers}")
    return bool(text)


@case(fast=(252, 262))
def full_run_at_boot(e2e):
    """`/run` full at boot: PyPNM starts and sizes itself, and the log says why; with space available, it is sized
    again"""
    with e2e.machine(kmsg=True, run_options=",size=256k") as m:
        m.boot(before=FILL_RUN)
        _complained(m, "No space left on device")
        equal(generated(m), "", "the drop-in")
        serves(m, None, None, source="hardware_auto")
        m.run("rm -f /run/filler*; mount -o remount,size=64m /run")
        m.systemctl("daemon-reload")
        equal(_sane(m), True, "a drop-in")
        m.systemctl("restart", "pypnm.service")
        serves(m, 1, 1000)


# As if something else fills /run while generators run: before a reload, systemd checks for free bytes, but not for
# inodes.
FILLING = f"""#!/bin/sh
if [ -e /etc/fill ]; then
    # shellcheck disable=SC2188
    i=0; while [ $i -lt 5000 ] && (: > /run/filler$i) 2>/dev/null; do i=$((i+1)); done
fi
exec {GENERATOR} "$@"
"""


@case()
def full_run_at_reload(e2e):
    """`/run` runs out of inodes during a reload: the reload succeeds, the service continues, and the log says why"""
    files = {f"/etc/systemd/system-generators/{NAME}": (FILLING, 0o755)}
    with e2e.machine(kmsg=True, start=IDLE, files=files) as m:
        m.boot()
        equal(_sane(m), True, "a drop-in")
        main = m.show("pypnm.service", "MainPID")
        _complaints(m)
        m.run("touch /etc/fill; mount -o remount,nr_inodes=$(($(df --output=iused /run | tail -1) + 100)) /run")
        m.systemctl("daemon-reload")
        _complained(m, "No space left on device")
        equal(_sane(m), False, "a drop-in")
        equal(m.show("pypnm.service", "MainPID"), main, "the main process")
        m.run("mount -o remount,nr_inodes=100000 /run; rm -f /run/filler* /etc/fill")
        m.systemctl("daemon-reload")
        equal(_sane(m), True, "a drop-in")


@case(fast=(257,))
def read_only_run(e2e):
    """Output directory read-only at boot: PyPNM starts and sizes itself, and the log says why"""
    with e2e.machine(kmsg=True) as m:
        m.boot(before="mkdir -p /run/systemd/generator; mount -t tmpfs -o ro tmpfs /run/systemd/generator")
        _complained(m, "Read-only file system")
        equal(generated(m), "", "the drop-in")
        serves(m, None, None, source="hardware_auto")


@case()
def read_only_runtime_directory(e2e):
    """`/run/pypnm-sizing` read-only: the service starts anyway, and its log says why it is not sized"""
    with e2e.machine() as m:
        m.boot(before="mkdir -p /run/pypnm-sizing; mount -t tmpfs -o ro tmpfs /run/pypnm-sizing")
        serves(m, None, None, source="hardware_auto")
        messages = m.journal("-u", "pypnm.service", "-o", "cat")
        expect("Read-only file system" in messages, f"the journal:\n{messages}")


def _calls(m, prepare):
    """The system calls of a run, in order, each as strace's injection selects it: its name, and a count for that
    name."""
    m.run(f"{prepare}; strace -qq -o /var/tmp/trace {GENERATOR} /var/tmp/out")
    seen, calls = collections.Counter(), []
    for name in re.findall(r"^(\w+)\(", m.read("/var/tmp/trace"), re.MULTILINE):
        seen[name] += 1
        # The exec belongs to the caller.
        if name != "execve":
            calls.append((name, seen[name]))
    expect(len(calls) > 20, f"only {calls}")
    return calls


PREPARE = "rm -rf /var/tmp/out; mkdir -p /var/tmp/out"
# A drop-in from an earlier run exists.
PREPARE_OLD = f"{PREPARE}/pypnm.service.d; echo '# old' > /var/tmp/out/pypnm.service.d/10-pypnm-sizing.conf"
TRY_EACH = """
good=$(md5sum < /var/tmp/good); old=$(echo '# old' | md5sum)
while read -r name number; do
    {prepare}
    strace -qq -o /dev/null -e inject=$name:{fault}:when=$number {generator} /var/tmp/out 2>/var/tmp/messages </dev/null
    status=$?
    file=/var/tmp/out/pypnm.service.d/10-pypnm-sizing.conf
    if [ ! -e $file ]; then found=none; elif [ "$(md5sum < $file)" = "$good" ]; then found=complete
    elif [ "$(md5sum < $file)" = "$old" ]; then found=old; elif tail -1 $file | grep -q "systemctl edit"; then found=other; else found=PART; fi
    log=silent; ! grep -q {name} /var/tmp/messages || log=message
    echo $name-$number $status $found $log "$(ls -A /var/tmp/out/pypnm.service.d 2>/dev/null | grep -v '^10-' | tr '\\n' ' ')"
done
"""


def _try_each(m, fault, prepare=PREPARE):
    """One run per system call, with the fault at that call: call, status, drop-in, messages, leftover files."""
    m.run(f"{PREPARE}; {GENERATOR} /var/tmp/out && cp /var/tmp/out/pypnm.service.d/10-pypnm-sizing.conf /var/tmp/good")
    calls = "".join(f"{name} {number}\n" for name, number in _calls(m, prepare))
    done = m.run(TRY_EACH.format(prepare=prepare, fault=fault, generator=GENERATOR, name=NAME), timeout=300, input=calls)
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(call, int(status), found, log, leftovers) for call, status, found, log, *leftovers in lines]


@case(fast=(252,))
def killed_at_each_system_call(e2e):
    """Killed at each system call, with and without an older drop-in: the drop-in is complete, unchanged or missing,
    and no file is left that systemd would load"""
    with e2e.machine(start=IDLE) as m:
        m.boot()
        for prepare, allowed in ((PREPARE, {"none", "complete"}), (PREPARE_OLD, {"old", "complete"})):
            runs = _try_each(m, "signal=KILL", prepare)
            for call, status, found, _, leftovers in runs:
                equal(status, 137, f"status, killed at {call}")
                expect(found in allowed, f"killed at {call}: {found}")
                expect(not [name for name in leftovers if name.endswith(".conf")], f"killed at {call}: {leftovers}")
            equal({found for _, _, found, *_ in runs}, allowed, "what was found")
            e2e.note(f"killed at each of {len(runs)} system calls: " + _counts(runs))


@case(fast=(252,))
def denied_each_system_call(e2e):
    """Each system call fails (EPERM as with seccomp, EIO, ENOMEM): the drop-in is complete, more conservative, or
    missing with a message and without a signal; only when memory itself is denied (mmap, brk, mremap) does the
    generator abort"""
    with e2e.machine(start=IDLE) as m:
        m.boot()
        for error in ("EPERM", "EIO", "ENOMEM"):
            runs = _try_each(m, f"error={error}")
            # Until it opens its first file, only the C library and the runtime have started.
            start = next(number for number, (call, *_) in enumerate(runs) if call in ("open-1", "openat-1"))
            for number, (call, status, found, log, leftovers) in enumerate(runs):
                where = f"{error} at {call}: status {status}, {found}, {log}, {leftovers}"
                expect(found != "PART" and not [name for name in leftovers if name.endswith(".conf")], where)
                # Without a single page of memory, a Rust program can only abort.
                if number >= start and call.partition("-")[0] not in ("mmap", "brk", "mremap"):
                    expect(status < 128 and (found != "none" or log == "message"), where)
                    expect(status != 0 or found != "none", where)
            e2e.note(f"{error} at each of {len(runs)} system calls: " + _counts(runs))


def _counts(runs):
    return ", ".join(f"{count} {found}" for found, count in collections.Counter(found for _, _, found, *_ in runs).items())


@case(fast=(257,))
def killed_at_reloads(e2e):
    """Killed at each system call during a real daemon-reload: PID 1 and the service continue; the next reload sizes
    it"""
    with e2e.machine(files={**FAULTY, "/etc/fault": "-e trace=all"}, start=IDLE) as m:
        m.boot()
        equal(_sane(m), True, "a drop-in")
        main = m.show("pypnm.service", "MainPID")
        calls = _calls(m, PREPARE)
        calls = calls if e2e.version == 252 else calls[::3]
        found = []
        for name, number in calls:
            m.run(f"echo '-e inject={name}:signal=KILL:when={number}' > /etc/fault")
            m.systemctl("daemon-reload")
            found.append(_sane(m))
        expect(sum(found) < len(found) / 4, f"{sum(found)} of {len(found)} were not killed before the end")
        messages = m.journal("-b", "-o", "cat")
        expect(re.search(rf"{NAME}'? (terminated|failed|died)[^\n]*(KILL|signal)", messages), f"the journal says nothing of it:\n{messages[-2000:]}")
        equal(m.show("pypnm.service", "MainPID"), main, "the main process")
        m.run(f"rm /etc/systemd/system-generators/{NAME}")
        m.systemctl("daemon-reload")
        equal(_sane(m), True, "a drop-in")
        e2e.note(f"{len(found)} reloads, each killed at another system call: {sum(found)} drop-ins, all whole")


@case()
def killed_at_boot(e2e):
    """Killed at boot just before its rename (QEMU): the boot completes, the service starts without a profile, and
    the kernel log says why"""
    with e2e.guest(2, "4G", start=IDLE, files={**FAULTY, "/etc/fault": "-e inject=rename,renameat,renameat2:signal=KILL"}) as m:
        m.boot()
        equal(_sane(m), False, "a drop-in")
        m.wait("pypnm.service", "active")
        messages = m.run(f"dmesg | grep {NAME}", check=False).stdout
        expect(re.search(r"signal|KILL", messages), f"the kernel's log: {messages}")
        e2e.note(messages.strip())
        m.run(f"rm /etc/systemd/system-generators/{NAME}")
        m.systemctl("daemon-reload")
        equal(_sane(m), True, "a drop-in")


@case(fast=(262,))
def unreadable_proc_and_sys(e2e):
    """Every file in `/proc` and `/sys` denied on a 16 GB machine: the guide's baseline, 1 and 1000, and the log says
    why"""
    with e2e.machine(cpus=4, memory_kb=KB_16G, files={**FAULTY, "/etc/fault": UNREADABLE}, start=IDLE, kmsg=True) as m:
        m.boot()
        equal(_sane(m, 1, 1000), True, "a drop-in")
        messages = _complained(m, "/proc/meminfo", "/sys/devices/system/cpu/online", "Permission denied")
        expect("# Warning" in generated(m), "the drop-in's comments say so, too")
        e2e.note(messages[0])


@case()
def hidden_proc_and_sys(e2e):
    """`/proc/meminfo` empty and no files in `/sys/devices/system/cpu`, as a container manager may leave them: the
    baseline"""
    with e2e.machine(cpus=4, memory_kb=KB_16G, start=IDLE, kmsg=True) as m:
        m.fake("/proc/meminfo", "")
        m.boot(before="mount -t tmpfs tmpfs /sys/devices/system/cpu")
        equal(_sane(m, 1, 1000), True, "a drop-in")
        _complained(m, "/proc/meminfo")


HOSTILE = {
    "junk": bytes(range(256)) * 64,
    "5 MiB of one line": b"x" * (5 << 20),
    "no section": "Workers=3\n",
    "a section that never ends": "[Sizing\nWorkers=3\n",
    "bad numbers": "[Sizing]\nWorkers=-1\nMaxWorkers=99999999999999999999999\nReserveMemory=1e9\nReserveCPUs=NaN\nLimitMaxRequests=1.5\n",
    "bad names": "[Sizing]\nUnits=../../etc/passwd pypnm.service; /etc/x.service pypnm.service\n",
    "text that would be a setting": "[Sizing]\nWorkers=1\\\nExecStartPre=/bin/touch /run/owned\n[Service]\nExecStartPre=/bin/touch /run/owned\n",
    "specifiers": "[Sizing]\nWorkers=%n\nUnits=pypnm.service %i.service\n",
    "a million keys": "[Sizing]\n" + "A=1\n" * 200_000,
}


@case(fast=(257,))
def hostile_configuration(e2e):
    """`sizing.conf` is junk, an endless device, or text that imitates a setting: sized anyway; it is 5 MiB long, a FIFO, a
    directory, or a loop of links: one worker"""
    with e2e.machine(cpus=4, memory_kb=KB_8G, start=IDLE, kmsg=True) as m:
        m.install({"/etc/pypnm/sizing.conf": HOSTILE["junk"]})
        m.boot()
        file = "/etc/pypnm/sizing.conf"

        def tried(name, workers=1, limit=1000):
            m.systemctl("daemon-reload", timeout=20)
            equal(_sane(m, workers, limit), True, f"a drop-in with {name}")
            entries = m.run("ls /run/systemd/generator").stdout.split()
            expect(not [entry for entry in entries if "passwd" in entry or ".service.d" in entry and entry != "pypnm.service.d"], f"{name}: {entries}")
            messages = _complaints(m)
            expect(messages, f"the kernel's log says nothing of {name}")
            expect(len(messages) <= 12, f"{name}: {len(messages)} lines in the kernel's log")
            return messages

        _complaints(m)
        for name, content in HOSTILE.items():
            m.install({file: content})
            tried(name, *((2, 2000) if len(content) <= 4 << 20 else ()))
        m.run(f"rm {file}; mkfifo {file}")
        tried("a FIFO")
        m.run(f"rm {file}; mkdir {file}")
        tried("a directory")
        m.run(f"rmdir {file}; ln -s /dev/zero {file}")
        # Everybody may write to it, so it has no effect.
        tried("an endless device", 2, 2000)
        m.run(f"rm {file}; ln -s {file} {file}")
        e2e.note(tried("a link to itself")[0])
        m.systemctl("restart", "pypnm.service")
        equal(m.exists("/run/owned"), False, "/run/owned exists")


SANDBOX = f"""#!/bin/sh
touch /e2e-written 2>/dev/null && echo writable > /run/e2e-root || echo read-only > /run/e2e-root
exec {GENERATOR} "$@"
"""


@case(fast=(252, 257))
def generator_sandbox(e2e):
    """Generators run unsandboxed on 252, and with `/` read-only on 257 and 262: sized on all, at boot and on a
    reload"""
    with e2e.machine(files={f"/etc/systemd/system-generators/{NAME}": (SANDBOX, 0o755)}, start=IDLE) as m:
        for reload in (False, True):
            if reload:
                m.run("rm -f /run/e2e-root /e2e-written")
                m.systemctl("daemon-reload")
            else:
                m.boot()
            equal(m.read("/run/e2e-root").strip(), "writable" if e2e.version < 253 else "read-only", "/ for generators")
            equal(_sane(m), True, "a drop-in")


# PID 1 and all its children under a filter that denies newer system calls, as with older container managers.
SECCOMP = """
import ctypes, os, struct, sys
denied = [int(number) for number in sys.argv[1].split(",")]
code = [(0x20, 0, 0, 0)]  # the system call's number
for number in denied:
    code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 1)]  # this one: EPERM
code += [(0x06, 0, 0, 0x7FFF0000)]
text = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
buffer = ctypes.create_string_buffer(text)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, program, 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"""
OPENAT2, STATX, FACCESSAT2 = 437, 332, 439  # x86-64


@case(fast=(252,))
def seccomp(e2e):
    """Under a seccomp filter that denies openat2 to PID 1 and its children, and on 252 statx and faccessat2 as well:
    sized"""
    # Without those two, 257 starts no services at all, and 262 exits immediately, with or without this package.
    denied = (OPENAT2, STATX, FACCESSAT2) if e2e.version == 252 else (OPENAT2,)
    with e2e.machine(files={"/usr/lib/e2e-seccomp.py": SECCOMP}) as m:
        m.boot(before=f'set -- python3 /usr/lib/e2e-seccomp.py {",".join(map(str, denied))} "$@"')
        equal(m.run(f"grep Seccomp: /proc/{m.show('pypnm.service', 'MainPID')}/status").stdout.split()[1], "2", "the filter inherited from PID 1")
        serves(m, 1, 1000)


APPARMOR = f"""
profile pypnm-sizing-generator {GENERATOR} {{
  capability dac_override,
  {GENERATOR} mr,
  ptrace (read),
  /proc/1/** r,
  /proc/*/mountinfo r,
  /proc/cmdline r,
  /etc/** r,
  /sys/** r,
  /usr/lib/systemd/** r,
  /usr/local/lib/** r,
  /run/** rwk,
  /dev/kmsg w,
}}
"""


@case(versions=(252,))
def apparmor(e2e):
    """AppArmor denies `/proc/meminfo`, then the output directory (QEMU, Debian's kernel): the baseline, then no
    drop-in; the log says why"""
    images.need("apparmor")
    def compiled(profile):
        done = subprocess.run(["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--ofile", "/dev/stdout"], input=profile.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
        return done.stdout

    files = {"/etc/one": compiled(APPARMOR), "/etc/two": compiled(APPARMOR.replace("/run/** rwk", "deny /run/systemd/generator/** w"))}
    with e2e.guest(4, "8G", start=IDLE, files=files) as m:
        m.boot()
        sized(m, 2, 2000)
        m.run("mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security")
        m.run("cat /etc/one > /sys/kernel/security/apparmor/.load")
        m.systemctl("daemon-reload")
        sized(m, 1, 1000)
        messages = m.run(f"dmesg | grep '{NAME}\\['", check=False).stdout
        expect("/proc/meminfo: Permission denied" in messages and messages.count("\n") == 1, f"the kernel's log: {messages}")
        m.run("cat /etc/two > /sys/kernel/security/apparmor/.replace")
        m.systemctl("daemon-reload")
        equal(generated(m), "", "the drop-in")
        messages = m.run(f"dmesg | grep '{NAME}\\[' | tail -n +2").stdout
        expect(re.search(r"/run/systemd/generator\S*: Permission denied", messages), f"the kernel's log: {messages}")
        equal(m.show("pypnm.service", "ActiveState"), "active", "the service")
        e2e.note(messages.strip())


@case(fast=(262,))
def reloads_at_once(e2e):
    """Two reloads at the same time, 50 times, and two generators in the same directory, 200 times: the drop-in is
    always complete, and no other files are left"""
    with e2e.machine(start=IDLE) as m:
        m.boot()
        for _ in range(50):
            m.run("systemctl daemon-reload & a=$!; systemctl daemon-reload & wait $a && wait $!")
            equal(_sane(m), True, "a drop-in")
        script = f"""
            {PREPARE}; {GENERATOR} /var/tmp/out; cp /var/tmp/out/pypnm.service.d/10-pypnm-sizing.conf /var/tmp/good
            for n in $(seq 200); do
                {GENERATOR} /var/tmp/out & a=$!; {GENERATOR} /var/tmp/out & wait $a && wait $! || exit
                cmp /var/tmp/good /var/tmp/out/pypnm.service.d/10-pypnm-sizing.conf || exit
            done
            ls -A /var/tmp/out/pypnm.service.d
        """
        equal(m.run(script).stdout.split(), ["10-pypnm-sizing.conf"], "the directory")


@case(versions=(252, 262))
def crashkernel(e2e):
    """`crashkernel=512M` leaves less than 6 GB of a 6.2 GB machine (QEMU): 1 worker instead of 2"""
    with e2e.guest(4, "6144M", start=IDLE) as m:
        m.boot()
        before = loaded(m)["PYPNM_SERVE_TOTAL_MEMORY_GIB"]
        sized(m, 2, 2000)
    with e2e.guest(4, "6144M", start=IDLE, words="crashkernel=512M") as m:
        m.boot()
        sized(m, 1, 1000)
        e2e.note(f"{before} GiB, with crashkernel=512M {loaded(m)['PYPNM_SERVE_TOTAL_MEMORY_GIB']} GiB")


@case(versions=(252,))
def clock_in_1970(e2e):
    """The clock is in 1970 at boot (QEMU, until systemd sets it), and at a reload and a start: sized"""
    with e2e.guest(2, "4G", start=suite.STAND_IN, devices=["-rtc", "base=1970-01-01T00:01:00"]) as m:
        m.boot()
        sized(m, 1, 1000)
        m.run("date -s @100")
        m.systemctl("daemon-reload")
        m.systemctl("restart", "pypnm.service")
        sized(m, 1, 1000)
        equal(suite.written(m)["PYPNM_SERVE_WORKERS"], "1", "PyPNM's file")
        equal(m.run("pypnm-sizing check", check=False).returncode, 0, "status of check")


@case(versions=(257,))
def log_of_a_real_kernel(e2e):
    """An unknown key at boot on a real kernel (QEMU): one line in `dmesg` and in the journal, with file, line and
    key"""
    with e2e.guest(2, "4G", start=IDLE, files={"/etc/pypnm/sizing.conf": "[Sizing]\nWorker=3\n"}) as m:
        m.boot()
        sized(m, 1, 1000)
        for messages in (m.run(f"dmesg | grep '{NAME}\\['").stdout, m.journal("-k", "-t", NAME, "-o", "cat")):
            expect(messages.count("\n") == 1 and "sizing.conf:2" in messages and "Worker:" in messages, f"the log: {messages}")
        e2e.note(messages.strip())
