"""
What is kept, and who may do what with it: plain values, no network.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Access:
    """
    What the clients of one rule may do.

    :ivar read: the beginnings of the keys that they may read.
    :ivar write: and of those that they may write.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def may_read(self, key: str) -> bool:
        """:returns: whether they may read it."""
        return key.startswith(self.read) or self.may_write(key)

    def may_write(self, key: str) -> bool:
        """:returns: whether they may write it."""
        return key.startswith(self.write)


class QuotaExceeded(Exception):
    """The client keeps as many keys as it may."""


class Store:
    """
    The keys of all clients.

    :ivar values: what is kept, by key.
    :ivar _owners: who wrote each key last, and so pays for it.
    """

    def __init__(self, max_keys: int) -> None:
        """
        :param max_keys: how many keys one owner may keep.
        """
        self.values: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._max_keys = max_keys

    def owned(self, owner: str) -> int:
        """:returns: how many keys somebody keeps."""
        return sum(1 for one in self._owners.values() if one == owner)

    def set(self, owner: str, key: str, value: str) -> None:
        """
        Keep a value.

        :raises QuotaExceeded: if the owner has too many already.
        """
        if self._owners.get(key) != owner and self.owned(owner) >= self._max_keys:
            raise QuotaExceeded
        self.values[key] = value
        self._owners[key] = owner

    def delete(self, key: str) -> bool:
        """:returns: whether there was such a key."""
        self._owners.pop(key, None)
        return self.values.pop(key, None) is not None
