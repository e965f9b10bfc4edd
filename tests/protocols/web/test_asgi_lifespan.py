"""
An ASGI application starts before its first connection, and ends after its last.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.config import Located, Misconfigured
from mtlsgate.errors import START, Position
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.protocols.web import WebPlugin
from mtlsgate.protocols.web.asgi import AsgiServer, asgi_server
from mtlsgate.protocols.web.asgi_lifespan import LifespanFailed
from mtlsgate.protocols.web.configuration import WebConfiguration
from tests.kits.aio import Loop


class Reactor(MemoryReactorClock):
    """Remembers what is to be done before it ends, until that is taken back."""

    def addSystemEventTrigger(  # type: ignore[override]
        self, phase: Any, event: Any, callable: Any, *rest: Any, **more: Any
    ) -> Any:
        super().addSystemEventTrigger(phase, event, callable, *rest, **more)
        return phase, event, (callable, rest, more)

    def removeSystemEventTrigger(self, trigger: Any) -> None:
        phase, event, what = trigger
        self.triggers[phase][event].remove(what)

    @property
    def ends(self) -> list[Any]:
        """What it waits for."""
        found = self.triggers.get("before", {}).get("shutdown", [])
        return [what for what, _, _ in found]


async def turns() -> None:
    """Let tasks get on that wait for nothing."""
    for _ in range(20):
        await asyncio.sleep(0)


class Application:
    """
    Keeps what happens to it.

    :ivar events: the names of what it was told.
    """

    def __init__(self, fails: str = "", raises: str = "", hangs: str = "") -> None:
        self.fails, self.raises, self.hangs = fails, raises, hangs
        self.events: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["pool"] = "a pool"
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            self.events.append(kind)
            if kind == self.raises:
                raise LookupError("its own")
            if kind == self.hangs:
                await asyncio.Event().wait()
            if kind == self.fails:
                message = "Traceback:\n  much of it\nLookupError: no database\n"
                await send({"type": f"lifespan.{kind}.failed", "message": message})
                return
            await send({"type": f"lifespan.{kind}.complete"})


def served(application: Any, line: int = 1, reactor: Any = None, **attributes: Any) -> AsgiServer:
    named = Located("app:app", Position(line, 1))
    configuration = WebConfiguration(asgi=named, **attributes)
    clock = Reactor() if reactor is None else reactor
    environment = ProtocolEnvironment("door", Path(), lambda: clock)
    return asgi_server(named, application, configuration, environment)


def test_an_application_starts_and_ends(loop: Loop) -> None:
    async def run() -> None:
        app = Application()
        server = served(app)
        assert server.app_state == {}
        await server.prepare(None)
        assert app.events == ["startup"]
        assert server.app_state == {"pool": "a pool"}
        server.doStart()
        server.doStop()
        await turns()
        assert app.events == ["startup", "shutdown"]

    loop.loop.run_until_complete(run())


def test_the_process_waits_for_the_end(loop: Loop) -> None:
    async def run() -> None:
        reactor = Reactor()
        server = served(Application(), reactor=reactor)
        await server.prepare(None)
        server.doStart()
        [wait] = reactor.ends
        waits = wait()
        assert not waits.called
        server.doStop()
        await turns()
        assert waits.called

    loop.loop.run_until_complete(run())


def test_nothing_is_left_of_what_ended_before_the_process(loop: Loop) -> None:
    async def run() -> None:
        reactor = Reactor()
        server = served(Application(), reactor=reactor)
        await server.prepare(None)
        server.doStart()
        server.doStop()
        await turns()
        assert reactor.ends == []

    loop.loop.run_until_complete(run())


def test_an_application_that_fails_to_start_says_why(loop: Loop) -> None:
    """Its message goes to the log, and the last line of that to who reloads."""

    async def run() -> None:
        with pytest.raises(LifespanFailed) as caught:
            await served(Application(fails="startup")).prepare(None)
        assert str(caught.value) == (
            "door: the application failed to start: LookupError: no database"
        )

    loop.loop.run_until_complete(run())
    texts = [event["text"] for event in loop.log_of_web]
    assert "Traceback:\n  much of it\nLookupError: no database" in texts
    assert not any("Exiting" in text for text in texts)


def test_an_application_that_takes_too_long_is_given_up(loop: Loop) -> None:
    async def run() -> None:
        app = Application(hangs="startup")
        with pytest.raises(LifespanFailed, match=r"did not start within 0\.01 s"):
            await served(app, lifespan_timeout=0.01).prepare(None)
        await turns()

    loop.loop.run_until_complete(run())


@pytest.mark.parametrize("trouble", [{"fails": "shutdown"}, {"raises": "shutdown"}])
def test_an_application_that_fails_to_end_has_ended(loop: Loop, trouble: dict[str, str]) -> None:
    async def run() -> None:
        server = served(Application(**trouble))
        await server.prepare(None)
        await server.discard()
        await server.discard()

    loop.loop.run_until_complete(run())
    if "raises" in trouble:
        texts = [event["text"] for event in loop.log_of_web]
        assert any("unsupported" in text for text in texts)


def test_an_application_that_does_not_end_is_not_waited_for(loop: Loop) -> None:
    async def run() -> None:
        server = served(Application(hangs="shutdown"), lifespan_timeout=0.01)
        await server.prepare(None)
        await server.discard()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await turns()

    loop.loop.run_until_complete(run())
    assert any("did not end within" in event["text"] for event in loop.log_of_web)


def test_an_application_without_a_lifespan_is_served_all_the_same(loop: Loop) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(f"not for {scope['type']}")

    async def run() -> None:
        server = served(app)
        await server.prepare(None)
        await server.discard()

    loop.loop.run_until_complete(run())


def test_what_says_the_same_goes_on(loop: Loop) -> None:
    """A reload that leaves the block as it is, wherever that stands, starts nothing anew."""

    async def run() -> None:
        app = Application()
        first = served(app, line=3)
        await first.prepare(None)
        second = served(app, line=7)
        await second.prepare(first)
        assert second.app_state is first.app_state
        await first.discard()
        assert app.events == ["startup"]
        await second.discard()
        assert app.events == ["startup", "shutdown"]

    loop.loop.run_until_complete(run())


@pytest.mark.parametrize("change", ["block", "application", "protocol"])
def test_what_says_something_else_starts_anew(loop: Loop, change: str) -> None:
    """Before the other one ends."""

    async def run() -> None:
        app, other = Application(), Application()
        before: Any = served(app)
        await before.prepare(None)
        second = served(app, max_requests=5) if change == "block" else served(other)
        await second.prepare(None if change == "protocol" else before)
        events = app.events if change == "block" else other.events
        assert events[-1] == "startup"
        assert second.app_state is not before.app_state
        await before.discard()
        await second.discard()

    loop.loop.run_until_complete(run())


# What is no application


def problem(application: Any) -> str:
    with pytest.raises(ValueError, match=r"^asgi: ") as caught:
        served(application)
    return str(caught.value)


def test_what_cannot_be_called_is_no_application() -> None:
    assert problem(5) == "asgi: app:app is a int, not an ASGI application"


def test_a_factory_is_called() -> None:
    app = Application()
    server = served(lambda: app)
    assert server.config.loaded_app is app


def test_a_factory_must_make_an_application() -> None:
    assert problem(lambda: 5) == "asgi: what app:app returned is a int, not an ASGI application"


def test_a_factory_may_fail() -> None:
    def failing() -> object:
        raise LookupError("its own")

    with pytest.raises(ValueError, match=r"^app:app failed: LookupError: its own$"):
        served(failing)


def test_an_older_kind_of_application_works() -> None:
    """ASGI 2: it is called twice."""

    class Older:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            raise AssertionError

    assert served(Older).config.loaded_app is not Older


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mtlsgate.protocols.web.asgi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    configuration = WebConfiguration(asgi=Located("json:loads", START))
    environment = ProtocolEnvironment("door", Path(), Reactor)
    with pytest.raises(Misconfigured) as caught:
        WebPlugin().build(configuration, environment)
    assert "is not installed: pip install 'mtlsgate[asgi]'" in caught.value.text
