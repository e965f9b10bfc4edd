"""
Whatever clients and targets of HTTP/2 do in whatever order: nothing raises, nothing is left
over, and nobody gets what is somebody else's.
"""

from __future__ import annotations

import random

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, SettingsFrame
from twisted.internet.error import ConnectionLost

from tests.kits.http import Backend, HttpGate
from tests.kits.http2 import PSEUDO, FrameTarget, TlsSpeaker

ONE, TWO = "127.0.0.1:9000", "127.0.0.1:9001"


class Side:
    """
    A client, and what it may still do.

    :ivar mine: the numbers of its requests, by stream.
    :ivar sending: the streams whose request is not complete.
    """

    def __init__(self, http: HttpGate) -> None:
        self.speaker = TlsSpeaker(http.connect(http.authority.issue("alice"), alpn=["h2"]))
        self.mine: dict[int, int] = {}
        self.sending: set[int] = set()

    @property
    def is_over(self) -> bool:
        return self.speaker.client.disconnected or self.speaker.goaway is not None


class Actors:
    """Clients and targets that do as chance will have it."""

    def __init__(self, http: HttpGate, seed: int) -> None:
        self.http = http
        self.chance = random.Random(seed)
        self.sides: list[Side] = []
        self.targets: dict[Backend, FrameTarget] = {}
        self.begun: dict[tuple[Backend, int], bool] = {}
        self.number = 0

    def step(self) -> None:
        self.chance.choice([self.speak] * 5 + [self.answer] * 8 + [self.disturb] * 2)()
        for target in self.targets.values():
            target.receive()
        for side in self.sides:
            side.speaker.receive()

    def speak(self) -> None:
        chance = self.chance
        if len(self.sides) < 3:
            self.sides.append(Side(self.http))
        side = chance.choice(self.sides)
        speaker = side.speaker
        if side.is_over:
            return
        if side.sending and chance.random() < 0.6:
            stream = chance.choice(sorted(side.sending))
            end = chance.random() < 0.3
            room = 100 if speaker.reset_code(stream) is None else 0
            speaker.send(speaker.data(stream, chance.randrange(room + 1) * b"a", end=end))
            if end:
                side.sending.discard(stream)
            return
        self.number += 1
        stream = 2 * len(side.mine) + 1
        side.mine[stream] = self.number
        method, end = chance.choice([(b"GET", True), (b"POST", False), (b"HEAD", True)])
        fields = [(b":method", method), *PSEUDO[1:], (b":path", b"/%d" % self.number)]
        speaker.send(speaker.headers(stream, fields, end=end))
        if not end:
            side.sending.add(stream)

    def answer(self) -> None:
        chance = self.chance
        open_ones = [one for one in self.http.reactor.backends if one.open]
        if not open_ones:
            return
        backend = chance.choice(open_ones)
        target = self.targets.get(backend)
        if target is None:
            most = {SettingsFrame.MAX_CONCURRENT_STREAMS: chance.choice([1, 2, 100])}
            self.targets[backend] = FrameTarget(backend, most)
            return
        waiting = [
            one
            for one in target.asked
            if self.begun.get((backend, one)) is not True and target.reset_code(one) is None
        ]
        if waiting:
            self.go_on(backend, target, chance.choice(waiting))

    def go_on(self, backend: Backend, target: FrameTarget, stream: int) -> None:
        """Do one thing of a response."""
        chance, place = self.chance, (backend, stream)
        head = target.heads(stream)[0]
        ok = (b":status", b"200")
        mark = b"[%b]" % head[b":path"][1:]
        if place not in self.begun:
            match chance.randrange(8):
                case 0:
                    target.send(target.reset(stream, ErrorCodes.REFUSED_STREAM))
                    self.begun[place] = True
                case 1:
                    target.send(target.headers(stream, [(b":status", b"103")], end=False))
                case 2:
                    target.send(target.headers(stream, [ok, (b"X", b"1")], end=False))
                    self.begun[place] = True
                case 3:
                    target.send(target.headers(stream, [ok]))
                    self.begun[place] = True
                case _:
                    target.send(target.headers(stream, [ok], end=False))
                    self.begun[place] = False
            return
        body = b"" if head[b":method"] == b"HEAD" else chance.choice([1, 100]) * mark
        match chance.randrange(6):
            case 0:
                target.send(target.reset(stream, ErrorCodes.INTERNAL_ERROR))
                self.begun[place] = True
            case 1:
                target.send(target.headers(stream, [(b"x-t", mark)]))
                self.begun[place] = True
            case 2:
                target.send(target.data(stream, body, end=True), target.reset(stream, 0))
                self.begun[place] = True
            case 3:
                target.send(target.data(stream, body, end=True))
                self.begun[place] = True
            case _:
                target.send(target.data(stream, body))

    def disturb(self) -> None:
        chance, http = self.chance, self.http
        target = chance.choice([*self.targets.values(), None])
        side = chance.choice([*self.sides, None])
        match chance.randrange(10):
            case 0 if target is not None:
                target.backend.transport.finish()
            case 1 if target is not None:
                target.backend.transport.lose(ConnectionLost())
            case 2 if target is not None:
                last = chance.choice([0, 1, 3, 2**31 - 1])
                target.send(GoAwayFrame(0, last_stream_id=last).serialize())
            case 3 if target is not None:
                target.send(target.settings(INITIAL_WINDOW_SIZE=chance.choice([0, 10, 65535])))
            case 4 if side is not None and side.mine and not side.is_over:
                stream = chance.choice(list(side.mine))
                side.sending.discard(stream)
                side.speaker.send(side.speaker.reset(stream))
            case 5 if side is not None and not side.is_over:
                size = chance.choice([0, 10, 65535])
                side.speaker.send(side.speaker.settings(INITIAL_WINDOW_SIZE=size))
            case 6 if side is not None:
                side.speaker.client.reset()
            case 7:
                http.reactor.advance(chance.choice([0.5, 1, 3]))
            case 8:
                http.reactor.refusing ^= {9000}
            case 9 if target is not None:
                target.send(chance.randbytes(20))
            case _:
                pass

    def end(self) -> None:
        for side in self.sides:
            side.speaker.client.reset()
        self.http.factory.doStop()
        for _ in range(2):
            for backend in self.http.reactor.backends:
                backend.received()
            self.http.reactor.advance(100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_left_over(http: HttpGate, seed: int) -> None:
    """No exception, no request or connection that is still counted, no delayed call; one event
    for each request; no client sees a response to another's."""
    http.configure(
        ONE, TWO, http_version="2", body_timeout=5.0, response_timeout=4.0, retry_after=1.0
    )
    http.factory.doStart()
    actors = Actors(http, seed)
    for _ in range(200):
        actors.step()
    actors.end()
    assert http.factory.capacity.requests == 0
    assert [state.in_use for state in http.factory.backends.states] == [0, 0]
    assert [one for one in http.reactor.backends if one.transport.connected] == []
    assert http.reactor.getDelayedCalls() == []
    for side in actors.sides:
        for stream, number in side.mine.items():
            body = side.speaker.body(stream)
            whole = ((b"[%d]" % number) * len(body), *OWN)
            assert any(one.startswith(body) for one in whole)
    paths = [event["path"] for event in http.http_log.requests if event["path"]]
    assert len(paths) == len(set(paths))


#: What the gate says itself.
OWN = (b"502 Bad Gateway\n", b"504 Gateway Timeout\n", b"408 Request Timeout\n")
