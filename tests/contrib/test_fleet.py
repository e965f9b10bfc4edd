"""
The fleet under contrib/fleet in containers: what can be told of it without an engine to run it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtlsgate.load.loading import load
from mtlsgate.testing import Authority
from tests.kits.contrib import CONTRIB, parses
from tests.kits.docs import ROOT
from tests.kits.fleet import FLEET, GATES, STORES
from tests.kits.programs import program, run

pytestmark = pytest.mark.skipif(not CONTRIB.is_dir(), reason="installed without contrib")

#: Of a service in a compose file, what is used here; the names are those of its specification.
KNOWN = {
    "cap_drop",
    "command",
    "configs",
    "depends_on",
    "environment",
    "image",
    "networks",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "user",
    "volumes",
    "working_dir",
}


def composed() -> dict[str, Any]:
    """:returns: the compose file."""
    loaded: dict[str, Any] = yaml.safe_load((FLEET / "compose.yaml").read_text())
    return loaded


def services() -> dict[str, dict[str, Any]]:
    """:returns: its services, with what they share merged in, as compose does it."""
    found: dict[str, dict[str, Any]] = composed()["services"]
    return found


def address(service: str) -> str:
    """:returns: its address in the network of the fleet."""
    found: str = services()[service]["networks"]["fleet"]["ipv4_address"]
    return found


def files(directory: Path) -> None:
    """Write what the services mount."""
    authority = Authority.create("Fleet")
    (directory / "ca.crt").write_bytes(authority.pem)
    for gate in GATES:
        own = authority.issue(gate, dns_names=["localhost"], usages=["server_auth"])
        (directory / f"{gate}.crt").write_bytes(own.pem)
        (directory / f"{gate}.key").write_bytes(own.key_pem)
        (directory / f"{gate}.key").chmod(0o600)
    own = authority.issue("haproxy")
    (directory / "haproxy.pem").write_bytes(own.pem + own.key_pem)
    (directory / "gate.hcl").write_text((FLEET / "gate.hcl").read_text())


def test_no_service_has_an_unknown_attribute() -> None:
    for name, service in services().items():
        assert set(service) <= KNOWN, name
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_each_has_an_address_of_its_own() -> None:
    """HAProxy's is trusted, so nobody else gets it."""
    (subnet,) = (one["subnet"] for one in composed()["networks"]["fleet"]["ipam"]["config"])
    addresses = [address(name) for name in services()]
    assert len(set(addresses)) == len(addresses)
    assert all(ip_address(one) in ip_network(subnet) for one in addresses)
    for gate in GATES:
        assert services()[gate]["environment"]["GATE_BALANCER"] == address("haproxy")


@pytest.mark.parametrize("gate", GATES)
def test_a_gates_configuration_loads(gate: str, tmp_path: Path) -> None:
    """The environment has all that gate.hcl asks for, and nothing else."""
    service = services()[gate]
    environment = service["environment"]
    text = (FLEET / "gate.hcl").read_text()
    assert set(re.findall(r"env\.(\w+)", text)) == set(environment)
    assert parses(service["command"])
    files(tmp_path)
    epoch = load(str(tmp_path / "gate.hcl"), environment)
    assert epoch.warnings == ()
    seconds = int(service["stop_grace_period"].removesuffix("s"))
    assert seconds > epoch.settings.drain_timeout
    # The image's health check asks there, in a file system that is kept in memory.
    containerfile = (CONTRIB / "container" / "Containerfile").read_text()
    assert f'"{environment["GATE_SOCKET"]}"' in containerfile
    (place,) = (one.partition(":")[0] for one in service["tmpfs"])
    assert environment["GATE_SOCKET"].startswith(f"{place}/")


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    """Its environment has what haproxy.cfg asks for, and the gates' own addresses."""
    environment = dict(services()["haproxy"]["environment"])
    text = (FLEET / "haproxy.cfg").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(environment)
    for gate in GATES:
        of_gate = services()[gate]["environment"]
        assert environment[gate.upper()] == of_gate["GATE_HOST"]
        assert of_gate["GATE_READY"].endswith(f":{environment[f'{gate.upper()}_READY']}")
    files(tmp_path)
    words = [f"{name}={value}" for name, value in environment.items()]
    status, output = run(
        "env", *words, program("haproxy"), "-c", "-f", FLEET / "haproxy.cfg", cwd=tmp_path
    )
    assert status == 0, output
    assert "WARNING" not in output


def test_prometheus_asks_every_gate() -> None:
    """By the port that answers, a path that there is, and a name that all certificates have."""
    loaded = yaml.safe_load((FLEET / "prometheus.yml").read_text())
    (job,) = loaded["scrape_configs"]
    (targets,) = (one["targets"] for one in job["static_configs"])
    assert targets == [services()[gate]["environment"]["GATE_READY"] for gate in GATES]
    assert '"/metrics"' in (FLEET / "gate.hcl").read_text()
    mounted = [one.split(":") for one in services()["prometheus"]["volumes"]]
    for source, _, mode in mounted:
        assert mode == "ro"
        if source.startswith("./contrib"):
            assert (ROOT / source).is_file()
    assert {place for _, place, _ in mounted} >= {*loaded["rule_files"]}


def test_the_sentinels_take_another_redis_also_after_a_pause() -> None:
    """One that was stopped does nothing for 30 s.  A replica that was without its master for longer
    than ten times the silence counts as unfit for ever (sentinelSelectSlave of Redis)."""
    manifest = ROOT / "contrib" / "kubernetes" / "redis" / "sentinel.yaml"
    texts = [composed()["configs"]["sentinel"]["content"], manifest.read_text()]
    found = [re.findall(r"down-after-milliseconds devices (\d+)", text) for text in texts]
    found.append(re.findall(r"^_SILENCE = (\d+)$", (FLEET / "layout.py").read_text(), re.MULTILINE))
    assert found[0] == found[1] == found[2]
    assert int(found[0][0]) * 10 > 30_000


def test_the_sentinels_watch_the_first_redis() -> None:
    lines = composed()["configs"]["sentinel"]["content"].splitlines()
    assert f"sentinel monitor devices {address('redis1')} 6379 2" in lines
    for name in STORES:
        command = services()[name]["command"]
        assert ("--replicaof" in command) == (name != STORES[0])
        assert name == STORES[0] or command.endswith(f"--replicaof {address('redis1')} 6379")
        # The same as without containers.
        layout = (FLEET / "layout.py").read_text()
        for option in (
            "min-replicas-to-write 1",
            "min-replicas-max-lag 3",
            "repl-diskless-sync-delay 0",
            "appendonly yes",
        ):
            assert f"--{option}" in command
            assert f'"{option}"' in layout
