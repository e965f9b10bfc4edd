"""
Clients of a fleet: some connect again and again, others stay connected.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

#: Seconds between two connections of one client, and between two requests of one that stays.
_BETWEEN, _BEAT = 0.05, 0.2
#: After so many seconds an answer has failed to come.
_PATIENCE = 20.0
#: The servers of gate.hcl: one answers and closes, the other one stays.
_HTTP, _ECHO = "localhost", "echo.localhost"
_REQUEST, _KNOCK = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"knock"


@frozen
class Failure:
    """
    A connection that did not get what it asked for.

    :ivar gate: the gate that it came to, or None if it came to none.
    :ivar began: when it began, in seconds of the monotonic clock.
    :ivar ended: when it failed.
    :ivar problem: what went wrong.
    """

    gate: str | None
    began: float
    ended: float
    problem: str

    def __str__(self) -> str:
        return f"{self.gate or 'before any gate answered'}: {self.problem}"


@define(eq=False)
class Connection:
    """
    A connection of a client that was verified, in both directions.

    :ivar gate: the gate that it leads to.
    """

    gate: str
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def ask(self, name: str) -> None:
        """
        Ask who one is, by HTTP.

        :raises ValueError: if the answer is not that name.
        :raises OSError: if there is none.
        """
        self._writer.write(_REQUEST)
        head, _, body = (await self._reader.read(-1)).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("closed")
        if (said := json.loads(body)["common_name"]) != name:
            raise ValueError(f"the gate takes {name} for {said}")

    async def knock(self) -> None:
        """
        Say something, and hear the echo.

        :raises OSError: if there is none.
        """
        self._writer.write(_KNOCK)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._reader.readexactly(len(_KNOCK))
        except EOFError:
            raise ConnectionError("closed") from None
        except TimeoutError:
            raise TimeoutError(f"no answer in {_PATIENCE:g} s") from None

    async def is_closed_within(self, seconds: float) -> bool:
        """:returns: whether the gate ends it in that time, in which nothing is asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with suppress(ConnectionError):
                    await self._reader.read(1)
                return True
        return False

    async def close(self) -> None:
        """End it."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@frozen
class Client:
    """
    A device.

    :ivar name: its common name.
    :ivar port: where HAProxy listens, on this machine.
    """

    name: str
    port: int
    _context: ssl.SSLContext = field(repr=False)

    @classmethod
    def read(cls, directory: Path, name: str, port: int) -> Client:
        """
        :param directory: has the CA and the device's certificate and key.
        :raises OSError: if one of them cannot be read.
        """
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        context.load_cert_chain(directory / f"{name}.crt", directory / f"{name}.key")
        return cls(name, port, context)

    async def connect(self, server: str) -> Connection:
        """
        :param server: its name.
        :returns: a new connection, after its handshake; in TLS 1.3 the gate may still reject it.
        :raises OSError: if there is none.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=self._context, server_hostname=server
                )
        except TimeoutError:
            raise TimeoutError(f"no handshake in {_PATIENCE:g} s") from None
        shown = writer.get_extra_info("peercert")
        [gate] = (value for part in shown["subject"] for key, value in part if key == "commonName")
        return Connection(gate, reader, writer)

    async def connect_to_stay(self) -> Connection:
        """
        :returns: a new connection that the gate has let in, and that it leaves open.
        :raises OSError: if there is none.
        """
        connection = await self.connect(_ECHO)
        try:
            await connection.knock()
        except OSError:
            await connection.close()
            raise
        return connection


@define(eq=False)
class Load:
    """
    Clients that connect, ask, and leave, until it is stopped.

    :ivar served: how many connections got what they asked for.
    :ivar failures: those that did not.
    """

    clients: list[Client]
    served: int = 0
    failures: list[Failure] = field(factory=list)
    _running: list[asyncio.Task[None]] = field(factory=list)

    def start(self) -> None:
        """Begin."""
        self._running = [asyncio.create_task(self._run(client)) for client in self.clients]

    async def stop(self) -> None:
        """End when every client has had its answer."""
        running, self._running = self._running, []
        await asyncio.gather(*running)

    async def serve(self, more: int) -> None:
        """Wait until so many more connections were served, or failed."""
        until = self.served + len(self.failures) + more
        while self._running and self.served + len(self.failures) < until:
            await asyncio.sleep(_BETWEEN)

    async def _run(self, client: Client) -> None:
        while self._running:
            await self._once(client)
            await asyncio.sleep(_BETWEEN)

    async def _once(self, client: Client) -> None:
        connection, began = None, time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE):
                connection = await client.connect(_HTTP)
                await connection.ask(client.name)
        except (OSError, ValueError) as error:
            gate = None if connection is None else connection.gate
            problem = str(error) or type(error).__name__
            self.failures.append(Failure(gate, began, time.monotonic(), problem))
        else:
            self.served += 1
        finally:
            if connection is not None:
                await connection.close()


@define(eq=False)
class Held:
    """
    Connections of one client that stay, each with a word now and then.

    :ivar client: whose they are.
    :ivar open: those that are served, and how often they were.
    :ivar ended: the gates of those that ended since, and when, in seconds of the monotonic
        clock.
    """

    client: Client
    open: dict[Connection, int] = field(factory=dict)
    ended: list[tuple[str, float]] = field(factory=list)
    _watching: set[asyncio.Task[None]] = field(factory=set)

    async def connect_to(self, gates: set[str]) -> None:
        """
        Connect until there is a connection to each of these gates.

        :raises OSError: if the client is not served, or by other gates only.
        """
        self.ended.clear()
        for _ in range(20 * len(gates)):
            if not gates - {one.gate for one in self.open}:
                return
            connection = await self.client.connect_to_stay()
            self.open[connection] = 1
            self._watching.add(asyncio.create_task(self._watch(connection)))
        missing = ", ".join(sorted(gates - {one.gate for one in self.open}))
        raise ConnectionError(f"{self.client.name} is not led to {missing}")

    async def ask_all(self) -> None:
        """Wait until each was served once more, or has ended."""
        before = dict(self.open)
        while any(self.open.get(one) == times for one, times in before.items()):
            await asyncio.sleep(_BETWEEN)

    async def end(self) -> None:
        """
        Wait until the gates have ended all of them.

        :raises TimeoutError: if they do not in time.
        """
        _, going = await asyncio.wait(self._watching, timeout=_PATIENCE)
        if going:
            raise TimeoutError(f"the gates leave {self.client.name} connected")

    async def close(self) -> None:
        """End all of them."""
        for one in self._watching:
            one.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def _watch(self, connection: Connection) -> None:
        try:
            while not await connection.is_closed_within(_BEAT):
                await connection.knock()
                self.open[connection] += 1
        except (OSError, ValueError):
            pass
        finally:
            del self.open[connection]
            self.ended.append((connection.gate, time.monotonic()))
            await connection.close()
