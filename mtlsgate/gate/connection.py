"""
One client's connection, from accept to close.

A `Connection` is the transport on the accepted socket.  It goes through the
stages of `mtlsgate.gate.stages` by itself, reads what each of them needs, and
hands itself to the application in one place only (`Connection._let_in`): after
the handshake, the verdict, the limits and the authorizer.
"""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Admitted, Pin, Rejection
from mtlsgate.certificates.server_names import same_name
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission, Negotiated
from mtlsgate.gate.judging import Held, Judging
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.server import GateServer, Serving
from mtlsgate.gate.stages import GONE, LATE, TRANSITIONS, Stage
from mtlsgate.gate.terms import Terms
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer
from mtlsgate.peer import TlsFacts, VerifiedPeer, address_text
from mtlsgate.proxyprotocol import Header, HeaderReader
from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.tls.clienthello import (
    Alert,
    ClientHello,
    ClientHelloReader,
    NoClientHello,
    alert_record,
)
from mtlsgate.tls.openssl_errors import handshake_rejection
from mtlsgate.tls.stream import READ_SIZE, StreamReactor
from mtlsgate.tls.transport import TlsTransport

_log = Logger("mtlsgate.gate")

#: How much is read at once before a client is admitted.
_EARLY_READ = 2**15

#: The length of a TLS record's header (RFC 8446, 5.1).
_RECORD_HEADER = 5


class Proxies(Protocol):
    """Which proxies may say for whom they connect."""

    def trusts(self, address: IAddress) -> bool:
        """:returns: whether a proxy is there."""


class Servers(Protocol):
    """
    The servers behind a listener, as a connection sees them; see
    `mtlsgate.gate.entrance.Entrance`.
    """

    key: str
    name: str
    registry: Registry
    judging: Judging | None
    proxies: Proxies | None
    reads_hello: bool
    terms: Terms
    handshake_timeout: float

    def choose(self, server_name: str | None) -> Serving | None: ...
    def began(self) -> None: ...
    def finished(self) -> None: ...


