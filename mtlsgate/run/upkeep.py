"""
What every part needs that keeps the epoch in force up to date: with documents that it fetches,
certificates that it orders, or what agents deliver.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from mtlsgate.load.epoch import Epoch
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.threads import InThread


@frozen
class Upkeep:
    """
    The epoch in force, and how to change it.

    :ivar _runner: runs it.
    :ivar refresh: puts another epoch in its place, without a new number: what its argument, called
        in a thread, makes of it.  The result is what changes for clients, in lines.
    :ivar reactor: keeps the time between two attempts.
    :ivar in_thread: runs what takes long.
    :ivar random: a number from 0 to 1.  Gates that were started together must not ask
        together for ever.
    """

    _runner: EpochRunner
    refresh: Callable[[Callable[[Epoch], Epoch]], Deferred[tuple[str, ...]]]
    reactor: Any
    in_thread: InThread
    random: Callable[[], float] = random.random

    @property
    def epoch(self) -> Epoch:
        """The epoch in force."""
        return self._runner.epoch

    @property
    def number(self) -> int:
        """Its number; a reload makes it another one."""
        return self._runner.number

    def now(self) -> datetime:
        """:returns: the time that certificates are judged by, aware."""
        return self._runner.connections.now()
