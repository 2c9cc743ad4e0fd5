"""The life of the deb in a real root file system, under a real systemd."""

from common import (
    GENERATED, UNIT, WANTS, case, computer, counted, disk, equal, expect, health, install, installed, reloads, same_disk, upgraded_from_0_1_0,
    workers,
)  # fmt: skip

# An operator's own service with the same name.
OWN = """\
[Unit]
Description=The operator's own
[Service]
Type=exec
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
SITE = "[Sizing]\nMaxWorkers=6\n"


@case(versions=(252, 254, 257), fast=(252,))
def life(packages, version):
    """Install, boot, upgrade, remove, reinstall, purge: reloads, enablement, the service, configuration, the disk"""
    with computer(version) as m:
        before = disk(m)
        installed(m, packages.deb_before)
        equal(m.systemctl("--failed", "--no-legend"), "", "failed units")

        m.reboot()
        m.wait(UNIT)
        health(m)
        equal(workers(m), 2, "workers after the boot")
        main = m.show(UNIT, "MainPID")
        m.install({"/etc/pypnm/sizing.conf": SITE, "/etc/pypnm/sizing.conf.d/50-site.conf": "[Sizing]\nReserveCPUs=0\n"})
        m.systemctl("disable", UNIT)
        with counted(m, 1, "the upgrade"):
            install(m, packages.deb)
        equal(m.show(UNIT, "MainPID"), main, "the main process across the upgrade")
        equal(m.show(UNIT, "ActiveState"), "active", "the service across the upgrade is")
        equal(m.systemctl("is-enabled", UNIT, check=False), "disabled", "what the operator disabled is")
        equal(m.read("/etc/pypnm/sizing.conf"), SITE, "the operator's configuration")
        with counted(m, 1, "installing the same once more"):
            install(m, packages.deb)
        equal(m.show(UNIT, "MainPID"), main, "the main process")
        m.systemctl("enable", UNIT)

        with counted(m, 1, "the removal"):
            m.run("dpkg --remove pypnm-sizing")
        equal(m.show(UNIT, "LoadState"), "not-found", "the removed unit is")
        equal(m.show(UNIT, "ActiveState"), "inactive", "the removed service is")
        expect(not m.exists(GENERATED) and not m.exists("/run/pypnm-sizing"), "something of it is left in /run")
        equal(m.read("/etc/pypnm/sizing.conf"), SITE, "the configuration after the removal")
        equal(m.run("pgrep -u pypnm", check=False).stdout, "", "processes of the service")

        with counted(m, 1, "installing it again"):
            install(m, packages.deb)
        equal(m.systemctl("is-enabled", UNIT), "enabled", "what was enabled when it was removed is")
        m.systemctl("start", UNIT)
        equal(m.read("/etc/pypnm/sizing.conf"), SITE, "the configuration after the second installation")

        with counted(m, 1, "the purge of an installed package"):
            output = m.run("dpkg --purge pypnm-sizing").stdout
        expect("kept, with the user that owns it: /var/lib/pypnm" in output, f"the purge output: {output}")
        expect(m.run("find /var/lib/pypnm -name '*.log'").stdout, "PyPNM's data did not survive the purge")
        equal(m.run("find /etc/pypnm -type f").stdout, "/etc/pypnm/sizing.conf.d/50-site.conf\n", "the operator's files after the purge")
        m.run("rm -r /etc/pypnm /var/lib/pypnm && userdel pypnm")
        same_disk(m, before, "after the purge")


@case(versions=(252, 254, 257), fast=(252,))
def unused(packages, version):
    """Installed and purged without a start: no files are left, and no account"""
    with computer(version) as m:
        before = disk(m)
        install(m, packages.deb)
        equal(m.run("getent passwd pypnm | cut -d : -f 6").stdout.strip(), "/var/lib/pypnm", "the account's home")
        expect(m.exists(WANTS), "it is not enabled")
        m.run("dpkg --remove pypnm-sizing")
        with counted(m, 0, "the purge of a removed package"):
            m.run("dpkg --purge pypnm-sizing")
        same_disk(m, before, "after the purge")


@case(versions=(252, 254, 257), fast=(252,))
def own_unit(packages, version):
    """An operator's own pypnm.service, running: sized, but never enabled, stopped, restarted or disabled by the
    package"""
    files = {f"/etc/systemd/system/{name}": OWN for name in (UNIT, "pypnm-cmts.service")}
    with computer(version, files=files) as m:
        m.systemctl("start", UNIT, "pypnm-cmts.service")
        mains = [m.show(unit, "MainPID") for unit in (UNIT, "pypnm-cmts.service")]
        install(m, packages.deb_before)
        equal(m.systemctl("is-enabled", UNIT, check=False), "disabled", "the operator's unit is")
        expect(GENERATED in m.show(UNIT, "DropInPaths"), "it is not sized")
        install(m, packages.deb)
        m.systemctl("enable", UNIT, "pypnm-cmts.service")
        m.run("dpkg --purge pypnm-sizing")
        equal([m.systemctl("is-enabled", unit) for unit in (UNIT, "pypnm-cmts.service")], ["enabled"] * 2, "after the purge they are")
        equal([m.show(unit, "MainPID") for unit in (UNIT, "pypnm-cmts.service")], mains, "their main processes")


@case(versions=(252, 254, 257), fast=(252,))
def masked(packages, version):
    """A unit masked by the operator remains masked through install, upgrade and removal"""
    with computer(version) as m:
        m.systemctl("mask", UNIT)
        install(m, packages.deb_before)
        expect(not m.exists(WANTS), "a masked unit was enabled")
        install(m, packages.deb)
        m.run("dpkg --purge pypnm-sizing")
        equal(m.systemctl("is-enabled", UNIT, check=False), "masked", "after the purge it is")


@case(versions=(252, 254, 257), fast=(252,))
def image(packages, version):
    """Into an image, in a chroot without systemd and from outside: no messages, and sized at the first boot"""
    with computer(version, boot=False) as m:
        output = install(m, packages.deb)
        # dpkg's own lines begin like this; there are no others.
        expected = ("Selecting", "(Reading", "Preparing", "Unpacking", "Setting up", "Creating group", "Creating user")
        odd = [line for line in output.splitlines() if line and not line.startswith(expected)]
        equal(odd, [], "output besides dpkg's own lines")
        expect(m.run(f"test -L {WANTS}", check=False).returncode == 0, "it is not enabled")
        expect(not m.exists("/run/pypnm-sizing") and not m.exists("/run/generators-run"), "something ran")

        # From outside, with dpkg's --root: an empty file system with its accounts.
        m.run("mkdir -p /image/var/lib/dpkg/info /image/var/lib/dpkg/updates /image/etc /image/usr/lib/systemd/system"
              " && touch /image/var/lib/dpkg/status && cp /etc/passwd /etc/group /image/etc && sed -i /pypnm/d /image/etc/passwd /image/etc/group")  # fmt: skip
        m.copy(packages.deb, "/tmp/product.deb")
        m.run("dpkg --root=/image --force-script-chrootless --force-depends --install /tmp/product.deb 2>&1")
        expect(m.run(f"test -L /image{WANTS}", check=False).returncode == 0, "it is not enabled in the image")
        expect("PyPNM service" in m.read("/image/etc/passwd"), "the image has no account")
        m.run("dpkg --root=/image --force-script-chrootless --purge pypnm-sizing 2>&1")
        expect(m.run(f"test -L /image{WANTS}", check=False).returncode == 1, "it is enabled in the image after the purge")

        m.boot()
        equal(reloads(m), 0, "reloads at the first boot")
        m.wait(UNIT)
        health(m)
        equal(workers(m), 2, "workers at the first boot")


@case(versions=(252, 254, 257), fast=())
def downgraded(packages, version):
    """Downgraded to 0.1.0 and upgraded again: the service keeps running, each version starts it, and the disk ends
    as it began"""
    with computer(version) as m:
        before = disk(m)
        install(m, packages.deb)
        m.systemctl("start", UNIT)
        main = m.show(UNIT, "MainPID")
        for package in (packages.released[0], packages.deb):
            with counted(m, 1, f"installing {package.name}"):
                install(m, package)
            equal((m.show(UNIT, "MainPID"), m.systemctl("is-enabled", UNIT)), (main, "enabled"), f"the service after {package.name}")
            # Not a restart, during which systemd keeps the launcher's socket, so that plain PyPNM would find its port
            # in use.
            m.systemctl("stop", UNIT)
            m.systemctl("start", UNIT)
            health(m)
            main = m.show(UNIT, "MainPID")
        m.run("dpkg --remove pypnm-sizing && dpkg --purge pypnm-sizing")
        m.run("rm -r /var/lib/pypnm && userdel pypnm")
        same_disk(m, before, "after the purge")


@case(versions=(252, 254, 257), fast=(252,))
def starts_nothing(packages, version):
    """If policy-rc.d denies all starts and the account cannot be created: installed anyway with a message, and
    nothing starts"""
    files = {"/usr/sbin/policy-rc.d": ("#!/bin/sh\nexit 101\n", 0o755), "/usr/bin/systemd-sysusers": ("#!/bin/sh\nexit 1\n", 0o755)}
    with computer(version) as m:
        m.install(files)
        output = install(m, packages.deb)
        expect("cannot create the user pypnm" in output, output)
        equal(m.run("dpkg-query -W -f '${db:Status-Status}' pypnm-sizing").stdout, "installed", "the package is")
        equal((m.systemctl("is-enabled", UNIT), m.show(UNIT, "ActiveState")), ("enabled", "inactive"), "the service is")
        equal(m.systemctl("--failed", "--no-legend"), "", "failed units")
        m.run("dpkg --purge pypnm-sizing")


@case(versions=(252,), fast=(252,))
def linked_configuration(packages, version):
    """/etc/pypnm is a symbolic link: purged with status 0, and its target remains (dpkg itself removes the link)"""
    with computer(version) as m:
        install(m, packages.deb)
        m.run("mv /etc/pypnm /srv/pypnm && ln -s /srv/pypnm /etc/pypnm && echo mine >/srv/pypnm/mine && mkdir -p /srv/pypnm/sizing.conf.d")
        m.run("dpkg --purge pypnm-sizing")
        equal(m.run("cat /srv/pypnm/mine; ls -d /srv/pypnm/sizing.conf.d").stdout.split(), ["mine", "/srv/pypnm/sizing.conf.d"], "after the purge")


@case(versions=(252, 254, 257), fast=(252,))
def from_0_1_0(packages, version):
    """Upgraded from 0.1.0: settings of an operator's old drop-ins that have no effect any more are reported with a
    working replacement"""
    upgraded_from_0_1_0(packages, version, packages.released[0], packages.deb)


@case(versions=(247,), fast=())
def too_old(packages, version):
    """On systemd 247, dpkg refuses to install it and says which version is required"""
    with computer(version) as m:
        m.copy(packages.deb, "/tmp/product.deb")
        done = m.run("dpkg --install /tmp/product.deb 2>&1", check=False)
        expect(done.returncode != 0 and "systemd (>= 249)" in done.stdout, done.stdout)
        expect(not m.exists(GENERATED), "it was configured all the same")
