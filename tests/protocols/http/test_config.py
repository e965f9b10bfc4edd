from __future__ import annotations

from pathlib import Path

import pytest
from attrs import fields
from twisted.internet.interfaces import IProtocolNegotiationFactory
from zope.interface.verify import verifyObject

from mtlsgate.interfaces import IProtocolPlugin
from mtlsgate.protocols.http.configuration import HttpConfiguration, http_target
from mtlsgate.protocols.http.plugin import HttpFactory, plugin
from tests.kits.pki import Site, server, site


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site(tmp_path_factory.mktemp("http"))


def block(text: str) -> str:
    """:returns: a file whose protocol block has that text from line 4, column 1 on."""
    return server(protocol=f'protocol "http" {{\n{text}\n}}')


def factory(where: Site, text: str) -> HttpFactory:
    (loaded,) = where.load(block(text)).servers
    built = loaded.gate.application
    assert isinstance(built, HttpFactory)
    return built


def problem(where: Site, text: str) -> str:
    [found] = where.problems(block(text))
    return found


def test_the_plugin_is_one(where: Site) -> None:
    """It provides what it says, and so does its factory."""
    assert verifyObject(IProtocolPlugin, plugin)
    built = factory(where, 'target = "127.0.0.1:80"')
    assert verifyObject(IProtocolNegotiationFactory, built)


@pytest.mark.parametrize(
    ("text", "authority", "tls"),
    [
        ("127.0.0.1:8000", b"127.0.0.1:8000", None),
        ("[::1]:8000", b"[::1]:8000", None),
        ("unix:/run/app.sock", b"localhost", None),
        ("http://localhost", b"localhost:80", False),
        ("HTTP://localhost:8000/", b"localhost:8000", False),
        ("http://[::1]", b"[::1]:80", False),
        ("https://app.internal", b"app.internal:443", True),
        ("https://app.internal:8443/", b"app.internal:8443", True),
    ],
)
def test_a_target_is_a_url_without_a_path_or_an_address(
    text: str, authority: bytes, tls: bool | None
) -> None:
    """A URL without a path, or what every protocol takes as a target."""
    found = http_target(text)
    assert (found.authority, found.tls) == (authority, tls)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://localhost/app", "a target has no path"),
        ("http://localhost?x", "a target has no path"),
        ("http://localhost/#x", "a target has no path"),
        ("http://u@localhost", "a target has no path"),
        ("http://", "after http:// comes a host"),
        ("https://a b", "after https:// comes a host"),
        ("http://localhost:0", "the port is 0"),
        ("ftp://localhost", "ftp"),
        ("localhost", 'write "host:port"'),
    ],
)
def test_what_is_no_target(text: str, problem: str) -> None:
    """The message says what to write."""
    with pytest.raises(ValueError, match=r".") as caught:
        http_target(text)
    assert problem in str(caught.value)


def test_everything_can_be_set(where: Site) -> None:
    """A block with every attribute loads, and means what it says."""
    text = """
        target                  = ["https://localhost:1", "localhost:2", "unix:/run/x.sock"]
        unsafe_target           = true
        connect_timeout         = "1s"
        balance                 = "least_connections"
        response_timeout        = "3s"
        target_connections      = 4
        target_keepalive        = "5s"
        host                    = "app.internal:8080"
        forwarded               = "append"
        client_cert             = true
        client_cert_chain       = true
        x_forwarded_client_cert = ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"]
        http_versions           = ["1.1", "2"]
        websockets              = false
        max_header_size         = "6KiB"
        max_body_size           = "7MiB"
        header_timeout          = "8s"
        body_timeout            = "9s"
        keepalive_timeout       = "10s"
        websocket_timeout       = "11m"
        max_requests            = 12
        max_requests_per_client = 11
        max_websockets          = 13
        max_websockets_per_client = 14
        lenient                 = true
        headers {
          X-Client-CN = peer.common_name
          X-Client    = "${peer.sha256} by ${peer.rule}"
        }
        health_check {
          interval = "1m"
          timeout  = "15s"
          path     = "/healthz?full"
          status   = [200, 429]
        }
        tls {
          server_ca_certificate_file = "root.crt"
          server_name                = "localhost"
        }
    """
    built = factory(where, text)
    assert built.rules.host == b"app.internal:8080"
    assert built.rules.append_forwarded is True
    assert built.acceptableProtocols() == [b"http/1.1", b"h2"]
    assert built.limits.head_size == 6 * 1024
    assert built.limits.body_size == 7 << 20
    assert set(built.rules.identity.headers) == {b"X-Client-CN", b"X-Client"}
    assert b"x_client_cn" in built.rules.reserved
    # A check makes up for it.
    names = {one.name for one in fields(HttpConfiguration)} - {"retry_after"}
    assert names == {name for name in names if name in text}


def test_headers_as_an_object(where: Site) -> None:
    """Names that HCL's own cannot hold are written in quotes."""
    built = factory(
        where, 'target = "127.0.0.1:80"\nheaders = { "X.CN" = peer.common_name, X-Rule = "r" }'
    )
    assert set(built.rules.identity.headers) == {b"X.CN", b"X-Rule"}


