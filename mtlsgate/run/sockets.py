"""
Listening sockets: binding addresses, and those that the service manager passed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.addresses import Address, HostError, SocketAddress, SystemdAddress, UnixAddress
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.run.unix_sockets import UnixSocket, UnixSocketError, listen_on_unix
from mtlsgate.text import quoted


@frozen(eq=False)
class PlainSocket:
    """
    A socket that leaves nothing behind: one of TCP, or a copy of one that was passed.

    :ivar sock: which may be listened on.
    """

    sock: socket.socket

    def close(self) -> None:
        """Listen no more."""
        self.sock.close()


class Sockets:
    """
    Takes addresses.

    Sockets that the service manager passed are held for as long as the process
    lives, and never closed: an address that is dropped can come back.  Each
    listener gets a copy of its own.

    :ivar names: of those that were passed, in order.
    :ivar _passed: the sockets themselves.
    :ivar _directory: where relative paths start.
    :ivar _owner: owns the files of unix sockets.
    """

    def __init__(
        self,
        passed: Sequence[tuple[str, socket.socket]] = (),
        directory: Path | None = None,
        owner: Owner = NOBODY_ELSE,
        names: Iterable[str] | None = None,
    ) -> None:
        """
        :param passed: sockets, each with its name, which belong to this object.
        :param directory: where relative paths start; by default the present one.
        :param owner: owns the files of unix sockets, as far as this process may say so.
        :param names: of sockets that were passed to another process.
        """
        self.names = tuple(name for name, _ in passed) if names is None else tuple(names)
        self._passed = tuple(one for _, one in passed)
        self._directory = Path.cwd() if directory is None else directory
        self._owner = owner

    @classmethod
    def of_process(
        cls, environ: Mapping[str, str] = os.environ, owner: Owner = NOBODY_ELSE
    ) -> Sockets:
        """:returns: with those that the service manager passed to this process.
        :raises HostError: if one of them is none."""
        return cls(_named(_passed_descriptors(), environ), owner=owner)

    def key_of(self, address: Address) -> str:
        """
        :returns: what an address is called, so that what has one name is one thing: a
            socket that was passed has the same, however it is written.
        """
        if isinstance(address, SystemdAddress):
            try:
                return f"systemd:index={self._index(address)}"
            except HostError:
                return str(address)
        return str(address)

    def take_keyed(self, key: str, address: Address) -> BoundSocket:
        """
        :param key: of the address; each port 0 has its own.
        :returns: a listening socket.
        :raises HostError: if there is none to be had, in words that follow nothing.
        """
        return self.take(address)

    def take(self, address: Address) -> BoundSocket:
        """
        :returns: a listening socket.
        :raises HostError: if there is none to be had, in words that follow nothing.
        """
        if isinstance(address, SocketAddress):
            return PlainSocket(bind_tcp(address))
        if isinstance(address, UnixAddress):
            path = self._directory / address.path
            try:
                return listen_on_unix(
                    path,
                    address.mode,
                    address.backlog,
                    # Once privileges are dropped, the process is that user.
                    self._owner if os.geteuid() == 0 else NOBODY_ELSE,
                    takeover=address.takeover,
                )
            except UnixSocketError as error:
                raise HostError(str(error)) from error
        passed = self._passed[self._index(address)]
        if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise HostError(f"cannot listen on {address}: it is not a listening stream socket")
        if address.domain and (address.domain == "UNIX") != (passed.family == socket.AF_UNIX):
            raise HostError(f"cannot listen on {address}: the socket passed is of another domain")
        copy = passed.dup()
        copy.setblocking(False)
        return PlainSocket(copy)

    def _index(self, address: SystemdAddress) -> int:
        """:raises HostError: if no such socket was passed."""
        if not self.names:
            raise HostError(
                f"cannot listen on {address}: the service manager passed no socket to this process"
            )
        if address.index is not None:
            if address.index < len(self.names):
                return address.index
            last = len(self.names) - 1
            raise HostError(f"cannot listen on {address}: the last socket passed is index={last}")
        found = [index for index, name in enumerate(self.names) if name == address.name]
        if len(found) == 1:
            return found[0]
        if found:
            raise HostError(
                f"cannot listen on {address}: {len(found)} sockets have that name; use index="
            )
        names = ", ".join(map(quoted, self.names))
        raise HostError(f"cannot listen on {address}: the sockets passed are called {names}")


def adapt(bound: BoundSocket, address: Address) -> None:
    """
    Let a socket that is listened on already follow what its host says now.

    :raises OSError: if that is not allowed.
    """
    if isinstance(bound, UnixSocket) and isinstance(address, UnixAddress):
        bound.set_mode(address.mode)


def bind_tcp(address: SocketAddress) -> socket.socket:
    """
    :returns: a listening socket, which does not block.
    :raises HostError: if the address is taken or not this machine's.
    """
    bound = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.takeover:
            # Both processes must have set it, and must be of the same user (socket(7)).
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Linux: what is accepted inherits it.  Nagle's algorithm against delayed
        # acknowledgements costs 40 ms an exchange.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.family == socket.AF_INET6:
            # IPv4 has a socket of its own, so clients keep their IPv4 addresses.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address.host, address.port))
        bound.listen(address.backlog)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise HostError(f"cannot listen on {address}: {_in_words(error)}") from error
    return bound


def _in_words(error: OSError) -> str:
    words = {
        errno.EADDRINUSE: "another process listens there (ss -ltnp shows which)",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


def _passed_descriptors() -> list[int]:
    """
    :returns: what systemd passed (sd_listen_fds(3)).  Twisted takes the numbers out of
        the environment when its endpoints are imported, which may have happened
        already, so its endpoints are asked.
    """
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString

    found: list[int] = []
    while True:
        try:
            one = serverFromString(None, f"systemd:domain=INET:index={len(found)}")
        except IndexError:
            return found
        assert isinstance(one, AdoptedStreamServerEndpoint)
        found.append(one.fileno)


def _named(
    descriptors: Iterable[int], environ: Mapping[str, str]
) -> list[tuple[str, socket.socket]]:
    """
    :returns: each with its name, or "" if it has none.
    :raises HostError: if one is not open, or not a socket.
    """
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for number, descriptor in enumerate(descriptors):
        name = names[number] if number < len(names) else ""
        try:
            os.set_inheritable(descriptor, False)
            # A copy: the number itself stays the service manager's, and is never closed.
            found.append((name, socket.socket(fileno=os.dup(descriptor))))
        except OSError as error:
            raise HostError(
                f"descriptor {descriptor}, which the service manager passed: {error.strerror}"
            ) from error
    return found
