"""What the cases share: the packages built once, machines to install them in, what is on a machine's disk."""

import contextlib
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TREE / "tests"), str(TREE / "tests/e2e")]

import images  # noqa: E402
from harness import Failure, case, equal, expect, note  # noqa: E402, F401: the cases have them from here
from machine import Machine  # noqa: E402

SUITES = {247: "bullseye", 252: "bookworm", 254: "bookworm-backports", 257: "trixie"}
UNIT = "pypnm.service"
WANTS = "/etc/systemd/system/multi-user.target.wants/pypnm.service"
GENERATED = "/run/systemd/generator/pypnm.service.d/10-pypnm-sizing.conf"
# The version before, for upgrades.
BEFORE = "0.0.1"
# PyPNM-CMTS as its documentation has it installed; the second is missing among its dependencies.
CMTS = ["pypnm-docsis-cmts==0.3.14.0", "httpx<0.28"]


def run(*command, **options):
    """Runs a command on this machine; its stdout. Fails the case with all that it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


class Packages:
    """The packages, of this version and of one before, built when the first case wants them."""

    def __init__(self, place):
        self.place = Path(place)
        self.built = {}

    def build(self, name, *options, environment=None, tree=TREE):
        """packaging/build into a directory of its own; the deb and the rpm."""
        if name not in self.built:
            output = self.place / name
            try:
                run(tree / "packaging/build", "--output", output, *options, env=environment)
                (deb,), (rpm,) = output.glob("*.deb"), output.glob("*.rpm")
                self.built[name] = (deb, rpm)
            except Failure as failure:
                self.built[name] = failure
        if isinstance(self.built[name], Failure):
            raise self.built[name]
        return self.built[name]

    @property
    def version(self):
        """As Cargo.toml has it."""
        return re.search(r'^version = "(.*)"', (TREE / "Cargo.toml").read_text(), re.M)[1]

    @property
    def programs(self):
        """The programs in them."""
        self.build("now")
        return TREE / "target/static/bin"

    @property
    def deb(self):
        return self.build("now")[0]

    @property
    def rpm(self):
        return self.build("now")[1]

    @property
    def aarch64(self):
        """Both, for the other architecture."""
        return self.build("aarch64", "--architecture", "aarch64")

    @property
    def released(self):
        """The deb and the rpm of 0.1.0: its units and its deb's scripts, kept in 0.1.0/, around programs of today."""
        if "0.1.0" not in self.built:
            tree = self.place / "tree-0.1.0"
            shutil.copytree(TREE, tree, symlinks=True, ignore=shutil.ignore_patterns("target", ".git", "fuzz", "roots", "fixtures"))
            shutil.copytree(TREE / "tests/packages/0.1.0", tree, dirs_exist_ok=True)
            return self.build("0.1.0", "--programs", self.programs, "--version", "0.1.0", tree=tree)
        return self.build("0.1.0")

    @property
    def deb_before(self):
        return self.build("before", "--programs", self.programs, "--version", BEFORE)[0]

    @property
    def rpm_before(self):
        return self.build("before", "--programs", self.programs, "--version", BEFORE)[1]


# In the deb alone: Debian's own places for changelog, licence and what its checker need not say.
DEB_ONLY = {
    "usr/share/doc/pypnm-sizing/changelog.Debian.gz", "usr/share/doc/pypnm-sizing/copyright", "usr/share/lintian/overrides/pypnm-sizing",
}  # fmt: skip


def unpacked(package, place):
    """The files of a package, below `place`."""
    place.mkdir()
    if package.suffix == ".deb":
        run("dpkg-deb", "--extract", package, place)
    else:
        with subprocess.Popen(["rpm2cpio", package], stdout=subprocess.PIPE) as archive:
            run("cpio", "--extract", "--quiet", "--make-directories", "--directory", place, stdin=archive.stdout)
    return place


def listed(tree):
    """Each file's path, mode and content; that of a compressed one without the compression, under its own name."""
    found = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(tree)), path.read_bytes()
            if name.endswith(".gz") and name not in DEB_ONLY:
                name, data = name.removesuffix(".gz"), gzip.decompress(data)
            found[name] = (oct(path.stat().st_mode & 0o7777), hashlib.sha256(data).hexdigest())
    return found


def same_files(found, expected, what):
    """Fails the case with what differs."""
    differ = sorted(f"{name} {said}" for name, said in set(found.items()) ^ set(expected.items()))
    equal(differ, [], f"{what} differ in")


