"""
Servers that share an address: what becomes of a connection beside its name.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.reasons import Reason
from mtlsgate.testing import RecordingFactory, Version
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule
from tests.kits.shared_address import ALICE, BOB, CA_A, Address, address


@pytest.mark.parametrize("lifetime", [None, 3600.0])
def test_no_resumption_at_another_server(
    log: Log, version: Version, lifetime: float | None
) -> None:
    """A session of one server is nothing to another: it judges the client anew."""
    shared = address(log, session_lifetime=lifetime)
    earlier = shared.connect(ALICE, version, "a.example")
    assert shared.judge(earlier) == admitted("A")
    again = shared.connect(ALICE, version, "a.example", session=earlier.session)
    assert shared.judge(again) == admitted("A")
    assert again.resumed is (lifetime is not None)
    for name, expected in (("one.w.example", admitted("C")), ("x.w.example", None)):
        client = shared.connect(ALICE, version, name, session=earlier.session)
        assert shared.judge(client) == (expected or rejected(Reason.UNKNOWN_CA))
        assert not client.resumed
    assert shared.try_in(None, version, "x.w.example", session=earlier.session) == (
        rejected(Reason.NO_CERTIFICATE, None)
    )


def test_resumption_under_another_name_of_one_server(log: Log, version: Version) -> None:
    """Nor does it resume there under another name; one that differs in case or in a
    trailing dot is the same."""
    shared = address(log, session_lifetime=3600.0)
    earlier = shared.connect(BOB, version, "x.w.example")
    assert shared.judge(earlier) == admitted("B")
    # One object: it keeps the clients that use it, without which OpenSSL spoils the session.
    session = earlier.session
    for name in ("x.w.example", "X.W.EXAMPLE", "x.w.example."):
        client = shared.connect(BOB, version, name, session=session)
        assert shared.judge(client) == admitted("B")
        assert client.resumed
    for name in ("y.w.example", "x.v.example", "xx.w.example"):
        verdict = shared.try_in(BOB, version, name, session=session)
        # In TLS 1.2 the session brings its own name along.
        expected = Reason.UNKNOWN_SERVER_NAME if version == "1.2" else Reason.NOT_RESUMABLE
        assert verdict == rejected(expected, None)


def test_alpn_of_each_server(log: Log, version: Version) -> None:
    """Each server negotiates what its own application speaks."""
    clock = Clock()
    gates = {
        name: MemoryGate([rule(name, CA_A)], log, clock=clock, alpn=alpn)
        for name, alpn in (("a.example", (b"x",)), ("b.example", (b"y", b"x")), ("c.example", ()))
    }
    shared = Address(log, gates, clock)
    for name, chosen in (("a.example", "x"), ("b.example", "y"), ("c.example", None)):
        client = shared.connect(ALICE, version, name, alpn=["x", "y"])
        assert shared.judge(client) == admitted(name)
        assert client.negotiated_alpn == chosen


def test_the_end_of_a_connection_passes_through(log: Log, version: Version) -> None:
    """The end of a connection passes through, from either side."""
    for by in ("client", "server", "abort", "reset"):
        shared = address(log)
        client = shared.connect(ALICE, version, "a.example")
        assert shared.judge(client) == admitted("A")
        [protocol] = shared.gates["a.example"].recorder.protocols
        transport = protocol.transport
        assert transport is not None
        if by == "client":
            client.close()
        elif by == "server":
            transport.write(b"bye")
            transport.loseConnection()
            assert client.receive() == b"bye"
            assert client.close_notified
        elif by == "abort":
            transport.abortConnection()  # type: ignore[attr-defined]
        else:
            client.reset()
        client.pump()
        assert client.disconnected
        assert protocol.lost is not None
        peer = IVerifiedPeer(transport)
        assert peer.address == IPv4Address("TCP", "127.0.0.1", 50000)
        assert log.events == []


def test_a_producer_pauses_when_its_client_does_not_read(log: Log, version: Version) -> None:
    """A producer behind the gate is paused when its client does not read."""
    shared = address(log)
    client = shared.connect(ALICE, version, "a.example")
    assert shared.judge(client) == admitted("A")
    [protocol] = shared.gates["a.example"].recorder.protocols
    calls: list[str] = []

    class Producer:
        def __getattr__(self, name: str) -> Callable[[], None]:
            return lambda: calls.append(name)

    assert protocol.transport is not None
    protocol.transport.registerProducer(Producer(), True)  # type: ignore[attr-defined]
    client.pause_reading()
    for _ in range(20):
        protocol.transport.write(bytes(16384))
        client.step()
    assert "pauseProducing" in calls
    client.resume_reading()
    assert len(client.receive()) == 20 * 16384
    assert "resumeProducing" in calls


def test_start_and_stop(log: Log) -> None:
    """Each server's application starts and stops with the port, once, however many
    names it has."""
    calls: list[str] = []

    class Application(RecordingFactory):
        def startFactory(self) -> None:
            calls.append("start")

        def stopFactory(self) -> None:
            calls.append("stop")

    gate = MemoryGate([rule(ca=CA_A)], log, Application())
    other = MemoryGate([rule(ca=CA_A)], log, Application())
    shared = Address(log, {"a.example b.example": gate, "": other})
    shared.entrance.start()
    assert calls == ["start"] * 2
    shared.entrance.stop()
    assert calls == ["start"] * 2 + ["stop"] * 2
