"""The harness of the Python suites: what a case is, what a case says, how cases are chosen, run and
counted, and what cases of several suites need.

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import harness
    from harness import case, equal, expect

    @case()
    def the_sum_is_right():
        equal(1 + 1, 2, "the sum")

    if __name__ == "__main__":
        harness.main(__doc__)

A suite owns its cases and, as `session`, what they share while they run. Each suite then has the same command line
(--list, --fast, --all, --attempts, NAME), prints a line for each case and ends with "N passed, N failed", which tests/run adds
up.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import importlib.util
import inspect
import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]


class Failure(Exception):
    """A case has failed; the text is the complete report."""


def expect(condition, what):
    """Fails the case with `what` (a text, or a function that returns it) unless `condition` is true."""
    if not condition:
        raise Failure(what() if callable(what) else str(what))


def equal(found, expected, what):
    """Fails the case if the two differ."""
    expect(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def free_port(address="127.0.0.1"):
    """A TCP port at this IPv4 or IPv6 address on which nothing listens."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def write_certificate(directory):
    """Writes a private key and a certificate that it signs itself, as `key` and `certificate`."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    subprocess.run([*command, "-keyout", f"{directory}/key", "-out", f"{directory}/certificate"], check=True, capture_output=True)


def note(text):
    """Prints `text` below the line of the running case."""
    _notes.append(str(text))


_notes = []


@dataclasses.dataclass(frozen=True)
class Case:
    """A case on one version (of systemd; None if the suite has no versions)."""

    function: Callable
    version: int | None
    fast: bool
    description: str

    @property
    def short(self):
        """FUNCTION for a case of a suite in one file; otherwise MODULE.FUNCTION."""
        module = self.function.__module__
        return self.function.__name__ if module == "__main__" else f"{module}.{self.function.__name__}"

    @property
    def name(self):
        """The name that --list prints."""
        return self.short if self.version is None else f"{self.short}@{self.version}"

    def matches(self, pattern):
        """Whether the pattern selects it, by its name or its function's name, with or without the version."""
        names = {self.short, self.name, self.function.__name__, f"{self.function.__name__}@{self.version}"}
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)


CASES = []


def case(versions=(None,), fast=True, description=None):
    """Registers a function as a case that runs on each of `versions`. `fast`: whether it is part of --fast, or on
    which versions.

    `description` is printed by --list; by default, it is the function's documentation.
    """

    def register(function):
        text = description or " ".join((inspect.getdoc(function) or "").split())
        for version in versions:
            in_fast = fast if isinstance(fast, bool) else version in fast
            CASES.append(Case(function, version, in_fast, text))
        return function

    return register


def load(directory):
    """Imports all Python files in `directory`, in order of name; their cases register themselves."""
    for path in sorted(Path(directory).glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)


def built(*options):
    """Runs `cargo build` with these options; returns the paths of the executables by name."""
    command = ["cargo", "build", "--quiet", "--locked", "--message-format=json", *options]
    done = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, check=True)
    messages = map(json.loads, done.stdout.splitlines())
    paths = (Path(message["executable"]) for message in messages if message.get("executable"))
    return {path.name: path for path in paths}


@contextlib.contextmanager
def plain_session(_options):
    """Runs a case of a suite without shared state."""
    yield lambda case: case.function()


def arguments(documentation):
    """The command line of every suite. A suite may add options before it calls `main`."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a case, CASE@VERSION, or a pattern of them (default: all)")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--fast", action="store_true", help="only what is fast enough for every change")
    parser.add_argument("--all", action="store_true", help="every case (the default)")
    parser.add_argument(
        "--attempts", type=int, default=1, metavar="N", help="run a case that fails up to N times, and say so (default: 1)"
    )
    return parser


def chosen(options):
    """The cases selected on the command line, in order, grouped by version."""
    for pattern in options.names:
        if not any(case.matches(pattern) for case in CASES):
            raise SystemExit(f"{pattern}: no such case; --list lists them")
    order = sorted(CASES, key=lambda case: (case.version is not None, case.version or 0))
    wanted = [case for case in order if not options.names or any(case.matches(pattern) for pattern in options.names)]
    return [case for case in wanted if case.fast or not options.fast]


def main(documentation, session=plain_session, options=None):
    """Runs the cases selected on the command line, and exits with status 1 if one has failed.

    `session(options)` is a context manager that is active meanwhile, and returns the function that runs a case.
    """
    options = options or arguments(documentation).parse_args()
    cases = chosen(options)
    if options.list:
        width = max((len(case.name) for case in cases), default=0)
        for case in cases:
            print(f"{case.name:{width}}  {'fast' if case.fast else '    '}  {case.description}".rstrip())
        sys.exit(0)
    if not cases:
        raise SystemExit("no such case in the fast part; --list lists them")
    end_on_signals()
    try:
        with session(options) as run:
            failed = sum(not attempt(case, run, options.attempts) for case in cases)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def attempt(case, run, attempts):
    """Runs one case up to `attempts` times, and returns whether it passed. Real time is part of many cases, so that other work
    on the machine, or on its host, can make one fail."""
    return any(report(case, run, is_last=number == attempts) for number in range(1, attempts + 1))


def report(case, run, is_last=True):
    """Runs one case once, prints the result, and returns whether it passed. A failure does not affect other cases."""
    _notes.clear()
    started, reason = time.monotonic(), None
    try:
        run(case)
    except Failure as failure:
        reason = str(failure)
    except Exception:
        reason = traceback.format_exc()
    result = "ok" if reason is None else "FAIL" if is_last else "AGAIN"
    print(f"{result:5} {case.name:44} {time.monotonic() - started:6.1f} s", flush=True)
    for text in [*_notes, *([reason] if reason is not None else [])]:
        print(textwrap.indent(text.rstrip(), "      "), flush=True)
    return reason is None


def end_on_signals():
    """Turns SIGTERM and SIGHUP into an exception, so that every `with` cleans up, unless the program handles them."""

    def end(number, _frame):
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
