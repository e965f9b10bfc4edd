"""
What all workers count together, in memory that they share.

Each worker writes its own counts and reads those of the others, so a worker that is
killed takes nothing with it but its own counts, which the supervisor clears.  A lock
of the system's keeps two workers from deciding at the same moment.  The system
releases it if its holder is killed.

A count has a key of eight bytes, the keyed hash of a server's name, a kind and a
value.  Keys are found in a set of places, which the hash chooses.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from hashlib import blake2b

from attrs import field, frozen

from mtlsgate.gate.limits import Kind, Tally

#: Places in a set, and sets of counts; four times as many places as connections that
#: one process may have.
_PLACES, _SETS = 64, 8192
#: Sets of token buckets, with sixteen each: as many as `gate.limits` remembers.
_BUCKETS, _BUCKET_SETS = 16, 4096

_KEY = 8
_COUNT = struct.Struct("=I")
_LEVEL = struct.Struct("=dd")
_NUMBER = struct.Struct("=Q")
_HEAD = 4096
_SET_SIZE = _PLACES * (_KEY + _COUNT.size)
_REGION = _SETS * _SET_SIZE
_BUCKET_SET_SIZE = _BUCKETS * (_KEY + _LEVEL.size)
_REGIONS = _HEAD + _BUCKET_SETS * _BUCKET_SET_SIZE
_FREE = bytes(_KEY)


class Board:
    """
    The shared memory.

    :ivar descriptor: of the file in memory.
    """

    def __init__(self, descriptor: int, workers: int, secret: bytes) -> None:
        """
        :param descriptor: of the file in memory; it belongs to the board.
        :param workers: how many there are.
        :param secret: for the hash, so that nobody outside can choose colliding keys.
        """
        self.descriptor = descriptor
        self._workers = workers
        self._secret = secret
        self._memory = mmap.mmap(descriptor, _size(workers))

    @classmethod
    def create(cls, workers: int) -> Board:
        """:param workers: how many there will be."""
        descriptor = os.memfd_create("mtlsgate-board", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(workers))
        return cls(descriptor, workers, os.urandom(16))

    @property
    def secret(self) -> str:
        """What a worker needs to take part, in hex."""
        return self._secret.hex()

    def clear(self, worker: int) -> None:
        """
        Forget what a worker counted.

        :param worker: its index, from 0.
        """
        # Zeroes in a new file take no memory, those that are written do.
        start = _REGIONS + worker * _REGION
        for offset in range(start, start + _REGION, _SET_SIZE):
            if self._memory[offset : offset + _PLACES * _KEY].strip(b"\0"):
                self._memory[offset : offset + _SET_SIZE] = bytes(_SET_SIZE)

    def __enter__(self) -> None:
        """Keep other workers from deciding; short, because they wait."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        """Let them decide again."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def numbers(self) -> Iterator[int]:
        """:returns: numbers, each of which only one worker gets."""
        while True:
            with self:
                number = _NUMBER.unpack_from(self._memory, 0)[0] + 1
                _NUMBER.pack_into(self._memory, 0, number)
            yield number

    def key(self, *parts: bytes) -> bytes:
        """:returns: the key of these parts."""
        made = blake2b(digest_size=_KEY, key=self._secret)
        for part in parts:
            made.update(len(part).to_bytes(4))
            made.update(part)
        return made.digest() if made.digest() != _FREE else b"\1" * _KEY

    def others(self, worker: int, key: bytes) -> int:
        """:returns: what all workers but this one count."""
        offset, found = _offset(key, _SETS, _SET_SIZE), 0
        for other in range(self._workers):
            if other != worker:
                start = _REGIONS + other * _REGION + offset
                place = self._find(start, _PLACES, key)
                if place is not None:
                    at = start + _PLACES * _KEY + place * _COUNT.size
                    found += _COUNT.unpack_from(self._memory, at)[0]
        return found

    def tell(self, worker: int, key: bytes, count: int) -> None:
        """:param count: what a worker counts now."""
        start = _REGIONS + worker * _REGION + _offset(key, _SETS, _SET_SIZE)
        place = self._find(start, _PLACES, key)
        is_new = place is None
        if place is None:
            place = self._find(start, _PLACES, _FREE) if count else None
            if place is None:
                # Full: then others do not know of it.
                return
        name = start + place * _KEY
        if count:
            # The count first: others look for the key.
            _COUNT.pack_into(self._memory, start + _PLACES * _KEY + place * _COUNT.size, count)
            if is_new:
                self._memory[name : name + _KEY] = key
        else:
            self._memory[name : name + _KEY] = _FREE

    def take(self, key: bytes, rate: float, now: float) -> bool:
        """
        :param rate: tokens per second, as in `Buckets.take`.
        :returns: whether there was a token left.  To be called with the lock held.
        """
        start = _HEAD + _offset(key, _BUCKET_SETS, _BUCKET_SET_SIZE)
        values = start + _BUCKETS * _KEY
        place = self._find(start, _BUCKETS, key)
        size = max(1.0, rate)
        level, since = size, now
        if place is not None:
            level, since = _LEVEL.unpack_from(self._memory, values + place * _LEVEL.size)
        else:
            place = self._place_for_bucket(start)
            self._memory[start + place * _KEY : start + (place + 1) * _KEY] = key
        level = min(size, level + (now - since) * rate)
        granted = level >= 1.0
        _LEVEL.pack_into(self._memory, values + place * _LEVEL.size, level - granted, now)
        return granted

    def _place_for_bucket(self, start: int) -> int:
        """:returns: a free place, or that of the source which was silent longest."""
        free = self._find(start, _BUCKETS, _FREE)
        if free is not None:
            return free
        values = start + _BUCKETS * _KEY
        ages = [
            _LEVEL.unpack_from(self._memory, values + place * _LEVEL.size)[1]
            for place in range(_BUCKETS)
        ]
        return ages.index(min(ages))

    def _find(self, start: int, places: int, key: bytes) -> int | None:
        """:returns: the place of a key in a set."""
        at, end = start, start + places * _KEY
        while (at := self._memory.find(key, at, end)) != -1:
            place, rest = divmod(at - start, _KEY)
            if rest == 0:
                return place
            at += 1
        return None

    def tally(self, worker: int, server: str) -> Tally:
        """:returns: the counters of a server, which include those of other workers."""
        name = server.encode(errors="surrogateescape")
        return Tally(buckets=_Buckets(self, name), elsewhere=_Others(self, worker, name))


