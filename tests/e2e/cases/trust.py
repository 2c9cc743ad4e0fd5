"""Other users of the machine, and file systems that never respond: neither can redirect root or block PID 1."""

import time

from suite import GENERATOR, IDLE, KB_16G, case, equal, expect, generated, sized

NAME = GENERATOR.rpartition("/")[2]
# Directories that an operator may give to the service's user, such as /run/pypnm.
RUNTIME_DIRECTORY = {"/etc/systemd/system/pypnm.service.d/20-site.conf": "[Service]\nRuntimeDirectory=pypnm\nRuntimeDirectoryPreserve=yes\n"}
# A FUSE file system whose daemon never responds, mounted on the directory in its argument until it is killed.
HANG = """\
import ctypes, os, sys, time
os.path.exists("/dev/fuse") or os.mknod("/dev/fuse", 0o20666, os.makedev(10, 229))
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"dead", sys.argv[1].encode(), b"fuse.sshfs", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
time.sleep(600)
"""
UNIT = "[Service]\nEnvironmentFile=-/etc/pypnm/site.env\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"


def _complaints(m):
    return [line for line in m.kernel_log().splitlines() if NAME in line]


@case(fast=(252,))
def the_services_user_writes_configuration(e2e):
    """Files that the service's user creates in /run/pypnm are ignored, whatever their names; the log names them"""
    with e2e.machine(cpus=4, memory_kb=KB_16G, kmsg=True, start=IDLE, files=RUNTIME_DIRECTORY) as m:
        m.boot()
        sized(m, 4, 2000)
        owner = m.run("stat -c %U /run/pypnm").stdout.strip()
        equal(owner, "docsis", "the owner of /run/pypnm")
        _complaints(m)
        m.install({
            "/usr/local/bin/attack": (
                "#!/bin/bash\nmkdir -p /run/pypnm/sizing.conf.d; cd /run/pypnm/sizing.conf.d\n"
                "name=$'10-a\\n[Service]\\nExecStartPre=+\\\\x2fbin\\\\x2ftouch \\\\x2frun\\\\x2fpwned\\n#.conf'\n"
                'printf "[Sizing]\\nUnits=pypnm.service systemd-journald.service\\nWorkers=3\\n" > "$name"\n'
                'cp "$name" ../sizing.conf; cp "$name" 20-plain.conf\n',
                0o755,
            )
        })  # fmt: skip
        m.run("setpriv --reuid=docsis --clear-groups /usr/local/bin/attack && ls /run/pypnm/sizing.conf.d/20-plain.conf")
        m.systemctl("daemon-reload")
        m.systemctl("restart", "pypnm.service")
        sized(m, 4, 2000)
        equal(m.run("ls /run/pwned", check=False).returncode, 2, "ls /run/pwned: the attack's file")
        equal(m.run("ls -d /run/systemd/generator/systemd-journald.service.d", check=False).returncode, 2, "ls of another unit's drop-in")
        expect("[Service]\nExecStartPre=+" not in generated(m), "directives of the attack in the drop-in")
        messages = "\n".join(_complaints(m))
        expect("/run/pypnm" in messages and "not trusted" in messages, f"the log:\n{messages}")


@case(fast=(252,))
def a_dead_mount_behind_a_link(e2e):
    """Configuration, an environment file and a drop-in on a FUSE mount that never responds: a reload takes no longer, and
    one worker is assumed"""
    files = {"/root/hang.py": HANG, "/etc/systemd/system/pypnm.service": UNIT}
    with e2e.machine(cpus=4, memory_kb=KB_16G, kmsg=True, start=IDLE, files=files) as m:
        m.boot()
        sized(m, 4, 2000)

        def reload():
            started = time.monotonic()
            m.systemctl("daemon-reload")
            return time.monotonic() - started

        before = min(reload() for _ in range(3))
        _complaints(m)
        m.run("mkdir -p /mnt/dead /etc/pypnm/sizing.conf.d && systemd-run --quiet --unit=hang /usr/bin/python3 /root/hang.py /mnt/dead")
        m.run("for i in $(seq 100); do grep -q ' /mnt/dead ' /proc/self/mountinfo && exit; sleep 0.1; done; systemctl status hang; exit 1")
        m.run("rm -f /etc/pypnm/sizing.conf; ln -s /mnt/dead/a /etc/pypnm/sizing.conf; ln -s ../../../mnt/dead/b /etc/pypnm/sizing.conf.d/50.conf")
        m.run("ln -s /mnt/dead /etc/dead; ln -s /etc/dead/c /etc/pypnm/site.env")
        after = min(reload() for _ in range(3))
        messages = "\n".join(_complaints(m))
        for path in ("/etc/pypnm/sizing.conf:", "/etc/pypnm/sizing.conf.d/50.conf:", "/etc/pypnm/site.env:"):
            expect(f"{path} skipped: the path leads to" in messages, f"{path} is to be named:\n{messages}")
        sized(m, 1, 1000)
        expect(after < before + 1, f"a reload took {before:.2f} s, and {after:.2f} s with the mount")
        m.systemctl("kill", "hang")
