"""
Something to do in the reactor's next turn.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class NextTurn:
    """
    Calls a function in the reactor's next turn: once, however often it is asked to.

    :ivar _call: the call that is due, or None.
    :ivar _is_over: whether it was cancelled for good.
    """

    def __init__(self, clock: IReactorTime, function: Callable[[], object]) -> None:
        """:param function: what to call."""
        self._clock = clock
        self._function = function
        self._call: IDelayedCall | None = None
        self._is_over = False

    @property
    def is_due(self) -> bool:
        """Whether the function will be called."""
        return self._call is not None

    def ask(self) -> None:
        """Call the function in the next turn."""
        if self._call is None and not self._is_over:
            self._call = self._clock.callLater(0, self._run)

    def _run(self) -> None:
        self._call = None
        self._function()

    def cancel(self) -> None:
        """Do not call it, now or later, and keep nothing of whose it is."""
        self._is_over = True
        self._function = nothing
        if self._call is not None:
            self._call.cancel()
            self._call = None


def nothing() -> None:
    """Stands for a function that is not to be called any more."""