@frozen
class _Others:
    """
    What other workers count of one server; `gate.limits.Elsewhere`.

    :ivar _keys: of what the server has only one of.
    """

    _board: Board
    _worker: int
    _server: bytes
    _keys: dict[str, bytes] = field(factory=dict)

    def __enter__(self) -> None:
        self._board.__enter__()

    def __exit__(self, *_: object) -> None:
        self._board.__exit__()

    def count(self, kind: Kind, key: bytes = b"") -> int:
        """:returns: how many they count."""
        return self._board.others(self._worker, self._key(kind, key))

    def tell(self, kind: Kind, count: int, key: bytes = b"") -> None:
        """:param count: how many this worker counts now."""
        self._board.tell(self._worker, self._key(kind, key), count)

    def _key(self, kind: str, key: bytes) -> bytes:
        if key:
            return self._board.key(self._server, kind.encode(), key)
        if kind not in self._keys:
            self._keys[kind] = self._board.key(self._server, kind.encode())
        return self._keys[kind]


@frozen
class _Buckets:
    """The token buckets of one server, for all workers."""

    _board: Board
    _server: bytes

    def take(self, source: str, rate: float, now: float) -> bool:
        """:returns: whether there was a token left."""
        return self._board.take(self._board.key(self._server, b"rate", source.encode()), rate, now)


def _size(workers: int) -> int:
    return _REGIONS + workers * _REGION


def _offset(key: bytes, sets: int, size: int) -> int:
    return int.from_bytes(key) % sets * size
