"""
Which event loop a configuration wants the gate to run on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Literal

from attrs import frozen

from mtlsgate.config import model
from mtlsgate.errors import START, Position, Report
from mtlsgate.load.applications import ReadProtocol
from mtlsgate.protocols import installed_reactor

EventLoop = Literal["asyncio", "uvloop", "epoll"]


@frozen
class EventLoopWish:
    """
    What a configuration wants of the event loop.

    :ivar name: which it must be; None if any will do.
    :ivar needs_asyncio: whether it must be one of asyncio's.
    :ivar why: what says so, for messages.
    :ivar at: where that stands.
    """

    name: EventLoop | None = None
    needs_asyncio: bool = False
    why: str = ""
    at: Position = START


#: Chooses the reactor for a configuration, and returns what returns it.
ChooseReactor = Callable[[EventLoopWish], Callable[[], object]]


def any_reactor(wish: EventLoopWish) -> Callable[[], object]:
    """:returns: what returns the installed reactor, whatever is wanted."""
    return installed_reactor


def reactor_for(
    settings: model.Settings,
    protocols: Iterable[ReadProtocol | None],
    choose: ChooseReactor,
    report: Report,
) -> Callable[[], object]:
    """
    :param protocols: the servers'; None for one in error.
    :param choose: raises ValueError if there is no such reactor.
    :returns: what returns the reactor for plugins; the report says what is wrong.
    """
    errors_before = len(report.errors)
    wish = event_loop_wish(settings, [one for one in protocols if one is not None], report)
    if len(report.errors) == errors_before:
        try:
            return choose(wish)
        except ValueError as error:
            report.error(wish.at, "event_loop", str(error))
    return installed_reactor


def event_loop_wish(
    settings: model.Settings,
    protocols: Sequence[ReadProtocol],
    report: Report,
) -> EventLoopWish:
    """:returns: what is wanted; the report says what cannot be."""
    named = settings.event_loop
    needing = next((one for one in protocols if one.needs_asyncio), None)
    if named is None:
        if needing is None:
            return EventLoopWish()
        return EventLoopWish(None, True, needing.where, needing.block.at)
    wish = EventLoopWish(
        named.value, named.value != "epoll", f'event_loop = "{named.value}"', named.at
    )
    if named.value == "epoll" and needing is not None:
        text = f'{needing.where} needs asyncio: write "asyncio" or "uvloop", or nothing'
        report.error(named.at, "settings", f"event_loop: {text}")
    elif named.value == "uvloop" and find_spec("uvloop") is None:
        text = "uvloop is not installed: pip install 'mtlsgate[uvloop]'"
        report.error(named.at, "settings", f"event_loop: {text}")
    return wish
