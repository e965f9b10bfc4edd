"""
Taking the place where the admin endpoint listens.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import Port as TcpPort
from twisted.internet.unix import Port as UnixPort
from twisted.python.failure import Failure

from mtlsgate.errors import GateError
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.listen_addresses import HostError, SocketAddress, adopt
from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for

#: Of the unix socket: its owner's alone.
MODE = 0o600


#: Device and inode: which file it is, whatever its name.
_Identity = tuple[int, int]


class AdminListenError(GateError):
    """The admin endpoint cannot be where it should, in one line."""


@frozen(eq=False)
class Taken:
    """
    A place that is taken; not yet, or not any more, listened on by a reactor.

    :ivar place: a socket's path, or an address.
    """

    place: Path | SocketAddress
    _socket: socket.socket = field(repr=False)
    _identity: _Identity | None = None

    def listen(self, factory: IProtocolFactory, reactor: Any) -> IListeningPort:
        """:returns: the port, which the socket is now the business of."""
        if isinstance(self.place, Path):
            port = _SocketPort(self.place, self._identity, self._socket, factory, reactor)
            port.startListening()
            return port
        ports: list[IListeningPort] = []
        adopt(self._socket, reactor).listen(factory).addCallback(ports.append)
        return ports[0]

    def give_back(self) -> None:
        """Listen no more."""
        if isinstance(self.place, Path):
            _remove(self.place, self._identity)
        self._socket.close()


def take(
    endpoint: AdminEndpoint | None,
    but: frozenset[object] = frozenset(),
    owner: Owner = NOBODY_ELSE,
) -> tuple[Taken, ...]:
    """
    :param but: places that are taken already.
    :param owner: whose a socket is to be.
    :returns: a listening socket for each place of the endpoint.
    :raises AdminListenError: if one cannot be had; the others are given back.
    """
    if endpoint is None:
        return ()
    taken: list[Taken] = []
    try:
        for place in endpoint.places:
            if place in but:
                continue
            if isinstance(place, Path):
                bound = _bind(place, owner)
                taken.append(Taken(place, bound, _identity(place)))
            else:
                taken.append(Taken(place, place.bind()))
    except (AdminListenError, HostError) as error:
        for one in taken:
            one.give_back()
        raise AdminListenError(f"admin: {error}") from error
    return tuple(taken)


def _bind(path: Path, owner: Owner) -> socket.socket:
    """
    :returns: a listening socket that nobody but its owner could ever connect to.
    :raises AdminListenError: if it cannot be had.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def make() -> None:
        _clear(path)
        # Before it has a name, which may lead to something else a moment later.
        os.fchmod(bound.fileno(), MODE)
        bound.bind(str(path))
        if owner != NOBODY_ELSE and os.geteuid() == 0:
            os.chown(path, *owner, follow_symlinks=False)

    try:
        make_for(owner, path, make)
        bound.listen()
        # As the reactor needs it.
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise AdminListenError(f"cannot listen on {path}: {_in_words(error)}") from error
    except AdminListenError:
        bound.close()
        raise
    return bound


def _clear(path: Path) -> None:
    """
    Remove a socket that nobody listens on any more.

    :raises AdminListenError: if there is anything else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminListenError(f"cannot listen on {path}: it is there, and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        # A full backlog is an answer, too.
        trial.setblocking(False)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass
    raise AdminListenError(
        f"cannot listen on {path}: another process listens there (ss -lxp shows which)"
    )


def _in_words(error: OSError) -> str:
    words = {
        errno.ENOENT: "no such directory",
        errno.ENOTDIR: "no such directory",
        errno.EACCES: "permission denied",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: Path, identity: _Identity | None) -> None:
    """Remove a socket's file, unless it is another's by now."""
    if identity is not None and _identity(path) == identity:
        # Where privileges were dropped it may have to stay; the next start clears it.
        with suppress(OSError):
            path.unlink()


class _SocketPort(UnixPort):
    """
    A port on a unix socket that is bound already, and has its mode.

    `UnixPort` removes, when it ends, whatever its path then is.
    """

    def __init__(
        self,
        path: Path,
        identity: _Identity | None,
        bound: socket.socket,
        factory: IProtocolFactory,
        reactor: Any,
    ) -> None:
        super().__init__(os.fsencode(path), factory, mode=MODE, reactor=reactor)
        self._preexistingSocket = bound
        self._path = path
        self._identity = identity

    def connectionLost(self, reason: Failure) -> None:
        _remove(self._path, self._identity)
        TcpPort.connectionLost(self, reason)
