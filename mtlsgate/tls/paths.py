"""
Paths that OpenSSL did not choose.

OpenSSL builds one path and stops at the first anchor that it meets; it does not
try another when that one fails.  But there may be a better one: to a CA above
that anchor, to another CA of the same name, through a cross-signed intermediate,
or around an intermediate that has expired.  The search goes up from the leaf,
the shortest paths first.  Each path that it finds is verified anew by OpenSSL,
alone and against the one CA that it ends in.

A client decides how much there is to search, so every step costs, and the
search ends when its budget is spent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from datetime import datetime

from OpenSSL.crypto import Error as OpenSSLError
from OpenSSL.crypto import X509Store, X509StoreContext, X509StoreContextError

from mtlsgate.admission import Path
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate, known
from mtlsgate.certificates.signatures import is_surely_not_by
from mtlsgate.tls.handshake_checks import handshake_objection
from mtlsgate.tls.trust import encoded, openssl_certificate, trust_store

#: Certificates that a path may be made of, beside the configured CAs.
MAX_PRESENTED = 64
#: Paths that OpenSSL is asked to verify in one search.
MAX_ATTEMPTS = 16
#: What one search may cost; a signature by a P-256 key is 1, some 0.1 ms.
BUDGET = 100


class Search:
    """
    Looks for paths among the configured CAs and what a client presented.

    :ivar _configured: the configured CAs, by the keys of their subjects.
    """

    def __init__(self, authorities: Iterable[Certificate], flags: int) -> None:
        """
        :param authorities: the CAs of all rules.
        :param flags: OpenSSL's verification flags, `X509StoreFlags`.
        """
        self._flags = flags
        self._configured = _by_subject(authorities)

    def reachable(self, leaf: Certificate, presented: Iterable[Certificate]) -> Set[bytes]:
        """
        :param presented: what the client sent after its leaf, in any order.
        :returns: the digests of the configured CAs that names lead to.
        """
        return {
            one.sha256
            for name in self._reach(leaf, _by_subject(presented))
            for one in self._configured.get(name, ())
        }

    def paths(
        self,
        leaf: Certificate,
        presented: Iterable[Certificate],
        targets: Sequence[Certificate],
        at: datetime,
    ) -> Iterator[Path]:
        """
        :param presented: what the client sent after its leaf, in any order.
        :param targets: configured CAs that a path is looked for to.
        :param at: the time to verify by.
        :returns: paths that OpenSSL verified, the shortest first; there may be
            several to one target.
        """
        above, budget = self._above(leaf, presented), _Budget(BUDGET)
        wanted = {one.sha256 for one in targets}
        waiting, attempts = deque[Path]([(leaf,)]), 0
        while waiting and not budget.is_spent:
            path = waiting.popleft()
            for issuer in self._issuers(path, above, at, budget):
                longer = (*path, issuer)
                waiting.append(longer)
                if issuer.sha256 in wanted:
                    if attempts == MAX_ATTEMPTS:
                        return
                    attempts += 1
                    budget.spend(sum(_effort(one) for one in longer[1:]))
                    found = verified_path(leaf, longer[1:-1], [issuer], self._flags, at)
                    if isinstance(found, tuple) and handshake_objection(found) is None:
                        yield found

    def _issuers(
        self, path: Path, above: _BySubject, at: datetime, budget: _Budget
    ) -> Iterator[Certificate]:
        """:returns: the certificates that a path may go on with, the configured first."""
        last = path[-1]
        name = _key_of_issuer(last)
        same_name = (*self._configured.get(name, ()), *above.get(name, ()))
        for same_key in _by_key(same_name):
            budget.spend(0.1)
            if budget.is_spent:
                return
            # A path through two of the same name and key goes in a circle.
            if any(_is_twin(same_key[0], one) for one in path) or _surely_not_signed(
                same_key[0], last, budget
            ):
                continue
            for issuer in same_key:
                if not _is_gone(issuer, at) and _keys_fit(issuer, last):
                    yield issuer

    def _above(self, leaf: Certificate, presented: Iterable[Certificate]) -> _BySubject:
        """:returns: what a client presented, as far as it may lead up from the leaf,
        in an order of its own: the client's does not matter."""
        brought = _by_subject(presented)
        above: _BySubject = {}
        room = MAX_PRESENTED
        for name in self._reach(leaf, brought):
            configured = self._configured.get(name, ())
            new = {one for one in brought.get(name, ()) if one not in configured}
            above[name] = sorted(new, key=lambda one: one.sha256)[:room]
            room -= len(above[name])
        return above

    def _reach(self, leaf: Certificate, brought: _BySubject) -> Iterator[Hashable]:
        """:returns: the names that lead up from the leaf, the nearest first."""
        names, seen = deque([_key_of_issuer(leaf)]), set[Hashable]()
        while names:
            name = names.popleft()
            if name is None or name in seen:
                continue
            seen.add(name)
            yield name
            for one in (*self._configured.get(name, ()), *brought.get(name, ())):
                names.append(_key_of_issuer(one))


