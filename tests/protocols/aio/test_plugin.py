"""
``protocol "asyncio"``: what a block may name, and the lives of what it names.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from mtlsgate import VerifiedPeer
from mtlsgate.config import Located
from mtlsgate.errors import START, GateError
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.protocols.aio.context import FactoryServer
from mtlsgate.protocols.aio.factory import AsyncioServer, handled_by
from mtlsgate.protocols.aio.plugin import AsyncioConfiguration, AsyncioPlugin
from mtlsgate.testing import Version
from tests.kits.aio import Loop, Recorder
from tests.kits.pki import Site

MODULE = """
import asyncio
from contextlib import asynccontextmanager

number = 5

async def handle(peer, reader, writer):
    pass

class Handler:
    async def __call__(self, peer, reader, writer):
        pass

handler = Handler()

def plain(peer, reader, writer):
    pass

class Echo(asyncio.Protocol):
    pass

async def later():
    return Echo

@asynccontextmanager
async def while_open():
    yield Echo
"""


def block(lines: str) -> str:
    return f"""\
server {{
  hosts = ["127.0.0.1:0"]
  protocol "asyncio" {{
    {lines}
  }}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    client_certificate {{
      ca_certificate_file = "issuing.crt"
    }}
  }}
}}
"""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "3:3: {}: set exactly one of factory and handler"),
        (
            'factory = "made:Echo"\nhandler = "made:handle"',
            "5:1: {}: set exactly one of factory and handler",
        ),
        ('handler = "made:plain"', "4:15: {}: handler: made:plain is not a coroutine function"),
        ('handler = "made:number"', "4:15: {}: handler: made:number is not a coroutine function"),
        ('factory = "made:number"', "4:15: {}: factory: made:number is a int, not what makes"),
        ('factory = "made:nothing"', "4:15: {}: factory: made has no attribute nothing"),
        ('handler = "nowhere:x"', "4:15: {}: handler: no module named nowhere"),
        ('handler = "made:handle"\nalpn = [""]', "alpn"),
    ],
)
def test_what_cannot_be_meant_is_an_error_at_its_place(
    here: Site, lines: str, problem: str
) -> None:
    here.write("made.py", MODULE)
    [found] = here.problems(block(lines))
    assert problem.format('protocol "asyncio"') in found


@pytest.mark.parametrize(
    ("name", "attribute", "kind"),
    [
        ("handle", "handler", AsyncioServer),
        ("handler", "handler", AsyncioServer),
        ("Echo", "factory", AsyncioServer),
        ("later", "factory", FactoryServer),
        ("while_open", "factory", FactoryServer),
    ],
)
def test_what_can_be_named(here: Site, name: str, attribute: str, kind: type) -> None:
    """Functions, classes and objects, coroutine functions and context managers."""
    here.write("made.py", MODULE)
    named = Located(f"made:{name}", START)
    factory, handler = (named if attribute == one else None for one in ("factory", "handler"))
    configuration = AsyncioConfiguration(factory, handler, ("h2",))
    environment = ProtocolEnvironment("door", here.directory, MemoryReactorClock)
    built = AsyncioPlugin().build(configuration, environment)
    assert type(built) is kind
    assert isinstance(built, AsyncioServer)
    assert built.acceptableProtocols() == [b"h2"]


# Handlers

Handle = Callable[[Any, StreamReader, StreamWriter], Any]


class Handling:
    """
    A handler and its task.

    :ivar events: what happened to it.
    """

    def __init__(self, work: Handle) -> None:
        self.work = work
        self.events: list[str] = []

    async def __call__(self, peer: Any, reader: StreamReader, writer: StreamWriter) -> None:
        self.events.append(str(peer and peer.common_name))
        try:
            await self.work(peer, reader, writer)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        self.events.append("done")


async def echo(peer: VerifiedPeer, reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.write(b"the end")


async def wait(peer: object, reader: StreamReader, writer: StreamWriter) -> None:
    await asyncio.Event().wait()


async def fail(peer: object, reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(b"half of")
    await reader.read(1)
    raise LookupError("its own")


def handled(handle: Handle) -> Any:
    return handled_by(handle, "door")


def test_a_handler_reads_and_writes(loop: Loop, version: Version) -> None:
    """And may answer a client that has ended its direction."""
    handling = Handling(echo)
    client = loop.connect(loop.gate(handled(handling)), version)
    assert loop.say(client, b"hello") == b"hello"
    loop.run(lambda: client.connection.shutdown(), client)
    assert client.receive() == b"the end"
    assert client.close_notified
    assert handling.events == ["alice", "done"]


def test_a_handler_without_a_client_certificate_gets_none(loop: Loop) -> None:
    handling = Handling(echo)
    client = loop.connect(loop.gate(handled(handling), rules=None), credential=None)
    loop.run(client.close, client)
    assert handling.events == ["None", "done"]


def test_a_handler_is_cancelled_when_its_connection_is_lost(loop: Loop, version: Version) -> None:
    handling = Handling(wait)
    client = loop.connect(loop.gate(handled(handling)), version)
    loop.run(client.reset, client)
    assert handling.events == ["alice", "cancelled"]


def test_a_handler_that_fails_ends_its_connection_abruptly(loop: Loop, version: Version) -> None:
    """What the client has does not look complete."""
    client = loop.connect(loop.gate(handled(fail)), version)
    loop.say(client, b"x")
    assert client.disconnected
    assert not client.close_notified
    loop.log.expect_failure(LookupError)


def test_a_client_that_left_is_no_fault_of_the_handlers(loop: Loop) -> None:
    async def write(peer: object, reader: StreamReader, writer: StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await writer.drain()

    client = loop.connect(loop.gate(handled(write)))
    loop.run(client.reset, client)


# Factories


def test_what_makes_no_protocol_costs_the_connection(here: Site, loop: Loop) -> None:
    here.write("made.py", MODULE)
    named = Located("made:Handler", START)
    environment = ProtocolEnvironment("door", here.directory, lambda: loop.clock)
    server = AsyncioPlugin().build(AsyncioConfiguration(factory=named), environment)
    client = loop.connect(loop.behind(server))
    loop.settle(client)
    assert client.disconnected
    loop.log.expect_failure(TypeError)


def made(make: Any) -> FactoryServer:
    return FactoryServer(make, "made:it", MemoryReactorClock(), "door", ())


def test_a_factory_that_is_made_first_lives_until_the_last_connection(loop: Loop) -> None:
    """In one task, as context managers want it; and a reload that says the same leaves it."""
    events: list[object] = []

    @asynccontextmanager
    async def while_open() -> AsyncIterator[type[Recorder]]:
        events.append(asyncio.current_task())
        yield Recorder
        events.append(asyncio.current_task())

    async def run() -> None:
        first, second = made(while_open), made(while_open)
        await first.prepare(None)
        first.doStart()
        assert isinstance(first.buildProtocol(None).get_protocol(), Recorder)
        await second.prepare(first)
        await first.discard()
        assert len(events) == 1
        await second.discard()
        assert events == [events[0]] * 2

    loop.loop.run_until_complete(run())


def test_a_coroutine_function_is_awaited_once(loop: Loop) -> None:
    calls: list[str] = []

    async def later() -> type[Recorder]:
        calls.append("made")
        return Recorder

    async def run() -> None:
        server = made(later)
        await server.prepare(None)
        for _ in range(2):
            assert isinstance(server.buildProtocol(None).get_protocol(), Recorder)
        await server.discard()

    loop.loop.run_until_complete(run())
    assert calls == ["made"]


async def fails() -> object:
    raise LookupError("its own")


async def makes_nothing() -> object:
    return 5


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (fails, "door: made:it failed: LookupError: its own"),
        (
            makes_nothing,
            "door: made:it failed: TypeError: it made a int, not what makes asyncio protocols",
        ),
    ],
)
def test_a_factory_that_cannot_be_made_is_an_error(loop: Loop, make: Any, problem: str) -> None:
    async def run() -> None:
        with pytest.raises(GateError) as caught:
            await made(make).prepare(None)
        assert str(caught.value) == problem

    loop.loop.run_until_complete(run())


def test_a_context_manager_that_fails_at_its_end_is_logged(loop: Loop) -> None:
    @asynccontextmanager
    async def while_open() -> AsyncIterator[type[Recorder]]:
        yield Recorder
        raise LookupError("its own")

    async def run() -> None:
        server = made(while_open)
        await server.prepare(None)
        await server.discard()

    loop.loop.run_until_complete(run())
    loop.log.expect_failure(LookupError)


def test_protocols_are_told_that_no_more_connections_come(loop: Loop) -> None:
    """If they want to know, and one that fails keeps no other from it."""
    told: list[str] = []

    class Told(Recorder):
        def retire(self) -> None:
            told.append("one")
            if len(told) == 1:
                raise LookupError("its own")

    gate = loop.gate(lambda _: Told() if len(told) == 0 else Recorder())
    gate.entrance.start()
    clients = [loop.connect(gate) for _ in range(2)]
    loop.run(gate.entrance.stop)
    assert told == ["one", "one"]
    loop.log.expect_failure(LookupError)
    for client in clients:
        assert not client.disconnected
        loop.run(client.close, client)


def test_a_factory_is_told_too(here: Site) -> None:
    told: list[str] = []

    class Factory:
        def __call__(self) -> Recorder:
            return Recorder()

        def retire(self) -> None:
            told.append("factory")

    factory = Factory()
    server = AsyncioServer(lambda _: factory(), MemoryReactorClock(), "door", (), factory.retire)
    server.retire()
    assert told == ["factory"]
