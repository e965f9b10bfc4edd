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

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.crl import RevocationList
from mtlsgate.certificates.ocsp import Stapling
from mtlsgate.config.urls import Url, parse_url
from mtlsgate.load.servers import LoadedServer
from mtlsgate.load.state import KeptDocuments, State

_HOUR = 3600.0


@frozen(kw_only=True)
class ListFetch:
    """
    Revocation lists that rules need.

    :ivar url: where they come from.
    :ivar path: where they are kept.
    :ivar kept: keeps them.
    :ivar strict: whether they must follow the RFC 5280 profile.
    :ivar authorities: the CAs of the rules that use them.
    :ivar lists: those in force; empty before the first ones came.
    """

    url: Url
    path: Path
    kept: KeptDocuments
    strict: bool
    authorities: tuple[Certificate, ...]
    lists: tuple[RevocationList, ...]
    what: str = "revocation list"
    #: What is true while there is none.
    without: str = "its rules reject every client"
    #: The longest time between two fetches, in seconds.
    longest: float = _HOUR
    #: What to send to the server, or None.
    request: bytes | None = None

    @property
    def key(self) -> Hashable:
        """Identifies it in all epochs."""
        return self.url.text, self.strict

    @property
    def is_missing(self) -> bool:
        """Whether clients are rejected for want of it."""
        return not self.lists

    @property
    def version(self) -> object:
        """Differs if others are in force."""
        return frozenset((one.kind, one.age) for one in self.lists)

    @property
    def until(self) -> datetime | None:
        """When the first of the lists in force ends; None if there is none."""
        return min((one.next_update for one in self.lists), default=None)


@frozen(kw_only=True)
class StapleFetch:
    """
    An OCSP response about a server's own certificate.

    :ivar url: the responder.
    :ivar path: where it is kept.
    :ivar kept: keeps it.
    :ivar stapling: the certificate, and the response in force.
    """

    url: Url
    path: Path
    kept: KeptDocuments
    stapling: Stapling
    what: str = "OCSP response"
    without: str = "handshakes go without one"
    longest: float = 12 * _HOUR
    is_missing: bool = False

    @property
    def request(self) -> bytes:
        """What to send to the responder."""
        return self.stapling.request()

    @property
    def key(self) -> Hashable:
        """Identifies it in all epochs."""
        return self.path

    @property
    def version(self) -> object:
        """Differs if another one is in force."""
        response = self.stapling.response
        return None if response is None else response.this_update

    @property
    def until(self) -> datetime | None:
        """When the one in force ends; None if there is none."""
        response = self.stapling.response
        return None if response is None else response.next_update


Fetch = ListFetch | StapleFetch


def fetches_of(servers: Iterable[LoadedServer], state: State) -> tuple[Fetch, ...]:
    """:returns: the documents that servers need, each once."""
    return combined(one for server in servers for one in _of_server(server, state))


def combined(fetches: Iterable[Fetch]) -> tuple[Fetch, ...]:
    """:returns: each document once, with the CAs of all who use it."""
    found: dict[Hashable, Fetch] = {}
    for one in fetches:
        known = found.setdefault(one.key, one)
        if isinstance(known, ListFetch) and isinstance(one, ListFetch):
            both = dict.fromkeys((*known.authorities, *one.authorities))
            found[one.key] = evolve(known, authorities=tuple(both))
    return tuple(found.values())


def _of_server(server: LoadedServer, state: State) -> Iterator[Fetch]:
    policy, kept = server.gate.context.policy, state.kept
    for credential in policy.credentials:
        if (stapling := credential.stapling) is not None:
            path = state.path_of_response(stapling)
            yield StapleFetch(url=parse_url(stapling.url), path=path, kept=kept, stapling=stapling)
    for rule in policy.admission.rules if policy.admission else ():
        for url, lists in ({} if rule.revocation is None else rule.revocation.fetched).items():
            yield ListFetch(
                url=parse_url(url),
                path=state.path_of(url),
                kept=kept,
                strict=policy.strict,
                authorities=rule.authorities,
                lists=lists,
            )
