"""
Drills with the fleet under contrib/fleet: what happens to a gate costs nobody a connection who
is not its own, and what happens to Redis lets nobody in who is denied.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from twisted.internet.address import IPv4Address

from mtlsgate.proxyprotocol import encode_v2
from tests.kits.fleet import FLEET, GATES, SENTINELS, STORES, RunningFleet, running_fleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FLEET.is_dir(), reason="installed without contrib"),
]

#: What is said of connections that all gates still serve.
ALL = "device-2 is served by gate1, gate2, gate3"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def fleet(shared: RunningFleet, request: pytest.FixtureRequest) -> Iterator[RunningFleet]:
    """A fleet that is whole, under load; connections to each gate that stay.  If it cannot be made
    whole, the tests that follow do not wait for that once more."""
    if shared.problems:
        pytest.fail(shared.problems[0], pytrace=False)
    try:
        shared.until_told("hold device-2", "device-2 is connected to gate1, gate2, gate3")
        shared.tell("load 3")
        shared.tell("more 10")
        yield shared
        shared.ask("unload")
        shared.tell("release")
        shared.tell("start")
    except BaseException as error:
        shared.problems.append(f"the fleet is not whole since {request.node.name}: {error}")
        raise


def nobody_lost(report: str, *, own: int | None = 0) -> bool:
    """:param own: connections that a killed gate took with it; None for any number."""
    found = re.fullmatch(r"\d+ served, (\d+) lost with a gate that was killed, 0 failed", report)
    return found is not None and own in (None, int(found[1]))


def test_a_gate_is_killed(fleet: RunningFleet) -> None:
    """Its own connections end; nobody else notices, and once it is back it is used again."""
    fleet.tell("kill gate2")
    fleet.tell("more 20")
    assert fleet.tell("held") == (
        "device-2 is served by gate1, gate3\ndevice-2: gate2 has ended its connection"
    )
    fleet.tell("start gate2")
    fleet.tell("hold")
    assert fleet.tell("held") == ALL
    assert nobody_lost(fleet.tell("unload"), own=None)


def test_a_gate_drains(fleet: RunningFleet) -> None:
    """It serves those who are connected, and gets nobody new."""
    fleet.tell("drain gate2")
    fleet.tell("more 20")
    assert fleet.tell("held") == ALL
    assert nobody_lost(fleet.tell("unload"))


def test_a_gate_is_upgraded(fleet: RunningFleet) -> None:
    """A new process takes over; those who are connected to the old one stay connected."""
    before = fleet.pid("gate2")
    assert f"has taken over from {before}" in fleet.tell("upgrade gate2")
    assert fleet.pid("gate2") != before
    fleet.tell("more 20")
    assert fleet.tell("held") == ALL
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
    assert fleet.tell("held") == ALL
    assert nobody_lost(fleet.tell("unload"))


def test_haproxy_checks_are_no_rejections(shared: RunningFleet) -> None:
    """HAProxy asks for readiness with a certificate that the gates admit: it sends clients to
    them. The log, which has both servers, has nothing of it."""
    for gate in GATES:
        log = shared.log(gate)
        assert "ready: listening on" in log
        assert "ready: admitted" not in log
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


def is_out(report: str) -> bool:
    """:returns: whether a denial has ended a connection to each gate."""
    ended = re.findall(r"^(gate\d) has ended its connection [\d.]+ ms later$", report, re.MULTILINE)
    return {*ended} == {*GATES}


def test_a_device_is_denied(fleet: RunningFleet) -> None:
    """It is out of all gates at once, and stays out until it is allowed again."""
    assert is_out(fleet.tell("deny device-2"))
    assert fleet.ask("knock device-2") == ("failed", "device-2 does not come in: closed")
    fleet.until_logged("rejected .*: registry_denied: .*CN=device-2")
    fleet.tell("allow device-2")
    fleet.until_told("hold device-2", "device-2 is connected to gate1, gate2, gate3")
    assert fleet.tell("held") == ALL
    assert nobody_lost(fleet.tell("unload"))


def test_redis_restarts(fleet: RunningFleet) -> None:
    """Nobody notices, and the next denial is heard."""
    primary = fleet.primary()
    fleet.tell(f"kill {primary}")
    fleet.tell(f"start {primary}")
    assert fleet.tell("held") == ALL
    assert is_out(fleet.tell("deny device-2"))
    fleet.tell("allow device-2")
    assert nobody_lost(fleet.tell("unload"))


def test_another_redis_takes_the_writes(fleet: RunningFleet) -> None:
    """The Sentinels put it in the place of one that is gone.  Who is connected stays, who is
    known comes in, and a denial that waits for it is heard by all gates."""
    gone = fleet.primary()
    fleet.tell(f"kill {gone}")
    fleet.tell("more 20")
    assert fleet.tell("held") == ALL
    assert is_out(fleet.tell("deny device-2"))
    assert fleet.primary() != gone
    fleet.tell(f"start {gone}")
    fleet.tell("allow device-2")
    assert nobody_lost(fleet.tell("unload"))


@contextmanager
def cut_off(fleet: RunningFleet) -> Iterator[None]:
    """Redis and the Sentinels answer nothing, and close nothing, until the block ends: so it is
    for gates without a network to them."""
    # The Sentinels first: they are not to put one Redis in the place of another.
    for name in (*SENTINELS, *STORES):
        fleet.tell(f"pause {name}")
    try:
        yield
    finally:
        for name in (*STORES, *SENTINELS):
            fleet.tell(f"resume {name}")


def test_redis_is_cut_off(fleet: RunningFleet) -> None:
    """Who is connected stays, and who is known comes in, also while a gate is upgraded; others
    do not.  A denial that waits for Redis is heard as soon as there is one."""
    with ThreadPoolExecutor(1) as pool:
        with cut_off(fleet):
            fleet.tell("more 20")
            assert fleet.ask("knock device-3")[0] == "failed"
            fleet.until_logged("rejected .*: registry_unavailable: .*CN=device-3")
            assert fleet.tell("held") == ALL
            denying = pool.submit(fleet.tell, "deny device-2")
            fleet.tell("more 20")
        assert is_out(denying.result())
    fleet.tell("allow device-2")
    assert nobody_lost(fleet.tell("unload"))


def test_a_gate_starts_while_redis_is_cut_off(fleet: RunningFleet) -> None:
    """It knows nobody, so it gets nobody, until Redis is there again."""
    with ThreadPoolExecutor(1) as pool:
        with cut_off(fleet):
            fleet.tell("kill gate2")
            before = fleet.log("gate2").count("cannot be followed")
            starting = pool.submit(fleet.tell, "start gate2")
            fleet.until_logs("gate2", "cannot be followed", before + 1)
            fleet.tell("more 20")
            assert not starting.done()
        assert starting.result().startswith("gate2 runs")
    fleet.tell("more 20")
    assert nobody_lost(fleet.tell("unload"), own=None)


@pytest.fixture
def configured(fleet: RunningFleet) -> Iterator[Callable[[str, str], None]]:
    """Changes the gates' configuration until the test is over."""
    fleet.tell("unload")
    config = fleet.directory / "gate.hcl"
    before = config.read_text()

    def change(old: str, new: str) -> None:
        assert old in before
        config.write_text(before.replace(old, new))
        fleet.tell("reload")

    yield change
    config.write_text(before)
    fleet.tell("reload")


def test_redis_is_cut_off_for_too_long(
    fleet: RunningFleet, configured: Callable[[str, str], None]
) -> None:
    """What is known counts no longer: connections end, and nobody comes in until Redis is back."""
    configured('max_staleness = "5m"', 'max_staleness = "2s"')
    with cut_off(fleet):
        fleet.until_told("held", "device-2 is served by no gate")
        fleet.until_logged("streams: closed .*registry_unavailable")
        assert fleet.ask("knock device-2")[0] == "failed"
    fleet.until_told("hold device-2", "device-2 is connected to gate1, gate2, gate3")


def test_nobody_comes_in_while_redis_is_cut_off(
    fleet: RunningFleet, configured: Callable[[str, str], None]
) -> None:
    """If an outage rejects, then also those who are known; who is connected stays."""
    configured('"last_known"', '"reject"')
    fleet.until_told("knock device-2", "device-2 comes in")
    with cut_off(fleet):
        # Until the gates have noticed, what they remember counts.
        fleet.until_told("knock device-2", "device-2 does not come in")
        assert fleet.tell("held") == ALL
    fleet.until_told("knock device-2", "device-2 comes in")
