"""
Several servers on one address: which of them a client gets to, and that it is
judged by that server's rules alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mtlsgate.reasons import Reason
from mtlsgate.testing import Client, Version
from mtlsgate.tls.clienthello import MAX_BYTES
from tests.kits.forgery import ask_with_group_first, name_nobody
from tests.kits.gate import (
    Log,
    admitted,
    rejected,
    server_authority,
)
from tests.kits.shared_address import ALICE, BOB, TIMEOUT, Address, address

UNKNOWN_NAME = rejected(Reason.UNKNOWN_SERVER_NAME, None)
ALERT_112 = "unrecognized name"


W = "*.w.example x.v.example"
NAMES = [
    ("a.example", "a.example"),
    ("A.eXaMple", "a.example"),
    ("a.example.", "a.example"),
    ("x.w.example", W),
    ("X.V.EXAMPLE.", W),
    ("one.w.example", "one.w.example"),
    ("ONE.W.example.", "one.w.example"),
    ("b.a.example", None),
    ("y.x.w.example", None),
    ("w.example", None),
    (".w.example", None),
    ("a.example..", None),
    ("xn--.example", None),
    ("a" * 255, None),
    (None, None),
]


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize(("name", "server"), NAMES)
def test_the_name_chooses(
    log: Log, version: Version, name: str | None, server: str | None, default: bool
) -> None:
    """Exact before wildcard, then the default server; without one, refused, with the
    alert unrecognized_name.  Its rules alone judge, and its factory alone is called."""
    for who in (ALICE, BOB, None):
        shared = address(log, default)
        client = shared.connect(who, version, name, trust=[server_authority().certificate])
        verdict = shared.judge(client)
        if server is None and not default:
            assert verdict == UNKNOWN_NAME
            assert client.error is not None
            assert ALERT_112 in client.error
            continue
        gate = shared.gates[server or ""]
        assert client.server_certificate == gate.server.context.policy.credentials[0].chain[0].x509
        if who is None:
            assert verdict == rejected(Reason.NO_CERTIFICATE, None)
            assert shared.reached() == []
        elif verdict.rule is None:
            assert (who, server) in ((ALICE, W), (BOB, "a.example"))
            assert verdict.reason is Reason.UNKNOWN_CA
            assert shared.reached() == []
        else:
            [one] = gate.rules or ()
            assert verdict.rule == one.name
            assert shared.reached() == [server or ""]
            peer = gate.recorder.protocols[0].peer
            assert peer is not None
            assert peer.server_name == name


def test_the_log_names_the_server(log: Log, version: Version) -> None:
    """Once it is chosen; before that, the address, and the name that nobody declares."""
    shared = address(log)
    shared.connect(ALICE, version, "x\x1b.example").handshake()
    event = log.events.pop()
    assert event["server"] == "shared"
    assert event["sni"].isprintable()
    assert event["peer_address"] == "127.0.0.1:50000"
    assert event["detail"] == "the client asked for a name no server declares"
    shared.connect(ALICE, version).handshake()
    event = log.events.pop()
    assert (event["sni"], event["detail"]) == (None, "the client asked for no server name")


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_client_hello_in_segments_is_the_same(log: Log, version: Version, size: int) -> None:
    """How the network cuts a ClientHello makes no difference."""
    shared = address(log)
    assert shared.try_in(ALICE, version, "a.example", piece_size=size) == admitted("A")
    assert shared.try_in(BOB, version, "a.example", piece_size=size).reason is Reason.UNKNOWN_CA
    assert shared.try_in(BOB, version, "c.example", piece_size=size) == UNKNOWN_NAME


@pytest.mark.parametrize("size", [1, 3, 50])
def test_a_client_hello_in_records_is_the_same(log: Log, version: Version, size: int) -> None:
    """Nor does how it is cut into records."""
    for who, name, expected in (
        (ALICE, "a.example", admitted("A")),
        (ALICE, "x.w.example", Reason.UNKNOWN_CA),
        (ALICE, "c.example", Reason.UNKNOWN_SERVER_NAME),
    ):
        shared = address(log)
        client = shared.connect(who, version, name)
        hello = client.take_outgoing()
        for at in range(5, len(hello), size):
            piece = hello[at : at + size]
            client.raw_send(hello[:3] + len(piece).to_bytes(2, "big") + piece)
        verdict = shared.judge(client)
        assert expected in (verdict, verdict.reason)


FIRST = [
    (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", Reason.NOT_TLS, b""),
    (b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", Reason.NOT_TLS, b""),
    (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.NOT_TLS, b""),
    (b"\0" * 64, Reason.NOT_TLS, b""),
    (b"\xff" * 64, Reason.NOT_TLS, b""),
    (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x07" * 64, Reason.UNSUPPORTED_TLS, b"F"),
    (b"\x15\x03\x03\x00\x02\x02\x28", Reason.PEER_ALERT, b""),
    (b"\x17\x03\x03\x00\x05hello", Reason.PROTOCOL_ERROR, b"\x0a"),
    (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", Reason.PROTOCOL_ERROR, b"\x0a"),
    (b"\x16\x03\x01\x00\x00", Reason.PROTOCOL_ERROR, b"\x0a"),
    (b"\x16\x03\x01\xff\xff", Reason.PROTOCOL_ERROR, b"\x16"),
]


@pytest.mark.parametrize(("data", "reason", "alert"), FIRST, ids=lambda one: str(one)[:16])
@pytest.mark.parametrize("size", [None, 1])
def test_something_else(
    log: Log, data: bytes, reason: Reason, alert: bytes, size: int | None
) -> None:
    """What is no ClientHello is refused at once, the same however it is cut, and gets an
    alert if it can read one."""
    shared = address(log, default=True)
    client = shared.connect(None, piece_size=size)
    client.raw_send(data)
    answer = client.transport.take()
    assert answer == (b"\x15\x03\x03\x00\x02\x02" + alert if alert else b"")
    shared.clock.advance(0)
    assert client.disconnected
    assert shared.verdict() == rejected(reason, None)
    assert shared.reached() == []
    assert not shared.clock.getDelayedCalls()


def test_an_endless_hello(log: Log) -> None:
    """What is kept of one that never becomes whole is bounded."""
    shared = address(log)
    client = shared.connect(None)
    for _ in range(MAX_BYTES // 6 + 2):
        client.raw_send(b"\x16\x03\x01\x00\x01\x01"[:5] + b"\x01")
    client.transport.take()
    shared.clock.advance(0)
    assert client.disconnected
    assert shared.verdict() == rejected(Reason.PROTOCOL_ERROR, None)


@pytest.mark.parametrize("length", [0, 1, 5, 60, -1])
def test_a_client_silent_in_its_hello_times_out(log: Log, version: Version, length: int) -> None:
    """A client that stops in its hello is dropped at the timeout, and not before."""
    shared = address(log, default=True)
    client = shared.connect(ALICE, version, "a.example")
    client.raw_send(client.take_outgoing()[:length])
    shared.clock.advance(TIMEOUT - 0.01)
    assert not client.disconnected
    assert log.events == []
    shared.clock.advance(0.01)
    shared.clock.advance(0)
    assert client.aborted
    assert client.disconnected
    assert shared.verdict() == rejected(Reason.HANDSHAKE_TIMEOUT, None)
    assert not shared.clock.getDelayedCalls()


@pytest.mark.parametrize("spent", [0.0, 3.0, 7.4])
def test_one_limit(log: Log, version: Version, spent: float) -> None:
    """The hello and the rest of the handshake share the time that there is."""
    shared = address(log)
    client = shared.connect(ALICE, version, "a.example")
    shared.clock.advance(spent)
    client.step()
    shared.clock.advance(TIMEOUT - spent - 0.01)
    assert not client.disconnected
    assert log.events == []
    shared.clock.advance(0.02)
    shared.clock.advance(0)
    assert client.aborted
    assert shared.verdict() == rejected(Reason.HANDSHAKE_TIMEOUT, None)
    assert not shared.clock.getDelayedCalls()


def test_in_time(log: Log, version: Version) -> None:
    """One that is just in time stays, without a limit."""
    shared = address(log)
    client = shared.connect(ALICE, version, "a.example")
    shared.clock.advance(TIMEOUT - 0.1)
    assert shared.judge(client) == admitted("A")
    assert not shared.clock.getDelayedCalls()
    shared.clock.advance(10 * TIMEOUT)
    client.send(b"still here")
    assert client.receive() == b"still here"


@pytest.mark.parametrize("end", ["reset", "fin"])
def test_gone_at_every_step(log: Log, version: Version, end: str) -> None:
    """However and whenever a client leaves before it is in, it is logged once."""
    ways: dict[str, Callable[[Client], object]] = {
        "reset": Client.reset,
        "fin": lambda client: client.transport.finish(),
    }

    def beginnings() -> Iterator[tuple[Address, Client]]:
        for length in (0, 1, 60):
            shared = address(log)
            client = shared.connect(ALICE, version, "a.example")
            client.raw_send(client.take_outgoing()[:length])
            yield shared, client
        for steps in (1, 2):
            shared = address(log)
            client = shared.connect(ALICE, version, "a.example")
            for _ in range(steps):
                assert client.step()
            yield shared, client

    for shared, client in beginnings():
        ways[end](client)
        assert shared.verdict() == rejected(Reason.PEER_GONE, None)
        assert shared.reached() == []
        assert not shared.clock.getDelayedCalls()


def test_gone_after_it_was_refused(log: Log, version: Version) -> None:
    """That is not told again."""
    shared = address(log)
    client = shared.connect(ALICE, version, "c.example")
    client.step()
    client.raw_send(b"more")
    client.reset()
    assert shared.verdict() == UNKNOWN_NAME


RETRIES = [
    ("a.example", "x.w.example"),
    ("a.example", "one.w.example"),
    ("one.w.example", "a.example"),
    ("a.example", "c.example"),
    ("c.example", "a.example"),
    ("a.example", None),
    (None, "a.example"),
]


@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize(("first", "second"), RETRIES)
def test_another_name_in_the_second_hello(
    log: Log, first: str | None, second: str | None, default: bool
) -> None:
    """A client that is told to say hello again and then asks for another server gets to
    neither, whatever it may at each of them (RFC 8446, 4.1.2: all else stays)."""
    for who in (ALICE, BOB):
        shared = address(log, default)
        client = shared.connect(who, "1.3", first)
        ask_with_group_first(client.connection)
        client.step()
        if second is None:
            name_nobody(client.connection)
        else:
            client.connection.set_tlsext_host_name(second.encode())
        verdict = shared.judge(client)
        assert verdict.reason in (Reason.UNKNOWN_SERVER_NAME, Reason.UNKNOWN_CA)
        assert shared.reached() == []


def test_the_same_name_in_the_second_hello(log: Log) -> None:
    """A second hello as such is in order."""
    shared = address(log)
    client = shared.connect(ALICE, "1.3", "a.example")
    ask_with_group_first(client.connection)
    client.step()
    retry = client.transport.take()
    assert retry[:6].hex() == "160303005802"
    client.connection.bio_write(retry)
    assert shared.judge(client) == admitted("A")
