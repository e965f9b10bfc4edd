"""
Admitted full handshakes, whose sessions may be resumed.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from attrs import frozen

from mtlsgate.admission import Path
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.server_names import canonical

#: How many handshakes are remembered.
MAX_REMEMBERED = 16384


@frozen
class FullHandshake:
    """
    A full handshake that was admitted.

    :ivar path: the path that was admitted.
    :ivar at: when it was admitted.
    """

    path: Path
    at: datetime


class FullHandshakes:
    """
    Admitted full handshakes, by leaf and server name.  They are needed because a
    session ticket holds the leaf but not its path.  If there are too many, the
    oldest is forgotten.
    """

    def __init__(self) -> None:
        self._begun: OrderedDict[tuple[bytes, str | None], FullHandshake] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def note(self, path: Path, server_name: str | None, at: datetime) -> None:
        """
        :param server_name: the name that the client asked for.
        :param at: the time now.
        """
        key = _key(path[0], server_name)
        self._begun[key] = FullHandshake(path, at)
        self._begun.move_to_end(key)
        if len(self._begun) > MAX_REMEMBERED:
            self._begun.popitem(last=False)

    def find(self, leaf: Certificate, server_name: str | None) -> FullHandshake | None:
        """:returns: this client's latest handshake with this server name, or None."""
        return self._begun.get(_key(leaf, server_name))


def _key(leaf: Certificate, server_name: str | None) -> tuple[bytes, str | None]:
    return leaf.sha256, None if server_name is None else canonical(server_name)
