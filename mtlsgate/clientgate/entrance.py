"""
A client gate's entrance: makes connections of what one listener accepts.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.clientgate.connection import LocalConnection
from mtlsgate.clientgate.gate import ClientGate
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import Destination
from mtlsgate.tls.plain import PlainTransport
from mtlsgate.tls.stream import StreamReactor, reset_socket

#: Process, user and group of the other end (unix(7), SO_PEERCRED).
_CREDENTIALS = struct.Struct("3i")


class Judging(Protocol):
    """Judges by the configuration that is in force at the time of the call."""

    def is_in_force(self, listener: str, server: object) -> bool:
        """:returns: whether this client gate is in force at that listener."""

    def refuse_destination(self, listener: str, destination: Destination) -> Rejection | None:
        """:returns: why a connection may not be made now, or None."""


class ClientEntrance:
    """
    Takes the connections of one listener for a client gate.

    :ivar key: the listener's key.
    """

    def __init__(
        self, key: str, gate: ClientGate, connections: Connections, judging: Judging | None = None
    ) -> None:
        """
        :param connections: of the service.
        :param judging: judges by the epoch in force; None if that never changes.
        """
        self.key = key
        self._gate = gate
        self._connections = connections
        self._judging = judging

    def start(self) -> None:
        """Check the targets, if the configuration says so."""
        if self._gate.checker is not None:
            self._gate.checker.start()

    def stop(self) -> None:
        """Check no more.  Connections that are there go on by themselves."""
        if self._gate.checker is not None:
            self._gate.checker.stop()

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: StreamReactor
    ) -> LocalConnection | None:
        """
        :param sock: the program's connection; it belongs to the result from now on.
        :returns: the connection; None if a limit keeps it out.
        """
        gate, connections = self._gate, self._connections
        transport = PlainTransport(sock, reactor, peer, host)
        entry = connections.arrive(self.key, gate.name, gate.terms, peer)
        if entry is None:
            reset_socket(sock)
            return None
        pid, uid = _who(sock)
        connection = LocalConnection(gate, connections, entry, self._refuse_now, uid, pid)
        connections.attach(entry, connection)
        try:
            transport.begin(connection, connection.over)
        except Exception:  # noqa: BLE001 -- it costs this connection, which is counted already
            connection.failed(Failure())
        return connection

    def _refuse_now(self, destination: Destination) -> Rejection | None:
        """:returns: why a connection that was just made may not be used, or None."""
        judging = self._judging
        if judging is None or judging.is_in_force(self.key, self._gate):
            return None
        return judging.refuse_destination(self.key, destination)


def _who(sock: socket.socket) -> tuple[int | None, int | None]:
    """:returns: process and user at the other end of a unix socket."""
    if sock.family != socket.AF_UNIX:
        return None, None
    try:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None, None
    pid, uid, _ = _CREDENTIALS.unpack(found)
    # An unmapped user is -1 as a signed number.
    return pid, uid & 0xFFFFFFFF
