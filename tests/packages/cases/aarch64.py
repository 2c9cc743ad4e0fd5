"""The packages for aarch64, built on x86_64; their programs run in QEMU."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import (
    TREE, case, equal, expect, images, lint_deb, lint_rpm, listed, no_paths_of_this_machine, note, run, same_files,
    unpacked,
)  # fmt: skip

FIXTURES = TREE / "tests/fixtures"
GENERATOR = "usr/lib/systemd/system-generators/pypnm-sizing-generator"
HELPER = "usr/bin/pypnm-sizing"


def emulator():
    """QEMU from trixie, which is statically linked and therefore runs anywhere; the one in bookworm does not support
    openat2(2)."""

    def build(place):
        images.debootstrap("trixie", ["qemu-user"], place, variant="apt")

    return images.cached("qemu-trixie", ["1"], build) / "usr/bin/qemu-aarch64"


def environment(fixture):
    """The variables that PID 1 would set."""
    lines = fixture / "environment"
    return dict(line.split("=", 1) for line in lines.read_text().splitlines()) if lines.exists() else {}


def numbered(text):
    """Removes the text of errors, which differs between C libraries, and keeps their numbers."""
    return re.sub(r"[^:;]+ (\(os error \d+\))", r" \1", text)


def generated(command, fixture):
    """The output of the generator for a fixture, by the names of the golden files."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [*command, out], env={**environment(fixture), "PYPNM_SIZING_ROOT": str(fixture / "root")},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        equal((done.returncode, done.stdout), (0, ""), f"{fixture}: status and stdout")
        found = {"stderr": numbered(done.stderr)} if done.stderr else {}
        written = {str(path.relative_to(out)): numbered(path.read_text()) for path in Path(out).rglob("*") if path.is_file()}
        for path, text in (written or {"pypnm.service.d/10-pypnm-sizing.conf": ""}).items():
            unit = path.removesuffix(".d/10-pypnm-sizing.conf")
            found["drop-in.conf" if unit == "pypnm.service" else f"{unit}.conf"] = text
        return found


def golden(fixture):
    return {path.name: numbered(path.read_text()) for path in fixture.iterdir() if path.name == "stderr" or path.suffix == ".conf"}


