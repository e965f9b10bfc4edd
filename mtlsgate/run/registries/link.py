"""
The way from a desk to its store: opened when it is needed, and each call in time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtlsgate.admission.devices import Device
from mtlsgate.registry.store import Follower, Store, StoreError, StoreOptions
from mtlsgate.run.registries.guest_loop import Runner

_log = Logger("mtlsgate.registries")

T = TypeVar("T")

Open = Callable[[StoreOptions], Store]


class Link:
    """The store of one registry."""

    def __init__(
        self, options: StoreOptions, open_: Open, runner: Runner, clock: IReactorTime
    ) -> None:
        """:param open_: opens a store."""
        self._options = options
        self._open = open_
        self._runner = runner
        self._clock = clock
        self._store: Store | None = None

    def find(self, keys: Collection[str]) -> Deferred[Mapping[str, Device]]:
        """As `Store.find`; whoever asks limits the time."""
        return self._call(lambda store: store.find(keys))

    def follow(self, follower: Follower) -> Deferred[None]:
        """As `Store.follow`, without a limit."""
        return self._call(lambda store: store.follow(follower))

    def lease(self, key: str, holder: str, places: int, seconds: float) -> Deferred[bool]:
        """As `Store.lease`, in time."""
        return self._in_time(self._call(lambda store: store.lease(key, holder, places, seconds)))

    def release(self, key: str, holder: str) -> None:
        """Give a place back; if that fails, its time ends it."""
        done = self._in_time(self._call(lambda store: store.release(key, holder)))
        done.addErrback(lambda failure: failure.trap(StoreError, CancelledError))
        done.addErrback(lambda failure: _log.failure("giving a place back failed", failure))

    def close(self) -> None:
        """Close every connection to the store."""
        if self._store is not None:
            closed = self._call(lambda store: store.close())
            closed.addErrback(
                lambda failure: _log.failure("closing a registry's store failed", failure)
            )

    def _call(self, call: Callable[[Store], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """:returns: a Deferred; it fails also if the store cannot be opened."""
        try:
            if self._store is None:
                self._store = self._open(self._options)
            return self._runner.start(call(self._store))
        except Exception:  # noqa: BLE001 -- whatever it is, the Deferred has it
            return fail()

    def _in_time(self, done: Deferred[T]) -> Deferred[T]:
        limit = self._clock.callLater(self._options.timeout, done.cancel)

        def ended(result: object) -> object:
            if limit.active():
                limit.cancel()
            return result

        return done.addBoth(ended)
