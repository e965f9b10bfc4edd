"""PostgreSQL's request for TLS."""

from __future__ import annotations

import struct

import pytest

from mtlsgate.reasons import Reason
from mtlsgate.starttls import DIALECTS, NoUpgrade, Turn, Upgrade

SSL = struct.pack("!II", 8, 80877103)
GSS = struct.pack("!II", 8, 80877104)
CANCEL = struct.pack("!IIII", 16, 80877102, 4711, 42)
PARAMETERS = b"user\0gate\0database\0postgres\0\0"
STARTUP = struct.pack("!II", 8 + len(PARAMETERS), 196608) + PARAMETERS
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def talk(*pieces: bytes) -> Turn:
    """:returns: all answers to these bytes, and the outcome."""
    negotiation = DIALECTS["postgres"].negotiate("a.example")
    assert negotiation.greeting == b""
    said = b""
    for number, piece in enumerate(pieces, 1):
        turn = negotiation.feed(piece)
        said += turn.answer
        if turn.outcome is not None:
            assert number == len(pieces), "there is an outcome before the last piece"
            return Turn(said, turn.outcome)
    return Turn(said)


def refusal(*pieces: bytes) -> tuple[Reason, str, bytes]:
    turn = talk(*pieces)
    assert isinstance(turn.outcome, NoUpgrade)
    return turn.outcome.reason, turn.outcome.detail, turn.answer


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_an_ssl_request_begins_tls() -> None:
    """An SSLRequest is answered with S, in one piece or in eight."""
    assert talk(SSL) == talk(*byte_by_byte(SSL)) == Turn(b"S", Upgrade())


def test_gssapi_is_declined_and_tls_may_follow() -> None:
    """A GSSENCRequest is answered with N, and an SSLRequest after it with S."""
    assert talk(GSS) == Turn(b"N")
    assert talk(GSS, SSL) == Turn(b"NS", Upgrade())


def test_tls_may_begin_at_once() -> None:
    """A client of PostgreSQL 17 with sslnegotiation=direct sends its ClientHello, and not
    a byte of that is lost."""
    assert talk(HELLO) == Turn(b"", Upgrade(HELLO))
    assert talk(HELLO[:1]) == Turn(b"", Upgrade(HELLO[:1]))
    assert DIALECTS["postgres"].alpn == (b"postgresql",)


@pytest.mark.parametrize("request_", [SSL, GSS])
@pytest.mark.parametrize("behind", [b"\0", HELLO, STARTUP, SSL, bytes(20_000)])
def test_bytes_behind_a_request_are_refused(request_: bytes, behind: bytes) -> None:
    """What stands behind a request in one segment is not encrypted, and refuses the client
    even if it looks like TLS (CVE-2021-23214)."""
    reason, detail, answer = refusal(request_ + behind)
    assert reason is Reason.STARTTLS_INJECTION
    assert "Request" in detail
    assert answer.startswith(b"E")
    assert b"C08P01\0" in answer


def test_a_request_for_gssapi_comes_once() -> None:
    assert refusal(GSS, GSS)[0] is Reason.STARTTLS_ERROR


def test_a_session_without_tls_is_told_why_not() -> None:
    """A StartupMessage is answered when it is complete, with an ErrorResponse that clients
    show to their users."""
    negotiation = DIALECTS["postgres"].negotiate("")
    for piece in byte_by_byte(STARTUP)[:-1]:
        assert negotiation.feed(piece) == Turn()
    reason, detail, answer = refusal(STARTUP)
    assert (reason, detail) == (Reason.STARTTLS_REQUIRED, "a StartupMessage without TLS")
    kind, length = struct.unpack("!cI", answer[:5])
    assert (kind, length) == (b"E", len(answer) - 1)
    fields = {one[:1]: one[1:] for one in answer[5:].rstrip(b"\0").split(b"\0")}
    assert fields[b"S"] == fields[b"V"] == b"FATAL"
    assert fields[b"C"] == b"28000"
    assert b"requires TLS" in fields[b"M"]


def test_a_newer_protocol_without_tls_is_told_as_well() -> None:
    """Clients of PostgreSQL 18 may ask for version 3.2."""
    newer = struct.pack("!II", 8 + len(PARAMETERS), 3 << 16 | 2) + PARAMETERS
    assert refusal(newer)[0] is Reason.STARTTLS_REQUIRED
    assert refusal(GSS, newer)[0] is Reason.STARTTLS_REQUIRED


@pytest.mark.parametrize("length", [16, 12 + 256])
def test_a_cancellation_without_tls_is_refused(length: int) -> None:
    """A CancelRequest has no answer, as with PostgreSQL, and its reason names it."""
    request = struct.pack("!II", length, 80877102) + bytes(length - 8)
    reason, detail, answer = refusal(request)
    assert (reason, answer) == (Reason.STARTTLS_REQUIRED, b"")
    assert "CancelRequest" in detail
    assert refusal(CANCEL)[0] is Reason.STARTTLS_REQUIRED


@pytest.mark.parametrize(
    "data",
    [
        bytes(8),
        struct.pack("!II", 9, 80877103) + b"\0",
        struct.pack("!II", 8, 80877105),
        struct.pack("!II", 10_001, 196608),
        struct.pack("!II", 2**31, 196608),
        struct.pack("!II", 30, 131072),
        b"\xff" * 8,
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """Nothing is waited for after eight bytes that begin no message, and no more than the
    longest StartupMessage is kept."""
    assert refusal(data)[::2] == (Reason.STARTTLS_ERROR, b"")


def test_other_protocols_are_named() -> None:
    """What is no message of PostgreSQL's, but well known, is named after five bytes."""
    for data in (b"GET / HTTP/1.1\r\n", b"GET /"):
        assert refusal(data)[:2] == (Reason.NOT_TLS, "an HTTP request without TLS")
    assert "PROXY header" in refusal(b"PROXY TCP4 ")[1]
