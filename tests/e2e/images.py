"""Root file systems, made once and kept in a cache. Owns what is slow to make; boots nothing.

A cached tree is pristine: nothing may write to it, whoever wants to lays an overlay on top (see machine.py). It is
built beside its place and renamed into it, under a lock, so that a reader never sees half a tree. Its name carries a
hash of its recipe: a changed recipe makes a new tree, an old one may be deleted at any time.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEED = HERE.parent / "need"

PYPNM = "pypnm-docsis==1.6.4.0"
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "procps", "iputils-ping", "curl", "python3",
    "python3-venv", "strace",
]  # fmt: skip

# Debian suites, and the version of systemd in each.
SUITES = {"bullseye": 247, "bookworm": 252, "bookworm-backports": 254, "trixie": 257, "sid": 262}
# The root of these suites is bookworm's, including Python and PyPNM, with the suite's systemd: only systemd differs.
ON_BOOKWORM = ["bullseye", "bookworm-backports"]
OF_SYSTEMD = ["systemd", "systemd-sysv", "udev", "libudev1", "libsystemd0"]
# PyPNM pins a numpy that does not support the Python in unstable, which therefore gets the one from the stable release.
OLDER_PYTHON = {"sid": ("trixie", "python3.13")}


def cache():
    """The cache directory, created if it is missing."""
    home = os.environ.get("PYPNM_SIZING_E2E_CACHE") or os.path.join(Path.home(), ".cache/pypnm-sizing-e2e")
    Path(home).mkdir(parents=True, exist_ok=True)
    return Path(home)


def need(*packages):
    """Installs Debian packages that are missing on this machine."""
    subprocess.run([NEED, *packages], check=True)


def say(text):
    """Prints the progress of a slow operation."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _locked(name):
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(tree):
    """Deletes a tree. If a killed builder left a mount inside, it is unmounted first."""
    prefix = str(tree) + "/"
    with open("/proc/mounts") as mounts:
        below = [line.split()[1] for line in mounts if line.split()[1].startswith(prefix)]
    for mount in reversed(below):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(tree, ignore_errors=True)


def cached(name, recipe, build):
    """The path of the cached `name`, created by `build(path)`; `recipe` determines its contents."""
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]
    place = cache() / f"{name}-{digest}"
    if place.exists():
        return place
    with _locked(name):
        if not place.exists():
            tmp = cache() / f"{name}-{digest}.tmp"
            _remove(tmp)
            tmp.unlink(missing_ok=True)
            try:
                build(tmp)
                tmp.rename(place)
            finally:
                if tmp.is_dir():
                    _remove(tmp)
                tmp.unlink(missing_ok=True)
    return place


def _mirror():
    """The Debian mirror configured for this machine's apt."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.split()  # fmt: skip
    if not targets:
        raise SystemExit("apt knows no Debian mirror: see sources.list(5)")
    return targets[0]


def debootstrap(suite, packages, place, variant="minbase", also=None, architecture=None):
    """A root file system of Debian's `suite` with `packages` at `place`; `also`: one more suite to find them in.

    Of another architecture only the variant extract can be had: none of its programs runs here.
    """
    need("mmdebstrap", "debian-archive-keyring")
    command = ["mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", f"--include={','.join(packages)}"]
    # The unstable suite of a frozen mirror has expired; only its systemd is tested.
    command += ['--aptopt=Acquire::Check-Valid-Until "false"', "--dpkgopt=force-unsafe-io"]
    if architecture:
        command.append(f"--architectures={architecture}")
    mirror = _mirror()
    sources = [f"deb {mirror} {name} main" for name in (suite, also) if name]
    subprocess.run([*command, suite, place, *sources], check=True, stdout=sys.stderr)


def _install_pypnm(root, python):
    """The real PyPNM in /opt/pypnm, from wheels that this machine's pip downloads as configured."""
    version = subprocess.run(
        ["chroot", root, python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        stdout=subprocess.PIPE, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    wheels = root / "tmp/wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version", version]
    subprocess.run([*download, "--dest", wheels, PYPNM], check=True, stdout=sys.stderr)
    for command in (
        [python, "-m", "venv", "/opt/pypnm"],
        ["/opt/pypnm/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/tmp/wheels", PYPNM],
    ):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        subprocess.run(["chroot", root, *command], check=True, stdout=sys.stderr, env=environment)
    shutil.rmtree(wheels)


def _with_systemd_of(suite, place):
    """A copy of bookworm's root at `place` with the systemd of `suite`."""
    subprocess.run(["cp", "-a", "--reflink=auto", rootfs("bookworm"), place], check=True)
    (place / "etc/apt/sources.list.d/systemd.list").write_text(f"deb {_mirror()} {suite} main\n")
    # This machine's apt, with its configuration and network, as in mmdebstrap; only dpkg runs inside.
    options = {
        "Dir": f"{place}/", "Dir::State::status": f"{place}/var/lib/dpkg/status", "DPkg::Chroot-Directory": place,
        "Acquire::Check-Valid-Until": "false", "APT::Sandbox::User": "root", "APT::Install-Recommends": "false",
        "DPkg::Options::": "--force-unsafe-io", "Dpkg::Use-Pty": "0",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    # /suite selects the version of that suite even if it is older; -t does not downgrade.
    wanted = [f"{package}/{suite}" for package in OF_SYSTEMD]
    script = """
        mount --make-rprivate /
        mount --rbind /dev "$1/dev"
        mount -t proc proc "$1/proc"
        shift
        apt-get --quiet --quiet "$@" update
        exec apt-get --quiet --quiet --yes --allow-downgrades "$@" install $PACKAGES
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PACKAGES": " ".join(wanted), "LC_ALL": "C"}
    subprocess.run(["unshare", "--mount", "sh", "-ec", script, "sh", place, *words], check=True, stdout=sys.stderr, env=environment)
    shutil.rmtree(place / "var/lib/apt/lists")
    for package in (place / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    (place / "etc/machine-id").write_text("")


def rootfs(suite):
    """The pristine root file system of `suite`: systemd, tools for inspection, the real PyPNM in /opt/pypnm."""

    def build(place):
        say(f"making the {suite} root file system (some minutes, once)")
        if suite in ON_BOOKWORM:
            _with_systemd_of(suite, place)
            return
        debootstrap(suite, packages, place, also=also)
        _install_pypnm(place, python)
        # Empty, so that a booting machine gets a new ID, but does not treat it as its first boot.
        (place / "etc/machine-id").write_text("")
        (place / "etc/hostname").write_text("pypnm-e2e\n")

    if suite not in SUITES:
        raise SystemExit(f"{suite}: expected one of {', '.join(SUITES)}")
    also, python = OLDER_PYTHON.get(suite, (None, "python3"))
    packages = PACKAGES if also is None else [*PACKAGES, python, f"{python}-venv"]
    recipe = ["4", packages, PYPNM]
    if suite in ON_BOOKWORM:
        recipe += ["1", OF_SYSTEMD]
    return cached(f"root-{suite}", recipe, build)
