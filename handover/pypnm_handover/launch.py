"""The launcher itself: runs PyPNM's entry point with `uvicorn.run` replaced, and falls back to plain PyPNM.

What PyPNM hands to uvicorn.run is what it has decided from its flags, its environment and its profile. At a reload its
entry point runs once more, up to the same call, and so decides anew.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from . import fit, listeners, memory
from .notify import Manager
from .processes import Parent, Signals, Stopped, end_tracker, spawn
from .say import say
from .supervisor import Profile, Supervisor

# PYPNM_HANDOVER=no turns it off; boolean as systemd has it.
SWITCH = "PYPNM_HANDOVER"
OFF = ("0", "no", "n", "false", "f", "off")
# How long PyPNM may take to read its profile at a reload, in seconds. Its modules are loaded already.
ASK_TIMEOUT = 20.0
# How long multiprocessing's resource tracker may take to end: it lives as long as any process that a worker has forked.
TRACKER_TIMEOUT = 2.0

EntryPoint = Callable[[], object]


def main(script: str, arguments: list[str]) -> Any:
    """Runs PyPNM's console script `script`; returns what is its exit status."""
    launcher = Launcher(script, arguments)
    if os.environ.get(SWITCH, "").strip().lower() in OFF:
        launcher.run_plain(f"{SWITCH}={os.environ[SWITCH]}")
    if not arguments or arguments[0] != "serve":
        launcher.run_plain("only 'serve' is handed over")
    try:
        import uvicorn

        # Before PyPNM is imported: it may take the function by its name.
        launcher.replace(uvicorn)
        entry_point = launcher.entry_point = find(os.path.basename(script))
    except Exception as error:  # whatever an import may raise
        launcher.run_plain(f"{type(error).__name__}: {error}")
    sys.argv = [script, *arguments]
    return entry_point()


def find(command: str) -> EntryPoint:
    """The function behind a console script, as its package's metadata names it."""
    for point in entry_points(group="console_scripts", name=command):
        function: EntryPoint = point.load()
        return function
    raise LookupError(f"no installed package has the command {command}")


class Launcher:
    """What is called instead of uvicorn.run, and what it needs until it is."""

    def __init__(self, script: str, arguments: list[str]) -> None:
        self._command = [script, *arguments]
        self._environment = dict(os.environ)
        self._passed = listeners.inherited(os.environ)
        self._manager = Manager.from_environment(os.environ)
        self._signals = Signals()
        # PyPNM's; set before it runs.
        self.entry_point: EntryPoint = _nothing
        # At a reload: what PyPNM has called uvicorn.run with.
        self._is_asking = False
        self._answer: tuple[object, dict[str, Any]] | None = None

    def run_plain(self, why: str) -> NoReturn:
        """Becomes plain PyPNM: another program with another command line, which nobody takes for the launcher."""
        say(f"{why}: starting plain {os.path.basename(self._command[0])}, without hand-over")
        # Plain uvicorn binds its address itself.
        listeners.release([one for one in self._passed if one.is_kept], self._manager)
        os.execve(self._command[0], self._command, self._environment)

    def replace(self, uvicorn: Any) -> None:
        """Puts this launcher in the place of uvicorn.run."""
        self._uvicorn = uvicorn
        uvicorn.run = self
        # A reload from here on is not lost: the profile may have been read by the time it is asked for.
        self._signals.install_reload()

    def __call__(self, app: Any, **arguments: Any) -> None:
        """uvicorn.run, as PyPNM calls it."""
        if self._is_asking:
            self._answer = app, arguments
            return
        why = fit.obstacle(self._uvicorn, app, {k: v for k, v in arguments.items() if k != "app_dir"})
        if why is not None:
            self.run_plain(why)
        if arguments.get("app_dir") is not None:
            sys.path.insert(0, arguments["app_dir"])
        service = Service(self._uvicorn, self._manager, app, arguments)
        try:
            service.listen(self._passed)
        except OSError as error:
            say(f"cannot listen: {error.strerror}")
            sys.exit(1)
        status = service.run(self._signals, self._ask)
        if status:
            sys.exit(status)

    def _ask(self) -> tuple[object, dict[str, Any]] | None:
        """What PyPNM would start now; None: it fails."""
        self._is_asking, self._answer = True, None
        environment = dict(os.environ)
        try:
            with time_limit(ASK_TIMEOUT), self._signals.interrupting():
                self.entry_point()
            if self._answer is None:
                raise LookupError("uvicorn.run was not called")
            app, arguments = self._answer
            why = fit.obstacle(self._uvicorn, app, {k: v for k, v in arguments.items() if k != "app_dir"})
            if why is not None:
                raise ValueError(why)
        except (Exception, SystemExit, Stopped) as error:
            if not isinstance(error, Stopped):
                say(f"PyPNM could not read its profile anew: {type(error).__name__}: {error}")
            # Workers report the profile that PyPNM has noted there.
            os.environ.clear()
            os.environ.update(environment)
            return None
        finally:
            self._is_asking = False
        return self._answer


