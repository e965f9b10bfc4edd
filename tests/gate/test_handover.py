"""
What holds is what is true when a connection is handed over, not at some earlier message.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from mtlsgate.admission import Pin, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version
from tests.kits.gate import Log, MemoryGate, admitted, rule
from tests.kits.revocation import crl, der
from tests.kits.shared_address import address

CA = Authority.create("CA")
#: Tomorrow: OpenSSL goes by the real clock, and the tests may run for a while.
START = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
END = START + timedelta(seconds=30)
ALICE = CA.issue("alice", not_after=END)
BOB = CA.issue("bob")


class Time:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def retiring() -> Rule:
    [pinned] = views((BOB.certificate,))
    return Rule("pin", views((CA.certificate,)), (Pin(pinned, "old", retire_after=END),))


def listed() -> Rule:
    listing = crl(CA, now=START, next_update=END)
    return evolve(rule(ca=CA), revocation=Revocation(tuple(parse_crls(der(listing)))))


ENDING: list[tuple[str, Callable[[], Rule], object, Reason]] = [
    ("certificate", lambda: rule(ca=CA), ALICE, Reason.EXPIRED),
    ("pin", retiring, BOB, Reason.PIN_RETIRED),
    ("CRL", listed, BOB, Reason.CRL_EXPIRED),
]


def judged_but_not_done(gate: MemoryGate, who: object, version: Version) -> tuple[Client, bytes]:
    """:returns: a client whose certificate was judged, and the rest of its flight."""
    client = gate.connect(who, version)  # type: ignore[arg-type]
    client.step()
    client.step()
    flight = client.take_outgoing()
    client.raw_send(flight[:-1])
    return client, flight[-1:]


@pytest.mark.parametrize(("what", "rules", "who", "reason"), ENDING)
def test_an_end_within_the_handshake(
    log: Log, version: Version, what: str, rules: Callable[[], Rule], who: object, reason: Reason
) -> None:
    """Between the client's certificate and its last byte: the client does not come in."""
    for wait, expected in ((0, None), (29, None), (31, reason)):
        time = Time()
        gate = MemoryGate([rules()], log, now=time)
        client, rest = judged_but_not_done(gate, who, version)
        assert log.events == []
        time.now += timedelta(seconds=wait)
        client.raw_send(rest)
        client.send(b"knock")
        assert gate.verdict().reason == expected, (what, wait)
        assert len(gate.recorder.protocols) == (expected is None)
        log.events.clear()


def _wait(answer: Deferred[bool], peer: object) -> Deferred[bool]:
    return answer


@pytest.mark.parametrize(("what", "rules", "who", "reason"), ENDING)
def test_an_end_while_the_authorizer_thinks(
    log: Log, version: Version, what: str, rules: Callable[[], Rule], who: object, reason: Reason
) -> None:
    for wait, expected in ((29, None), (31, reason)):
        time, answer = Time(), Deferred[bool]()
        gate = MemoryGate(
            [rules()], log, now=time, authorizer=Authorizer("ask", partial(_wait, answer), 60.0)
        )
        client = gate.connect(who, version)  # type: ignore[arg-type]
        client.send(b"knock")
        time.now += timedelta(seconds=wait)
        answer.callback(True)
        client.pump()
        assert gate.verdict().reason == expected, (what, wait)
        assert len(gate.recorder.protocols) == (expected is None)
        log.events.clear()


def test_an_end_in_a_synchronous_authorizer(log: Log, version: Version) -> None:
    time = Time()

    def slow(_: object) -> bool:
        time.now = END + timedelta(seconds=1)
        return True

    gate = MemoryGate([rule(ca=CA)], log, now=time, authorizer=Authorizer("ask", slow, 60.0))
    assert gate.try_in(ALICE, version).reason is Reason.EXPIRED


def test_the_last_second_of_all(log: Log, version: Version) -> None:
    """A certificate that ends with the calendar can be looked at again."""
    time = Time()
    forever = CA.issue("forever", not_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    gate = MemoryGate([rule(ca=CA)], log, now=time)
    client, rest = judged_but_not_done(gate, forever, version)
    time.now += timedelta(seconds=5)
    client.raw_send(rest)
    client.send(b"knock")
    assert gate.verdict() == admitted()
    assert client.receive() == b"knock"


def test_handshake_bytes_before_the_server_is_known(log: Log) -> None:
    """They are counted from the first byte on."""
    terms = Terms(limits=Limits(handshake_bytes=2000))
    shared = address(log, terms=terms)
    client = shared.connect(BOB, "1.3", "a.example")
    hello = client.take_outgoing()
    # The hello in records of one byte each, which is legal and long.
    for byte in hello[5:]:
        client.raw_send(b"\x16\x03\x01\x00\x01" + bytes((byte,)))
        if client.disconnected:
            break
    client.pump()
    assert client.disconnected
    assert log.only["reason"] == Reason.HANDSHAKE_TOO_LARGE
