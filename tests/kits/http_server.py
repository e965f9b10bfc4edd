"""
An HTTP server without TLS or targets: connections whose bytes a test writes, and
exchanges that record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mtlsgate.http.authority import Asked
from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.fields import Line
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.server import ONLY_HTTP_1, HttpServer, Versions
from mtlsgate.http.sides import ClientSide, Exchange, HttpClient

LIMITS = HttpLimits(
    head_size=16 * 1024,
    body_size=1 << 30,
    first_timeout=10.0,
    head_timeout=10.0,
    body_timeout=10.0,
    idle_timeout=10.0,
    send_timeout=10.0,
    close_timeout=10.0,
    refused_timeout=10.0,
)


class Turns(Clock):
    """A clock that can go on by one turn of a reactor."""

    def turn(self) -> None:
        """Make the calls that are due now, and none that these bring about."""
        due = [one for one in self.calls if one.getTime() <= self.seconds()]
        for one in due:
            function, arguments, named = one.func, one.args, one.kw
            one.cancel()
            function(*arguments, **named)


class Transport(StringTransport):
    """
    What a connection writes to.

    :ivar aborted: whether it was ended at once.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Recorded:
    """
    An exchange that keeps what it is told, and answers when the request is complete.

    :ivar received: of the body.
    :ivar told: everything else, in order.
    :ivar on_data: is called for each piece of the body.
    """

    def __init__(self, head: RequestHead, side: ClientSide, answers: bool) -> None:
        self.head = head
        self.side = side
        self.received = 0
        self.pieces = 0
        self.told: list[Any] = []
        self.on_data: Callable[[], None] | None = None
        self._answers = answers

    def start(self) -> None:
        self.told.append("start")

    def data(self, data: bytes) -> None:
        self.received += len(data)
        self.pieces += 1
        if self.on_data is not None:
            self.on_data()

    def end(self, trailers: Iterable[Line]) -> None:
        self.told.append(("end", list(trailers)))
        if self._answers:
            self.answer()

    def answer(self, body: bytes = b"ok") -> None:
        self.side.respond(200, b"OK", [(b"Content-Length", b"%d" % len(body))])
        self.side.send(body)
        self.side.finish()

    def broken(self, refusal: Refusal) -> None:
        self.told.append(("broken", refusal.status))
        self.side.refuse(refusal)

    def client_slow(self, slow: bool) -> None:
        self.told.append(("slow", slow))

    def lost(self, cause: str, reason: Failure) -> None:
        self.told.append(("lost", cause))


class Server(HttpServer):
    """
    :ivar exchanges: every one, in order.
    :ivar refusals: of what had no exchange.
    """

    def __init__(
        self,
        *,
        answers: bool = True,
        versions: Versions = ONLY_HTTP_1,
        websockets: bool = False,
        **limits: Any,
    ) -> None:
        self.time = Turns()
        super().__init__(
            evolve(LIMITS, **limits), self.time, versions=versions, websockets=websockets
        )
        self.answers = answers
        self.answers_to: Callable[[RequestHead], bool] = lambda head: True
        self.exchanges: list[Recorded] = []
        self.refusals: list[Refusal] = []

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        self.exchanges.append(Recorded(head, side, self.answers and self.answers_to(head)))
        return self.exchanges[-1]

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    def connect(self) -> tuple[HttpConnection, Transport]:
        """:returns: a connection, and what it writes to."""
        connection = self.buildProtocol(None)
        assert isinstance(connection, HttpConnection)
        transport = Transport()
        connection.makeConnection(transport)
        return connection, transport
