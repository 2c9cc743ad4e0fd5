"""uvicorn's server in a worker process: reports its state, and finishes its requests before it ends.

The parent (supervisor, processes) decides when it ends. Messages: the worker sends UP and SPENT, and the parent
sends the number of seconds of grace to end with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import uvicorn

from .processes import SPENT, UP
from .supervisor import GRACE_AT_HANDOVER, GRACE_AT_STOP

CLOSE = (b"connection", b"close")
# The interval at which connections are checked while the server drains, in seconds.
TICK = 0.02


class Server(uvicorn.Server):
    """A server that can be retired at any time, even while it starts."""

    def __init__(self, config: uvicorn.Config, parent: Connection, limit: int) -> None:
        super().__init__(config)
        self._parent, self._limit = parent, limit
        self._is_spent = False
        # Reentrant, because a signal handler may run while this thread holds it.
        self._lock = threading.RLock()
        self._has_begun = False
        self._grace: float | None = None

    def retire(self, grace: float) -> None:
        """Ends the server: no new connections, and `grace` seconds for those that wait for a request."""
        with self._lock:
            if not self._has_begun:
                # No connection has been accepted yet, and the application may still be importing modules.
                os._exit(0)
            self._grace = grace if self._grace is None else min(grace, self._grace)

    def obey(self) -> None:
        """Receives the parent's messages in a separate thread. If the parent is gone, the worker ends."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                self.retire(self._parent.recv())
        self.retire(GRACE_AT_STOP)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles SIGTERM and SIGINT from a unit with KillMode=control-group or from a terminal, which the parent
        gets too."""
        self.retire(GRACE_AT_STOP)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        with self._lock:
            self._has_begun = True
        await super().startup(sockets=sockets)
        if self.started:
            self._tell(UP)

    async def on_tick(self, counter: int) -> bool:
        # should_exit is not used: if it is set during startup, uvicorn drops the connections that it has accepted.
        is_over = await super().on_tick(counter)
        if self._limit and not self._is_spent and self.server_state.total_requests >= self._limit:
            self._is_spent = True
            self._tell(SPENT)
        return is_over or self._grace is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in getattr(self, "servers", []):
            server.close()
        for listener in sockets or []:
            listener.close()
        started = time.monotonic()
        while self.server_state.connections and not self.force_exit:
            # The last response on a connection announces its end, so that the client opens another one.
            self._announce_close()
            waited = time.monotonic() - started
            if waited >= (self._grace or 0.0) and (waited >= GRACE_AT_HANDOVER or self._is_idle()):
                break
            await asyncio.sleep(TICK)
        await super().shutdown(sockets=sockets)

    def _is_idle(self) -> bool:
        """Whether all connections are idle, waiting for their next request with the keep-alive timer running.

        uvicorn's own shutdown would also close connections in the middle of a request's headers.
        """
        return all(getattr(connection, "timeout_keep_alive_task", None) is not None for connection in self.server_state.connections)

    def _announce_close(self) -> None:
        """Adds the header to future responses. A request in progress keeps the list that was current when it began."""
        lists = [self.server_state.default_headers]
        for connection in self.server_state.connections:
            headers = getattr(getattr(connection, "cycle", None), "default_headers", None)
            if isinstance(headers, list):
                lists.append(headers)
        for headers in lists:
            if CLOSE not in headers:
                headers.append(CLOSE)

    def _tell(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self._parent.send(word)


def work(config: Any, sockets: list[socket.socket], limit: int, parent: Connection) -> None:
    """Runs a worker process from start to end."""
    # The parent handles reloads.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Otherwise, programs that PyPNM starts would keep the pipes and sockets open that multiprocessing has passed.
    with contextlib.suppress(OSError):
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            # Not the descriptor of the listing itself, which is closed by now.
            if descriptor > 2 and os.path.exists(f"/proc/self/fd/{descriptor}"):
                os.set_inheritable(descriptor, False)
    status = 1
    try:
        config.configure_logging()
        server = Server(config, parent, limit)
        threading.Thread(target=server.obey, name="orders", daemon=True).start()
        server.run(sockets=sockets)
        status = 0 if server.started else 1
    except SystemExit as error:
        # uvicorn exits this way if the application cannot be loaded; it has logged the reason.
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        # Like uvicorn's own worker, which is killed by a signal: threads of a library might never end.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
