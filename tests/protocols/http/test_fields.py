from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from urllib.parse import unquote, unquote_to_bytes

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address

from mtlsgate.http.authority import (
    Asked,
    ask,
    check_server,
    is_authority,
)
from mtlsgate.http.fields import end_to_end, folded, is_value, parse_line
from mtlsgate.http.refusal import Refusal
from mtlsgate.peer import VerifiedPeer
from mtlsgate.protocols.http.forwarding import Hop, forwarded, reserved, trailers
from mtlsgate.protocols.http.identity import (
    DETAILS,
    IdentityRules,
    encoded,
    forwarded_client_cert,
)
from mtlsgate.testing import Authority, Credential
from tests.kits.http import text


def peer(credential: Credential, *above: x509.Certificate) -> VerifiedPeer:
    return VerifiedPeer(
        path=(credential.certificate, *above),
        rule="people",
        address=IPv4Address("TCP", "192.0.2.1", 5),
        server_name=None,
        tls_version="TLSv1.3",
        cipher="C",
        group=None,
        alpn=None,
    )


# Values


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("alice", b"alice"),
        ('Alice B. (x@y), O=z;"q"\\', b'Alice B. (x@y), O=z;"q"\\'),
        ("a\r\nX-Admin: 1", b"a%0D%0AX-Admin: 1"),
        ("nul\0 tab\t del\x7f", b"nul%00 tab%09 del%7F"),
        ("100%", b"100%25"),
        ("%0D%0A", b"%250D%250A"),
        ("Jürgen", b"J%C3%BCrgen"),
        ("\u202eevil \U0001f600", b"%E2%80%AEevil %F0%9F%98%80"),
        (" a  b ", b"%20a  b%20"),
        ("   ", b"%20%20%20"),
        ("", b""),
    ],
)
def test_what_a_header_cannot_carry_is_percent_encoded(plain: str, value: bytes) -> None:
    """A name from a certificate cannot end a header or begin another, and can be had back."""
    assert encoded(plain) == value
    assert unquote(value.decode()) == plain


@given(st.text())
def test_every_text_becomes_a_value_and_comes_back(plain: str) -> None:
    """Whatever a certificate says, the value is one, and nothing is lost."""
    plain = plain.encode(errors="replace").decode()
    for item in (False, True):
        value = encoded(plain, item=item)
        assert is_value(value)
        assert value.isascii()
        assert unquote(value.decode()) == plain
        assert not (item and b"," in value)


def test_own_headers_name_the_client() -> None:
    """Texts, lists with their commas encoded, and nothing where there is no name."""
    authority = Authority.create("CA")
    alice = peer(authority.issue("alice", uris=["https://e.example/a,b", "urn:x"]))
    rules = IdentityRules(
        headers={
            b"X-CN": text("peer.common_name"),
            b"X-Who": text('"${peer.common_name}@${peer.rule}"'),
            b"X-URIs": text("peer.uris"),
            b"X-DNS": text("peer.dns_names"),
            b"X-SPIFFE": text("peer.spiffe_id"),
            b"X-Fixed": text('"yes"'),
        }
    )
    assert rules.fields(alice) == [
        (b"X-CN", b"alice"),
        (b"X-Who", b"alice@people"),
        (b"X-URIs", b"https://e.example/a%2Cb, urn:x"),
        (b"X-Fixed", b"yes"),
    ]
    assert rules.fields(None) == [(b"X-Fixed", b"yes")]


# RFC 9440


def test_client_cert_and_its_chain_are_rfc_9440s() -> None:
    """Byte sequences of DER; the chain is a list without the leaf, in order."""
    root = Authority.create("Root")
    issuing = root.intermediate("Issuing")
    leaf = issuing.issue("alice")
    someone = peer(leaf, issuing.certificate, root.certificate)
    rules = IdentityRules(client_cert=True, client_cert_chain=True)
    (_, cert), (_, chain) = rules.fields(someone)
    assert [name for name, _ in rules.fields(someone)] == [b"Client-Cert", b"Client-Cert-Chain"]

    def der(value: bytes) -> bytes:
        assert re.fullmatch(rb":[A-Za-z0-9+/]+=*:", value)
        return b64decode(value.strip(b":"), validate=True)

    assert der(cert) == leaf.certificate.public_bytes(Encoding.DER)
    assert [der(one) for one in chain.split(b", ")] == [
        one.certificate.public_bytes(Encoding.DER) for one in (issuing, root)
    ]


