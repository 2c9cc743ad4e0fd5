"""The files in the packages: the distributions' checkers, make install, reproducible builds."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import (
    DEB_ONLY, Machine, TREE, case, equal, expect, images, lint_deb, lint_rpm, listed, no_paths_of_this_machine, note,
    run, same_files, unpacked,
)  # fmt: skip

@case()
def lintian(packages):
    """lintian --pedantic -EI reports nothing about the deb (this machine's lintian)"""
    note(lint_deb(packages.deb))


@case(fast=())
def lintian_trixie(packages):
    """lintian --pedantic -EI reports nothing about the deb (trixie's lintian)"""

    def build(place):
        images.debootstrap("trixie", ["lintian"], place, variant="apt")

    root = images.cached("lintian-trixie", ["1"], build)
    with Machine(root) as machine:
        machine.copy(packages.deb, "/tmp/product.deb")
        equal(machine.run("lintian --allow-root --pedantic -EI --suppress-tags spelling-error-in-binary /tmp/product.deb 2>&1", check=False, timeout=300).stdout.strip(), "", "lintian")
        note(machine.run("lintian --version").stdout.strip())


@case()
def rpmlint(packages):
    """rpmlint reports no errors or warnings about the rpm"""
    lint_rpm(packages.rpm)


@case()
def contents(packages):
    """Both packages have the files of make install, with the same modes and contents; uninstall removes all of them"""
    run(TREE / "tests/need", "rpm", "cpio", "pkgconf")
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        image = place / "image"
        # pkg-config of a distribution may print the same directories below /lib, a symbolic link to /usr/lib.
        where = [f"{name}dir=/usr/lib/systemd/system{end}" for name, end in (("generator", "-generators"), ("unit", ""), ("preset", "-preset"))]
        make = ["make", "-s", "-C", TREE, f"DESTDIR={image}", f"PROGRAMS={packages.programs}", *where]
        run(*make, "install")
        expected = listed(image)
        expect(len(expected) > 15, f"make install put only {sorted(expected)}")

        doc = "usr/share/doc/pypnm-sizing"
        deb = listed(unpacked(packages.deb, place / "deb"))
        named = {f"{doc}/changelog": f"{doc}/CHANGELOG.md"}
        same_files({named.get(name, name): status for name, status in deb.items() if name not in DEB_ONLY},
                   {name: status for name, status in expected.items() if name != f"{doc}/LICENSE"}, "the deb's files")  # fmt: skip
        equal(DEB_ONLY - set(deb), set(), "the deb lacks")

        rpm = listed(unpacked(packages.rpm, place / "rpm"))
        named = {
            "usr/share/licenses/pypnm-sizing/LICENSE": f"{doc}/LICENSE",
            "usr/share/zsh/site-functions/_pypnm-sizing": "usr/share/zsh/vendor-completions/_pypnm-sizing",
        }
        same_files({named.get(name, name): status for name, status in rpm.items()}, expected, "the rpm's files")

        # Statically linked.
        for name in ("usr/bin/pypnm-sizing", "usr/lib/systemd/system-generators/pypnm-sizing-generator"):
            data = (place / "deb" / name).read_bytes()
            expect(b"/lib64/ld-linux" not in data and b"/lib/ld-musl" not in data, f"{name} is not static")
            no_paths_of_this_machine(place / "deb" / name)

        # Without unwind tables, capturing a backtrace for an error would end the program with SIGABRT.
        done = subprocess.run([packages.programs / "pypnm-sizing", "report", "/no/such"], env={**os.environ, "RUST_BACKTRACE": "1"}, capture_output=True, text=True)
        equal((done.returncode, done.stderr), (2, "pypnm-sizing: cannot open /no/such: No such file or directory (os error 2)\n"), "an error where RUST_BACKTRACE is set")

        # An edited file of the operator is kept, and another installation does not replace it.
        edited = image / "etc/pypnm/sizing.conf"
        edited.write_text("[Sizing]\nMaxWorkers=6\n")
        run(*make, "install")
        equal(edited.read_text(), "[Sizing]\nMaxWorkers=6\n", "the edited configuration")
        run(*make, "uninstall")
        equal(list(listed(image)), ["etc/pypnm/sizing.conf"], "left by make uninstall")


def digests(pair):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in pair]


def of_the_sources():
    """The SOURCE_DATE_EPOCH of the first build."""
    return os.environ.get("SOURCE_DATE_EPOCH") or run("git", "-C", TREE, "log", "-1", "--format=%ct").strip()


def copy_of_the_tree(place):
    """The sources in another directory, with another umask and other modification times."""
    place.mkdir(mode=0o700)
    names = run("git", "-C", TREE, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in names:
        if name and os.path.lexists(TREE / name):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            # Some fixtures are symbolic links, some of them dangling.
            shutil.copyfile(TREE / name, place / name, follow_symlinks=False)
            shutil.copymode(TREE / name, place / name, follow_symlinks=False)
    return place


@case()
def packed_twice(packages):
    """The same programs packed in another directory, at another time, in another time zone: identical packages"""
    epoch = of_the_sources()
    first = digests((packages.deb, packages.rpm))
    with tempfile.TemporaryDirectory() as place:
        tree = copy_of_the_tree(Path(place) / "elsewhere")
        environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch, "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": place}
        second = packages.build("again", "--programs", packages.programs, environment=environment, tree=tree)
        equal(digests(second), first, "the packages' SHA-256")
        third = packages.build("later", "--programs", packages.programs, environment={**environment, "SOURCE_DATE_EPOCH": "1700000000"})
        expect(digests(third) != first, "SOURCE_DATE_EPOCH changes nothing")


@case(fast=())
def built_twice(packages):
    """Everything built from scratch in another directory: identical packages"""
    epoch = of_the_sources()
    first = digests((packages.deb, packages.rpm))
    with tempfile.TemporaryDirectory() as place:
        tree = copy_of_the_tree(Path(place) / "a-longer-name-than-the-first")
        second = packages.build("anew", environment={**os.environ, "SOURCE_DATE_EPOCH": epoch}, tree=tree)
        equal(digests(second), first, "the packages' SHA-256")


@case()
def unchanged(packages):
    """packaging/build does not rebuild anything that has not changed"""
    programs = [packages.programs / name for name in ("pypnm-sizing", "pypnm-sizing-generator")]
    before = [path.stat().st_mtime_ns for path in programs]
    packages.build("unchanged")
    equal([path.stat().st_mtime_ns for path in programs], before, "times of the programs")
