"""
Warns of devices by which no client can be found.

Somebody who writes to a store by hand may write a digest in capitals or with colons: then a
denial keeps nobody out.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.registry.fields import key_problem
from mtlsgate.text import printable

_log = Logger("mtlsgate.registries")

#: Seconds between two warnings about one registry.
_PAUSE = 10.0


class OddKeys:
    """The keys that no client has, among those that registries tell of."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: measures durations."""
        self._clock = clock
        self._silent_until: dict[str, float] = {}

    def look(self, registry: LoadedRegistry, keys: Iterable[str]) -> None:
        """
        Warn of the first key that can be no client's, not more often than every ten seconds.

        :param keys: those of the devices that changed.
        """
        now = self._clock.seconds()
        if now < self._silent_until.get(registry.name, now):
            return
        for key in keys:
            if why := key_problem(registry.key, key):
                self._silent_until[registry.name] = now + _PAUSE
                _log.warn(
                    'registry {name}: no client is found by "{key}": {why}',
                    name=printable(registry.name),
                    key=printable(key),
                    why=why,
                )
                return