def test_there_is_no_empty_chain() -> None:
    """A path of the leaf alone has no Client-Cert-Chain: a list cannot be empty (RFC 9651, 3.1)."""
    someone = peer(Authority.create("CA").issue("alice"))
    assert IdentityRules(client_cert_chain=True).fields(someone) == []


def test_the_example_of_rfc_9440() -> None:
    """The certificate of RFC 9440, appendix A, becomes the field that stands there."""
    body = (
        b":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRo"
        b"ZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1Mz"
        b"NaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0D"
        b"AQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6a"
        b"EAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38l"
        b"bEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQ"
        b"YDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1"
        b"vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuyd"
        b"BVoU4hBVZ1yhk=:"
    )
    certificate = x509.load_der_x509_certificate(b64decode(body.strip(b":")))
    someone = VerifiedPeer(
        (certificate,), "r", IPv4Address("TCP", "192.0.2.1", 1), None, "TLSv1.3", "C", None, None
    )
    assert IdentityRules(client_cert=True).fields(someone) == [(b"Client-Cert", body)]


# X-Forwarded-Client-Cert


def parse_xfcc(value: bytes) -> list[tuple[str, str]]:
    """Read one element as Envoy's documentation says: only ``\\"`` is an escape."""
    pairs, rest = [], value.decode("ascii")
    while rest:
        found = re.match(r'([A-Za-z]+)=(?:"((?:\\"|[^"])*)"|([^;,"]*))(?:;|\Z)', rest)
        assert found, rest
        quoted_text = found[2].replace('\\"', '"') if found[2] is not None else None
        pairs.append((found[1], found[3] if quoted_text is None else quoted_text))
        rest = rest[found.end() :]
    return pairs


def parse_with_backslashes(value: bytes) -> list[tuple[str, str]]:
    """Read one as most parsers do, to which a backslash escapes whatever follows."""
    pairs, rest = [], value.decode("ascii")
    while rest:
        found = re.match(r'([A-Za-z]+)=(?:"((?:\\.|[^"\\])*)"|([^;,"]*))(?:;|\Z)', rest)
        assert found, rest
        pairs.append(
            (found[1], found[3] if found[2] is None else re.sub(r"\\(.)", r"\1", found[2]))
        )
        rest = rest[found.end() :]
    return pairs


def test_xfcc_is_envoys() -> None:
    """Keys in Envoy's order, Cert and Chain as URL-encoded PEM, a pair for each name."""
    authority = Authority.create("CA")
    leaf = authority.issue(
        "alice", dns_names=["a.example", "b.example"], uris=["spiffe://td/alice"]
    )
    someone = peer(leaf, authority.certificate)
    value = forwarded_client_cert(someone, reversed(DETAILS), by=["spiffe://td/gate"])
    pairs = parse_xfcc(value)
    assert [key for key, _ in pairs] == [
        "By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS", "DNS",
    ]  # fmt: skip
    assert pairs[0] == ("By", "spiffe://td/gate")
    assert pairs[1] == ("Hash", someone.sha256)
    assert unquote_to_bytes(pairs[2][1]) == leaf.certificate.public_bytes(Encoding.PEM)
    assert unquote_to_bytes(pairs[3][1]) == leaf.certificate.public_bytes(
        Encoding.PEM
    ) + authority.certificate.public_bytes(Encoding.PEM)
    assert pairs[4:] == [
        ("Subject", "CN=alice"),
        ("URI", "spiffe://td/alice"),
        ("DNS", "a.example"),
        ("DNS", "b.example"),
    ]
    assert value.startswith(
        b"By=spiffe://td/gate;Hash=" + someone.sha256.encode() + b';Cert="-----BEGIN%20'
    )
    assert b';Subject="CN=alice";URI=spiffe://td/alice;DNS=a.example;DNS=b.example' in value


def test_xfcc_without_names() -> None:
    """As with Envoy, URI is there also where there is none, and DNS is not."""
    someone = peer(Authority.create("CA").issue("alice"))
    assert (
        forwarded_client_cert(someone, ["Subject", "URI", "DNS", "By"])
        == b'Subject="CN=alice";URI='
    )


