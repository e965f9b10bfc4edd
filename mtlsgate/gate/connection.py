"""
One client's connection, from accept to close.

A `Connection` is the transport on the accepted socket.  It goes through the stages
in `mtlsgate.gate.stages` and reads what each stage needs.  Only one method hands it
to the application (`Connection._let_in`), after the handshake, the verdict, the
limits and the authorizer.  `mtlsgate.gate.arriving` has the stages before TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Path, Rejection
from mtlsgate.certificates.server_names import same_name
from mtlsgate.gate.arriving import ArrivingConnection
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.candidate import Candidate, as_of_now, candidate
from mtlsgate.gate.events import Admission
from mtlsgate.gate.registries import NOTHING_GIVEN, Givens, claim_of
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.stages import GONE, Stage
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer
from mtlsgate.peer import TlsFacts, address_text
from mtlsgate.reasons import Reason
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.openssl_errors import handshake_rejection
from mtlsgate.tls.stream import READ_SIZE

_log = Logger("mtlsgate.gate")

T = TypeVar("T")

#: The stages in which the bytes are those of a handshake.
_HANDSHAKES = (Stage.HANDSHAKE, Stage.CHALLENGE)

#: The length of a TLS record's header (RFC 8446, 5.1).
_RECORD_HEADER = 5
#: How often registries are asked about one client.
_LOOK_UPS = 8


class Connection(ArrivingConnection):
    """
    The connection, and the transport that its application gets.

    ``IVerifiedPeer(transport)`` is the client at the other end, and
    ``ITlsFacts(transport)`` is what TLS agreed on.

    :ivar _beginning: the first bytes, the length of a record header.  They help to
        explain a failure, because OpenSSL does not say what it read.
    :ivar _asking: the authorizer's pending answer, or None.
    :ivar _look_ups: how often registries were asked.
    :ivar _heard: the authorizer that has nothing against the client, or None.
    :ivar _is_left: whether the application ended the connection.
    :ivar _facts: see `ITlsFacts`.
    """

    _beginning = b""
    _asking: Deferred[Rejection | None] | None = None
    _look_ups = 0
    _heard: Authorizer | None = None
    _is_left = False
    _facts: TlsFacts | None = None

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

    def presented(self) -> Path:
        """:returns: the certificates that the client sent, its leaf first."""
        return () if self._engine is None else self._engine.presented()

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes the client has sent to the application, and got from it."""
        return (0, 0) if self._engine is None else (self._engine.received, self._engine.sent)

    @property
    def _server(self) -> GateServer:
        assert self._serving is not None
        return self._serving.server

    def bytes_came(self, data: bytes) -> None:
        """Handle received bytes as the current stage needs."""
        if self.stage in _HANDSHAKES:
            self._shake(data)
        else:
            super().bytes_came(data)

    # HANDSHAKE

    def _shake(self, data: bytes) -> None:
        """Go on with the handshake, with no more bytes than the limit allows."""
        if self._received < _RECORD_HEADER:
            self._beginning += data[:_RECORD_HEADER]
        before = self._received
        self._received += len(data)
        if not self._is_too_much():
            super().bytes_came(data)
            return
        limit = self.entry.terms.limits.handshake_bytes
        assert limit is not None
        allowed = max(0, limit - before)
        super().bytes_came(data[:allowed])
        if self.stage in _HANDSHAKES:
            self._say_too_much()
        elif self.connected and not self.is_aborted:
            # The rest came after the handshake: it is for the application.
            super().bytes_came(data[allowed:])

    def tls_failed(self, error: Exception) -> None:
        """TLS failed; during the handshake, report why."""
        if self.stage in _HANDSHAKES:
            assert self._engine is not None
            verdict = self._engine.handshake.verdict
            self._tell(
                verdict
                if isinstance(verdict, Rejection)
                else handshake_rejection(Failure(error), self._beginning)
            )
        super().tls_failed(error)

    def handshake_completed(self) -> None:
        """Hand the connection over if the client is admitted."""
        self._stop_timing()
        if self.stage is Stage.CHALLENGE:
            self._challenge_answered()
            return
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
        if self._hello is not None and not same_name(self._hello.server_name, engine.server_name):
            # The rules belong to the first name.  After a HelloRetryRequest the
            # client can send another one.
            self._turn_away(
                Rejection(Reason.UNKNOWN_SERVER_NAME, "the client asked for one name, then another")
            )
            return
        client = candidate(engine, self._server, self._peer)
        if isinstance(client, Rejection):
            self._refuse(client, engine)
        else:
            self._settle(client)

    def _settle(self, client: Candidate, given: Givens = NOTHING_GIVEN) -> None:
        """
        Go on with a client as it is admitted now.

        :param given: what registries have said of it.
        """
        standing = self._as_of_now(client, given)
        if isinstance(standing, Rejection):
            if self.stage is Stage.AUTHORIZER or self._engine is None:
                self._turn_away(standing)
            else:
                self._refuse(standing, self._engine)
        elif standing.held.open:
            self._look_up(standing, given)
        else:
            self._ask(standing)

    def _refuse(self, rejection: Rejection, engine: Engine) -> None:
        alert = engine.refuse()
        if alert:
            self._tell(rejection)
            self.send(alert)
            self.end_because(Failure(ConnectionDone()))
        else:
            self._turn_away(rejection)

    def _as_of_now(self, client: Candidate, given: Givens) -> Candidate | Rejection:
        """:returns: the client if the rules and the limits admit it now."""
        servers = self._servers
        known = partial(self._connections.registries.answers, given=given)
        found = as_of_now(client, self._server, servers.judging, servers.key, known)
        if isinstance(found, Rejection):
            return found
        held = found.held
        if (held.server, held.terms) != (self.entry.server, self.entry.terms):
            self._connections.hold(self.entry, held.server, held.terms)
        return self._connections.refuse_admission(self.entry, found.identity) or found

    # REGISTRY

    def _look_up(self, client: Candidate, given: Givens) -> None:
        """Ask what is not known; then the client is judged again."""
        self._look_ups += 1
        if self._look_ups > _LOOK_UPS:
            detail = "what registries say changes faster than they can be asked"
            self._turn_away(Rejection(Reason.REGISTRY_UNAVAILABLE, detail, 0))
            return
        registries = self._connections.registries
        # What is not remembered is asked again as well: all answers must count together.
        before = client.held.answers
        remembered = registries.answers(before) if given else before
        again = [one for one in before if one not in remembered]
        answers = registries.ask((*client.held.open, *again))
        self._wait(Stage.REGISTRY, answers, partial(self._settle, client))

    # CHALLENGE

    def _challenge_answered(self) -> None:
        """The CA has seen what it came for: nothing else is for it, so end at once."""
        engine, challenges, hello = self._engine, self._servers.challenges, self._hello
        assert engine is not None
        self._enter(Stage.CLOSING)
        if challenges is not None and hello is not None and hello.server_name is not None:
            challenges.answered(hello.server_name, self._peer)
        engine.close()
        self.send(engine.outgoing())
        self.end_because(Failure(ConnectionDone()))

    # AUTHORIZER

    def _ask(self, client: Candidate) -> None:
        """Let the client in, if the authorizer has nothing against it."""
        peer, authorizer = client.held.peer, client.held.authorizer
        if peer is None or authorizer is None or authorizer == self._heard:
            self._take_place(client)
            return
        answer = authorizer.objection(peer, self._connections.clock)
        if isinstance(answer, Deferred):
            # Set this first: the answer may already be there.
            self._asking = answer
            self._wait(Stage.AUTHORIZER, answer, partial(self._conclude, client))
        else:
            self._conclude(client, answer)

    def _conclude(self, client: Candidate, objection: Rejection | None) -> None:
        if objection is not None:
            self._turn_away(objection)
            return
        self._heard = client.held.authorizer
        # The epoch, the limits, the time and what registries say may have changed
        # meanwhile.  Another epoch may have another authorizer, who is asked then.
        self._settle(client)

    # A place among the client's connections to all gates.

    def _take_place(self, client: Candidate) -> None:
        """Let the client in, if it has a place, or needs none."""
        registries, number = self._connections.registries, self.entry.arrival.number
        claim = claim_of(client.held.server, client.held.terms, client.identity)
        if claim is None or registries.has_place(claim, number):
            self._let_in(client)
            if claim is None:
                # Before another epoch took over it may have needed one.  Give it back last: a
                # store may tell of a change meanwhile.
                registries.give_back(number)
            return
        taken = registries.take(claim, number)
        self._wait(Stage.REGISTRY, taken, partial(self._took_place, client))

    def _took_place(self, client: Candidate, rejection: Rejection | None) -> None:
        if rejection is not None:
            self._turn_away(rejection)
            return
        # What counts may have changed meanwhile.
        self._settle(client)

    # Waiting for a registry or the authorizer.

    def _wait(self, stage: Stage, answer: Deferred[T], go_on: Callable[[T], object]) -> None:
        """
        Read nothing until an answer comes.

        :param answer: never fails, and has a time limit of its own.
        :param go_on: takes the answer, unless the connection is ending by then.
        """
        if self.stage is not stage:
            self._enter(stage)
        self.pauseProducing()
        answer.addCallback(self._answered, stage, go_on)

    def _answered(self, answer: T, stage: Stage, go_on: Callable[[T], object]) -> None:
        self._asking = None
        if self.stage is not stage or self.is_aborted:
            # The connection is already ending.
            return
        self.resumeProducing()
        try:
            go_on(answer)
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            self._broke()

    # APPLICATION

    def _let_in(self, client: Candidate) -> None:
        held, identity, connections = client.held, client.identity, self._connections
        rejection = connections.admit(
            self.entry,
            Admission(
                peer=held.peer,
                identity=identity,
                pin=held.pin,
                device=held.device,
                answers=held.answers,
                negotiated=client.negotiated,
                since=connections.clock.seconds(),
                is_first_use=held.pin is not None
                and self._server.pins_used.note(held.pin, identity),
            ),
        )
        if rejection is not None:
            self._turn_away(rejection)
            return
        try:
            self._hand_over()
        except Exception:  # noqa: BLE001 -- it is not ours; it costs this connection alone
            _log.failure(
                "{server}: the application failed to take {peer_address}",
                server=self._server.name,
                peer_address=address_text(self._peer),
            )
            self.abortConnection()

    def _hand_over(self) -> None:
        application = self._server.application.buildProtocol(self._peer)
        if application is None:
            self._declined()
            return
        self._enter(Stage.APPLICATION)
        self.read_size = READ_SIZE
        self._application = application
        application.makeConnection(self)
        if IHandshakeListener.providedBy(application):
            application.handshakeCompleted()

    # CLOSING

    def _declined(self) -> None:
        _log.info(
            "{server}: the application declined {peer_address}",
            server=self._server.name,
            peer_address=address_text(self._peer),
        )
        self._enter(Stage.CLOSING)
        self.loseConnection()
        # loseConnection waits for the client's close_notify: limit that.
        self._limit_closing()

    def end_because(self, reason: Failure) -> None:
        """Send what must be sent if the client takes it, and end the connection."""
        super().end_because(reason)
        if self.unsent:
            self._limit_closing()

    def _limit_closing(self) -> None:
        self._stop_timing()
        clock = self._connections.clock
        self._timer = clock.callLater(self._servers.handshake_timeout, super().abortConnection)

    def loseConnection(self) -> None:
        """Send what was written, then close_notify, and end the connection."""
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
        # Ignore it if the connection is already lost: its producer is stopped
        # then, and many producers end their consumer when stopped.
        if self.connected:
            self._is_left = True

    # OVER

    def connectionLost(self, reason: Failure) -> None:
        """Tell `Connections` last, after the application."""
        if self.disconnected:
            return
        traffic = self.traffic
        if self.stage in GONE:
            asking, self._asking = self._asking, None
            self._tell(Rejection(Reason.PEER_GONE, GONE[self.stage]))
            if asking is not None:
                asking.cancel()
        self._stop_timing()
        self._enter(Stage.OVER)
        super().connectionLost(reason)
        if not self.entry.ended:
            self._connections.end(self.entry, reason, *traffic, by_application=self._is_left)
        if self._serving is None:
            self._servers.finished()
        else:
            self._serving.finished()
