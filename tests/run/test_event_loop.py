"""
The configuration chooses the event loop, before there is one.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from textwrap import dedent

import pytest
from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from mtlsgate.config import Located, model
from mtlsgate.errors import Position, Report
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.load.applications import ReadProtocol
from mtlsgate.load.event_loop import EventLoop, EventLoopWish, event_loop_wish
from mtlsgate.protocols.needs import NeedsNothing
from mtlsgate.run.event_loop import report
from tests.kits.gate import Log

AT = Position(3, 5)


@implementer(IProtocolPlugin)
@frozen
class Needy(NeedsNothing):
    """A plugin that needs asyncio, or not."""

    needs: bool
    name: str = "needy"
    configuration: type = object

    def needs_asyncio(self, configuration: object) -> bool:
        return self.needs

    def build(self, configuration: object, environment: IProtocolEnvironment) -> IProtocolFactory:
        found: IProtocolFactory = Factory.forProtocol(Protocol)
        return found


@implementer(IProtocolPlugin)
@frozen
class Silent:
    """A plugin that says nothing of its needs."""

    name: str = "silent"
    configuration: type = object

    def build(self, configuration: object, environment: IProtocolEnvironment) -> IProtocolFactory:
        found: IProtocolFactory = Factory.forProtocol(Protocol)
        return found


def read(plugin: Needy | Silent) -> ReadProtocol:
    block = model.Protocol(name=plugin.name, at=AT, body=None)  # type: ignore[arg-type]
    return ReadProtocol(block, plugin, object())


def wish(event_loop: EventLoop | None, *plugins: Needy | Silent) -> tuple[EventLoopWish, Report]:
    report = Report("gate.hcl")
    named = None if event_loop is None else Located(event_loop, Position(1, 2))
    settings = model.Settings(event_loop=named)
    return event_loop_wish(settings, [read(one) for one in plugins], report), report


# What a configuration wants


def test_without_need_any_loop_will_do() -> None:
    found, report = wish(None, Needy(False), Silent())
    assert (found.name, found.needs_asyncio, report.errors) == (None, False, [])


def test_a_protocol_that_needs_asyncio_is_named() -> None:
    found, _ = wish(None, Silent(), Needy(True))
    assert found == EventLoopWish(None, True, 'protocol "needy"', AT)


@pytest.mark.parametrize("name", ["asyncio", "epoll"])
def test_the_setting_decides(name: EventLoop) -> None:
    found, report = wish(name)
    assert (found.name, found.needs_asyncio) == (name, name == "asyncio")
    assert report.errors == []


def test_a_setting_against_a_need_is_an_error() -> None:
    _, report = wish("epoll", Needy(True))
    [problem] = report.errors
    assert str(problem) == (
        'gate.hcl:1:2: settings: event_loop: protocol "needy" needs asyncio: write "asyncio" or '
        '"uvloop", or nothing'
    )


def test_uvloop_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlsgate.load.event_loop.find_spec", lambda name: None)
    _, report = wish("uvloop")
    assert "pip install 'mtlsgate[uvloop]'" in str(report.errors[0])


def test_a_plugin_that_says_nothing_runs_its_users_code() -> None:
    assert read(Silent()).runs_user_code
    assert not read(Needy(False)).runs_user_code


# What the process gets: a reactor is installed once a process, so each case is one


def chosen(script: str) -> str:
    """:returns: what a process prints that chooses."""
    code = """
        import sys
        from mtlsgate.load.event_loop import EventLoopWish
        from mtlsgate.run.event_loop import ReactorChoice
        assert "twisted.internet.reactor" not in sys.modules
        choice = ReactorChoice()
        def choose(name, needs_asyncio):
            wish = EventLoopWish(name, needs_asyncio, "somebody")
            try:
                reactor = choice(wish)()
            except ValueError as error:
                return str(error)
            import asyncio
            name = type(sys.modules["twisted.internet.reactor"]).__name__
            if name != "AsyncioSelectorReactor":
                return name
            return name + " " + type(asyncio.get_event_loop()).__module__
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code) + dedent(script)], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.strip()


