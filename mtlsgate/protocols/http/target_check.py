"""
Checks of targets by a request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from mtlsgate.http.fields import Line
from mtlsgate.protocols.http.response import BadResponse, ResponseHead, ResponseReader
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.checks import Closing, Unhealthy
from mtlsgate.upstream.state import TargetState
from mtlsgate.upstream.targets import Target


@frozen
class PathCheck:
    """
    Checks whether a target answers a request well.

    :ivar backends: connects.
    :ivar clock: limits how long closing takes.
    :ivar path: what to GET.
    :ivar statuses: which are well; if empty, 200 to 399.
    :ivar hosts: what ``Host`` is for each target.
    """

    backends: Backends
    clock: IReactorTime
    path: bytes
    statuses: Collection[int]
    hosts: Mapping[Target, bytes]

    def __call__(self, state: TargetState) -> Deferred[None]:
        """:returns: a Deferred that fails if the target is not well."""
        request = (
            b"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: mtlsgate\r\nConnection: close\r\n\r\n"
        ) % (self.path, self.hosts[state.target])
        factory = _AskingFactory(self.clock)
        asking = self.backends.attempt(state, factory, b"")
        return asking.addCallback(_ask, request).addCallback(judge, self.statuses)


def judge(status: int, statuses: Collection[int]) -> None:
    """
    :param statuses: which are well; if empty, 200 to 399.
    :raises Unhealthy: if the status is not one of them.
    """
    if not (status in statuses if statuses else 200 <= status < 400):
        raise Unhealthy(f"status {status}")


def _ask(protocol: object, request: bytes) -> Deferred[int]:
    assert isinstance(protocol, _Asking)
    return protocol.ask(request)


class _AskingFactory(Factory):
    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> _Asking:
        return _Asking(self._clock)


class _Asking(Closing):
    """
    Sends a request, and waits for the status of the response.

    :ivar _answer: fires with it; None when it has.
    """

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock)
        self._answer: Deferred[int] | None = Deferred(self._cancel)
        self._reader = ResponseReader(b"GET", self, lenient=True)

    def ask(self, request: bytes) -> Deferred[int]:
        """:returns: the status."""
        assert self._answer is not None
        answer = self._answer
        self.transport.write(request)
        return answer

    def _cancel(self, _: object) -> None:
        self._answer = None
        self.transport.abortConnection()

    def _found(self, result: int | Failure) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self.close()
            answer.callback(result)

    def dataReceived(self, data: bytes) -> None:
        """Read the response, until its status is known."""
        if self._answer is None:
            return
        try:
            self._reader.feed(data)
        except BadResponse as error:
            self._found(Failure(Unhealthy(str(error))))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The target closed the connection."""
        super().connectionLost(reason)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(Unhealthy("it closed the connection without an answer"))

    # What the reader tells.

    def interim(self, head: ResponseHead) -> None:
        """Another response follows."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """It switches protocols, which nobody asked for."""
        self._found(head.status)

    def head(self, head: ResponseHead) -> None:
        """The status is known."""
        self._found(head.status)

    def received(self, data: bytes) -> None:
        """The body does not matter."""

    def completed(self, trailers: Sequence[Line]) -> None:
        """The end does not matter."""
