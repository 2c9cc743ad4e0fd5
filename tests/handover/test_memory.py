"""Tests of memory, with fixture roots: whether one more worker fits."""

import tempfile
import unittest
from pathlib import Path

from pypnm_handover import memory

MIB = 1 << 20
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1_MOUNT = "33 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


class Memory(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.put({"proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB\n", "proc/7/status": "Name: x\nRssAnon:\t 204800 kB\n"})

    def put(self, files):
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))

    def v2(self, cgroup="/system.slice/pypnm.service", **files):
        self.put({"proc/self/cgroup": f"0::{cgroup}\n", "proc/self/mountinfo": V2_MOUNT})
        self.put({f"sys/fs/cgroup{cgroup}/memory.{name}": text for name, text in files.items()})

    def obstacle(self, *workers):
        return memory.obstacle(workers or (7,), self.root)

    def test_nothing_readable_limits_nothing(self):
        self.assertIsNone(memory.obstacle((1,), self.root / "nowhere"))

    def test_a_new_worker_is_like_the_smallest(self):
        self.put({"proc/8/status": "RssAnon: 614400 kB\n", "proc/9/status": "RssAnon: 10 kB\n"})
        self.assertEqual(memory.need((7, 8), self.root), 200 * MIB * 11 // 10)
        # One that has just been started says little.
        self.assertEqual(memory.need((9,), self.root), memory.TYPICAL_WORKER // 2)
        self.assertEqual(memory.need((), self.root), memory.TYPICAL_WORKER * 11 // 10)

    def test_no_limit_in_force(self):
        self.v2(max="max", high="max", current=500 * MIB, stat="")
        self.assertIsNone(self.obstacle())

    def test_version_2_limits(self):
        for key in ("max", "high"):
            limits = {"max": "max", "high": "max"}
            self.v2(**{**limits, key: 700 * MIB}, current=450 * MIB, stat="anon 1\ninactive_file 0\n")
            self.assertIsNone(self.obstacle(), key)
            self.v2(**{**limits, key: 600 * MIB}, current=450 * MIB, stat="inactive_file 0\n")
            self.assertEqual(
                self.obstacle(),
                f"/sys/fs/cgroup/system.slice/pypnm.service/memory.{key} leaves 150 MiB, one more worker needs 220 MiB",
            )

    def test_page_cache_that_is_given_up_on_demand_is_free(self):
        self.v2(max=600 * MIB, current=550 * MIB, stat=f"inactive_file {300 * MIB}\n")
        self.assertIsNone(self.obstacle())

    def test_a_limit_of_a_slice_above(self):
        self.v2(max="max", current=450 * MIB, stat="")
        self.put({"sys/fs/cgroup/system.slice/memory.max": 1000 * MIB, "sys/fs/cgroup/system.slice/memory.current": 900 * MIB})
        self.assertIn("/system.slice/memory.max leaves 100 MiB", self.obstacle())

    def test_usage_above_the_limit(self):
        self.v2(high=100 * MIB, current=450 * MIB, stat="")
        self.assertIn("leaves 0 MiB", self.obstacle())

    def test_version_1_and_both_mounted(self):
        self.put({
            "proc/self/cgroup": "12:cpu,memory:/docker/x\n0::/docker/x\n", "proc/self/mountinfo": V2_MOUNT + V1_MOUNT,
            "sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": 450 * MIB,
            "sys/fs/cgroup/memory/docker/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {50 * MIB}\n",
            "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": 0x7FFFFFFFFFFFF000,
        })  # fmt: skip
        self.assertIsNone(self.obstacle())
        self.put({"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": 500 * MIB})
        self.assertIn("memory.limit_in_bytes leaves 100 MiB", self.obstacle())

    def test_a_mount_of_a_part_of_the_hierarchy(self):
        self.put({
            "proc/self/cgroup": "0::/machine/box/inner\n", "proc/self/mountinfo": V2_MOUNT.replace(" / /sys", " /machine/box /sys"),
            "sys/fs/cgroup/inner/memory.max": 100 * MIB, "sys/fs/cgroup/inner/memory.current": 50 * MIB,
        })  # fmt: skip
        self.assertIn("/sys/fs/cgroup/inner/memory.max", self.obstacle())

    def test_a_cgroup_that_cannot_be_seen_counts_from_the_mount(self):
        self.put({
            "proc/self/cgroup": "0::/../elsewhere\n", "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": 100 * MIB, "sys/fs/cgroup/memory.current": 50 * MIB,
        })  # fmt: skip
        self.assertIn("/sys/fs/cgroup/memory.max", self.obstacle())

    def test_the_machine_itself(self):
        self.put({"proc/meminfo": "MemAvailable: 102400 kB\n"})
        self.assertEqual(self.obstacle(), "the machine has 100 MiB available, one more worker needs 220 MiB")

    def test_nonsense_limits_nothing(self):
        self.v2(max="lots\n", high="", current="many", stat="inactive_file\n")
        self.put({"proc/meminfo": "MemAvailable: much kB\n", "proc/7/status": "RssAnon: x kB\n"})
        self.assertIsNone(self.obstacle())
        self.put({"proc/self/cgroup": "nonsense\n::\n", "proc/self/mountinfo": "x\n - \n30 1 - cgroup2\n"})
        self.assertIsNone(self.obstacle())
