"""Checks for the features of uvicorn that the launcher depends on, and for the way PyPNM calls it. Checks what is
present rather than version numbers."""

from __future__ import annotations

import inspect
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any

# Methods that worker.Server overrides, with the arguments it passes to each.
COROUTINES = {"startup": ("sockets",), "shutdown": ("sockets",), "on_tick": ("counter",), "main_loop": ()}
# Attributes of a server, and of its state, that worker.Server reads.
ATTRIBUTES = ("config", "started", "force_exit", "server_state", "handle_exit", "run")
STATE = {"total_requests": int, "connections": set, "default_headers": list}


def obstacle(uvicorn: ModuleType, app: object, arguments: dict[str, Any]) -> str | None:
    """Why workers cannot be handed over; None: they can."""
    if arguments.get("reload"):
        return "--reload restarts the service itself"
    if not isinstance(app, str):
        return "the application is not given as an import string"
    try:
        known = inspect.signature(uvicorn.Config).parameters
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            return f"uvicorn.Config does not know {', '.join(unknown)}"
        config = uvicorn.Config(app, **arguments)
        missing = [name for name in ("workers", "backlog", "configure_logging") if not hasattr(config, name)]
        if missing:
            return f"uvicorn.Config has no {', '.join(missing)}"
        return _server_obstacle(uvicorn.Server, config)
    except Exception as error:  # whatever another version raises, or this one for what it is given
        return f"uvicorn is not as expected: {error}"


def _server_obstacle(server_class: type, config: object) -> str | None:
    for name, wanted in COROUTINES.items():
        method = getattr(server_class, name, None)
        if not inspect.iscoroutinefunction(method):
            return f"uvicorn.Server has no coroutine {name}()"
        if not set(wanted) <= set(inspect.signature(method).parameters):
            return f"uvicorn.Server.{name}() does not take {', '.join(wanted)}"
    server = server_class(config)
    for name in ATTRIBUTES:
        if not hasattr(server, name):
            return f"uvicorn.Server has no {name}"
    for name, kind in STATE.items():
        if not isinstance(getattr(server.server_state, name, None), kind):
            return f"uvicorn's server state has no {kind.__name__} {name}"
    try:
        ForkingPickler.dumps(config)
    except Exception as error:  # whatever an object's own pickling raises
        return f"uvicorn.Config cannot be passed to a worker: {error}"
    return None
