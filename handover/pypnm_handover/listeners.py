"""The sockets that the service listens on: taken over from the service manager, bound, given up.

Owns which socket serves which address. An address is served by a kept socket where there is one; other kept
sockets are given up first, so that their addresses can be bound.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from .notify import Manager
from .say import say

# sd_listen_fds(3)
FIRST_DESCRIPTOR = 3
# What names in the store begin with. A name holds no colon.
PREFIX = "pypnm-"
# systemd's name for what another program of this service has stored without one.
UNNAMED = "stored"
LONGEST_NAME = 255

# As the socket module has it: a path, (host, port), or (host, port, flow information, scope).
SocketAddress = str | tuple[Any, ...]


@dataclass(frozen=True)
class Inherited:
    """A socket that the service manager passed, and its name there."""

    name: str
    socket: socket.socket

    @property
    def is_kept(self) -> bool:
        """From the store; else a socket unit's."""
        return self.name.startswith(PREFIX) or (self.name == UNNAMED and _listens(self.socket))


@dataclass(frozen=True)
class Address:
    """One address to listen on."""

    family: socket.AddressFamily
    address: SocketAddress
    # Whether the IPv4 socket of the same name exists beside it.
    v6only: bool = False

    @property
    def name(self) -> str:
        """Its name in the store."""
        words = [self.address] if isinstance(self.address, str) else self.address[:2]
        name = PREFIX + "-".join(str(word).replace(":", ".") for word in words)
        if len(name) > LONGEST_NAME or not (name.isascii() and name.isprintable()):
            # systemd ignores such a name.
            return PREFIX + hashlib.sha256(os.fsencode(name)).hexdigest()
        return name

    def is_of(self, listener: socket.socket) -> bool:
        """Whether a socket listens on this very address."""
        if not _listens(listener) or listener.family != self.family or listener.getsockname() != self.address:
            return False
        if isinstance(self.address, str):
            # Without its file nobody finds it.
            return _is_socket(self.address)
        # Any other IPv6 address accepts nothing but IPv6, whatever is set.
        return self.address[0] != "::" or self.v6only == bool(
            listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        )

    def bind(self, backlog: int) -> socket.socket:
        """A new listening socket. Raises OSError."""
        listener = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            if isinstance(self.address, str):
                if _is_socket(self.address):
                    os.unlink(self.address)
                listener.bind(self.address)
                # uvicorn's mode: a reverse proxy runs as another user.
                os.chmod(self.address, 0o666)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self.family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.v6only))
                listener.bind(self.address)
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener


def _is_socket(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)
    return False


def inherited(environment: MutableMapping[str, str]) -> list[Inherited]:
    """What the service manager passed to this very process. The variables are taken out of the environment."""
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    environment.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not re.fullmatch("[0-9]{1,6}", count):
        return []
    passed = []
    for number in range(int(count)):
        try:
            listener = socket.socket(fileno=FIRST_DESCRIPTOR + number)
        except OSError as error:
            if error.errno == errno.EBADF:
                # Fewer than the number says.
                break
            # A file or something else that this launcher did not ask for.
            continue
        listener.set_inheritable(False)
        passed.append(Inherited(names[number] if number < len(names) else "", listener))
    return passed


def addresses(host: str | None, port: int) -> list[Address]:
    """All addresses of a host, as an event loop's create_server() would take them. Raises OSError."""
    if not 0 <= port <= 65535:
        # getaddrinfo(3) would take the lower 16 bits.
        raise OSError(errno.EINVAL, f"{host}: {port} is not a port number")
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"{host}: {error.strerror}") from None
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host}: {error}") from None
    families = {info[0] for info in infos}
    found: list[Address] = []
    for family, _, _, _, address in infos:
        # A single IPv6 address may serve IPv4 as well, as uvicorn's own socket of several workers does.
        one = Address(family, address, v6only=family == socket.AF_INET6 and len(families) > 1)
        if family in (socket.AF_INET, socket.AF_INET6) and one not in found:
            found.append(one)
    return found


def path(file: str) -> Address:
    """A socket file's. The file stays when the service stops; the next start replaces it."""
    return Address(socket.AF_UNIX, file)


def of_descriptor(descriptor: int) -> socket.socket:
    """Somebody else's listening socket, by its number. Raises OSError."""
    return socket.socket(fileno=os.dup(descriptor))


def release(passed: list[Inherited], manager: Manager) -> None:
    """Gives up sockets for good: the manager's copies are closed, their addresses free."""
    names = {one.name for one in passed if one.is_kept}
    for one in passed:
        one.socket.close()
    manager.remove(names)


def listen(wanted: list[Address], backlog: int, passed: list[Inherited], manager: Manager) -> list[socket.socket]:
    """A listening socket for each address. Raises OSError where an address cannot be bound."""
    units = [one for one in passed if not one.is_kept and _listens(one.socket)]
    if units:
        # A socket unit says where to listen; host and port of the command line do not count.
        release([one for one in passed if one.is_kept], manager)
        say("listening where the socket unit does: " + ", ".join(_text(one.socket.getsockname()) for one in units))
        return [one.socket for one in units]
    kept = {address: one for address in wanted for one in passed if one.is_kept and address.is_of(one.socket)}
    taken = {id(one) for one in kept.values()}
    release([one for one in passed if one.is_kept and id(one) not in taken], manager)
    listening: list[socket.socket] = []
    absent: OSError | None = None
    for address in wanted:
        try:
            listener = kept[address].socket if address in kept else address.bind(backlog)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(wanted) > 1:
                # One family of a host name may be off.
                say(f"{_text(address.address)}: {error.strerror}")
                absent = error
                continue
            for one in listening:
                one.close()
            # Python's own errors, of a path that is too long for one, have no number.
            raise OSError(error.errno or errno.EINVAL, f"{_text(address.address)}: {error.strerror or error}") from None
        # Again where it is kept: systemd knows a descriptor that it has, and one of the same name may just have gone.
        manager.store(address.name, listener.fileno())
        listening.append(listener)
    if not listening and absent is not None:
        raise absent
    return listening


def _listens(listener: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(is_listening) and listener.type == socket.SOCK_STREAM
    return False


def _text(address: SocketAddress | bytes) -> str:
    if isinstance(address, str):
        return address
    if isinstance(address, bytes):
        # An abstract socket's, as systemd writes it.
        return "@" + os.fsdecode(address[1:])
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
