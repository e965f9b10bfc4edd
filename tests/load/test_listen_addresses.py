from __future__ import annotations

import errno
import socket

import pytest

from mtlsgate.load import listen_addresses as hosts
from mtlsgate.load.addresses import HostError, SocketAddress, SystemdAddress, UnixAddress
from mtlsgate.load.endpoint_strings import parse_endpoint
from mtlsgate.load.listen_addresses import Host, parse_host


@pytest.fixture
def _two_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has every address, whatever the one under the tests has."""
    monkeypatch.setattr(hosts, "_is_present", lambda address: True)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(name: str, port: int, **options: int) -> list[tuple[object, ...]]:
        if name not in known:
            return list(real(name, port, **options))
        return [entry for one in known[name] for entry in real(one, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def addresses(text: str) -> list[str]:
    host = parse_host(text)
    assert host.text == text
    return [str(one) for one in host.addresses]


def refusal(text: str) -> str:
    with pytest.raises(HostError) as caught:
        parse_host(text)
    return str(caught.value)


@pytest.mark.usefixtures("_two_stacks")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*:8443", ["0.0.0.0:8443", "[::]:8443"]),
        ("8443", ["0.0.0.0:8443", "[::]:8443"]),
        ("0", ["0.0.0.0:0", "[::]:0"]),
        ("65535", ["0.0.0.0:65535", "[::]:65535"]),
        ("008443", ["0.0.0.0:8443", "[::]:8443"]),
        ("127.0.0.1:8443", ["127.0.0.1:8443"]),
        ("0.0.0.0:8443", ["0.0.0.0:8443"]),
        ("[::1]:8443", ["[::1]:8443"]),
        ("[::]:8443", ["[::]:8443"]),
        ("[0:0::1]:8443", ["[::1]:8443"]),
        ("192.0.2.7:0", ["192.0.2.7:0"]),
    ],
)
def test_each_way_to_write_an_address_is_read(text: str, expected: list[str]) -> None:
    assert addresses(text) == expected


@pytest.mark.usefixtures("_two_stacks")
def test_a_name_is_what_it_resolves_to(names: dict[str, list[str]]) -> None:
    names["localhost"] = ["::1", "127.0.0.1", "::1"]
    names["gate.example"] = ["192.0.2.1"]
    assert addresses("localhost:8443") == ["[::1]:8443", "127.0.0.1:8443"]
    assert addresses("gate.example:1") == ["192.0.2.1:1"]


def test_a_name_stands_for_those_of_its_addresses_that_the_machine_has(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["localhost"] = ["::1", "127.0.0.1"]
    monkeypatch.setattr(hosts, "_is_present", lambda one: one.family == socket.AF_INET)
    assert addresses("localhost:8443") == ["127.0.0.1:8443"]
    assert addresses("*:8443") == ["0.0.0.0:8443"]
    # With none of them there, binding says what is wrong.
    monkeypatch.setattr(hosts, "_is_present", lambda one: False)
    assert addresses("localhost:8443") == ["[::1]:8443", "127.0.0.1:8443"]


@pytest.mark.parametrize(
    ("number", "present"),
    [(errno.EADDRNOTAVAIL, False), (errno.EAFNOSUPPORT, False), (errno.EACCES, True)],
)
def test_an_address_is_absent_only_where_the_system_says_so(
    number: int, present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    assert hosts._is_present(SocketAddress("127.0.0.1", 1))
    monkeypatch.setattr(socket, "socket", refuse)
    assert hosts._is_present(SocketAddress("127.0.0.1", 1)) is present


NOT_AN_ADDRESS = (
    'not an address: write "*:8443", "127.0.0.1:8443", "[::1]:8443", "name:8443", "8443" or '
    '"unix:/run/gate.sock"'
)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "*", ":", "localhost", "8443x", "[::1", "[::1]", "::1:8443", "::1", "-1"),
        *("http://x:1", "x:1/", "a:b:1", "localhost:", "localhost:x", "localhost:-1", "*:*"),
        *("[::1]8443", "x[::1]:8443", "84 43", "8443 ", "8443\n", "localhost:8443\n", "\u0668"),
        *("localhost\0evil:1", "localhost:1\0", "nosuchkind:address=1:2"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(text) == NOT_AN_ADDRESS


@pytest.mark.parametrize("text", [":8443", ":0"])
def test_every_address_is_not_written_by_leaving_it_out(text: str) -> None:
    assert refusal(text) == f'no host before the port; write "*{text}" for every address'


@pytest.mark.parametrize("port", ["65536", "99999", "100000", "9" * 5000])
def test_a_port_has_sixteen_bits(port: str) -> None:
    for text in (port, f"*:{port}", f"localhost:{port}"):
        assert refusal(text) == "the port is out of range: 0 to 65535"


@pytest.mark.parametrize(
    "host",
    [
        *("1.2.3.4.5", "gate.invalid", "\xfc.invalid", "a" * 64, "a..b", "x y"),
        *("[]", "[::g]", "[localhost]", "[::1%nosuch]", "[gate.invalid]", "\udcff"),
    ],
)
def test_a_name_that_does_not_resolve_is_refused(host: str) -> None:
    assert refusal(f"{host}:8443").startswith(f"{host} does not resolve: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/gate.sock", UnixAddress("/run/gate.sock")),
        ("unix:/run/gate.sock:mode=660", UnixAddress("/run/gate.sock", 0o660)),
        ("unix:address=a.sock:600:7:0", UnixAddress("a.sock", 0o600, 7)),
        ("unix:a\\:b\\=c.sock:lockfile=0", UnixAddress("a:b=c.sock")),
        ("tcp:8443", SocketAddress("0.0.0.0", 8443)),
        ("tcp:8443:interface=127.0.0.1", SocketAddress("127.0.0.1", 8443)),
        ("tcp:8443:127.0.0.1:50", SocketAddress("127.0.0.1", 8443)),
        ("tcp:port=8443:interface=\\:\\:1", SocketAddress("::1", 8443)),
        ("tcp6:8443", SocketAddress("::", 8443)),
        ("tcp6:8443:50:\\:\\:1", SocketAddress("::1", 8443)),
        ("systemd:domain=INET:index=0", SystemdAddress("INET", 0)),
        ("systemd:gate", SystemdAddress(name="gate")),
        ("systemd:INET6:name=gate", SystemdAddress("INET6", None, "gate")),
    ],
)
def test_endpoint_strings(text: str, expected: object) -> None:
    """As Twisted reads them."""
    assert parse_host(text) == Host(text, (expected,))  # type: ignore[arg-type]
    assert parse_host(text, offline=True) == parse_host(text)


def test_a_backlog() -> None:
    assert parse_endpoint("tcp:8443:backlog=5") == SocketAddress("0.0.0.0", 8443)
    address = parse_endpoint("tcp:8443:backlog=5")
    assert isinstance(address, SocketAddress)
    assert address.backlog == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssl:8443:privateKey=a.key:certKey=a.crt", "an ssl: endpoint does TLS of its own"),
        ("haproxy:tcp:8443", "a haproxy: endpoint believes everybody: set proxy_protocol"),
        ("fd:3", "the gate cannot listen on an fd: endpoint: write an address"),
        ("stdio:", "the gate cannot listen on a stdio: endpoint: write an address"),
    ],
)
def test_other_endpoints_are_refused(text: str, expected: str) -> None:
    """With what to write."""
    assert refusal(text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:", 'port: "" is not a number from 0 to 65535'),
        ("tcp:x", 'port: "x" is not a number from 0 to 65535'),
        ("tcp:65536", 'port: "65536" is not a number from 0 to 65535'),
        ("tcp:8443:nosuch=1", 'there is no option "nosuch"'),
        ("tcp:8443:interface=localhost", 'interface: "localhost" is not an IP address'),
        ("unix:", "unix: needs the path of a socket"),
        ("unix:a\0b", "unix: needs the path of a socket"),
        ("unix:mode=660", "address= is missing"),
        ("unix:a:mode=x", 'mode: "x" is not an octal number from 0 to 7777'),
        ("unix:a:mode=8", 'mode: "8" is not an octal number from 0 to 7777'),
        ("unix:a:mode=6:mode=7", "mode= is listed twice"),
        ("unix:a:600:5:0:e", '"e" is one value too many'),
        ("unix:a:lockfile=1", "lockfile: there is no lock file, because a socket that nobody"),
        ("systemd:domain=INET", "systemd: needs either index= or name="),
        ("systemd:domain=INET:index=0:name=x", "systemd: needs either index= or name="),
        ("systemd:index=0", "domain= is missing"),
        ("systemd:domain=X:index=0", 'domain: "X" is none of INET, INET6, UNIX'),
        ("systemd:domain=INET:index=-1", 'index: "-1" is not a number from 0 to 65535'),
        ("systemd:domain=INET:index=\u0661", 'index: "\u0661" is not a number from 0 to 65535'),
    ],
)
def test_an_endpoint_string_in_error(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("unix:/run/gate.sock", True),
        ("*:1", False),
        ("1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.0.2.1:1", False),
        ("tcp:1", False),
        ("tcp:1:interface=127.0.0.1", True),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_only_loopback_and_unix_sockets_are_local(text: str, local: bool) -> None:
    assert parse_host(text).is_local is local


@pytest.mark.usefixtures("_two_stacks")
def test_a_name_is_local_if_all_its_addresses_are(names: dict[str, list[str]]) -> None:
    names["both.example"] = ["127.0.0.1", "192.0.2.1"]
    names["own.example"] = ["127.0.0.1", "::1"]
    assert not parse_host("both.example:1").is_local
    assert parse_host("own.example:1").is_local


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 1), True),
        (("127.0.0.1", 1), ("127.0.0.1", 2), False),
        (("127.0.0.1", 1), ("127.0.0.2", 1), False),
        (("127.0.0.1", 0), ("127.0.0.1", 0), False),
        (("0.0.0.0", 1), ("127.0.0.1", 1), True),
        (("0.0.0.0", 0), ("127.0.0.1", 0), False),
        (("::", 1), ("::1", 1), True),
        # IPv6 sockets take no IPv4 connections here.
        (("::", 1), ("127.0.0.1", 1), False),
        (("0.0.0.0", 1), ("::", 1), False),
        (("::1", 1), ("127.0.0.1", 1), False),
    ],
)
def test_addresses_overlap_if_one_socket_keeps_the_other_away(
    one: tuple[str, int], other: tuple[str, int], expected: bool
) -> None:
    assert SocketAddress(*one).overlaps(SocketAddress(*other)) is expected
    assert SocketAddress(*other).overlaps(SocketAddress(*one)) is expected
