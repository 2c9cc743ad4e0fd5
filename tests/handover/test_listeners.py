"""Tests of listeners: sockets that are kept, bound and closed."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from pypnm_handover import listeners
from pypnm_handover.listeners import Address, Inherited


class Recorder:
    """The messages that would be sent to systemd."""

    def __init__(self):
        self.stored, self.removed = [], []

    def store(self, name, descriptor):
        self.stored.append(name)

    def remove(self, names):
        self.removed.extend(sorted(names))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Listeners(unittest.TestCase):
    def setUp(self):
        self.manager = Recorder()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def listen(self, wanted, passed=()):
        found = listeners.listen(wanted, 16, list(passed), self.manager)
        for listener in found:
            self.stack.callback(listener.close)
        return found

    def kept(self, address):
        listener = self.stack.enter_context(contextlib.closing(address.bind(16)))
        return Inherited(address.name, listener)

    def test_a_new_socket_listens_and_is_stored(self):
        port = free_port()
        (listener,) = self.listen(listeners.addresses("127.0.0.1", port))
        socket.create_connection(("127.0.0.1", port)).close()
        self.assertEqual(listener.getsockname(), ("127.0.0.1", port))
        self.assertEqual((self.manager.stored, self.manager.removed), ([f"pypnm-127.0.0.1-{port}"], []))

    def test_the_kept_socket_of_the_same_address_is_used(self):
        (address,) = listeners.addresses("127.0.0.1", free_port())
        kept = self.kept(address)
        waiting = self.stack.enter_context(socket.create_connection(address.address))
        (listener,) = self.listen([address], [kept])
        self.assertIs(listener, kept.socket)
        self.assertEqual(self.manager.removed, [])
        # Who came before the restart is served after it.
        connection, peer = listener.accept()
        self.assertEqual(peer, waiting.getsockname())
        connection.close()

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no IPv6")
    def test_the_kept_socket_of_an_ipv6_address_is_used(self):
        for host in ("::1", "::"):
            (address,) = listeners.addresses(host, free_port())
            kept = self.kept(address)
            (listener,) = self.listen([address], [kept])
            self.assertIs(listener, kept.socket, host)

    def test_another_address_gives_up_the_kept_socket_first(self):
        port = free_port()
        (old,) = listeners.addresses("127.0.0.1", port)
        (new,) = listeners.addresses("0.0.0.0", port)
        kept = self.kept(old)
        (listener,) = self.listen([new], [kept])
        self.assertEqual(kept.socket.fileno(), -1)
        self.assertEqual(listener.getsockname(), ("0.0.0.0", port))
        self.assertEqual((self.manager.removed, self.manager.stored), ([old.name], [new.name]))

    def test_an_address_in_use_is_an_error_that_names_it(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with self.assertRaisesRegex(OSError, f"127.0.0.1:{port}: Address already in use"):
                self.listen(listeners.addresses("127.0.0.1", port))

    def test_a_name_without_an_address_is_an_error(self):
        with self.assertRaisesRegex(OSError, "no-such-host.invalid: "):
            listeners.addresses("no-such-host.invalid", 8000)

    def test_a_name_that_no_host_can_have_and_a_port_that_does_not_exist(self):
        with self.assertRaisesRegex(OSError, "a..b: "):
            listeners.addresses("a..b", 8000)
        for port in (70000, -1):
            with self.assertRaisesRegex(OSError, f"127.0.0.1: {port} is not a port number"):
                listeners.addresses("127.0.0.1", port)
        with self.assertRaisesRegex(OSError, "xxx: .*too long"):
            self.listen([listeners.path("/" + 200 * "x")])

    def test_names_are_such_as_systemd_takes(self):
        for file in ("/run/größe.sock", "/run/" + 300 * "x", "/run/a\nb"):
            name = listeners.path(file).name
            self.assertRegex(name, "^pypnm-[0-9a-f]{64}$")
            self.assertEqual(name, listeners.path(file).name)
            self.assertNotEqual(name, listeners.path(file + "x").name)

    def test_a_kept_socket_that_no_longer_listens_is_given_up(self):
        (address,) = listeners.addresses("127.0.0.1", free_port())
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            silent = self.stack.enter_context(socket.socket(socket.AF_INET, kind))
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            silent.bind(address.address)
            (listener,) = self.listen([address], [Inherited(address.name, silent)])
            self.assertIsNot(listener, silent)
            socket.create_connection(address.address).close()
            listener.close()
        self.assertEqual(self.manager.removed, [address.name] * 2)

    def test_a_single_ipv6_address_and_one_beside_ipv4(self):
        single = listeners.addresses("::", 8000)
        self.assertEqual([(address.address[0], address.v6only) for address in single], [("::", False)])
        # As getaddrinfo() has it for no host at all: all addresses of both families.
        both = listeners.addresses("", 8000)
        self.assertEqual({(address.address[0], address.v6only) for address in both}, {("0.0.0.0", False), ("::", True)})
        self.assertEqual({address.name for address in both}, {"pypnm-0.0.0.0-8000", "pypnm-..-8000"})

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no IPv6")
    def test_several_addresses_of_a_host(self):
        port = free_port()
        wanted = listeners.addresses(None, port)
        found = self.listen(wanted)
        self.assertEqual(len(found), 2)
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()
        passed = [Inherited(address.name, listener) for address, listener in zip(wanted, found)]
        again = self.listen(wanted, passed)
        self.assertEqual(again, found)
        self.assertEqual(self.manager.removed, [])
        # Kept for both families, wanted for one that serves both.
        (single,) = self.listen(listeners.addresses("::", port), passed)
        self.assertEqual(len(self.manager.removed), 2)
        socket.create_connection(("127.0.0.1", port)).close()
        self.assertFalse(single.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))

    def test_a_family_that_is_off_is_left_out(self):
        # An address that no interface has, in place of ::1 where IPv6 is off.
        port = free_port()
        wanted = [Address(socket.AF_INET, ("127.0.0.1", port)), Address(socket.AF_INET, ("192.0.2.1", port))]
        (listener,) = self.listen(wanted)
        self.assertEqual(listener.getsockname(), ("127.0.0.1", port))
        with self.assertRaises(OSError):
            self.listen(wanted[1:])

    def test_a_socket_file(self):
        with tempfile.TemporaryDirectory() as directory:
            address = listeners.path(f"{directory}/pypnm.sock")
            (listener,) = self.listen([address])
            self.assertEqual(stat.S_IMODE(os.stat(address.address).st_mode), 0o666)
            passed = Inherited(address.name, listener)
            self.assertEqual(self.listen([address], [passed]), [listener])
            # Without its file nobody finds the kept socket.
            os.unlink(address.address)
            (second,) = self.listen([address], [passed])
            self.assertIsNot(second, listener)
            # A file that an earlier run left is replaced; a file of another kind is not.
            second.close()
            self.listen([address])
            Path(directory, "file").write_text("")
            with self.assertRaises(OSError):
                self.listen([listeners.path(f"{directory}/file")])

    def test_a_socket_unit_says_where_to_listen(self):
        unit = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        kept = self.kept(listeners.addresses("127.0.0.1", free_port())[0])
        found = self.listen(listeners.addresses("127.0.0.1", 1), [Inherited("pypnm.socket", unit), kept])
        self.assertEqual(found, [unit])
        self.assertEqual(self.manager.removed, [kept.name])

    def test_what_is_no_listening_socket_is_left_alone(self):
        first, second = socket.socketpair()
        with first, second:
            (listener,) = self.listen(listeners.addresses("127.0.0.1", free_port()), [Inherited("stored", first)])
            self.assertNotEqual(listener, first)
            self.assertNotEqual(first.fileno(), -1)


PASSED = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.environ["LISTEN_PID"] = os.environ.get("PID") or str(os.getpid())
from pypnm_handover import listeners
for inherited in listeners.inherited(os.environ):
    print(inherited.name, inherited.socket.getsockname()[1], os.get_inheritable(inherited.socket.fileno()))
print(sorted(key for key in os.environ if key.startswith("LISTEN")))
"""


