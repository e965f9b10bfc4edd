"""The call of the Workload API, and how it is kept open."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import pytest
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.task import Clock

from mtlsgate.spiffe.call import MAX_MESSAGE, Call, CallEnded
from mtlsgate.spiffe.subscription import LONGEST, PATIENCE, Stream, Subscription
from tests.kits.spiffe import MemoryAgent, Served


@define(eq=False)
class Asking:
    """
    A subscription in memory.

    :ivar came: the messages.
    :ivar lost: why the stream ended, each time, with the status.
    """

    agent: MemoryAgent = field(factory=MemoryAgent)
    clock: Clock = field(factory=Clock)
    came: list[bytes] = field(factory=list)
    lost: list[tuple[str, int | None]] = field(factory=list)
    subscription: Subscription = field(init=False)

    @subscription.default
    def _made(self) -> Subscription:
        return Subscription(
            Stream.SVIDS,
            self.agent,
            self.came.append,
            lambda why, status: self.lost.append((why, status)),
            self.clock,
            lambda: 0.0,
        )

    def begin(self) -> Served:
        """:returns: the agent's side of a call that it has accepted."""
        self.subscription.start()
        served = self.agent.the("FetchX509SVID")
        served.accept()
        return served


def test_messages_come_as_they_are_sent() -> None:
    asking = Asking()
    served = asking.begin()
    assert served.metadata["workload.spiffe.io"] == "true"
    assert served.metadata["content-type"] == "application/grpc"
    assert not asking.subscription.is_up
    big = bytes(300_000)
    for message in (b"one", b"", big):
        served.send(message)
    assert asking.came == [b"one", b"", big]
    assert asking.subscription.is_up
    # Two messages in one piece, and one in many.
    asking.came.clear()
    served.raw(b"\0\0\0\0\1a\0\0\0\0\1b")
    for octet in b"\0\0\0\0\3xyz":
        served.raw(bytes([octet]))
    assert asking.came == [b"a", b"b", b"xyz"]
    assert asking.lost == []


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectError(osError=cast(Any, 111)), "connection refused"),
        (ConnectError(osError=PermissionError(13, "Permission denied")), "permission denied"),
        (ConnectError(), "ConnectError: An error occurred while connecting."),
        (ConnectionRefusedError(osError=cast(Any, 111)), "connection refused"),
        (ValueError("odd"), "ValueError: odd"),
    ],
)
def test_why_there_is_no_connection_is_told_in_words(cause: Exception, words: str) -> None:
    asking = Asking(MemoryAgent(is_up=False, cause=cause))
    asking.subscription.start()
    assert asking.lost == [(words, None)]


def test_it_asks_again_soon_and_then_less_and_less_often() -> None:
    asking = Asking(MemoryAgent(is_up=False))
    asking.subscription.start()
    assert asking.lost == [("no such file or directory", None)]
    waits = []
    for _ in range(9):
        [call] = asking.clock.getDelayedCalls()
        waits.append(call.getTime() - asking.clock.seconds())
        asking.clock.advance(waits[-1])
    assert waits[0] <= 0.2
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    assert asking.agent.tries == 10
    # As soon as one has answered, it begins anew.
    asking.agent.is_up = True
    asking.clock.advance(LONGEST)
    served = asking.agent.the("FetchX509SVID")
    served.accept()
    served.send(b"here")
    served.drop()
    assert not asking.subscription.is_up
    assert asking.lost[-1] == ("it closed the connection", None)
    asking.clock.advance(0.2)
    assert len(asking.agent.served) == 2


