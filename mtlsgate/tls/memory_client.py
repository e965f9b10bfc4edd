"""
The client's end: TLS on memory BIOs, and the pump that carries its bytes to
and from a server's :class:`~mtlsgate.tls.memory_transport.MemoryTransport`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from attrs import field, frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import Logger

from mtlsgate.certificates.development_ca import Credential
from mtlsgate.tls.memory_socket import TakesSockets, Wire
from mtlsgate.tls.memory_transport import Address, MemoryTransport
from mtlsgate.tls.openssl_errors import last_reason
from mtlsgate.tls.trust import fill

Version = Literal["1.0", "1.1", "1.2", "1.3"]


@frozen
class Session:
    """
    A TLS session that a later :class:`Client` can offer.

    :ivar ticket: pyOpenSSL's session.
    :ivar context: the client's context that it belongs to.
    :ivar holders: the connections that use it.  They are kept because OpenSSL
        invalidates a session when one of them is freed without a shutdown.
    """

    ticket: SSL.Session = field(repr=False)
    context: SSL.Context = field(repr=False)
    holders: list[SSL.Connection] = field(factory=list, repr=False, eq=False)


class Client:
    """
    A TLS client of a server's factory.

    It connects when it is created, and sends nothing until :meth:`handshake`,
    :meth:`pump` or :meth:`step`.  In TLS 1.3 a client completes its handshake
    before it learns that the server rejected it.  Use :attr:`established`, which is
    true only if the connection was pumped and not rejected.

    It presents any certificate, however weak, so that the server decides.

    :ivar transport: the server's end of the connection.
    :ivar refused: the factory built no protocol.
    :ivar connection: pyOpenSSL's connection, for everything not offered here.
    :ivar error: OpenSSL's reason if this end failed, or ``None``.
    :ivar close_notified: the server sent close_notify.
    """

    _log = Logger()

    def __init__(
        self,
        factory: TakesSockets | IProtocolFactory,
        credential: Credential | None = None,
        *,
        clock: Clock,
        trust: Sequence[x509.Certificate] | None = None,
        server_name: str | None = None,
        min_version: Version | None = None,
        max_version: Version | None = None,
        alpn: Sequence[str] = (),
        chain: Sequence[x509.Certificate] | None = None,
        session: Session | None = None,
        answer_close: bool = True,
        piece_size: int | None = None,
        address: Address = IPv4Address("TCP", "127.0.0.1", 50000),  # noqa: B008 -- immutable
        host: Address = IPv4Address("TCP", "127.0.0.1", 8443),  # noqa: B008 -- immutable
    ) -> None:
        """
        :param factory: takes the connection: a gate, or any factory whose
            protocols speak TLS.
        :param credential: the certificate to present if the server asks.
        :param clock: the clock that the server was created with.
        :param trust: the server's certificate must chain to one of these; its
            name is not checked.  ``None`` accepts any certificate.
        :param server_name: the name to ask for (SNI).
        :param min_version: the oldest TLS version; by default OpenSSL's.
        :param max_version: the newest TLS version; by default OpenSSL's.
        :param alpn: the protocols to offer, the preferred one first.
        :param chain: certificates to send after the leaf, instead of the
            credential's intermediates.
        :param session: an earlier client's session to offer.  That client's
            ``trust``, versions and ``chain`` then replace those given here.
        :param answer_close: answer the server's close_notify, as good clients do.
            Twisted's TLS waits forever without an answer.
        :param piece_size: deliver this many bytes at a time to the server.
        :param address: the client's address, as the server sees it.
        :param host: the server's address.
        """
        if chain is None:
            chain = credential.intermediates if credential is not None else ()
        if session is None:
            context = _context(trust or (), chain, min_version, max_version)
        else:
            context = session.context
        self.error: str | None = None
        self.close_notified = False
        self._clock = clock
        self._handshaken = False
        self._answer_close = answer_close
        self._certificates = _Certificates()
        self._received = bytearray()
        self._reading = True
        self.connection = connection = SSL.Connection(context, None)
        connection.set_connect_state()
        mode = SSL.VERIFY_NONE if trust is None else SSL.VERIFY_PEER
        connection.set_verify(mode, self._certificates.seen)
        # Set on the connection: a session shares the context.
        if credential is not None:
            connection.use_certificate(credential.certificate)
            connection.use_privatekey(credential.private_key)
        if server_name is not None:
            connection.set_tlsext_host_name(server_name.encode("ascii"))
        if alpn:
            connection.set_alpn_protos([each.encode("ascii") for each in alpn])
        if session is not None:
            connection.set_session(session.ticket)
        # The session it resumes and the session it gets may be the same.
        self._holders = [] if session is None else session.holders
        self._holders.append(connection)
        self.transport: Any
        if isinstance(factory, TakesSockets):
            self.transport = Wire(factory, clock, host, address, piece_size)
            self.refused = self.transport.is_refused
        else:
            self.transport = MemoryTransport(clock, host, address, piece_size)
            self.refused = not self.transport.accept(factory)

    # Actions.

    def handshake(self) -> None:
        """Start the handshake, and go on until neither side has bytes to send."""
        self.pump()

    def send(self, data: bytes) -> None:
        """
        Send application bytes and pump; do the handshake first if necessary.
        Like a transport, it drops bytes that can no longer be sent.
        """
        if not self._handshaken:
            self.pump()
        self.write(data)
        self.pump()

    def receive(self) -> bytes:
        """
        :returns: the application bytes that came since the last call.
        """
        self.pump()
        data, self._received = bytes(self._received), bytearray()
        return data

    def close(self) -> None:
        """Send close_notify, then FIN."""
        self._reading = True
        self._shutdown()
        self.step()
        self.transport.finish()
        self.pump()

    def reset(self) -> None:
        """Drop the connection without close_notify, like a TCP reset."""
        self.transport.lose(ConnectionLost())
        self.pump()

    def pause_reading(self) -> None:
        """Take nothing from the server, so that its writes pile up on its side."""
        self._reading = False

    def resume_reading(self) -> None:
        """Take bytes from the server again, starting with those that piled up."""
        self._reading = True
        self.pump()

    def pump(self) -> None:
        """
        Carry bytes both ways and run what is due, until nothing more happens.

        :raises RuntimeError: if this never ends.
        """
        for _ in range(10_000):
            if not self.step():
                return
        raise RuntimeError("the connection never falls quiet")

    # Single steps, for hostile tests.

    def step(self) -> int:
        """
        Carry one side's pending bytes to the other: the client's if it has
        any, and otherwise the server's.

        :returns: how many bytes; 0 if neither side has any.
        """
        self._run_due()
        data = self.take_outgoing()
        if data:
            self.transport.deliver(data)
        elif self._reading:
            data = self.transport.take()
            if data:
                self.connection.bio_write(data)
                self._progress()
        return len(data)

    def write(self, data: bytes) -> None:
        """
        Encrypt application bytes and leave them pending.  This can put them
        behind the handshake's last flight, the earliest moment allowed.
        """
        if self._handshaken and self.error is None:
            self._ask(lambda: self.connection.sendall(data))

    def take_outgoing(self) -> bytes:
        """
        :returns: the client's pending bytes.  The caller must deliver them.
        """
        self._progress()
        taken = bytearray()
        try:
            while True:
                taken += self.connection.bio_read(2**16)
        except SSL.WantReadError:
            return bytes(taken)

    def raw_send(self, data: bytes) -> None:
        """Deliver bytes to the server as they are, and do not pump."""
        self.transport.deliver(data)

    # Results.

    @property
    def established(self) -> bool:
        """The handshake is complete, and the server has neither rejected it nor left."""
        healthy = self.error is None and not self.close_notified
        return self._handshaken and healthy and not self.disconnected

    @property
    def disconnected(self) -> bool:
        """The connection is over, whichever side ended it."""
        return not self.transport.connected

    @property
    def aborted(self) -> bool:
        """The server ended the connection abruptly."""
        return bool(self.transport.aborted)

    @property
    def alert(self) -> str | None:
        """
        The fatal alert that the server sent, in OpenSSL's words, such as
        ``tlsv13 alert certificate required``.
        """
        return self.error if self.error is not None and " alert " in self.error else None

    @property
    def resumed(self) -> bool:
        """
        The server accepted the offered session: the handshake is complete, and
        the server sent no certificate.
        """
        return self._handshaken and not self._certificates.were_seen

    @property
    def tls_version(self) -> str:
        """The TLS version, such as ``TLSv1.3``."""
        return self.connection.get_protocol_version_name()

    @property
    def cipher(self) -> str | None:
        """OpenSSL's name for the cipher suite."""
        return self.connection.get_cipher_name()

    @property
    def negotiated_alpn(self) -> str | None:
        """The protocol that the server chose."""
        return self.connection.get_alpn_proto_negotiated().decode("ascii") or None

    @property
    def server_certificate(self) -> x509.Certificate | None:
        """The server's leaf."""
        return self.connection.get_peer_certificate(as_cryptography=True)

    @property
    def requested_ca_names(self) -> list[x509.Name]:
        """The CA names in the server's CertificateRequest."""
        return self.connection.get_client_ca_list(as_cryptography=True)

    @property
    def session(self) -> Session | None:
        """A session for a later client to offer; in TLS 1.3 it comes after the handshake."""
        ticket = self.connection.get_session()
        if ticket is None:
            return None
        return Session(ticket, self.connection.get_context(), self._holders)

    # Internals.

    def _run_due(self) -> None:
        try:
            self._clock.advance(0)
        except Exception:  # noqa: BLE001 -- a reactor logs it and goes on, a Clock raises it
            self._log.failure("Unhandled error in a delayed call")
        self.transport.turn()

    def _progress(self) -> None:
        """Let TLS process the bytes that came."""
        if not self._handshaken and self.error is None:
            self._handshaken = self._ask(self.connection.do_handshake)
        while self._handshaken and self.error is None and not self.close_notified:
            if not self._ask(self._receive):
                return

    def _receive(self) -> None:
        self._received += self.connection.recv(2**16)

    def _ask(self, function: Callable[[], object]) -> bool:
        """
        :returns: whether OpenSSL could do it now.  A permanent failure is
            recorded in ``error``.
        """
        try:
            function()
        except SSL.WantReadError:
            return False
        except SSL.ZeroReturnError:
            self.close_notified = True
            if self._answer_close:
                self._shutdown()
            return False
        except SSL.Error as error:
            self.error = last_reason(error) or repr(error)
            return False
        return True

    def _shutdown(self) -> None:
        # OpenSSL refuses a shutdown before the handshake and after an error.
        with suppress(SSL.Error):
            self.connection.shutdown()


