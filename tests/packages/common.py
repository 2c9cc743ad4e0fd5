"""Shared by the cases: the packages, built once; machines to install them in; the contents of a machine's disk."""

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
# The previous version, for upgrades.
BEFORE = "0.0.1"
# PyPNM-CMTS as its documentation installs it; the second package is missing from its dependencies.
CMTS = ["pypnm-docsis-cmts==0.3.14.0", "httpx<0.28"]


def run(*command, **options):
    """Runs a command on this machine and returns its stdout. Fails the case with its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


class Packages:
    """The packages of this version and a previous one, built when the first case needs them."""

    def __init__(self, place):
        self.place = Path(place)
        self.built = {}

    def build(self, name, *options, environment=None, tree=TREE):
        """Runs packaging/build in a separate directory; returns the deb and the rpm."""
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
        """The version in Cargo.toml."""
        return re.search(r'^version = "(.*)"', (TREE / "Cargo.toml").read_text(), re.M)[1]

    @property
    def programs(self):
        """The programs in the packages."""
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
        """Both packages for the other architecture."""
        return self.build("aarch64", "--architecture", "aarch64")

    @property
    def released(self):
        """The deb and the rpm of 0.1.0: its units and the scripts of its deb, from 0.1.0/, with the current
        programs."""
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


# Only in the deb: Debian's files for the changelog, the license and lintian.
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
    """Path, mode and content of each file, decompressed if necessary and under its original name."""
    found = {}
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            name, data = str(path.relative_to(tree)), path.read_bytes()
            if name.endswith(".gz") and name not in DEB_ONLY:
                name, data = name.removesuffix(".gz"), gzip.decompress(data)
            found[name] = (oct(path.stat().st_mode & 0o7777), hashlib.sha256(data).hexdigest())
    return found


def no_paths_of_this_machine(program):
    """Fails the case if the program contains paths of the sources or the toolchain. Paths below /home that it searches are
    not paths of this machine."""
    data = program.read_bytes()
    found = [place for place in (f"{TREE}/", "/.cargo/", "/.rustup/") if place.encode() in data]
    equal(found, [], f"paths of the building machine in {program.name}")


def same_files(found, expected, what):
    """Fails the case with the differences."""
    differ = sorted(f"{name} {printed}" for name, printed in set(found.items()) ^ set(expected.items()))
    equal(differ, [], f"{what} differ in")


def lint_deb(deb):
    """Fails the case with the output of this machine's lintian; returns its version."""
    run(TREE / "tests/need", "lintian")
    # Random letters in machine code are not misspelled words.
    suppressed = ["spelling-error-in-binary"]
    command = ["lintian", "--allow-root", "--pedantic", "-EI"]
    version = run("lintian", "--version")
    if "+deb12" in version:
        # Bookworm's lintian requires an init.d script for each service. Trixie's has dropped that, and reports
        # overrides of unknown tags as an error that cannot be overridden, so no package can satisfy both.
        suppressed.append("package-supports-alternative-init-but-no-init.d-script")
    command += ["--suppress-tags", ",".join(suppressed)]
    equal(run(*command, deb).strip(), "", "lintian")
    return version.strip()


def lint_rpm(rpm):
    """Fails the case with the output of this machine's rpmlint."""
    run(TREE / "tests/need", "rpmlint")
    printed = run("rpmlint", "--config", TREE / "packaging/rpm/rpmlint.toml", rpm)
    expect("0 errors, 0 warnings" in printed, printed)


def with_rpm(suite):
    """A layer with the changes of installing rpm in the root file system of `suite`."""

    def build(place):
        images.say(f"installing rpm into {suite} (once)")
        with Machine(root) as machine:
            machine.run("apt-get update -q && apt-get install -y -q --no-install-recommends rpm && apt-get clean", timeout=600)
            machine.run("rm -rf /var/lib/apt/lists")
            shutil.move(machine.upper, place)

    root = images.rootfs(suite)
    return images.cached(f"rpm-{suite}", ["1", root.name], build)


def with_cmts(suite):
    """A layer with the changes of installing PyPNM-CMTS in addition to PyPNM in the root file system of `suite`."""

    def build(place):
        images.say(f"installing PyPNM-CMTS into {suite} (once)")
        with Machine(root) as machine:
            version = machine.run("/opt/pypnm/bin/python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").stdout.strip()
            wheels = machine.upper / "tmp/wheels"
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
            subprocess.run([*download, "--dest", wheels, *CMTS], check=True, stdout=sys.stderr)
            machine.run(["/opt/pypnm/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/tmp/wheels", *CMTS], timeout=600)
            machine.run("rm -r /tmp/wheels")
            # The preparation that pypnm-cmts.service documents, exactly as written there.
            machine.run(next(line.lstrip("# ") for line in (TREE / "systemd/pypnm-cmts.service").read_text().splitlines() if "StartUp" in line))
            shutil.move(machine.upper, place)

    root = images.rootfs(suite)
    return images.cached(f"cmts-{suite}", ["3", root.name, CMTS], build)


# systemd runs every generator once at boot and once at each reload.
COUNTER = "#!/bin/sh\necho >>/run/generators-run\n"


def reloads(machine):
    """The number of times that systemd has read its configuration since boot."""
    return int(machine.run("wc -l </run/generators-run").stdout) - 1


