"""
What a gate and a target could read differently is refused, and nothing of it
goes on: raw bytes in, and a backend that records.
"""

from __future__ import annotations

import random
import re
import socket
from urllib.parse import unquote

import pytest

from mtlsgate.config.expressions import Scope
from mtlsgate.config.peer import peer_text
from mtlsgate.config.syntax import parse
from mtlsgate.errors import START, Report
from tests.kits.http import HttpGate, fields_of, read_response

HOST = b"Host: a.example\r\n"

SHORT = {
    b"%p": b"POST / HTTP/1.1\r\n" + HOST,
    b"%g": b"GET / HTTP/1.1\r\n" + HOST,
    b"%b": HOST,
    b"%t": b"Transfer-Encoding: chunked\r\n",
    b"%e": b"0\r\n\r\n",
}

#: Heads that are refused before anything is forwarded.
REFUSED = {
    "repeated Content-Length": b"%pContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "conflicting Content-Length": b"%pContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list as Content-Length": b"%pContent-Length: 5, 5\r\n\r\nhello",
    "signed Content-Length": b"%pContent-Length: +5\r\n\r\nhello",
    "negative Content-Length": b"%pContent-Length: -5\r\n\r\nhello",
    "hexadecimal Content-Length": b"%pContent-Length: 0x5\r\n\r\nhello",
    "underscored Content-Length": b"%pContent-Length: 1_0\r\n\r\n0123456789",
    "empty Content-Length": b"%pContent-Length:\r\n\r\n",
    "Content-Length of other digits": b"%pContent-Length: \xd9\xa5\r\n\r\n",
    "endless Content-Length": b"%pContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "chunked and Content-Length": b"%pContent-Length: 5\r\n%t\r\n%e",
    "Content-Length and chunked": b"%p%tContent-Length: 5\r\n\r\n%e",
    "repeated chunked": b"%p%t%t\r\n%e",
    "chunked twice": b"%pTransfer-Encoding: chunked, chunked\r\n\r\n%e",
    "identity": b"%pTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "identity and chunked": b"%pTransfer-Encoding: identity\r\n%t\r\n%e",
    "identity, chunked": b"%pTransfer-Encoding: identity, chunked\r\n\r\n%e",
    "gzip, chunked": b"%pTransfer-Encoding: gzip, chunked\r\n\r\n%e",
    "x-chunked": b"%pTransfer-Encoding: xchunked\r\n\r\n%e",
    "quoted chunked": b'%pTransfer-Encoding: "chunked"\r\n\r\n%e',
    "chunked with a vertical tab": b"%pTransfer-Encoding: \x0bchunked\r\n\r\n%e",
    "chunked with a form feed": b"%pTransfer-Encoding: chunked\x0c\r\n\r\n%e",
    "chunked with a parameter": b"%pTransfer-Encoding: chunked;q=1\r\n\r\n%e",
    "empty Transfer-Encoding": b"%pTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
    "whitespace before the colon": b"%pTransfer-Encoding : chunked\r\n\r\n%e",
    "tab before the colon": b"GET / HTTP/1.1\r\nHost\t: a.example\r\n\r\n",
    "underscored Transfer-Encoding": b"%pTransfer_Encoding: x\r\nContent-Length: 5\r\n\r\nhello",
    "underscored Content-Length name": b"%pContent_Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\n%b%t\r\n%e",
    "line folding": b"%gX-A: b\r\n c\r\n\r\n",
    "line folding with a tab": b"%gX-A: b\r\n\tc\r\n\r\n",
    "folded Transfer-Encoding": b"%pTransfer-Encoding:\r\n chunked\r\n\r\n%e",
    "folded first field": b"GET / HTTP/1.1\r\n X-A: b\r\n%b\r\n",
    "bare LF after the request line": b"GET / HTTP/1.1\n%b\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nX-A: b\n%b\r\n",
    "bare LFs alone": b"GET / HTTP/1.1\nHost: a.example\n\n",
    "bare LF as the empty line": b"GET / HTTP/1.1\r\nHost: a.example\r\n\n",
    "bare CR in a value": b"%gX-A: b\rX-B: c\r\n\r\n",
    "bare CR in the request line": b"GET /\rx HTTP/1.1\r\n%b\r\n",
    "CR CR LF": b"%gX-A: b\r\r\n\r\n",
    "NUL in a value": b"%gX-A: \0\r\n\r\n",
    "NUL in a name": b"%gX\0A: b\r\n\r\n",
    "NUL in the target": b"GET /\0 HTTP/1.1\r\n%b\r\n",
    "control character in a value": b"%gX-A: \x01\r\n\r\n",
    "DEL in a value": b"%gX-A: \x7f\r\n\r\n",
    "a space in a name": b"%gX A: b\r\n\r\n",
    "a character of no token in a name": b"%gX(A): b\r\n\r\n",
    "a byte beyond ASCII in a name": b"%gX\xe9: b\r\n\r\n",
    "no name": b"%g: b\r\n\r\n",
    "no colon": b"%gX-A\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n%b\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\n%b\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\n%b\r\n",
    "whitespace at its end": b"GET / HTTP/1.1 \r\n%b\r\n",
    "whitespace at its beginning": b" %g\r\n",
    "a method that is no token": b"G(T / HTTP/1.1\r\n%b\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n%b\r\n",
    "HTTP/2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http/1.1": b"GET / http/1.1\r\n%b\r\n",
    "a target beyond ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\n%b\r\n",
    "DEL in the target": b"GET /\x7f HTTP/1.1\r\n%b\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\n%b\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n",
    "two Hosts": b"%gHost: a.example\r\n\r\n",
    "two different Hosts": b"%gHost: b.example\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host of several": b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
    "a Host with a user": b"GET / HTTP/1.1\r\nHost: x@a.example\r\n\r\n",
    "another host in the target": b"GET http://b.example/ HTTP/1.1\r\n%b\r\n",
    "a long line": b"%gX-A: " + b"a" * 40000 + b"\r\n\r\n",
    "a long target": b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n%b\r\n",
    "a line without an end": b"GET /" + b"a" * 40000,
    "many fields": b"%g" + b"X-A: b\r\n" * 600 + b"\r\n",
    "a long head": b"%g" + (b"X-A: " + b"a" * 900 + b"\r\n") * 40 + b"\r\n",
    "TLS in TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
}  # fmt: skip


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in REFUSED.items()])
@pytest.mark.parametrize("piece", [None, 1])
def test_ambiguous_heads_are_refused(http: HttpGate, raw: bytes, piece: int | None) -> None:
    """400 and closed, whatever pieces it comes in; nothing is forwarded, and nothing after it."""
    for short, text in SHORT.items():
        raw = raw.replace(short, text)
    if piece is not None and len(raw) > 2000:
        piece = 1000
    http.configure()
    client = http.connect()
    if piece is None:
        client.send(raw + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
    else:
        for place in range(0, len(raw), piece):
            client.send(raw[place : place + piece])
    response = read_response(client.receive())
    assert response.status == 400
    assert response["connection"] == "close"
    assert response.body == b"400 Bad Request\n"
    assert client.close_notified
    assert http.reactor.backends == []
    [event] = http.http_log.events
    assert event["status"] == 400
    assert event["cause"]
    assert event["text"].isprintable()
    assert event["subject"] == "CN=alice"


@pytest.mark.parametrize(
    "body",
    [
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5;a=\0\r\nhello\r\n0\r\n\r\n",
        b"5;a=\nb\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"a" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_ambiguous_chunks_end_the_request(http: HttpGate, body: bytes) -> None:
    """A target that got the head never sees the end of the body, nor anything after it."""
    http.configure()
    client = http.connect()
    client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
    client.send(body + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
    assert read_response(client.receive()).status == 400
    assert client.close_notified
    received = http.backend.received()
    assert b"/next" not in received
    assert not received.endswith(b"0\r\n\r\n")
    assert not http.backend.open
    assert http.http_log.requests[-1]["status"] == 400


def test_chunk_extensions_and_trailers_do_not_frame(http: HttpGate) -> None:
    """What is forwarded has the gate's own framing: no extension, no forbidden trailer."""
    http.configure()
    received, _ = http.exchange(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: CHUNKED\r\n\r\n"
        b'5;a="0";b\r\nhello\r\n00\r\nContent-Length: 9\r\nX-Sum: 1\r\nClient_Cert: x\r\n\r\n'
    )
    head, _, body = received.partition(b"\r\n\r\n")
    assert body == b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert [
        value for name, value in fields_of(head + b"\r\n\r\n") if name == "Transfer-Encoding"
    ] == ["chunked"]
    assert b"Content-Length" not in head


@pytest.mark.parametrize(
    "trailers",
    [
        b"X-Sum : 1\r\nX-Other: 2\r\n\r\n",
        b"X-Sum\r\n\r\n",
        b"X-Sum: 1\r\n folded\r\n\r\n",
        b"X-Sum: \0\r\n\r\n",
        b"X-Sum: 1\n\r\n",
        b"X-Sum: 1\rX: 2\r\n\r\n",
        b"X-Sum: 1\r\n" * 502 + b"\r\n",
        b"X-Sum: " + b"1" * 40_000 + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece", [10**6, 7])
def test_malformed_trailers_end_the_request(http: HttpGate, trailers: bytes, piece: int) -> None:
    """400 and closed; the target sees no end of the body, and no next request is read."""
    http.configure()
    client = http.connect()
    raw = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"
    raw += trailers + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
    for place in range(0, len(raw), piece):
        client.send(raw[place : place + piece])
    assert read_response(client.receive()).status == 400
    assert client.close_notified
    received = http.backend.received()
    assert not received.endswith(b"0\r\n\r\n")
    assert b"/next" not in received
    assert not http.backend.open


SMUGGLED = [
    "Client-Cert",
    "client-cert",
    "CLIENT-CERT",
    "Client_Cert",
    "Client-Cert-Chain",
    "client_cert_chain",
    "Client.Cert.Chain",
    "X-Forwarded-Client-Cert",
    "x_forwarded_client_cert",
    "X-Forwarded-For",
    "X_FORWARDED_FOR",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X_Forwarded_Anything",
    "Forwarded",
    "forwarded",
    "X-Real-IP",
    "X_Real_IP",
    "Proxy",
    "X-Client-CN",
    "x-client-cn",
    "X_Client_CN",
    "x-client_cn",
    "X.Client.CN",
    "X-Client-Nobody",
]


@pytest.mark.parametrize("anyone", [False, True])
@pytest.mark.parametrize("forward", ["set", "off"])
def test_whatever_a_client_says_of_itself_is_removed(
    http: HttpGate, anyone: bool, forward: str
) -> None:
    """All names, in any case, with underscores, twice, and named by Connection: a raw
    backend sees the gate's own or none, and so where there is no certificate at all."""
    body = parse(b"a = peer.common_name\nb = peer.spiffe_id\n", Report("f"))
    assert body is not None
    scope = Scope({}, lambda _: b"")
    common_name, nothing = (peer_text(one.expression, scope, START) for one in body.attributes)
    http.configure(
        anyone=anyone,
        forwarded=forward,
        client_cert=True,
        client_cert_chain=True,
        x_forwarded_client_cert=("Hash",),
        headers={"X-Client-CN": common_name, "X-Client-Nobody": nothing},
    )
    lines = "".join(f"{name}: EVIL\r\n{name}:  EVIL2 \r\n" for name in SMUGGLED)
    received, _ = http.exchange(
        b"GET / HTTP/1.1\r\n"
        + HOST
        + lines.encode()
        + b"Connection: X-Client-CN, Client-Cert, Forwarded\r\n\r\n"
    )
    assert b"EVIL" not in received
    names = [name.lower() for name, _ in fields_of(received)]
    about_the_way = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
    about_the_client = [
        "client-cert",
        "client-cert-chain",
        "x-forwarded-client-cert",
        "x-client-cn",
    ]
    expected = ["host"]
    expected += about_the_way if forward == "set" else []
    expected += [] if anyone else about_the_client
    assert names == expected
    values = dict(fields_of(received))
    if not anyone:
        assert values["X-Client-CN"] == "alice"
        assert values["X-Forwarded-Client-Cert"].startswith("Hash=")
    if forward == "set":
        assert values["X-Forwarded-For"] == "127.0.0.1"


def test_line_folding_cannot_bring_a_name_through(http: HttpGate) -> None:
    """A folded line that would hide a reserved name is refused as any other."""
    http.configure()
    client = http.connect()
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n Client-Cert: :AA==:\r\n\r\n")
    assert read_response(client.receive()).status == 400
    assert http.reactor.backends == []


def test_appending_is_asked_for(http: HttpGate) -> None:
    """With forwarded = "append" what the client sent comes first, and the rest stays removed."""
    http.configure(forwarded="append")
    received, _ = http.exchange(
        b"GET / HTTP/1.1\r\n"
        + HOST
        + b"X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 198.51.100.8\r\n"
        b"X_Forwarded_For: EVIL\r\nForwarded: for=198.51.100.7\r\nClient-Cert: EVIL\r\n\r\n"
    )
    values = dict(fields_of(received))
    assert values["X-Forwarded-For"] == "198.51.100.7, 198.51.100.8, 127.0.0.1"
    assert values["Forwarded"] == "for=198.51.100.7, for=127.0.0.1;proto=https;host=a.example"
    assert b"EVIL" not in received


@pytest.mark.parametrize(
    "name", ["a\r\nX-Admin: 1", "a\0b", "a\nb", "Jürgen", "\u202e", "a b", "100%"]
)
def test_names_in_certificates_cannot_write_headers(http: HttpGate, name: str) -> None:
    """Whatever a common name holds, the backend gets one header that decodes to it."""
    body = parse(b"a = peer.common_name\n", Report("f"))
    assert body is not None
    text = peer_text(body.attributes[0].expression, Scope({}, lambda _: b""), START)
    http.configure(headers={"X-Client-CN": text}, x_forwarded_client_cert=("Subject",))
    client = http.connect(http.authority.issue(name))
    client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    values = dict(fields_of(http.backend.received()))
    assert set(values) == {
        "Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded",
        "X-Forwarded-Client-Cert", "X-Client-CN",
    }  # fmt: skip
    assert unquote(values["X-Client-CN"]) == name
    assert values["X-Client-CN"].isascii()


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\nX-A: b\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/1.1 +20 No\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"<html>",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 140000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 70,
    ],
)
def test_ambiguous_responses_are_refused_too(http: HttpGate, response: bytes) -> None:
    """What a target says is read as strictly: 502, and its connection is not used again."""
    http.configure()
    _, received = http.exchange(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", response)
    received = received.rpartition(b"HTTP/1.1 103 Early Hints\r\n\r\n")[2]
    assert read_response(received).status == 502
    assert read_response(received).body == b"502 Bad Gateway\n"
    assert not http.backend.open
    [failure] = http.http_log.failures
    assert failure["status"] == 502
    assert http.http_log.requests[0]["cause"] == failure["cause"]


def test_bytes_after_a_response_poison_the_connection(http: HttpGate) -> None:
    """What a target sends unasked is nobody's response."""
    http.configure()
    client = http.connect()
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    client.send(b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n")
    first = http.backend
    first.send(ok + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
    assert client.receive().endswith(b"ok")
    assert not first.open
    client.send(b"GET /2 HTTP/1.1\r\n" + HOST + b"\r\n")
    second = http.reactor.backends[1]
    second.send(ok)
    assert client.receive().endswith(b"ok")
    second.send(b"HTTP/1.1 200 OK\r\n")
    client.pump()
    assert not second.open
    client.send(b"GET /3 HTTP/1.1\r\n" + HOST + b"\r\n")
    http.reactor.backends[2].send(ok)
    received = client.receive()
    assert received.endswith(b"ok")
    assert b"EVIL" not in received


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b""])
def test_what_has_yet_to_be_read_poisons_it_too(http: HttpGate, sent: bytes) -> None:
    """Bytes that the system has already, and the gate has not, are no answer to the next
    request; nor is that sent on a connection whose end waits there."""
    http.configure()
    client = http.connect()
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    client.send(b"POST /1 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
    first = http.backend
    gates, targets = socket.socketpair()
    with gates, targets:
        first.transport.fileno = gates.fileno  # type: ignore[attr-defined]
        first.send(ok)
        client.send(b"POST /2 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        assert b"/2" in http.backend.received()
        first.send(ok)
        if sent:
            targets.send(sent)
        else:
            targets.close()
        client.send(b"POST /3 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
    _, second = http.reactor.backends
    second.send(ok)
    assert client.receive().count(b"\r\n\r\nok") == 3
    assert b"/3" not in first.received()
    assert not first.open


def converse(http: HttpGate, raw: bytes, piece: int) -> tuple[list[bytes], bytes]:
    """:returns: what all targets and what the client received."""
    http.configure()
    http.reactor.backends.clear()
    client = http.connect()
    for place in range(0, len(raw), piece):
        client.send(raw[place : place + piece])
    while waiting := [one for one in http.reactor.backends if one.requests > one.answered]:
        for backend in waiting:
            backend.answered += 1
            backend.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            client.pump()
    answer = client.receive()
    client.reset()
    return [one.received() for one in http.reactor.backends], answer


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_mutilated_streams_mean_the_same_in_whatever_pieces(http: HttpGate, seed: int) -> None:
    """Random edits of pipelined requests: no exception, nothing malformed goes on, and how
    the bytes were cut changes nothing of what goes on."""
    chance = random.Random(seed)
    good = [
        b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: b\r\n\r\n",
        b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"PUT /c HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n",
    ]
    raw = bytearray(b"".join(chance.choices(good, k=4)))
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                raw[place] = chance.choice(b"\r\n\0 \t:;,_-0159aX\x7f\xff")
            case 1:
                del raw[place : place + chance.randint(1, 3)]
            case 2:
                raw[place:place] = chance.choice(
                    [b"\r\n", b"\n", b" ", b"\t", b"Content-Length: 3\r\n"]
                )
            case _:
                raw[place:place] = raw[place : place + chance.randint(1, 20)]
    results = [converse(http, bytes(raw), piece) for piece in (len(raw), 7, 1)]
    targets = [b"".join(received) for received, _ in results]
    heads = [
        re.findall(rb"(?m)^(?:[A-Z]+ /.* HTTP/1\.1|Content-Length: .*|Transfer-.*)\r$", one)
        for one in targets
    ]
    assert heads[0] == heads[1] == heads[2]
    answers = [re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer) for _, answer in results]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]
    for received, _ in results:
        for one in received:
            text = one.replace(b"\r\n", b"")
            assert b"\n" not in text
            assert b"\r" not in text
            assert b"\0" not in one.partition(b"\r\n\r\n")[0]
