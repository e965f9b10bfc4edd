"""
Other parts that change when another epoch takes over: the audit log, the admin
endpoint, and what the log leaves out.

Each of them first prepares whatever may fail.  Nothing changes until all are prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.observers import Observers
from mtlsgate.run.names import configured_names

_log = Logger("mtlsgate.service")


def _nothing() -> None:
    """Do nothing."""


@frozen
class Change:
    """
    A prepared change.  Either `commit` or `discard` is called, once.

    :ivar commit: makes the change; must not fail.
    :ivar discard: undoes the preparation.
    """

    commit: Callable[[], object] = _nothing
    discard: Callable[[], object] = _nothing


def commit_all(changes: Iterable[Change]) -> None:
    """Make all changes; the epoch is in force already, even if one of them fails."""
    for change in changes:
        try:
            change.commit()
        except Exception:  # noqa: BLE001 -- there are others
            _log.failure("a part of the new configuration failed to take effect")


class EpochFollower(Protocol):
    """Something that changes with the epoch in force."""

    def prepare(self, epoch: Epoch) -> Change:
        """
        :param epoch: the epoch that is about to take over.
        :raises GateError: if the change is not possible.
        """


@frozen
class ObserversFollower:
    """
    Lets the observers follow the configuration's settings.

    :ivar observers: the observers.
    """

    observers: Observers

    def prepare(self, epoch: Epoch) -> Change:
        """:raises ConfigError: if the audit log cannot be opened."""
        audit, settings = self.observers.audit, epoch.settings
        file = audit.prepare(epoch.path, settings.audit)

        def commit() -> None:
            audit.turn_to(file)
            self.observers.set_quiet(settings.quiet)
            self.observers.counts.keep(configured_names(epoch))

        return Change(commit, lambda: audit.discard(file))
