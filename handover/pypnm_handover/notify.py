"""The service manager's side of the protocol: sd_notify(3) and its descriptor store, without libsystemd.

Knows datagrams, not what they are for.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterable, MutableMapping, Sequence

# How long a message may wait for room in the manager's queue, in seconds.
SEND_TIMEOUT = 2.0


class Manager:
    """The socket that $NOTIFY_SOCKET names; without one every message is dropped.

    systemd sets the variable where NotifyAccess= permits messages, and takes them from the main process only.
    """

    def __init__(self, address: str | None) -> None:
        # A path, or an abstract name with @ for NUL; vsock: is a virtual machine's, and passes no descriptors.
        self._address = address if address and address[0] in "/@" else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Manager:
        """Takes the variable out of the environment: workers and their children are not to use it."""
        return cls(environment.pop("NOTIFY_SOCKET", None))

    def send(self, *assignments: str, descriptors: Sequence[int] = ()) -> bool:
        """Sends one message; whether it was sent. What became of it systemd does not say."""
        if self._address is None:
            return False
        path = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager that reads nothing any more must not hold up the service.
                sender.settimeout(SEND_TIMEOUT)
                sender.connect(path)
                sender.sendmsg(["\n".join(assignments).encode()], rights)
        except OSError:
            return False
        return True

    def store(self, name: str, descriptor: int) -> bool:
        """Has the manager keep a descriptor and hand it to the next main process."""
        # Polled, a listening socket would be thrown out of the store on its first error.
        return self.send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=[descriptor])

    def remove(self, names: Iterable[str]) -> None:
        """Has the manager close what it keeps under these names, and waits until it has."""
        sent = [self.send("FDSTOREREMOVE=1", f"FDNAME={name}") for name in names]
        if any(sent):
            self.barrier()

    def barrier(self, timeout: float = 5.0) -> bool:
        """Waits until the manager has read all messages sent before; whether it has."""
        reading, writing = os.pipe()
        try:
            try:
                sent = self.send("BARRIER=1", descriptors=[writing])
            finally:
                os.close(writing)
            # The manager closes its copy of the writing end.
            return sent and bool(select.select([reading], [], [], timeout)[0])
        finally:
            os.close(reading)
