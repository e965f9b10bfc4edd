"""
Paths that OpenSSL did not choose.

OpenSSL stops at the first anchor it meets.  Where a rule's CA issued another
rule's CA, or a pin that is an anchor and a CA, the path to the upper one has
to be looked for, or the rule on it would never hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError

from mtlsgate.admission import Path, allows_client_authentication
from mtlsgate.credentials import UNPARSABLE, is_ca, key_weakness, sha256, signature_weakness

#: Longer paths tried for one client, which bounds what it can make the gate do.
MAX_PATHS = 16


class LongerPaths:
    """
    Extends a verified path through the configured CAs above its anchor.

    :ivar _issuers: for each anchor the configured CAs that issued it, by digest.
    """

    def __init__(
        self,
        authorities: Sequence[x509.Certificate],
        lone_pins: Sequence[x509.Certificate],
        flags: int,
    ) -> None:
        """
        :param authorities: the CAs of all rules.
        :param lone_pins: the pins that are anchors.
        :param flags: OpenSSL's verification flags, `X509StoreFlags`.
        """
        self._flags = flags
        by_subject: dict[bytes, list[x509.Certificate]] = {}
        for one in authorities:
            by_subject.setdefault(one.subject.public_bytes(), []).append(one)
        self._issuers = {
            sha256(one): issuers
            for one in (*authorities, *filter(is_ca, lone_pins))
            if (issuers := list(_issuers_of(one, by_subject)))
        }

    def of(self, path: Path) -> Iterator[Path]:
        """
        :param path: as OpenSSL verified it, leaf first, its anchor last.
        :returns: the same path up to each CA above, nearest first, each
            verified anew by OpenSSL against that CA alone.
        """
        for higher in islice(self._above(path), MAX_PATHS):
            yield from self._verified(higher)

    def _above(self, path: Path) -> Iterator[Path]:
        waiting = [path]
        for lower in waiting:  # which grows underway
            for issuer in self._issuers.get(sha256(lower[-1]), ()):
                if issuer not in lower:
                    waiting.append((*lower, issuer))
                    yield waiting[-1]

    def _verified(self, path: Path) -> Iterator[Path]:
        # Neither does this verification look at extended key usages, nor at
        # the strength of keys and signatures, for which see _issuers_of.
        try:
            if not all(map(allows_client_authentication, path[1:])):
                return
        except UNPARSABLE:
            return
        store = X509Store()
        store.set_flags(self._flags)
        leaf, *intermediates, anchor = map(X509.from_cryptography, path)
        store.add_cert(anchor)
        try:
            chain = X509StoreContext(store, leaf, intermediates).get_verified_chain()
        except X509StoreContextError:
            return
        yield tuple(one.to_cryptography() for one in chain)


def _issuers_of(
    certificate: x509.Certificate, by_subject: dict[bytes, list[x509.Certificate]]
) -> Iterator[x509.Certificate]:
    if signature_weakness(certificate) is not None:
        return
    for issuer in by_subject.get(certificate.issuer.public_bytes(), ()):
        if issuer != certificate and key_weakness(issuer) is None:
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                continue
            yield issuer
