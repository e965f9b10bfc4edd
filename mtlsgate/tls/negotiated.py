"""
What TLS agreed on, as a transport tells it to an application's protocol.
"""

from __future__ import annotations

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import INegotiated, IProtocol, ISystemHandle
from zope.interface import implementer

from mtlsgate.tls.engine import Engine
from mtlsgate.tls.stream import SocketStream


@implementer(INegotiated, ISystemHandle)
class NegotiatedStream(SocketStream):  # type: ignore[override]  # unix sockets have other addresses
    """
    A stream with a TLS engine and an application's protocol.

    :ivar _engine: the TLS engine; None before TLS begins.
    :ivar _application: the protocol that gets the bytes; None before it may.
    """

    _engine: Engine | None = None
    _application: IProtocol | None = None

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return type(self._application or self).__name__ + ",TLS"

    def getPeerCertificate(self) -> X509 | None:
        """:returns: the other side's certificate; None if it has none or has left."""
        return None if self._engine is None else self._engine.certificate

    def getHandle(self) -> SSL.Connection | None:
        """:returns: OpenSSL's connection, to look things up; None after the end."""
        return None if self._engine is None else self._engine.connection

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The application protocol that ALPN chose, or None."""
        return None if self._engine is None else self._engine.alpn
