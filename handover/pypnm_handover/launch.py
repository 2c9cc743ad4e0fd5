"""Runs PyPNM's entry point with `uvicorn.run` replaced, and falls back to plain PyPNM.

The arguments of uvicorn.run are what PyPNM derived from its options, environment and profile. On a reload, the entry
point runs again up to the same call and derives them again.
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
from .log import log
from .supervisor import Profile, Supervisor, count_of

# PYPNM_HANDOVER=no turns the launcher off; a boolean in systemd's syntax.
SWITCH = "PYPNM_HANDOVER"
OFF = ("0", "no", "n", "false", "f", "off")
# The timeout for PyPNM to read its profile during a reload, in seconds. Its modules are already loaded.
ASK_TIMEOUT = 20.0
# The timeout for multiprocessing's resource tracker to end: it lives as long as any process forked by a worker.
TRACKER_TIMEOUT = 2.0

EntryPoint = Callable[[], object]


def main(script: str, arguments: list[str]) -> Any:
    """Runs PyPNM's console script `script`, and returns its exit status."""
    launcher = Launcher(script, arguments)
    if os.environ.get(SWITCH, "").strip().lower() in OFF:
        launcher.run_plain(f"{SWITCH}={os.environ[SWITCH]}")
    if not arguments or arguments[0] != "serve":
        launcher.run_plain("only 'serve' is handed over")
    try:
        import uvicorn

        # Before PyPNM is imported, because it may import the function by name.
        launcher.replace(uvicorn)
        entry_point = launcher.entry_point = find(os.path.basename(script))
    except Exception as error:  # whatever an import may raise
        launcher.run_plain(f"{type(error).__name__}: {error}")
    sys.argv = [script, *arguments]
    return entry_point()


def find(command: str) -> EntryPoint:
    """The function behind a console script, according to its package's metadata."""
    for point in entry_points(group="console_scripts", name=command):
        function: EntryPoint = point.load()
        return function
    raise LookupError(f"no installed package has the command {command}")


class Launcher:
    """The replacement for uvicorn.run, and its state until it is called."""

    def __init__(self, script: str, arguments: list[str]) -> None:
        self._command = [script, *arguments]
        self._environment = dict(os.environ)
        self._passed = listeners.inherited(os.environ)
        self._manager = Manager.from_environment(os.environ)
        self._signals = Signals()
        # PyPNM's entry point; set before it runs.
        self.entry_point: EntryPoint = _nothing
        # The arguments of uvicorn.run during a reload.
        self._is_asking = False
        self._answer: tuple[object, dict[str, Any]] | None = None

    def run_plain(self, why: str) -> NoReturn:
        """Replaces this process with plain PyPNM, whose command line cannot be mistaken for that of the launcher."""
        log(f"{why}: starting plain {os.path.basename(self._command[0])}, without handover")
        # Plain uvicorn binds its address itself.
        listeners.release([inherited for inherited in self._passed if inherited.is_kept], self._manager)
        os.execve(self._command[0], self._command, self._environment)

    def replace(self, uvicorn: Any) -> None:
        """Replaces uvicorn.run with this launcher."""
        self._uvicorn = uvicorn
        uvicorn.run = self
        # Remember reloads from here on: PyPNM may have read the profile before the launcher is called.
        self._signals.install_reload()

    def __call__(self, app: Any, **arguments: Any) -> None:
        """Called by PyPNM in place of uvicorn.run."""
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
            log(f"cannot listen: {error.strerror}")
            sys.exit(1)
        status = service.run(self._signals, self._ask)
        if status:
            sys.exit(status)

    def _ask(self) -> tuple[object, dict[str, Any]] | None:
        """The arguments with which PyPNM would start now; None: it fails."""
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
                log(f"PyPNM could not reload its profile: {type(error).__name__}: {error}")
            # PyPNM notes the profile in the environment, and workers report it from there.
            os.environ.clear()
            os.environ.update(environment)
            return None
        finally:
            self._is_asking = False
        return self._answer


