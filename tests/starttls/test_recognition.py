"""Plain protocols, by their first bytes."""

from __future__ import annotations

import pytest

from mtlsgate.reasons import Reason
from mtlsgate.starttls import plain_protocol
from mtlsgate.testing import Authority
from tests.kits.gate import Log, MemoryGate, rule
from tests.kits.shared_address import address

#: The first bytes of real clients, and a word of what the log says.
CLIENTS = [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "an HTTP request without TLS"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "an HTTP request without TLS"),
    (b"CONNECT x:443 HTTP/1.1\r\n\r\n", "an HTTP proxy request without TLS"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "a PROXY header where TLS should begin"),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", "a PROXY header where TLS should begin"),
    (
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        'PostgreSQL\'s SSLRequest or GSSENCRequest; set starttls = "postgres"',
    ),
    (b"\0\0\0\x08\x04\xd2\x16\x30", 'set starttls = "postgres"'),
    (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2", "PostgreSQL's CancelRequest without TLS"),
    (b"\0\0\0\x24\0\3\0\0user\0gate\0\0", "PostgreSQL's StartupMessage without TLS"),
    (b"EHLO client.example\r\n", 'SMTP without TLS; set starttls = "smtp"'),
    (b"helo x\r\n", 'SMTP without TLS; set starttls = "smtp"'),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "this is SSH"),
    (b"*1\r\n$4\r\nPING\r\n", "Redis's protocol without TLS"),
    (b"*12\r\n$3\r\n", "Redis's protocol without TLS"),
    (b"PING\r\n", "Redis's protocol without TLS"),
    (b"\x10\x1a\0\4MQTT\4\2\0\x3c\0\x0e", "MQTT without TLS"),
    (b"\x10\x8a\x01\0\4MQTT\5", "MQTT without TLS"),
    (b"\x10\x20\0\6MQIsdp\3", "MQTT without TLS"),
    (b"AMQP\0\0\x09\x01", "AMQP without TLS"),
    (b"\x30\x0c\2\1\1\x60\7\2\1\3\4\0\x80\0", "LDAP without TLS"),
    (b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0", "RDP without TLS"),
    (b"<?xml version='1.0'?><stream:stream", "XMPP"),
]
CA = Authority.create("CA")


@pytest.mark.parametrize(("beginning", "words"), CLIENTS)
def test_a_plain_protocol_is_named(log: Log, beginning: bytes, words: str) -> None:
    """A client that speaks it is rejected as `not_tls`, and the log says what it speaks,
    whether or not the name decides which server it gets."""
    found = plain_protocol(beginning)
    assert found is not None
    assert words in found.words
    gate, shared = MemoryGate([rule(ca=CA)], log), address(log)
    for client in (gate.connect(None), shared.connect(None)):
        client.raw_send(beginning)
        client.pump()
        assert client.disconnected
        event = log.only
        assert (event["reason"], event["detail"]) == (Reason.NOT_TLS, found.words)
        log.events.clear()


@pytest.mark.parametrize(("beginning", "words"), CLIENTS)
def test_five_bytes_decide(beginning: bytes, words: str) -> None:
    """So the log says the same however the bytes were split."""
    assert plain_protocol(beginning[:5]) is plain_protocol(beginning)
    assert plain_protocol(beginning[:4]) is None


@pytest.mark.parametrize(
    "beginning",
    [b"\x16\x03\x01\x02\x00", b"\x15\x03\x03\0\x02", b"\x80\x2e\x01\0\2", b"hello", bytes(5)],
)
def test_what_is_not_known_has_no_name(beginning: bytes) -> None:
    """A suggestion is right or absent."""
    assert plain_protocol(beginning) is None
