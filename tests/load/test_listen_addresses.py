from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, UNIXServerEndpoint
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.load import listen_addresses as hosts
from mtlsgate.load.listen_addresses import (
    Host,
    HostError,
    SocketAddress,
    adopt,
    endpoint_of,
    parse_host,
)
from mtlsgate.run.listening import ListenError, bind
from tests.kits.pki import server, site


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
    assert host.endpoint is None
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
def test_addresses(text: str, expected: list[str]) -> None:
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
    'not an address: write "*:8443", "127.0.0.1:8443", "[::1]:8443", "name:8443", "8443" or a '
    'Twisted endpoint such as "unix:/run/gate.sock"'
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
    "text",
    [
        *("unix:/run/gate.sock", "unix:/run/gate.sock:mode=660", "tcp:8443"),
        *("tcp:8443:interface=127.0.0.1", "systemd:domain=INET:index=0", "tcp6:8443"),
        "haproxy:tcp:8443",
    ],
)
def test_a_twisted_endpoint_is_kept_as_written(text: str) -> None:
    assert parse_host(text) == Host(text, endpoint=text)


def test_an_endpoint_with_tls_of_its_own_is_refused() -> None:
    """It would not ask for client certificates, and the gate would get none."""
    assert refusal("ssl:8443:privateKey=a.key:certKey=a.crt").startswith(
        "an ssl: endpoint does TLS of its own"
    )


@pytest.mark.parametrize(
    "text", ["tcp:", "tcp:x", "tcp:8443:nosuch=1", "unix:a:mode=x", "unix:a:b:c:d:e"]
)
def test_an_endpoint_that_does_not_parse_is_refused(text: str) -> None:
    assert refusal(text).startswith("not a Twisted server endpoint: ")


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
        ("tcp:1:interface=127.0.0.1", False),
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


# Binding


def test_binding_listens() -> None:
    with SocketAddress("127.0.0.1", 0).bind() as bound:
        port = bound.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_an_address_that_is_taken_is_said() -> None:
    with SocketAddress("127.0.0.1", 0).bind() as bound:
        port = bound.getsockname()[1]
        with pytest.raises(HostError) as caught:
            SocketAddress("127.0.0.1", port).bind()
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: another process listens there (ss -ltnp shows which)"
    )


def test_an_address_of_another_machine_is_said() -> None:
    with pytest.raises(HostError) as caught:
        SocketAddress("192.0.2.1", 8443).bind()
    assert str(caught.value) == (
        "cannot listen on 192.0.2.1:8443: it is not an address of this machine"
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.EACCES, "Permission denied"),
            "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE",
        ),
        (OSError(errno.ENOBUFS, "No buffer space available"), "No buffer space available"),
        (OSError("odd"), "odd"),
    ],
)
def test_a_failure_to_bind_is_put_in_words(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise error

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(HostError) as caught:
        SocketAddress("127.0.0.1", 443).bind()
    assert str(caught.value) == f"cannot listen on 127.0.0.1:443: {expected}"


def test_an_ipv6_socket_takes_no_ipv4_connections() -> None:
    """So that IPv4 clients keep IPv4 addresses, and 0.0.0.0 has its own socket."""
    try:
        bound = SocketAddress("::1", 0).bind()
    except HostError:
        pytest.skip("no IPv6 here")
    with bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_the_endpoint_owns_the_socket_it_adopts() -> None:
    bound = SocketAddress("127.0.0.1", 0).bind()
    descriptor = bound.fileno()
    endpoint = adopt(bound, MemoryReactorClock())
    assert isinstance(endpoint, AdoptedStreamServerEndpoint)
    assert bound.fileno() == -1
    os.close(descriptor)


def test_an_endpoint_description_becomes_an_endpoint(tmp_path: Path) -> None:
    found = endpoint_of(f"unix:{tmp_path}/s", MemoryReactorClock())
    assert isinstance(found, UNIXServerEndpoint)
    with pytest.raises(HostError, match="not a Twisted server endpoint: "):
        endpoint_of("nosuch:1", MemoryReactorClock())


# All the addresses of a configuration


def test_every_server_gets_a_socket_of_its_own_also_on_port_0(tmp_path: Path) -> None:
    here = site(tmp_path)
    epoch = here.load(server(hosts='["127.0.0.1:0", "127.0.0.1:0"]') + server())
    listeners = bind(epoch, MemoryReactorClock())
    descriptors = [cast(Any, one.endpoint).fileno for one in listeners]
    ports = {socket.socket(fileno=os.dup(one)).detach() for one in descriptors}
    for one in (*descriptors, *ports):
        os.close(one)
    assert len(set(descriptors)) == len(ports) == 3
    assert [one.place.servers for one in listeners] == [
        (one,) for one in (*epoch.servers[:1] * 2, epoch.servers[1])
    ]


def test_addresses_are_given_back_if_one_cannot_be_had(tmp_path: Path) -> None:
    here = site(tmp_path)
    with (
        SocketAddress("127.0.0.1", 0).bind() as taken,
        SocketAddress("127.0.0.1", 0).bind() as free,
    ):
        busy, port = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        epoch = here.load(server(hosts=f'["127.0.0.1:{port}", "127.0.0.1:{busy}"]'))
        with pytest.raises(ListenError) as caught:
            bind(epoch, MemoryReactorClock())
    assert str(caught.value) == (
        f"{here.config}: cannot listen on 127.0.0.1:{busy}: another process listens there "
        "(ss -ltnp shows which)"
    )
    SocketAddress("127.0.0.1", port).bind().close()
