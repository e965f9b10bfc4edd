"""
One server, ready to take connections: who may come in, and what they reach.
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
    """Which pins with a name have been used: the first use of each is logged."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes | None, str]] = set()

    def note(self, pin: Pin, identity: bytes | None) -> bool:
        """
        :param identity: of the client's certificate.
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

    :ivar name: as logs call it.
    :ivar context: makes its TLS connections.
    :ivar application: the factory that verified connections are handed to.
    :ivar handshake_timeout: seconds from connecting to a complete handshake.
    :ivar terms: what connections are held to.
    :ivar authorizer: who is asked after the rules, or None.
    :ivar pins_used: since it was built.
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
    A server's application at one listener, from the start of its factory to its
    stop, which comes after the end of its last connection.

    :ivar server: the server.
    :ivar _unfinished: how many of its connections are not over.
    :ivar _is_stopping: whether no more will come.
    """

    def __init__(self, server: GateServer) -> None:
        self.server = server
        self._unfinished = 0
        self._is_stopping = False

    def start(self) -> None:
        """Start the application's factory; what it raises is raised."""
        self.server.application.doStart()

    def began(self) -> None:
        """One more connection is this server's."""
        self._unfinished += 1

    def finished(self) -> None:
        """One of them is over."""
        self._unfinished -= 1
        self._stop_if_alone()

    def stop(self) -> None:
        """No more connections come: let the application know, and stop its
        factory when the last one is over."""
        self._is_stopping = True
        application = self.server.application
        if IRetirable.providedBy(application):
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
