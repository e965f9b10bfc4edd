"""OCSP responders: what a CA answers about a certificate."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from mtlsgate.testing import Authority, Credential

GOOD, REVOKED, UNKNOWN = (
    ocsp.OCSPCertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN,
)


def with_responder(
    authority: Authority, url: str, *names: str, must_staple: bool = False
) -> Credential:
    """:returns: a server's certificate that names an OCSP responder, with its issuer."""
    place = x509.AccessDescription(
        AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.AuthorityInformationAccess([place]), False)
    ]
    if must_staple:
        extensions.append((x509.TLSFeature([x509.TLSFeatureType.status_request]), False))
    made = authority.issue(
        "server",
        dns_names=names or ("localhost",),
        usages=["server_auth"],
        extra_extensions=extensions,
    )
    return Credential(made.certificate, made.private_key, (authority.certificate,))


def response(
    about: Credential,
    authority: Authority,
    *,
    now: datetime,
    status: ocsp.OCSPCertStatus = GOOD,
    age: timedelta = timedelta(hours=1),
    life: timedelta | None = timedelta(days=4),
    responder: Credential | None = None,
    embedded: bool = True,
    digest: HashAlgorithm | None = None,
) -> bytes:
    """
    :param authority: the CA that is said to have issued it.
    :param age: since when the response is true.
    :param life: how long it counts, or None if it does not say.
    :param responder: who signs in place of the CA.
    :param embedded: whether the response has the responder's certificate.
    :returns: a response, as DER.
    """
    begin = now - age
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=about.certificate,
        issuer=authority.certificate,
        algorithm=SHA256(),
        cert_status=status,
        this_update=begin,
        next_update=None if life is None else begin + life,
        revocation_time=begin if status is REVOKED else None,
        revocation_reason=None,
    )
    signer = authority.certificate if responder is None else responder.certificate
    key = authority.private_key if responder is None else responder.private_key
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer)
    if responder is not None and embedded:
        builder = builder.certificates([responder.certificate])
    return builder.sign(key, digest or SHA256()).public_bytes(Encoding.DER)
