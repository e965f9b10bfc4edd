"""
A connection to which things happen in whatever order.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure

from mtlsgate.http.stages import HttpStage
from mtlsgate.http2.versions import versions
from tests.kits.http2 import GET, POST, WEBSOCKET, Speaker, raw
from tests.kits.http_server import Recorded, Server

NUMBERS = [1, 3, 5, 7]
SIDE_ACTS = ["begin", "begin empty", "piece", "much", "finish", "abandon", "cut", "answer",
             "interim", "pause body", "resume body", "switch"]  # fmt: skip
FRAMES = ["get", "head", "post", "sized", "expecting", "websocket", "bad", "data", "end", "much",
          "empty", "trailers", "window", "reset", "too wide", "half"]  # fmt: skip
ACTS = st.one_of(
    st.tuples(st.sampled_from(FRAMES), st.sampled_from(NUMBERS)),
    st.tuples(st.sampled_from(SIDE_ACTS), st.integers(0, 3)),
    st.sampled_from(["pause", "resume", "retire", "turn", "ping", "goaway", "open", "narrow"]),
    st.sampled_from([0.5, 3.0, 20.0]),
    st.binary(max_size=30),
)


class Stubborn(Recorded):
    """An exchange that answers when it is told to, and knows whether that is over."""

    over = False
    begun = False

    def act(self, act: str) -> None:
        side = self.side
        if self.over:
            return
        match act:
            case "answer" if not self.begun:
                self.over = True
                self.answer()
            case "begin" | "begin empty" if not self.begun:
                self.begun = True
                length = [(b"Content-Length", b"0")] if act == "begin empty" else []
                side.respond(200, b"OK", length)
            case "interim" if not self.begun:
                side.interim(103, b"Early Hints", [])
            case "piece" if self.begun:
                side.send(b"piece")
            case "much" if self.begun:
                side.send(bytes(100_000))
            case "finish" if self.begun:
                self.over = True
                side.finish([(b"X-Sum", b"1")])
            case "abandon" if self.begun:
                self.over = True
                side.abandon()
            case "cut":
                side.cut()
            case "pause body":
                side.pause_body()
            case "resume body":
                side.resume_body()

    def data(self, data: bytes) -> None:
        assert not self.over
        super().data(data)

    def broken(self, refusal: Any) -> None:
        assert not self.over
        self.over = True
        if self.begun:
            self.side.abandon()
        else:
            super().broken(refusal)

    def lost(self, cause: str, reason: Failure) -> None:
        assert not self.over
        self.over = True


class Stubborns(Server):
    def exchange(self, head: Any, asked: Any, side: Any) -> Any:
        self.exchanges.append(Stubborn(head, side, False))
        return self.exchanges[-1]


def frame(client: Speaker, kind: str, number: int) -> bytes:
    match kind:
        case "get":
            return client.headers(number)
        case "head":
            return client.headers(number, [(b":method", b"HEAD"), *GET[1:]])
        case "post":
            return client.headers(number, POST, end=False)
        case "sized":
            return client.headers(number, [*POST, (b"content-length", b"5")], end=False)
        case "expecting":
            return client.headers(number, [*POST, (b"expect", b"100-continue")], end=False)
        case "websocket":
            return client.headers(number, WEBSOCKET, end=False)
        case "bad":
            return client.headers(number, [*GET, (b"Upper", b"case")])
        case "data":
            return client.data(number, b"hello")
        case "end":
            return client.data(number, b"", end=True)
        case "much":
            return client.data(number, bytes(16384))
        case "empty":
            return client.data(number)
        case "trailers":
            return client.headers(number, [(b"x-sum", b"1")])
        case "window":
            return client.window(number, 50_000)
        case "reset":
            return client.reset(number)
        case "too wide":
            return client.window(number, 2**31 - 1)
        case _:
            return client.headers(number, pieces=2)[:-3]


def do(client: Speaker, server: Stubborns, act: Any) -> None:
    match act:
        case float():
            server.time.advance(act)
        case bytes():
            client.connection.dataReceived(act)
        case (str() as kind, int() as number) if kind in FRAMES and number in NUMBERS:
            client.connection.dataReceived(frame(client, kind, number))
        case (kind, place):
            for exchange in server.exchanges[place : place + 1]:
                assert isinstance(exchange, Stubborn)
                exchange.act(kind)
        case "pause":
            client.pause()
        case "resume":
            client.resume()
        case "retire":
            client.connection.retire()
        case "turn":
            server.time.turn()
        case "ping":
            client.connection.dataReceived(client.ping(b"last one", ack=True))
        case "goaway":
            client.connection.dataReceived(raw(7, 0, 0, bytes(8)))
        case "open":
            client.connection.dataReceived(client.window(0, 100_000))
        case "narrow":
            client.connection.dataReceived(client.settings(INITIAL_WINDOW_SIZE=3))


@settings(max_examples=400)
@given(acts=st.lists(ACTS, max_size=40))
def test_whatever_happens_every_exchange_ends_once(acts: list[Any]) -> None:
    """Nothing raises, nothing is told to an exchange that is over, and nothing is left."""
    server = Stubborns(answers=False, versions=versions(["2", "1.1"]), websockets=True)
    client = Speaker(server)
    connection = client.connection
    for act in acts:
        if connection.stage is HttpStage.LOST:
            break
        do(client, server, act)
    # Whatever the client was sent, it can read.
    client.receive()
    if connection.stage is not HttpStage.LOST:
        connection.connectionLost()
    server.time.advance(0)
    for exchange in server.exchanges:
        assert isinstance(exchange, Stubborn)
        assert exchange.over
    assert server.connections == {}
    assert not server.time.getDelayedCalls()
