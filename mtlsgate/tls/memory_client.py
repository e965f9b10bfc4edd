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
from mtlsgate.tls.memory_socket import Acceptor, Wire
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
    :ivar holders: the connections that have it.  OpenSSL takes a session for
        unfit once one of them is freed without having been shut down.
    """

    ticket: SSL.Session = field(repr=False)
    context: SSL.Context = field(repr=False)
    holders: list[SSL.Connection] = field(factory=list, repr=False, eq=False)


class Client:
    """
    A TLS client of a server's factory.

    It connects when it is made, and says nothing until :meth:`handshake`,
    :meth:`pump` or :meth:`step`.  In TLS 1.3 a client that the server rejects
    has completed its handshake before it hears so: ask :attr:`established`,
    which is true only of what was pumped and not rejected.

    It takes any certificate for its own, however weak, so that the verdict is
    the server's.

    :ivar transport: the server's end of the connection.
    :ivar refused: the factory built no protocol.
    :ivar connection: pyOpenSSL's, for whatever has no name here.
    :ivar error: OpenSSL's reason for the failure of this end, or ``None``.
    :ivar close_notified: the server ended TLS in good order.
    """

    _log = Logger()

    def __init__(
        self,
        factory: Acceptor | IProtocolFactory,
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
        :param factory: what takes the connection: a gate, or any factory whose
            protocols do TLS.
        :param credential: what to present if the server asks.
        :param clock: the one that the server was made with.
        :param trust: the server's certificate must lead to one of these; its
            name is not compared.  ``None`` accepts any certificate.
        :param server_name: the name to ask for (SNI).
        :param min_version: by default OpenSSL's.
        :param max_version: by default OpenSSL's.
        :param alpn: the protocols to offer, the preferred one first.
        :param chain: what to send after the leaf, in place of the
            credential's intermediates.
        :param session: an earlier client's, to offer.  It brings that client's
            ``trust``, versions and ``chain`` with it, in place of those given here.
        :param answer_close: answer the server's close_notify, as good clients
            do and without which Twisted's TLS waits for ever.
        :param piece_size: deliver to the server so many bytes at a time.
        :param address: the client's address, as the server sees it.
        :param host: the server's.
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
        self._saw_certificate = False
        self._received = bytearray()
        self._reading = True
        self.connection = connection = SSL.Connection(context, None)
        connection.set_connect_state()
        mode = SSL.VERIFY_NONE if trust is None else SSL.VERIFY_PEER
        connection.set_verify(mode, self._certificate_seen)
        # On the connection and not on the context, which a session shares.
        if credential is not None:
            connection.use_certificate(credential.certificate)
            connection.use_privatekey(credential.private_key)
        if server_name is not None:
            connection.set_tlsext_host_name(server_name.encode("ascii"))
        if alpn:
            connection.set_alpn_protos([each.encode("ascii") for each in alpn])
        if session is not None:
            connection.set_session(session.ticket)
        # What it resumes, and is given to resume by, may be one and the same.
        self._holders = [] if session is None else session.holders
        self._holders.append(connection)
        self.transport: Any
        if isinstance(factory, Acceptor):
            self.transport = Wire(factory, clock, host, address, piece_size)
            self.refused = self.transport.is_refused
        else:
            self.transport = MemoryTransport(clock, host, address, piece_size)
            self.refused = not self.transport.accept(factory)

    # What to do.

    def handshake(self) -> None:
        """Say hello, and go on until both sides are quiet."""
        self.pump()

    def send(self, data: bytes) -> None:
        """
        Send application bytes, after the handshake if that is still to be
        done, and pump.  Like a transport it drops what can no longer be sent.
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
        """End TLS in good order, then the connection (close_notify and FIN)."""
        self._reading = True
        self._shutdown()
        self.step()
        self.transport.finish()
        self.pump()

    def reset(self) -> None:
        """Lose the connection without a word, as with a TCP reset."""
        self.transport.lose(ConnectionLost())
        self.pump()

    def pause_reading(self) -> None:
        """Take nothing from the server, so that what it writes piles up on its side."""
        self._reading = False

    def resume_reading(self) -> None:
        """Take from the server again, beginning with what has piled up."""
        self._reading = True
        self.pump()

    def pump(self) -> None:
        """
        Carry bytes both ways, and let everything run that is due now, until
        nothing moves.

        :raises RuntimeError: if that does not come to an end.
        """
        for _ in range(10_000):
            if not self.step():
                return
        raise RuntimeError("the connection never falls quiet")

    # What to do by hand, for hostile tests.

    def step(self) -> int:
        """
        Carry one side's pending bytes to the other: the client's if it has
        any, and otherwise the server's.

        :returns: how many; 0 if both sides are quiet.
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
        Encrypt application bytes and leave them pending, behind whatever else
        is: with the handshake's last flight, as early as a client may.
        """
        if self._handshaken and self.error is None:
            self._ask(lambda: self.connection.sendall(data))

    def take_outgoing(self) -> bytes:
        """
        :returns: the client's pending bytes, which are then delivered only by
            whoever called this.
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

    # What came of it.

    @property
    def established(self) -> bool:
        """The handshake is done, and the server has neither objected nor left."""
        healthy = self.error is None and not self.close_notified
        return self._handshaken and healthy and not self.disconnected

    @property
    def disconnected(self) -> bool:
        """The connection is over, whoever ended it."""
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
        The server took up the offered session: the handshake is done, and
        without a certificate from it.
        """
        return self._handshaken and not self._saw_certificate

    @property
    def tls_version(self) -> str:
        """As ``TLSv1.3``."""
        return self.connection.get_protocol_version_name()

    @property
    def cipher(self) -> str | None:
        """OpenSSL's name of the cipher suite."""
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
        """The subjects of the CAs that the server asked for a certificate of."""
        return self.connection.get_client_ca_list(as_cryptography=True)

    @property
    def session(self) -> Session | None:
        """What a later client may offer; in TLS 1.3 it comes after the handshake."""
        ticket = self.connection.get_session()
        if ticket is None:
            return None
        return Session(ticket, self.connection.get_context(), self._holders)

    # How it is done.

    def _run_due(self) -> None:
        try:
            self._clock.advance(0)
        except Exception:  # noqa: BLE001 -- a reactor logs it and goes on, a Clock raises it
            self._log.failure("Unhandled error in a delayed call")
        self.transport.turn()

    def _progress(self) -> None:
        """Do what TLS can do with what has come."""
        if not self._handshaken and self.error is None:
            self._handshaken = self._ask(self.connection.do_handshake)
        while self._handshaken and self.error is None and not self.close_notified:
            if not self._ask(self._receive):
                return

    def _receive(self) -> None:
        self._received += self.connection.recv(2**16)

    def _ask(self, function: Callable[[], object]) -> bool:
        """
        :returns: whether OpenSSL could do it now; if it never will, that is
            noted too.
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
        # Before the handshake there is nothing to shut down, and after an
        # error OpenSSL refuses.
        with suppress(SSL.Error):
            self.connection.shutdown()

    def _certificate_seen(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        self._saw_certificate = True
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
    # Weak certificates must reach the server to be judged there.
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    # SSL_MODE_NO_AUTO_CHAIN: send ``chain`` and nothing out of ``trust``.
    context.set_mode(0x8)
    context.set_min_proto_version(versions[min_version])
    context.set_max_proto_version(versions[max_version])
    for certificate in chain:
        context.add_extra_chain_cert(certificate)
    fill(context.get_cert_store(), trust, X509StoreFlags.PARTIAL_CHAIN)
    return context
