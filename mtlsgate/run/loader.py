"""
Loads the configuration for the running gate, again and again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path

from mtlsgate.interfaces import IGate
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.event_loop import ChooseReactor, any_reactor
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.shadow import load_shadow, with_shadow
from mtlsgate.load.state import KeptDocuments
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.run.selftest import self_test

#: How many new objects start the garbage collector.  Python's default of 700 is too low
#: for a gate, which creates many.
_OBJECTS_BETWEEN_COLLECTIONS = 20_000


def spare_the_collector() -> None:
    """Have the garbage collector ignore what there is, and look less often."""
    gc.freeze()
    # Connections leave no reference cycles.  Collecting less often saves a twentieth
    # of a handshake.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def let_go_of_the_first() -> None:
    """Let the garbage collector see the first epoch again, to free it later."""
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()


class Loader:
    """
    Loads the configuration.

    :ivar paths: the files and directories, absolute.
    :ivar seen: the files that the latest attempt read, with their state at that time;
        dry runs do not count.
    :ivar agents: what SPIFFE agents have delivered.
    """

    def __init__(
        self,
        paths: Sequence[str],
        gate: Callable[[], IGate],
        reactor: ChooseReactor = any_reactor,
        source: FileSource = DISK,
    ) -> None:
        """
        :param gate: gives protocols the running gate.
        :param reactor: chooses the reactor for protocols.
        :param source: has the files.
        """
        self.paths = paths
        self.seen: dict[Path, Stamp] = {}
        self._surroundings = Surroundings(
            gate=gate, reactor=reactor, source=source, kept=KeptDocuments()
        )
        self.agents = self._surroundings.agents

    @property
    def path(self) -> str:
        """The files and directories in one text, for people."""
        return ", ".join(self.paths)

    def begin(self, names: Sequence[str], say: Callable[[str], object]) -> Loading:
        """
        :param names: the files as the user named them, for messages.
        :param say: prints a line of progress.
        :returns: the first load, which has read the text only.
        """
        with no_collection():
            return Loading(names, self._surroundings, say=say, seen=self.seen)

    def first(self, loading: Loading) -> Epoch:
        """
        :param loading: what `begin` returned.
        :returns: the first epoch; the garbage collector ignores it.
        :raises GateError: with everything that is wrong with it.
        """
        with no_collection():
            epoch = loading.epoch()
        self_test(epoch)
        epoch = with_shadow(epoch, self.paths[0], self._surroundings, self.seen)
        spare_the_collector()
        return epoch

    def again(self, is_trial: bool = False) -> Epoch:
        """
        :param is_trial: whether this is a dry run.  Then changed files must still
            count as changed afterwards.
        :returns: an epoch from the files as they are now.
        :raises ConfigError: with everything that is wrong with them.
        """
        let_go_of_the_first()
        seen: dict[Path, Stamp] = {}
        try:
            with no_collection():
                epoch = Loading(self.paths, self._surroundings, seen=seen).epoch()
            return with_shadow(epoch, self.paths[0], self._surroundings, seen)
        finally:
            if not is_trial:
                self.seen = seen

    def shadow(self, path: Path) -> Shadow:
        """:returns: another configuration, to be tried, as its files are now."""
        return load_shadow(path, self._surroundings)
