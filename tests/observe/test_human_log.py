"""What the gate logs: one event for each connection, and no way to forge one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import LogLevel, formatEvent

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import view
from mtlsgate.gate.events import RejectedConnection
from mtlsgate.gate.terms import Terms
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.forgery import edited, present
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule

ROOT = Authority.create("Root", organization="Example")
ALICE = ROOT.issue(
    "alice",
    serial=0xABC,
    dns_names=["a.example", "b.example"],
    uris=["spiffe://td/alice"],
)


def test_an_admission_names_client_and_rule(log: Log, version: Version) -> None:
    """Who came in, by which rule, under which names."""
    gate = MemoryGate([rule("IOT", ca=ROOT)], log)
    assert gate.try_in(ALICE, version, server_name="localhost") == admitted("IOT")
    event = log.only
    assert event["log_level"] is LogLevel.info
    facts = {name: value for name, value in event.items() if not name.startswith("log_")}
    assert facts.pop("text") == formatEvent(event)
    assert facts == {
        "server": "door",
        "connection": 1,
        "peer_address": "127.0.0.1:50000",
        "rule": "IOT",
        "subject": "CN=alice",
        "issuer": "CN=Root,O=Example",
        "serial": "abc",
        "fingerprint": ALICE.sha256,
        "dns_names": ["a.example", "b.example"],
        "uris": ["spiffe://td/alice"],
        "sni": "localhost",
        "tls_version": f"TLSv{version}",
        "resumed": False,
    }
    assert formatEvent(event) == (
        "door: admitted 127.0.0.1:50000 by rule IOT: "
        f"subject=CN=alice sha256={ALICE.sha256} tls=TLSv{version}"
    )


def test_a_server_may_leave_out_who_is_admitted(log: Log, version: Version) -> None:
    """As health checks in TLS are; who is rejected still has a line."""
    gate = MemoryGate([rule(ca=ROOT)], log, terms=Terms(log_admitted=False))
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    assert client.receive() == b"knock"
    assert log.events == []
    assert gate.try_in(self_signed("eve"), version).reason is Reason.UNKNOWN_CA


@pytest.mark.parametrize("kind", ["judged", "verified"])
def test_a_rejection_says_why_and_what_was_presented(log: Log, version: Version, kind: str) -> None:
    """Who did not, why, and what they presented; be the verdict ours or OpenSSL's."""
    other = Authority.create("Other")
    who = ALICE if kind == "judged" else other.issue("eve", serial=0xABC)
    gate = MemoryGate([rule(ca=ROOT, pins=ROOT.issue("x"))], log)
    gate.try_in(who, version, server_name="localhost", address=IPv6Address("TCP", "::1", 7))
    event = log.only
    assert event["log_level"] is LogLevel.warn
    facts = {name: value for name, value in event.items() if not name.startswith("log_")}
    assert facts.pop("detail")
    assert facts.pop("text") == formatEvent(event)
    assert facts == {
        "server": "door",
        "connection": 1,
        "peer_address": "[::1]:7",
        "reason": "leaf_mismatch" if kind == "judged" else "unknown_ca",
        "depth": 0,
        "subject": "CN=alice" if kind == "judged" else "CN=eve",
        "issuer": "CN=Root,O=Example" if kind == "judged" else "CN=Other",
        "serial": "abc",
        "fingerprint": who.sha256,
        "sni": "localhost",
        "tls_version": f"TLSv{version}",
    }
    text = formatEvent(event)
    assert text.startswith(f"door: rejected [::1]:7: {facts['reason']}: ")
    assert text.endswith(f"sha256={who.sha256}]")


def test_without_a_certificate(log: Log, version: Version) -> None:
    """Where there is no leaf its fields are None, and the line does not mention it."""
    MemoryGate([rule(ca=ROOT)], log).try_in(None, version)
    event = log.only
    for name in ("subject", "issuer", "serial", "fingerprint", "depth", "sni"):
        assert event[name] is None
    assert "subject" not in formatEvent(event)
    assert event["reason"] == Reason.NO_CERTIFICATE


def test_a_client_without_a_certificate_is_logged(log: Log, version: Version) -> None:
    MemoryGate(None, log).try_in(None, version)
    event = log.only
    assert event["peer_address"] == "127.0.0.1:50000"
    assert "subject" not in event
    assert "without a certificate" in formatEvent(event)


def test_the_depth_is_not_the_leafs(log: Log, version: Version) -> None:
    """The leaf is named also where one above it gave cause."""
    root = Authority.create("Root", path_length=0)
    leaf = root.intermediate("Lower").issue("deep")
    verdict = MemoryGate([rule(ca=root)], log).try_in(leaf, version)
    assert verdict == rejected(Reason.PATH_TOO_LONG, 2)
    assert log.only["subject"] == "CN=deep"


