"""
Connections to servers that are verified before anything is said to them.

The server is verified within the handshake, path and name, and whatever goes
wrong in doing so ends it: a protocol is built only for a server that is proven
to be the one meant, and no certificate is shown to any other.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.certificates.certificate import known
from mtlsgate.certificates.server_identity import as_address, name_problem, path_problem
from mtlsgate.text import printable
from mtlsgate.tls.contexts import reasons_of
from mtlsgate.tls.half_closing import HalfClosingConnection, HalfClosingTransport
from mtlsgate.tls.trust import encoded

_log = Logger("mtlsgate.upstream")


class HandshakeFailed(Exception):
    """
    TLS to a target did not come about; the text says why, in one line.
    """


class NotVerified(HandshakeFailed):
    """A server did not prove to be the one that was meant; the text says how."""


class ServerConnection(HalfClosingConnection):
    """
    A connection to a server, with what came of verifying it.

    :ivar server_name: who it should be.
    :ivar verified: whether it proved that.
    :ivar problem: why not, once it is known.
    """

    def __init__(self, context: SSL.Context, server_name: str) -> None:
        super().__init__(context, None)
        self.server_name = server_name
        self.verified = False
        self.problem: str | None = None


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class ServerConnector:
    """
    Makes connections to one server.

    :ivar server_name: the DNS name or IP address that its certificate must be for.
    """

    _context: SSL.Context = field(repr=False)
    server_name: str

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> ServerConnection:
        """Make a connection (`IOpenSSLClientConnectionCreator`)."""
        connection = ServerConnection(self._context, self.server_name)
        if isinstance(protocol, HalfClosingTransport):
            connection.on_end = protocol.on_end
        if as_address(self.server_name) is None:
            # An address is no server name (RFC 6066, 3).
            connection.set_tlsext_host_name(self.server_name.removesuffix(".").encode("ascii"))
        return connection


def verify(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """
    :returns: whether to go on with the handshake; OpenSSL asks for each
        certificate of the server's path, from the anchor down to depth 0.
    """
    # An exception would leave the handshake without an alert, and a truthy
    # answer that is no bool would trust: everything ends in True or False.
    assert isinstance(connection, ServerConnection)
    try:
        problem = _problem(connection.server_name, certificate, error, depth, bool(ok))
    except Exception:  # noqa: BLE001 -- see above
        _log.failure("verifying a target's certificate failed")
        problem = "its certificate could not be judged"
    connection.problem = connection.problem or problem
    connection.verified = depth == 0 and connection.problem is None
    return connection.problem is None


def _problem(server_name: str, certificate: X509, error: int, depth: int, ok: bool) -> str | None:
    """:returns: why a certificate of the path is not to be trusted, or None."""
    if not ok:
        which = "its certificate" if depth == 0 else f"the certificate at depth {depth}"
        return f"{which}: {path_problem(error, 'server_ca_certificate')}"
    if depth > 0:
        return None
    problem = name_problem(known(encoded(certificate)), server_name.removesuffix("."))
    return None if problem is None else f"it is not {server_name}: {problem}"


@implementer(IStreamClientEndpoint)
@frozen
class TlsEndpoint:
    """
    Dials a server with TLS, and connects a protocol to it once it is verified.
    """

    _endpoint: IStreamClientEndpoint
    _connector: ServerConnector
    _clock: IReactorTime

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        :returns: the protocol, when the handshake is done.  Fails with
            `HandshakeFailed`, or as the endpoint's own ``connect`` does.
        """
        attempt = _Attempt(factory)
        below = _TlsFactory(self._connector, True, attempt, self._clock)

        def failed(failure: Failure) -> None:
            if not attempt.done:
                attempt.done = True
                outcome.errback(failure)

        def cancelled(_: object) -> None:
            attempt.done = True
            dialling.cancel()
            attempt.abort()

        outcome: Deferred[IProtocol] = Deferred(cancelled)
        attempt.outcome = outcome
        dialling = self._endpoint.connect(below)
        dialling.addErrback(failed)
        return outcome


class _TlsFactory(TLSMemoryBIOFactory):
    protocol = HalfClosingTransport


class _Attempt(Factory):
    """
    One connection, from dialling to the end of its handshake.

    :ivar done: the outcome is there, or nobody waits for it any longer.
    """

    noisy = False
    outcome: Deferred[IProtocol]
    done = False
    _listener: _Listener | None = None

    def __init__(self, application: IProtocolFactory) -> None:
        self.application = application

    def doStart(self) -> None:
        self.application.doStart()

    def doStop(self) -> None:
        self.application.doStop()

    def buildProtocol(self, addr: IAddress | None) -> _Listener:
        assert addr is not None
        self._listener = _Listener(self, addr)
        return self._listener

    def abort(self) -> None:
        if self._listener is not None and self._listener.transport is not None:
            self._listener.transport.abortConnection()

    def settle(self, conclude: Callable[[], IProtocol]) -> bool:
        """:returns: whether there is a protocol, and somebody who wants it."""
        if self.done:
            return False
        self.done = True
        self._listener = None
        try:
            protocol = conclude()
        except Exception:  # noqa: BLE001 -- whatever it is, whoever dials hears of it
            self.outcome.errback()
            return False
        self.outcome.callback(protocol)
        return True


@implementer(IHandshakeListener)
class _Listener(Protocol):
    """Stands where the application's protocol will stand once the server is verified."""

    transport: HalfClosingTransport

    def __init__(self, attempt: _Attempt, address: IAddress) -> None:
        self._attempt = attempt
        self._address = address
        self._connection: ServerConnection | None = None

    def connectionMade(self) -> None:
        self._connection = self.transport.getHandle()

    def handshakeCompleted(self) -> None:
        if not self._attempt.settle(self._let_through):
            self.transport.abortConnection()

    def _let_through(self) -> IProtocol:
        transport, connection = self.transport, self._connection
        if connection is None or not connection.verified:
            raise NotVerified("its certificate was not judged")
        application = self._attempt.application.buildProtocol(self._address)
        if application is None:
            raise HandshakeFailed("the connection is no longer wanted")
        transport.wrappedProtocol = application
        application.makeConnection(transport)
        if IHandshakeListener.providedBy(application):
            application.handshakeCompleted()
        return application

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        def conclude() -> IProtocol:
            raise self._failure(reason.value)

        self._attempt.settle(conclude)
        self._connection = None

    def _failure(self, error: BaseException | None) -> HandshakeFailed:
        problem = None if self._connection is None else self._connection.problem
        if problem is not None:
            return NotVerified(printable(problem))
        if isinstance(error, SSL.Error) and error.args:
            return HandshakeFailed(printable(f"the TLS handshake failed: {reasons_of(error)}"))
        if isinstance(error, SSL.Error | ConnectionClosed):
            return HandshakeFailed("it closed the connection in the TLS handshake")
        return HandshakeFailed(f"the TLS handshake failed: {type(error).__name__}")
