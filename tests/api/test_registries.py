"""Registries of a gate in Python."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.protocol import Factory

from mtlsgate import ConfigError, Deny, Gate, Registry, Rule
from mtlsgate.admission.key_kinds import KeyKind
from mtlsgate.certificates.certificate import view
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.testing import Authority
from tests.kits.application import VERSIONS, Certificates, Client, Greeters, Loop, admitted
from tests.kits.redis import server

CA = Authority.create("ca")
OWN = CA.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
DEVICES = Registry(
    "redis://user:secret@127.0.0.1", key="sha256", max_staleness=timedelta(minutes=1)
)
STOLEN = Registry("postgresql://127.0.0.1/fleet", "stolen")


def gate(*rules: Rule, **options: Any) -> Gate:
    return Gate(certificate=(OWN.certificate, OWN.private_key), rules=rules, **options)


def registries(made: Gate) -> tuple[LoadedRegistry, ...]:
    """:returns: those of the gate's epoch."""
    return made.before(Factory()).epoch(("unix:x.sock",)).registries


def test_a_rule_and_a_deny_block_take_a_registry() -> None:
    """With the checks and defaults of its block."""
    rule = Rule("fleet", ca=CA.certificate, registry=DEVICES, deny=[Deny(registry=STOLEN)])
    made = gate(rule, max_connections_per_identity=2, count_in=DEVICES)
    stolen, devices = sorted(registries(made), key=lambda one: one.name, reverse=True)
    assert (devices.name, devices.key, devices.max_staleness) == ("registry", KeyKind.SHA256, 60)
    assert devices.options.prefix == "mtlsgate:registry"
    assert (stolen.name, stolen.options.prefix) == ("stolen", "mtlsgate_stolen")
    assert "secret" not in f"{DEVICES!r} {rule!r} {devices!r}"


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ("redis://127.0.0.1", "registry: must be a Registry, not str"),
        (Registry("http://127.0.0.1"), "url: the URL of a registry begins with"),
        (Registry("redis://127.0.0.1", max_staleness="5"), "max_staleness: not a duration"),
    ],
)
def test_a_mistake_is_told(registry: Any, said: str) -> None:
    """In the words of Python."""
    with pytest.raises(ConfigError, match=said):
        gate(Rule("fleet", ca=CA.certificate, registry=registry))


def test_two_registries_need_two_names() -> None:
    """Or one would be asked for the other."""
    rules = [
        Rule("a", ca=CA.certificate, registry=Registry("redis://one")),
        Rule("b", ca=CA.certificate, registry=Registry("redis://two")),
    ]
    with pytest.raises(ConfigError, match="two different registries are called 'registry'"):
        gate(*rules)


def test_a_registry_is_asked_on_any_reactor(here: Certificates, running: Loop) -> None:
    """Here on select, which knows nothing of asyncio; and a denial ends what is open."""
    alice = view(here.people["alice"].certificate).identity.hex()
    application = Greeters()
    with server() as redis:
        redis.do("HSET", f"mtlsgate:registry:d:{alice}", "state", "active")
        rule = Rule("fleet", ca="fleet-ca.crt", registry=Registry(f"redis+unix://{redis.socket}"))
        made = Gate(certificate=("server.crt", "server.key"), rules=[rule])
        port = running.listen(made.endpoint(running.reactor, "127.0.0.1:0"), application)
        client = Client(here.directory, port.getHost())
        for version in VERSIONS:
            assert admitted(running, client, version) == {"alice"}
        with running.call(lambda: client.connect("alice")) as connection:
            running.until(lambda: len(application.protocols) == 3)
            redis.do("HSET", f"mtlsgate:registry:d:{alice}", "state", "denied")
            running.until(lambda: len(application.lost) == 3)
            assert running.call(lambda: client.ask("alice")) == ""
            connection.close()