class _Certificates:
    """
    Whether the server showed certificates.

    The client is no part of it: its connection, which holds the callback, and OpenSSL's
    context would stay until garbage is collected.
    """

    were_seen = False

    def seen(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        """:returns: whether to go on with the handshake."""
        self.were_seen = True
        return bool(ok) or connection.get_verify_mode() == SSL.VERIFY_NONE


def _context(
    trust: Sequence[x509.Certificate],
    chain: Sequence[x509.Certificate],
    min_version: Version | None,
    max_version: Version | None,
) -> SSL.Context:
    versions = {
        None: 0,
        "1.0": SSL.TLS1_VERSION,
        "1.1": SSL.TLS1_1_VERSION,
        "1.2": SSL.TLS1_2_VERSION,
        "1.3": SSL.TLS1_3_VERSION,
    }
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # Weak certificates must reach the server, which judges them.
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    # SSL_MODE_NO_AUTO_CHAIN: send ``chain`` and nothing out of ``trust``.
    context.set_mode(0x8)
    context.set_min_proto_version(versions[min_version])
    context.set_max_proto_version(versions[max_version])
    for certificate in chain:
        context.add_extra_chain_cert(certificate)
    fill(context.get_cert_store(), trust, X509StoreFlags.PARTIAL_CHAIN)
    return context