@pytest.mark.parametrize(
    ("common_name", "subject"),
    [
        ('a"b', b'CN=a%5C\\"b'),
        ("Acme, Inc", b"CN=Acme\\, Inc"),
        ("a\\", b"CN=a%5C%5C"),
        ('x";Hash=00;URI="', b'CN=x%5C\\"\\;Hash=00\\;URI=%5C\\"'),
        ("a\r\nb", b"CN=a%0D%0Ab"),
    ],
)
def test_no_name_ends_a_quoted_value(common_name: str, subject: bytes) -> None:
    """Whichever way a parser takes backslashes, it reads one subject and nothing after it."""
    someone = peer(Authority.create("CA").issue(common_name))
    value = forwarded_client_cert(someone, ["Subject", "URI"])
    assert value == b'Subject="' + subject + b'";URI='
    for pairs in (parse_xfcc(value), parse_with_backslashes(value)):
        assert [key for key, _ in pairs] == ["Subject", "URI"]
    assert unquote(parse_xfcc(value)[0][1]) == someone.subject


@given(st.text(alphabet=st.sampled_from('ab\\",;= %\r\né'), min_size=1, max_size=12))
def test_both_readings_of_xfcc_agree_on_where_values_end(name: str) -> None:
    """No mixture of quotes, backslashes and separators makes another pair."""

    class Named(VerifiedPeer):
        subject = name
        uris = (name,)

    someone = object.__new__(Named)
    value = forwarded_client_cert(someone, ["Subject", "URI"])
    assert is_value(value)
    for pairs in (parse_xfcc(value), parse_with_backslashes(value)):
        assert [key for key, _ in pairs] == ["Subject", "URI"]
    assert {unquote(text) for _, text in parse_xfcc(value)} == {name}


# Names


@pytest.mark.parametrize(
    "name",
    [
        "Client-Cert",
        "client-cert",
        "CLIENT_CERT",
        "Client.Cert",
        "Client-Cert_Chain",
        "X-Forwarded-For",
        "x_forwarded_proto",
        "X-Forwarded-Anything",
        "X-Forwarded-Client-Cert",
        "Forwarded",
        "X-Real-IP",
        "Proxy",
        "X-Client-CN",
        "x_client_cn",
        "X-Client.CN",
        "X~Client!CN",
    ],
)
def test_reserved_names(name: str) -> None:
    """Names are the gate's in every spelling that CGI folds into theirs."""
    assert name.encode() in reserved([b"X-Client-CN"])


@pytest.mark.parametrize("name", ["Client-Certificate", "X-Client", "XForwarded-For", "Cookie"])
def test_other_names_are_the_clients(name: str) -> None:
    """Nothing else is taken from a client."""
    assert name.encode() not in reserved([b"X-Client-CN"])
    assert folded(name.encode()) == name.lower().encode()


def test_hop_by_hop_fields_do_not_pass() -> None:
    """Those of RFC 9110, 7.6.1, and what Connection names, in any case."""
    names = ["Connection", "Keep-Alive", "TE", "Transfer-Encoding", "Upgrade", "Proxy-Connection",
             "Proxy-Authorization", "X-Mine", "x-mine", "Accept", "Via"]  # fmt: skip
    lines = [(name.encode(), b"v") for name in names]
    assert list(end_to_end(lines, [b"close, X-MINE", b", ,x-other"])) == [
        (b"Accept", b"v"),
        (b"Via", b"v"),
    ]


def test_trailers_that_could_be_taken_for_headers_do_not_pass() -> None:
    """RFC 9110, 6.5.1: framing, routing, authentication; and the gate's own names."""
    own = reserved([b"X-Client-CN"])
    lines = [
        (name, b"v")
        for name in (
            b"X-Checksum",
            b"Content-Length",
            b"Content_Length",
            b"host",
            b"Authorization",
            b"x_client_cn",
            b"Client-Cert",
            b"Transfer-Encoding",
            b"Cookie",
        )
    ]
    assert list(trailers(lines, own)) == [(b"X-Checksum", b"v")]


