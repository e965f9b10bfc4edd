"""
The store behind its own gate, in memory: no socket, no sleep, no reactor.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_keyvalue import plugin
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mtlsgate.errors import ConfigError
from mtlsgate.interfaces import IProtocolPlugin
from mtlsgate.testing import Authority, Client, Credential, gate

GATE = Path(__file__).parent.parent / "gate.hcl"

Connect = Callable[[Credential], Client]


@pytest.fixture
def machines() -> Authority:
    """The CA of those who write."""
    return Authority.create("Machines CA")


@pytest.fixture
def screens() -> Authority:
    """The CA of those who read."""
    return Authority.create("Screens CA")


@pytest.fixture
def config(machines: Authority, screens: Authority, tmp_path: Path) -> Path:
    """The configuration, with fresh certificates beside it."""
    server = machines.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    (tmp_path / "server.crt").write_bytes(server.pem)
    (tmp_path / "server.key").write_bytes(server.key_pem)
    (tmp_path / "machines-ca.crt").write_bytes(machines.pem)
    (tmp_path / "screens-ca.crt").write_bytes(screens.pem)
    return Path(shutil.copy(GATE, tmp_path))


@pytest.fixture
def clock() -> Clock:
    """The time, which passes when a test says so."""
    return Clock()


@pytest.fixture
def connect(config: Path, clock: Clock) -> Connect:
    """Connects clients to one and the same gate."""
    factory = gate(config, clock)

    def connect(credential: Credential) -> Client:
        client = Client(factory, credential, clock=clock)
        client.handshake()
        return client

    return connect


def ask(client: Client, *lines: str) -> list[str]:
    """:returns: the lines that answer these."""
    client.receive()
    client.send("".join(f"{line}\n" for line in lines).encode())
    return client.receive().decode().splitlines()


def test_it_is_a_plugin() -> None:
    """All that the interface asks for is there."""
    assert verifyObject(IProtocolPlugin, plugin)


def test_a_client_is_greeted_by_its_rule(connect: Connect, machines: Authority) -> None:
    assert connect(machines.issue("press")).receive() == b"HELLO machines\n"


def test_what_one_writes_another_reads(
    connect: Connect, machines: Authority, screens: Authority
) -> None:
    press, screen = connect(machines.issue("press")), connect(screens.issue("hall"))
    assert ask(press, "SET machine/press warm and ready", "GET machine/press") == [
        "OK",
        "VALUE warm and ready",
    ]
    assert ask(screen, "GET machine/press", "KEYS machine/") == [
        "VALUE warm and ready",
        "KEY machine/press",
        "OK",
    ]
    assert ask(press, "DEL machine/press", "DEL machine/press") == ["OK", "NONE"]
    assert ask(screen, "GET machine/press") == ["NONE"]


def test_a_rule_may_do_what_it_says_and_no_more(
    connect: Connect, machines: Authority, screens: Authority
) -> None:
    press, screen = connect(machines.issue("press")), connect(screens.issue("hall"))
    assert ask(press, "SET news/today x", "GET news/today", "DEL news/today") == ["DENIED"] * 3
    assert ask(press, "SET machine/press x") == ["OK"]
    assert ask(screen, "SET machine/press y", "DEL machine/press") == ["DENIED"] * 2
    assert ask(screen, "GET machine/press") == ["VALUE x"]


def test_a_client_keeps_no_more_than_its_share(connect: Connect, machines: Authority) -> None:
    """It is counted by certificate, so that a second connection does not help."""
    credential = machines.issue("press")
    press = connect(credential)
    assert ask(press, *(f"SET machine/{n} x" for n in range(4))) == [
        *["OK"] * 3,
        "ERROR you keep too many keys",
    ]
    assert ask(connect(credential), "SET machine/9 x") == ["ERROR you keep too many keys"]
    assert ask(connect(machines.issue("mill")), "SET machine/9 x") == ["OK"]
    assert ask(press, "SET machine/0 again", "DEL machine/0", "SET machine/8 x") == ["OK"] * 3


def test_values_have_a_limit(connect: Connect, machines: Authority) -> None:
    press = connect(machines.issue("press"))
    assert ask(press, f"SET machine/a {'x' * 64}", f"SET machine/a {'x' * 65}") == [
        "OK",
        "ERROR the value is too long",
    ]


def test_who_is_silent_has_to_go(connect: Connect, machines: Authority, clock: Clock) -> None:
    press = connect(machines.issue("press"))
    clock.advance(50)
    assert ask(press, "KEYS") == ["OK"]
    clock.advance(50)
    press.pump()
    assert press.established
    clock.advance(11)
    press.pump()
    assert press.close_notified


def test_who_does_not_read_is_not_read_from(
    connect: Connect, machines: Authority, screens: Authority, clock: Clock
) -> None:
    """Its answers do not pile up: further commands wait until it reads."""
    press, mill = connect(machines.issue("press")), connect(machines.issue("mill"))
    screen = connect(screens.issue("hall"))
    for one in (press, mill):
        assert ask(one, f"SET machine/a {'x' * 60}") == ["OK"]
        one.pause_reading()
        one.send(b"GET machine/a\n" * 3000 + b"SET machine/b read\n")
    assert ask(screen, "GET machine/b") == ["NONE"]
    press.resume_reading()
    answers = press.receive().decode().splitlines()
    assert answers == [f"VALUE {'x' * 60}"] * 3000 + ["OK"]
    assert ask(screen, "GET machine/b") == ["VALUE read"]
    clock.advance(61)
    mill.pump()
    assert mill.aborted


def test_what_is_no_command_is_said_to_be_none(connect: Connect, machines: Authority) -> None:
    press = connect(machines.issue("press"))
    told = "ERROR commands are GET, SET, DEL, KEYS and QUIT"
    assert ask(press, "", "get x", "GET", "SET") == [told] * 4
    press.send(b"GET \xff\n")
    assert press.receive() == b"ERROR not UTF-8\n"
    assert ask(press, "QUIT") == ["BYE"]
    assert press.close_notified


def test_strangers_do_not_get_here(connect: Connect) -> None:
    stranger = connect(Authority.create("Machines CA").issue("press"))
    assert not stranger.established
    assert stranger.receive() == b""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('rule = "screens"', 'rule = "machines"', 'two access blocks for rule "machines"'),
        ("= 3", "= 0", "max_keys must be 1 or more"),
        ('"64B"', '"64"', 'max_value_size: not a size; write it as "512B", "64KiB"'),
        ("max_keys ", "max_kyes ", 'unknown attribute "max_kyes"; did you mean "max_keys"?'),
    ],
)
def test_a_mistake_is_found_where_it_is(
    config: Path, clock: Clock, old: str, new: str, expected: str
) -> None:
    """By the gate, from what the configuration class says."""
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=r"gate\.hcl:\d+:\d+: .*" + expected.replace("?", r"\?")):
        gate(config, clock)
