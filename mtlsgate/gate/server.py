"""
One server, ready to take connections: its rules and its application.
"""

from __future__ import annotations

from attrs import field, frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger

from mtlsgate.admission import Pin
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.terms import Terms
from mtlsgate.interfaces import IRetirable
from mtlsgate.tls.server import GateContext

_log = Logger("mtlsgate")

__all__ = ["GateServer", "PinsUsed", "Serving"]


class PinsUsed:
    """Remembers which pins with a name have been used: the first use is logged."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes | None, str]] = set()

    def note(self, pin: Pin, identity: bytes | None) -> bool:
        """
        :param identity: the identity of the client's certificate.
        :returns: whether the pin has a name and is used for the first time.
        """
        if pin.name is None:
            return False
        use = (identity, pin.name)
        first = use not in self._seen
        self._seen.add(use)
        return first


@frozen
class GateServer:
    """
    One server, ready to listen.

    :ivar name: its name in logs.
    :ivar context: makes its TLS engines.
    :ivar application: the factory that gets verified connections.
    :ivar handshake_timeout: the most seconds from connecting to a complete handshake.
    :ivar terms: the terms of its connections.
    :ivar authorizer: asked after the rules, or None.
    :ivar pins_used: the pins used since the server was built.
    """

    name: str
    context: GateContext
    application: IProtocolFactory
    handshake_timeout: float = 10.0
    terms: Terms = Terms()
    authorizer: Authorizer | None = None
    pins_used: PinsUsed = field(factory=PinsUsed, eq=False)


class Serving:
    """
    A server's application at one listener.  Its factory is started first, and
    stopped after the last connection has ended.

    :ivar server: the server.
    :ivar _unfinished: how many of its connections are not over.
    :ivar _is_stopping: whether no more connections will come by it.
    """

    def __init__(self, server: GateServer) -> None:
        self.server = server
        self._unfinished = 0
        self._is_stopping = False

    def start(self) -> None:
        """Start the application's factory.  Its exceptions are passed on."""
        self.server.application.doStart()

    def began(self) -> None:
        """Count a new connection of this server."""
        self._unfinished += 1

    def finished(self) -> None:
        """One of its connections is over."""
        self._unfinished -= 1
        self._stop_if_alone()

    def stop(self, *, is_staying: bool = False) -> None:
        """
        No more connections come: tell the application, and stop its factory after the
        last connection.

        :param is_staying: whether another epoch goes on with the same application.
        """
        self._is_stopping = True
        application = self.server.application
        if IRetirable.providedBy(application) and not is_staying:
            try:
                application.retire()
            except Exception:  # noqa: BLE001 -- a protocol's own; it is stopped all the same
                _log.failure("{server}: a protocol failed to retire", server=self.server.name)
        self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        if self._is_stopping and self._unfinished == 0:
            self._is_stopping = False
            try:
                self.server.application.doStop()
            except Exception:  # noqa: BLE001 -- a protocol's own; the gate goes on without it
                _log.failure("{server}: a protocol failed to stop", server=self.server.name)
