"""
One request and its response, from the end of the request's head to the end of
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http

from mtlsgate.protocols.http.access import Record
from mtlsgate.protocols.http.backpressure import Download, Upload
from mtlsgate.protocols.http.connection import TargetConnection
from mtlsgate.protocols.http.fields import Line, end_to_end, trailers
from mtlsgate.protocols.http.outgoing import Outgoing, outgoing
from mtlsgate.protocols.http.refusal import REASONS, Refusal, own_body, own_fields
from mtlsgate.protocols.http.response import Head, read_trailers
from mtlsgate.protocols.http.tunnel import Tunnel
from mtlsgate.upstream.backends import Unreachable

if TYPE_CHECKING:
    from mtlsgate.protocols.http.channel import GateChannel, GateRequest

_log = Logger("mtlsgate.http")

#: Seconds for a target to ask for the body that a client holds back.  Not all
#: do; RFC 9110, 10.1.1, lets the client wait for ever.
_CONTINUE_AFTER = 1.0


class Exchange:
    """
    A request that is passed on, and the response that comes back.

    :ivar record: what is logged of it.
    :ivar began: whether anything was done with the request.
    :ivar decoder: reads the request's body, if it has one.
    :ivar _outgoing: what is sent to the target.
    :ivar _connection: to the target, while it is this exchange's.
    :ivar _tunnel: what became of it after a switch.
    :ivar _early: what came of the body before there was a connection.
    :ivar _complete: whether the request is.
    :ivar _responding: whether the response has begun.
    :ivar _over: nothing more comes of it.
    :ivar _progress: when something last moved.
    :ivar _client_slow: the client takes no more for now.
    :ivar _target_slow: the target takes no more for now.
    """

    record: Record
    _outgoing: Outgoing
    began = False
    decoder: object = None
    _connection: TargetConnection | None = None
    _dialling: Deferred[TargetConnection] | None = None
    _tunnel: Tunnel | None = None
    _watch: IDelayedCall | None = None
    _complete = False
    _responding = False
    _over = False
    _retried = False
    _expecting = False
    _client_slow = False
    _target_slow = False
    _trailers: Sequence[Line] = ()

    def __init__(self, request: GateRequest, channel: GateChannel) -> None:
        self._request = request
        self._channel = channel
        self._gate = channel.gate
        self._early: list[bytes] = []
        self._progress = 0.0

    # The request.

    def begin(self, length: int | None) -> None:
        """
        Pass the request on, or refuse it.

        :param length: of its body; None if it comes in chunks.
        """
        request, gate = self._request, self._gate
        self.began = True
        self._progress = now = gate.clock.seconds()
        self._complete = length == 0
        self.record = Record(now, request.method, request.uri)
        gate.active += 1
        try:
            if gate.active > gate.max_requests:
                raise Refusal(503, f"there are {gate.max_requests} requests already")
            self._outgoing = outgoing(request, self._channel, length)
        except Refusal as refusal:
            self._refuse(refusal.status, refusal.cause)
            return
        self._expecting = self._outgoing.expecting
        self._watch = gate.clock.callLater(gate.shortest_wait, self._look)
        self._connect(fresh=False)

    def body(self, data: bytes) -> None:
        """Pass a piece of the request's body on."""
        if self._over:
            return
        self.record.bytes_in += len(data)
        self.progress()
        if self.record.bytes_in > self._gate.max_body_size:
            self._give_up(413, f"the body is longer than {self._gate.max_body_size} bytes")
        elif self._connection is not None:
            self._connection.send(data)
        else:
            self._early.append(data)
            self._channel.pause_body()

    def complete(self) -> None:
        """The request is complete."""
        if not self.began:
            self.begin(0)
            return
        if self._over:
            return
        self._complete = True
        self.progress()
        received = read_trailers(self.decoder) if self._outgoing.body == "chunked" else ()  # type: ignore[arg-type]
        self._trailers = list(trailers(received, self._gate.reserved))
        if self._connection is not None:
            self._connection.finish(self._trailers)

    def malformed(self, status: int, cause: str) -> None:
        """The rest of the request cannot be read."""
        if not self._over:
            self._give_up(status, cause)

    def client_left(self) -> None:
        """The client is gone."""
        if not self.began or self._over:
            return
        if self._tunnel is not None:
            self._tunnel.client_left()
            return
        self.record.cause = "the client left"
        self.over()
        self._drop_target()

    # The connection to the target.

    def _connect(self, fresh: bool) -> None:
        taken = self._gate.pool.take(fresh=fresh, replayable=self._outgoing.replayable)
        if isinstance(taken, TargetConnection):
            self._send(taken)
        else:
            self._dialling = taken
            taken.addCallbacks(self._send, self._unreachable)
            taken.addErrback(self._broken)

    def _send(self, connection: TargetConnection) -> None:
        self._dialling = None
        if self._over:
            connection.abort()
            return
        self._connection = connection
        self.record.upstream = str(connection.target)
        self.progress()
        sent = self._outgoing
        connection.start(self, self._request.method, sent.head, sent.body)
        if sent.body == "none":
            return
        connection.feed_from(Upload(self))
        for data in self._early:
            connection.send(data)
        self._early = []
        if self._complete:
            connection.finish(self._trailers)
        if not self._target_slow:
            self._channel.resume_body()
        if self._expecting and self._watch is not None:
            self._watch.reset(_CONTINUE_AFTER)

    def _unreachable(self, failure: Failure) -> None:
        self._dialling = None
        if failure.check(CancelledError):
            # By this very exchange, which had no more use for it.
            return
        failure.trap(Unreachable)
        error = failure.value
        assert isinstance(error, Unreachable)
        self._give_up(504 if error.timed_out else 502, str(error))

    def _broken(self, failure: Failure) -> None:
        _log.failure("{server}: a request failed", failure, server=self._gate.access.server)
        if not self._over:
            self._give_up(502, "an error in the gate, logged above")

    def _drop_target(self) -> None:
        dialling, self._dialling = self._dialling, None
        connection, self._connection = self._connection, None
        if dialling is not None:
            dialling.cancel()
        if connection is not None:
            connection.abort()

    # The response, as the connection reads it.

    def interim(self, head: Head) -> None:
        """Pass a 1xx response on to who can read it."""
        self.progress()
        if self._request.clientproto != b"HTTP/1.1":
            return
        if head.status == 100 and not self._expecting:
            return
        if head.status == 100:
            self._expecting = False
        self._write_head(head)

    def _write_head(self, head: Head, more: Iterable[Line] = ()) -> None:
        """Write a head that no body comes after, and that so has no length (RFC 9110, 8.6)."""
        passed = end_to_end(head.lines, [*head.values(b"connection"), b"content-length"])
        fields = b"".join([b"%s: %s\r\n" % line for line in (*passed, *more)])
        reason = head.reason or http.RESPONSES.get(head.status, b"")
        self._channel.write(b"HTTP/1.1 %d %s\r\n%s\r\n" % (head.status, reason, fields))

    def switched(self, head: Head, rest: bytes) -> None:
        """From now on it is another protocol."""
        connection, channel = self._connection, self._channel
        assert connection is not None
        upgrade = [one.lower() for one in head.values(b"upgrade")]
        if not self._outgoing.upgrading or upgrade != [b"websocket"]:
            self._give_up(502, "the target switched protocols, which nobody asked for")
            return
        self._responding = True
        self.record.status = 101
        self.record.first_byte = self._progress = self._gate.clock.seconds()
        self._write_head(head, [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")])
        connection.switch()
        self._tunnel = tunnel = Tunnel(self, channel, connection)
        channel.registerProducer(Download(self), True)
        connection.feed_from(Upload(self))
        if rest:
            tunnel.from_target(rest)
        sent = channel.switch(tunnel)
        if sent:
            tunnel.from_client(sent)
        channel.resume_body()

    def head(self, head: Head) -> None:
        """The response begins."""
        request = self._request
        self._responding = True
        self.record.status = head.status
        self.record.first_byte = self._progress = self._gate.clock.seconds()
        request.setResponseCode(head.status, head.reason)
        headers = request.responseHeaders
        for name, value in end_to_end(head.lines, head.values(b"connection")):
            if name.lower() != b"content-length" or not headers.hasHeader(name):
                headers.addRawHeader(name, value)
        if head.status == 204:
            # RFC 9110, 8.6.
            headers.removeHeader(b"Content-Length")
        if not self._complete or self._gate.stopping:
            self._close_after()
        request.registerProducer(Download(self), True)
        # Now, and not with a first piece of the body that may be long in coming.
        request.write(b"")

    def _close_after(self) -> None:
        """Whatever is left of the request's body is not read."""
        self._request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self._channel.persistent = False

    def data(self, data: bytes) -> None:
        """Pass a piece of the response's body on."""
        if not self._over:
            self.record.bytes_out += len(data)
            self.progress()
            self._request.write(data)

    def end(self, received: Sequence[Line]) -> None:
        """The response is complete."""
        if self._over:
            return
        request, connection = self._request, self._connection
        self._connection = None
        if connection is not None:
            connection.release()
        request.unregisterProducer()
        passed = list(trailers(received, self._gate.no_reserved))
        if passed and request.chunked:
            lines = b"".join([b"%s: %s\r\n" % line for line in passed])
            self._channel.write(b"0\r\n" + lines + b"\r\n")
            # Or `finish` would write the last chunk.
            request.chunked = 0
        self.over()
        request.finish()

    def raw(self, data: bytes) -> None:
        """A piece of another protocol came."""
        if self._tunnel is not None and not self._over:
            self._tunnel.from_target(data)

    def raw_ended(self) -> None:
        """The target ended the other protocol's connection."""
        if self._tunnel is not None and not self._over:
            self._tunnel.target_left()

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
            self._give_up(502, cause)

    # Ways to end.

    def _give_up(self, status: int, cause: str) -> None:
        """Say so if there is still a way to, or else make the client see it."""
        self._drop_target()
        if not self._responding:
            self._refuse(status, cause)
            return
        request, channel = self._request, self._channel
        self.record.cause = cause
        self._gate.access.failure(channel.who, self.record)
        request.unregisterProducer()
        self.over()
        if request.clientproto == b"HTTP/1.1":
            # The body is short of its end, by its length or its last chunk.
            channel.loseConnection()
        else:
            channel.cut()

    def _refuse(self, status: int, cause: str) -> None:
        """Answer in the target's place, in one line."""
        request, gate, record = self._request, self._gate, self.record
        record.status, record.cause = status, cause
        record.first_byte = gate.clock.seconds()
        if status >= 500 and status != 501:
            gate.access.failure(self._channel.who, record)
        body = own_body(status)
        request.setResponseCode(status, REASONS[status])
        for name, value in own_fields(status):
            request.responseHeaders.setRawHeaders(name, [value])
        if status == 400 or not self._complete or gate.stopping:
            self._close_after()
        record.bytes_out = 0 if request.method == b"HEAD" else len(body)
        self._responding = True
        self.over()
        request.write(body)
        request.finish()

    def over(self) -> None:
        """Log it, and let go of everything."""
        if self._over:
            return
        self._over = True
        if self._watch is not None and self._watch.active():
            self._watch.cancel()
        self._watch = None
        gate = self._gate
        gate.active -= 1
        gate.access.request(self._channel.who, self.record, gate.clock.seconds())

    # Time limits.

    def progress(self) -> None:
        """Note that something moved."""
        self._progress = self._gate.clock.seconds()

    def _look(self) -> None:
        """See whether somebody is late."""
        gate = self._gate
        self._watch = None
        limit, late = self._awaited()
        waited = gate.clock.seconds() - self._progress
        if waited < limit:
            wait = limit - waited
            if self._tunnel is None:
                # Whoever is waited for then may have less time.
                wait = min(wait, gate.shortest_wait)
            self._watch = gate.clock.callLater(wait, self._look)
        elif self._tunnel is not None:
            self._tunnel.expired()
        elif self._expecting and self._connection is not None and not self._responding:
            self._expecting = False
            self.progress()
            self._channel.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._watch = gate.clock.callLater(gate.shortest_wait, self._look)
        elif late == "client" and self._responding:
            self.record.cause = f"the client took nothing for {limit:g} s"
            self._drop_target()
            self._request.unregisterProducer()
            self.over()
            self._channel.cut()
        elif late == "client":
            self._give_up(408, f"the client was silent for {limit:g} s")
        else:
            self._give_up(504, f"the target was silent for {limit:g} s")

    def _awaited(self) -> tuple[float, str]:
        """:returns: how long to wait, and for whom."""
        gate = self._gate
        if self._tunnel is not None:
            return gate.websocket_timeout, "anybody"
        if self._expecting and self._connection is not None and not self._responding:
            return _CONTINUE_AFTER, "target"
        if self._client_slow:
            return gate.body_timeout, "client"
        if self._connection is None or self._complete or self._target_slow:
            return gate.response_timeout, "target"
        return gate.body_timeout, "client"

    # Backpressure, by way of the two producers below.

    def client_slow(self, slow: bool) -> None:
        """The client takes no more for now, or does again."""
        self._client_slow = slow
        self.progress()
        if self._connection is not None:
            if slow:
                self._connection.pauseProducing()
            else:
                self._connection.resumeProducing()

    def target_slow(self, slow: bool) -> None:
        """The target takes no more for now, or does again."""
        self._target_slow = slow
        if self._over:
            return
        self.progress()
        if slow:
            self._channel.pause_body()
        else:
            self._channel.resume_body()
