"""
OCSP responses about the gate's own certificate, for stapling (RFC 6960; RFC 6066, 8).
"""

from __future__ import annotations

from datetime import datetime

from attrs import evolve, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.errors import CredentialError
from mtlsgate.text import first_line

#: The shortest digest of a signature that counts, in bytes.
_SHORTEST_DIGEST = 28


@frozen
class OcspResponse:
    """
    A verified response that says ``good``.

    :ivar der: the response.
    :ivar this_update: when it was true, aware.
    :ivar next_update: until when it counts, aware.
    """

    der: bytes = field(repr=False)
    this_update: datetime
    next_update: datetime


@frozen
class Stapling:
    """
    What a server's certificate needs for stapling.

    :ivar leaf: the certificate.
    :ivar issuer: its issuer.
    :ivar url: its CA's OCSP responder.
    :ivar response: the response in force; None before the first one came.
    """

    leaf: x509.Certificate
    issuer: x509.Certificate
    url: str
    response: OcspResponse | None = None

    def request(self) -> bytes:
        """:returns: the request for the responder, as DER."""
        # RFC 5019, 2.1.1: responders need not know another digest for names.
        digest = SHA1()  # noqa: S303
        builder = ocsp.OCSPRequestBuilder().add_certificate(self.leaf, self.issuer, digest)
        return builder.build().public_bytes(Encoding.DER)

    def responded(self, data: bytes, now: datetime) -> Stapling:
        """
        :param data: a response, as it came.
        :param now: the time to judge by, aware.
        :returns: the same with that response.
        :raises CredentialError: if it must not be stapled.
        """
        response = _verified(data, self.leaf, self.issuer, now.replace(microsecond=0))
        if self.response is not None and response.this_update < self.response.this_update:
            raise CredentialError("is older than the response in force")
        return evolve(self, response=response)


def stapling_of(leaf: Certificate, issuer: Certificate | None) -> Stapling:
    """
    :param issuer: what follows the leaf in its chain, or None.
    :raises CredentialError: if its CA offers no responder, or is not known.
    """
    try:
        certificate = leaf.x509
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
        places = [
            one.access_location.value
            for one in access.value
            if one.access_method == AuthorityInformationAccessOID.OCSP
            and isinstance(one.access_location, x509.UniformResourceIdentifier)
        ]
    except x509.ExtensionNotFound:
        places = []
    except UNPARSABLE as error:
        raise CredentialError(f"cannot be read: {first_line(error)}") from None
    if not places:
        raise CredentialError(
            "names no OCSP responder: its CA offers none any more, so remove ocsp_stapling"
        )
    if issuer is None:
        raise CredentialError("has no issuer after it, which signs OCSP responses: append it")
    return Stapling(certificate, issuer.x509, places[0])


def demands_stapling(leaf: Certificate) -> bool:
    """:returns: whether clients refuse the certificate without a response (RFC 7633)."""
    try:
        found = leaf.x509.extensions.get_extension_for_class(x509.TLSFeature)
    except (x509.ExtensionNotFound, *UNPARSABLE):
        return False
    return x509.TLSFeatureType.status_request in found.value


def _verified(
    data: bytes, leaf: x509.Certificate, issuer: x509.Certificate, now: datetime
) -> OcspResponse:
    """:raises CredentialError: if it must not be stapled."""
    try:
        response = ocsp.load_der_ocsp_response(data)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            word = response.response_status.name.lower()
            raise CredentialError(f'is an error of the responder, "{word}"')
        found = [one for one in response.responses if _is_about(one, leaf, issuer)]
        if not found:
            raise CredentialError("is about another certificate")
        if not any(_is_signed_by(response, one) for one in _responders(response, issuer, now)):
            raise CredentialError("is not signed by the certificate's CA or its responder")
    except UNPARSABLE as error:
        raise CredentialError(f"does not parse: {first_line(error)}") from None
    return _good(found[0], data, now)


def _good(one: ocsp.OCSPSingleResponse, data: bytes, now: datetime) -> OcspResponse:
    if one.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        at = one.revocation_time_utc
        raise CredentialError(
            "says that the gate's own certificate is revoked"
            + ("" if at is None else f" since {at.isoformat()}")
        )
    if one.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise CredentialError("says that the responder does not know the certificate")
    begin, end = one.this_update_utc, one.next_update_utc
    if end is None:
        raise CredentialError("has no nextUpdate: it would never expire")
    if now < begin:
        raise CredentialError("is not yet valid")
    if now > end:
        raise CredentialError(f"expired at {end.isoformat()}")
    return OcspResponse(data, begin, end)


def _is_about(
    one: ocsp.OCSPSingleResponse, leaf: x509.Certificate, issuer: x509.Certificate
) -> bool:
    if one.serial_number != leaf.serial_number:
        return False
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, one.hash_algorithm)
    expected = builder.build()
    return (one.issuer_name_hash, one.issuer_key_hash) == (
        expected.issuer_name_hash,
        expected.issuer_key_hash,
    )


def _responders(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime
) -> list[x509.Certificate]:
    """:returns: who may sign it: the CA, and those to whom it delegates that (RFC 6960,
    4.2.2.2)."""
    return [issuer, *(one for one in response.certificates if _is_delegate(one, issuer, now))]


def _is_delegate(one: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        usages = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        one.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, InvalidSignature, UnsupportedAlgorithm, *UNPARSABLE):
        return False
    is_valid = one.not_valid_before_utc <= now <= one.not_valid_after_utc
    return is_valid and ExtendedKeyUsageOID.OCSP_SIGNING in usages


def _is_signed_by(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, digest = signer.public_key(), response.signature_hash_algorithm
    if digest is not None and digest.digest_size < _SHORTEST_DIGEST:
        return False
    signature, content = response.signature, response.tbs_response_bytes
    try:
        match key:
            case rsa.RSAPublicKey() if digest is not None:
                key.verify(signature, content, padding.PKCS1v15(), digest)
            case ec.EllipticCurvePublicKey() if digest is not None:
                key.verify(signature, content, ec.ECDSA(digest))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, content)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
