"""A machine that QEMU boots, with a kernel of its own and as much hardware as is asked for. Works without KVM.

    from qemu import Guest

    with Guest("bookworm", cpus=4, memory="8G", layers=[layer], files={"/etc/pypnm/sizing.conf": "…"}) as m:
        m.boot()                                         # then as in machine.py: run, systemctl, show, until, journal …
        m.monitor("balloon", value=2 << 30)              # QMP
    with Guest("trixie", 4, "16G", container=("2G", 150000), …) as m:     # memory.max, quota of cpu.max
        m.boot()                                         # `m` is in the container, m.outside is the guest around it

Owns kernels and disks (cached, see images.py), QEMU's process and its temporary directory. Knows nothing of the product.
The disk is the suite's root file system with PyPNM; what a guest writes to it is forgotten. The kernel is Debian's for
clouds: bookworm's 6.1, and for trixie and sid trixie's 6.12. It starts without an initrd (NVMe and ext4 are built in)
and unpacked (PVH), which emulation is grateful for. Commands go over a serial line, so there is no network.
"""

import base64
import contextlib
import json
import lzma
import os
import shlex
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import images
from machine import ENVIRONMENT, MASKED, PREFIX, Failure, Within, end_on_signals, sweep

GUEST = images.HERE / "guest"
KERNELS = {"bullseye": "bookworm", "bookworm": "bookworm", "bookworm-backports": "bookworm", "trixie": "trixie", "sid": "trixie"}
# Kernel modules that a case may load: virtio devices (balloon).
MODULES = ["drivers/virtio"]
# Devices that no case uses.
MACHINE = "q35,smm=off,graphics=off,vmport=off,hpet=off,sata=off,smbus=off,i8042=off,memory-backend=ram"
# Python packages are compiled for x86-64-v2.
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm,+rdrand"
KERNEL_WORDS = (
    "console=ttyS0,115200 root=PARTUUID=70797065-01 rootwait rw rootfstype=ext4 panic=-1 quiet mitigations=off audit=0 nokaslr "
    "no_timer_check tsc=reliable cryptomgr.notests random.trust_cpu=on systemd.show_status=no"
)


# The offset of the disk's partition.
PARTITION = 1 << 20


def kernel(suite):
    """A directory with the suite's `vmlinux` and `modules`."""

    def build(place):
        images.say(f"fetching {suite}'s kernel (once)")
        images.need("kmod", "lz4", "xz-utils", "zstd")
        place.mkdir()
        images.debootstrap(suite, ["linux-image-cloud-amd64"], place / "deb", variant="extract")
        (packed,) = (place / "deb/boot").glob("vmlinuz-*")
        (place / "vmlinux").write_bytes(_unpacked(packed.read_bytes()))
        release = packed.name.removeprefix("vmlinuz-")
        (found,) = (path for path in place.glob(f"deb/**/lib/modules/{release}") if not path.is_symlink())
        modules = place / "modules/usr/lib/modules" / release
        modules.mkdir(parents=True)
        for path in [*found.glob("modules.builtin*"), found / "modules.order"]:
            shutil.copy(path, modules)
        for name in MODULES:
            shutil.copytree(found / "kernel" / name, modules / "kernel" / name)
        (place / "modules/lib").symlink_to("usr/lib")
        subprocess.run(["depmod", "-b", place / "modules", release], check=True)
        shutil.rmtree(place / "deb")

    return images.cached(f"kernel-{suite}", ["1", MODULES], build)


