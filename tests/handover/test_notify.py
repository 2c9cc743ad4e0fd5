"""Tests of notify: the protocol of sd_notify(3), with a simulated systemd."""

import os
import socket
import tempfile
import time
import unittest

from manager import FakeManager
from pypnm_handover.notify import Manager


class Notify(unittest.TestCase):
    def addresses(self):
        with tempfile.TemporaryDirectory() as directory:
            yield f"{directory}/notify"
        yield f"@pypnm-handover-test-{os.getpid()}"

    def test_messages_and_descriptors_arrive_by_path_and_by_abstract_name(self):
        for address in self.addresses():
            with FakeManager(address) as systemd, socket.create_server(("127.0.0.1", 0)) as listener:
                manager = Manager(address)
                self.assertTrue(manager.send("READY=1", "STATUS=2 of 2"))
                self.assertTrue(manager.store("pypnm-a", listener.fileno()))
                self.assertTrue(manager.barrier())
                self.assertEqual(systemd.messages[0], {"READY": "1", "STATUS": "2 of 2"})
                self.assertEqual(systemd.messages[1], {"FDSTORE": "1", "FDNAME": "pypnm-a", "FDPOLL": "0"})
                with socket.socket(fileno=os.dup(systemd.store["pypnm-a"])) as kept:
                    self.assertEqual(kept.getsockname(), listener.getsockname())
                manager.remove(["pypnm-a"])
                # remove() has waited for the manager.
                self.assertEqual(systemd.store, {})

    def test_without_a_manager_nothing_is_sent(self):
        for address in (None, "", "vsock:2:1234", "/nonexistent/notify"):
            manager = Manager(address)
            self.assertFalse(manager.send("READY=1"), address)
            self.assertFalse(manager.barrier(), address)

    def test_the_variable_is_not_passed_on(self):
        environment = {"NOTIFY_SOCKET": "@x", "HOME": "/"}
        Manager.from_environment(environment)
        self.assertEqual(environment, {"HOME": "/"})

    def test_a_manager_that_does_not_read_is_not_waited_for_endlessly(self):
        address = f"@pypnm-handover-silent-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as silent:
            silent.bind("\0" + address[1:])
            started = time.monotonic()
            self.assertFalse(Manager(address).barrier(timeout=0.2))
            self.assertLess(time.monotonic() - started, 5)
            # Its queue is full.
            manager = Manager(address)
            for _ in range(10000):
                if not manager.send("STATUS=x"):
                    break
            self.assertFalse(manager.send("STATUS=x"))