def test_it_asks_at_once_if_it_is_told_that_the_agent_answers() -> None:
    """Not while it asks, while it is answered, or after it was stopped."""
    asking = Asking(MemoryAgent(is_up=False))
    asking.subscription.start()
    asking.agent.is_up = True
    asking.subscription.hasten()
    served = asking.agent.the("FetchX509SVID")
    asking.subscription.hasten()
    served.accept()
    served.send(b"here")
    asking.subscription.hasten()
    assert asking.came == [b"here"]
    assert len(asking.agent.served) == 1
    served.drop()
    asking.subscription.stop()
    asking.subscription.hasten()
    assert len(asking.agent.served) == 1
    assert not asking.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("misbehave", "why"),
    [
        (lambda one: one.refuse(7, "no identity issued"), "PermissionDenied: no identity issued"),
        (lambda one: one.refuse(7, "%E2%80%AEx"), "PermissionDenied: \\u202ex"),
        (lambda one: one.refuse(3), "InvalidArgument"),
        (lambda one: one.refuse(99), "99"),
        (lambda one: one.http.send_headers(1, [(":status", "404")]), "HTTP status 404"),
        (lambda one: one.http.reset_stream(1), "it broke off the call"),
        (lambda one: one.http.close_connection(), "it ends the connection"),
    ],
)
def test_an_agent_that_refuses(misbehave: object, why: str) -> None:
    asking = Asking()
    asking.subscription.start()
    served = asking.agent.the("FetchX509SVID")
    misbehave(served)  # type: ignore[operator]
    served.flush()
    [(text, _)] = asking.lost
    assert why in text
    assert not served.is_open
    asking.clock.advance(0.2)
    assert asking.agent.tries == 2


@pytest.mark.parametrize(
    ("misbehave", "why"),
    [
        (lambda one: one.end(0), "it ended the call"),
        (lambda one: one.end(14, "shutting down"), "Unavailable: shutting down"),
        (lambda one: one.http.end_stream(1), "without a status"),
        (lambda one: one.send(b"x", compressed=1), "compresses"),
        (lambda one: one.raw(b"\0" + (MAX_MESSAGE + 1).to_bytes(4)), "is the limit"),
        (lambda one: one.raw(b"\0\xff\xff\xff\xff"), "is the limit"),
        (lambda one: one.protocol.dataReceived(bytes(64)), "does not speak HTTP/2"),
    ],
)
def test_an_agent_that_goes_wrong_later(misbehave: object, why: str) -> None:
    asking = Asking()
    served = asking.begin()
    served.send(b"first")
    misbehave(served)  # type: ignore[operator]
    served.flush()
    [(text, _)] = asking.lost
    assert why in text
    assert asking.came == [b"first"]
    assert not served.is_open


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.binary(max_size=40))))
def test_whatever_an_agent_sends_only_ends_the_call(frames: list[tuple[int, int, bytes]]) -> None:
    """Any frames of HTTP/2, on a call that was accepted."""
    call = Call("/S/M", ())
    call.outgoing()
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    accepted = server.data_to_send()
    with suppress(CallEnded):
        list(call.feed(accepted))
        for kind, flags, payload in frames:
            stream = 0 if kind in (4, 6, 7) else 1
            head = len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4)
            list(call.feed(head + payload))
            call.outgoing()


def test_an_agent_that_says_nothing_is_asked_again() -> None:
    for agent in (MemoryAgent(is_silent=True), MemoryAgent()):
        asking = Asking(agent)
        asking.subscription.start()
        asking.clock.advance(PATIENCE)
        assert asking.lost == [(f"no message within {PATIENCE:g} s", None)]
        asking.clock.advance(0.2)
        assert agent.tries == 2


def test_what_is_refused_is_asked_for_again() -> None:
    asking = Asking()
    served = asking.begin()
    served.send(b"nonsense")
    asking.subscription.refuse("what came has no X.509-SVID")
    assert not served.is_open
    asking.clock.advance(0.2)
    assert asking.agent.tries == 2


def test_when_it_is_stopped_nothing_is_left() -> None:
    for agent in (MemoryAgent(), MemoryAgent(is_up=False), MemoryAgent(is_silent=True)):
        asking = Asking(agent)
        asking.subscription.start()
        asking.lost.clear()
        asking.subscription.stop()
        assert asking.clock.getDelayedCalls() == []
        assert agent.open == []
        assert asking.lost == []
