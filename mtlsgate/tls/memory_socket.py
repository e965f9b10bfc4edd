"""
The server's end of a connection that goes through a socket pair and no network.

`MemorySocket` and `Wire` are what `mtlsgate.tls.memory_client` uses to reach a
server that takes sockets.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from contextlib import suppress
from typing import Protocol, runtime_checkable

from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtlsgate.tls.memory_reactor import MemoryReactor
from mtlsgate.tls.stream import SocketStream, StreamReactor

#: About how many of the server's bytes the kernel holds.
_BUFFER = 2**12

#: Stop after this many turns: a producer may write without end.
_MAX_TURNS = 1000


@runtime_checkable
class TakesSockets(Protocol):
    """Takes accepted sockets, as a gate does."""

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: StreamReactor
    ) -> SocketStream | None:
        """:returns: the server's end; None if the connection is refused."""


class MemorySocket(socket.socket):
    """One end of a socket pair that looks like a TCP socket."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(fileno=descriptor)
        self._options: dict[tuple[int, int], int] = {}

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    def getsockopt(self, level: int, name: int, *rest: int) -> int:  # type: ignore[override]
        return self._options.get((level, name), 0)

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:  # type: ignore[override]
        if isinstance(value, int):
            self._options[level, name] = value

    def __del__(self) -> None:
        # Tests may leave connections open.
        self.close()


class Wire:
    """
    Carries bytes between a client and a server's connection.

    :ivar server: the server's connection; None if it was refused or is over.
    :ivar is_refused: whether the server refused the connection.
    :ivar _to_server: bytes still to be delivered.
    :ivar _is_finished: whether no more bytes follow.
    """

    def __init__(
        self,
        acceptor: TakesSockets,
        clock: Clock,
        host: IAddress,
        peer: IAddress,
        piece_size: int | None = None,
    ) -> None:
        """
        :param clock: the server's clock.
        :param host: the server's address.
        :param peer: the client's address.
        :param piece_size: how many bytes the server gets at once; by default
            all that the kernel takes.
        """
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket = MemorySocket(ours.detach())
        self._socket.setblocking(False)
        self._other = MemorySocket(theirs.detach())
        self._piece_size = piece_size
        self._reactor = MemoryReactor(clock)
        self._to_server = bytearray()
        self._is_finished = False
        self.server = acceptor.accept(self._other, peer, host, self._reactor)
        self.is_refused = self.server is None
        self._was_aborted = False

    @property
    def connected(self) -> bool:
        """Whether the server's connection is not over."""
        self._look()
        return self.server is not None

    @property
    def aborted(self) -> bool:
        """Whether the server reset the connection."""
        self._look()
        return self._was_aborted

    def _look(self) -> None:
        # Let go of a connection that is over.
        if self.server is not None:
            self._was_aborted = self.server.is_aborted
            if self.server.disconnected:
                self.server = None

    @property
    def unread(self) -> int:
        """How many bytes the server has not read yet."""
        return len(self._to_server) + _readable(self._other)

    @property
    def untaken(self) -> int:
        """How many bytes the server has sent or wants to send that were not taken."""
        waiting = 0 if self.server is None else self.server.unsent
        return waiting + _readable(self._socket)

    def deliver(self, data: bytes) -> None:
        """Send bytes to the server, now or as soon as it reads."""
        self._to_server += data
        self.turn()

    def finish(self) -> None:
        """Send a FIN after all bytes."""
        self._is_finished = True
        self.turn()

    def take(self) -> bytes:
        """:returns: all waiting bytes.  The server can then send more."""
        taken, waiting = bytearray(), self.untaken
        with suppress(OSError):
            while data := self._socket.recv(2**16):
                taken += data
                if len(taken) < waiting:
                    self.turn()
        self.turn()
        # A reset drops the bytes underway.
        return b"" if self.aborted else bytes(taken)

    def lose(self, error: Exception) -> None:
        """Lose the connection and every byte underway, at once."""
        self._to_server.clear()
        self._socket.close()
        self._look()
        if self.server is not None:
            self.server.connectionLost(Failure(error))
            self._look()

    def turn(self) -> None:
        """Let the server do what it can do now."""
        for _ in range(_MAX_TURNS):
            sent = self._send()
            if not self._reactor.turn() and not sent:
                break
        self._look()

    def _send(self) -> bool:
        """:returns: whether anything was sent."""
        size = self._piece_size or len(self._to_server)
        if self._piece_size and _readable(self._other):
            return False
        try:
            sent = self._socket.send(self._to_server[:size]) if self._to_server else 0
        except BlockingIOError:
            return False
        except OSError:
            # The server has closed.
            self._to_server.clear()
            return False
        del self._to_server[:sent]
        if self._is_finished and not self._to_server:
            self._is_finished = False
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            return True
        return sent > 0


def _readable(sock: socket.socket) -> int:
    """:returns: how many unread bytes the kernel holds for the socket."""
    if sock.fileno() == -1:
        return 0
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
