"""The protocol of the service manager: sd_notify(3) and the file descriptor store, without libsystemd.

Sends messages, but does not decide when.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Iterable, MutableMapping, Sequence

# The timeout for sending a message when the manager's queue is full, in seconds.
SEND_TIMEOUT = 2.0


class Manager:
    """The socket named by $NOTIFY_SOCKET; without it, all messages are dropped.

    systemd sets the variable where NotifyAccess= permits messages, and takes them from the main process only.
    """

    def __init__(self, address: str | None) -> None:
        # A path, or an abstract name with @ for NUL. A vsock: address is that of a virtual machine and passes no
        # descriptors.
        self._address = address if address and address[0] in "/@" else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Manager:
        """Removes the variable from the environment, because workers and their children must not use it."""
        return cls(environment.pop("NOTIFY_SOCKET", None))

    def send(self, *assignments: str, descriptors: Sequence[int] = ()) -> bool:
        """Sends a message, and returns whether it was sent. systemd does not report whether it was processed."""
        if self._address is None:
            return False
        path = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # A manager that hangs must not block the service.
                sender.settimeout(SEND_TIMEOUT)
                sender.connect(path)
                sender.sendmsg(["\n".join(assignments).encode()], rights)
        except OSError:
            return False
        return True

    def store(self, name: str, descriptor: int) -> bool:
        """Stores a descriptor in the manager, which passes it to the next main process."""
        # If it were polled, the store would drop a listening socket on its first error.
        return self.send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=[descriptor])

    def remove(self, names: Iterable[str]) -> None:
        """Removes the descriptors with these names from the store, and waits until they are closed."""
        sent = [self.send("FDSTOREREMOVE=1", f"FDNAME={name}") for name in names]
        if any(sent):
            self.barrier()

    def barrier(self, timeout: float = 5.0) -> bool:
        """Waits until the manager has read all previous messages, and returns whether it has."""
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
