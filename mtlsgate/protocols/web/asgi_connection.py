"""
A client's HTTP connection to an ASGI application: uvicorn's own protocol, held to the
limits and checks that all HTTP servers of the gate have.

llhttp reads the requests.  What it accepts goes through the checks of `mtlsgate.http`
before the application hears of it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Callable, Mapping
from functools import partial
from logging import Logger
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, cast

from twisted.internet.interfaces import IReactorTime
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mtlsgate.http.authority import Asked
from mtlsgate.http.bodies import MalformedMessage
from mtlsgate.http.checks import check
from mtlsgate.http.deadline import Deadline
from mtlsgate.http.fields import Line
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead, head_of
from mtlsgate.http.refusal import Refusal, own_response
from mtlsgate.http.sides import HttpClient, client_of
from mtlsgate.http.stages import ANSWERING, TABLE, HttpStage, Late, seconds_for
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.aio.transport import GateTransport
from mtlsgate.protocols.web.asgi_logging import Application
from mtlsgate.protocols.web.asgi_scope import PEER, extensions
from mtlsgate.protocols.web.asgi_websocket import AsgiWebSocket

#: The versions that are read, as llhttp has them.
_VERSIONS = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}
#: What a header line has besides its name and value.
_LINE = len(b": \r\n")


class AsgiOwner(Protocol):
    """
    The server that a connection belongs to.

    :ivar config: uvicorn's configuration.
    :ivar state: what its connections share.
    :ivar application: the application.
    :ivar limits: what clients are held to.
    :ivar clock: keeps the time.
    :ivar logger: for what uvicorn says.
    :ivar serves: whether a host is one of the server's names; None if it declares none.
    :ivar max_requests: how many requests may be underway.
    :ivar retired: whether connections should end.
    """

    config: Config
    state: ServerState
    application: Application
    limits: HttpLimits
    clock: IReactorTime
    logger: Logger
    serves: Callable[[str], bool] | None
    max_requests: int
    retired: bool

    @property
    def app_state(self) -> dict[str, Any]:
        """What the application put into its state when it started."""

    def keep_date(self) -> None:
        """See to it that answers have the time."""

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """A request, or what could not be read as one, was refused."""


class AsgiConnection(HttpToolsProtocol):
    """
    One client's connection.

    :ivar _peer: who the client is, or None.
    :ivar _facts: what is known of the client, for scopes.
    :ivar _stage: what the connection waits for.
    :ivar _head: the head of the latest request; None while that comes.
    :ivar _head_size: bytes that came since the latest request was complete, or, while it is
        read, since its head or the latest piece of its body came.
    :ivar _body_size: bytes of the latest request's body.
    :ivar _reading: the part of a request that is being read, HEAD or BODY; None between
        two.
    :ivar _refusal: why what is being read is refused.
    :ivar _is_over: whether nothing more is read.
    :ivar _is_slow: whether the client took nothing when its time limit began.
    :ivar _deadline: the client's time limit.
    :ivar _is_timed: whether that runs.
    :ivar _known: the parts of the last head that was checked, the head itself, and what it
        asks for: many clients ask for the same again and again.
    """

    _gate_client: HttpClient
    _peer: IVerifiedPeer | None = None
    _facts: Mapping[str, Any] = MappingProxyType({})
    _head: RequestHead | None = None
    _head_size = 0
    _body_size = 0
    _reading: HttpStage | None = None
    _refusal: Refusal | None = None
    _is_over = False
    _is_slow = False
    _is_timed = True
    _known: tuple[object, RequestHead, Asked] | None = None

    def __init__(self, server: AsgiOwner, loop: AbstractEventLoop) -> None:
        super().__init__(server.config, server.state, server.app_state, loop)
        self.app = cast(Any, server.application)
        self.logger = server.logger
        self.access_log = False
        self.ws_protocol_class = cast(
            Any, partial(AsgiWebSocket, server.application, server.logger, self._add_facts)
        )
        self._server = server
        self._limits = server.limits
        self._deadline = Deadline(server.clock, self._late)
        self._stage = HttpStage.FIRST

    def connection_made(self, transport: BaseTransport) -> None:
        """Identify the client, and wait for its first request."""
        assert isinstance(transport, GateTransport)
        super().connection_made(transport)
        self._gate_client = client_of(transport.transport, None)
        self._know_client()
        self._deadline.within(self._limits.first_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._is_over = True
        self._deadline.end()
        super().connection_lost(exc)

    def _know_client(self) -> None:
        """Find out who the client is now.  The rule that admits it, and what a registry knows
        of it, may change while it is connected."""
        peer = self._gate_client.peer
        if not self._facts or peer is not self._peer:
            self._peer, self._facts = peer, extensions(peer, self._gate_client.tls)

    def _add_facts(self, scope: Any) -> None:
        """Say in the scope of a WebSocket who the client is."""
        self._know_client()
        scope[PEER] = self._peer
        scope["extensions"].update(self._facts)

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        if self._is_over:
            return
        self._head_size += len(data)
        super().data_received(data)
        if self._reading is None and self._is_answering and not self._is_timed:
            # The usual case: a whole request came, of a client that reads.
            self._stage = HttpStage.BUSY
            return
        if self._reading is not None and self._head_size > self._limits.head_size:
            self._refuse(self._too_long())
        self._time()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._reading = HttpStage.HEAD
        self._head = None
        scope = cast(dict[str, Any], self.scope)
        self._know_client()
        scope[PEER] = self._peer
        scope["extensions"] = dict(self._facts)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field came.  One after the body is no header field (RFC 9110, 6.5.1), and ASGI has
        no place for it: it is dropped."""
        if self._reading is HttpStage.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """
        Check the head, and pass the request on.

        :raises Refusal: if it is refused.
        """
        try:
            self._check()
        except MalformedMessage as error:
            self._raise(Refusal(400, error.cause))
        except Refusal as refusal:
            self._raise(refusal)
        self._reading, self._body_size, self._head_size = HttpStage.BODY, 0, 0
        self._server.keep_date()
        super().on_headers_complete()
        # After an upgrade, whether it is made or not, llhttp reads no more of what came with it.
        if self.cycle is not None and (self._server.retired or self.parser.should_upgrade()):
            self.cycle.keep_alive = False

    def _check(self) -> None:
        """
        :raises Refusal: if the request is refused.
        :raises MalformedMessage: if its framing is ambiguous.
        """
        url, lines, parser = self.url, self.headers, self.parser
        said = (parser.get_method(), url, parser.get_http_version(), *lines)
        if self._known is None or self._known[0] != said:
            self._known = None
            self._known = said, *self._checked(url, lines)
        _, self._head, asked = self._known
        if self.parser.should_upgrade() and self._head.length != 0:
            # llhttp would take the body for the next request.
            raise Refusal(400, "an upgrade of a request that has a body")
        if len(self.tasks) >= self._server.max_requests:
            raise Refusal(503, "as many requests as max_requests allows are underway")
        if asked.target != url:
            # RFC 9112, 3.2.2: what the target says counts, and not Host.
            self.url = asked.target
            lines[:] = [
                (b"host", asked.authority),
                *(line for line in lines if line[0] != b"host"),
            ]

    def _checked(self, url: bytes, lines: list[Line]) -> tuple[RequestHead, Asked]:
        """
        :returns: the head, and what it asks for.
        :raises Refusal: if the request is refused.
        :raises MalformedMessage: if its framing is ambiguous.
        """
        size = len(url) + sum([len(name) + len(value) + _LINE for name, value in lines])
        if size > self._limits.head_size:
            raise self._too_long()
        version = _VERSIONS.get(self.parser.get_http_version())
        if version is None:
            raise Refusal(400, "the request line is malformed")
        head = self._head = head_of(self.parser.get_method(), url, version, lines)
        name, serves = self._gate_client.server_name, self._server.serves
        return head, check(head, name, serves, self._limits)

    def on_body(self, body: bytes) -> None:
        """
        A piece of a body came.

        :raises Refusal: if the body is too long.
        """
        self._body_size += len(body)
        self._head_size = 0
        if self._body_size > self._limits.body_size:
            self._raise(Refusal(413, f"the body is longer than {self._limits.body_size} bytes"))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._reading = None
        # The rest of what came counts for the next head only when more of that comes.
        self._head_size = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A response is complete.  uvicorn gives the client time for the next request."""
        super().on_response_complete()
        if self._reading is None and not self._is_timed and not self._is_answering:
            self._stage = HttpStage.IDLE
        else:
            self._time()

    def handle_websocket_upgrade(self) -> None:
        """From now on the connection speaks WebSocket."""
        if self._is_answering:
            self._refuse(Refusal(400, "an upgrade before an earlier request was answered"))
            return
        self._is_over = True
        self._deadline.cancel()
        super().handle_websocket_upgrade()

    # Refusing.

    def _too_long(self) -> Refusal:
        what = "what frames the body" if self._reading is HttpStage.BODY else "the head"
        return Refusal(400, f"{what} is longer than {self._limits.head_size} bytes")

    def _raise(self, refusal: Refusal) -> NoReturn:
        """Have the parser stop: uvicorn then calls `send_400_response`."""
        self._refusal = refusal
        raise refusal

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, or must not be."""
        refusal, self._refusal = self._refusal, None
        self._refuse(refusal or Refusal(400, "the request is malformed"))

    @property
    def _is_answering(self) -> bool:
        """Whether a request is still to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, refusal: Refusal) -> None:
        """Read no more.  Earlier requests are still answered."""
        if self._is_over:
            return
        self._is_over = True
        self._server.refused(self._gate_client, self._head, refusal)
        if self._reading is not HttpStage.BODY:
            if self._is_answering:
                self.cycle.keep_alive = False
            else:
                self._answer(refusal)
        elif not self._is_answering:
            # The application needed no more of the body.
            self.transport.close()
        elif self.cycle.response_started or self.pipeline:
            # The client must not take what it got for the whole.
            self.transport.abort()
        else:
            self._answer(refusal)
            # The application is told that nobody waits for it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._time()

    def _answer(self, refusal: Refusal) -> None:
        self.transport.write(own_response(refusal.status))
        self.transport.close()

    def retire(self) -> None:
        """Let the connection end as soon as nothing is underway on it.  If its first request
        is still to come, it is answered."""
        if self._head is not None or self.cycle is not None:
            self.shutdown()

    # Time limits.

    def pause_writing(self) -> None:
        """The client takes nothing for now."""
        super().pause_writing()
        self._time()

    def resume_writing(self) -> None:
        """The client takes bytes again."""
        super().resume_writing()
        self._time()

    def _next_stage(self) -> HttpStage:
        if self._reading is not None and not self._is_over:
            return self._reading
        if self._is_answering:
            return HttpStage.BUSY
        if self._is_over:
            return HttpStage.ENDED
        return HttpStage.FIRST if self.cycle is None else HttpStage.IDLE

    def _time(self) -> None:
        """Begin the client's time limit anew if the connection waits for something else, or
        if a piece of a body came."""
        before, self._stage = self._stage, self._next_stage()
        was_slow, self._is_slow = self._is_slow, self.flow.write_paused
        stage, limits = self._stage, self._limits
        if (
            (stage, self._is_slow) == (before, was_slow)
            and stage is not HttpStage.BODY
            and (self._is_timed or stage is HttpStage.BUSY)
        ):
            return
        self._is_timed = stage is not HttpStage.BUSY or self._is_slow
        if stage is HttpStage.ENDED:
            # The transport has a limit of its own for that.
            self._deadline.within(None)
        elif before is HttpStage.FIRST and stage is HttpStage.HEAD:
            # The time for the head is part of the time for the first request.
            left = self._deadline.left
            assert left is not None
            self._deadline.within(min(left, limits.head_timeout))
        else:
            self._deadline.within(
                seconds_for(
                    stage, limits, congested=self._is_slow, client_waits=False, refused=False
                )
            )

    def _late(self) -> None:
        limits, stage = self._limits, self._stage
        rule = TABLE[stage]
        if self._is_slow and stage in ANSWERING:
            self.transport.abort()
        elif self._client_waits:
            self._deadline.within(rule.time(limits))
        elif rule.late is Late.TOLD:
            self._refuse(Refusal(408, rule.cause.format(seconds=rule.time(limits))))
        else:
            self.transport.close()

    @property
    def _client_waits(self) -> bool:
        """Whether the client cannot go on, because the application does not."""
        if self._reading is None:
            return False
        return self.flow.read_paused or (
            self._is_answering and bool(self.cycle.waiting_for_100_continue)
        )
