"""
A connection that is over is freed at once: the garbage collector runs seldom.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.kits.http2 import Speaker
from tests.kits.http_server import Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """What only the collector would free stays."""
    was_on = gc.isenabled()
    gc.disable()
    yield
    if was_on:
        gc.enable()


def over(connection: Any) -> weakref.ref[Any]:
    """:returns: a reference that keeps nothing, to a connection that is lost."""
    connection.connectionLost(Failure(ConnectionDone()))
    connection.transport.producer = None
    return weakref.ref(connection)


def http_1(answers: bool) -> weakref.ref[Any]:
    server = Server(answers=answers)
    connection, _ = server.connect()
    connection.dataReceived(GET * 2)
    server.time.advance(0)
    server.exchanges.clear()
    return over(connection)


def http_2(answers: bool) -> weakref.ref[Any]:
    speaker = Speaker(Server(answers=answers))
    for stream in (1, 3, 5):
        speaker.send(speaker.headers(stream))
    if not answers:
        speaker.server.retire()
    found = speaker.connection
    speaker.server.exchanges.clear()
    del speaker
    return over(found)


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("talk", [http_1, http_2])
def test_a_connection_leaves_no_cycle(
    talk: Callable[[bool], weakref.ref[Any]], answers: bool
) -> None:
    """Whether or not its requests were answered."""
    assert talk(answers)() is None
