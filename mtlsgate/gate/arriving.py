"""
A connection before TLS: the PROXY header, the exchange in which a client asks for TLS,
and the ClientHello if it decides which server the client gets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.server import Serving
from mtlsgate.gate.stages import LATE, TRANSITIONS, Stage
from mtlsgate.gate.terms import Terms
from mtlsgate.proxyprotocol import Header, HeaderReader
from mtlsgate.reasons import Reason
from mtlsgate.starttls import Negotiation, NoUpgrade, Upgrade
from mtlsgate.text import printable
from mtlsgate.tls.challenge import ACME_TLS, challenge_engine
from mtlsgate.tls.clienthello import (
    Alert,
    ClientHello,
    ClientHelloReader,
    NoClientHello,
    alert_record,
)
from mtlsgate.tls.stream import StreamReactor
from mtlsgate.tls.transport import TlsTransport

_log = Logger("mtlsgate.gate")

#: How many bytes are read at once before a client is admitted.
_EARLY_READ = 2**15


class Proxies(Protocol):
    """Knows which proxies are trusted."""

    def trusts(self, address: IAddress) -> bool:
        """:returns: whether this is a trusted proxy's address."""


class Challenges(Protocol):
    """Knows the names that a CA is about to validate."""

    def find(self, server_name: str) -> ServerCredential | None:
        """:returns: the certificate that answers the CA; None if no name is pending."""

    def answered(self, server_name: str, address: IAddress) -> None:
        """A client has got the answer."""


class Servers(Protocol):
    """
    What a connection needs from the listener's `mtlsgate.gate.entrance.Entrance`.
    """

    key: str
    name: str
    connections: Connections
    judging: Judging | None
    proxies: Proxies | None
    negotiate: Callable[[], Negotiation] | None
    reads_hello: bool
    challenges: Challenges | None
    terms: Terms
    handshake_timeout: float

    @property
    def known(self) -> tuple[str, Terms]: ...
    def choose(self, server_name: str | None) -> Serving | None: ...
    def began(self) -> None: ...
    def finished(self) -> None: ...


