"""Which worker starts, which one ends, and when. Owns the decisions; starts, signals and waits for nothing itself.

A worker's life: it starts, it serves, it is due (its limit of requests is reached, or the profile was read anew) and
serves on, it is retired when its successor serves, it ends. There is never more than one process beyond the number
of workers that is wanted: one successor, or one worker that finishes its last requests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from .say import say

# How long a connection may wait for its (next) request once its worker is retired, in seconds. At a hand-over another
# worker serves already, so nobody waits for this one.
GRACE_AT_HANDOVER = 5.0
GRACE_AT_STOP = 1.0
# How long a retired worker may work on requests in hand. At a stop: less than the unit's TimeoutStopSec=.
PATIENCE_AT_HANDOVER = 300.0
PATIENCE_AT_STOP = 30.0
# How long a worker may take to start: as long as PyPNM does on a machine that is slow beyond all measure.
PATIENCE_AT_START = 300.0
# Workers of the guide's largest profile: no more than these are started at a time, and without regard to memory.
LARGEST_PROFILE = 8
# How long a reload waits for workers of the older profile to end, in seconds.
RELOAD_PATIENCE = 10.0
# Starts that may fail, one after the other, before the service is given up, where no worker serves.
ATTEMPTS = 3
# The pause after a failed start: doubled each time, up to a minute.
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# uvicorn's status when it could not start.
STARTUP_FAILURE = 3


@dataclass(frozen=True)
class Profile:
    """How many workers, and after how many requests each is recycled (0: never)."""

    workers: int
    limit: int


class Handle(Protocol):
    """A worker's process."""

    pid: int

    def retire(self, grace: float) -> None:
        """Has it finish: no new connections, `grace` seconds for those that wait for a request."""

    def kill(self) -> None:
        """Ends it at once."""


class State(Enum):
    """What a worker is doing."""

    STARTING = auto()
    SERVING = auto()
    RETIRED = auto()


