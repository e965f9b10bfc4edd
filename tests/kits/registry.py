"""Services whose registries are in memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from mtlsgate.gate.events import ClosedConnection
from mtlsgate.reasons import Cause, Reason
from mtlsgate.registry.store import Store, StoreOptions
from mtlsgate.run.registries.desk import Surroundings
from mtlsgate.run.registries.desks import Desks
from mtlsgate.testing import Client, Credential
from tests.kits.memory_stores import FaultyStore
from tests.kits.service import MemoryService

T = TypeVar("T")


class Eager:
    """Runs coroutines that await Deferreds only."""

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(coroutine)

    def close(self) -> None:
        """Nothing runs."""


def desks(clock: Any, stores: Mapping[str, Store], now: Callable[[], Any]) -> Desks:
    """:param stores: by the host of their URL."""

    def open_(options: StoreOptions) -> Store:
        return stores[options.url.removeprefix("redis://")]

    return Desks(Surroundings(open_, Eager(), clock, now, lambda: 1.0))


class Endings:
    """
    Remembers which connections the gate ended.

    :ivar found: the cause and the detail of each.
    :ivar reasons: why each is no longer admitted, or None.
    """

    def __init__(self) -> None:
        self.found: list[tuple[Cause, str]] = []
        self.reasons: list[Reason | None] = []

    def closed(self, connection: ClosedConnection) -> None:
        if connection.by_gate:
            self.found.append((connection.cause, connection.detail))
            self.reasons.append(connection.reason)

    def admitted(self, connection: object) -> None:
        """Nothing ends."""

    rejected = reloaded = admitted


class RegisteredService(MemoryService):
    """
    A service whose registries are in memory.

    :ivar store: that of ``redis://devices``.
    :ivar stolen: that of ``redis://stolen``.
    :ivar endings: which connections the gate ended.
    """

    def __init__(self, directory: Path, text: str, **options: Any) -> None:
        self.store, self.stolen = FaultyStore(), FaultyStore()
        self.endings = Endings()
        stores = {"devices": self.store, "stolen": self.stolen}
        super().__init__(
            directory,
            text,
            observers=[self.endings],
            registries=lambda clock, now: desks(clock, stores, now),
            **options,
        )
        self.run()

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, in small steps."""
        self.reactor.pump([0.0] * 5)
        for _ in range(round(seconds * 20)):
            self.reactor.pump([0.05])

    def run_well(self, seconds: float, *stores: FaultyStore) -> None:
        """Let time pass while stores are well."""
        for _ in range(round(seconds * 2)):
            self.run(0.5)
            for store in stores:
                store.alive()

    def is_in(self, client: Client) -> bool:
        """:returns: whether a client is connected, and its application answers."""
        client.send(b"x")
        return client.receive().endswith(b"x") and not client.disconnected

    def try_in(self, who: Credential, seconds: float = 0.0, **options: Any) -> Client:
        """:returns: a client that had time to be let in or not."""
        client = self.connect(who, **options)
        client.send(b"knock")
        self.run(seconds)
        client.pump()
        return client