#: Each would end a line, hide something on it, or turn it around.
HOSTILE = [
    "x\ndoor: admitted 127.0.0.1:1 by rule IOT",
    "x\r\ndoor: admitted",
    "\x1b[2J\x1b[31mred",
    "\x07\x08\x7f",
    "x\x85y\u2028z\u2029",
    "\u202eevil\u2066",
    "\u200b\ufeff",
    "\x9b31m",
    "{server} {reason} {0} %s",
    "\U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("where", ["subject", "issuer"])
def test_names_cannot_forge_a_line(log: Log, text: str, where: str) -> None:
    """Whatever stands in a certificate, its event is one printable line, whether it
    is admitted or rejected."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, text),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, text),
        ]
    )
    ca = Authority.create("CA", subject=name) if where == "issuer" else ROOT
    leaf = ca.issue("leaf") if where == "issuer" else ca.issue(None, subject=name)
    other = Authority.create("Other")
    for authority in (ca, other):
        MemoryGate([rule("IOT", ca=authority)], log).try_in(leaf)
    assert [event.get("rule") for event in log.events] == ["IOT", None]
    for event in log.events:
        assert formatEvent(event).isprintable()
        for value in event["subject"], event.get("issuer") or "":
            assert value.isprintable()
    if "{" in text:
        assert text in log.events[0]["subject"] + log.events[1]["issuer"]


def test_alternative_names_cannot_forge_a_line(log: Log) -> None:
    """These are fields of their own."""
    leaf = ROOT.issue("leaf", dns_names=["a.example"], uris=["urn:abcdef"])
    gate = MemoryGate([rule(ca=ROOT)], log)
    for old, new in ((b"a.example", b"a\nexample"), (b"urn:abcdef", b"urn:\x1b[31m\n")):
        client = gate.connect(leaf)
        present(client.connection, edited(ROOT, leaf, old, new))
        client.handshake()
        event = log.events.pop()
        for name in (*event.get("dns_names", ()), *event.get("uris", ())):
            assert name.isprintable()
        assert formatEvent(event).isprintable()


def test_server_name_cannot_forge_a_line(log: Log, version: Version) -> None:
    """Nor can the name that a client asks for."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    for name in ("a\nb", "\x1b[31m", "a b"):
        client = gate.connect(ALICE, version, server_name=name)
        client.handshake()
        event = log.events.pop()
        assert (event["sni"] or "").isprintable()
        assert formatEvent(event).isprintable()


def test_malformed_names(log: Log, version: Version) -> None:
    """What of a name is no text is told in hex."""
    leaf = ROOT.issue("leafleaf")
    for authority in (ROOT, Authority.create("Other")):
        client = MemoryGate([rule(ca=authority)], log).connect(leaf, version)
        forged = edited(ROOT, leaf, b"\x0c\x08leafleaf", b"\x03\x08\x00eafleaf")
        present(client.connection, forged)
        client.handshake()
        assert log.only["subject"] == "CN=#006561666c656166"
        assert log.only["issuer"] == "CN=Root,O=Example"
        log.events.clear()


def test_an_unknown_version(log: Log, version: Version) -> None:
    """What can be read of a stranger's certificate is told, whatever else it is."""
    leaf = ROOT.issue("leaf")
    client = MemoryGate([rule(ca=Authority.create("Other"))], log).connect(leaf, version)
    present(
        client.connection,
        edited(ROOT, leaf, bytes.fromhex("a003020102"), bytes.fromhex("a003020104")),
    )
    client.handshake()
    assert log.only["reason"] == Reason.UNKNOWN_CA
    assert log.only["subject"] == "CN=leaf"


def test_one_event_each(log: Log, version: Version) -> None:
    """However a connection ends, and whatever the client does after its verdict."""
    pinned = self_signed("pinned")
    gate = MemoryGate([rule(ca=ROOT), rule("pin", pins=pinned)], log)
    who: list[Credential | None] = [ALICE, pinned, None, self_signed("stranger")]
    for number, one in enumerate(who, 1):
        client = gate.connect(one, version, address=IPv4Address("TCP", "127.0.0.1", number))
        client.send(b"x")
        client.raw_send(b"garbage" * 100)
        client.close()
        client.reset()
        gate.clock.advance(100)
        assert len(log.events) == number
    assert [event.get("rule") for event in log.events] == ["rule", "pin", None, None]
    assert [event["peer_address"].split(":")[1] for event in log.events] == list("1234")


#: A subject of half a megabyte, as a stranger's certificate may have.
HUGE = x509.Name(
    [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 2000
    + [x509.NameAttribute(NameOID.COMMON_NAME, "\u202e" * 20)] * 100
)


def test_a_large_certificate_makes_no_long_line(log: Log) -> None:
    """Each value is cut to 256 characters, and says how long it was; also when it is
    made of characters that are escaped."""
    observer = HumanLog()
    for name in (HUGE, x509.Name(list(HUGE)[:-101:-1])):
        leaf = self_signed(None, subject=name).certificate
        detail = "\x00" * 100000
        observer.rejected(
            RejectedConnection(
                at=datetime(2027, 1, 31, tzinfo=UTC),
                server="door",
                address=UNIXAddress(b"\xff" * 300),
                rejection=Rejection(Reason.UNKNOWN_CA, detail, 0),
                number=1,
                leaf=view(leaf),
                server_name="s" * 300,
            )
        )
    for event in log.events:
        for field in ("peer_address", "detail", "subject", "issuer", "serial", "sni"):
            assert len(event[field]) <= 256
        assert event["detail"].endswith("… (100000 characters)")
        assert re.search(r"… \([0-9]+ characters\)$", event["subject"])
        assert event["sni"] == f"{'s' * 238}… (300 characters)"
        assert len(formatEvent(event)) < 1500
        assert formatEvent(event).isprintable()
    assert len(log.events) == 2


def test_a_certificate_of_many_names_makes_no_large_event(log: Log, version: Version) -> None:
    """Also where a CA has signed it."""
    names = ["d" * 250 + f".{number:06}.example" for number in range(40)]
    gate = MemoryGate([rule("IOT", ca=ROOT)], log)
    assert gate.try_in(ROOT.issue("x", dns_names=names), version) == admitted("IOT")
    assert len(log.only["dns_names"]) == 32
    assert all(len(name) == 256 for name in log.only["dns_names"])
