"""
What the log says of a registry that is followed, away or stale.
"""

from __future__ import annotations

from typing import Protocol

from twisted.logger import Logger

from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.text import printable

_log = Logger("mtlsgate.registries")


class Words(Protocol):
    """Tells what becomes of a registry; ``problem`` is why it is away, in one line."""

    def following(self, registry: LoadedRegistry) -> None:
        """It is followed again."""

    def lost(self, registry: LoadedRegistry, problem: str, seconds: float) -> None:
        """:param seconds: until it is stale."""

    def stale(self, registry: LoadedRegistry, problem: str) -> None:
        """It is away for more than ``max_staleness``."""


class WordsInForce:
    """What is said of registries that decide about clients."""

    def following(self, registry: LoadedRegistry) -> None:
        """It is followed again."""
        _log.info(
            "registry {name}: following {place}",
            name=printable(registry.name),
            place=registry.place,
        )

    def lost(self, registry: LoadedRegistry, problem: str, seconds: float) -> None:
        """:param seconds: until it is stale."""
        meanwhile = "new clients are rejected if it does not answer"
        if registry.on_outage == "last_known":
            meanwhile = "what is remembered counts"
        _log.warn(
            "registry {name}: {place} cannot be followed: {problem}; for {limit:.0f} s live "
            "connections stay, and {meanwhile}",
            name=printable(registry.name),
            place=registry.place,
            problem=problem,
            limit=seconds,
            meanwhile=meanwhile,
        )

    def stale(self, registry: LoadedRegistry, problem: str) -> None:
        """It is away for more than ``max_staleness``."""
        _log.error(
            "registry {name}: {place} is away for more than {limit:g} s ({problem}): "
            "connections that need it end",
            name=printable(registry.name),
            place=registry.place,
            limit=registry.max_staleness,
            problem=problem,
        )


class WordsInShadow:
    """What is said of registries that only the shadow asks: no client depends on them."""

    def following(self, registry: LoadedRegistry) -> None:
        """It is followed again."""
        _log.info(
            "in the shadow, registry {name}: following {place}",
            name=printable(registry.name),
            place=registry.place,
        )

    def lost(self, registry: LoadedRegistry, problem: str, seconds: float) -> None:
        """:param seconds: until it is stale."""
        _log.warn(
            "in the shadow, registry {name}: {place} cannot be followed: {problem}; no client "
            "notices",
            name=printable(registry.name),
            place=registry.place,
            problem=problem,
        )

    def stale(self, registry: LoadedRegistry, problem: str) -> None:
        """It was told when it was lost."""
