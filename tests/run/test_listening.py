from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.gate.behind_proxy import ProxiedFactory
from mtlsgate.gate.by_server_name import DispatchingFactory
from mtlsgate.gate.factory import GateFactory
from mtlsgate.gate.registry import Registry
from mtlsgate.run.listening import (
    Entrance,
    Listener,
    ListenError,
    Place,
    Switch,
    bind,
    listen,
    places_of,
)
from tests.kits.pki import server, site
from tests.kits.service import a_server


def places(tmp_path: Path, text: str) -> list[Place]:
    return list(places_of(site(tmp_path).load(text)))


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
    ("text", "kind"),
    [
        (a_server(), GateFactory),
        (
            a_server(
                rules="session_resumption = true\nclient_certificate { ca_certificate_file = "
                '"issuing.crt" }'
            ),
            DispatchingFactory,
        ),
        (NAMED % ("", ""), DispatchingFactory),
        (a_server(rest='proxy_protocol = "required"'), ProxiedFactory),
    ],
)
def test_what_stands_there(tmp_path: Path, text: str, kind: type) -> None:
    """No more than is needed."""
    [place] = places(tmp_path, text)
    assert type(Entrance(place, Registry(Clock())).factory) is kind


def test_limits_where_the_server_is_not_known_yet(tmp_path: Path) -> None:
    """No less than any of the servers allows; nothing, if one of them has no limit."""
    one, two = "max_handshakes = 5\nmax_connections_per_ip = 2", "max_handshakes = 7"
    [place] = places(tmp_path, NAMED % (one, two))
    factory = Entrance(place, Registry(Clock())).factory
    assert isinstance(factory, DispatchingFactory)
    limits = factory.choice.terms.limits
    assert (limits.max_handshakes, limits.max_connections_per_ip) == (12, None)
    assert limits.handshakes_per_second_per_ip is None


class Counting(Factory):
    noisy = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def startFactory(self) -> None:
        self.calls.append("start")

    def stopFactory(self) -> None:
        self.calls.append("stop")


def test_a_switch() -> None:
    """Factories start when it is their turn, and stop when it is over."""
    one, two = Counting(), Counting()
    switch = Switch(one)
    switch.doStart()
    two.doStart()
    switch.turn_to(two)
    assert (one.calls, two.calls) == (["start", "stop"], ["start"])
    switch.doStop()
    assert two.calls == ["start", "stop"]


def test_an_endpoint_that_fails_after_all(tmp_path: Path) -> None:
    [place] = places(tmp_path, a_server().replace("unix:door.sock", f"unix:{tmp_path}/no/s"))
    from twisted.internet import reactor

    from mtlsgate.load.listen_addresses import endpoint_of

    listener = Listener(place, endpoint_of(str(place.address), reactor))
    with pytest.raises(ListenError, match="cannot listen on unix:"):
        listen(listener, Switch(Factory()))


def test_only_what_is_new_is_bound(tmp_path: Path) -> None:
    """What is listened on already is not taken a second time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        epoch = site(tmp_path).load(server(hosts=f'["127.0.0.1:{port}", "127.0.0.1:0"]'))
        [listener] = bind(epoch, MemoryReactorClock(), {f"127.0.0.1:{port}"})
        assert listener.place.key == "127.0.0.1:0#1"
        os.close(cast(Any, listener.endpoint).fileno)
