"""
Loads the configuration for the running gate, again and again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from mtlsgate.interfaces import IGate
from mtlsgate.load.epoch import Epoch, load
from mtlsgate.load.file_state import Stamp
from mtlsgate.run.selftest import self_test


class Loader:
    """
    Loads the configuration.

    :ivar path: the file, absolute.
    :ivar seen: the files that the latest attempt has read, in the state in which
        they were then; of dry runs nothing.
    """

    def __init__(self, path: str, gate: Callable[[], IGate], reactor: object | None = None) -> None:
        """
        :param gate: where protocols find the gate once it runs.
        :param reactor: what protocols get for theirs; by default the installed one.
        """
        self.path = path
        self.seen: dict[Path, Stamp] = {}
        self._gate = gate
        self._reactor = reactor

    def first(self, name: str, say: Callable[[str], object]) -> Epoch:
        """
        :param name: what the person called the file, for messages.
        :param say: prints a line for the person who waits.
        :returns: the epoch to start with; the garbage collector leaves it alone.
        :raises GateError: with all that is wrong with it.
        """
        epoch = load(name, say=say, seen=self.seen, gate=self._gate, reactor=self._reactor)
        self_test(epoch)
        gc.freeze()
        return epoch

    def again(self, is_trial: bool = False) -> Epoch:
        """
        :param is_trial: whether it is only to tell what would change: files that
            changed must then still count as changed.
        :returns: what the file says now.
        :raises ConfigError: with all that is wrong with it.
        """
        if gc.get_freeze_count():
            # The first epoch is to be freed one day, and so is its garbage.
            gc.unfreeze()
            gc.collect()
        seen: dict[Path, Stamp] = {}
        try:
            return load(self.path, seen=seen, gate=self._gate, reactor=self._reactor)
        finally:
            if not is_trial:
                self.seen = seen
