"""
uvloop's event loop, without one of its faults.

After an error on a socket, such as a reset by the other side, uvloop 0.23 calls what watches the
socket once, and never again; asyncio's own loop calls it as long as the error is there.  Whoever
reads, in that one call, what came before the reset, does not learn of the reset: the connection
would stay for ever.  And to watch such a socket for something else is a ``RuntimeError``.

Nothing else in this package imports uvloop.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVarTuple

import uvloop

_Ts = TypeVarTuple("_Ts")

#: By descriptor: a function, and its arguments.
Watches: TypeAlias = dict[int, tuple[Callable[..., object], tuple[Any, ...]]]


class UvLoop(uvloop.Loop):
    """
    Watches descriptors as asyncio's own loop does.

    :ivar _reading: what is called when there is something to read.
    :ivar _writing: what is called when there is room to write.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reading: Watches = {}
        self._writing: Watches = {}

    def add_reader(self, fd: Any, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        """Call a function while there is something to read, or an error."""
        number = _number(fd)
        self._begin(super().add_reader, number, callback, args)
        self._reading[number] = callback, args

    def add_writer(self, fd: Any, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        """Call a function while there is room to write, or an error."""
        number = _number(fd)
        self._begin(super().add_writer, number, callback, args)
        self._writing[number] = callback, args

    def remove_reader(self, fd: Any) -> bool:  # type: ignore[override]  # its stub errs
        """:returns: whether it was watched."""
        super().remove_reader(fd)
        return self._reading.pop(_number(fd), None) is not None

    def remove_writer(self, fd: Any) -> bool:  # type: ignore[override]  # its stub errs
        """:returns: whether it was watched."""
        super().remove_writer(fd)
        return self._writing.pop(_number(fd), None) is not None

    def _begin(
        self,
        add: Callable[..., object],
        fd: int,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
    ) -> None:
        errors = select.poll()
        errors.register(fd, 0)
        try:
            add(fd, self._ready, fd, errors.poll, callback, arguments)
        except RuntimeError:
            # uvloop gave the descriptor up just now.
            self._begin_anew(fd)
            add(fd, self._ready, fd, errors.poll, callback, arguments)

    def _ready(
        self,
        fd: int,
        errors: Callable[[int], list[tuple[int, int]]],
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
    ) -> None:
        try:
            callback(*arguments)
        finally:
            found = errors(0)
            if found and found[0][1] & select.POLLERR:
                # uvloop gives it up when this call returns.
                self.call_soon(self._go_on, fd)

    def _go_on(self, fd: int) -> None:
        if fd in self._reading or fd in self._writing:
            self._begin_anew(fd)

    def _begin_anew(self, fd: int) -> None:
        super().remove_reader(fd)
        super().remove_writer(fd)
        for watches, add in (
            (self._reading, super().add_reader),
            (self._writing, super().add_writer),
        ):
            if fd in watches:
                self._begin(add, fd, *watches[fd])


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())
