"""
A connection to which things happen in whatever order.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.http.stages import HttpStage
from tests.kits.http_server import Recorded, Server

PIECES = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20,
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"hello",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\nX-Sum: 1\r\n\r\n",
    b"0\r\nX-Sum : 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"Host: a\r\n\r\n",
    b"\r\n",
    b"\n",
    b"\x16\x03",
    b"x" * 20_000,
]
PLAIN_ACTS = ["pause", "resume", "begin", "piece", "finish", "abandon", "answer", "retire", "turn",
              "pause body", "resume body"]  # fmt: skip
ACTS = st.one_of(
    st.sampled_from(PLAIN_ACTS),
    st.sampled_from(PIECES),
    st.sampled_from([0.5, 3.0, 20.0]),
)


class Stubborn(Recorded):
    """An exchange that answers when it is told to, and knows whether that is over."""

    over = False
    begun = False

    def act(self, act: str) -> None:
        side = self.side
        if self.over:
            return
        if act == "answer" and not self.begun:
            self.over = True
            self.answer()
        elif act == "begin" and not self.begun:
            self.begun = True
            side.respond(200, b"OK", [])
        elif act == "piece" and self.begun:
            side.send(b"piece")
        elif act == "finish" and self.begun:
            self.over = True
            side.finish([(b"X-Sum", b"1")])
        elif act == "abandon" and self.begun:
            self.over = True
            side.abandon()
        elif act == "pause body":
            side.pause_body()
        elif act == "resume body":
            side.resume_body()

    def broken(self, refusal: object) -> None:
        assert not self.over
        self.over = True
        if self.begun:
            self.side.abandon()
        else:
            super().broken(refusal)  # type: ignore[arg-type]

    def lost(self, cause: str, reason: object) -> None:
        assert not self.over
        self.over = True


class StubbornServer(Server):
    def exchange(self, head, asked, side):  # type: ignore[no-untyped-def]
        assert all(one.over for one in self.exchanges)  # type: ignore[attr-defined]
        self.exchanges.append(Stubborn(head, side, answers=False))
        return self.exchanges[-1]


@given(st.lists(ACTS, max_size=40))
@settings(max_examples=150)
def test_whatever_happens_in_whatever_order(acts: list[object]) -> None:
    """Nothing is raised; there is one exchange at a time, and each comes to one end; when the
    connection is lost, nothing of it is left."""
    server = StubbornServer(head_size=8192)
    connection, transport = server.connect()
    for act in acts:
        if connection.stage is HttpStage.LOST:
            break
        match act:
            case bytes():
                if transport.producerState == "producing" and not transport.aborted:
                    connection.dataReceived(act)
            case float():
                server.time.advance(act)
            case "turn":
                server.time.turn()
            case "pause":
                connection.pauseProducing()
            case "resume":
                connection.resumeProducing()
            case "retire":
                server.retire()
            case str() if server.exchanges:
                exchange = server.exchanges[-1]
                assert isinstance(exchange, Stubborn)
                exchange.act(act)
    connection.connectionLost()
    assert server.time.getDelayedCalls() == []
    assert server.connections == {}
    assert all(one.over for one in server.exchanges)  # type: ignore[attr-defined]
