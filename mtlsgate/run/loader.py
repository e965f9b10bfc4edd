"""
Loads the configuration for the running gate, again and again.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mtlsgate.interfaces import IGate
from mtlsgate.load.epoch import Epoch, load
from mtlsgate.load.file_state import Opener, Stamp
from mtlsgate.run.selftest import self_test

#: New objects between two looks of the garbage collector; Python's own 700 are for
#: programs that make fewer.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000


class Loader:
    """
    Loads the configuration.

    :ivar paths: the files and directories, absolute.
    :ivar seen: the files that the latest attempt has read, in the state in which
        they were then; of dry runs nothing.
    """

    def __init__(
        self,
        paths: Sequence[str],
        gate: Callable[[], IGate],
        reactor: object | None = None,
        opener: Opener = os.open,
    ) -> None:
        """
        :param gate: where protocols find the gate once it runs.
        :param reactor: what protocols get for theirs; by default the installed one.
        :param opener: opens files, as `os.open` does.
        """
        self.paths = paths
        self.seen: dict[Path, Stamp] = {}
        self._gate = gate
        self._reactor = reactor
        self._opener = opener

    @property
    def path(self) -> str:
        """The files and directories in one text, for people."""
        return ", ".join(self.paths)

    def first(self, names: Sequence[str], say: Callable[[str], object]) -> Epoch:
        """
        :param names: what the person called the files, for messages.
        :param say: prints a line for the person who waits.
        :returns: the epoch to start with; the garbage collector leaves it alone.
        :raises GateError: with all that is wrong with it.
        """
        epoch = self._load(names, self.seen, say)
        self_test(epoch)
        gc.freeze()
        # A connection is freed when it ends, and leaves no garbage in circles: looking
        # for such less often saves a twentieth of a handshake.
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
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
            return self._load(self.paths, seen)
        finally:
            if not is_trial:
                self.seen = seen

    def _load(
        self,
        names: Sequence[str],
        seen: dict[Path, Stamp],
        say: Callable[[str], object] | None = None,
    ) -> Epoch:
        return load(
            names,
            say=say,
            seen=seen,
            gate=self._gate,
            reactor=self._reactor,
            opener=self._opener,
        )
