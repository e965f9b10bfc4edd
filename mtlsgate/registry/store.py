"""
What a store of devices can do.

All methods are coroutines for an asyncio loop.  One store is used by one loop.  A store
keeps connections and makes new ones when it must; whoever uses it decides what an outage
means.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Protocol

from attrs import frozen

from mtlsgate.admission.devices import Device
from mtlsgate.errors import GateError


class StoreError(GateError):
    """The store answered, but cannot do what it is asked, and will not by itself: no
    table, no permission, wrong password, a value that is none of ours.  One line."""


class StoreUnavailable(StoreError):
    """The store did not answer, not in time, or as one that cannot be trusted now: down,
    slow, restarting, read-only when asked to write.  Asking again later may help."""


class WriteUnconfirmed(StoreUnavailable):
    """The store has what was written, and gates hear of it, but if another server takes over
    now it could be lost.  Writing the same again is how to make sure."""


class Follower(Protocol):
    """Is told by `Store.follow`.  The calls are made in the loop, and do not block."""

    def following(self) -> None:
        """From now on every change is told.  What was read before may be out of date."""

    def changed(self, keys: Collection[str] | None) -> None:
        """
        Something has changed.

        :param keys: of the devices that changed, came or went; None for any: the store
            was emptied, or more changed than can be told one by one.
        """

    def alive(self) -> None:
        """The store and its push channel have just been known to be good."""


@frozen
class Written:
    """
    What a write did.

    :ivar added: devices that were not there before.
    :ivar changed: devices that were there, and differ now.
    """

    added: int = 0
    changed: int = 0


class Store(Protocol):
    """A store of devices."""

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        """
        :param keys: a few, asked for in one round trip.
        :returns: the devices by their keys, without those that are not listed.  A device
            of which something is stored that cannot be understood is denied, and has a
            `Device.problem`; the others are answered all the same.
        :raises StoreUnavailable: if there is no answer within the time limit.
        :raises StoreError: if the store cannot answer, and will not by itself.
        """

    async def follow(self, follower: Follower) -> None:
        """
        Follow the changes until the push channel is lost; never returns otherwise.

        The channel is proved good every half second at least, so that a half-open
        connection is noticed within the time limit.

        :raises StoreError: why it is lost.
        """

    async def put(self, devices: Iterable[Device]) -> Written:
        """
        Add devices, or replace those with the same keys, whole and at once for each.  What
        is written when this returns is not lost if another server takes over.

        :param devices: a batch of at most some thousands.
        :raises WriteUnconfirmed: if that is not certain, also for what was as it is before.
        :raises StoreError: if it fails; what is written already stays.
        """

    async def remove(self, keys: Collection[str]) -> int:
        """
        :returns: how many of them were there.
        :raises StoreError: as `put`.
        """

    def devices(self) -> AsyncIterator[Device]:
        """
        :returns: all devices, in no order; never held in memory together.  Some may have
            a `Device.problem`.
        """

    async def count(self) -> int:
        """:returns: how many devices there are, perhaps roughly."""

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        """
        Take a place, or keep it.  Atomic over all gates.

        :param key: of what has a limit.
        :param holder: who takes it, unique over all gates; again to renew.
        :param places: how many there are.
        :param seconds: how long it is kept without a renewal.
        :returns: whether there was a place.
        """

    async def release(self, key: str, holder: str) -> None:
        """Give a place back."""

    async def close(self) -> None:
        """Close every connection.  Nothing else is called afterwards."""


@frozen
class StoreOptions:
    """
    How to reach a store.

    :ivar url: where it is, with what its clients understand; may have a password.
    :ivar prefix: what the keys of a Redis registry begin with; of a PostgreSQL one, the
        table's name, maybe with a schema.
    :ivar timeout: how many seconds an answer may take.
    :ivar ca_file: PEM with the CAs that the store's certificate is verified by; None for
        the system's.
    :ivar certificate_file: PEM of the client certificate, or None.
    :ivar key_file: PEM of its key, or None.
    :ivar password: None if it is in the URL, or there is none.
    :ivar contents: the names of these files that were read already, and what is in them.
    """

    url: str
    prefix: str
    timeout: float = 1.0
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    password: str | None = None
    contents: tuple[tuple[str, bytes], ...] = ()

    def __repr__(self) -> str:
        """Without the URL, the password and the key, which are secret."""
        return f"<StoreOptions {self.prefix}>"
