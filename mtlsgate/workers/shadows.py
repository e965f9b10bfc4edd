"""
One configuration in the shadow of all workers, or of none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from mtlsgate.errors import GateError
from mtlsgate.observe.shadow_status import ShadowAttempt
from mtlsgate.observe.status_value import value_of
from mtlsgate.run.shadow_control import checked, path_in_shadow
from mtlsgate.text import printable
from mtlsgate.workers.channel import Refused
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.epochs import Epochs
from mtlsgate.workers.member import Member


class Shadows:
    """
    What somebody has put in the shadow.

    :ivar path: its file or directory, absolute; None if that is as the settings say, and
        "" if somebody has ended it.
    :ivar files: a descriptor of its files, or None.
    """

    def __init__(self, names: Sequence[str], crew: Crew, epochs: Epochs) -> None:
        """
        :param names: the files and directories of the configuration, absolute.
        :param epochs: prepares configurations.
        """
        self.path: str | None = None
        self.files: int | None = None
        self._names = names
        self._crew = crew
        self._epochs = epochs

    def put(self, file: str) -> Deferred[ShadowAttempt]:
        """
        Let all workers try a configuration, if nothing is wrong with it.

        :param file: as somebody names it.
        """
        path = path_in_shadow(file, self._names[0])
        return self._epochs.lock.run(lambda: ensureDeferred(self._put(path)))

    async def _put(self, path: Path) -> ShadowAttempt:
        refused = checked(path)
        if refused is not None:
            return _failed(path, refused.problems)
        try:
            prepared = await self._epochs.prepared([str(path)], is_shadow=True)
            if prepared.files is None:
                return _failed(path, tuple(prepared.problem.split("\n")))
            try:
                return await self._take(path, prepared.files)
            finally:
                prepared.close()
        except GateError as error:
            return _failed(path, tuple(str(error).split("\n")))

    async def _take(self, path: Path, files: int) -> ShadowAttempt:
        """:raises GateError: if a worker cannot prepare it; then nothing has changed."""
        running = self._crew.running
        for member in running:
            assert member.channel is not None
            member.channel.give("files", files).addErrback(lambda _: None)
        made = await self._crew.gather("prepare_shadow", running, path=str(path))
        if not made:
            raise GateError("no worker runs")
        attempts = [_attempt(member, told) for member, told in made]
        worst = next((one for one in attempts if not one.succeeded), attempts[0])
        if worst.succeeded:
            self._keep(str(path), os.dup(files))
            await self._crew.gather("take_shadow", [member for member, _ in made])
        return worst

    def end(self) -> Deferred[list[tuple[Member, Any]]]:
        """
        End it in all workers.

        :returns: what each had in the shadow.
        """
        return self._epochs.lock.run(self._end)

    def _end(self) -> Deferred[list[tuple[Member, Any]]]:
        self._keep("", None)
        return self._crew.gather("end_shadow")

    def follow(self) -> None:
        """Another epoch has taken over: what its settings name counts again."""
        if self.path == "":
            self.path = None

    def _keep(self, path: str, files: int | None) -> None:
        if self.files is not None:
            os.close(self.files)
        self.path, self.files = path, files


def _attempt(member: Member, told: Any) -> ShadowAttempt:
    """:raises GateError: if a worker could not tell."""
    if isinstance(told, Refused):
        raise GateError(f"{member.name}: {told}")
    return value_of(ShadowAttempt, told)


def _failed(path: Path, problems: tuple[str, ...]) -> ShadowAttempt:
    shown = tuple(map(printable, problems))
    return ShadowAttempt(file=printable(str(path)), succeeded=False, problems=shown)
