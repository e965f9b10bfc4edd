"""
Forwards one request, and passes the response back.

An exchange has two sides: the client's (`mtlsgate.http.sides.ClientSide`) and a
connection to a target.  Each side reports what comes and when it cannot take more, and
the exchange tells the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.http.fields import Line
from mtlsgate.http.refusal import Refusal, own_body
from mtlsgate.http.sides import ClientSide
from mtlsgate.protocols.http.access import Record, Who
from mtlsgate.protocols.http.capacity import Seat
from mtlsgate.protocols.http.forwarding import Reserved, trailers
from mtlsgate.protocols.http.outgoing import Outgoing
from mtlsgate.protocols.http.patience import Patience
from mtlsgate.protocols.http.response import ResponseHead
from mtlsgate.protocols.http.surroundings import Surroundings
from mtlsgate.protocols.http.target_side import TargetSide
from mtlsgate.tls.transport import together
from mtlsgate.upstream.backends import Unreachable

_log = Logger("mtlsgate.http")

#: Seconds for a target to ask for the body that a client holds back.  Not all
#: do; RFC 9110, 10.1.1, lets the client wait for ever.
_CONTINUE_AFTER = 1.0
#: How often a request is sent again that targets refuse to begin with.
_MOST_REFUSALS = 3
_NOTHING_RESERVED = Reserved()


class ForwardedExchange:
    """
    A request that is passed on, and the response that comes back.

    :ivar _record: collects what is logged.
    :ivar _connection: the connection to the target, while this exchange has one.
    :ivar _dialling: the pending connection attempt, or None.
    :ivar _early: the part of the body that came before there was a connection.
    :ivar _complete: whether the request is complete.
    :ivar _trailers: the request's trailers.
    :ivar _responding: whether the final response has begun.
    :ivar _switched: whether bytes pass unchanged after a switch.
    :ivar _over: whether the exchange is over.
    :ivar _retried: whether the request was sent a second time.
    :ivar _refusals: how often a target refused to begin with it.
    :ivar _expecting: whether the client still waits for 100.
    :ivar _client_slow: whether the client cannot take more for now.
    :ivar _target_slow: whether the target cannot take more for now.
    :ivar _patience: has `_look` called, to check whether the target is late.
    """

    _connection: TargetSide | None = None
    _dialling: Deferred[TargetSide] | None = None
    _complete = False
    _trailers: Sequence[Line] = ()
    _responding = False
    _switched = False
    _over = False
    _retried = False
    _refusals = 0
    _client_slow = False
    _target_slow = False

    def __init__(
        self,
        surroundings: Surroundings,
        side: ClientSide,
        outgoing: Outgoing,
        record: Record,
        who: Who,
        seat: Seat,
    ) -> None:
        """
        :param side: the client's.
        :param outgoing: what is sent to the target.
        :param record: what is logged.
        :param who: the client, as the log names it.
        :param seat: what the request takes up, until it is over.
        """
        self._around = surroundings
        self._side = side
        self._outgoing = outgoing
        self._record = record
        self._who = who
        self._seat = seat
        self._early: list[bytes] = []
        self._expecting = outgoing.expecting
        self._patience = Patience(surroundings.clock, self._look, record.began)

    # The request, as the client's side reads it.

    def start(self) -> None:
        """Find a target."""
        self._patience.start(self._around.response_timeout)
        self._connect(fresh=False)

    def data(self, data: bytes) -> None:
        """Pass a piece of the request's body on, or after a switch any bytes."""
        if self._over:
            return
        self._record.bytes_in += len(data)
        self._patience.moved()
        if self._connection is not None:
            self._connection.send(data)
        else:
            self._early.append(data)
            self._side.pause_body()

    def end(self, received: Iterable[Line]) -> None:
        """The request is complete."""
        if self._over:
            return
        self._complete = True
        self._patience.moved()
        self._trailers = list(trailers(received, self._around.reserved))
        if self._connection is not None:
            self._connection.finish(self._trailers)

    def broken(self, refusal: Refusal) -> None:
        """The rest of the request cannot be read, or does not come."""
        if not self._over:
            self._give_up(refusal)

    def client_slow(self, slow: bool) -> None:
        """The client takes no more for now, or does again."""
        self._client_slow = slow
        self._patience.moved()
        if self._connection is not None:
            if slow:
                self._connection.pauseProducing()
            else:
                self._connection.resumeProducing()

    def lost(self, cause: str, reason: Failure) -> None:
        """The client is gone."""
        if self._over:
            return
        connection, self._connection = self._connection, None
        if self._switched:
            if connection is not None:
                # It gets what the client sent last.
                connection.close()
        else:
            self._record.cause = cause
            self._connection = connection
            self._drop_target()
        self._end()

    # The connection to the target.

    def _connect(self, fresh: bool) -> None:
        taken = self._around.pool.take(fresh=fresh, replayable=self._outgoing.replayable)
        if isinstance(taken, Deferred):
            self._dialling = taken
            taken.addCallbacks(self._send, self._unreachable)
            taken.addErrback(self._failed_here)
        else:
            self._send(taken)

    def _send(self, connection: TargetSide) -> None:
        self._dialling = None
        if self._over:
            connection.abort()
            return
        self._connection = connection
        self._record.upstream = str(connection.target)
        self._patience.moved()
        sent = self._outgoing
        connection.start(self, sent)
        if self._connection is not connection:
            # It failed at once.
            return
        if self._client_slow:
            connection.pauseProducing()
        if sent.body == "none":
            return
        for data in self._early:
            connection.send(data)
        self._early = []
        if self._complete:
            connection.finish(self._trailers)
        if not self._target_slow:
            self._side.resume_body()
        if self._expecting:
            self._patience.restart(_CONTINUE_AFTER)

    def _unreachable(self, failure: Failure) -> None:
        self._dialling = None
        if failure.check(CancelledError):
            # This exchange cancelled it itself.
            return
        failure.trap(Unreachable)
        error = failure.value
        assert isinstance(error, Unreachable)
        self._give_up(Refusal(504 if error.timed_out else 502, str(error)))

    def _failed_here(self, failure: Failure) -> None:
        _log.failure("{server}: a request failed", failure, server=self._around.log.server)
        if not self._over:
            self._give_up(Refusal(502, "an error in the gate, logged above"))

    def _drop_target(self) -> None:
        dialling, self._dialling = self._dialling, None
        connection, self._connection = self._connection, None
        if dialling is not None:
            dialling.cancel()
        if connection is not None:
            connection.abort()

    def target_slow(self, slow: bool) -> None:
        """The target takes no more for now, or does again."""
        self._target_slow = slow
        if self._over:
            return
        self._patience.moved()
        if slow:
            self._side.pause_body()
        else:
            self._side.resume_body()

    # The response, as the connection reads it.

    def together(self, call: Callable[[], object]) -> None:
        """Call a function; what it sends goes out in one go (`TargetUser`)."""
        together(self._side.client.transport, call)

    def interim(self, head: ResponseHead) -> None:
        """Pass a 1xx response on to who can read it."""
        self._patience.moved()
        if head.status == 100:
            self._expecting = False
        self._side.interim(head.status, head.phrase, head.fields_alone())

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """From now on it is another protocol."""
        connection = self._connection
        assert connection is not None
        upgrade = [one.lower() for one in head.values(b"upgrade")]
        if not self._outgoing.upgrading or upgrade != [b"websocket"]:
            self._give_up(Refusal(502, "the target switched protocols, which nobody asked for"))
            return
        agreed = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        try:
            sent = self._side.switch(head.phrase, [*head.fields_alone(), *agreed])
        except Refusal as refusal:
            self._give_up(refusal)
            return
        self._seat.switch()
        self._responding = self._switched = True
        self._begin_record(101)
        self._patience.restart(self._around.websocket_timeout)
        connection.switch()
        if rest:
            self.raw(rest)
        if sent:
            self.data(sent)

    def head(self, head: ResponseHead) -> None:
        """The response begins."""
        self._begin_record(head.status)
        try:
            self._side.respond(head.status, head.phrase, head.fields(), empty=head.empty)
        except Refusal as refusal:
            self._give_up(refusal)
        else:
            self._responding = True

    def _begin_record(self, status: int) -> None:
        self._record.status = status
        self._patience.moved()
        self._record.first_byte = self._patience.progress

    def received(self, data: bytes) -> None:
        """Pass a piece of the response's body on."""
        if not self._over:
            self._record.bytes_out += len(data)
            self._patience.moved()
            self._side.send(data)

    def completed(self, received: Sequence[Line]) -> None:
        """The response is complete."""
        if self._over:
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        self._end()
        self._side.finish(list(trailers(received, _NOTHING_RESERVED)))

    def failed(self, cause: str, untouched: bool) -> None:
        """No response will come, or no more of it."""
        connection, self._connection = self._connection, None
        if self._over:
            return
        reused = connection is not None and connection.used
        if untouched and reused and self._outgoing.replayable and not self._retried:
            # The target closed a kept connection just when it was used again.
            self._retried = True
            self._connect(fresh=True)
        else:
            self._give_up(Refusal(502, cause))

    def refused(self, cause: str, sent: Sequence[bytes] | None) -> None:
        """The target did nothing with the request, and says so."""
        self._connection = None
        if self._over:
            return
        if sent is None or self._refusals >= _MOST_REFUSALS:
            self._give_up(Refusal(502, cause))
            return
        self._refusals += 1
        self._early, self._target_slow = list(sent), False
        if not self._complete:
            self._side.pause_body()
        self._connect(fresh=False)

    def raw(self, data: bytes) -> None:
        """A piece of another protocol came."""
        if not self._over:
            self._record.bytes_out += len(data)
            self._patience.moved()
            self._side.send(data)

    def raw_ended(self) -> None:
        """The target ended the other protocol's connection: so does the client's, when all
        is written."""
        self._connection = None
        if not self._over:
            self._end()
            self._side.finish()

    # Ways to end.

    def _give_up(self, refusal: Refusal) -> None:
        """Send a refusal if that is still possible; otherwise cut the connection."""
        self._drop_target()
        record = self._record
        record.cause = refusal.cause
        if self._responding:
            self._around.log.failure(self._who, record)
            self._end()
            self._side.abandon()
            return
        self._begin_record(refusal.status)
        if refusal.status >= 500:
            self._around.log.failure(self._who, record)
        record.bytes_out = 0 if self._outgoing.method == b"HEAD" else len(own_body(refusal.status))
        self._end()
        self._side.refuse(refusal)

    def _end(self) -> None:
        """Log the request, and release everything."""
        self._over = True
        self._patience.stop()
        self._seat.leave()
        self._around.log.request(self._who, self._record, self._around.clock.seconds())

    # Time limits of the target; the client's are its connection's.

    def _look(self) -> None:
        """Check whether the target is late."""
        limit, waited = self._limit(), self._patience.waited
        if limit is None:
            self._patience.start(self._around.response_timeout)
        elif waited < limit:
            self._patience.start(limit - waited)
        elif self._switched:
            self._record.cause = "nothing came in either direction for too long"
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            self._end()
            self._side.finish()
        elif self._waits_for_continue():
            self._expecting = False
            self._patience.moved()
            self._side.interim(100, b"Continue", ())
            self._patience.start(self._around.response_timeout)
        else:
            self._give_up(Refusal(504, f"the target was silent for {limit:g} s"))

    def _limit(self) -> float | None:
        """:returns: how long the target may take now; None while the client is awaited."""
        around = self._around
        if self._switched:
            return around.websocket_timeout
        if self._waits_for_continue():
            return _CONTINUE_AFTER
        if self._client_slow:
            return None
        waits = self._connection is None or self._complete or self._target_slow
        return around.response_timeout if waits else None

    def _waits_for_continue(self) -> bool:
        return self._expecting and self._connection is not None and not self._responding
