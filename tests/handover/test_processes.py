"""Tests of processes: workers that cannot be started, and signals."""

import contextlib
import os
import signal
import socket
import unittest
from unittest import mock

from pypnm_handover import processes
from pypnm_handover.processes import Signals, Stopped


def target(connection):
    """Never called."""


class Start(unittest.TestCase):
    def test_a_failed_start_leaks_no_descriptor(self):
        failure = mock.patch("multiprocessing.util.spawnv_passfds", side_effect=BlockingIOError(11, "Resource temporarily unavailable"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            counts = []
            for _ in range(5):
                # The resource tracker is started like a worker.
                with failure, self.assertRaises(BlockingIOError):
                    processes.spawn(target, [listener])
                counts.append(len(os.listdir("/proc/self/fd")))
        self.assertEqual(len(set(counts)), 1, counts)


class SignalsOfTheParent(unittest.TestCase):
    def setUp(self):
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        for number, handler in [(number, signal.getsignal(number)) for number in numbers]:
            self.addCleanup(signal.signal, number, handler)
        self.addCleanup(signal.set_wakeup_fd, signal.set_wakeup_fd(-1))
        self.signals = Signals()
        self.signals.install()

    def send(self, *numbers):
        for number in numbers:
            signal.raise_signal(number)

    def test_each_signal_is_taken_once_and_in_order(self):
        self.send(signal.SIGHUP, signal.SIGTERM, signal.SIGHUP)
        self.assertEqual(self.signals.take(), [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP])
        self.assertEqual(self.signals.take(), [])

    def test_a_stop_interrupts_and_is_not_lost(self):
        with self.assertRaises(Stopped), self.signals.interrupting():
            self.send(signal.SIGHUP)
            with contextlib.suppress(Exception):
                self.send(signal.SIGTERM)
            self.fail("not interrupted")
        self.send(signal.SIGTERM)
        with self.assertRaises(Stopped), self.signals.interrupting():
            self.fail("not interrupted")
        self.assertEqual(self.signals.take(), [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM])