@dataclass(eq=False)
class Worker:
    """A worker process and what is known of it."""

    handle: Handle
    # Of which reading of the profile.
    generation: int
    predecessor: Worker | None = None
    state: State = State.STARTING
    # It has reached its limit of requests.
    is_spent: bool = False
    # When one that starts or is retired is killed, on the supervisor's clock.
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
        """`start(limit)` starts a worker; `obstacle(pids)` says why there is no memory for one more."""
        self.profile = profile
        self.workers: list[Worker] = []
        # The exit status, once there is one.
        self.status: int | None = None
        self._start_process, self._obstacle, self._clock = start, obstacle, clock
        self._generation = 0
        self.is_stopping = False
        self._status_at_end = 0
        self._failures = 0
        self._not_before = 0.0
        self._said_obstacle = False

    # Events

    def is_up(self, worker: Worker) -> None:
        """The worker takes connections."""
        self._failures, self._not_before = 0, 0.0
        if worker.state is not State.STARTING:
            return
        worker.state, worker.deadline = State.SERVING, float("inf")
        predecessor, worker.predecessor = worker.predecessor, None
        if predecessor is not None:
            self._retire(predecessor, GRACE_AT_HANDOVER, PATIENCE_AT_HANDOVER)

    def is_spent(self, worker: Worker) -> None:
        """The worker has reached its limit of requests."""
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
            say(f"worker {worker.handle.pid} has ended ({how})")
            return
        self._has_failed()
        say(f"worker {worker.handle.pid} has ended at its start ({how})")

    def renew(self, profile: Profile) -> None:
        """Replaces all workers, one by one, by workers of this profile."""
        say(f"renewing all workers: {profile.workers} of them, recycled after {profile.limit} requests")
        self.profile = profile
        self._generation += 1
        # Starts that failed before say nothing of this one.
        self._failures, self._not_before = 0, 0.0

    def stop(self) -> None:
        """Retires all workers, and ends when the last has ended."""
        self.is_stopping = True
        for worker in self.workers:
            self._retire(worker, GRACE_AT_STOP, PATIENCE_AT_STOP)

    def kill(self) -> None:
        """Ends at once."""
        self.is_stopping = True
        for worker in self.workers:
            worker.handle.kill()

    # Decisions

    @property
    def serving(self) -> int:
        """How many workers serve, those that are finishing excepted."""
        return len(self._in(State.SERVING))

    @property
    def is_handing_over(self) -> bool:
        """Whether a successor is starting."""
        return any(worker.predecessor for worker in self._in(State.STARTING))

    @property
    def is_renewing(self) -> bool:
        """Whether workers of an older profile are left, or some of the present one are missing.

        One that is still busy with its last requests after RELOAD_PATIENCE does not count.
        """
        serving = self._in(State.SERVING)
        older = [worker for worker in self.workers if worker.generation != self._generation]
        is_short = len(serving) != self.profile.workers and not self._is_full()
        return is_short or any(self._clock() < self._counts_until(w) for w in older)

    @property
    def keeps_failing(self) -> bool:
        """Whether as many new workers have died at startup as are tolerated."""
        return self._failures >= ATTEMPTS

    def decide(self) -> None:
        """Starts and retires what is to be started and retired now."""
        now = self._clock()
        for worker in self.workers:
            if now >= worker.deadline:
                failed = "started" if worker.state is State.STARTING else "finished its requests"
                say(f"worker {worker.handle.pid} has not {failed} in time, killing it")
                worker.handle.kill()
                worker.deadline = float("inf")
        if self.is_stopping:
            self.status = None if self.workers else self._status_at_end
            return
        serving, starting = self._in(State.SERVING), self._in(State.STARTING)
        if self.keeps_failing and not serving and not starting:
            say(f"{self._failures} workers have died at startup, giving up")
            self._status_at_end = STARTUP_FAILURE
            self.stop()
            self.status = None if self.workers else self._status_at_end
            return
        self._retire_surplus(serving, starting)
        if now >= self._not_before:
            self._fill()

    def next_decision(self) -> float | None:
        """In how many seconds decide() is due even if nothing happens; None: not at all."""
        now = self._clock()
        retired = self._in(State.RETIRED)
        times = [worker.deadline for worker in self.workers]
        times += [until for until in map(self._counts_until, retired) if until > now]
        if self._not_before > now and not self.is_stopping:
            times.append(self._not_before)
        times = [time for time in times if time != float("inf")]
        # Memory may become free without a word.
        if self._said_obstacle:
            times.append(now + 1.0)
        return max(0.0, min(times) - now) if times else None

    def _retire_surplus(self, serving: list[Worker], starting: list[Worker]) -> None:
        """Where fewer workers are wanted: those go first that serve nobody yet, then those that would be renewed."""
        additional = [worker for worker in starting if worker.predecessor is None]
        surplus = len(serving) + len(additional) - self.profile.workers
        for worker in [*additional, *sorted(serving, key=self._is_due, reverse=True)][: max(surplus, 0)]:
            for successor in starting:
                if successor.predecessor is worker:
                    self._retire(successor, GRACE_AT_STOP, PATIENCE_AT_STOP)
            self._retire(worker, GRACE_AT_HANDOVER, PATIENCE_AT_HANDOVER)

    def _fill(self) -> None:
        """Starts workers that are missing, else a successor of one that is due."""
        serving, starting = self._in(State.SERVING), self._in(State.STARTING)
        # The first alone: it answers sooner, and where it dies, so would the others.
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
            # Rather a pause than a kill: connections wait in the socket's queue until the next worker serves.
            self._retire(due[0], GRACE_AT_STOP, PATIENCE_AT_HANDOVER)

    def _counts_until(self, worker: Worker) -> float:
        """When a worker of an older profile no longer keeps a reload from being complete."""
        if worker.state is not State.RETIRED:
            return float("inf")
        return worker.deadline - PATIENCE_AT_HANDOVER + RELOAD_PATIENCE

    def _in(self, state: State) -> list[Worker]:
        return [worker for worker in self.workers if worker.state is state]

    def _is_due(self, worker: Worker) -> bool:
        return worker.is_spent or worker.generation != self._generation

    def _has_place(self) -> bool:
        """Whether one more process is within the number wanted, or is the one beyond and there is memory for it.

        Of a number beyond every profile of the guide one worker starts after the other, as long as there is memory.
        """
        number = len(self.workers)
        if LARGEST_PROFILE <= number < self.profile.workers:
            return not self._in(State.STARTING) and self._has_memory()
        return number < self.profile.workers or (number == self.profile.workers and self._has_memory())

    def _has_memory(self) -> bool:
        why = self._obstacle([w.handle.pid for w in self.workers if w.state is not State.STARTING])
        if why and not self._said_obstacle:
            say(f"no memory for a worker beside those that serve, replacing one after it has ended: {why}")
        self._said_obstacle = bool(why)
        return not why

    def _start(self, predecessor: Worker | None) -> None:
        limit = self.profile.limit
        if self.profile.workers > 1:
            # Workers that share the load would all be due at once.
            limit -= random.randint(0, limit // 10)
        self._said_obstacle = False
        try:
            handle = self._start_process(limit)
        except OSError as error:
            # No process, no descriptor or no memory left for one.
            self._has_failed()
            say(f"a worker cannot be started: {error.strerror or error}")
            return
        worker = Worker(handle, self._generation, predecessor)
        worker.deadline = self._clock() + PATIENCE_AT_START
        self.workers.append(worker)

    def _has_failed(self) -> None:
        """A start has failed: the next one waits."""
        self._failures += 1
        pause = min(SHORTEST_PAUSE * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE)
        self._not_before = self._clock() + pause

    def _is_full(self) -> bool:
        """Whether more workers are wanted than there is memory for."""
        return self._said_obstacle and len(self._in(State.SERVING)) >= LARGEST_PROFILE

    def _retire(self, worker: Worker, grace: float, patience: float) -> None:
        deadline = self._clock() + patience
        if worker.state is State.RETIRED:
            # Not later than it was.
            deadline = min(deadline, worker.deadline)
        worker.state, worker.deadline = State.RETIRED, deadline
        worker.handle.retire(grace)
