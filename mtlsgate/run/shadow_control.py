"""
Putting a configuration in the shadow while the gate runs, and asking what it found out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from weakref import ref

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import Reload
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.sources import base_directory
from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.run.epoch_diff import epoch_diff
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.followers import Change
from mtlsgate.run.shadow import Shadowing
from mtlsgate.run.shadow_report import reporting
from mtlsgate.run.threads import InThread
from mtlsgate.run.turns import in_turns
from mtlsgate.text import printable

_log = Logger("mtlsgate.shadow")

_ENDING = ".hcl"


@frozen
class ShadowFollower:
    """
    Lets the shadow follow the epoch in force.

    :ivar shadowing: has clients judged.
    :ivar connections: all there are.
    """

    shadowing: Shadowing
    connections: Connections

    def prepare(self, epoch: Epoch) -> Change:
        """:returns: to let it follow, when the epoch takes over."""
        return Change(lambda: self.shadowing.follow(epoch, self.connections))

    def reload_began(self) -> None:
        """Nothing to do yet."""

    def reload_ended(self, reload: Reload) -> None:
        """Count anew if something has changed for clients."""
        if not reload.problems:
            self.changed(reload.changes)

    def changed(self, changes: tuple[str, ...]) -> None:
        """:param changes: what another epoch has changed for clients, in lines."""
        if changes:
            self.shadowing.changed(self.connections)


@define(eq=False)
class ShadowControl:
    """
    Puts configurations in the shadow.

    :ivar shadowing: has clients judged.
    :ivar _runner: has the epoch in force.
    :ivar _load: loads a configuration for the shadow; called in a thread.
    :ivar _in_thread: runs what takes long.
    :ivar _config: the first file or directory of the configuration in force, absolute.
    :ivar _compared: the epochs that were compared last, and how they differ; a console asks
        every second.
    """

    shadowing: Shadowing
    _runner: EpochRunner
    _load: Callable[[Path], Shadow]
    _in_thread: InThread
    _config: str
    _compared: tuple[ref[Epoch], ref[Epoch], tuple[str, ...]] | None = None

    def put(self, file: str) -> Deferred[ShadowAttempt]:
        """
        Put a configuration in the shadow, if nothing is wrong with it.

        :param file: as somebody names it.
        """
        return self.prepare(path_in_shadow(file, self._config)).addCallback(self.take)

    async def put_again(self, path: Path) -> None:
        """
        Put what others have in the shadow there, too.  If that is not possible, it is logged,
        and nothing is in the shadow.

        :param path: its file or directory, absolute.
        """
        try:
            attempt = self.take(await self.prepare(path))
        except Exception:  # noqa: BLE001 -- whatever it is, clients are not to suffer for it
            _log.failure("{file} cannot be put in the shadow", file=printable(str(path)))
            return
        for problem in attempt.problems:
            _log.warn("not in the shadow: {problem}", problem=problem)

    def prepare(self, path: Path) -> Deferred[tuple[Shadow, ShadowAttempt]]:
        """
        :param path: its file or directory, absolute.
        :returns: the configuration, and what it would change; nothing has changed yet.
        """
        epoch = self._runner.epoch

        def load() -> tuple[Shadow, ShadowAttempt]:
            shadow = checked(path) or self._load(path)
            changes = () if shadow.epoch is None else epoch_diff(epoch, shadow.epoch)
            return shadow, ShadowAttempt(
                file=printable(shadow.path),
                succeeded=shadow.epoch is not None,
                problems=tuple(map(printable, shadow.problems)),
                changes=changes,
                warnings=tuple(map(printable, shadow.barred)),
            )

        return self._in_thread(load)

    def take(self, prepared: tuple[Shadow, ShadowAttempt]) -> ShadowAttempt:
        """Put what `prepare` has prepared in the shadow."""
        shadow, attempt = prepared
        if attempt.succeeded:
            self.shadowing.put(shadow, self._runner.connections)
        return attempt

    def end(self) -> str | None:
        """
        End it.

        :returns: the file of what was in the shadow; None if nothing was.
        """
        now = self.shadowing.now
        self.shadowing.end()
        return None if now is None else printable(now.shadow.path)

    def report(self) -> Deferred[ShadowReport | None]:
        """:returns: what it has found out; None if nothing is in the shadow."""
        connections, now = self._runner.connections, self.shadowing.now
        then = None if now is None else now.shadow.epoch
        epoch = self._runner.epoch

        def compared(found: tuple[ShadowReport | None, ...]) -> Deferred[ShadowReport | None]:
            [report] = found

            def compare() -> ShadowReport | None:
                if report is None or then is None:
                    return report
                return evolve(report, changes=self._difference(epoch, then))

            return self._in_thread(compare)

        asked = in_turns(connections.clock, [reporting(self.shadowing, connections)])
        return asked.addCallback(compared)

    def _difference(self, before: Epoch, after: Epoch) -> tuple[str, ...]:
        known = self._compared
        if known is None or known[0]() is not before or known[1]() is not after:
            # Weakly: an epoch that is no longer in force must be freed.
            known = self._compared = ref(before), ref(after), epoch_diff(before, after)
        return known[2]


def checked(path: Path) -> Shadow | None:
    """
    :returns: a shadow with the problem that it cannot be one; None if it may be.  An
        operator must not read other files by the errors in them.
    """
    if path.suffix == _ENDING or path.is_dir():
        return None
    text = f"{path}: only a file that ends in {_ENDING}, or a directory of such files, can be tried"
    return Shadow(str(path), None, (text,))


def path_in_shadow(file: str, config: str) -> Path:
    """
    :param file: as somebody names it.
    :param config: the first file or directory of the configuration in force, absolute.
    :returns: the absolute path of that file; a relative one starts where those in the
        configuration do.
    """
    return base_directory(config) / file
