"""What the supervisor waits for before the reactor runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define
from twisted.internet.defer import Deferred, succeed

from mtlsgate.workers.supervisor import wait_for


@define
class Turning:
    """
    A reactor that does something in its third turn.

    :ivar turns: how many it has taken.
    """

    happens: Callable[[], object]
    turns: int = 0

    def iterate(self, _seconds: float) -> None:
        """Take a turn."""
        self.turns += 1
        if self.turns == 3:
            self.happens()


def test_what_comes_later_is_waited_for() -> None:
    awaited: Deferred[str | None] = Deferred()
    reactor = Turning(lambda: awaited.callback(None))
    assert wait_for(awaited, reactor) is None
    assert reactor.turns == 3


def test_what_is_there_is_not_waited_for() -> None:
    reactor = Turning(pytest.fail)
    assert wait_for(succeed("so"), reactor) == "so"
    assert reactor.turns == 0


def test_what_fails_ends_the_wait() -> None:
    """Or the gate would neither start nor end."""
    awaited: Deferred[None] = Deferred()
    reactor = Turning(lambda: awaited.errback(LookupError("no such worker")))
    with pytest.raises(LookupError, match="no such worker"):
        wait_for(awaited, reactor)