class _Budget:
    """What a search may still cost."""

    def __init__(self, units: float) -> None:
        self._left = units
        self.checked = dict[tuple[bytes, bytes], bool]()

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self._left <= 0

    def spend(self, units: float) -> None:
        """Take something out of it."""
        self._left -= units


_BySubject = dict[Hashable, list[Certificate]]


def _by_subject(certificates: Iterable[Certificate]) -> _BySubject:
    index: _BySubject = {}
    for one in certificates:
        # A client may send what cannot be read; nobody needs that.
        with suppress(*UNPARSABLE):
            index.setdefault(one.subject.key, []).append(one)
    return index


def _key_of_issuer(certificate: Certificate) -> Hashable:
    try:
        return certificate.issuer.key
    except UNPARSABLE:
        return None


def _is_gone(certificate: Certificate, at: datetime) -> bool:
    try:
        return not certificate.not_before <= at.replace(microsecond=0) <= certificate.not_after
    except UNPARSABLE:
        return True


def _by_key(certificates: Iterable[Certificate]) -> Iterable[list[Certificate]]:
    """:returns: certificates of one key together."""
    groups: dict[bytes, list[Certificate]] = {}
    for one in certificates:
        groups.setdefault(one.spki, []).append(one)
    return groups.values()


def _is_twin(one: Certificate, other: Certificate) -> bool:
    """:returns: whether both are of the same name and key."""
    return one.spki == other.spki and one.subject.key == other.subject.key


def _keys_fit(issuer: Certificate, certificate: Certificate) -> bool:
    """:returns: whether the key identifiers allow that one has issued the other."""
    try:
        own, named = issuer.subject_key_identifier, certificate.authority_key_identifier
    except UNPARSABLE:
        return False
    return own is None or named is None or own == named


def _surely_not_signed(issuer: Certificate, certificate: Certificate, budget: _Budget) -> bool:
    pair = issuer.spki, certificate.sha256
    if pair not in budget.checked:
        budget.spend(_effort(issuer))
        budget.checked[pair] = is_surely_not_by(issuer, certificate)
    return budget.checked[pair]


def _effort(issuer: Certificate) -> float:
    """:returns: what it costs to check a signature by its key."""
    size = len(issuer.spki)
    if size > 200:
        # RSA: the square of its length; 1 for 4096 bits.
        return (size / 550) ** 2
    # P-256 and Edwards curves are fast, other curves are not.
    return 1 if size <= 91 else 8


def verified_path(
    leaf: Certificate,
    intermediates: Iterable[Certificate],
    anchors: Sequence[Certificate] | X509Store,
    flags: int,
    at: datetime,
) -> Path | X509StoreContextError:
    """
    Have OpenSSL build and verify a path, without a handshake.  What a handshake
    checks beyond that, `handshake_objection` does.

    :param anchors: what is trusted; a `trust_store` if it is asked for often.
    :param flags: OpenSSL's verification flags, `X509StoreFlags`.
    :param at: the time to verify by.
    """
    store = anchors if isinstance(anchors, X509Store) else trust_store(anchors, flags)
    store.set_time(at)
    chain = []
    for one in intermediates:
        # Nobody needs what OpenSSL cannot read.
        with suppress(OpenSSLError):
            chain.append(openssl_certificate(one))
    context = X509StoreContext(store, openssl_certificate(leaf), chain)
    try:
        verified = context.get_verified_chain()
    except X509StoreContextError as error:
        return error
    return tuple(known(encoded(one)) for one in verified)