@pytest.mark.parametrize(
    "line",
    [b"", b":", b": v", b"a", b"a b: c", b"a : c", b" a: c", b"a\t: b", b"a: b\rc", b"a: \0",
     b"a: b\x0b", b"a: \x7f", "ä: b".encode(), b"a(b): c", b"a: b\nc"],
)  # fmt: skip
def test_malformed_lines(line: bytes) -> None:
    """What is not a field line of RFC 9112, 5, is refused."""
    with pytest.raises(ValueError, match="malformed"):
        parse_line(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"a:b", (b"a", b"b")),
        (b"A-b_c: \t d e \t", (b"A-b_c", b"d e")),
        (b"a:", (b"a", b"")),
        (b"a: b:c\xff", (b"a", b"b:c\xff")),
    ],
)
def test_whitespace_around_a_value_is_no_part_of_it(
    line: bytes, expected: tuple[bytes, bytes]
) -> None:
    """Whitespace around a value is not part of it."""
    assert parse_line(line) == expected


@pytest.mark.parametrize(
    ("host", "authority", "expected"),
    [
        ("192.0.2.1", b"a.example", [b"192.0.2.1", b"https", b"a.example",
                                     b"for=192.0.2.1;proto=https;host=a.example"]),
        ("192.0.2.1", b"a.example:8443", [b"192.0.2.1", b"https", b"a.example:8443",
                                          b'for=192.0.2.1;proto=https;host="a.example:8443"']),
        ("2001:db8::1", b"[::1]:8", [b"2001:db8::1", b"https", b"[::1]:8",
                                     b'for="[2001:db8::1]";proto=https;host="[::1]:8"']),
        (None, b"", [b"unknown", b"https", b"for=unknown;proto=https"]),
    ],
)  # fmt: skip
def test_forwarded_follows_rfc_7239(
    host: str | None, authority: bytes, expected: list[bytes]
) -> None:
    """RFC 7239: IPv6 in brackets and quotes, ports in quotes, no address is unknown."""
    assert [value for _, value in forwarded(Hop(host, authority))] == expected


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([b'for="[::1]"'], True),
        ([b'for="a\\"b"', b"for=c"], True),
        ([b'for="'], False),
        ([b'for="a\\"'], False),
        ([b"for=a", b'for="b'], False),
    ],
)
def test_an_open_quote_does_not_swallow_the_gates_own(sent: list[bytes], kept: bool) -> None:
    """What is appended stands for itself; before it what cannot be read is left out."""
    lines = dict(forwarded(Hop("192.0.2.1", b"a"), {b"forwarded": sent}))
    own = b"for=192.0.2.1;proto=https;host=a"
    assert lines[b"Forwarded"] == (b", ".join([*sent, own]) if kept else own)


def test_forwarded_is_appended_where_that_is_asked_for() -> None:
    """What came before comes first, of each field."""
    earlier = {b"x-forwarded-for": [b"198.51.100.7", b"10.0.0.1"], b"forwarded": [b"for=_x"]}
    assert forwarded(Hop("192.0.2.1", b"a"), earlier) == [
        (b"X-Forwarded-For", b"198.51.100.7, 10.0.0.1, 192.0.2.1"),
        (b"X-Forwarded-Proto", b"https"),
        (b"X-Forwarded-Host", b"a"),
        (b"Forwarded", b"for=_x, for=192.0.2.1;proto=https;host=a"),
    ]


# Targets and hosts


@pytest.mark.parametrize(
    ("method", "target", "hosts", "expected"),
    [
        (b"GET", b"/a?b=c", [b"a.example"], Asked(b"/a?b=c", b"a.example")),
        (b"GET", b"//a//b", [b"A.example:80"], Asked(b"//a//b", b"A.example:80")),
        (b"GET", b"http://a.example/x", [b"A.EXAMPLE"], Asked(b"/x", b"a.example")),
        (b"GET", b"https://a.example:8?q", [b"a.example:8"], Asked(b"/?q", b"a.example:8")),
        (b"GET", b"HTTP://a.example", [b"a.example"], Asked(b"/", b"a.example")),
        (b"OPTIONS", b"*", [b"a"], Asked(b"*", b"a")),
        (b"OPTIONS", b"http://a", [b"a"], Asked(b"*", b"a")),
        (b"OPTIONS", b"http://a/", [b"a"], Asked(b"/", b"a")),
        (b"GET", b"/", [b"[::1]:8443"], Asked(b"/", b"[::1]:8443")),
        (b"GET", b"/", [b"a:"], Asked(b"/", b"a")),
        (b"GET", b"/", [b"[::1]:"], Asked(b"/", b"[::1]")),
        (b"GET", b"https://a:443/", [b"a"], Asked(b"/", b"a:443")),
        (b"GET", b"https://a/", [b"A:443"], Asked(b"/", b"a")),
        (b"GET", b"http://a:80/", [b"a:"], Asked(b"/", b"a:80")),
    ],
)
def test_what_is_asked_for(
    method: bytes, target: bytes, hosts: Sequence[bytes], expected: Asked
) -> None:
    """A target is passed on in origin form, with the host that it names."""
    assert ask(method, target, hosts, b"HTTP/1.1") == expected


