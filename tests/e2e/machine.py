"""A machine of our own: a real systemd as PID 1 in fresh namespaces, on an overlay over a pristine root file system.

    import images
    from machine import Machine

    with Machine(images.rootfs("bookworm")) as m:        # nothing runs yet; run() is a chroot
        m.install({"/etc/pypnm/sizing.conf": "[Sizing]\nWorkers=3\n"})          # path: text, bytes or (text, mode)
        m.copy("target/release/pypnm-sizing", "/usr/bin/pypnm-sizing", 0o755)
        m.hardware(cpus=4, memory_kb=16389412)           # what the kernel will say; may be changed while it runs
        m.boot("pypnm.sizing=no")                        # further arguments of PID 1 (a container's kernel command line)
        m.run("systemctl daemon-reload")                 # sh -c, in the machine; CompletedProcess, raises on failure
        m.systemctl("start", "pypnm.service")            # its stdout
        m.wait("pypnm.service", "active")
        print(m.journal("-u", "pypnm.service"), m.console())
        m.reboot()                                       # same disk, empty /run

Owns namespaces, mounts, the cgroup and the temporary directory, and takes them all away at the end of the block, on an
exception and on SIGTERM, SIGHUP, SIGINT alike; should Python itself be killed, the kernel ends the machine with it and the
next one sweeps what is left. Knows nothing of the product. Needs root and util-linux; no systemd on the host, no KVM.

The network is a fresh one with `lo` up. The cgroup tree is version 2, without controllers where the host gives them to
version 1. There is no /dev/kmsg unless `kmsg=True` gives the machine one of its own, which `kernel_log()` reads.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import Failure, end_on_signals  # noqa: E402

# In TMPDIR; the number is the PID of the Python process that owns it.
PREFIX = "pypnm-sizing-e2e."
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
# Not used by any case, and slow or noisy.
MASKED = [
    "getty.target", "console-getty.service", "systemd-logind.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service", "systemd-udev-trigger.service",
    "systemd-udevd.service", "systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service",
]  # fmt: skip

OVERLAY = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o lowerdir={lower},upperdir={dir}/upper,workdir={dir}/work {dir}/root
cd {dir}/root
mount -t proc proc proc
"""

CHROOT = """
mount --rbind /dev dev
exec chroot . "$@"
"""

# As set up by a container manager; see systemd's CONTAINER_INTERFACE.
BOOT = """
mount -t sysfs -o ro sysfs sys 2>/dev/null || mount --rbind -o ro /sys sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid{run_options} tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue
for n in null zero full random urandom tty; do : > dev/$n; mount --bind /dev/$n dev/$n; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
: > dev/console; mount --bind {dir}/console dev/console
[ ! -e {dir}/kmsg ] || {{ : > dev/kmsg; mount --bind {dir}/kmsg dev/kmsg; }}
{fakes}
hostname pypnm-e2e
mkdir -p .old; pivot_root . .old; cd /
umount -l /.old; rmdir /.old
ip link set lo up
exec env -i {environment} "$@" </dev/null >/dev/console 2>&1
"""

_number = 0


class Within:
    """Operations on a running machine of any kind; `run` depends on the kind."""

    def run(self, command, check=True, timeout=120, input=None):
        """Runs `command` (a string for sh -c, or a list of words); returns its status, stdout and stderr."""
        raise NotImplementedError

    def console(self):
        """The output on the machine's console."""
        raise NotImplementedError

    def systemctl(self, *arguments, check=True, timeout=120):
        """The stdout of systemctl, stripped."""
        return self.run(["systemctl", "--no-pager", *arguments], check=check, timeout=timeout).stdout.strip()

    def show(self, unit, prop):
        """A property of a unit."""
        return self.systemctl("show", "--value", "-p", prop, unit)

    def wait(self, unit, state="active", timeout=60):
        """Waits until the unit's ActiveState is `state`."""
        return self.until(lambda: self.show(unit, "ActiveState") == state, f"{unit} to be {state}", timeout)

    def until(self, test, what, timeout=60, pause=0.1):
        """Waits until `test()` is true, and returns its value."""
        deadline = time.monotonic() + timeout
        while True:
            value = test()
            if value:
                return value
            if time.monotonic() > deadline:
                raise Failure(f"waited {timeout} s for {what}\n{self.journal('-n', '40')}")
            time.sleep(pause)

    def journal(self, *arguments):
        """The machine's journal, with everything that was logged before the call."""
        # journald reads what a service prints on its own time, even after the service has ended.
        self.run("journalctl --sync", check=False)
        return self.run(["journalctl", "--no-pager", "-o", "short-monotonic", *arguments], check=False).stdout

    def install(self, files):
        """Writes files: a path and its text or bytes, or (text or bytes, mode). Missing directories are created."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, content in files.items():
                content, mode = content if isinstance(content, tuple) else (content, 0o644)
                data = content.encode() if isinstance(content, str) else content
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        self._extract(archive.getvalue())

    def copy(self, source, path, mode=0o644):
        """Copies a file from the host."""
        self.install({path: (Path(source).read_bytes(), mode)})

    def copy_tree(self, source):
        """Copies everything below `source` to the machine's root, owned by root."""

        def owned(entry):
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            return entry

        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for entry in sorted(Path(source).iterdir()):
                tar.add(entry, entry.name, filter=owned)
        self._extract(archive.getvalue())

    def _extract(self, archive):
        self.run(["tar", "-x", "--no-overwrite-dir", "--keep-directory-symlink", "-C", "/"], input=archive)

    def read(self, path):
        """The text of a file."""
        return self.run(["cat", path]).stdout

    def exists(self, path):
        """Whether `path` exists."""
        return self.run(["test", "-e", path], check=False).returncode == 0


