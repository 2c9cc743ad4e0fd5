"""The life of the rpm: Debian's rpm in a real root file system, under a real systemd."""

from common import (
    GENERATED, SUITES, UNIT, WANTS, case, computer, counted, disk, equal, expect, health, install, installed, same_disk, upgraded_from_0_1_0, with_rpm,
    workers,
)  # fmt: skip
from deb import OWN, SITE


@case(versions=(252, 254, 257), fast=(252,))
def life(packages, version):
    """Install, start, upgrade, erase: reloads, enablement, the service, configuration, the disk"""
    with computer(version, layers=[with_rpm(SUITES[version])]) as m:
        m.run("rpmdb --initdb 2>/dev/null || rpm --initdb")
        before = disk(m)
        installed(m, packages.rpm_before)
        m.systemctl("start", UNIT)
        health(m)
        equal(workers(m), 2, "workers")
        main = m.show(UNIT, "MainPID")

        m.install({"/etc/pypnm/sizing.conf": SITE})
        m.systemctl("disable", UNIT)
        with counted(m, 1, "the upgrade"):
            install(m, packages.rpm)
        equal(m.run("rpm -q --queryformat '%{VERSION}' pypnm-sizing").stdout, packages.version, "the installed version")
        equal((m.show(UNIT, "MainPID"), m.show(UNIT, "ActiveState")), (main, "active"), "the service across the upgrade")
        equal(m.systemctl("is-enabled", UNIT, check=False), "disabled", "what the operator disabled is")
        equal(m.read("/etc/pypnm/sizing.conf"), SITE, "the operator's configuration")
        equal(m.run("rpm --verify --nodeps pypnm-sizing", check=False).stdout.split(), ["S.5....T.", "c", "/etc/pypnm/sizing.conf"], "verified")
        m.systemctl("enable", UNIT)

        with counted(m, 1, "the erasure"):
            m.run("rpm --erase pypnm-sizing")
        equal((m.show(UNIT, "LoadState"), m.show(UNIT, "ActiveState")), ("not-found", "inactive"), "the erased service is")
        expect(not m.exists(GENERATED) and not m.exists("/run/pypnm-sizing"), "something of it is left in /run")
        equal(m.run("pgrep -u pypnm", check=False).stdout, "", "processes of the service")
        # rpm keeps edited files under another name; data and account belong to the operator.
        equal(m.read("/etc/pypnm/sizing.conf.rpmsave"), SITE, "the operator's configuration after the erasure")
        m.run("rm -r /etc/pypnm /var/lib/pypnm && userdel pypnm")
        same_disk(m, before, "after the erasure")


@case(versions=(252, 254, 257), fast=(252,))
def own_unit(packages, version):
    """An operator's own pypnm.service, running: never enabled, stopped, restarted or disabled by the package"""
    with computer(version, layers=[with_rpm(SUITES[version])], files={f"/etc/systemd/system/{UNIT}": OWN}) as m:
        m.systemctl("start", UNIT)
        main = m.show(UNIT, "MainPID")
        install(m, packages.rpm_before)
        equal(m.systemctl("is-enabled", UNIT, check=False), "disabled", "the operator's unit is")
        install(m, packages.rpm)
        m.systemctl("enable", UNIT)
        m.run("rpm --erase pypnm-sizing")
        equal((m.systemctl("is-enabled", UNIT), m.show(UNIT, "MainPID")), ("enabled", main), "the operator's unit after the erasure")


@case(versions=(252, 254, 257), fast=())
def image(packages, version):
    """Into an image, in a chroot without systemd: no messages, and sized at the first boot"""
    with computer(version, layers=[with_rpm(SUITES[version])], boot=False) as m:
        output = install(m, packages.rpm)
        # Debian's rpm prints a warning about being used at all.
        odd = [line for line in output.splitlines() if line and not line.startswith(("Creating group", "Creating user", "rpm: "))]
        equal(odd, [], "output")
        expect(m.run(f"test -L {WANTS}", check=False).returncode == 0, "it is not enabled")
        m.boot()
        m.wait(UNIT)
        health(m)
        equal(workers(m), 2, "workers at the first boot")


@case(versions=(252, 254, 257), fast=())
def from_0_1_0(packages, version):
    """Upgraded from 0.1.0: settings of an operator's old drop-ins that have no effect any more are reported with a
    working replacement"""
    upgraded_from_0_1_0(packages, version, packages.released[1], packages.rpm, layers=[with_rpm(SUITES[version])])


@case(versions=(252, 254, 257), fast=())
def downgraded(packages, version):
    """Downgraded to 0.1.0 and upgraded again: the service keeps running, and each version starts it"""
    with computer(version, layers=[with_rpm(SUITES[version])]) as m:
        m.run("rpmdb --initdb 2>/dev/null || rpm --initdb")
        install(m, packages.rpm)
        m.systemctl("start", UNIT)
        main = m.show(UNIT, "MainPID")
        for package in (packages.released[1], packages.rpm):
            m.copy(package, "/tmp/product.rpm")
            m.run("rpm --upgrade --nodeps --oldpackage /tmp/product.rpm 2>&1")
            equal((m.show(UNIT, "MainPID"), m.systemctl("is-enabled", UNIT)), (main, "enabled"), f"the service after {package.name}")
            # Not a restart, during which systemd keeps the launcher's socket, so that plain PyPNM would find its port
            # in use.
            m.systemctl("stop", UNIT)
            m.systemctl("start", UNIT)
            health(m)
            main = m.show(UNIT, "MainPID")


@case(versions=(252, 254, 257), fast=(252,))
def erased(packages, version):
    """Erased: what the operator created or changed in /etc/pypnm remains, and the package's files are removed"""
    with computer(version, layers=[with_rpm(SUITES[version])]) as m:
        m.run("rpmdb --initdb 2>/dev/null || rpm --initdb")
        install(m, packages.rpm)
        own = "/etc/pypnm/sizing.conf.d/50-site.conf"
        m.install({own: SITE, "/etc/pypnm/notes": "mine\n", "/etc/pypnm/pypnm.env": "PYPNM_PORT=9000\n"})
        m.run("rpm --erase pypnm-sizing 2>&1")
        equal(
            sorted(m.run("find /etc/pypnm -type f").stdout.split()),
            ["/etc/pypnm/notes", "/etc/pypnm/pypnm.env.rpmsave", own], "files in /etc/pypnm after the erasure",
        )  # fmt: skip
        equal((m.read(own), m.read("/etc/pypnm/notes")), (SITE, "mine\n"), "the operator's files")
        output = install(m, packages.rpm)
        expect(m.exists("/etc/pypnm/sizing.conf") and m.exists(own), f"after the second installation: {output}")
