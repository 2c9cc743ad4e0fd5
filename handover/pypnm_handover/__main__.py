"""The launcher as a program: `python3 pypnm_handover SCRIPT [ARGUMENT...]`, where SCRIPT is PyPNM's console script.

Runs PyPNM's entry point with the launcher, or plain PyPNM with a line on stderr if anything is not as expected.
"""

from __future__ import annotations

import os
import sys


def main(script: str, arguments: list[str]) -> None:
    # Last on the path, so that it does not shadow PyPNM's modules. Workers get a copy of the path and find the package
    # there.
    package = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != package] + [os.path.dirname(package)]
    try:
        from pypnm_handover import launch
    except Exception as error:
        # For example, because Python is too old.
        print(f"pypnm-handover: {error}: starting plain {script}", file=sys.stderr, flush=True)
        os.execv(script, [script, *arguments])
    sys.exit(launch.main(script, arguments))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
