"""Listening sockets: takes them over from the service manager, binds them, and closes them.

Decides which socket serves which address. A kept socket serves its address again. Other kept sockets are closed
first, so that their addresses can be bound.
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
from .log import log

# sd_listen_fds(3)
FIRST_DESCRIPTOR = 3
# Prefix of the names in the file descriptor store. Names must not contain a colon.
PREFIX = "pypnm-"
# The name that systemd assigns if another program of this service stores a descriptor without one.
UNNAMED = "stored"
LONGEST_NAME = 255

# As in the socket module: a path, (host, port), or (host, port, flow information, scope).
SocketAddress = str | tuple[Any, ...]


@dataclass(frozen=True)
class Inherited:
    """A socket passed by the service manager, and its name."""

    name: str
    socket: socket.socket

    @property
    def is_kept(self) -> bool:
        """Whether it is from the store rather than from a socket unit."""
        return self.name.startswith(PREFIX) or (self.name == UNNAMED and _listens(self.socket))


@dataclass(frozen=True)
class Address:
    """An address to listen on."""

    family: socket.AddressFamily
    address: SocketAddress
    # Whether there is also an IPv4 socket for the same name.
    v6only: bool = False

    @property
    def name(self) -> str:
        """The name of its socket in the store."""
        words = [self.address] if isinstance(self.address, str) else self.address[:2]
        name = PREFIX + "-".join(str(word).replace(":", ".") for word in words)
        if len(name) > LONGEST_NAME or not (name.isascii() and name.isprintable()):
            # systemd ignores names that are too long.
            return PREFIX + hashlib.sha256(os.fsencode(name)).hexdigest()
        return name

    def is_of(self, listener: socket.socket) -> bool:
        """Whether a socket listens on exactly this address."""
        if not _listens(listener) or listener.family != self.family or listener.getsockname() != self.address:
            return False
        if isinstance(self.address, str):
            # Without its file, no client can reach it.
            return _is_socket(self.address)
        # Any other IPv6 address accepts IPv6 only, regardless of the option.
        return self.address[0] != "::" or self.v6only == bool(
            listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        )

    def bind(self, backlog: int) -> socket.socket:
        """Creates a listening socket. Raises OSError."""
        listener = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            if isinstance(self.address, str):
                if _is_socket(self.address):
                    os.unlink(self.address)
                listener.bind(self.address)
                # uvicorn uses this mode too: a reverse proxy runs as another user.
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
    """The sockets that the service manager passed to this process. Removes the variables from the environment."""
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
                # There are fewer than the variable says.
                break
            # A file, or anything else that this launcher did not store.
            continue
        listener.set_inheritable(False)
        passed.append(Inherited(names[number] if number < len(names) else "", listener))
    return passed


def addresses(host: str | None, port: int) -> list[Address]:
    """All addresses of a host, as the event loop's create_server() would determine them. Raises OSError."""
    if not 0 <= port <= 65535:
        # getaddrinfo(3) would use the lower 16 bits.
        raise OSError(errno.EINVAL, f"{host}: {port} is not a port number")
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"{host}: {error.strerror}") from None
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"{host}: {error}") from None
    families = {info[0] for info in infos}
    found: list[Address] = []
    for family, _, _, _, name in infos:
        # A single IPv6 address may serve IPv4 as well, like the socket that uvicorn creates for several workers.
        address = Address(family, name, v6only=family == socket.AF_INET6 and len(families) > 1)
        if family in (socket.AF_INET, socket.AF_INET6) and address not in found:
            found.append(address)
    return found


def path(file: str) -> Address:
    """The address of a socket file. The file remains when the service stops, and the next start replaces it."""
    return Address(socket.AF_UNIX, file)


def of_descriptor(descriptor: int) -> socket.socket:
    """A listening socket with this descriptor number, opened by another program. Raises OSError."""
    return socket.socket(fileno=os.dup(descriptor))


def release(passed: list[Inherited], manager: Manager) -> None:
    """Closes sockets, including the service manager's copies, so that their addresses are free."""
    names = {inherited.name for inherited in passed if inherited.is_kept}
    for inherited in passed:
        inherited.socket.close()
    manager.remove(names)


def listen(wanted: list[Address], backlog: int, passed: list[Inherited], manager: Manager) -> list[socket.socket]:
    """Returns a listening socket for each address. Raises OSError if an address cannot be bound."""
    units = [inherited for inherited in passed if not inherited.is_kept and _listens(inherited.socket)]
    if units:
        # The addresses of a socket unit take precedence over those on the command line.
        release([inherited for inherited in passed if inherited.is_kept], manager)
        log("listening on the sockets of the socket unit: " + ", ".join(_text(unit.socket.getsockname()) for unit in units))
        return [unit.socket for unit in units]
    kept = {
        address: inherited
        for address in wanted
        for inherited in passed
        if inherited.is_kept and address.is_of(inherited.socket)
    }
    reused = {id(inherited) for inherited in kept.values()}
    release([inherited for inherited in passed if inherited.is_kept and id(inherited) not in reused], manager)
    listening: list[socket.socket] = []
    absent: OSError | None = None
    for address in wanted:
        try:
            listener = kept[address].socket if address in kept else address.bind(backlog)
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(wanted) > 1:
                # IPv4 or IPv6 may be disabled.
                log(f"{_text(address.address)}: {error.strerror}")
                absent = error
                continue
            for listener in listening:
                listener.close()
            # Errors raised by Python itself, such as for a path that is too long, have no errno.
            raise OSError(error.errno or errno.EINVAL, f"{_text(address.address)}: {error.strerror or error}") from None
        # Kept sockets too: systemd ignores a descriptor that it already has, and may just have lost one with the same
        # name.
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
        # An abstract socket, in systemd's notation.
        return "@" + os.fsdecode(address[1:])
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