def shown(command, fixture, *verb):
    """Status and output of the helper."""
    done = subprocess.run(
        [*command, "--root", fixture / "root", *verb], env=environment(fixture),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.returncode, numbered(done.stdout), numbered(done.stderr)


@case(fast=())
def programs(packages):
    """Both programs are static aarch64; in QEMU, they write all golden drop-ins and print the same as on x86_64"""
    run(TREE / "tests/need", "binutils")
    qemu = emulator()
    with tempfile.TemporaryDirectory() as place:
        foreign = unpacked(packages.aarch64[0], Path(place) / "aarch64")
        for name in (GENERATOR, HELPER):
            header = run("readelf", "--wide", "--file-header", "--program-headers", foreign / name)
            expect(re.search(r"Machine: +AArch64$", header, re.M), f"{name} is not for aarch64:\n{header}")
            expect("INTERP" not in header and "DYNAMIC" not in header, f"{name} is not static:\n{header}")
            # Kernels for this architecture have pages of up to 64 KiB.
            equal(set(re.findall(r"LOAD .* (\S+)$", header, re.M)), {"0x10000"}, f"{name}: alignment of what is loaded")
            no_paths_of_this_machine(foreign / name)

        fixtures = sorted(path.parent for path in FIXTURES.glob("*/*/root"))
        for fixture in fixtures:
            equal(generated([qemu, foreign / GENERATOR], fixture), golden(fixture), str(fixture))
            for verb in (["show"], ["explain", "--json"]):
                own = shown([packages.programs / "pypnm-sizing"], fixture, *verb)
                equal(shown([qemu, foreign / HELPER], fixture, *verb), own, f"{fixture}: {verb}")
        status, output, _ = shown([qemu, foreign / HELPER], FIXTURES / "rows/2-cores-4-gb", "show")
        equal(status, 0, "show's status")
        expect("1 worker" in output, output)
    note(f"{len(fixtures)} machines; {run(qemu, '--version').splitlines()[0]}")


@case(fast=())
def packed(packages):
    """The packages for aarch64 are marked as such and have the same files as the others, and the checkers report
    nothing"""
    run(TREE / "tests/need", "rpm", "cpio")
    pair = packages.aarch64
    version = packages.version
    equal([path.name for path in pair], [f"pypnm-sizing_{version}-1_arm64.deb", f"pypnm-sizing-{version}-1.aarch64.rpm"], "names")
    equal(run("dpkg-deb", "--field", pair[0], "Architecture").strip(), "arm64", "the deb's architecture")
    equal(run("rpm", "--query", "--queryformat", "%{ARCH}", "--package", pair[1]).strip(), "aarch64", "the rpm's architecture")
    lint_deb(pair[0])
    lint_rpm(pair[1])
    with tempfile.TemporaryDirectory() as place:
        for foreign, own in zip(pair, (packages.deb, packages.rpm)):
            found, expected = (listed(unpacked(package, Path(place) / package.name)) for package in (foreign, own))
            for files in (found, expected):
                files.pop(GENERATOR)
                files.pop(HELPER)
            same_files(found, expected, f"{foreign.name}: files other than the programs")


def computer():
    """A kernel and a root file system in memory, trixie for arm64, with only systemd and what a shell script needs."""

    def build(place):
        root = place / "root"
        place.mkdir()
        packages = ["base-files", "base-passwd", "coreutils", "dash", "linux-image-arm64", "mount", "systemd", "systemd-sysv"]
        images.debootstrap("trixie", packages, root, variant="extract", architecture="arm64")
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        kernel.rename(place / "vmlinuz")
        # What the maintainer scripts would have created.
        for name in ("passwd", "group"):
            shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
        (root / "etc/machine-id").write_text("")
        (root / "init").symlink_to("usr/lib/systemd/systemd")
        # The disk is in memory.
        for name in ("boot", "usr/lib/modules", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / name, ignore_errors=True)
        archive(root, place / "initrd")
        shutil.rmtree(root)

    return images.cached("arm64-trixie", ["1"], build)


def archive(tree, path):
    """The tree in the format that the kernel expects."""
    with path.open("ab") as out:
        command = "find . | cpio --create --format=newc --owner=0:0 --quiet"
        subprocess.run(["sh", "-c", command], cwd=tree, stdout=out, check=True)


LOOK_UNIT = """[Unit]
DefaultDependencies=no
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
ExecStart=/bin/sh /look
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
"""

# Control sequences of the terminal are on the line before.
LOOK = """
echo
say() { echo "== $1"; shift; "$@" | cat; }
say machine uname -m
say systemd systemctl --version
say drop-in cat /run/systemd/generator/pypnm.service.d/10-pypnm-sizing.conf
say loaded systemctl show pypnm.service --property=DropInPaths,Environment
say show pypnm-sizing show
say check pypnm-sizing check
say env pypnm-sizing env --unit pypnm.service
echo "== end"
"""


@case(fast=())
def boots(packages):
    """An aarch64 machine boots: its systemd runs the generator and loads the drop-in; show, check and env agree"""
    run(TREE / "tests/need", "qemu-system-arm", "cpio")
    made = computer()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        shutil.copy(made / "initrd", place)
        product = unpacked(packages.aarch64[0], place / "product")
        (product / "etc/systemd/system").mkdir(parents=True)
        (product / "etc/systemd/system/look.service").write_text(LOOK_UNIT)
        (product / "look").write_text(LOOK)
        archive(product, place / "initrd")
        kernel = "console=ttyAMA0 quiet rdinit=/init systemd.unit=look.service systemd.show_status=no systemd.log_target=null"
        console = run(
            "qemu-system-aarch64", "-M", "virt", "-cpu", "max", "-smp", "2", "-m", "7G", "-nodefaults", "-no-reboot", "-display", "none",
            "-serial", "stdio", "-kernel", made / "vmlinuz", "-initrd", place / "initrd", "-append", kernel,
            stdin=subprocess.DEVNULL, timeout=400,
        )  # fmt: skip
    console = console.replace("\r", "")
    output = dict(re.findall(r"^== (\S+)\n(.*?)(?=^== )", console, re.M | re.S))
    expect(set(output) == {"machine", "systemd", "drop-in", "loaded", "show", "check", "env"}, console)
    equal(output["machine"], "aarch64\n", "the machine")
    workers = "PYPNM_SERVE_WORKERS=2"
    expect(f"\nEnvironment={workers}\n" in output["drop-in"] and "# CPUs     2 (/sys/" in output["drop-in"], output["drop-in"])
    expect("DropInPaths=/run/systemd/generator/pypnm.service.d/10-pypnm-sizing.conf\n" in output["loaded"], output["loaded"])
    expect(f" {workers} " in output["loaded"], output["loaded"])
    expect(output["show"].startswith("pypnm.service: 2 workers, "), output["show"])
    # Each systemctl takes seconds on an emulated machine, and check waits 10 s for all of them.
    if "systemctl show did not finish within 10 s" in output["check"]:
        note("check: this machine is too slow to emulate another one that answers within 10 s")
    else:
        expect(output["check"].startswith("PYPNM-SIZING OK - pypnm.service: 2 workers, "), output["check"])
    expect(f"{workers}\n" in output["env"], output["env"])
    note(output["systemd"].splitlines()[0])
