"""Decides which worker starts, which one ends, and when. Starts, signals and waits for nothing itself.

The life of a worker: it starts and serves. It is due when it reaches its request limit or when the profile is
reloaded, and continues to serve. When its successor serves, it is retired, and ends. There is never more than one
process in addition to the configured number of workers: a successor, or a worker that finishes its last requests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from .log import log

# How long a retired worker keeps connections open that wait for their (next) request, in seconds. At a handover,
# another worker already serves, so this delays nobody.
GRACE_AT_HANDOVER = 5.0
GRACE_AT_STOP = 1.0
# How long a retired worker may take to finish its requests, in seconds. At a stop: less than the unit's
# TimeoutStopSec=.
PATIENCE_AT_HANDOVER = 300.0
PATIENCE_AT_STOP = 30.0
# How long a worker may take to start, in seconds: enough for PyPNM on an extremely slow machine.
PATIENCE_AT_START = 300.0
# The number of workers in the guide's largest profile: up to this number, workers are started without checking memory,
# and no more are started at once.
LARGEST_PROFILE = 8
# How long a reload waits for workers with the old profile to end, in seconds.
RELOAD_PATIENCE = 10.0
# The number of consecutive failed starts, while no worker serves, after which the service gives up.
ATTEMPTS = 3
# The delay after a failed start, in seconds; it doubles each time, up to a minute.
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# uvicorn's exit status if it could not start.
STARTUP_FAILURE = 3


@dataclass(frozen=True)
class Profile:
    """The number of workers, and the number of requests after which each is recycled (0: never)."""

    workers: int
    limit: int


def count_of(workers: int) -> str:
    """A number of workers, with the noun."""
    return f"{workers} worker{'' if workers == 1 else 's'}"


class Handle(Protocol):
    """A worker's process."""

    pid: int

    def retire(self, grace: float) -> None:
        """Lets it finish: no new connections, and `grace` seconds for those that wait for a request."""

    def kill(self) -> None:
        """Kills it."""


class State(Enum):
    """The state of a worker."""

    STARTING = auto()
    SERVING = auto()
    RETIRED = auto()


@dataclass(eq=False)
class Worker:
    """A worker process and its state."""

    handle: Handle
    # The reload that its profile is from.
    generation: int
    predecessor: Worker | None = None
    state: State = State.STARTING
    # Whether it has reached its request limit.
    is_spent: bool = False
    # When to kill it if it is still starting or finishing, on the supervisor's clock.
    deadline: float = field(default=float("inf"))


