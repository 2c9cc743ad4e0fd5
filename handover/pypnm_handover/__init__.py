"""`pypnm serve` without a lost request: on restarts, when a worker is recycled, and when the number of workers changes.

PyPNM decides everything as it does without this package: flags, TLS, muted tags, profile. Only `uvicorn.run`, which
PyPNM calls in the end, is replaced. See pypnm-sizing-handover(7).

    __main__      finds PyPNM's entry point, replaces uvicorn.run, falls back to plain PyPNM
    launch        the replacement: checks, sockets, supervision, reload
    fit           what is needed of uvicorn, and whether it is there
    notify        the service manager: notifications, the descriptor store
    listeners     listening sockets: kept, bound, released
    supervisor    which worker starts and which one ends, and when; starts no process itself
    processes     workers as processes, signals, the parent's loop
    worker        uvicorn's server in a worker: up, due, drained
    memory        whether there is memory for one more worker

Runs in PyPNM's environment, Python 3.10 or later; standard library and uvicorn only.
"""
