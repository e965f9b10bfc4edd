"""
Connections to servers that are verified before anything is sent to them.

The server's path and name are verified during the handshake.  Any problem ends it.  A
protocol is built only for the right server, and no other server gets to see the
gate's client certificate.
"""

from __future__ import annotations

import re
import socket
from typing import cast

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.admission import Path, Rejection
from mtlsgate.gate.events import Negotiated
from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.tls.client import ClientContext, ServerConnection
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.openssl_errors import TlsError, handshake_rejection, reasons_of
from mtlsgate.tls.plain import PlainTransport
from mtlsgate.tls.stream import StreamReactor
from mtlsgate.tls.transport import TlsTransport


class HandshakeFailed(Exception):
    """
    The TLS handshake with a target failed; the text says why, in one line.

    :ivar rejection: the same, with its reason.
    """

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.detail)
        self.rejection = rejection


class NotReady(HandshakeFailed):
    """The gate itself lacks what a handshake needs; the target is not to blame."""


@implementer(IStreamClientEndpoint)
@frozen
class NotReadyEndpoint:
    """
    Connects to nobody.

    :ivar rejection: why.
    """

    rejection: Rejection

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """:returns: a Deferred that has failed with `NotReady`."""
        return fail(NotReady(self.rejection))


class NotVerified(HandshakeFailed):
    """A server's certificate could not be verified."""


@implementer(IStreamClientEndpoint)
@frozen
class TlsEndpoint:
    """
    Connects to a server with TLS, and connects a protocol when it is verified.

    :ivar server_name: the name that the server's certificate must be for; None if a
        pin says enough.
    :ivar preface: bytes to send before TLS.
    :ivar asked_for: the name to ask the server for (SNI); by default that name.
    """

    _endpoint: IStreamClientEndpoint
    _context: ClientContext = field(repr=False)
    server_name: str | None
    preface: bytes = b""
    asked_for: str | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        :returns: the protocol, when the handshake is complete.  Fails with
            `HandshakeFailed`, or as the endpoint's own ``connect`` does.
        """
        connection = self._context.connection(self.server_name, self.asked_for)
        return _Attempt(self._endpoint, connection, self.preface, factory).outcome


@implementer(IProtocolFactory)
class _Attempt:
    """
    One connection, from dialling to the end of its handshake.

    :ivar outcome: fires with the result.
    :ivar _is_settled: whether there is a result, or nobody waits for it any more.
    :ivar _transport: the transport during the handshake; otherwise None.
    """

    _is_settled = False
    _transport: TargetTransport | None = None

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        connection: ServerConnection,
        preface: bytes,
        application: IProtocolFactory,
    ) -> None:
        self._connection = connection
        self._preface = preface
        self._application = application
        self.outcome: Deferred[IProtocol] = Deferred(self._cancel)
        self._dialling = endpoint.connect(self)
        self._dialling.addErrback(self._not_connected)

    def doStart(self) -> None:
        """Twisted asks for this."""

    def doStop(self) -> None:
        """Twisted asks for this."""

    def buildProtocol(self, addr: IAddress) -> IProtocol:
        """:returns: a protocol that takes over the socket."""
        return _Takeover(self)

    def _cancel(self, _: object) -> None:
        self._is_settled = True
        self._dialling.cancel()
        if self._transport is not None:
            self._transport.abortConnection()

    def _not_connected(self, failure: Failure) -> None:
        if not self._is_settled:
            self._is_settled = True
            self.outcome.errback(failure)

    def take_over(self, plain: ITransport) -> None:
        """Start TLS on a new connection."""
        if not isinstance(plain, PlainTransport):
            plain.loseConnection()
            self.failed(_broken("TLS needs a TCP or unix socket target"))
            return
        peer, host = plain.getPeer(), plain.getHost()
        sock, unsent = plain.detach()
        reactor = cast(StreamReactor, plain.reactor)
        transport = TargetTransport(sock, reactor, peer, host, self._connection, self)
        self._transport = transport
        transport.send(unsent + self._preface)
        transport.begin()

    def verified(self, transport: TargetTransport) -> None:
        """The server is verified: hand the connection over."""
        if self._is_settled:
            transport.abortConnection()
            return
        try:
            protocol = self._application.buildProtocol(transport.getPeer())
            if protocol is None:
                raise _broken("the connection is no longer wanted")
            self._is_settled, self._transport = True, None
            transport.hand_over(protocol)
        except Exception:  # noqa: BLE001 -- whatever it is, whoever dials hears of it
            self._is_settled, self._transport = True, None
            transport.abortConnection()
            self.outcome.errback()
        else:
            self.outcome.callback(protocol)

    def failed(self, error: HandshakeFailed) -> None:
        """The attempt failed."""
        self._transport = None
        if not self._is_settled:
            self._is_settled = True
            self.outcome.errback(error)


class _Takeover(Protocol):
    """Takes over the socket of a new plain connection."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt

    def makeConnection(self, transport: ITransport) -> None:
        """The connection is made."""
        self._attempt.take_over(transport)