def _unpacked(image):
    """The ELF kernel in a bzImage (Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length)."""
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[(sectors + 1) * 512 + offset :][:length]
    # The build appends the unpacked size, which unpacking tools report as trailing garbage.
    packed = payload[:-4]
    if payload[:6] == b"\xfd7zXZ\x00":
        found = lzma.LZMADecompressor().decompress(payload)
    else:
        tool = {b"\x02\x21\x4c\x18": "lz4", b"\x28\xb5\x2f\xfd": "zstd"}.get(payload[:4])
        if tool is None:
            raise SystemExit(f"a kernel packed in an unknown way: {payload[:4].hex()}")
        found = subprocess.run([tool, "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    if found[:4] != b"\x7fELF":
        raise SystemExit("the unpacked kernel is no ELF file")
    return found


def disk(suite):
    """An ext4 image of the suite's root file system, with what guests need."""
    root = images.rootfs(suite)
    modules = kernel(KERNELS[suite]) / "modules"
    recipe = ["2", root.name, modules.parent.name, sorted((path.name, path.read_bytes()) for path in GUEST.iterdir())]

    def build(place):
        images.say(f"making the {suite} disk (once)")
        with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}.") as temporary:
            extra = Path(temporary)
            (extra / "usr/lib/e2e").mkdir(parents=True)
            for name in ("init", "container", "agent"):
                shutil.copy(GUEST / name, extra / "usr/lib/e2e")
            units = extra / "etc/systemd/system"
            (units / "sysinit.target.wants").mkdir(parents=True)
            shutil.copy(GUEST / "e2e-agent.service", units)
            (units / "sysinit.target.wants/e2e-agent.service").symlink_to("../e2e-agent.service")
            for unit in MASKED:
                (units / unit).symlink_to("/dev/null")
            shutil.copytree(modules / "usr", extra / "usr", symlinks=True, dirs_exist_ok=True)
            for directory in (extra, *extra.rglob("*")):
                if directory.is_dir() and not directory.is_symlink():
                    directory.chmod(0o755)
            # mke2fs accepts only one directory, so both are combined with an overlay.
            script = f"""
                mkdir {extra}.root
                mount -t overlay overlay -o lowerdir={extra}:{root} {extra}.root
                size=$(du -sxm {root} | cut -f1)
                mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,offset={PARTITION} -m 0 \\
                    -d {extra}.root {place} $((size * 5 / 4 + 200))M >/dev/null
            """
            try:
                subprocess.run(["unshare", "--mount", "sh", "-ec", script], check=True)
            finally:
                shutil.rmtree(f"{extra}.root", ignore_errors=True)
            with open(place, "r+b") as image:
                sectors = (os.path.getsize(place) - PARTITION) // 512
                # An MBR: the signature for PARTUUID=, and one partition of type Linux.
                image.seek(0x1B8)
                image.write(struct.pack("<IxxBBBBBBBBII", 0x70797065, 0, 0, 0, 0, 0x83, 0, 0, 0, PARTITION // 512, sectors))
                image.seek(0x1FE)
                image.write(b"\x55\xaa")

    return images.cached(f"disk-{suite}", recipe, build)


class Guest(Within):
    """See the module. `words`: for the kernel command line. `memory`: bytes, or with a suffix of QEMU's; `slots`: of
    memory, and `sockets`: of CPUs, for hot-plug. `devices`: further arguments of QEMU's."""

    def __init__(self, suite, cpus, memory, layers=(), files=None, words="", container=None, sockets=None, slots=None, devices=()):
        self.suite, self.cpus, self.memory = suite, cpus, memory
        self.layers, self.files = layers, files or {}
        self.words, self.container = words, container
        self.sockets, self.slots, self.devices = sockets, slots, devices
        self.dir = self.outside = self._process = self._line = self._monitor = None

    def __enter__(self):
        images.need("qemu-system-x86")
        sweep()
        end_on_signals()
        self.dir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}."))
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def kill(self):
        """Cuts the power."""
        for line in (self._line, self.outside, self._monitor):
            if line is not None:
                line.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self.outside = self._monitor = self._process = None

    def boot(self, *words, target="multi-user.target", timeout=300):
        """Boots with additional kernel `words`, and waits until systemd has completed the boot."""
        self._start(words, target)
        deadline = time.monotonic() + timeout
        # Connect to both before waiting for either: output without a reader is lost.
        self._line = Line(self.dir / "agent", self)
        if self.container:
            self.outside = Line(self.dir / "outside", self)
            self.outside.ready(deadline)
        self._line.ready(deadline)
        while (state := self.run("systemctl is-system-running", check=False).stdout.strip()) not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise Failure(f"did not boot in {timeout} s ({state}):\n{self.console()}")
            time.sleep(0.3)
        return self

    def _start(self, words, target):
        files = self._files()
        init = ["/lib/systemd/systemd", "--system", "--show-status=no", f"--unit={target}"]
        if self.container:
            memory_max, quota = self.container
            init = ["/usr/lib/e2e/container", str(memory_max), str(quota), *init]
        else:
            # The kernel handles words that contain "=", so this is not passed to systemd as an argument.
            words = [*words, f"systemd.unit={target}"]
            init = init[:1]
        smp = str(self.cpus) if self.sockets is None else f"{self.cpus},maxcpus={self.sockets},sockets={self.sockets},cores=1,threads=1"
        memory = str(self.memory) if self.slots is None else f"{self.memory},slots={self.slots[0]},maxmem={self.slots[1]}"
        command = [
            # One thread for all CPUs: with one for each, QEMU before 8.1 runs code of the kernel's that another CPU has just patched
            # ("int3: 0000", Red Hat's bug 2216496), here in half of the boots of 8 CPUs. A boot is one CPU's work: it takes a fifth longer.
            "qemu-system-x86_64", "-accel", "tcg,thread=single", "-machine", MACHINE, "-cpu", CPU, "-smp", smp, "-m", memory,
            # Memory is allocated when the guest touches it, so 64 GiB work on a smaller machine.
            "-object", f"memory-backend-ram,id=ram,size={self.memory},reserve=off,prealloc=off",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-chardev", f"file,id=console,path={self.dir}/console", "-serial", "chardev:console",
            "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off",
            "-kernel", str(kernel(KERNELS[self.suite]) / "vmlinux"),
            "-append", " ".join([KERNEL_WORDS, self.words, *words, "init=/usr/lib/e2e/init", "--", *init]),
            # The kernel finds them in any order: it looks for the one with a partition, guest/init for the other one.
            "-drive", f"file={disk(self.suite)},if=none,id=root,format=raw,snapshot=on", "-device", "nvme,serial=root,drive=root",
            "-drive", f"file={files},if=none,id=files,format=raw,snapshot=on", "-device", "nvme,serial=files,drive=files",
            *self.devices,
        ]  # fmt: skip
        for name in ("agent", "outside"):
            command += ["-chardev", f"socket,id={name},path={self.dir}/{name},server=on,wait=off", "-serial", f"chardev:{name}"]
        with open(self.dir / "qemu.log", "wb") as log:
            # QEMU uses all CPUs, so everything else on this machine has priority.
            self._process = subprocess.Popen(
                ["nice", "-n", "5", "setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TMPDIR": str(self.dir)},
            )  # fmt: skip
        self._monitor = Monitor(self.dir / "qmp", self)

    def _files(self):
        """An image of the layers and the case's files, which `guest/init` lays over the disk."""
        tree = self.dir / "files"
        tree.mkdir()
        for layer in self.layers:
            subprocess.run(["cp", "-a", f"{layer}/.", tree], check=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(tree / "lost+found")
        for path, content in self.files.items():
            content, mode = content if isinstance(content, tuple) else (content, 0o644)
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            if mode is None:
                place.symlink_to(content)
                continue
            place.write_bytes(content.encode() if isinstance(content, str) else content)
            place.chmod(mode)
        image = self.dir / "files.ext4"
        size = int(subprocess.run(["du", "-sm", tree], stdout=subprocess.PIPE, check=True).stdout.split()[0])
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, image, f"{size * 5 // 4 + 8}M"], check=True, stdout=subprocess.DEVNULL)
        return image

    def alive(self):
        """Fails if QEMU has ended."""
        if self._process is None or self._process.poll() is not None:
            raise Failure(f"QEMU has ended:\n{(self.dir / 'qemu.log').read_text(errors='replace')}{self.console()}")

    def run(self, command, check=True, timeout=300, input=None):
        """See Within."""
        return self._line.run(command, check, timeout, input)

    def monitor(self, command, **arguments):
        """Runs a command of QEMU's machine protocol; returns the response."""
        return self._monitor.run(command, arguments)

    def console(self):
        """See Within."""
        with contextlib.suppress(FileNotFoundError):
            return (self.dir / "console").read_text(errors="replace")
        return ""


class Line(Within):
    """The agent at the other end of a serial line."""

    def __init__(self, path, guest):
        self.path, self.guest = path, guest
        self.socket = _connect(path, guest)
        self.buffer = b""

    def ready(self, deadline):
        """Waits until the agent is ready."""
        self._answer(deadline, f"the {self.path.name} to listen")

    def close(self):
        """Closes the connection."""
        self.socket.close()

    def console(self):
        """See Within."""
        return self.guest.console()

    def run(self, command, check=True, timeout=300, input=None):
        """See Within."""
        words = command if isinstance(command, str) else shlex.join(str(word) for word in command)
        script = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in ENVIRONMENT.items())
        if input is not None:
            data = base64.b64encode(input.encode() if isinstance(input, str) else input).decode()
            words = f"base64 -d <<'_end_' | sh -c {shlex.quote(words)}\n{data}\n_end_"
        self.socket.sendall(base64.b64encode((script + words).encode()) + b"\n")
        status, out, err = self._answer(time.monotonic() + timeout, command).split(b" ")
        done = subprocess.CompletedProcess(
            command, int(status), base64.b64decode(out[1:]).decode(errors="replace"), base64.b64decode(err[1:]).decode(errors="replace")
        )
        if check and done.returncode:
            raise Failure(f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def _answer(self, deadline, what):
        while b"\n" not in self.buffer:
            self.guest.alive()
            if time.monotonic() > deadline:
                raise Failure(f"no answer in time: {what}\n{self.guest.console()}")
            self.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                self.buffer += self.socket.recv(65536)
        answer, _, self.buffer = self.buffer.partition(b"\n")
        return answer.strip()


class Monitor:
    """QEMU's machine protocol (QMP)."""

    def __init__(self, path, guest):
        self.guest = guest
        self.socket = _connect(path, guest)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.run("qmp_capabilities", {})

    def close(self):
        """Closes the connection."""
        self.file.close()
        self.socket.close()

    def run(self, command, arguments):
        """The response to the command."""
        self.socket.settimeout(60)
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "error" in answer:
                raise Failure(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def _connect(path, guest, timeout=30):
    """Connects to a socket that QEMU is about to create."""
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            guest.alive()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
