"""
A connection to a target, for one request after the other.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias
from typing import Protocol as Shape

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate.protocols.http.fields import Line
from mtlsgate.protocols.http.response import BadResponse, ResponseHandler, ResponseReader
from mtlsgate.upstream.targets import Target

if TYPE_CHECKING:
    from mtlsgate.protocols.http.pool import Pool

#: How a request's body is framed.
BodyKind: TypeAlias = Literal["none", "plain", "chunked"]


class Owner(ResponseHandler, Shape):
    """Who uses a connection for one request."""

    def failed(self, cause: str, untouched: bool) -> None:
        """
        There will be no response, or no more of it.

        :param untouched: nothing came back: the target may have closed a kept
            connection just then.
        """

    def raw(self, data: bytes) -> None:
        """A piece of another protocol came, after a switch."""

    def raw_ended(self) -> None:
        """The other protocol's connection ended."""


class TargetConnection(Protocol):
    """
    Sends requests and reads their responses.

    :ivar target: where it leads, once the pool knows.
    :ivar used: whether it carried a request before the present one.
    :ivar idle_since: when it was last given back.
    :ivar _owner: whose request it carries, or None.
    :ivar _sent: whether that request is complete.
    :ivar _chunked: whether its body is sent in chunks.
    :ivar _switched: whether another protocol is spoken.
    """

    target: Target
    transport: ITCPTransport
    used = False
    idle_since = 0.0
    _owner: Owner | None = None
    _reader: ResponseReader | None = None
    _sent = True
    _chunked = False
    _switched = False
    _lost = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def connectionMade(self) -> None:
        """Send what is written at once, as a gateway has to."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    @property
    def usable(self) -> bool:
        """Whether it can carry a request, and nothing waits to be read that would
        be taken for the answer."""
        return not self._lost and self._owner is None and not self._is_readable()

    def _is_readable(self) -> bool:
        fileno = getattr(self.transport, "fileno", None)
        if fileno is None:
            return False
        poll = select.poll()
        poll.register(fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # Sending.

    def start(self, owner: Owner, method: bytes, head: bytes, body: BodyKind) -> None:
        """
        Send a request's head.

        :param body: how what follows is framed.
        """
        self._owner = owner
        self._reader = ResponseReader(method, owner)
        self._sent = body == "none"
        self._chunked = body == "chunked"
        self.transport.write(head)

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body, or of the other protocol."""
        if self._chunked:
            self.transport.writeSequence([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            self.transport.write(data)

    def finish(self, trailers: Sequence[Line] = ()) -> None:
        """The request's body is complete."""
        if self._chunked:
            lines = [b"%s: %s\r\n" % line for line in trailers]
            self.transport.write(b"0\r\n" + b"".join(lines) + b"\r\n")
        self.feed_from(None)
        self._sent = True

    def feed_from(self, producer: IPushProducer | None) -> None:
        """:param producer: what to pause while the target does not read; None
        when there is no more."""
        transport = self.transport
        transport.unregisterProducer()  # type: ignore[attr-defined]
        if producer is not None and not self._lost:
            transport.registerProducer(producer, True)  # type: ignore[attr-defined]

    # Receiving.

    def pauseProducing(self) -> None:
        """Read no more from the target for the time being."""
        if not self._lost:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        """Read on."""
        if not self._lost:
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def stopProducing(self) -> None:
        """The client is gone, of which its connection tells on its own."""

    def dataReceived(self, data: bytes) -> None:
        """Read, and tell the owner."""
        owner, reader = self._owner, self._reader
        if self._switched and owner is not None:
            owner.raw(data)
            return
        if owner is None or reader is None:
            # Nobody asked: whatever it is, the next request must not get it.
            self.abort()
            return
        try:
            reader.feed(data)
        except BadResponse as error:
            self._fail(str(error), untouched=False)
            return

    def release(self) -> None:
        """The response is complete, and its owner has no more to do with this."""
        reader = self._reader
        self._owner = self._reader = None
        if self._lost:
            return
        if reader is None or not reader.reusable or not self._sent:
            # A target that answers before it has read everything may never read the rest.
            self.close()
        else:
            self.used = True
            self.resumeProducing()
            self._pool.put(self)

    def switch(self) -> None:
        """From now on another protocol is spoken."""
        self._switched = True
        self._chunked = False
        self._sent = True

    def _fail(self, cause: str, untouched: bool) -> None:
        owner, self._owner = self._owner, None
        self.abort()
        if owner is not None:
            owner.failed(cause, untouched)

    # Ending.

    def close(self) -> None:
        """End the connection once all is sent; nobody hears of it any more."""
        self._owner = None
        if not self._lost:
            self.feed_from(None)
            self.resumeProducing()
            self._pool.ending(self)
            self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection; nobody hears of it any more."""
        self._owner = None
        if not self._lost:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the owner, if there is one."""
        self._lost = True
        self._pool.remove(self)
        owner, reader, self._owner = self._owner, self._reader, None
        if owner is None or reader is None:
            return
        if self._switched:
            owner.raw_ended()
            return
        untouched = not reader.received
        try:
            reader.closed(clean=reason.check(ConnectionDone) is not None)
        except BadResponse as error:
            why = "" if reason.check(ConnectionDone) else f" ({_words(reason)})"
            owner.failed(f"{error}{why}", untouched)


def _words(reason: Failure) -> str:
    if reason.check(SSL.Error):
        return "its TLS failed"
    return str(reason.value).rstrip(".").lower() or type(reason.value).__name__