class TargetTransport(TlsTransport):
    """
    The transport of a TLS connection to a server.

    :ivar _attempt: is told whether the server is verified; None afterwards.
    :ivar _server: OpenSSL's connection, which knows the result of verification; None
        afterwards.
    :ivar _verified: the same, from the verification to the end.
    """

    _attempt: _Attempt | None
    _verified: ServerConnection | None = None

    def __init__(
        self,
        sock: socket.socket,
        reactor: StreamReactor,
        peer: IAddress,
        host: IAddress,
        server: ServerConnection,
        attempt: _Attempt,
    ) -> None:
        """:param server: OpenSSL's connection."""
        super().__init__(sock, reactor, peer, host)
        self._server: ServerConnection | None = server
        self._asked_for = server.asked_for
        self._attempt = attempt
        self._engine = Engine(server)

    @property
    def traffic(self) -> tuple[int, int]:
        """How many application bytes were sent to the server, and received from it."""
        return (0, 0) if self._engine is None else (self._engine.sent, self._engine.received)

    @property
    def server_path(self) -> Path:
        """The server's verified path, leaf first, while the connection is there."""
        assert self._verified is not None
        return self._verified.path

    @property
    def negotiated(self) -> Negotiated:
        """What TLS agreed on, while the connection is there."""
        engine = self._engine
        assert engine is not None
        return Negotiated(
            server_name=self._asked_for,
            tls_version=engine.version,
            cipher=engine.cipher,
            group=engine.group,
            alpn=None if engine.alpn is None else engine.alpn.decode("ascii", "backslashreplace"),
        )

    def begin(self) -> None:
        """Start the handshake."""
        self.startReading()
        self._handle_events()

    def handshake_completed(self) -> None:
        """Hand over the connection if the server is verified."""
        attempt, server = self._attempt, self._server
        assert attempt is not None
        assert server is not None
        self._attempt = self._server = None
        if server.verified and server.rejection is None:
            self._verified = server
            attempt.verified(self)
        else:
            self.abortConnection()
            attempt.failed(NotVerified(server.rejection or _NOT_JUDGED))

    def hand_over(self, application: IProtocol) -> None:
        """Connect a protocol."""
        self._application = application
        application.makeConnection(self)
        if IHandshakeListener.providedBy(application):
            application.handshakeCompleted()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over: tell the protocol or the waiting attempt."""
        if self.disconnected:
            return
        attempt, server = self._attempt, self._server
        self._attempt = self._server = self._verified = None
        why = (self._reason or reason).value
        super().connectionLost(reason)
        if attempt is not None and server is not None:
            attempt.failed(_failure(server.rejection, why))


_NOT_JUDGED = Rejection(Reason.INTERNAL_ERROR, "its certificate was not judged", 0)


def _failure(rejection: Rejection | None, error: BaseException | None) -> HandshakeFailed:
    if rejection is not None:
        return NotVerified(evolve(rejection, detail=printable(rejection.detail)))
    if isinstance(error, TlsError) and error.args:
        reason = _reason(error)
        what = "it does not speak TLS" if reason is Reason.NOT_TLS else "the TLS handshake failed"
        return HandshakeFailed(Rejection(reason, printable(f"{what}: {refusal(error)}")))
    if isinstance(error, TlsError | ConnectionClosed):
        text = "it closed the connection in the TLS handshake"
        return HandshakeFailed(Rejection(Reason.REFUSED_BY_TARGET, text))
    return _broken(f"the TLS handshake failed: {type(error).__name__}")


#: What servers say of a client certificate (RFC 8446, 6.2), in OpenSSL's words.
_OF_CERTIFICATE = re.compile(
    r"alert (bad certificate|unsupported certificate|certificate (?:revoked|expired|unknown)"
    r"|unknown ca|access denied|decrypt error)"
)
_NO_CERTIFICATE = re.compile(r"alert certificate required")


def refusal(error: Exception) -> str:
    """
    :param error: an error in a TLS connection to a server.
    :returns: the same in words; an alert about the client certificate says so.
    """
    said = reasons_of(error)
    if found := _OF_CERTIFICATE.search(said):
        return f"it rejected the client certificate, with the alert {found[1]}"
    if _NO_CERTIFICATE.search(said):
        return "it asks for a client certificate, and got none: set client_certificate"
    return said


def _reason(error: TlsError) -> Reason:
    """:returns: the reason for an error in a handshake with a server."""
    reason = handshake_rejection(Failure(error)).reason
    return Reason.REFUSED_BY_TARGET if reason is Reason.PEER_ALERT else reason


def _broken(text: str) -> HandshakeFailed:
    return HandshakeFailed(Rejection(Reason.INTERNAL_ERROR, text))
