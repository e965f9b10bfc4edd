"""
A stream of the Workload API that is kept open over a unix socket.

When it ends it is opened again: after at most 0.1 s at first, then after growing delays of up to
5 s (SPIFFE Workload API, 4.2).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate.spiffe.call import Call, CallEnded
from mtlsgate.text import printable

#: The shortest and the longest delay before another attempt, in seconds.
SHORTEST, LONGEST = 0.1, 5.0
#: How long an agent may take to connect and to send its first message, in seconds.
PATIENCE = 10.0

#: Without it an agent refuses a call: it shows that nobody was tricked into making it
#: (SPIFFE Workload Endpoint, 5).
_METADATA = (("workload.spiffe.io", "true"),)


class Stream(StrEnum):
    """The calls that the gate makes."""

    SVIDS = "FetchX509SVID"
    BUNDLES = "FetchX509Bundles"


class Subscription:
    """
    One stream of one agent.

    :ivar is_up: whether the agent has sent a message on the connection that there is now.
    :ivar attempts: how many attempts have failed since the last message.
    """

    def __init__(
        self,
        stream: Stream,
        endpoint: IStreamClientEndpoint,
        took: Callable[[bytes], object],
        lost: Callable[[str, int | None], object],
        reactor: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        """
        :param endpoint: connects to the agent.
        :param took: is called with each message.
        :param lost: is called when the stream has ended, with why, in words, and the status
            of gRPC if the agent gave one.
        :param random: a number from 0 to 1, so that not all gates ask at once.
        """
        self.is_up = False
        self.attempts = 0
        self._stream = stream
        self._endpoint = endpoint
        self._took = took
        self._lost = lost
        self._reactor = reactor
        self._random = random
        self._connecting: Deferred[Any] | None = None
        self._protocol: _Answers | None = None
        self._timer: IDelayedCall | None = None
        self._is_over = False

    def start(self) -> None:
        """Connect."""
        self._set_timer(PATIENCE, self._too_late)
        factory = Factory.forProtocol(lambda: _Answers(self._stream, self))
        factory.noisy = False
        self._connecting = connecting = self._endpoint.connect(factory)
        connecting.addCallbacks(self._connected, self._not_connected)

    def stop(self) -> None:
        """End it for good."""
        self._is_over = True
        self._drop()

    def hasten(self) -> None:
        """Ask at once, if it waits until it asks again: the agent answers other calls."""
        if self._timer is not None and self._connecting is None and self._protocol is None:
            self._cancel_timer()
            self.start()

    def refuse(self, why: str) -> None:
        """
        Ask again: what came must not be used.

        :param why: what is wrong with it, in words.
        """
        self._ended(why, None)

    def message(self, data: bytes) -> None:
        """A message came."""
        self._cancel_timer()
        self.is_up, self.attempts = True, 0
        self._took(data)

    def ended(self, protocol: _Answers, why: str, status: int | None) -> None:
        """A connection is over."""
        if protocol is self._protocol:
            self._ended(why, status)

    def _connected(self, protocol: Any) -> None:
        self._connecting, self._protocol = None, protocol
        protocol.begin()

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self._is_over and self._timer is not None:
            self._ended(_words(failure.value), None)

    def _too_late(self) -> None:
        self._timer = None
        self._ended(f"no message within {PATIENCE:g} s", None)

    def _ended(self, why: str, status: int | None) -> None:
        self._drop()
        self.is_up = False
        self.attempts += 1
        delay = min(SHORTEST * 2 ** min(self.attempts - 1, 10), LONGEST)
        self._set_timer(delay * (1 - 0.25 * self._random()), self.start)
        self._lost(why, status)

    def _drop(self) -> None:
        self._cancel_timer()
        protocol, self._protocol = self._protocol, None
        connecting, self._connecting = self._connecting, None
        if protocol is not None:
            protocol.drop()
        if connecting is not None:
            connecting.cancel()

    def _set_timer(self, seconds: float, call: Callable[[], object]) -> None:
        self._timer = self._reactor.callLater(seconds, call)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


class _Answers(Protocol):
    """Makes the call on a connection, and passes on its messages."""

    def __init__(self, stream: Stream, owner: Subscription) -> None:
        self._call = Call(f"/SpiffeWorkloadAPI/{stream}", _METADATA)
        self._owner: Subscription | None = owner

    def begin(self) -> None:
        """Send the call."""
        assert self.transport is not None
        self.transport.write(self._call.outgoing())

    def drop(self) -> None:
        """Close the connection, and pass on nothing more."""
        self._owner = None
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Pass on the messages."""
        owner = self._owner
        try:
            for message in self._call.feed(data):
                if self._owner is not None:
                    self._owner.message(message)
        except CallEnded as ended:
            if owner is not None:
                owner.ended(self, str(ended), ended.status)
            return
        if self.transport is not None:
            self.transport.write(self._call.outgoing())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell that it is over."""
        if self._owner is not None:
            self._owner.ended(self, _words(reason.value), None)


def _words(error: BaseException | None) -> str:
    """:returns: why there is no connection, in words."""
    match error:
        case ConnectError(osError=OSError() as cause) if cause.strerror:
            return printable(cause.strerror.lower())
        case ConnectError(osError=int(number)):
            return printable(os.strerror(number).lower())
        case ConnectionClosed():
            return "it closed the connection"
    return printable(f"{type(error).__name__}: {error}")
