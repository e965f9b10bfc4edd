"""
A connection to a target, for one request after the other.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from functools import partial
from typing import Any
from typing import Protocol as Shape

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.http.fields import Line
from mtlsgate.protocols.http.outgoing import Outgoing, http1_head
from mtlsgate.protocols.http.response import BadResponse, ResponseReader
from mtlsgate.protocols.http.target_side import TargetUser
from mtlsgate.tls.openssl_errors import TlsError
from mtlsgate.upstream.state import TargetUse
from mtlsgate.upstream.targets import Target


class Keeper(Shape):
    """Where connections are kept between requests."""

    def put(self, connection: TargetConnection) -> None:
        """Take a connection back that is free again."""

    def ending(self, connection: TargetConnection) -> None:
        """Make sure that a connection that was closed comes to an end."""

    def remove(self, connection: TargetConnection) -> None:
        """Forget a connection that is over."""


@implementer(IPushProducer)
class _Upload:
    """A request's body, as what the transport asks to pause."""

    def __init__(self, user: TargetUser) -> None:
        self._user = user

    def pauseProducing(self) -> None:
        """The target takes no more for now."""
        self._user.target_slow(True)

    def resumeProducing(self) -> None:
        """It does again."""
        self._user.target_slow(False)

    def stopProducing(self) -> None:
        """The connection is lost, of which itself tells."""


class TargetConnection(Protocol):
    """
    Sends requests and reads their responses.

    :ivar target: where it leads.
    :ivar trust: by which its target was verified.
    :ivar used: whether it carried a request before the present one.
    :ivar idle_since: when it was last given back.
    :ivar _user: whose request it carries, or None.
    :ivar _use: counts that request for the target; None before the first.
    :ivar _sent: whether that request is complete.
    :ivar _chunked: whether its body is sent in chunks.
    :ivar _switched: whether another protocol is spoken.
    :ivar _paused: nothing is read from the target for now.
    """

    target: Target
    trust = 0
    transport: Any
    used = False
    idle_since = 0.0
    _user: TargetUser | None = None
    _use: TargetUse | None = None
    _reader: ResponseReader | None = None
    _sent = True
    _chunked = False
    _switched = False
    _lost = False
    _paused = False

    def __init__(self, keeper: Keeper, *, lenient: bool = False) -> None:
        """
        :param keeper: where it goes between requests.
        :param lenient: whether to take what some old servers write.
        """
        self._keeper = keeper
        self._lenient = lenient

    def connectionMade(self) -> None:
        """Send what is written at once, as a gateway has to."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def reached(self, target: Target, use: TargetUse, trust: int = 0) -> TargetConnection:
        """
        :param target: where it leads, which is known once it is connected.
        :param use: counts its first request.
        :param trust: by which its target was verified, see `Backends.trust`.
        """
        self.target = target
        self.trust = trust
        self.taken(use)
        return self

    def taken(self, use: TargetUse) -> None:
        """:param use: counts the request that it is going to carry."""
        self._use = use
        if self._lost:
            use.end()

    def _end_use(self) -> None:
        if self._use is not None:
            self._use.end()

    def rest(self, now: float) -> None:
        """:param now: when it was given back."""
        self.used = True
        self.idle_since = now

    @property
    def usable(self) -> bool:
        """Whether it can carry a request, and nothing waits to be read that would
        be taken for the answer."""
        return not self._lost and self._user is None and not self._is_readable()

    def _is_readable(self) -> bool:
        fileno = getattr(self.transport, "fileno", None)
        if fileno is None:
            return False
        poll = select.poll()
        poll.register(fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # Sending.

    def start(self, user: TargetUser, sent: Outgoing) -> None:
        """Send a request's head (`TargetSide`)."""
        self._user = user
        self._reader = ResponseReader(sent.method, user, lenient=self._lenient)
        self._sent = sent.body == "none"
        self._chunked = sent.body == "chunked"
        if not self._sent:
            self._feed_from(user)
        self.transport.write(http1_head(sent))

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body, or of the other protocol."""
        if self._chunked:
            self.transport.writeSequence([b"%x\r\n" % len(data), data, b"\r\n"])
        else:
            self.transport.write(data)

    def finish(self, trailers: Sequence[Line] = ()) -> None:
        """The request's body is complete."""
        if self._sent:
            return
        if self._chunked:
            lines = [b"%s: %s\r\n" % line for line in trailers]
            self.transport.write(b"0\r\n" + b"".join(lines) + b"\r\n")
        self._feed_from(None)
        self._sent = True

    def _feed_from(self, user: TargetUser | None) -> None:
        """:param user: whom to tell that the target takes no more; None for nobody."""
        self.transport.unregisterProducer()
        if user is not None and not self._lost:
            self.transport.registerProducer(_Upload(user), True)

    # Receiving.

    def pauseProducing(self) -> None:
        """Read no more from the target for now."""
        if not self._lost:
            self._paused = True
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        if self._paused and not self._lost:
            self._paused = False
            self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """Read, and tell the user."""
        user, reader = self._user, self._reader
        if user is None or reader is None:
            # Nobody asked: whatever it is, the next request must not get it.
            self.abort()
        elif self._switched:
            user.raw(data)
        else:
            try:
                user.together(partial(reader.feed, data))
            except BadResponse as error:
                self._fail(str(error), untouched=False)

    def release(self) -> None:
        """The response is complete, and its user has no more to do with this."""
        reader = self._reader
        self._user = self._reader = None
        self._end_use()
        if self._lost:
            return
        if reader is None or not reader.reusable or not self._sent:
            # A target that answers before it has read everything may never read the rest.
            self.close()
        else:
            self.resumeProducing()
            self._keeper.put(self)

    def switch(self) -> None:
        """From now on another protocol is spoken."""
        assert self._user is not None
        self._switched = True
        self._chunked = False
        self._sent = True
        self._feed_from(self._user)

    def _fail(self, cause: str, untouched: bool) -> None:
        user, self._user = self._user, None
        self.abort()
        if user is not None:
            user.failed(cause, untouched)

    # Ending.

    def close(self) -> None:
        """End the connection once all is sent; nobody hears of it any more."""
        self._user = None
        self._end_use()
        if not self._lost:
            self._feed_from(None)
            self.resumeProducing()
            self._keeper.ending(self)
            self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection; nobody hears of it any more."""
        self._user = None
        self._end_use()
        if not self._lost:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the user, if there is one."""
        self._lost = True
        self._end_use()
        self._keeper.remove(self)
        user, reader, self._user = self._user, self._reader, None
        if user is None or reader is None:
            return
        if self._switched:
            user.raw_ended()
            return
        clean = reason.check(ConnectionDone) is not None
        untouched = not reader.received
        try:
            reader.closed(clean=clean)
        except BadResponse as error:
            user.failed(str(error) if clean else f"{error} ({words(reason)})", untouched)


def words(reason: Failure) -> str:
    """:returns: why a connection ended."""
    if reason.check(TlsError):
        return "its TLS failed"
    return str(reason.value).rstrip(".").lower() or type(reason.value).__name__