class Machine(Within):
    """See the module. `layers`: further read-only trees above `root`, the lowest first."""

    def __init__(self, root, layers=(), kmsg=False, run_options="", environment=None, affinity=None):
        self.root = Path(root)
        self.layers = [Path(layer) for layer in layers]
        self.kmsg = kmsg
        self._kmsg = None
        self.run_options = run_options
        self.environment = {"PATH": "/usr/sbin:/usr/bin", "container": "e2e", "TERM": "dumb", "LANG": "C.UTF-8", **(environment or {})}
        self.affinity = affinity
        self.dir = None
        self.fakes = {}
        self._process = None
        self._pid = None
        self._cgroup = None

    # Life

    def __enter__(self):
        sweep()
        end_on_signals()
        self.dir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}."))
        for name in ("upper", "work", "root", "fakes"):
            (self.dir / name).mkdir()
        # The root of the overlay is that of the machine.
        self.dir.chmod(0o755)
        (self.dir / "upper").chmod(0o755)
        (self.dir / "console").touch()
        if self.kmsg:
            os.mkfifo(self.dir / "kmsg", 0o644)
            self._kmsg = os.open(self.dir / "kmsg", os.O_RDONLY | os.O_NONBLOCK)
            # journald would consume the messages that this class reads.
            self.install({"/etc/systemd/journald.conf.d/e2e.conf": "[Journal]\nReadKMsg=no\n"})
        return self

    def __exit__(self, *_):
        try:
            self.kill()
        finally:
            if self._kmsg is not None:
                os.close(self._kmsg)
            shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def upper(self):
        """All files written since the machine was created; usable as a layer for other machines once this one is
        off."""
        return self.dir / "upper"

    @property
    def pid(self):
        """The PID of the machine's PID 1 in the host's namespace."""
        if self._pid is None:
            raise Failure("the machine is off")
        return self._pid

    def boot(self, *arguments, target="multi-user.target", wait=True, timeout=90, before=None):
        """Boots systemd with further `arguments`; waits until it has started all it wants to start. `before`: a shell
        script that the later PID 1 runs first."""
        init = ["/lib/systemd/systemd", "--system", "--show-status=no", f"--unit={target}", *arguments]
        self.start(*(["sh", "-ec", f'{before}\nexec "$@"', "sh", *init] if before else init))
        if not wait:
            return self
        deadline = time.monotonic() + timeout
        while True:
            state = self.run("systemctl is-system-running", check=False).stdout.strip()
            if state in ("running", "degraded"):
                return self
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise Failure(f"did not boot in {timeout} s ({state or 'no answer'}):\n{self.console()}")
            time.sleep(0.05)

    def start(self, *init):
        """Starts `init` as PID 1."""
        if self._process is not None:
            raise Failure("the machine runs already")
        self._mask()
        self._cgroup = _cgroup2() / f"{self.dir.name}"
        self._cgroup.mkdir()
        fakes = []
        for number, (path, text) in enumerate(self.fakes.items()):
            (self.dir / f"fakes/{number}").write_text(text)
            fakes.append(f"mount --bind {self.dir}/fakes/{number} .{shlex.quote(path)}")
        script = (OVERLAY + BOOT).format(
            lower=self._lower(), dir=self.dir, run_options=self.run_options,
            fakes="\n".join(fakes), environment=shlex.join(f"{k}={v}" for k, v in self.environment.items()),
        )  # fmt: skip
        taskset = ["taskset", "-c", self.affinity] if self.affinity else []
        # Enter the cgroup first, so that it becomes the root of the machine's cgroup namespace.
        join = f'echo $$ > {self._cgroup}/cgroup.procs; exec "$@"'
        command = ["sh", "-c", join, "sh", "setpriv", "--pdeathsig", "KILL", *taskset, "unshare", "--pid", "--mount", "--uts"]
        command += ["--ipc", "--net", "--cgroup", "--fork", "--kill-child", "sh", "-c", script, "sh", *init]
        log = open(self.dir / "setup.log", "wb")
        with log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while not self._started():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self.dir / "setup.log").read_text(errors="replace")
                self.kill()
                raise Failure(f"could not be started: {output}")
            time.sleep(0.01)

    def _started(self):
        """Whether PID 1 has finished the setup and is in its own root."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
            pid = int(children.split()[0])
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name not in ("sh", "dash", "unshare", "ip", "env"):
                self._pid = pid
                return True
        return False

    def _mask(self):
        if not (self.upper / "etc/systemd/system" / MASKED[0]).is_symlink():
            self.run(f"cd /etc/systemd/system && for unit in {shlex.join(MASKED)}; do ln -sf /dev/null $unit; done")

    def poweroff(self, timeout=60):
        """Shuts down as an operator would, and waits until it is off."""
        self.run("systemctl poweroff --no-block", check=False)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"did not shut down in {timeout} s:\n{self.console()}") from None
        finally:
            self.kill()

    def reboot(self, *arguments, **options):
        """Off and on again, with the same disk."""
        self.poweroff()
        return self.boot(*arguments, **options)

    def kill(self):
        """Cuts the power."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
        # unshare's child is killed with it (--kill-child), and all other processes with PID 1.
        if self._cgroup is not None:
            _remove_cgroup(self._cgroup)
        self._process = self._pid = self._cgroup = None

    # Within

    def run(self, command, check=True, timeout=120, input=None, environment=None):
        """Runs `command` (a string for sh -c, or a list of words) in the machine, or in its root if it is off."""
        arguments = ["sh", "-c", command] if isinstance(command, str) else [str(word) for word in command]
        environment = {**ENVIRONMENT, **(environment or {})}
        if self._pid is not None:
            wrapped = ["nsenter", "-t", str(self._pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "env", "-i"]
            wrapped += [f"{key}={value}" for key, value in environment.items()]
        else:
            script = (OVERLAY + CHROOT).format(lower=self._lower(), dir=self.dir)
            wrapped = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", "env", "-i"]
            wrapped += [f"{key}={value}" for key, value in environment.items()]
        if isinstance(input, str):
            input = input.encode()
        done = subprocess.run(
            [*wrapped, *arguments], input=input if input is not None else b"", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=timeout, check=False,
        )  # fmt: skip
        done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise Failure(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def console(self):
        """The output on the machine's console."""
        return (self.dir / "console").read_text(errors="replace")

    def kernel_log(self):
        """The records written to /dev/kmsg since the last call, one per line."""
        output = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._kmsg, 65536):
                output += chunk
        return re.sub(r"(?<!^)(?=<\d+>)", "\n", output.decode(errors="replace"))

    # Hardware

    def hardware(self, cpus=None, memory_kb=None):
        """Sets the CPUs and the memory that the machine reports. While it runs, only values set at boot can be
        changed."""
        if cpus is not None:
            listed = f"0-{cpus - 1}" if cpus > 1 else "0"
            self.fake("/sys/devices/system/cpu/online", f"{listed}\n")
            # Without an affinity, PID 1 may run on all of them.
            if self.affinity is None:
                self.fake("/proc/1/status", _init_status(self._pid, listed))
        if memory_kb is not None:
            known = {"MemTotal:": memory_kb, "MemFree:": memory_kb // 2, "MemAvailable:": memory_kb // 4 * 3}
            lines = Path("/proc/meminfo").read_text().splitlines()
            lines = [f"{line.split()[0]:<16}{known.get(line.split()[0], 0)} kB" if line.split()[0] in known else line for line in lines]
            self.fake("/proc/meminfo", "\n".join(lines) + "\n")

    def fake(self, path, text):
        """Mounts a file with `text` over `path` in /proc or /sys, at the next boot, or immediately if that was done
        before."""
        if self._pid is not None:
            if path not in self.fakes:
                raise Failure(f"{path} was not faked when the machine booted")
            # In place, because the mount shows this file.
            (self.dir / f"fakes/{list(self.fakes).index(path)}").write_text(text)
        self.fakes[path] = text

    def _lower(self):
        return ":".join(str(layer) for layer in [*reversed(self.layers), self.root])


def _init_status(pid, listed):
    """The status of PID 1 with another affinity, and with the IDs in its own namespace."""
    lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    inside = {"Name:": "systemd", "Pid:": "1", "Tgid:": "1", "PPid:": "0", "NStgid:": "1", "NSpid:": "1", "Cpus_allowed_list:": listed}
    return "".join(f"{(key := line.split()[0])}\t{inside[key]}\n" if line.split()[0] in inside else line + "\n" for line in lines)


def _cgroup2():
    with open("/proc/mounts") as mounts:
        for line in mounts:
            _, place, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(place)
    raise Failure("no cgroup2 file system is mounted")


def _remove_cgroup(cgroup):
    """The processes below are being killed; a directory can be removed when its last process has ended."""
    for _ in range(200):
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        if not cgroup.exists():
            return
        time.sleep(0.02)


def sweep():
    """Cleans up after a Python process that was killed."""
    places = [Path(tempfile.gettempdir()), _cgroup2()]
    for place in places:
        for left in place.glob(f"{PREFIX}*"):
            owner = left.name[len(PREFIX) :].split(".")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                if place == places[0]:
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    _remove_cgroup(left)