class FromSystemd(unittest.TestCase):
    def passed(self, descriptors, **environment):
        command = f"exec {' '.join(f'{3 + n}<&{d}' for n, d in enumerate(descriptors))} {sys.executable} -B -c '{PASSED}' \"$0\""
        handover = str(Path(__file__).resolve().parents[2] / "handover")
        done = subprocess.run(
            ["bash", "-c", command, handover], pass_fds=descriptors, env={**os.environ, **environment},
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    def test_sockets_and_names(self):
        with socket.create_server(("127.0.0.1", 0)) as listener, open(os.devnull) as file:
            port = listener.getsockname()[1]
            found = self.passed([listener.fileno(), file.fileno()], LISTEN_FDS="2", LISTEN_FDNAMES="pypnm-x:file")
            self.assertEqual(found, [f"pypnm-x {port} False", "[]"])
            self.assertEqual(self.passed([listener.fileno()], LISTEN_FDS="1"), [f" {port} False", "[]"])
            # For another process, an invalid number, none.
            self.assertEqual(self.passed([listener.fileno()], LISTEN_FDS="1", PID="1"), ["[]"])
            for count in ("-1", "²", "9" * 5000):
                self.assertEqual(self.passed([listener.fileno()], LISTEN_FDS=count), ["[]"])
            # Fewer than stated.
            self.assertEqual(self.passed([listener.fileno()], LISTEN_FDS="999999"), [f" {port} False", "[]"])
            self.assertEqual(self.passed([]), ["[]"])
