"""
Whatever happens in whatever order, nothing is left over, and nobody gets what is
somebody else's.
"""

from __future__ import annotations

import random

import pytest
from twisted.internet.error import ConnectionLost

from mtlsgate.testing import Client
from tests.kits.http import Backend, HttpGate

BIG = 300_000


def request(chance: random.Random, number: int) -> bytes:
    """:returns: a request whose path and body hold its number."""
    mark = b"<%d>" % number
    head = b" /%d HTTP/1.1\r\nHost: a\r\n" % number
    body = mark * chance.choice([1, 10, BIG // len(mark)])
    match chance.randrange(6):
        case 0 | 1:
            return chance.choice([b"GET", b"HEAD", b"DELETE"]) + head + b"\r\n"
        case 2:
            return b"POST" + head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        case 3:
            chunked = b"%x\r\n%b\r\n0\r\nX-T: %b\r\n\r\n" % (len(body), body, mark)
            return b"PUT" + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked
        case 4:
            return (
                b"PUT"
                + head
                + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b"
                % (
                    len(body),
                    body,
                )
            )
        case _:
            upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            return b"GET" + head + upgrade


def response(chance: random.Random, number: int) -> bytes:
    """:returns: a response whose body holds the number of the request."""
    mark = b"[%d]" % number
    body = mark * chance.choice([1, 10, BIG // len(mark)])
    match chance.randrange(7):
        case 0 | 1:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        case 2:
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            return head + b"%x\r\n%b\r\n0\r\nX-T: %b\r\n\r\n" % (len(body), body, mark)
        case 3:
            return b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"
        case 4:
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body
        case 5:
            return (
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\n\r\n" + body
            )
        case _:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"


class Actors:
    """
    Clients and targets that do as chance will have it.

    :ivar clients: each with what it has still to send, and what it received.
    :ivar mine: for each client the numbers of its requests.
    """

    def __init__(self, http: HttpGate, seed: int) -> None:
        self.http = http
        self.chance = random.Random(seed)
        self.clients: list[Client] = []
        self.unsent: dict[Client, bytes] = {}
        self.received: dict[Client, bytes] = {}
        self.mine: dict[Client, set[int]] = {}
        self.answers: dict[Backend, bytes] = {}
        self.numbers = 0

    def connect(self) -> None:
        credential = self.http.authority.issue("alice")
        client = self.http.connect(credential, piece_size=2**14)
        self.clients.append(client)
        self.received[client], self.unsent[client], self.mine[client] = b"", b"", set()
        for _ in range(self.chance.randint(1, 4)):
            self.numbers += 1
            self.mine[client].add(self.numbers)
            self.unsent[client] += request(self.chance, self.numbers)

    def step(self) -> None:
        chance = self.chance
        act = chance.choice([self.speak] * 6 + [self.answer] * 6 + [self.disturb])
        act()
        for client in self.clients:
            client.pump()
            self.received[client] += bytes(client._received)
            client._received.clear()

    def speak(self) -> None:
        if len(self.clients) < 3:
            self.connect()
        client = self.chance.choice(self.clients)
        size = self.chance.choice([1, 50, 1000, 10**6])
        data, self.unsent[client] = self.unsent[client][:size], self.unsent[client][size:]
        if data and not client.disconnected:
            client.send(data)

    def answer(self) -> None:
        if not self.http.reactor.backends:
            return
        backend = self.chance.choice(self.http.reactor.backends)
        if not self.answers.get(backend) and backend.requests > backend.answered:
            backend.answered += 1
            [*_, path] = [
                line.split()[1]
                for line in backend.received().split(b"\r\n")
                if line.endswith(b" HTTP/1.1")
            ][: backend.answered]
            self.answers[backend] = response(self.chance, int(path[1:]))
        data = self.answers.get(backend, b"")
        size = self.chance.choice([1, 50, 1000, 10**6])
        self.answers[backend] = data[size:]
        backend.send(data[:size])
        if not data[size:] and b"Connection: close" in data:
            backend.transport.finish()

    def disturb(self) -> None:
        chance, http = self.chance, self.http
        match chance.randrange(8):
            case 0 if http.reactor.backends:
                chance.choice(http.reactor.backends).transport.finish()
            case 1 if http.reactor.backends:
                chance.choice(http.reactor.backends).transport.lose(ConnectionLost())
            case 2 if self.clients:
                chance.choice(self.clients).reset()
            case 3 if self.clients:
                chance.choice(self.clients).close()
            case 4 if self.clients:
                chance.choice(self.clients).pause_reading()
            case 5:
                for client in self.clients:
                    client.resume_reading()
            case 6:
                http.reactor.advance(chance.choice([0.5, 1, 3]))
            case 7:
                http.reactor.refusing ^= {9000}
            case _:
                pass

    def end(self) -> None:
        for client in self.clients:
            client.resume_reading()
            client.reset()
        self.http.factory.doStop()
        for backend in self.http.reactor.backends:
            backend.received()
        self.http.reactor.advance(100)
        for backend in self.http.reactor.backends:
            backend.received()
        self.http.reactor.advance(100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(80))
def test_nothing_is_left_over(http: HttpGate, seed: int) -> None:
    """No exception, no request that is still counted, no connection, no delayed call; no
    client sees a response to another's request; one event for each request."""
    http.configure("127.0.0.1:9000", "127.0.0.1:9001", body_timeout=5.0, response_timeout=4.0)
    http.factory.doStart()
    actors = Actors(http, seed)
    for _ in range(150):
        actors.step()
    actors.end()
    assert http.factory.capacity.requests == 0
    assert [one for one in http.reactor.backends if one.transport.connected] == []
    assert [one for one in actors.clients if not one.disconnected] == []
    assert http.reactor.getDelayedCalls() == []
    for client, received in actors.received.items():
        others = set(range(1, actors.numbers + 1)) - actors.mine[client]
        assert not [number for number in others if b"[%d]" % number in received]
    paths = [event["path"] for event in http.http_log.requests if event["path"]]
    assert len(paths) == len(set(paths))