def name_process(name: str) -> None:
    """Gives this process a name of at most 15 bytes, see proc_pid_comm(5); its command line stays."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _nothing() -> None:
    """PyPNM, before it has been found."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block when it takes longer, also where it waits for a file."""

    def expire(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Service:
    """The service as it runs: its configuration, its sockets, its workers."""

    def __init__(self, uvicorn: Any, manager: Manager, app: object, arguments: dict[str, Any]) -> None:
        self._uvicorn, self._manager = uvicorn, manager
        self._sockets: list[Any] = []
        self._has_said_ready = False
        self._is_reloading = False
        self._was_refused = False
        # How many were completed; 'handover --reload' waits for the next.
        self._reloads = 0
        self._status = ""
        self.profile = self._configure(app, arguments)

    def _configure(self, app: object, arguments: dict[str, Any]) -> Profile:
        arguments = {key: value for key, value in arguments.items() if key != "app_dir"}
        # The launcher's: uvicorn's own limit ends a worker before its successor serves.
        limit = arguments.pop("limit_max_requests", None) or 0
        self._config = self._uvicorn.Config(app, **arguments)
        # As uvicorn has it: no worker is one worker.
        return Profile(max(self._config.workers, 1), max(limit, 0))

    def listen(self, passed: list[listeners.Inherited]) -> None:
        """Takes over or binds the sockets. Raises OSError."""
        config = self._config
        if config.fd is not None:
            listeners.release([one for one in passed if one.is_kept], self._manager)
            self._sockets = [listeners.of_descriptor(config.fd)]
            return
        wanted = [listeners.path(config.uds)] if config.uds else listeners.addresses(config.host, config.port)
        self._sockets = listeners.listen(wanted, config.backlog, passed, self._manager)

    def run(self, signals: Signals, ask: Callable[[], tuple[object, dict[str, Any]] | None]) -> int:
        """Serves until it is told to stop; the exit status."""
        supervisor = Supervisor(self.profile, self._start, memory.obstacle)

        def reread() -> Profile | None:
            # Until READY=1 the unit is reloading, and 'systemctl reload' waits.
            self._manager.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._is_reloading = True
            answer = ask()
            self._was_refused = answer is None
            return self._configure(*answer) if answer is not None else None

        signals.install()
        try:
            status = Parent(supervisor, signals, reread, self._report).run()
        except BaseException:
            # Without a parent the workers end by themselves; Python would wait for them first.
            traceback.print_exc()
            os._exit(1)
        with contextlib.suppress(TimeoutError), time_limit(TRACKER_TIMEOUT):
            end_tracker()
        return status

    def _start(self, limit: int) -> Any:
        from .worker import work

        return spawn(work, self._config, self._sockets, limit)

    def _report(self, supervisor: Supervisor) -> None:
        """Tells the service manager what `systemctl status` shows, and when a start or a reload is complete."""
        serving = supervisor.serving
        if supervisor.is_stopping:
            status = "Finishing the requests in hand"
        else:
            wanted = supervisor.profile.workers
            status = f"{serving} of {wanted} workers serving"
            if supervisor.is_handing_over:
                status += ", a successor is starting"
        is_reloaded = self._is_reloading and (not supervisor.is_renewing or supervisor.keeps_failing)
        if is_reloaded:
            self._is_reloading = False
            self._reloads += 1
            # With a mark where the old workers, or the old profile, are still in use.
            mark = "!" if self._was_refused or supervisor.is_renewing else ""
            name_process(f"handover/{self._reloads % 100000}{mark}")
        messages = []
        if serving and (is_reloaded or not self._has_said_ready):
            self._has_said_ready = True
            messages.append("READY=1")
        if supervisor.is_stopping and not self._status.startswith("Finishing"):
            messages.append("STOPPING=1")
        if status != self._status or messages:
            self._status = status
            self._manager.send(*messages, f"STATUS={status}")