def lint_deb(deb):
    """Fails the case with what this machine's lintian has to say; its version."""
    run(TREE / "tests/need", "lintian")
    # A run of letters in machine code is no misspelt word.
    suppressed = ["spelling-error-in-binary"]
    command = ["lintian", "--allow-root", "--pedantic", "-EI"]
    version = run("lintian", "--version")
    if "+deb12" in version:
        # Bookworm's asks every service for an init.d script. Trixie's has dropped that, and calls an override of what it
        # does not know an error, which nothing overrides: one package can't have it said on one and be clean on the other.
        suppressed.append("package-supports-alternative-init-but-no-init.d-script")
    command += ["--suppress-tags", ",".join(suppressed)]
    equal(run(*command, deb).strip(), "", "lintian")
    return version.strip()


def lint_rpm(rpm):
    """Fails the case with what this machine's rpmlint has to say."""
    run(TREE / "tests/need", "rpmlint")
    said = run("rpmlint", "--config", TREE / "packaging/rpm/rpmlint.toml", rpm)
    expect("0 errors, 0 warnings" in said, said)


def with_rpm(suite):
    """What installing rpm changes in the root file system of `suite`, as a layer."""

    def build(place):
        images.say(f"installing rpm into {suite} (once)")
        with Machine(root) as machine:
            machine.run("apt-get update -q && apt-get install -y -q --no-install-recommends rpm && apt-get clean", timeout=600)
            machine.run("rm -rf /var/lib/apt/lists")
            shutil.move(machine.upper, place)

    root = images.rootfs(suite)
    return images.cached(f"rpm-{suite}", ["1", root.name], build)


def with_cmts(suite):
    """What installing PyPNM-CMTS beside PyPNM changes in the root file system of `suite`, as a layer."""

    def build(place):
        images.say(f"installing PyPNM-CMTS into {suite} (once)")
        with Machine(root) as machine:
            version = machine.run("/opt/pypnm/bin/python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").stdout.strip()
            wheels = machine.upper / "tmp/wheels"
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
            subprocess.run([*download, "--dest", wheels, *CMTS], check=True, stdout=sys.stderr)
            machine.run(["/opt/pypnm/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/tmp/wheels", *CMTS], timeout=600)
            machine.run("rm -r /tmp/wheels")
            # The preparation that pypnm-cmts.service asks for, as it stands there.
            machine.run(next(line.lstrip("# ") for line in (TREE / "systemd/pypnm-cmts.service").read_text().splitlines() if "StartUp" in line))
            shutil.move(machine.upper, place)

    root = images.rootfs(suite)
    return images.cached(f"cmts-{suite}", ["3", root.name, CMTS], build)


# systemd runs every generator once at boot and once at each reload.
COUNTER = "#!/bin/sh\necho >>/run/generators-run\n"


def reloads(machine):
    """How often systemd has read its configuration since the machine was booted."""
    return int(machine.run("wc -l </run/generators-run").stdout) - 1


@contextlib.contextmanager
def counted(machine, number, what):
    """Fails the case where `what` makes systemd reload other than `number` times."""
    before = reloads(machine)
    yield
    equal(reloads(machine) - before, number, f"reloads by {what}")


@contextlib.contextmanager
def computer(version, layers=(), boot=True, files=None):
    """A machine without the packages: 2 CPUs, 8 GB, PyPNM in /opt/pypnm, reloads counted."""
    with Machine(images.rootfs(SUITES[version]), layers=layers) as machine:
        machine.hardware(cpus=2, memory_kb=8144656)
        machine.install({"/etc/systemd/system-generators/count": (COUNTER, 0o755), **(files or {})})
        if boot:
            machine.boot()
        yield machine


def install(machine, package, check=True):
    """Installs or upgrades; what was said."""
    place = f"/tmp/{package.name}"
    machine.copy(package, place)
    command = "dpkg --install" if package.suffix == ".deb" else "rpm --upgrade --nodeps --replacepkgs"
    done = machine.run(f"{command} {place} 2>&1; status=$?; rm {place}; exit $status", check=check)
    return done.stdout


# Written by whatever runs, not by a package: logs, states, caches, backups of the accounts' files.
VOLATILE = [
    "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/dpkg", "/var/lib/rpm",
    "/var/lib/systemd", "/var/lib/private", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock",
    "/root",
]  # fmt: skip


def disk(machine):
    """All that is on the machine's disk: type, mode, owner, path and target of each file, and what stands in those of /etc."""
    pruned = " -o ".join(f"-path {path}" for path in VOLATILE)
    found = machine.run(f"find / -xdev \\( {pruned} \\) -prune -o -printf '%y %m %u:%g %p %l\\n'").stdout
    text = machine.run("find /etc -xdev -type f ! -name '*-' ! -name .pwd.lock -exec sha256sum {} +").stdout
    # Directories of systemd's for the machine's own states come and go.
    return set(found.splitlines()) | set(text.splitlines())


