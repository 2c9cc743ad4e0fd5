"""Runs `pypnm serve` without losing requests on restarts, recycling, and changes of the number of workers.

PyPNM makes the same decisions as without this package: options, TLS, muted tags, profile. Only its final call, of
`uvicorn.run`, is replaced. See pypnm-sizing-handover(7).

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
