"""Simulates systemd's side of sd_notify(3): stores descriptors, closes barriers, and records messages."""

import array
import os
import socket
import threading


class FakeManager:
    """Listens on `address` (a path, or @NAME) until the end of the block."""

    def __init__(self, address):
        self.address = address
        self.messages = []
        self.store = {}
        self._condition = threading.Condition()

    def __enter__(self):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:] if self.address[0] == "@" else self.address)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
        for descriptor in self.store.values():
            os.close(descriptor)

    def _serve(self):
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(64))
            if not data:
                return
            descriptors = array.array("i")
            for _, _, passed in ancillary:
                descriptors.frombytes(passed[: len(passed) - len(passed) % descriptors.itemsize])
            with self._condition:
                self._take(data.decode().splitlines(), list(descriptors))
                self._condition.notify_all()

    def _take(self, lines, descriptors):
        fields = dict(line.split("=", 1) for line in lines)
        name = fields.get("FDNAME", "stored")
        if "FDSTORE" in fields:
            for descriptor in descriptors:
                if name in self.store:
                    os.close(self.store[name])
                self.store[name] = descriptor
        elif "FDSTOREREMOVE" in fields:
            os.close(self.store.pop(name))
        else:
            for descriptor in descriptors:
                os.close(descriptor)
        self.messages.append(fields)

    def wait(self, test, timeout=20):
        """Waits until `test(messages)` is true."""
        with self._condition:
            if not self._condition.wait_for(lambda: test(self.messages), timeout):
                raise AssertionError(f"no such message in {timeout} s: {self.messages}")