@contextlib.contextmanager
def counted(machine, number, what):
    """Fails the case unless `what` makes systemd reload exactly `number` times."""
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
    """Installs or upgrades a package; returns the output."""
    place = f"/tmp/{package.name}"
    machine.copy(package, place)
    command = "dpkg --install" if package.suffix == ".deb" else "rpm --upgrade --nodeps --replacepkgs"
    done = machine.run(f"{command} {place} 2>&1; status=$?; rm {place}; exit $status", check=check)
    return done.stdout


def installed(machine, package):
    """Installs a package for the first time, and checks what is true afterwards, before anything is started."""
    with counted(machine, 1, "the installation"):
        output = install(machine, package)
    profile, next_step = output.strip().splitlines()[-2:]
    equal(next_step, "Next: systemctl start pypnm.service", "the last line")
    expect(profile.startswith("pypnm.service: 2 workers, each recycled after 1000 requests"), f"it printed: {output}")
    equal(machine.systemctl("is-enabled", UNIT), "enabled", "after the installation it is")
    equal(machine.systemctl("is-enabled", "pypnm-cmts.service", check=False), "disabled", "pypnm-cmts.service is")
    equal(machine.show(UNIT, "ActiveState"), "inactive", "the service that nobody started is")
    expect(machine.exists(GENERATED), "no drop-in after the installation")


# Written by running programs, not by a package: logs, state, caches, backups of the account files.
VOLATILE = [
    "/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/lib/dpkg", "/var/lib/rpm",
    "/var/lib/systemd", "/var/lib/private", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock",
    "/root",
]  # fmt: skip


def disk(machine):
    """The contents of the machine's disk: type, mode, owner, path and target of each file, and the contents of files
    in /etc."""
    pruned = " -o ".join(f"-path {path}" for path in VOLATILE)
    found = machine.run(f"find / -xdev \\( {pruned} \\) -prune -o -printf '%y %m %u:%g %p %l\\n'").stdout
    text = machine.run("find /etc -xdev -type f ! -name '*-' ! -name .pwd.lock -exec sha256sum {} +").stdout
    # systemd creates and removes directories for its own state.
    return set(found.splitlines()) | set(text.splitlines())


def same_disk(machine, before, what):
    """Fails the case unless the disk is as before."""
    after = disk(machine)
    added, gone = sorted(after - before), sorted(before - after)
    expect(not added and not gone, f"{what}: left over {added}, gone {gone}")


def health(machine, port=8000, timeout=60):
    """Waits until the service responds."""
    machine.until(lambda: machine.run(f"curl -sf -m 5 http://127.0.0.1:{port}/health", check=False).returncode == 0, "an answer", timeout)


def workers(machine, unit=UNIT):
    """The number of live workers: the children of the main process, or the main process itself."""
    group = machine.show(unit, "ControlGroup")
    lines = machine.run(f"for p in $(cat /sys/fs/cgroup{group}/cgroup.procs); do tr '\\0' ' ' </proc/$p/cmdline; echo; done").stdout
    return max(1, sum("spawn_main" in line for line in lines.splitlines()))


def upgraded_from_0_1_0(packages, version, released, package, layers=()):
    """The case from_0_1_0 of the deb and the rpm: an operator's drop-ins for 0.1.0, before and after the upgrade."""
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
        printed = install(m, package)
        equal(m.show(UNIT, "MainPID"), main, "the main process across the upgrade")
        wanted = {start: "ExecStart=/usr/lib/pypnm-sizing/handover pypnm serve --port 9000", search: "Environment=PATH=/srv/cmts/bin:/usr/bin"}
        for line in wanted.values():
            expect(f"  {line}" in printed.splitlines(), f"{line} is not in:\n{printed}")
        # Output of check and explain: the place, and the suggested line.
        checked = m.run("pypnm-sizing check --json", check=False)
        findings = [found for unit in json.loads(checked.stdout)["units"] for found in unit["findings"] if found["topic"] == "program-path"]
        equal(len(findings), 2, f"findings of check: {checked.stdout}")
        explained = " ".join(m.run("pypnm-sizing explain").stdout.split())
        for finding, (file, line) in zip(findings, wanted.items()):
            expect(f"{file}:" in finding["text"] and finding["text"].endswith(f"write instead: {line}"), f"check: {finding}")
            expect(finding["text"] in explained, f"explain: {explained}")
        equal((checked.returncode, findings[0]["state"]), (1, "warning"), "status of check, and the state of a start that will fail")
        # If it is started without a change, it fails, and check says why.
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
        # The two settings for 0.1.0 still work together.
        m.install({start: files[start], start.replace("start", "search"): "[Service]\nExecSearchPath=/opt/pypnm/bin:/usr/bin\n"})
        m.systemctl("daemon-reload")
        # Not a restart, during which systemd keeps the launcher's socket, so that plain PyPNM would find its port in
        # use.
        m.systemctl("stop", UNIT)
        m.systemctl("start", UNIT)
        health(m, port=9000)
        expect("write instead" not in install(m, package), "the package warns of what works")
        expect("program-path" not in m.run("pypnm-sizing check --json", check=False).stdout, "check warns of what works")
