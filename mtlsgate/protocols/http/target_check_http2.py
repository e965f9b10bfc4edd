"""
Checks of targets by a request of HTTP/2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory

from mtlsgate.http.fields import Line
from mtlsgate.protocols.http.outgoing import Outgoing
from mtlsgate.protocols.http.response import ResponseHead
from mtlsgate.protocols.http.target_check import judge
from mtlsgate.protocols.http.target_http2 import Http2Target
from mtlsgate.protocols.http.target_stream import TargetStream
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.checks import Unhealthy
from mtlsgate.upstream.state import TargetState, TargetUse
from mtlsgate.upstream.targets import Target


class CheckKeeper:
    """Keeps no connection (`mtlsgate.protocols.http.target_http2.Keeper`)."""

    def idle(self, connection: Http2Target) -> None:
        """The check is over."""
        connection.close()

    def remove(self, connection: Http2Target) -> None:
        """It is not kept."""


@frozen
class Http2PathCheck:
    """
    Checks whether a target answers a request of HTTP/2 well.

    :ivar backends: connects.
    :ivar factory: makes connections, which a `CheckKeeper` ends.
    :ivar path: what to GET.
    :ivar statuses: which are well; if empty, 200 to 399.
    :ivar hosts: what ``:authority`` is for each target.
    """

    backends: Backends
    factory: IProtocolFactory
    path: bytes
    statuses: Collection[int]
    hosts: Mapping[Target, bytes]

    def __call__(self, state: TargetState) -> Deferred[None]:
        """:returns: a Deferred that fails if the target is not well."""
        lines = [(b"user-agent", b"mtlsgate")]
        request = Outgoing(b"GET", self.path, self.hosts[state.target], lines)

        def ask(protocol: object) -> Deferred[int]:
            assert isinstance(protocol, Http2Target)
            protocol.reached(state)
            return _Asker(protocol.take(TargetUse(state)), request).answer

        asking = self.backends.attempt(state, self.factory, b"").addCallback(ask)
        return asking.addCallback(judge, self.statuses)


class _Asker:
    """
    Asks, and waits for the status of the response
    (`mtlsgate.protocols.http.target_side.TargetUser`).

    :ivar answer: fires with it.
    """

    def __init__(self, stream: TargetStream, request: Outgoing) -> None:
        self.answer: Deferred[int] = Deferred(lambda _: stream.abort())
        self._stream = stream
        stream.start(self, request)

    def together(self, call: Callable[[], object]) -> None:
        """Nothing is sent on."""
        call()

    def interim(self, head: ResponseHead) -> None:
        """Another response follows."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """HTTP/2 has no 101."""

    def head(self, head: ResponseHead) -> None:
        """The status is known; nothing else matters."""
        self._stream.abort()
        self.answer.callback(head.status)

    def received(self, data: bytes) -> None:
        """The body does not matter."""

    def completed(self, trailers: Sequence[Line]) -> None:
        """The end does not matter."""

    def failed(self, cause: str, untouched: bool) -> None:
        """There is no response."""
        self._fail(cause)

    def refused(self, cause: str, sent: Sequence[bytes] | None) -> None:
        """There is no response."""
        self._fail(cause)

    def _fail(self, cause: str) -> None:
        if not self.answer.called:
            self.answer.errback(Unhealthy(cause))

    def raw(self, data: bytes) -> None:
        """No other protocol is spoken."""

    def raw_ended(self) -> None:
        """No other protocol is spoken."""

    def target_slow(self, slow: bool) -> None:
        """Nothing waits to be sent."""
