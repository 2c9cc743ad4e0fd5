"""The launcher's log lines."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Writes one line to stderr, which is the journal's under systemd."""
    print(f"pypnm-handover: {text}", file=sys.stderr, flush=True)
