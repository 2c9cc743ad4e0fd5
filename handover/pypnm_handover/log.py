"""The launcher's log."""

from __future__ import annotations

import contextlib
import sys


def log(text: str) -> None:
    """Writes a line to stderr, which is the journal if systemd started it. If stderr is closed, nothing is written."""
    # sys.stderr is None if descriptor 2 was closed when Python started.
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"pypnm-handover: {text}", file=sys.stderr, flush=True)
