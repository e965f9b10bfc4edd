"""
Targets that speak first: a connection to one is ready when it has.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from mtlsgate.starttls import Greeting, GreetingReader, NoGreeting
from mtlsgate.upstream.relay import Relay, RelayEnd


class NotGreeted(Exception):
    """A target did not greet as it should.  The text says why."""


class IGreeted(Interface):
    """A protocol that cannot be used before its target has greeted."""

    def ready() -> Any:
        """
        :returns: the protocol, if it can be used; or a Deferred that fires with it then, or
            fails with `NotGreeted`.  Cancelling it ends the connection.
        """


@implementer(IGreeted)
class GreetedEnd(RelayEnd):
    """
    The target's end of a relay.  If it greets, its greeting is taken out of the stream.

    :ivar _waiting: fires with this end when the greeting is complete; None if it is, or
        if there is none.
    """

    _waiting: Deferred[Any] | None = None

    def __init__(self, relay: Relay, greeting: GreetingReader | None = None) -> None:
        """:param greeting: reads the greeting; None if it is for the client."""
        super().__init__(relay)
        if greeting is not None:
            self._greeting = greeting
            self._waiting = Deferred(lambda _: self.reset())
            self._forward = self._read_greeting

    def ready(self) -> GreetedEnd | Deferred[Any]:
        """
        :returns: this end, if it may be joined; or a Deferred that fires with it then, or
            fails with `NotGreeted`.
        """
        return self if self._waiting is None else self._waiting

    def _read_greeting(self, data: bytes) -> None:
        found = self._greeting.feed(data)
        if isinstance(found, NoGreeting):
            self._give_up(found.detail)
        elif isinstance(found, Greeting):
            self._forward = self._early.append
            if found.rest:
                self._forward(found.rest)
            waiting, self._waiting = self._waiting, None
            assert waiting is not None
            waiting.callback(self)

    def readConnectionLost(self) -> None:
        """Nothing more comes from here."""
        super().readConnectionLost()
        self._give_up("it ended the connection before its greeting")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the relay, or whoever waits for the greeting."""
        super().connectionLost(reason)
        self._give_up("it ended the connection before its greeting")

    def _give_up(self, problem: str) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.errback(NotGreeted(problem))
            self.reset()


def greeted(protocol: IProtocol) -> IProtocol | Deferred[IProtocol]:
    """:returns: a connected protocol; if it is `IGreeted`, when its target has greeted."""
    waiting = IGreeted(protocol, None)
    return protocol if waiting is None else cast(Deferred[IProtocol], waiting.ready())