UVLOOP = "mtlsgate.run.uvloop_loop" if util.find_spec("uvloop") else "asyncio.unix_events"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("None, False", "EPollReactor"),
        ("None, True", f"AsyncioSelectorReactor {UVLOOP}"),
        ("'asyncio', True", "AsyncioSelectorReactor asyncio.unix_events"),
        ("'epoll', False", "EPollReactor"),
    ],
)
def test_the_first_configuration_installs_the_reactor(wanted: str, expected: str) -> None:
    assert chosen(f"print(choose({wanted}))") == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "wanted", "expected"),
    [
        ("epollreactor", "None, False", "EPollReactor"),
        (
            "pollreactor",
            "None, True",
            "somebody needs asyncio, but this process runs on PollReactor: restart the gate, "
            "without --reactor",
        ),
        ("asyncioreactor", "None, True", "AsyncioSelectorReactor asyncio.unix_events"),
        ("asyncioreactor", "None, False", "AsyncioSelectorReactor asyncio.unix_events"),
        (
            "asyncioreactor",
            "'epoll', False",
            "somebody needs epoll, but this process runs on asyncio: restart the gate, without "
            "--reactor",
        ),
    ],
)
def test_an_installed_reactor_must_do(before: str, wanted: str, expected: str) -> None:
    """As with ``twistd --reactor``."""
    script = f"from twisted.internet import {before}\n{before}.install()\nprint(choose({wanted}))"
    assert chosen(script) == expected


@pytest.mark.slow
def test_a_later_configuration_must_do_with_the_same() -> None:
    """It is loaded in a thread, where asyncio knows of no loop."""
    script = """
        from threading import Thread
        print(choose("asyncio", True))
        def later():
            print(choice(EventLoopWish(None, True)) == choice.get)
            print(choose("epoll", False))
        thread = Thread(target=later)
        thread.start()
        thread.join()
    """
    loop, again, refusal = chosen(script).splitlines()
    assert loop.startswith("AsyncioSelectorReactor")
    assert again == "True"
    assert refusal.startswith("somebody needs epoll, but this process runs on asyncio")


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == "asyncio":
        return asyncio.new_event_loop()
    pytest.importorskip("uvloop")
    from mtlsgate.run.uvloop_loop import UvLoop

    return UvLoop()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_loop(request.param)
    yield loop
    loop.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """:returns: both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.setblocking(False)
    return client, accepted


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("sent", [b"", b"last words"])
def test_who_reads_what_came_before_a_reset_learns_of_the_reset(
    loop: asyncio.AbstractEventLoop, sent: bytes
) -> None:
    client, accepted = connected()
    over = loop.create_future()
    read = []

    def ready() -> None:
        try:
            read.append(accepted.recv(4))
        except ConnectionResetError:
            loop.remove_reader(accepted)
            over.set_result(None)

    loop.add_reader(accepted, ready)
    client.sendall(sent)
    reset(client)
    loop.run_until_complete(asyncio.wait_for(over, 10))
    assert b"".join(read) == sent
    accepted.close()


@pytest.mark.parametrize("reads", [True, False])
def test_a_socket_that_was_reset_can_be_watched_for_something_else(
    loop: asyncio.AbstractEventLoop, reads: bool
) -> None:
    """Whether who watches it now goes on or not."""
    client, accepted = connected()
    over = loop.create_future()

    def ready() -> None:
        if not reads:
            loop.remove_reader(accepted)
        if not asked:
            asked.append(loop.call_soon(loop.add_writer, accepted, writable))

    def writable() -> None:
        loop.remove_reader(accepted)
        loop.remove_writer(accepted)
        over.set_result(None)

    asked: list[object] = []
    loop.add_reader(accepted, ready)
    reset(client)
    loop.run_until_complete(asyncio.wait_for(over, 10))
    accepted.close()


def test_a_socket_is_watched_until_it_is_not(loop: asyncio.AbstractEventLoop) -> None:
    client, accepted = connected()
    over = loop.create_future()
    loop.add_writer(accepted.fileno(), over.set_result, "room")
    assert loop.run_until_complete(asyncio.wait_for(over, 10)) == "room"
    assert loop.remove_writer(accepted.fileno())
    assert not loop.remove_writer(accepted)
    assert not loop.remove_reader(accepted)
    client.close()
    accepted.close()


def test_what_no_task_handles_is_logged(log: Log) -> None:
    """With its traceback, and in the gate's log."""

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(report)

        async def fail() -> None:
            raise LookupError("its own")

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task
        gc.collect()
        asyncio.get_running_loop().call_exception_handler({"message": "something is odd"})

    asyncio.run(run())
    log.expect_failure(LookupError)