@pytest.mark.parametrize(
    ("method", "target", "hosts", "status"),
    [
        (b"GET", b"/", [], 400),
        (b"GET", b"/", [b"a", b"a"], 400),
        (b"GET", b"/", [b""], 400),
        (b"GET", b"/", [b"a b"], 400),
        (b"GET", b"/", [b"a,b"], 400),
        (b"GET", b"/", [b"a/b"], 400),
        (b"GET", b"/", [b"u@a"], 400),
        (b"GET", b"/", [b"a:x"], 400),
        (b"GET", b"/", [b":"], 400),
        (b"GET", b"https://a:444/", [b"a"], 400),
        (b"GET", b"http://a:443/", [b"a"], 400),
        (b"GET", b"/", [b"a:65536"], 400),
        (b"GET", b"/", [b"a:-1"], 400),
        (b"GET", b"/", [b"::1"], 400),
        (b"GET", b"/", [b"-a"], 400),
        (b"GET", b"/#x", [b"a"], 400),
        (b"GET", b"/\x80", [b"a"], 400),
        (b"GET", b"/\x7f", [b"a"], 400),
        (b"GET", b"a", [b"a"], 400),
        (b"GET", b"*", [b"a"], 400),
        (b"GET", b"ftp://a/", [b"a"], 400),
        (b"GET", b"http://b/", [b"a"], 400),
        (b"GET", b"http:///", [b"a"], 400),
        (b"GET", b"http://u@a/", [b"a"], 400),
        (b"CONNECT", b"a:443", [b"b:443"], 400),
        (b"CONNECT", b"/", [b"a"], 400),
        (b"TRACE", b"/", [b"a b"], 400),
    ],
)
def test_what_is_refused(method: bytes, target: bytes, hosts: Sequence[bytes], status: int) -> None:
    """Whatever is unclear about a target or a host is refused."""
    with pytest.raises(Refusal) as caught:
        ask(method, target, hosts, b"HTTP/1.1")
    assert caught.value.status == status


def test_http_1_0_may_have_no_host() -> None:
    """HTTP/1.0 knows none."""
    assert ask(b"GET", b"/", [], b"HTTP/1.0") == Asked(b"/", b"")
    assert Asked(b"/", b"").host is None


@pytest.mark.parametrize(
    ("host", "server_name", "own", "allowed"),
    [
        ("a.example", "a.example", None, True),
        ("A.EXAMPLE.", "a.example", None, True),
        ("b.example", "a.example", None, False),
        ("192.0.2.1", "a.example", None, False),
        (None, "a.example", None, True),
        ("anything", None, None, True),
        ("a.example", None, {"a.example"}, True),
        ("b.example", None, {"a.example"}, False),
        ("192.0.2.1", None, {"a.example"}, True),
        ("::1", None, {"a.example"}, True),
        ("b.example", "a.example", {"a.example", "b.example"}, True),
        ("c.example", "a.example", {"a.example", "b.example"}, False),
        ("c.example", "c.example", {"a.example"}, True),
        ("d.example", "c.example", {"a.example"}, False),
    ],
)
def test_which_hosts_a_connection_is_for(
    host: str | None, server_name: str | None, own: set[str] | None, allowed: bool
) -> None:
    """A host is the one of the TLS connection, or one that the same server declares."""
    serves = None if own is None else own.__contains__
    if allowed:
        check_server(host, server_name, serves)
        return
    with pytest.raises(Refusal) as caught:
        check_server(host, server_name, serves)
    assert caught.value.status == 421


@pytest.mark.parametrize(
    ("authority", "valid"),
    [("a", True), ("a:1", True), ("[::1]:1", True), ("ä", False), ("a b", False), ("", False)],
)
def test_a_host_is_a_name_or_an_address(authority: str, valid: bool) -> None:
    """A host name or an address, with or without a port."""
    assert is_authority(authority) == valid
