"""
The search for paths that OpenSSL did not choose.

OpenSSL builds one path and stops at the first anchor.  If that path fails, it
tries no other.  But there may be a better one: to a CA above that anchor, to
another CA with the same name, through a cross-signed intermediate, or around an
expired intermediate.  The search goes up from the leaf and tries the shortest
paths first.  OpenSSL verifies each path that it finds, by itself and against the
one CA that it ends in.

A client decides how much there is to search.  So each step has a cost, and the
search stops when its budget is spent.
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
from mtlsgate.tls.openssl_private import forget_errors
from mtlsgate.tls.trust import encoded, openssl_certificate, trust_store

#: How many of the client's certificates are considered.
MAX_PRESENTED = 64
#: How many paths OpenSSL verifies in one search.
MAX_ATTEMPTS = 16
#: The budget of one search.  Checking a P-256 signature costs 1, about 0.1 ms.
BUDGET = 100


class Search:
    """
    Looks for paths among the configured CAs and the certificates that a client sent.

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
        :returns: the digests of the configured CAs that the leaf may lead to,
            judging by names alone.
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
        :param targets: the configured CAs that a path should reach.
        :param at: the time to verify by.
        :returns: paths that OpenSSL verified, the shortest first.  Several may
            reach the same target.
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
        """:returns: the certificates that may continue a path, configured CAs first."""
        last = path[-1]
        name = _key_of_issuer(last)
        same_name = (*self._configured.get(name, ()), *above.get(name, ()))
        for same_key in _by_key(same_name):
            budget.spend(0.1)
            if budget.is_spent:
                return
            # A path with two certificates of the same name and key is a circle.
            if any(_is_twin(same_key[0], one) for one in path) or _surely_not_signed(
                same_key[0], last, budget
            ):
                continue
            for issuer in same_key:
                if not _is_gone(issuer, at) and _keys_fit(issuer, last):
                    yield issuer

    def _above(self, leaf: Certificate, presented: Iterable[Certificate]) -> _BySubject:
        """:returns: the certificates that may lead up from the leaf, in an order
        that does not depend on the client's."""
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
    """What is left of a search's budget."""

    def __init__(self, units: float) -> None:
        self._left = units
        self.checked = dict[tuple[bytes, bytes], bool]()

    @property
    def is_spent(self) -> bool:
        """Whether the budget is used up."""
        return self._left <= 0

    def spend(self, units: float) -> None:
        """Take a cost from the budget."""
        self._left -= units


_BySubject = dict[Hashable, list[Certificate]]


def _by_subject(certificates: Iterable[Certificate]) -> _BySubject:
    index: _BySubject = {}
    for one in certificates:
        # A client may send certificates that cannot be read; skip them.
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
    """:returns: the certificates in groups with the same key."""
    groups: dict[bytes, list[Certificate]] = {}
    for one in certificates:
        groups.setdefault(one.spki, []).append(one)
    return groups.values()


def _is_twin(one: Certificate, other: Certificate) -> bool:
    """:returns: whether both have the same name and key."""
    return one.spki == other.spki and one.subject.key == other.subject.key


def _keys_fit(issuer: Certificate, certificate: Certificate) -> bool:
    """:returns: whether the key identifiers fit an issuer and its certificate."""
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
    """:returns: the cost of checking a signature by the issuer's key."""
    size = len(issuer.spki)
    if size > 200:
        # RSA: grows with the square of the key length; 1 for 4096 bits.
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
    Have OpenSSL build and verify a path without a handshake.  Call
    `handshake_objection` for the checks that only a handshake makes.

    :param anchors: the trusted certificates; pass a `trust_store` to reuse it.
    :param flags: OpenSSL's verification flags, `X509StoreFlags`.
    :param at: the time to verify by.
    """
    store = anchors if isinstance(anchors, X509Store) else trust_store(anchors, flags)
    store.set_time(at)
    chain = []
    for one in intermediates:
        # Skip what OpenSSL cannot read.
        with suppress(OpenSSLError):
            chain.append(openssl_certificate(one))
    context = X509StoreContext(store, openssl_certificate(leaf), chain)
    try:
        verified = context.get_verified_chain()
    except X509StoreContextError as error:
        forget_errors()
        return error
    return tuple(known(encoded(one)) for one in verified)
