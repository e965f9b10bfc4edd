"""
Who talks to whom at the target's side of one request.

The exchange gets a `TargetSide` from a `Pool`, sends its request there, and is the
`TargetUser` that hears of the response.  Which version of HTTP the target speaks, and whether
other requests share the connection, it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol as Shape

from twisted.internet.defer import Deferred

from mtlsgate.http.fields import Line
from mtlsgate.protocols.http.outgoing import Outgoing
from mtlsgate.protocols.http.response import ResponseHandler
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.targets import Target


class TargetUser(ResponseHandler, Shape):
    """Whose request a connection carries."""

    def failed(self, cause: str, untouched: bool) -> None:
        """
        There will be no response, or no more of it.

        :param untouched: nothing came back: the target may have closed a kept
            connection just then.
        """

    def refused(self, cause: str, sent: Sequence[bytes] | None) -> None:
        """
        The target did nothing with the request, and says so: it can be sent again.

        :param sent: what was sent of its body; None if that was not kept.
        """

    def raw(self, data: bytes) -> None:
        """A piece of another protocol came, after a switch."""

    def raw_ended(self) -> None:
        """The other protocol's connection ended."""

    def target_slow(self, slow: bool) -> None:
        """The target takes no more for now, or does again."""

    def together(self, call: Callable[[], object]) -> None:
        """Call a function; what it tells the user reaches the client in one go."""


class TargetSide(Shape):
    """
    The target's side of one request, as an exchange sees it.

    :ivar target: where it leads.
    :ivar used: whether its connection carried a request before.
    """

    target: Target
    used: bool

    def start(self, user: TargetUser, sent: Outgoing) -> None:
        """Send a request's head."""

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body, or of the other protocol."""

    def finish(self, trailers: Sequence[Line] = ()) -> None:
        """The request's body is complete."""

    def pauseProducing(self) -> None:
        """Pass on no more of the response for now."""

    def resumeProducing(self) -> None:
        """Go on."""

    def release(self) -> None:
        """The response is complete, and its user has no more to do with this."""

    def switch(self) -> None:
        """From now on another protocol is spoken."""

    def close(self) -> None:
        """End the other protocol once all is sent; nobody hears of it any more."""

    def abort(self) -> None:
        """Give the request up; nobody hears of it any more."""


class Pool(Shape):
    """
    The connections to targets.

    :ivar backends: connects.
    """

    backends: Backends

    def take(self, *, fresh: bool, replayable: bool) -> TargetSide | Deferred[TargetSide]:
        """
        :param fresh: whether the connection must be a new one, because one that was kept failed.
        :param replayable: whether the request can be sent again.
        :returns: for one request, to the target whose turn it is; the Deferred fails with
            `Unreachable`.
        """

    def start(self) -> None:
        """Keep connections, and check the targets."""

    def stop(self) -> None:
        """Close what is free, keep no more, and check no more."""
