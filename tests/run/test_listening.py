from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mtlsgate.gate.connections import Connections
from mtlsgate.gate.listener import Listener
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.run.listening import ListenError, Place, bind, entrance_of, places_of, release
from mtlsgate.run.sockets import Sockets, bind_tcp
from tests.kits.gate import Log
from tests.kits.pki import pki, server, site
from tests.kits.service import MemoryService, a_server


def places(tmp_path: Path, text: str) -> list[Place]:
    return [one for one in places_of(site(tmp_path).load(text)) if isinstance(one, Place)]


def test_every_address_is_a_place(tmp_path: Path) -> None:
    found = places(tmp_path, server(hosts='["127.0.0.1:8443", "[::1]:8443", "unix:s"]'))
    assert [place.key for place in found] == ["127.0.0.1:8443", "[::1]:8443", "unix:s"]


def test_of_port_0_each_is_its_own(tmp_path: Path) -> None:
    """... and keeps its key, so that a new epoch keeps its port."""
    text = server(hosts='["127.0.0.1:0", "127.0.0.1:0"]') + server()
    keys = ["127.0.0.1:0#1", "127.0.0.1:0#2", "127.0.0.1:0#3"]
    assert [place.key for place in places(tmp_path, text)] == keys
    assert [place.key for place in places(tmp_path, text)] == keys


NAMED = """
server "a" {
  hosts = ["unix:s"]
  server_names = ["a.example", "*.b.example"]
  %s
  protocol "echo" {}
  tls {
    client_certificate { ca_certificate_file = "issuing.crt" }
  }
}
server "c" {
  hosts = ["unix:s"]
  server_names = ["c.example"]
  %s
  protocol "echo" {}
  tls {
    client_certificate { ca_certificate_file = "issuing.crt" }
  }
}
"""


@pytest.mark.parametrize(
    ("default", "expected"),
    [("", ["a", "a", "c", None, None]), ("default_server = true", ["a", "a", "c", "a", "a"])],
)
def test_the_name_chooses(tmp_path: Path, default: str, expected: list[str | None]) -> None:
    [place] = places(tmp_path, NAMED % (default, ""))
    assert place.is_shared
    chosen = map(place.choose, ("A.example.", "x.b.example", "c.example", "other", None))
    assert [one and one.gate.name for one in chosen] == expected


def test_a_server_alone_answers_to_all(tmp_path: Path) -> None:
    [place] = places(tmp_path, a_server())
    assert not place.is_shared
    assert place.choose("whatever") is place.choose(None) is place.servers[0]


@pytest.mark.parametrize(
    ("text", "reads_hello", "reads_header"),
    [
        (a_server(), False, False),
        (
            a_server(
                rules="session_resumption = true\nclient_certificate { ca_certificate_file = "
                '"issuing.crt" }'
            ),
            True,
            False,
        ),
        (NAMED % ("", ""), True, False),
        (a_server(rest='proxy_protocol = "required"'), False, True),
    ],
)
def test_what_stands_there(
    tmp_path: Path, text: str, reads_hello: bool, reads_header: bool
) -> None:
    """No more is read before TLS than is needed."""
    [place] = places(tmp_path, text)
    entrance = entrance_of(place, Connections(Clock()))
    assert entrance.reads_hello is reads_hello
    assert (entrance.proxies is not None) is reads_header


def test_limits_where_the_server_is_not_known_yet(tmp_path: Path) -> None:
    """No less than any of the servers allows; nothing, if one of them has no limit."""
    one, two = "max_handshakes = 5\nmax_connections_per_ip = 2", "max_handshakes = 7"
    [place] = places(tmp_path, NAMED % (one, two))
    limits = entrance_of(place, Connections(Clock())).terms.limits
    assert (limits.max_handshakes, limits.max_connections_per_ip) == (12, None)
    assert limits.handshakes_per_second_per_ip is None


def test_only_what_is_new_is_bound(tmp_path: Path) -> None:
    """What is listened on already is not taken a second time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        epoch = site(tmp_path).load(server(hosts=f'["127.0.0.1:{port}", "127.0.0.1:0"]'))
        bound = bind(epoch, Sockets(), {f"127.0.0.1:{port}"})
        assert list(bound) == ["127.0.0.1:0#1"]
        release(bound.values())


def test_every_server_gets_a_socket_of_its_own_also_on_port_0(tmp_path: Path) -> None:
    epoch = site(tmp_path).load(server(hosts='["127.0.0.1:0", "127.0.0.1:0"]') + server())
    bound = bind(epoch, Sockets())
    ports = {one.sock.getsockname()[1] for one in bound.values()}
    release(bound.values())
    assert len(ports) == len(bound) == 3


def test_addresses_are_given_back_if_one_cannot_be_had(tmp_path: Path) -> None:
    here = site(tmp_path)
    loopback = SocketAddress("127.0.0.1", 0)
    with bind_tcp(loopback) as taken, bind_tcp(loopback) as free:
        busy, port = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        epoch = here.load(server(hosts=f'["127.0.0.1:{port}", "127.0.0.1:{busy}"]'))
        with pytest.raises(ListenError) as caught:
            bind(epoch, Sockets())
    assert str(caught.value) == (
        f"{here.config}: cannot listen on 127.0.0.1:{busy}: another process listens there "
        "(ss -ltnp shows which)"
    )
    bind_tcp(SocketAddress("127.0.0.1", port)).close()


def test_a_socket_that_the_reactor_cannot_watch(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... is found before the new configuration takes over: nothing has changed then."""
    running = MemoryService(tmp_path, a_server())
    whole = running.reactor.addReader

    def fail(reader: Any) -> None:
        if isinstance(reader, Listener) and reader.key == "unix:c.sock":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(reader)

    monkeypatch.setattr(running.reactor, "addReader", fail)
    [problem] = running.reload(a_server() + a_server("b") + a_server("c")).problems
    assert problem == "cannot listen on unix:c.sock: No space left on device"
    assert running.service.runner.number == 1
    assert list(running.service.runner.listeners) == ["unix:door.sock"]
    assert [one.is_closed for one in running.sockets.made] == [False, True, True]
    running.enter(pki().client)
