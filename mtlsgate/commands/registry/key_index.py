"""
The keys of very many devices, on disk instead of in memory.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from mtlsgate.commands.registry.naming import RegistryError

T = TypeVar("T")

#: KiB of memory that each index may take; what does not fit is in a file that has no name.
_CACHE = 65536


class KeyIndex(AbstractContextManager["KeyIndex"]):
    """
    From keys to texts, each key once, in a temporary file.  As a context, it says in a
    `RegistryError` if the file fails.

    :ivar _database: it is gone when it is closed, or the program ends.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        for setting in (f"cache_size = -{_CACHE}", "journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, value) WITHOUT ROWID")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._database.close()
        if isinstance(error, sqlite3.Error):
            where = tempfile.gettempdir()
            raise RegistryError(f"the temporary file with the keys, in {where}: {error}") from error

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM keys").fetchone()
        return int(count)

    def add(self, rows: Sequence[tuple[str, object]]) -> bool:
        """
        :param rows: keys and values; the value of a key that is there stays.
        :returns: whether none of the keys was there.
        """
        before = self._database.total_changes
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR IGNORE INTO keys VALUES (?, ?)", rows)
        self._database.execute("COMMIT")
        return self._database.total_changes - before == len(rows)

    def value(self, key: str) -> object:
        """:returns: the value of a key, or None if the key is not there."""
        found = self._database.execute("SELECT value FROM keys WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def __iter__(self) -> Iterator[tuple[str, object]]:
        """:returns: keys and values, sorted by key."""
        yield from self._database.execute("SELECT key, value FROM keys ORDER BY key")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """:returns: the items, in lists of that many."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
