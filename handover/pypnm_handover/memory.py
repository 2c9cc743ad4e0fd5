"""Determines whether there is enough memory for one more worker in addition to those that serve.

Reads the cgroup of this process and those above it, as far as they are visible, version 1 and 2, and the available
memory of the machine. All amounts are in bytes. A limit that cannot be read is ignored, because the kernel enforces
it anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# The assumed anonymous memory of a new worker if no worker can be examined (PyPNM 1.6.4.0: 190 MiB).
TYPICAL_WORKER = 220 << 20


class Version(NamedTuple):
    """File names of one version of the memory controller."""

    limits: tuple[str, ...]
    usage: str
    # The key in memory.stat of page cache that can be reclaimed.
    reclaimable: str


V2 = Version(("memory.max", "memory.high"), "memory.current", "inactive_file")
V1 = Version(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


def obstacle(workers: Iterable[int], root: Path = Path("/")) -> str | None:
    """Why one more worker cannot be started; None: it can. `workers` are the process IDs of those that serve."""
    needed = need(workers, root)
    for file, free in levels(root):
        if free < needed:
            return f"{file} leaves {max(free, 0) >> 20} MiB, one more worker needs {needed >> 20} MiB"
    available = _meminfo(root)
    if available is not None and available < needed:
        return f"the machine has {available >> 20} MiB available, one more worker needs {needed >> 20} MiB"
    return None


def need(workers: Iterable[int], root: Path = Path("/")) -> int:
    """The estimated size of a new worker: the anonymous memory of the smallest worker, plus a tenth."""
    sizes = [size for size in (_anonymous(pid, root) for pid in workers) if size is not None]
    # A worker that has just started may not have imported everything yet.
    return max(min(sizes, default=TYPICAL_WORKER) * 11 // 10, TYPICAL_WORKER // 2)


def levels(root: Path = Path("/")) -> Iterator[tuple[Path, int]]:
    """Each limit that applies to this process, and how much of it is free."""
    for version, top, inner in _cgroups(root):
        directory = inner
        while True:
            usage = _number(directory / version.usage)
            if usage is not None:
                used = usage - _statistic(directory / "memory.stat", version.reclaimable)
                for name in version.limits:
                    limit = _number(directory / name)
                    if limit is not None:
                        yield Path("/") / (directory / name).relative_to(root), limit - used
            if directory == top or top not in directory.parents:
                break
            directory = directory.parent


def _cgroups(root: Path) -> Iterator[tuple[Version, Path, Path]]:
    """The mounts of memory controllers: version, mount point, and the directory of this process below it."""
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, hierarchy = line.partition(":")
        controllers, _, path = hierarchy.partition(":")
        for controller in controllers.split(",") if number != "0" else ["0"]:
            paths[controller] = path
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" and "0" in paths:
            version, path = V2, paths["0"]
        elif kind[0] == "cgroup" and "memory" in kind[2].split(",") and "memory" in paths:
            version, path = V1, paths["memory"]
        else:
            continue
        # The mount may show only a part of the hierarchy.
        mounted = fields[3].rstrip("/")
        if mounted and (path == mounted or path.startswith(mounted + "/")):
            path = path[len(mounted) :]
        top = root / fields[4].lstrip("/")
        inner = top / path.strip("/")
        yield version, top, inner if ".." not in inner.parts and inner.is_dir() else top


def _anonymous(pid: int, root: Path) -> int | None:
    for line in _lines(root / f"proc/{pid}/status"):
        if line.startswith("RssAnon:"):
            return _kilobytes(line)
    return None


def _meminfo(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return _kilobytes(line)
    return None


def _kilobytes(line: str) -> int | None:
    words = line.split()
    return int(words[1]) << 10 if len(words) == 3 and words[1].isdigit() and words[2] == "kB" else None


def _statistic(file: Path, key: str) -> int:
    for line in _lines(file):
        words = line.split()
        if len(words) == 2 and words[0] == key and words[1].isdigit():
            return int(words[1])
    return 0


def _number(file: Path) -> int | None:
    """A number of bytes; None: the file is missing or contains max."""
    text = " ".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return file.read_text().splitlines()
    return []
