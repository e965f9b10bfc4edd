"""
Which programs a fleet consists of, and how each is started.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ports import Ports
from programs import Command, FleetError, Program
from questions import ask_gate, is_redis_ready, tell_haproxy

GATES = ("gate1", "gate2", "gate3")
DEVICES = ("device-1", "device-2", "device-3")
#: Three, of which one takes the writes, and three that decide which.
STORES = ("redis1", "redis2", "redis3")
SENTINELS = ("sentinel1", "sentinel2", "sentinel3")
#: What the Sentinels call them.
SERVICE = "devices"
#: After so many milliseconds of silence a Redis is down, and another one takes its place.  A
#: Sentinel that was stopped does nothing for 30 s (its TILT mode).  If that is more than ten times
#: this, it then takes no other Redis any more: each has been without the first for too long.
_SILENCE = 4000
#: After twice so many milliseconds the Sentinels try again what has failed, for want of votes say.
_TRY_AGAIN = 5_000


def programs_of(directory: Path, ports: Ports) -> dict[str, Program]:
    """
    :returns: all programs by their names, in the order in which they start.
    :raises FleetError: if one of them is not installed.
    :raises OSError: if the directory cannot be written to.
    """
    commands = {
        **{name: _redis(name, directory, ports) for name in STORES},
        **{name: _sentinel(name, directory, ports) for name in SENTINELS},
        "haproxy": _haproxy(directory, ports),
        **{name: _gate(name, directory, ports) for name in GATES},
    }
    return {
        name: Program(name, directory, ports.address(name), command)
        for name, command in commands.items()
    }


def environment_of(gate: str, ports: Ports) -> dict[str, str]:
    """:returns: what gate.hcl asks for."""
    return {
        "GATE": gate,
        "GATE_SOCKET": f"{gate}.sock",
        "GATE_HOST": ports.address(gate),
        "GATE_READY": ports.address(f"{gate}-ready"),
        "GATE_BALANCER": "127.0.0.1",
        "GATE_REGISTRY": url_of_registry(ports),
    }


def url_of_registry(ports: Ports) -> str:
    """:returns: where the store is, as the Sentinels know it."""
    sentinels = ",".join(ports.address(name) for name in SENTINELS)
    return f"redis+sentinel://{sentinels}/{SERVICE}"


def _gate(name: str, directory: Path, ports: Ports) -> Command:
    async def is_ready(pid: int) -> bool:
        status = await ask_gate(directory / f"{name}.sock", "GET", "/status")
        return bool(status["pid"] == pid and status["ready"])

    environment = environment_of(name, ports)
    # For people, who may ask or change the registry with the same configuration.
    lines = [f"{key}={value}\n" for key, value in environment.items()]
    (directory / f"{name}.env").write_text("".join(lines))
    command = str(Path(sys.executable).parent / "mtlsgate")
    return Command([command, "run", "--config", "gate.hcl"], is_ready, environment)


def _haproxy(directory: Path, ports: Ports) -> Command:
    where = directory / "haproxy.sock"

    async def is_ready(pid: int) -> bool:
        return f"Pid: {pid}\n" in await tell_haproxy(where, "show info")

    environment = {"BALANCER_BIND": ports.address("haproxy"), "BALANCER_SOCKET": str(where)}
    for gate in GATES:
        environment[gate.upper()] = ports.address(gate)
        environment[f"{gate.upper()}_READY"] = str(ports[f"{gate}-ready"])
    return Command([_found("haproxy"), "-db", "-f", "haproxy.cfg"], is_ready, environment)


def _redis(name: str, directory: Path, ports: Ports) -> Command:
    first = STORES[0]
    lines = [
        "bind 127.0.0.1",
        f"port {ports[name]}",
        f"dir {name}",
        "appendonly yes",
        # A replica that comes back has what it needs at once: until one has, no writes are taken.
        "repl-diskless-sync-delay 0",
        # One that was cut off, and does not know that another one has taken its place, takes
        # no writes: they would be lost.
        "min-replicas-to-write 1",
        "min-replicas-max-lag 3",
    ]
    if name != first:
        lines.append(f"replicaof 127.0.0.1 {ports[first]}")
    # Redis and Sentinel write into it who follows whom.
    return _of_redis(name, directory, ports, lines)


def _sentinel(name: str, directory: Path, ports: Ports) -> Command:
    lines = [
        "bind 127.0.0.1",
        f"port {ports[name]}",
        f"dir {name}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {ports[STORES[0]]} {len(SENTINELS) // 2 + 1}",
        f"sentinel down-after-milliseconds {SERVICE} {_SILENCE}",
        f"sentinel failover-timeout {SERVICE} {_TRY_AGAIN}",
    ]
    return _of_redis(name, directory, ports, lines, "--sentinel")


def _of_redis(name: str, directory: Path, ports: Ports, lines: list[str], *options: str) -> Command:
    async def is_ready(_pid: int) -> bool:
        return await is_redis_ready(ports[name])

    # Of another run, with other ports.
    shutil.rmtree(directory / name, ignore_errors=True)
    (directory / name).mkdir()
    config = directory / f"{name}.conf"
    config.write_text("".join(f"{line}\n" for line in lines))
    return Command([_found("redis-server"), config.name, *options], is_ready)


def _found(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise FleetError(f"{name} is not installed")
    return found
