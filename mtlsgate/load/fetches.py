"""
What an epoch needs that the gate fetches by itself.

Loading fetches nothing: it takes what `mtlsgate.load.state` has kept.
`mtlsgate.run.fetcher` fetches, and `mtlsgate.load.refresh` makes an epoch with what
came.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from attrs import evolve, frozen

from mtlsgate.admission import Rule
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.crl import RevocationList
from mtlsgate.config.urls import Url, parse_url
from mtlsgate.load.servers import LoadedServer
from mtlsgate.load.state import KeptDocuments, State


@frozen
class Fetch:
    """
    A document that an epoch needs.

    :ivar url: where it comes from.
    :ivar path: where it is kept.
    :ivar kept: keeps it.
    :ivar strict: whether revocation lists must follow the RFC 5280 profile.
    :ivar authorities: the CAs of the rules that use it.
    :ivar lists: the revocation lists in force; empty before the first ones came.
    """

    url: Url
    path: Path
    kept: KeptDocuments
    strict: bool
    authorities: tuple[Certificate, ...]
    lists: tuple[RevocationList, ...]

    @property
    def key(self) -> Hashable:
        """Identifies it in all epochs."""
        return self.url.text, self.strict

    @property
    def ages(self) -> frozenset[object]:
        """The ages of the lists in force: others are other lists."""
        return frozenset((one.kind, one.age) for one in self.lists)

    @property
    def until(self) -> datetime | None:
        """When the first of the lists in force ends; None if there is none."""
        return min((one.next_update for one in self.lists), default=None)


def fetches_of(servers: Iterable[LoadedServer], state: State) -> tuple[Fetch, ...]:
    """:returns: the documents that servers need, one for each URL."""
    return combined(
        Fetch(parse_url(url), state.path_of(url), state.kept, strict, rule.authorities, lists)
        for url, strict, rule, lists in _used(servers)
    )


def combined(fetches: Iterable[Fetch]) -> tuple[Fetch, ...]:
    """:returns: each document once, with the CAs of all who use it."""
    found: dict[Hashable, Fetch] = {}
    for one in fetches:
        known = found.setdefault(one.key, one)
        both = dict.fromkeys((*known.authorities, *one.authorities))
        found[one.key] = evolve(known, authorities=tuple(both))
    return tuple(found.values())


def _used(
    servers: Iterable[LoadedServer],
) -> Iterator[tuple[str, bool, Rule, tuple[RevocationList, ...]]]:
    for server in servers:
        policy = server.gate.context.policy
        for rule in policy.admission.rules if policy.admission else ():
            fetched = {} if rule.revocation is None else rule.revocation.fetched
            for url, lists in fetched.items():
                yield url, policy.strict, rule, lists
