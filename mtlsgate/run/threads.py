"""
Doing what takes long somewhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function where it does not keep the reactor from going on."""

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]: ...


def in_thread(function: Callable[[], T]) -> Deferred[T]:
    """:returns: what the function returns, from a thread of the reactor's pool."""
    from twisted.internet.threads import deferToThread

    return deferToThread(function)