def same_disk(machine, before, what):
    """Fails the case where the disk is not as it was."""
    after = disk(machine)
    left, gone = sorted(after - before), sorted(before - after)
    expect(not left and not gone, f"{what}: left over {left}, gone {gone}")


def health(machine, port=8000, timeout=60):
    """Waits until the service answers."""
    machine.until(lambda: machine.run(f"curl -sf -m 5 http://127.0.0.1:{port}/health", check=False).returncode == 0, "an answer", timeout)


def workers(machine, unit=UNIT):
    """How many workers live: what the main process spawned, or itself."""
    group = machine.show(unit, "ControlGroup")
    lines = machine.run(f"for p in $(cat /sys/fs/cgroup{group}/cgroup.procs); do tr '\\0' ' ' </proc/$p/cmdline; echo; done").stdout
    return max(1, sum("spawn_main" in line for line in lines.splitlines()))


def upgraded_from_0_1_0(packages, version, released, package, layers=()):
    """The case from_0_1_0 of the deb and of the rpm: an operator's drop-ins of 0.1.0's time, before and after the upgrade."""
    start = "/etc/systemd/system/pypnm.service.d/start.conf"
    search = "/etc/systemd/system/pypnm-cmts.service.d/search.conf"
    files = {
        start: "[Service]\nExecStart=\nExecStart=pypnm serve --port 9000\n",
        search: "[Service]\nExecSearchPath=/srv/cmts/bin:/usr/bin\n",
    }
    with computer(version, layers=layers, files=files) as m:
        if layers:
            m.run("rpmdb --initdb 2>/dev/null || rpm --initdb")
        install(m, released)
        m.systemctl("start", UNIT)
        health(m, port=9000)
        main = m.show(UNIT, "MainPID")
        m.install({"/etc/pypnm/sizing.conf.d/50-site.conf": "[Sizing]\nUnits=pypnm.service pypnm-cmts.service\n"})
        said = install(m, package)
        equal(m.show(UNIT, "MainPID"), main, "the main process across the upgrade")
        wanted = {start: "ExecStart=/usr/lib/pypnm-sizing/handover pypnm serve --port 9000", search: "Environment=PATH=/srv/cmts/bin:/usr/bin"}
        for line in wanted.values():
            expect(f"  {line}" in said.splitlines(), f"{line} is not in:\n{said}")
        # What check and explain say: where, and the same line.
        checked = m.run("pypnm-sizing check --json", check=False)
        findings = [found for unit in json.loads(checked.stdout)["units"] for found in unit["findings"] if found["topic"] == "program-path"]
        equal(len(findings), 2, f"findings of check: {checked.stdout}")
        explained = " ".join(m.run("pypnm-sizing explain").stdout.split())
        for finding, (file, line) in zip(findings, wanted.items()):
            expect(f"{file}:" in finding["text"] and finding["text"].endswith(f"write instead: {line}"), f"check: {finding}")
            expect(finding["text"] in explained, f"explain: {explained}")
        equal((checked.returncode, findings[0]["state"]), (1, "warning"), "status of check, and the state of a start that will fail")
        # Started again as it is, it fails, and check says why.
        m.systemctl("restart", UNIT, check=False)
        checked = m.run(f"pypnm-sizing check --unit {UNIT}", check=False)
        equal(checked.returncode, 2, f"status of check: {checked.stdout}")
        expect("systemd looks for pypnm in /usr/local/sbin" in checked.stdout.splitlines()[0], f"check: {checked.stdout}")

        for file, line in wanted.items():
            m.install({file: f"[Service]\n{'ExecStart=' if file == start else ''}\n{line}\n"})
        m.systemctl("daemon-reload")
        m.systemctl("restart", UNIT)
        health(m, port=9000)
        expect("write instead" not in install(m, package), "the package goes on asking")
        expect("program-path" not in m.run("pypnm-sizing check --json", check=False).stdout, "check goes on asking")
        # The two settings of that time together go on working.
        m.install({start: files[start], start.replace("start", "search"): "[Service]\nExecSearchPath=/opt/pypnm/bin:/usr/bin\n"})
        m.systemctl("daemon-reload")
        # Not a restart, across which systemd keeps the launcher's socket: plain PyPNM would find its port taken.
        m.systemctl("stop", UNIT)
        m.systemctl("start", UNIT)
        health(m, port=9000)
        expect("write instead" not in install(m, package), "the package warns of what works")
        expect("program-path" not in m.run("pypnm-sizing check --json", check=False).stdout, "check warns of what works")
