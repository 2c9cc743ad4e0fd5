"""The packages for aarch64: made on x86_64, and their programs run by qemu's emulation of the other processor."""

import re
import subprocess
import tempfile
from pathlib import Path

from common import TREE, case, equal, expect, images, lint_deb, lint_rpm, listed, run, same_files, unpacked

FIXTURES = TREE / "tests/fixtures"
GENERATOR = "usr/lib/systemd/system-generators/pypnm-sizing-generator"
HELPER = "usr/bin/pypnm-sizing"


def emulator():
    """Trixie's qemu, which is static and so runs anywhere; bookworm's does not know openat2(2)."""

    def build(place):
        images.debootstrap("trixie", ["qemu-user"], place, variant="apt")

    return images.cached("qemu-trixie", ["1"], build) / "usr/bin/qemu-aarch64"


def environment(fixture):
    """What PID 1 would have set there."""
    lines = fixture / "environment"
    return dict(line.split("=", 1) for line in lines.read_text().splitlines()) if lines.exists() else {}


def numbered(text):
    """Without the words of an error, which are each C library's own; its number stays."""
    return re.sub(r"[^:;]+ (\(os error \d+\))", r" \1", text)


def generated(command, fixture):
    """What the generator writes and says for a fixture, under the names of its golden files."""
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
    """Status and words of the helper."""
    done = subprocess.run(
        [*command, "--root", fixture / "root", *verb], env=environment(fixture),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return done.returncode, numbered(done.stdout), numbered(done.stderr)


@case(fast=())
def programs(packages):
    """Both programs are static aarch64; qemu's aarch64 writes every golden drop-in, and shows what x86_64 shows"""
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
            paths = set(re.findall(rb"/(?:root|home|work|tmp)/[\w./-]+", (foreign / name).read_bytes()))
            equal(paths, set(), f"paths of the building machine in {name}")

        fixtures = sorted(path.parent for path in FIXTURES.glob("*/*/root"))
        for fixture in fixtures:
            equal(generated([qemu, foreign / GENERATOR], fixture), golden(fixture), str(fixture))
            for verb in (["show"], ["explain", "--json"]):
                own = shown([packages.programs / "pypnm-sizing"], fixture, *verb)
                equal(shown([qemu, foreign / HELPER], fixture, *verb), own, f"{fixture}: {verb}")
        status, said, _ = shown([qemu, foreign / HELPER], FIXTURES / "rows/2-cores-4-gb", "show")
        equal(status, 0, "show's status")
        expect("1 worker" in said, said)
    return f"{len(fixtures)} machines; {run(qemu, '--version').splitlines()[0]}"


@case(fast=())
def packed(packages):
    """The packages for aarch64 say so, have the files of the others, and the checkers find nothing to say about them"""
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
