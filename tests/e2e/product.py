"""The product as it is installed: builds the packages and lays them over a root file system, once for each version."""

import shutil
import subprocess
import sys
from pathlib import Path

import images
from machine import Machine

TREE = images.HERE.parents[1]


def build():
    """The newest Debian package, built by packaging/build."""
    builder = TREE / "packaging/build"
    if not builder.exists():
        subprocess.run([TREE / "packaging/static"], cwd=TREE, check=True, stdout=sys.stderr)
        return TREE / "target/static/bin"
    images.say("building the packages")
    subprocess.run([builder], cwd=TREE, check=True, stdout=sys.stderr)
    packages = sorted((TREE / "target/packages").glob("pypnm-sizing_*_amd64.deb"), key=lambda path: path.stat().st_mtime)
    if not packages:
        raise SystemExit(f"{builder}: made no target/packages/pypnm-sizing_*_amd64.deb")
    return packages[-1]


def layer(root, package, place):
    """What installing `package` into `root` changes, as a tree at `place` to lay over it."""
    with Machine(root) as machine:
        if package.is_dir():
            machine.copy(package / "pypnm-sizing", "/usr/bin/pypnm-sizing", 0o755)
            machine.copy(package / "pypnm-sizing-generator", "/usr/lib/systemd/system-generators/pypnm-sizing-generator", 0o755)
            shutil.move(machine.upper, place)
            return Path(place)
        machine.copy(package, "/tmp/product.deb")
        # The dependencies are what every root has, or PyPNM's own, which is in /opt here.
        machine.run("dpkg --force-depends --install /tmp/product.deb && rm /tmp/product.deb")
        shutil.move(machine.upper, place)
    return Path(place)
