"""
The answers that a gate remembers, with bounds in number and time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from mtlsgate.admission.devices import Device


class Unknown:
    """Nothing is remembered of a key."""


UNKNOWN = Unknown()


class Memory:
    """
    What a registry said of keys, the most recently used last.  That a key is not listed
    is remembered as well.
    """

    def __init__(self, entries: int, seconds: float) -> None:
        """
        :param entries: how many keys at most.
        :param seconds: how long an answer counts.
        """
        self._entries = entries
        self._seconds = seconds
        self._found: OrderedDict[str, tuple[Device | None, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str, now: float) -> Device | Unknown | None:
        """
        :param now: the clock's seconds.
        :returns: the device; None if it is known not to be listed.
        """
        found = self._found.get(key)
        if found is None:
            return UNKNOWN
        device, until = found
        if now >= until:
            del self._found[key]
            return UNKNOWN
        self._found.move_to_end(key)
        return device

    def put(self, key: str, device: Device | None, now: float) -> None:
        """Remember an answer; the one that was not used for the longest time goes."""
        self._found[key] = device, now + self._seconds
        self._found.move_to_end(key)
        while len(self._found) > self._entries:
            self._found.popitem(last=False)

    def forget(self, keys: Iterable[str]) -> None:
        """Forget these keys."""
        for key in keys:
            self._found.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()