class ArrivingConnection(TlsTransport):
    """
    The first stages of a connection.

    :ivar stage: its current stage.
    :ivar entry: its entry in `Connections`.
    :ivar _serving: the server; None until it is known.
    :ivar _reader: reads what comes before TLS.
    :ivar _negotiation: the exchange in which the client asks for TLS, while it lasts.
    :ivar _hello: the ClientHello, if it was read before TLS.
    :ivar _received: how many bytes the client sent before it was admitted.
    :ivar _timer: rejects the client when time is up.
    """

    stage = Stage.ACCEPTED
    read_size = _EARLY_READ
    _serving: Serving | None = None
    _reader: HeaderReader | ClientHelloReader | None = None
    _negotiation: Negotiation | None = None
    _hello: ClientHello | None = None
    _received = 0
    _timer: IDelayedCall | None = None

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
        :param servers: the servers to choose from.
        :param entry: the connection's entry in `Connections`.
        """
        super().__init__(sock, reactor, peer, host)
        self.entry = entry
        self._servers = servers
        self._connections = servers.connections

    def _enter(self, stage: Stage) -> None:
        if stage not in TRANSITIONS[self.stage]:
            raise RuntimeError(f"no way from {self.stage} to {stage}")
        self.stage = stage

    def bytes_came(self, data: bytes) -> None:
        """Handle what was read before TLS."""
        if self.stage is Stage.PROXY_HEADER:
            self._read_header(data)
        elif self.stage is Stage.STARTTLS:
            self._negotiate(data)
        elif self.stage is Stage.CLIENT_HELLO:
            self._read_hello(data)
        else:
            super().bytes_came(data)

    # ACCEPTED

    def begin(self) -> None:
        """Start reading.  Called once, after `Connections` knows the connection."""
        try:
            self._begin()
        except Exception:  # noqa: BLE001 -- it costs this connection, which is counted already
            _log.failure("{server}: taking a connection failed", server=self.entry.server)
            self._turn_away(Rejection(Reason.INTERNAL_ERROR, "taking the connection failed"))

    def _begin(self) -> None:
        servers = self._servers
        servers.began()
        # Nagle's algorithm and delayed acknowledgements together cost 40 ms an exchange.
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
        Go on to STARTTLS, the ClientHello or TLS.

        :param client: the client's address, if a header contained it.
        :returns: whether the connection stays.
        """
        servers = self._servers
        if self.stage is Stage.PROXY_HEADER:
            name, terms = servers.known
            if not self._move(name, terms, client):
                return False
        if servers.negotiate is None:
            return self._after_starttls()
        self._enter(Stage.STARTTLS)
        self._negotiation = servers.negotiate()
        self.send(self._negotiation.greeting)
        return True

    def _move(self, server: str, terms: Terms, client: IAddress | None = None) -> bool:
        """:returns: whether the limits there let the connection stay."""
        if self._connections.move(self.entry, server, terms, client):
            return True
        self._refused()
        return False

    # STARTTLS

    def _negotiate(self, data: bytes) -> None:
        self._received += len(data)
        assert self._negotiation is not None
        turn = self._negotiation.feed(data)
        self.send(turn.answer)
        if isinstance(turn.outcome, NoUpgrade):
            self._tell(Rejection(turn.outcome.reason, turn.outcome.detail))
            self.end_because(Failure(ConnectionDone()))
        elif isinstance(turn.outcome, Upgrade):
            self._negotiation = None
            received = turn.outcome.received
            self._received -= len(received)
            if self._after_starttls() and received:
                self.bytes_came(received)

    def _after_starttls(self) -> bool:
        """:returns: whether the connection stays."""
        if not self._servers.reads_hello:
            only = self._servers.choose(None)
            assert only is not None
            return self._begin_tls(only)
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
        elif self._is_too_much():
            self._say_too_much()

    def _choose(self, hello: ClientHello, received: bytes) -> None:
        challenges, name = self._servers.challenges, hello.server_name
        if challenges is not None and name is not None and hello.offers_only(ACME_TLS):
            credential = challenges.find(name)
            if credential is not None:
                self._hello, self._reader, self._received = hello, None, 0
                self._engine = challenge_engine(credential)
                self._enter(Stage.CHALLENGE)
                self.bytes_came(received)
                return
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
            self.bytes_came(received)

    def _refuse_hello(self, outcome: NoClientHello, server_name: str | None = None) -> None:
        self._tell(Rejection(outcome.reason, outcome.detail), server_name)
        if outcome.alert is not None:
            self.send(alert_record(outcome.alert))
        self.end_because(Failure(ConnectionDone()))

    def _begin_tls(self, serving: Serving) -> bool:
        """:returns: whether the server's limits let the connection stay."""
        server = serving.server
        if self.stage is Stage.CLIENT_HELLO and not self._move(server.name, server.terms):
            return False
        serving.began()
        self._serving = serving
        self._servers.finished()
        if server.handshake_timeout != self._servers.handshake_timeout:
            self._limit_time(server.handshake_timeout)
        self._engine = server.context.accept()
        self._enter(Stage.HANDSHAKE)
        return True

    def _refused(self) -> None:
        """A limit keeps the connection out; `Connections` has already reported that."""
        self._stop_timing()
        self._enter(Stage.CLOSING)
        if self._servers.proxies is None:
            self.end_because(Failure(ConnectionDone()))
        else:
            self.abortConnection()

    # How many bytes and how much time a client may use until it is admitted.

    def _is_too_much(self) -> bool:
        limit = self.entry.terms.limits.handshake_bytes
        return limit is not None and self._received > limit

    def _say_too_much(self) -> None:
        limit = self.entry.terms.limits.handshake_bytes
        self._turn_away(
            Rejection(
                Reason.HANDSHAKE_TOO_LARGE,
                f"the client sent more than {limit} bytes in its handshake",
            )
        )

    def _limit_time(self, seconds: float) -> None:
        """:param seconds: from the connection's arrival to its verdict."""
        self._stop_timing()
        clock = self._connections.clock
        waited = clock.seconds() - self.entry.arrival.began
        self._timer = clock.callLater(max(0, seconds - waited), self._timed_out, seconds)

    def _timed_out(self, seconds: float) -> None:
        detail = LATE[self.stage].format(seconds)
        if not self._received and self.stage is not Stage.PROXY_HEADER:
            detail += "; nothing came"
        self._turn_away(Rejection(Reason.HANDSHAKE_TIMEOUT, detail))

    def _stop_timing(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # Turning a client away.

    def _turn_away(self, rejection: Rejection) -> None:
        """Report why the client is rejected, and end the connection at once."""
        self._tell(rejection)
        self.abortConnection()

    def _tell(self, rejection: Rejection, server_name: str | None = None) -> None:
        """Report why the client is rejected, once only."""
        self._stop_timing()
        if self.stage in (Stage.CLOSING, Stage.OVER):
            return
        self._enter(Stage.CLOSING)
        engine = self._engine
        if engine is not None:
            server_name = engine.server_name
        elif server_name is not None:
            server_name = printable(server_name)
        presented = () if engine is None else engine.presented()
        self._connections.reject(
            self.entry,
            rejection,
            leaf=presented[0] if presented else None,
            presented=presented,
            server_name=server_name,
            tls_version=None if engine is None else engine.version,
            received=self._received,
        )
