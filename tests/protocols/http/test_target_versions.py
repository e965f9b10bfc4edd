"""A target that is to speak HTTP/2, and does not."""

from __future__ import annotations

import gc

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mtlsgate.protocols.http.target_http2 import Http2Target
from tests.kits.gate import Log


class Keeper:
    """Keeps nothing."""

    def idle(self, connection: Http2Target) -> None:
        """It has no requests."""

    def remove(self, connection: Http2Target) -> None:
        """It is no more."""


class Tls(StringTransport):
    """A TLS connection whose target chose HTTP/1.1."""

    negotiatedProtocol = b"http/1.1"


def outcome(asking: Deferred[Http2Target]) -> str:
    """:returns: why it failed."""
    found: list[str] = []
    asking.addErrback(lambda failure: found.append(str(failure.value)))
    [why] = found
    return why


@pytest.mark.parametrize("is_lost_first", [False, True])
def test_whoever_dials_is_told_and_nobody_else(log: Log, is_lost_first: bool) -> None:
    """It costs no traceback in the log."""
    target = Http2Target(Keeper(), Clock(), tls=True, seconds=5.0)
    target.makeConnection(Tls())
    if is_lost_first:
        target.connectionLost()
        assert "before it said that it speaks HTTP/2" in outcome(target.ready())
    else:
        assert "did not choose HTTP/2" in outcome(target.ready())
        target.connectionLost()
    del target
    gc.collect()
    assert log.failures == []
