"""The launcher's log lines."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Writes one line to stderr, which is the journal's under systemd. Where stderr is closed, nothing is written."""
    # Python has no sys.stderr where descriptor 2 was closed at the start.
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"pypnm-handover: {text}", file=sys.stderr, flush=True)
