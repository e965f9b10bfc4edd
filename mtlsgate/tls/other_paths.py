"""
Paths that OpenSSL did not choose.

OpenSSL builds one path and stops at the first anchor it meets.  Where that
path satisfies no rule, there may be another that does: to a CA above the
anchor, to another CA of the same name and key, through a cross-signed
intermediate, or around an intermediate.  Each candidate is verified anew by
OpenSSL, against the one CA that it is to end in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ObjectIdentifier
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError

from mtlsgate.admission import Path, Rejection, allows_client_authentication
from mtlsgate.certificates.parsing import UNPARSABLE, key_weakness, sha256, signature_weakness
from mtlsgate.reasons import Reason
from mtlsgate.tls.openssl_errors import verification_rejection

#: CAs that are tried for one client, and certificates that a path may be made
#: of: together they bound what a client can make the gate do.
MAX_TARGETS = 16
MAX_CERTIFICATES = 64

#: X509_V_ERR_…
_INVALID_PURPOSE, _LEAF_KEY_TOO_SMALL, _CA_KEY_TOO_SMALL, _DIGEST_TOO_WEAK = 26, 66, 67, 68
_NETSCAPE_CERT_TYPE = ObjectIdentifier("2.16.840.1.113730.1.1")
_TLS_KEYS = (
    rsa.RSAPublicKey,
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
)
#: The Brainpool ones since TLS 1.3 only (RFC 8734).
_TLS_CURVES = frozenset(
    (
        "secp256r1",
        "secp384r1",
        "secp521r1",
        "brainpoolP256r1",
        "brainpoolP384r1",
        "brainpoolP512r1",
    )
)


@frozen(eq=False)
class _Link:
    """
    A certificate, and what it takes to find those above and below it.

    :ivar key_id: its subject key identifier, if it has one.
    :ivar signer_id: its authority key identifier, if it has one.
    """

    certificate: x509.Certificate
    digest: bytes
    subject: x509.Name
    issuer: x509.Name
    key_id: bytes | None
    signer_id: bytes | None

    def may_have_issued(self, other: _Link) -> bool:
        """:returns: whether names and key identifiers say so."""
        return self.subject == other.issuer and (
            self.key_id is None or other.signer_id is None or self.key_id == other.signer_id
        )


class OtherPaths:
    """
    Looks for paths among the configured CAs and what a client presented.

    :ivar _by_subject: the configured CAs, by their subjects.
    """

    def __init__(self, authorities: Sequence[x509.Certificate], flags: int) -> None:
        """
        :param authorities: the CAs of all rules.
        :param flags: OpenSSL's verification flags, `X509StoreFlags`.
        """
        self._flags = flags
        self._by_subject = _by_subject(authorities)

    def reachable(self, path: Path, presented: Sequence[x509.Certificate]) -> frozenset[bytes]:
        """
        :param path: as OpenSSL verified it, leaf first.
        :param presented: what the client sent after its leaf, in any order.
        :returns: the digests of all targets that are worth asking `to` for.
        """
        return frozenset(link.digest for link in self._reachable(path, presented))

    def to(
        self,
        targets: Sequence[x509.Certificate],
        path: Path,
        presented: Sequence[x509.Certificate],
        at: datetime,
    ) -> Iterator[Path]:
        """
        :param targets: configured CAs that a path is looked for to, in order.
        :param path: as OpenSSL verified it, leaf first.
        :param presented: what the client sent after its leaf, in any order.
        :param at: the time to verify by.
        :returns: at most one path to each target that can be reached.
        """
        reachable = list(self._reachable(path, presented))
        links = {link.digest: link for link in reachable}
        hopeful = (links[digest] for digest in map(sha256, targets) if digest in links)
        for target in islice(hopeful, MAX_TARGETS):
            intermediates = [link.certificate for link in _below(target, reachable)]
            found = verified_path(path[0], intermediates, [target.certificate], self._flags, at)
            if isinstance(found, tuple) and handshake_objection(found) is None:
                yield found

    def _reachable(self, path: Path, presented: Sequence[x509.Certificate]) -> Iterator[_Link]:
        """
        :returns: the certificates whose subjects lead up from the leaf, the
            nearest first.
        """
        # In an order of its own, so that it is all one how a client sends them;
        # what OpenSSL took comes last, as it did not help.
        brought = _by_subject(
            sorted({*path[1:], *presented}, key=lambda one: (one in path, sha256(one)))
        )
        names, seen = [path[0].issuer], set[x509.Name]()
        count = 0
        for name in names:
            if name in seen:
                continue
            seen.add(name)
            candidates = (*self._by_subject.get(name, ()), *brought.get(name, ()))
            for link in {one.digest: one for one in candidates}.values():
                if count == MAX_CERTIFICATES:
                    return
                count += 1
                names.append(link.issuer)
                yield link


def _below(target: _Link, links: Sequence[_Link]) -> list[_Link]:
    """
    :returns: those that a path to the target can be made of, the nearest to it
        first.  OpenSSL takes the first certificate that fits, and does not come
        back when that one leads elsewhere.
    """
    found, level = list[_Link](), [target]
    # What signed itself was not issued by another.
    rest = [link for link in links if link is not target and not link.may_have_issued(link)]
    while level:
        level = [one for one in rest if any(upper.may_have_issued(one) for upper in level)]
        found += level
        rest = [one for one in rest if one not in level]
    return found


def _by_subject(certificates: Sequence[x509.Certificate]) -> dict[x509.Name, list[_Link]]:
    index: dict[x509.Name, list[_Link]] = {}
    for one in certificates:
        # A client may send along what does not parse; nobody needs that.
        with suppress(*UNPARSABLE):
            link = _link(one)
            index.setdefault(link.subject, []).append(link)
    return index


def _link(certificate: x509.Certificate) -> _Link:
    key_id = signer_id = None
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            key_id = extension.value.digest
        elif isinstance(extension.value, x509.AuthorityKeyIdentifier):
            signer_id = extension.value.key_identifier
    subject, issuer = certificate.subject, certificate.issuer
    return _Link(certificate, sha256(certificate), subject, issuer, key_id, signer_id)


def trust_store(anchors: Sequence[x509.Certificate], flags: int) -> X509Store:
    """
    :param flags: OpenSSL's verification flags, `X509StoreFlags`.
    :returns: what OpenSSL has of them; for `verified_path`.
    """
    store = X509Store()
    store.set_flags(flags)
    for anchor in anchors:
        store.add_cert(X509.from_cryptography(anchor))
    return store


def verified_path(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate] | X509Store,
    flags: int,
    at: datetime,
) -> Path | X509StoreContextError:
    """
    Have OpenSSL build and verify a path, without a handshake.  It does not look
    at what certificates are for, nor at the strength of keys and signatures:
    `handshake_objection` does.

    :param anchors: what is trusted; a `trust_store` of it where it is many, or
        asked for often.
    :param flags: OpenSSL's verification flags, `X509StoreFlags`.
    :param at: the time to verify by.
    """
    store = anchors if isinstance(anchors, X509Store) else trust_store(anchors, flags)
    store.set_time(at)
    chain = [X509.from_cryptography(one) for one in intermediates]
    context = X509StoreContext(store, X509.from_cryptography(leaf), chain)
    try:
        return tuple(one.to_cryptography() for one in context.get_verified_chain())
    except X509StoreContextError as error:
        return error


def handshake_objection(path: Path) -> Rejection | None:
    """
    :param path: as `verified_path` found it.
    :returns: what a handshake's verification looks at beyond that: the purpose
        and the security level (OpenSSL's check_purpose_ssl_client and
        check_auth_level), and whether TLS can use the leaf's key.
    """
    for depth, certificate in enumerate(path):
        try:
            if not _is_for_clients(certificate, is_leaf=depth == 0):
                return verification_rejection(_INVALID_PURPOSE, depth)
        except UNPARSABLE:
            return Rejection(
                Reason.MALFORMED_CERTIFICATE, "one of its extensions does not parse", depth
            )
    for depth, certificate in enumerate(path[1:], 1):
        if key_weakness(certificate) is not None:
            return verification_rejection(_CA_KEY_TOO_SMALL, depth)
    for depth, certificate in enumerate(path[:-1]):
        if signature_weakness(certificate) is not None:
            return verification_rejection(_DIGEST_TOO_WEAK, depth)
    return unusable_key(path[0])


def unusable_key(leaf: x509.Certificate) -> Rejection | None:
    """:returns: why no client can shake hands with the leaf's key, or None."""
    try:
        key = leaf.public_key()
        if key_weakness(leaf) is not None:
            return verification_rejection(_LEAF_KEY_TOO_SMALL, 0)
    except UNPARSABLE:
        return Rejection(Reason.MALFORMED_CERTIFICATE, "its public key does not parse", 0)
    if not isinstance(key, _TLS_KEYS):
        return Rejection(
            Reason.MALFORMED_CERTIFICATE, "its public key is of a kind that TLS cannot use", 0
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _TLS_CURVES:
        return Rejection(
            Reason.PROTOCOL_ERROR, f"TLS cannot use its key, which is on {key.curve.name}", 0
        )
    return None


def _is_for_clients(certificate: x509.Certificate, is_leaf: bool) -> bool:
    """
    OpenSSL's notion of it, which all of the path must satisfy, the anchor included.
    """
    if not allows_client_authentication(certificate):
        return False
    for extension in certificate.extensions if is_leaf else ():
        value = extension.value
        if isinstance(value, x509.KeyUsage):
            if not (value.digital_signature or value.key_agreement):
                return False
        elif extension.oid == _NETSCAPE_CERT_TYPE:
            # A BIT STRING, whose first bit is "SSL client".
            is_for_clients = value.public_bytes()[3:4] >= b"\x80"
            if not is_for_clients:
                return False
    return True
