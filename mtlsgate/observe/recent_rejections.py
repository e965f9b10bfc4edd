"""
The latest rejections, remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property

from attrs import evolve, frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.server_names import canonical
from mtlsgate.gate.events import AdmittedConnection, ClosedConnection, RejectedConnection, Reload
from mtlsgate.observe.connection_status import PresentedLeaf, RejectionStatus
from mtlsgate.observe.human_log import is_pinnable, pin_block
from mtlsgate.observe.leaf_names import issuer_of, read, subject_of
from mtlsgate.peer import address_text
from mtlsgate.text import cut, printable

#: How many are remembered.
KEPT = 100
#: The largest leaf, in bytes, that is kept. Of others only the digest is.
_LARGEST_LEAF = 4096
#: Characters of a rejection's detail, which may quote the client.
_LONGEST_DETAIL = 1000


class RecentRejections:
    """
    Remembers the latest rejections.

    It keeps little of each, whatever the client sent.

    :ivar count: how many rejections there were.
    :ivar _quiet: whether to forget connections that come and go without a byte.
    """

    def __init__(self, quiet: bool = False, most: int = KEPT) -> None:
        self.count = 0
        self._quiet = quiet
        self._kept = deque[_Kept](maxlen=most)

    def __iter__(self) -> Iterator[RejectionStatus]:
        """The latest first."""
        return (kept.facts for kept in reversed(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    def leaf(self, id: int) -> tuple[str, Certificate] | None:
        """
        :returns: the server and the leaf of a rejection; None if it is not remembered, or
            not its leaf.
        """
        for kept in self._kept:
            if kept.id == id and kept.connection.leaf is not None:
                return kept.connection.server, kept.connection.leaf
        return None

    def set_quiet(self, quiet: bool) -> None:
        """:param quiet: whether to leave out connections that come and go without a byte."""
        self._quiet = quiet

    def admitted(self, connection: AdmittedConnection) -> None:
        """Nothing to remember."""

    def rejected(self, connection: RejectedConnection) -> None:
        """Remember a rejection, and forget the oldest."""
        if self._quiet and connection.is_health_check:
            return
        self.count += 1
        leaf, rejection = connection.leaf, connection.rejection
        if len(rejection.detail) > _LONGEST_DETAIL:
            rejection = evolve(rejection, detail=cut(rejection.detail, _LONGEST_DETAIL))
        is_small = leaf is not None and len(leaf.der) <= _LARGEST_LEAF
        self._kept.append(
            _Kept(
                self.count,
                evolve(
                    connection,
                    leaf=leaf if is_small else None,
                    presented=(),
                    rejection=rejection,
                ),
                None if leaf is None else leaf.sha256.hex(),
            )
        )

    def closed(self, connection: ClosedConnection) -> None:
        """Nothing to remember."""

    def reloaded(self, reload: Reload) -> None:
        """Nothing to remember."""


@frozen(slots=False)
class _Kept:
    id: int
    connection: RejectedConnection
    digest: str | None

    @cached_property
    def facts(self) -> RejectionStatus:
        """The rejection as a status; made on the first request for it."""
        return _rejection(self)


def _rejection(kept: _Kept) -> RejectionStatus:
    connection, rejection = kept.connection, kept.connection.rejection
    leaf = connection.leaf
    return RejectionStatus(
        id=kept.id,
        at=connection.at,
        number=connection.number,
        server=printable(connection.server),
        address=printable(address_text(connection.address)),
        reason=rejection.reason.value,
        detail=printable(rejection.detail),
        depth=rejection.depth,
        server_name=None if connection.server_name is None else printable(connection.server_name),
        tls_version=connection.tls_version,
        seconds=connection.seconds,
        leaf=None if kept.digest is None else _leaf(kept.digest, leaf),
        pin_block=pin_block(leaf) if leaf is not None and is_pinnable(connection) else None,
    )


def _leaf(digest: str, leaf: Certificate | None) -> PresentedLeaf:
    if leaf is None:
        return PresentedLeaf(sha256=digest)
    names = leaf.readable_names
    # Much of a certificate is parsed on first use, and may not parse.
    return PresentedLeaf(
        sha256=digest,
        subject=subject_of(leaf),
        issuer=issuer_of(leaf),
        serial_number=read(lambda: f"{leaf.serial_number:x}", None),
        not_before=read(lambda: leaf.not_before, None),
        not_after=read(lambda: leaf.not_after, None),
        dns_names=tuple(printable(canonical(name)) for name in names.dns),
        uris=tuple(map(printable, names.uris)),
    )
