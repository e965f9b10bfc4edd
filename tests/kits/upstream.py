"""
A TLS server in memory, for tests of what the gate dials.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from mtlsgate.testing import Credential, Version
from mtlsgate.tls.memory_reactor import MemoryReactor
from mtlsgate.tls.memory_socket import MemorySocket
from mtlsgate.tls.plain import PlainTransport
from mtlsgate.tls.stream import SocketStream

_ADDRESS = IPv4Address("TCP", "127.0.0.1", 9000)
_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@implementer(IStreamClientEndpoint)
class MemoryServer:
    """
    An endpoint to a server that speaks TLS.

    :ivar client: the certificate that the client showed.
    :ivar asked_for: the name that it asked for (SNI).
    :ivar received: what it sent, decrypted.
    :ivar plain: what it sent before TLS, as far as `preface` says.
    :ivar error: OpenSSL's reason for the failure of this end.
    """

    def __init__(
        self,
        credential: Credential,
        clock: Clock,
        version: Version | None = None,
        ask: bool = False,
        demand: bool = False,
        preface: int = 0,
        refuse: bool = False,
        stays: bool = False,
    ) -> None:
        """
        :param ask: ask for a client certificate, and take any.
        :param demand: take no client without one.
        :param preface: how many bytes come before TLS.
        :param refuse: take no client certificate at all.
        :param stays: do not answer the end of the client's stream: see `end`.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        if version is not None:
            context.set_min_proto_version(_VERSIONS[version])
            context.set_max_proto_version(_VERSIONS[version])
        context.use_certificate(credential.certificate)
        for intermediate in credential.intermediates:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(credential.private_key)
        if ask:
            context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        if demand:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        if refuse:
            context.set_verify(SSL.VERIFY_PEER, lambda *_: False)
        self._context = context
        self._clock = clock
        self._preface = preface
        self._stays = stays
        self.client: x509.Certificate | None = None
        self.asked_for: str | None = None
        self.received = b""
        self.plain = b""
        self.error: str | None = None
        self.transport: SocketStream | None = None
        self._reactor = MemoryReactor(clock)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.connection = SSL.Connection(self._context, None)
        self.connection.set_accept_state()
        ours, theirs = socket.socketpair()
        self._socket = MemorySocket(ours.detach())
        self._socket.setblocking(False)
        plain = PlainTransport(MemorySocket(theirs.detach()), self._reactor, _ADDRESS, _ADDRESS)
        protocol = factory.buildProtocol(_ADDRESS)
        assert protocol is not None
        plain.begin(protocol)
        [transport] = self._reactor.getReaders()
        assert isinstance(transport, SocketStream)
        self.transport = transport
        return succeed(protocol)

    def end(self) -> None:
        """End the stream to the client with close_notify."""
        self.connection.shutdown()
        self.pump()

    def finish(self) -> None:
        """End the connection without a close_notify."""
        self._socket.shutdown(socket.SHUT_WR)
        self._let_the_gate_act()

    def say(self, data: bytes) -> None:
        """Send bytes as they are, without TLS."""
        self._socket.sendall(data)
        self._let_the_gate_act()

    def _let_the_gate_act(self) -> None:
        while self._reactor.turn():
            self._clock.advance(0)

    def pump(self) -> None:
        """Carry bytes until both sides are quiet."""
        for _ in range(1000):
            self._clock.advance(0)
            if not (self._reactor.turn() | self._step()):
                return
        raise AssertionError("the connection never falls quiet")

    def _step(self) -> bool:
        data = b""
        with suppress(OSError):
            data = self._socket.recv(2**18)
        missing = self._preface - len(self.plain)
        self.plain += data[:missing]
        if data[missing:]:
            self.connection.bio_write(data[missing:])
        if self.error is None:
            try:
                self.connection.do_handshake()
                self.client = self.connection.get_peer_certificate(as_cryptography=True)
                while True:
                    self.received += self.connection.recv(2**16)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                if not self._stays:
                    self.connection.shutdown()
            except SSL.Error as error:
                self.error = error.args[0][-1][-1] if error.args else "closed"
        name = self.connection.get_servername()
        self.asked_for = None if name is None else name.decode()
        sent = bytearray()
        with suppress(SSL.WantReadError):
            while True:
                sent += self.connection.bio_read(2**16)
        if sent:
            with suppress(OSError):
                # The gate may have ended the connection.
                self._socket.sendall(sent)
        return bool(data or sent)

    def send(self, data: bytes) -> None:
        """Send application bytes."""
        self.connection.sendall(data)
        self.pump()


@implementer(IStreamClientEndpoint)
class ScriptedEndpoint:
    """
    An endpoint that does what a test says.

    :ivar waiting: connections that are neither made nor failed yet.
    :ivar calls: how often it was asked to connect.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[IProtocol], IProtocolFactory]] = []
        self.outcome: Exception | None = None
        self.hangs = False
        self.calls = 0
        self.cancelled = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.calls += 1
        if self.hangs:

            def cancel(_: object) -> None:
                self.cancelled += 1

            waiting: Deferred[IProtocol] = Deferred(cancel)
            self.waiting.append((waiting, factory))
            return waiting
        if isinstance(self.outcome, Exception):
            return fail(self.outcome)
        protocol = factory.buildProtocol(_ADDRESS)
        assert protocol is not None
        return succeed(protocol)
