"""
A fleet on this machine, and what can be done to it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import define, field
from clients import Client, Failure, Held, Load
from layout import DEVICES, GATES, SENTINELS, SERVICE, STORES, programs_of, url_of_registry
from ports import Ports
from programs import FleetError, Program
from questions import ask_gate, is_balanced, is_replica, is_watched, primary_of, tell_haproxy
from registry import Registry

from mtlsgate.admission.devices import DeviceState

#: What a gate logs when it leaves new connections to others.
_ACCEPTS_NO_MORE = "accepting no more"
_PAUSE = 0.05
_PATIENCE = 30.0


@define(eq=False)
class Fleet:
    """
    :ivar directory: where all is.
    :ivar ports: of all programs.
    :ivar programs: by their names, in the order in which they start.
    """

    directory: Path
    ports: Ports
    programs: Mapping[str, Program]
    _registry: Registry
    _load: Load | None = None
    _held: dict[str, Held] = field(factory=dict)
    #: What was killed, from when to when, in seconds of the monotonic clock.
    _killed: list[tuple[str, float, float]] = field(factory=list)

    @classmethod
    def of(cls, directory: Path, ports: Ports) -> Fleet:
        """:raises FleetError: if a program is not installed."""
        registry = Registry(directory, url_of_registry(ports))
        return cls(directory, ports, programs_of(directory, ports), registry)

    async def up(self) -> None:
        """
        Start all programs, with every device but the last one in the registry.

        :raises FleetError: if one does not get ready.
        """
        await self._start_all(STORES)
        # Sentinels that do not hear of the second one at once ask again after ten seconds.
        for name in STORES[1:]:
            await until(partial(is_replica, self.ports[name]), f"{name} does not follow")
        await self._start_all(SENTINELS)
        for device in DEVICES[:-1]:
            await self._registry.put(device, DeviceState.ACTIVE)
        await self._start_all(("haproxy", *GATES))
        for name in GATES:
            await self._until_balanced(name)
        for name in SENTINELS:
            await until(
                partial(is_watched, self.ports[name], SERVICE, len(STORES) - 1, len(SENTINELS)),
                f"{name} does not know the others",
            )

    async def down(self) -> None:
        """End all that was started."""
        if self._load is not None:
            await self._load.stop()
        for held in self._held.values():
            await held.close()
        for program in self.programs.values():
            await program.end_all()

    # Programs

    async def start(self, *names: str) -> str:
        """start [NAME]: start a program, or all that do not run"""
        absent = [name for name, program in self.programs.items() if program.pid is None]
        for name in names or absent:
            if name in GATES and name in absent:
                # Or it would get clients before it is ready, as if it had never been away.
                await self._until_left_alone(name)
            await self._program(name).start()
            if name in GATES:
                await self._weigh(name, "ready")
                await self._until_balanced(name)
        return "\n".join(
            f"{name} runs: process {self.programs[name].pid}" for name in names or absent
        )

    async def kill(self, name: str) -> str:
        """kill NAME: end a program at once, by SIGKILL"""
        began = time.monotonic()
        await self._program(name).end(signal.SIGKILL)
        self._killed.append((name, began, time.monotonic()))
        return f"{name} is killed"

    async def pause(self, name: str) -> str:
        """pause NAME: cut a program off: it answers nothing, and closes nothing"""
        self._program(name).pause()
        return f"{name} is paused"

    async def resume(self, name: str) -> str:
        """resume NAME: let a paused program go on"""
        self._program(name).resume()
        return f"{name} goes on"

    async def drain(self, name: str) -> str:
        """drain GATE: take it out of HAProxy; it ends with its connections"""
        gate = self._gate(name)
        await self._weigh(name, "drain")
        gate.begin_to_end()
        return f"{name} gets nobody new, and ends with its connections"

    async def upgrade(self, name: str) -> str:
        """upgrade GATE: a new process takes over; the old one ends with its connections"""
        gate = self._gate(name)
        before = gate.pid
        # Until it is over nobody new waits at a socket that the old process may close.
        await self._weigh(name, "drain")
        try:
            await gate.replace(_ACCEPTS_NO_MORE)
        finally:
            await self._weigh(name, "ready")
        await self._until_balanced(name)
        return f"{name}: process {gate.pid} has taken over from {before}"

    async def reload(self) -> str:
        """reload: have the gates read gate.hcl again, one after the other"""
        done = []
        for name in GATES:
            if self.programs[name].pid is None:
                continue
            answer = await ask_gate(self._admin(name), "POST", "/reload")
            if not answer["succeeded"]:
                raise FleetError("\n".join([f"{name} refuses it:", *answer["problems"]]))
            done.append(f"{name}: epoch {answer['epoch']} is in force")
        return "\n".join(done)

    async def status(self) -> str:
        """status: what runs, and where"""
        lines = []
        for name, program in self.programs.items():
            process = "does not run" if program.pid is None else f"process {program.pid}"
            lines.append(f"{name:<10} {program.address:<16} {process}")
        return "\n".join([*lines, f"{await self._primary() or 'no Redis'} takes the writes"])

    # Clients

    async def load(self, clients: str = "4") -> str:
        """load [NUMBER]: clients that connect, ask and leave, again and again"""
        if self._load is not None:
            raise FleetError("there is a load already; unload ends it")
        self._load = Load([self._client(DEVICES[0])] * _number(clients))
        self._load.start()
        return f"{clients} clients come and go"

    async def more(self, connections: str = "50") -> str:
        """more [NUMBER]: wait for so many more connections of the load"""
        load = self._loaded()
        await load.serve(_number(connections))
        return self._report(load)

    async def unload(self) -> str:
        """unload: end the load"""
        load, self._load = self._loaded(), None
        await load.stop()
        return self._report(load)

    async def knock(self, device: str = DEVICES[0]) -> str:
        """knock [DEVICE]: one connection that leaves at once"""
        try:
            connection = await self._client(device).connect_to_stay()
        except OSError as error:
            raise FleetError(f"{device} does not come in: {error}") from None
        await connection.close()
        return f"{device} comes in at {connection.gate}"

    async def hold(self, device: str = DEVICES[1]) -> str:
        """hold [DEVICE]: connections that stay, to each gate that runs"""
        held = self._held.get(device) or Held(self._client(device))
        gates = {name for name in GATES if self.programs[name].pid is not None}
        try:
            await held.connect_to(gates)
        except OSError as error:
            raise FleetError(f"{device} does not come in: {error}") from None
        self._held[device] = held
        return f"{device} is connected to {', '.join(sorted(gates))}"

    async def release(self) -> str:
        """release: end the connections that stay"""
        held, self._held = self._held, {}
        for one in held.values():
            await one.close()
        return f"{', '.join(held) or 'nobody'} has left"

    async def held(self) -> str:
        """held: which of the connections that stay are still served, and which have ended"""
        lines = []
        for device, held in self._held.items():
            await held.ask_all()
            served = ", ".join(sorted({one.gate for one in held.open})) or "no gate"
            lines.append(f"{device} is served by {served}")
            ended = dict.fromkeys(gate for gate, _ in held.ended)
            lines += [f"{device}: {gate} has ended its connection" for gate in ended]
        return "\n".join(lines) or "nothing is held"

    # Devices

    async def allow(self, device: str) -> str:
        """allow DEVICE: write into the registry that it may come in"""
        await self._registry.put(self._device(device), DeviceState.ACTIVE)
        return f"{device} is allowed"

    async def deny(self, device: str) -> str:
        """deny DEVICE: write into the registry that it may not; waits for its connections"""
        held = self._held.get(device)
        before = 0 if held is None else len(held.ended)
        denied = await self._registry.put(self._device(device), DeviceState.DENIED)
        lines = [f"{device} is denied"]
        if held is not None:
            await held.end()
            # Of a gate that has several, the last one.
            ended = dict(held.ended[before:])
            lines += [
                f"{gate} has ended its connection {max(at - denied, 0) * 1000:.1f} ms later"
                for gate, at in ended.items()
            ]
        return "\n".join(lines)

    def _device(self, name: str) -> str:
        if name not in DEVICES:
            raise FleetError(f"there is no {name}; there are {', '.join(DEVICES)}")
        return name

    def _client(self, device: str) -> Client:
        device = self._device(device)
        return Client.read(self.directory, device, self.ports["haproxy"])

    def _loaded(self) -> Load:
        if self._load is None:
            raise FleetError("there is no load; load starts one")
        return self._load

    def _report(self, load: Load) -> str:
        lost = {one: self._killer(one) for one in load.failures}
        failed = [str(one) for one, gate in lost.items() if gate is None]
        own = sum(gate is not None for gate in lost.values())
        counts = f"{load.served} served, {own} lost with a gate that was killed"
        return "\n".join([f"{counts}, {len(failed)} failed", *failed])

    def _killer(self, failure: Failure) -> str | None:
        """:returns: the gate that was killed while it had that connection, or None."""
        for name, began, ended in self._killed:
            is_its_own = failure.gate in (None, name)
            if is_its_own and failure.began <= ended and failure.ended >= began:
                return name
        return None

    # What all of that needs

    def _program(self, name: str) -> Program:
        if name not in self.programs:
            raise FleetError(f"there is no {name}; there are {', '.join(self.programs)}")
        return self.programs[name]

    def _gate(self, name: str) -> Program:
        if name not in GATES:
            raise FleetError(f"{name} is no gate; there are {', '.join(GATES)}")
        return self.programs[name]

    async def _primary(self) -> str | None:
        """:returns: the Redis that takes writes, as most Sentinels say; None if they do not."""
        running = [name for name in SENTINELS if self.programs[name].pid is not None]
        said = [await primary_of(self.ports[name], SERVICE) for name in running]
        for name in STORES:
            if said.count(self.ports[name]) * 2 > len(SENTINELS):
                return name
        return None

    @property
    def _haproxy(self) -> Path:
        return self.directory / "haproxy.sock"

    def _admin(self, gate: str) -> Path:
        return self.directory / f"{gate}.sock"

    async def _weigh(self, gate: str, state: str) -> None:
        """Tell HAProxy whether new connections may go to a gate."""
        command = f"set server gates/{gate} state {state}"
        if said := await tell_haproxy(self._haproxy, command):
            raise FleetError(f"HAProxy: {said}")

    async def _until_balanced(self, gate: str) -> None:
        """Wait until HAProxy sends new connections to a gate."""
        await until(partial(is_balanced, self._haproxy, gate), f"HAProxy does not use {gate}")

    async def _until_left_alone(self, gate: str) -> None:
        """Wait until HAProxy has noticed that a gate is gone."""

        async def is_left_alone() -> bool:
            return not await is_balanced(self._haproxy, gate)

        await until(is_left_alone, f"HAProxy still uses {gate}")

    async def _start_all(self, names: Sequence[str]) -> None:
        await asyncio.gather(*(self.programs[name].start() for name in names))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise FleetError(f"{text} is no number")
    return int(text)


async def until(asked: Callable[[], Awaitable[bool]], what: str) -> None:
    """
    Ask again and again until the answer is yes.

    :raises FleetError: if it never is.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            while not await asked():
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise FleetError(f"waited {_PATIENCE:g} s in vain: {what}") from None
