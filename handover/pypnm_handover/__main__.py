"""The launcher as a program: `python3 pypnm_handover SCRIPT [ARGUMENT...]`, SCRIPT being PyPNM's console script.

Owns the way to PyPNM's entry point and back to plain PyPNM. Anything that is not as expected ends in the latter, with
one line on stderr.
"""

from __future__ import annotations

import os
import sys


def main(script: str, arguments: list[str]) -> None:
    # Last on the path: nothing of PyPNM's is shadowed, and workers find the package in the copy that they are given.
    package = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != package] + [os.path.dirname(package)]
    try:
        from pypnm_handover import launch
    except Exception as error:
        # An older Python, say.
        print(f"pypnm-handover: {error}: starting plain {script}", file=sys.stderr, flush=True)
        os.execv(script, [script, *arguments])
    sys.exit(launch.main(script, arguments))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