LOCAL = 'target = "127.0.0.1:80"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "3:1: protocol \"http\": target is missing"),
        ("target = []", '4:10: protocol "http": target: must be a string, or a list of strings'),
        ("target = 5", '4:10: protocol "http": target: must be a string, or a list of strings'),
        ('target = ["127.0.0.1:1", "127.0.0.1:1"]', "is listed twice"),
        ('target = "app.internal:80"', "would be spoken to in plaintext: add a tls block, or set"),
        ('target = "http://192.0.2.1"', "would be spoken to in plaintext"),
        ('target = "https://localhost"', "https:// needs a tls block that says which CA to trust"),
        (
            'target = "http://localhost"\ntls { server_ca_certificate_file = "root.crt" }',
            "http:// and a tls block contradict each other",
        ),
        (
            'target = "unix:/x"\ntls { server_ca_certificate_file = "root.crt" }',
            "the target has no host name: set server_name in the tls block",
        ),
        (LOCAL + "max_requests = 0", "5:1: protocol \"http\": max_requests must be 1 or more"),
        (LOCAL + "target_connections = -1", "target_connections must be 0 or more"),
        (LOCAL + 'max_header_size = "1023B"', 'max_header_size must be "1KiB" or more'),
        (LOCAL + "max_body_size = 5", "max_body_size: not a size; write it as"),
        (LOCAL + 'max_body_size = "5MB"', "max_body_size: not a size; write it as"),
        (LOCAL + 'host = "a b"', "host must be a host name or an IP address"),
        (LOCAL + 'host = "a/b"', "host must be a host name or an IP address"),
        (LOCAL + 'forwarded = "on"', 'forwarded: must be "set" or "append" or "off"'),
        (LOCAL + 'x_forwarded_client_cert = ["hash"]', "x_forwarded_client_cert: must be"),
        (LOCAL + 'x_forwarded_client_cert = ["Hash", "Hash"]', "names a key twice"),
        (LOCAL + 'health_check {\npath = "x"\n}', '6:1: health_check: path must begin with /'),
        (LOCAL + 'health_check {\npath = "/a b"\n}', "path must begin with / and be of visible"),
        (LOCAL + 'health_check {\npath = "/#a"\n}', "path must begin with / and be of visible"),
        (LOCAL + "health_check {\nstatus = [200]\n}", "status has no effect without a path"),
        (LOCAL + 'health_check {\npath = "/"\nstatus = [100]\n}', "each must be from 200 to 599"),
        (LOCAL + "client_certs = true", 'did you mean "client_cert"?'),
        (LOCAL + "headers {\nX-A = peer.comon_name\n}", "6:7: headers: X-A: there is no peer"),
        (LOCAL + 'headers {\nHost = "a"\n}', '6:1: protocol "http": headers: "Host" is set by '),
        (LOCAL + 'headers {\nHost = "a"\n}', 'by the gate; write host = "…"'),
        (LOCAL + "headers {\nclient_cert = peer.sha256\n}", "the gate; write client_cert = true"),
        (LOCAL + "headers {\nX-Forwarded-For = peer.address\n}", "is set by the gate alone"),
        (LOCAL + "headers {\nConnection = \"a\"\n}", "is set by the gate alone"),
        (LOCAL + "headers {\nContent_Length = \"1\"\n}", "is set by the gate alone"),
        (LOCAL + "headers {\nX-A = \"1\"\nx_a = \"2\"\n}", '"x_a" is "X-A" to CGI and WSGI'),
        (LOCAL + 'headers = { "X A" = "1" }', '"X A" is no name of a header'),
        (LOCAL + 'headers = { "X-Ä" = "1" }', "is no name of a header"),
        (LOCAL + 'headers { X-A = "a\\nb" }', '"X-A" has a value that is no visible ASCII'),
        (LOCAL + 'headers { X-A = "ä" }', '"X-A" has a value that is no visible ASCII'),
        (LOCAL + 'headers { X-A = " a" }', '"X-A" has a value that is no visible ASCII'),
        (LOCAL + 'host = peer.server_name', "peer.server_name differs from client"),
        (LOCAL + 'headers { X = file(peer.rule) }', "file cannot depend on the client"),
    ],
)  # fmt: skip
def test_what_is_refused(where: Site, text: str, expected: str) -> None:
    """Each has its place and says what to do."""
    assert expected in problem(where, text)


def test_a_constant_is_sent_as_it_is(where: Site) -> None:
    """What names no client needs no encoding."""
    built = factory(where, LOCAL + 'headers {\nX-A = "100%, a"\nX-B = ["a", "b"]\n}')
    assert built.rules.identity.fields(None) == [(b"X-A", b"100%, a"), (b"X-B", b"a, b")]


def test_servers_know_their_names(where: Site) -> None:
    """What server_names declares is what Host may be."""
    text = block(LOCAL).replace("hosts =", 'server_names = ["a.example", "*.b.example"]\nhosts =')
    (loaded,) = where.load(text).servers
    built = loaded.gate.application
    assert isinstance(built, HttpFactory)
    serves = built.serves
    assert serves is not None
    assert [serves(name) for name in ("A.example", "x.b.example", "b.example", "c")] == [
        True,
        True,
        False,
        False,
    ]


def test_nothing_is_opened_at_load(where: Site, tmp_path: Path) -> None:
    """A socket that is not there yet is no error."""
    factory(where, f'target = "unix:{tmp_path}/later.sock"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('target = "app.internal:80"\nhttp_version = "2"', "spoken to in plaintext"),
        ('target = "127.0.0.1:80"\nhttp_version = "3"', 'http_version: must be "2" or "1.1"'),
        ('target = "127.0.0.1:80"\nhttp_version = "2"\nlenient = true', "lenient has no effect"),
    ],
)
def test_http2_to_targets_is_held_to_the_same_rules(where: Site, text: str, said: str) -> None:
    assert said in problem(where, text)
