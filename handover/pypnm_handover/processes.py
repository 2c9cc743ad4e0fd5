"""Worker processes, and the parent's main loop, which reports signals, messages and exits to the supervisor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from .supervisor import Profile, Supervisor, Worker

# Messages from a worker: it accepts connections; it has reached its request limit.
UP = "up"
SPENT = "spent"


class WorkerProcess:
    """A worker process and the pipe to it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        # None: the worker has closed its end.
        self.connection: Connection | None = connection
        self.pid = process.pid or 0
        # Becomes readable when the process ends. multiprocessing's own pipe for this purpose remains open as long as
        # any process forked by the worker lives; it is used only if pidfd_open(2) is missing or denied.
        self.end: int = process.sentinel
        with contextlib.suppress(AttributeError, OSError):
            self.end = os.pidfd_open(self.pid)

    def retire(self, grace: float) -> None:
        """See supervisor.Handle."""
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.send(grace)

    def kill(self) -> None:
        """See supervisor.Handle."""
        self.process.kill()

    def how_it_ended(self) -> str:
        """The exit status, or the signal that killed it."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def close(self) -> None:
        """Releases the resources of a process that has ended."""
        if self.connection is not None:
            self.connection.close()
        if self.end != self.process.sentinel:
            os.close(self.end)
        self.process.close()


def spawn(target: Callable[..., None], *arguments: object) -> WorkerProcess:
    """Starts target(*arguments, connection) in a new Python interpreter, as uvicorn starts its workers."""
    multiprocessing.allow_connection_pickling()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    try:
        process = context.Process(target=target, args=(*arguments, theirs))
        process.start()
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return WorkerProcess(process, ours)


def end_tracker() -> None:
    """Ends multiprocessing's resource tracker, which spawn() has started.

    Otherwise it would end shortly after this process, and systemd would log that it has to kill it.
    """
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    with contextlib.suppress(Exception):  # another Python's may be of another kind
        tracker._stop()  # type: ignore[union-attr]


class Stopped(BaseException):
    """Interrupts an operation that may take long, because the service is to stop."""


class Signals:
    """The signals that the parent handles. Once installed, none of them ends the process."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        for descriptor in (self._reading, self._writing):
            os.set_blocking(descriptor, False)
        self._received: list[int] = []
        self._is_interrupting = False

    def install_reload(self) -> None:
        """Starts to collect SIGHUP. The other signals still end the process."""
        signal.signal(signal.SIGHUP, self._note)

    def install(self) -> None:
        """Starts to collect all signals."""
        # If the parent inherited SIGCHLD as ignored, the exit statuses of workers would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        if self._is_interrupting and number != signal.SIGHUP:
            self._is_interrupting = False
            raise Stopped

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raises Stopped in the block when a signal to stop arrives or is already pending."""
        self._is_interrupting = True
        try:
            if not {signal.SIGHUP}.issuperset(self._received):
                raise Stopped
            yield
        finally:
            self._is_interrupting = False

    def fileno(self) -> int:
        """A descriptor that becomes readable when a signal arrives."""
        return self._reading

    def take(self) -> list[int]:
        """Returns the signals that have arrived since the last call."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 512):
                pass
        received = self._received[:]
        del self._received[: len(received)]
        return received


class Parent:
    """The main loop of the unit's main process, which does not serve requests."""

    def __init__(
        self,
        supervisor: Supervisor,
        signals: Signals,
        reread: Callable[[], Profile | None],
        report: Callable[[Supervisor], None],
    ) -> None:
        """`reread()` asks PyPNM for the profile (None: unchanged), and `report()` is called after every event."""
        self._supervisor, self._signals, self._reread, self._report = supervisor, signals, reread, report

    def run(self) -> int:
        """Runs until the last worker has ended, and returns the exit status."""
        supervisor = self._supervisor
        while True:
            # Of pending signals, several reloads are one, and a stop cancels reloads. A second Ctrl+C counts, see
            # _signal().
            received = self._signals.take()
            if set(received) == {signal.SIGHUP}:
                self._signal(signal.SIGHUP)
            for number in received:
                if number != signal.SIGHUP:
                    self._signal(number)
            supervisor.decide()
            self._report(supervisor)
            if supervisor.status is not None and not supervisor.workers:
                return supervisor.status
            self._wait(supervisor.next_decision())

    def _signal(self, number: int) -> None:
        supervisor = self._supervisor
        if number == signal.SIGHUP:
            # No reload while the service stops.
            profile = None if supervisor.is_stopping else self._reread()
            if profile is not None:
                supervisor.renew(profile)
        elif number == signal.SIGINT and supervisor.is_stopping:
            # The second Ctrl+C.
            supervisor.kill()
        else:
            supervisor.stop()

    def _wait(self, timeout: float | None) -> None:
        sources: dict[Any, tuple[Worker, WorkerProcess]] = {}
        for worker in self._supervisor.workers:
            handle = worker.handle
            assert isinstance(handle, WorkerProcess)
            sources[handle.end] = worker, handle
            if handle.connection is not None:
                sources[handle.connection] = worker, handle
        ready: list[Any] = wait([*sources, self._signals.fileno()], timeout)
        # Messages come before the end of a worker, whose descriptor is an integer.
        for source in sorted(ready, key=lambda source: isinstance(source, int)):
            if source not in sources:
                continue
            worker, handle = sources[source]
            if source is handle.connection:
                self._hear(worker, handle)
            else:
                self._supervisor.has_ended(worker, handle.how_it_ended())
                handle.close()

    def _hear(self, worker: Worker, handle: WorkerProcess) -> None:
        assert handle.connection is not None
        try:
            word = handle.connection.recv()
        except Exception:  # its end, or what is no message of worker.py's
            handle.connection.close()
            handle.connection = None
            return
        if word == UP:
            self._supervisor.is_up(worker)
        elif word == SPENT:
            self._supervisor.is_spent(worker)