def name_process(name: str) -> None:
    """Sets the name of this process, at most 15 bytes, see proc_pid_comm(5). Its command line remains unchanged."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _nothing() -> None:
    """The entry point before it is known."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError if the block takes longer, even while it waits for a file."""

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
    """The running service: its configuration, sockets and workers."""

    def __init__(self, uvicorn: Any, manager: Manager, app: object, arguments: dict[str, Any]) -> None:
        self._uvicorn, self._manager = uvicorn, manager
        self._sockets: list[Any] = []
        self._was_ready = False
        self._is_reloading = False
        self._was_refused = False
        # The number of completed reloads; 'handover --reload' waits for it to increase.
        self._reloads = 0
        self._status = ""
        self.profile = self._configure(app, arguments)

    def _configure(self, app: object, arguments: dict[str, Any]) -> Profile:
        arguments = {key: value for key, value in arguments.items() if key != "app_dir"}
        # Handled by the launcher, because uvicorn would end a worker before its successor serves.
        limit = arguments.pop("limit_max_requests", None) or 0
        self._config = self._uvicorn.Config(app, **arguments)
        # Like uvicorn, treats 0 workers as 1.
        return Profile(max(self._config.workers, 1), max(limit, 0))

    def listen(self, passed: list[listeners.Inherited]) -> None:
        """Takes over or binds the sockets. Raises OSError."""
        config = self._config
        if config.fd is not None:
            listeners.release([inherited for inherited in passed if inherited.is_kept], self._manager)
            self._sockets = [listeners.of_descriptor(config.fd)]
            return
        wanted = [listeners.path(config.uds)] if config.uds else listeners.addresses(config.host, config.port)
        self._sockets = listeners.listen(wanted, config.backlog, passed, self._manager)

    def run(self, signals: Signals, ask: Callable[[], tuple[object, dict[str, Any]] | None]) -> int:
        """Serves until it is stopped, and returns the exit status."""
        supervisor = Supervisor(self.profile, self._start, memory.obstacle)

        def reread() -> Profile | None:
            # Until READY=1, systemd considers the unit to be reloading, and 'systemctl reload' waits.
            self._manager.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._is_reloading = True
            answer = ask()
            self._was_refused = answer is None
            return self._configure(*answer) if answer is not None else None

        signals.install()
        try:
            status = Parent(supervisor, signals, reread, self._report).run()
        except BaseException:
            # Workers end when their parent does; without os._exit(), Python would wait for them first.
            traceback.print_exc()
            os._exit(1)
        with contextlib.suppress(TimeoutError), time_limit(TRACKER_TIMEOUT):
            end_tracker()
        return status

    def _start(self, limit: int) -> Any:
        from .worker import work

        return spawn(work, self._config, self._sockets, limit)

    def _report(self, supervisor: Supervisor) -> None:
        """Sends the status shown by `systemctl status`, and reports when a start or a reload is complete."""
        serving = supervisor.serving
        if supervisor.is_stopping:
            status = "Finishing the requests in progress"
        else:
            wanted = supervisor.profile.workers
            status = f"{serving} of {count_of(wanted)} serving"
            if supervisor.is_handing_over:
                status += ", starting a successor"
        is_reloaded = self._is_reloading and (not supervisor.is_renewing or supervisor.keeps_failing)
        if is_reloaded:
            self._is_reloading = False
            self._reloads += 1
            # A mark shows that the old workers or the old profile are still in use.
            mark = "!" if self._was_refused or supervisor.is_renewing else ""
            name_process(f"handover/{self._reloads % 100000}{mark}")
        messages = []
        if serving and (is_reloaded or not self._was_ready):
            self._was_ready = True
            messages.append("READY=1")
        if supervisor.is_stopping and not self._status.startswith("Finishing"):
            messages.append("STOPPING=1")
        if status != self._status or messages:
            self._status = status
            self._manager.send(*messages, f"STATUS={status}")