class Supervisor:
    """The workers of one service. The caller reports events and calls decide() after each."""

    def __init__(
        self,
        profile: Profile,
        start: Callable[[int], Handle],
        obstacle: Callable[[Iterable[int]], str | None] = lambda serving: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`start(limit)` starts a worker; `obstacle(pids)` returns why one more worker has no memory."""
        self.profile = profile
        self.workers: list[Worker] = []
        # The exit status, once it is known.
        self.status: int | None = None
        self._start_process, self._obstacle, self._clock = start, obstacle, clock
        self._generation = 0
        self.is_stopping = False
        self._status_at_end = 0
        self._failures = 0
        self._not_before = 0.0
        self._is_short_of_memory = False

    # Events

    def is_up(self, worker: Worker) -> None:
        """The worker accepts connections."""
        self._failures, self._not_before = 0, 0.0
        if worker.state is not State.STARTING:
            return
        worker.state, worker.deadline = State.SERVING, float("inf")
        predecessor, worker.predecessor = worker.predecessor, None
        if predecessor is not None:
            self._retire(predecessor, GRACE_AT_HANDOVER, PATIENCE_AT_HANDOVER)

    def is_spent(self, worker: Worker) -> None:
        """The worker has reached its request limit."""
        worker.is_spent = True

    def has_ended(self, worker: Worker, how: str) -> None:
        """The worker's process has ended."""
        self.workers.remove(worker)
        for other in self.workers:
            if other.predecessor is worker:
                other.predecessor = None
        if worker.state is State.RETIRED or self.is_stopping:
            return
        if worker.state is State.SERVING:
            log(f"worker {worker.handle.pid} ended unexpectedly ({how})")
            return
        self._has_failed()
        log(f"worker {worker.handle.pid} failed to start ({how})")

    def renew(self, profile: Profile) -> None:
        """Replaces all workers with workers of this profile, one at a time."""
        recycling = f"recycled after {profile.limit} requests" if profile.limit else "not recycled"
        log(f"replacing all workers: {count_of(profile.workers)}, {recycling}")
        self.profile = profile
        self._generation += 1
        # Earlier failures say nothing about the new profile.
        self._failures, self._not_before = 0, 0.0

    def stop(self) -> None:
        """Retires all workers, and ends when the last one has ended."""
        self.is_stopping = True
        for worker in self.workers:
            self._retire(worker, GRACE_AT_STOP, PATIENCE_AT_STOP)

    def kill(self) -> None:
        """Kills all workers, and ends."""
        self.is_stopping = True
        for worker in self.workers:
            worker.handle.kill()

    # Decisions

    @property
    def serving(self) -> int:
        """The number of workers that serve, not including those that are finishing."""
        return len(self._in(State.SERVING))

    @property
    def is_handing_over(self) -> bool:
        """Whether a successor is starting."""
        return any(worker.predecessor for worker in self._in(State.STARTING))

    @property
    def is_renewing(self) -> bool:
        """Whether any worker still has an older profile, or the number of workers is not the configured one.

        After RELOAD_PATIENCE, a worker that is still busy with its last requests does not count.
        """
        serving = self._in(State.SERVING)
        older = [worker for worker in self.workers if worker.generation != self._generation]
        is_short = len(serving) != self.profile.workers and not self._is_full()
        return is_short or any(self._clock() < self._counts_until(w) for w in older)

    @property
    def keeps_failing(self) -> bool:
        """Whether the number of failed starts has reached the maximum."""
        return self._failures >= ATTEMPTS

    def decide(self) -> None:
        """Starts and retires workers as needed."""
        now = self._clock()
        for worker in self.workers:
            if now >= worker.deadline:
                task = "start" if worker.state is State.STARTING else "finish its requests"
                log(f"worker {worker.handle.pid} did not {task} in time, killing it")
                worker.handle.kill()
                worker.deadline = float("inf")
        if self.is_stopping:
            self.status = None if self.workers else self._status_at_end
            return
        serving, starting = self._in(State.SERVING), self._in(State.STARTING)
        if self.keeps_failing and not serving and not starting:
            log(f"{self._failures} workers failed to start, giving up")
            self._status_at_end = STARTUP_FAILURE
            self.stop()
            self.status = None if self.workers else self._status_at_end
            return
        self._retire_surplus(serving, starting)
        if now >= self._not_before:
            self._fill()

    def next_decision(self) -> float | None:
        """The number of seconds until decide() is due even if no event occurs; None: never."""
        now = self._clock()
        retired = self._in(State.RETIRED)
        times = [worker.deadline for worker in self.workers]
        times += [until for until in map(self._counts_until, retired) if until > now]
        if self._not_before > now and not self.is_stopping:
            times.append(self._not_before)
        times = [time for time in times if time != float("inf")]
        # Nothing reports when memory becomes free.
        if self._is_short_of_memory:
            times.append(now + 1.0)
        return max(0.0, min(times) - now) if times else None

    def _retire_surplus(self, serving: list[Worker], starting: list[Worker]) -> None:
        """Retires workers if there are too many: first those that do not serve yet, then those that are due."""
        additional = [worker for worker in starting if worker.predecessor is None]
        surplus = len(serving) + len(additional) - self.profile.workers
        for worker in [*additional, *sorted(serving, key=self._is_due, reverse=True)][: max(surplus, 0)]:
            for successor in starting:
                if successor.predecessor is worker:
                    self._retire(successor, GRACE_AT_STOP, PATIENCE_AT_STOP)
            self._retire(worker, GRACE_AT_HANDOVER, PATIENCE_AT_HANDOVER)

    def _fill(self) -> None:
        """Starts missing workers, or a successor of a worker that is due."""
        serving, starting = self._in(State.SERVING), self._in(State.STARTING)
        # The first one on its own: it responds sooner, and if it fails, the others would fail too.
        if starting and (not serving or any(worker.predecessor for worker in starting)):
            return
        missing = self.profile.workers - len(serving) - len(starting)
        if not serving:
            missing = min(missing, 1)
        for _ in range(min(missing, LARGEST_PROFILE)):
            if not self._has_place():
                break
            self._start(None)
            if self._not_before > self._clock():
                return
        due = [worker for worker in serving if self._is_due(worker)]
        if (missing > 0 and not self._is_full()) or not due or len(self.workers) > self.profile.workers:
            return
        if self._has_memory():
            self._start(due[0])
        else:
            # A short pause is better than an out-of-memory kill: connections wait in the socket's queue for the next
            # worker.
            self._retire(due[0], GRACE_AT_STOP, PATIENCE_AT_HANDOVER)

    def _counts_until(self, worker: Worker) -> float:
        """When a worker of an older profile no longer prevents a reload from being complete."""
        if worker.state is not State.RETIRED:
            return float("inf")
        return worker.deadline - PATIENCE_AT_HANDOVER + RELOAD_PATIENCE

    def _in(self, state: State) -> list[Worker]:
        return [worker for worker in self.workers if worker.state is state]

    def _is_due(self, worker: Worker) -> bool:
        return worker.is_spent or worker.generation != self._generation

    def _has_place(self) -> bool:
        """Whether to start one more process: a missing worker, or a successor if there is enough memory.

        Above the guide's largest profile, workers start one at a time, as long as there is enough memory.
        """
        number = len(self.workers)
        if LARGEST_PROFILE <= number < self.profile.workers:
            return not self._in(State.STARTING) and self._has_memory()
        return number < self.profile.workers or (number == self.profile.workers and self._has_memory())

    def _has_memory(self) -> bool:
        why = self._obstacle([w.handle.pid for w in self.workers if w.state is not State.STARTING])
        if why and not self._is_short_of_memory:
            log(f"not enough memory to start a successor first, so a worker is replaced after it has ended: {why}")
        self._is_short_of_memory = bool(why)
        return not why

    def _start(self, predecessor: Worker | None) -> None:
        limit = self.profile.limit
        if self.profile.workers > 1:
            # Otherwise, workers that share the load would all be due at the same time.
            limit -= random.randint(0, limit // 10)
        self._is_short_of_memory = False
        try:
            handle = self._start_process(limit)
        except OSError as error:
            # No process, no descriptor or no memory available.
            self._has_failed()
            log(f"a worker cannot be started: {error.strerror or error}")
            return
        worker = Worker(handle, self._generation, predecessor)
        worker.deadline = self._clock() + PATIENCE_AT_START
        self.workers.append(worker)

    def _has_failed(self) -> None:
        """Delays the next start after a failure."""
        self._failures += 1
        pause = min(SHORTEST_PAUSE * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE)
        self._not_before = self._clock() + pause

    def _is_full(self) -> bool:
        """Whether more workers are configured than there is memory for."""
        return self._is_short_of_memory and len(self._in(State.SERVING)) >= LARGEST_PROFILE

    def _retire(self, worker: Worker, grace: float, patience: float) -> None:
        deadline = self._clock() + patience
        if worker.state is State.RETIRED:
            # Never later than before.
            deadline = min(deadline, worker.deadline)
        worker.state, worker.deadline = State.RETIRED, deadline
        worker.handle.retire(grace)