class Connection(TlsTransport):
    """
    The connection, and the transport that its application gets.

    ``IVerifiedPeer(transport)`` tells who is at the other end, and
    ``ITlsFacts(transport)`` what TLS agreed on.

    :ivar stage: where it is.
    :ivar entry: its line in the registry.
    :ivar _serving: the server, when it is known which.
    :ivar _reader: reads what comes before TLS.
    :ivar _hello: the ClientHello, if it was read before TLS.
    :ivar _received: bytes that the client sent before it was admitted.
    :ivar _beginning: the first of these, a record's header: OpenSSL does not tell
        what it takes for no TLS.
    :ivar _timer: ends what takes too long.
    :ivar _asking: waits for the authorizer.
    :ivar _is_left: whether the application ended it.
    :ivar _facts: see `ITlsFacts`.
    """

    stage = Stage.ACCEPTED
    read_size = _EARLY_READ
    _serving: Serving | None = None
    _reader: HeaderReader | ClientHelloReader | None = None
    _hello: ClientHello | None = None
    _received = 0
    _beginning = b""
    _timer: IDelayedCall | None = None
    _asking: Deferred[Rejection | None] | None = None
    _is_left = False
    _facts: TlsFacts | None = None

    def __init__(
        self,
        sock: socket.socket,
        reactor: StreamReactor,
        peer: IAddress,
        host: IAddress,
        servers: Servers,
        entry: Entry,
    ) -> None:
        """
        :param servers: among which one is chosen.
        :param entry: the connection's line in the registry.
        """
        super().__init__(sock, reactor, peer, host)
        self.entry = entry
        self._servers = servers
        self._registry = servers.registry

    def __conform__(self, interface: object) -> object:
        if interface is IVerifiedPeer:
            return None if self.entry.admission is None else self.entry.admission.peer
        return self._tls_facts() if interface is ITlsFacts else None

    def _tls_facts(self) -> TlsFacts | None:
        admission = self.entry.admission
        if self._facts is None and admission is not None:
            agreed = admission.negotiated
            own = None if self._engine is None else self._engine.own_certificate
            self._facts = TlsFacts(agreed.server_name, agreed.tls_version, agreed.cipher, own)
        return self._facts

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""
        return (0, 0) if self._engine is None else (self._engine.received, self._engine.sent)

    @property
    def _server(self) -> GateServer:
        assert self._serving is not None
        return self._serving.server

    def _enter(self, stage: Stage) -> None:
        if stage not in TRANSITIONS[self.stage]:
            raise RuntimeError(f"no way from {self.stage} to {stage}")
        self.stage = stage

    def bytes_came(self, data: bytes) -> None:
        """Handle what was read, as the stage has it."""
        match self.stage:
            case Stage.APPLICATION | Stage.CLOSING:
                super().bytes_came(data)
            case Stage.HANDSHAKE:
                self._shake(data)
            case Stage.CLIENT_HELLO:
                self._read_hello(data)
            case Stage.PROXY_HEADER:
                self._read_header(data)

    # ACCEPTED

    def begin(self) -> None:
        """Begin to read; called once, when the registry knows the connection."""
        servers = self._servers
        servers.began()
        # Nagle's algorithm against delayed acknowledgements costs 40 ms an exchange.
        self.setTcpNoDelay(True)
        self._limit_time(servers.handshake_timeout)
        self.startReading()
        if servers.proxies is None:
            self._after_header()
        elif servers.proxies.trusts(self._peer):
            self._enter(Stage.PROXY_HEADER)
            self._reader = HeaderReader()
        else:
            self._turn_away(
                Rejection(Reason.UNTRUSTED_PROXY, "it is not one of the trusted_proxies")
            )

    # PROXY_HEADER

    def _read_header(self, data: bytes) -> None:
        self._received += len(data)
        assert isinstance(self._reader, HeaderReader)
        outcome = self._reader.feed(data)
        if outcome is None:
            return
        if not isinstance(outcome, Header):
            self._turn_away(Rejection(Reason.PROXY_PROTOCOL_ERROR, outcome.detail))
            return
        client = None
        if outcome.source is not None and outcome.destination is not None:
            client, self._peer, self._host = outcome.source, outcome.source, outcome.destination
        rest, self._reader, self._received = self._reader.rest, None, 0
        if self._after_header(client) and rest:
            self.bytes_came(rest)

    def _after_header(self, client: IAddress | None = None) -> bool:
        """
        Go on to the ClientHello, or to TLS where there is nothing to choose.

        :param client: the client's address, if a header told it.
        :returns: whether the connection stays.
        """
        servers = self._servers
        if not servers.reads_hello:
            only = servers.choose(None)
            assert only is not None
            return self._begin_tls(only, client)
        if self.stage is Stage.PROXY_HEADER and not self._registry.move(
            self.entry, servers.name, servers.terms, client
        ):
            self._refused()
            return False
        self._enter(Stage.CLIENT_HELLO)
        self._reader = ClientHelloReader()
        return True

    # CLIENT_HELLO

    def _read_hello(self, data: bytes) -> None:
        self._received += len(data)
        assert isinstance(self._reader, ClientHelloReader)
        outcome = self._reader.feed(data)
        if isinstance(outcome, NoClientHello):
            self._refuse_hello(outcome)
        elif outcome is not None:
            self._choose(outcome, bytes(self._reader.received))
        elif self._is_too_much(self._received):
            self._say_too_much()

    def _choose(self, hello: ClientHello, received: bytes) -> None:
        serving = self._servers.choose(hello.server_name)
        if serving is None:
            name = "no server name" if hello.server_name is None else "a name no server declares"
            self._refuse_hello(
                NoClientHello(
                    Reason.UNKNOWN_SERVER_NAME,
                    f"the client asked for {name}",
                    Alert.UNRECOGNIZED_NAME,
                ),
                hello.server_name,
            )
            return
        self._hello, self._reader, self._received = hello, None, 0
        if self._begin_tls(serving):
            self._shake(received)

    def _refuse_hello(self, outcome: NoClientHello, server_name: str | None = None) -> None:
        self._tell(Rejection(outcome.reason, outcome.detail), server_name)
        if outcome.alert is not None:
            self.send(alert_record(outcome.alert))
        self.end_because(Failure(ConnectionDone()))

    # HANDSHAKE

    def _begin_tls(self, serving: Serving, client: IAddress | None = None) -> bool:
        """:returns: whether the server's limits let the connection stay."""
        server = serving.server
        if self.stage is not Stage.ACCEPTED and not self._registry.move(
            self.entry, server.name, server.terms, client
        ):
            self._refused()
            return False
        serving.began()
        self._serving = serving
        self._servers.finished()
        if server.handshake_timeout != self._servers.handshake_timeout:
            self._limit_time(server.handshake_timeout)
        self._engine = server.context.accept()
        self._enter(Stage.HANDSHAKE)
        return True

    def _shake(self, data: bytes) -> None:
        """Go on with the handshake, but not with more bytes than it may take."""
        if self._received < _RECORD_HEADER:
            self._beginning += data[:_RECORD_HEADER]
        before = self._received
        self._received += len(data)
        if not self._is_too_much(self._received):
            super().bytes_came(data)
            return
        limit = self.entry.terms.limits.handshake_bytes
        assert limit is not None
        allowed = max(0, limit - before)
        super().bytes_came(data[:allowed])
        if self.stage is Stage.HANDSHAKE:
            self._say_too_much()
        elif self.connected and not self.is_aborted:
            # What came behind the handshake is the application's.
            super().bytes_came(data[allowed:])

    def _is_too_much(self, received: int) -> bool:
        limit = self.entry.terms.limits.handshake_bytes
        return limit is not None and received > limit

    def _say_too_much(self) -> None:
        limit = self.entry.terms.limits.handshake_bytes
        self._turn_away(
            Rejection(
                Reason.HANDSHAKE_TOO_LARGE,
                f"the client sent more than {limit} bytes in its handshake",
            )
        )

    def tls_failed(self, error: Exception) -> None:
        """TLS failed: in the handshake, say why."""
        if self.stage is Stage.HANDSHAKE:
            assert self._engine is not None
            verdict = self._engine.handshake.verdict
            self._tell(
                verdict
                if isinstance(verdict, Rejection)
                else handshake_rejection(Failure(error), self._beginning)
            )
        super().tls_failed(error)

    def handshake_completed(self) -> None:
        """Hand the connection over, if the verdict is to admit."""
        self._stop_timing()
        try:
            self._judge()
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            self._broke()

    def _broke(self) -> None:
        _log.failure("{server}: admitting a client failed", server=self._server.name)
        self._turn_away(Rejection(Reason.INTERNAL_ERROR, "admitting the client failed"))

    def _judge(self) -> None:
        engine = self._engine
        assert engine is not None
        server_name = engine.server_name
        if self._hello is not None and not same_name(self._hello.server_name, server_name):
            # The rules are those of the name that was read first; after a
            # HelloRetryRequest the client may have named another.
            self._turn_away(
                Rejection(Reason.UNKNOWN_SERVER_NAME, "the client asked for one name, then another")
            )
            return
        agreed = Negotiated(
            server_name=server_name,
            tls_version=engine.version,
            cipher=engine.cipher,
            group=engine.group,
            alpn=None if engine.alpn is None else engine.alpn.decode("ascii", "backslashreplace"),
            resumed=engine.handshake.resumed,
        )
        if self._server.context.admission is None:
            self._consider(None, None, agreed)
        elif isinstance(engine.verdict, Admitted):
            peer = _verified_peer(engine.verdict, agreed, self._peer)
            self._consider(peer, engine.verdict.pin, agreed)
        else:
            assert engine.verdict is not None
            self._turn_away(engine.verdict)

    def _consider(self, peer: VerifiedPeer | None, pin: Pin | None, agreed: Negotiated) -> None:
        """Ask whatever else there is to be asked of a client that the rules admit."""
        answer: Rejection | Deferred[Rejection | None] | None = self._objection(peer, pin, agreed)
        authorizer = self._server.authorizer
        if answer is None and peer is not None and authorizer is not None:
            answer = authorizer.objection(peer, self._registry.clock)
        if isinstance(answer, Deferred):
            # Its time limit is the authorizer's own.
            self._enter(Stage.AUTHORIZER)
            self.pauseProducing()
            # First, for the answer may be there already.
            self._asking = answer
            answer.addCallback(self._answered, peer, pin, agreed)
        else:
            self._settle(answer, peer, pin, agreed)

    # AUTHORIZER

    def _answered(
        self,
        objection: Rejection | None,
        peer: VerifiedPeer | None,
        pin: Pin | None,
        agreed: Negotiated,
    ) -> None:
        self._asking = None
        if self.stage is not Stage.AUTHORIZER or self.is_aborted:
            # It ends already.
            return
        self.resumeProducing()
        try:
            # The epoch, the limits and the time may have changed since.
            self._settle(objection or self._objection(peer, pin, agreed), peer, pin, agreed)
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            self._broke()

    def _objection(
        self, peer: VerifiedPeer | None, pin: Pin | None, agreed: Negotiated
    ) -> Rejection | None:
        """:returns: why the client does not come in as things stand now, or None."""
        held = self._held(peer, pin, agreed)
        if isinstance(held, Rejection):
            return held
        if held is not None:
            self._registry.hold(self.entry, held.server, held.terms)
        identity = None if peer is None else peer.identity
        return self._registry.refuse_admission(self.entry, identity)

    def _held(
        self, peer: VerifiedPeer | None, pin: Pin | None, agreed: Negotiated
    ) -> Held | Rejection | None:
        """
        :returns: what the client is held to now, or why it is not admitted any
            more; None if nothing has changed since the verdict.
        """
        server, judging, listener = self._server, self._servers.judging, self._servers.key
        if judging is not None and not judging.is_in_force(listener, server):
            return judging.judge(listener, agreed.server_name, peer)
        if peer is None or not self._time_has_passed(pin):
            return None
        judge = server.context.judge
        assert judge is not None
        verdict = judge.again(peer.certificates)
        if isinstance(verdict, Rejection):
            return verdict
        peer = evolve(peer, rule=verdict.rule.name)
        return Held(server=server.name, terms=server.terms, peer=peer, pin=verdict.pin)

    def _time_has_passed(self, pin: Pin | None) -> bool:
        """
        :returns: whether something that the verdict depends on may have ended
            since.  Certificates and CRLs count in whole seconds.
        """
        assert self._engine is not None
        judged, now = self._engine.handshake.judged_at, self._server.context.now()
        if judged is None or _second(judged) != _second(now):
            return True
        retires = None if pin is None else pin.retire_after
        return retires is not None and judged < retires <= now

    def _settle(
        self,
        objection: Rejection | None,
        peer: VerifiedPeer | None,
        pin: Pin | None,
        agreed: Negotiated,
    ) -> None:
        if objection is not None:
            self._turn_away(objection)
        else:
            self._let_in(peer, pin, agreed)

    # APPLICATION

    def _let_in(self, peer: VerifiedPeer | None, pin: Pin | None, agreed: Negotiated) -> None:
        server, registry = self._server, self._registry
        held = self._held(peer, pin, agreed)
        if isinstance(held, Held):
            peer, pin = held.peer, held.pin
        identity = None if peer is None else peer.identity
        registry.admit(
            self.entry,
            Admission(
                peer=peer,
                identity=identity,
                pin=pin,
                negotiated=agreed,
                since=registry.clock.seconds(),
                is_first_use=pin is not None and server.pins_used.note(pin, identity),
            ),
        )
        self._hand_over()

    def _hand_over(self) -> None:
        server = self._server
        try:
            application = server.application.buildProtocol(self._peer)
            if application is None:
                self._declined()
                return
            self._enter(Stage.APPLICATION)
            self.read_size = READ_SIZE
            self._application = application
            application.makeConnection(self)
            if IHandshakeListener.providedBy(application):
                application.handshakeCompleted()
        except Exception:  # noqa: BLE001 -- it is not ours; it costs this connection alone
            _log.failure(
                "{server}: the application failed to take {peer_address}",
                server=server.name,
                peer_address=address_text(self._peer),
            )
            self.abortConnection()

    def _declined(self) -> None:
        _log.info(
            "{server}: the application declined {peer_address}",
            server=self._server.name,
            peer_address=address_text(self._peer),
        )
        self._enter(Stage.CLOSING)
        self.loseConnection()
        # Which waits for the client to end TLS, too.
        clock = self._registry.clock
        self._timer = clock.callLater(self._server.handshake_timeout, self.abortConnection)

    # CLOSING

    def _turn_away(self, rejection: Rejection) -> None:
        """Say why the client does not come in, and end the connection at once."""
        self._tell(rejection)
        self.abortConnection()

    def _tell(self, rejection: Rejection, server_name: str | None = None) -> None:
        self._stop_timing()
        if self.stage in (Stage.CLOSING, Stage.OVER):
            return
        self._enter(Stage.CLOSING)
        engine = self._engine
        if engine is not None:
            server_name = engine.server_name
        elif server_name is not None:
            server_name = printable(server_name)
        self._registry.reject(
            self.entry,
            rejection,
            leaf=None if engine is None else engine.presented_leaf(),
            server_name=server_name,
            tls_version=None if engine is None else engine.version,
            received=self._received,
        )

    def _refused(self) -> None:
        """A limit keeps the connection out, as the registry has told already."""
        self._stop_timing()
        self._enter(Stage.CLOSING)
        if self._servers.proxies is None:
            self.end_because(Failure(ConnectionDone()))
        else:
            self.abortConnection()

    def loseConnection(self) -> None:
        """End the connection in good order."""
        self._note_leaving()
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        """Send close_notify after everything written."""
        self._note_leaving()
        super().loseWriteConnection()

    def abortConnection(self) -> None:
        """Reset the connection."""
        self._note_leaving()
        super().abortConnection()

    def _note_leaving(self) -> None:
        # Not when it is lost: a transport then stops its producer, and
        # producers end what they write to.
        if self.connected:
            self._is_left = True

    def connectionLost(self, reason: Failure) -> None:
        """Account for the connection, when everybody else knows."""
        if self.disconnected:
            return
        traffic = self.traffic
        if self.stage in GONE:
            asked, self._asking = self._asking, None
            self._tell(self._gone())
            if asked is not None:
                asked.cancel()
        self._stop_timing()
        self._enter(Stage.OVER)
        try:
            super().connectionLost(reason)
        finally:
            # Also if the application fails at it, which would be counted for ever.
            self._account(reason, traffic)

    def _gone(self) -> Rejection:
        return Rejection(Reason.PEER_GONE, GONE[self.stage])

    def _account(self, reason: Failure, traffic: tuple[int, int]) -> None:
        if not self.entry.ended:
            self._registry.end(self.entry, reason, *traffic, by_application=self._is_left)
        if self._serving is None:
            self._servers.finished()
        else:
            self._serving.finished()

    # Time.

    def _limit_time(self, seconds: float) -> None:
        """:param seconds: from the connection's arrival to its verdict."""
        self._stop_timing()
        clock = self._registry.clock
        waited = clock.seconds() - self.entry.arrival.began
        self._timer = clock.callLater(max(0, seconds - waited), self._timed_out, seconds)

    def _timed_out(self, seconds: float) -> None:
        self._turn_away(Rejection(Reason.HANDSHAKE_TIMEOUT, LATE[self.stage].format(seconds)))

    def _stop_timing(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _second(instant: datetime) -> int:
    return int(instant.timestamp())


def _verified_peer(verdict: Admitted, agreed: Negotiated, address: IAddress) -> VerifiedPeer:
    return VerifiedPeer(
        path=verdict.path,
        rule=verdict.rule.name,
        address=address,
        server_name=agreed.server_name,
        tls_version=agreed.tls_version,
        cipher=agreed.cipher,
        group=agreed.group,
        alpn=agreed.alpn,
        resumed=agreed.resumed,
    )
