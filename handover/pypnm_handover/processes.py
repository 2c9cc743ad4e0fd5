"""Workers as processes, and the parent's loop: signals, pipes and ends of processes become the supervisor's events."""

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

# What a worker says over its pipe: it takes connections; it has reached its limit of requests.
UP = "up"
SPENT = "spent"


class WorkerProcess:
    """A worker's process and the pipe to it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        # None: it has closed its end.
        self.connection: Connection | None = connection
        self.pid = process.pid or 0
        # Becomes readable when the process has ended. multiprocessing's own pipe for this stays open as long as a
        # process lives that the worker has forked; it is used where pidfd_open(2) is missing or denied.
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
        """Its status, or the signal that ended it."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    def close(self) -> None:
        """Frees what belongs to an ended process."""
        if self.connection is not None:
            self.connection.close()
        if self.end != self.process.sentinel:
            os.close(self.end)
        self.process.close()


def spawn(target: Callable[..., None], *arguments: object) -> WorkerProcess:
    """Starts target(*arguments, connection) in a new Python, as uvicorn starts its workers."""
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

    It would end a moment after this process: systemd finds it and logs that it is killed.
    """
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    with contextlib.suppress(Exception):  # another Python's may be of another kind
        tracker._stop()  # type: ignore[union-attr]


class Stopped(BaseException):
    """The service is to stop: raised in the middle of something that may take long."""


class Signals:
    """The signals that the parent handles. None of them ends the process once it is installed."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        for descriptor in (self._reading, self._writing):
            os.set_blocking(descriptor, False)
        self._received: list[int] = []
        self._is_interrupting = False

    def install_reload(self) -> None:
        """Starts to collect SIGHUP; the others end the process as yet."""
        signal.signal(signal.SIGHUP, self._note)

    def install(self) -> None:
        """Starts to collect all of them."""
        # Ignored, as some programs leave it to those that they start, it would hide how workers end.
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
        """Raises Stopped in the block when a signal to stop comes, or has come and was not taken yet."""
        self._is_interrupting = True
        try:
            if not {signal.SIGHUP}.issuperset(self._received):
                raise Stopped
            yield
        finally:
            self._is_interrupting = False

    def fileno(self) -> int:
        """Becomes readable when a signal has come."""
        return self._reading

    def take(self) -> list[int]:
        """The signals that came since it was asked last."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reading, 512):
                pass
        received = self._received[:]
        del self._received[: len(received)]
        return received


class Parent:
    """The loop of the process that systemd started: it serves no request."""

    def __init__(
        self,
        supervisor: Supervisor,
        signals: Signals,
        reread: Callable[[], Profile | None],
        report: Callable[[Supervisor], None],
    ) -> None:
        """`reread()` asks PyPNM for the profile, None: it stays; `report()` hears of every change."""
        self._supervisor, self._signals, self._reread, self._report = supervisor, signals, reread, report

    def run(self) -> int:
        """Until the last worker has ended; the exit status."""
        supervisor = self._supervisor
        while True:
            # Of those that came together, two reloads are one, and none before a stop. Ctrl+C twice is not, see _signal().
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
            # What is stopping starts nothing more.
            profile = None if supervisor.is_stopping else self._reread()
            if profile is not None:
                supervisor.renew(profile)
        elif number == signal.SIGINT and supervisor.is_stopping:
            # Ctrl+C twice.
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
        # What a worker says comes before its end, whose descriptor is a number.
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
