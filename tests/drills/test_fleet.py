"""
Drills with the fleet under contrib/fleet: what happens to a gate costs nobody a connection who
is not its own.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address

from mtlsgate.proxyprotocol import encode_v2
from tests.kits.fleet import FLEET, GATES, RunningFleet, running_fleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FLEET.is_dir(), reason="installed without contrib"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def fleet(shared: RunningFleet) -> Iterator[RunningFleet]:
    """A fleet that is whole, under load; connections to each gate that stay."""
    shared.tell("hold")
    shared.tell("load 3")
    shared.tell("more 20")
    yield shared
    shared.ask("unload")
    shared.tell("release")
    shared.tell("start")


def nobody_lost(report: str, *, own: int | None = 0) -> bool:
    """:param own: connections that a killed gate took with it; None for any number."""
    found = re.fullmatch(r"\d+ served, (\d+) lost with a gate that was killed, 0 failed", report)
    return found is not None and own in (None, int(found[1]))


def test_a_gate_is_killed(fleet: RunningFleet) -> None:
    """Its own connections end; nobody else notices, and once it is back it is used again."""
    fleet.tell("kill gate2")
    fleet.tell("more 40")
    assert fleet.tell("held") == (
        "device-2 is served by gate1, gate3\ndevice-2: gate2 has ended its connection"
    )
    fleet.tell("start gate2")
    fleet.tell("hold")
    assert fleet.tell("held").startswith("device-2 is served by gate1, gate2, gate3\n")
    assert nobody_lost(fleet.tell("unload"), own=None)


def test_a_gate_drains(fleet: RunningFleet) -> None:
    """It serves those who are connected, and gets nobody new."""
    fleet.tell("drain gate2")
    fleet.tell("more 40")
    assert fleet.tell("held") == "device-2 is served by gate1, gate2, gate3"
    assert nobody_lost(fleet.tell("unload"))


def test_a_gate_is_upgraded(fleet: RunningFleet) -> None:
    """A new process takes over; those who are connected to the old one stay connected."""
    before = fleet.pid("gate2")
    assert f"has taken over from {before}" in fleet.tell("upgrade gate2")
    assert fleet.pid("gate2") != before
    fleet.tell("more 40")
    assert fleet.tell("held") == "device-2 is served by gate1, gate2, gate3"
    assert nobody_lost(fleet.tell("unload"))


def test_the_configuration_changes(fleet: RunningFleet) -> None:
    """The gates take it one after the other; a wrong one is refused by the first."""
    config = fleet.directory / "gate.hcl"
    good = config.read_text()
    config.write_text(good.replace('drain_timeout = "1m"', 'drain_timeout = "50s"'))
    assert fleet.tell("reload").count("is in force") == 3
    config.write_text(good.replace("server_names", "server_nmaes"))
    outcome, said = fleet.ask("reload")
    assert outcome == "failed"
    assert said.startswith("gate1 refuses it:\n")
    assert 'unknown attribute "server_nmaes"' in said
    config.write_text(good)
    fleet.tell("more 20")
    assert fleet.tell("held") == "device-2 is served by gate1, gate2, gate3"
    assert nobody_lost(fleet.tell("unload"))


def test_haproxy_checks_are_no_rejections(shared: RunningFleet) -> None:
    """HAProxy asks for readiness with a certificate that the gates admit."""
    for gate in GATES:
        log = shared.log(gate)
        assert "ready: admitted" in log
        assert "ready: rejected" not in log


def test_a_stranger_lies_about_its_address(shared: RunningFleet) -> None:
    """A PROXY header is believed from HAProxy only: not from elsewhere, and not behind it."""
    lie = encode_v2(IPv4Address("TCP", "192.0.2.7", 1), IPv4Address("TCP", "192.0.2.1", 2))
    context = ssl.create_default_context(cafile=str(shared.directory / "ca.crt"))
    context.load_cert_chain(shared.directory / "device-1.crt", shared.directory / "device-1.key")
    sources = {"gate1": "127.0.0.3", "haproxy": "127.0.0.1"}
    for name, source in sources.items():
        where = ("127.0.0.1", shared.port(name))
        # It may be over before the client knows that it is connected.
        with pytest.raises(OSError), socket.create_connection(where, 60, (source, 0)) as plain:  # noqa: PT011, PT012
            plain.sendall(lie)
            context.wrap_socket(plain, server_hostname="localhost")
    shared.until_logged(r"rejected 127\.0\.0\.3:\d+: untrusted_proxy: ")
    shared.until_logged(r"rejected 127\.0\.0\.1:\d+: not_tls: ")
    assert not any("192.0.2.7" in shared.log(gate) for gate in GATES)
