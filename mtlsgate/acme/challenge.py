"""
What proves to a CA that the gate has a name (TLS-ALPN-01, RFC 8737).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtlsgate.acme.storage import Storage
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.certificates.server_names import canonical
from mtlsgate.clock import utc_now
from mtlsgate.peer import address_text

_log = Logger("mtlsgate.acme")

#: id-pe-acmeIdentifier (RFC 8737, 6.1).
_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
#: The head of a DER OCTET STRING of 32 bytes.
_OCTETS = b"\x04\x20"


def challenge_certificate(name: str, digest: bytes) -> ServerCredential:
    """
    :param name: the DNS name that the CA validates.
    :param digest: the SHA-256 digest of the key authorization.
    :returns: the certificate that answers the CA (RFC 8737, 3), with a new key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTETS + digest), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return ServerCredential((certificate,), key)


@frozen
class PendingChallenges:
    """
    The names that a CA is about to validate, of one listener's certificates.

    They are looked up in the storage when a CA connects: another process may have ordered.

    :ivar storages: where each name's certificate is kept.
    :ivar seconds: tells the time, in seconds since the epoch.
    """

    storages: dict[str, tuple[Storage, ...]]
    seconds: Callable[[], float]

    @classmethod
    def of(
        cls,
        wanted: Iterable[WantedCertificate],
        seconds: Callable[[], float] = lambda: utc_now().timestamp(),
    ) -> PendingChallenges:
        """:param wanted: the listener's certificates."""
        found: dict[str, tuple[Storage, ...]] = {}
        for one in wanted:
            for name in one.names:
                others = found.get(name, ())
                if one.storage not in others:
                    found[name] = (*others, one.storage)
        return cls(found, seconds)

    def find(self, server_name: str) -> ServerCredential | None:
        """:returns: the certificate that answers the CA; None if no name is pending."""
        name = canonical(server_name)
        for storage in self.storages.get(name, ()):
            pending = storage.challenge(name, self.seconds())
            if pending is not None:
                return challenge_certificate(name, pending.digest)
        return None

    def answered(self, server_name: str, address: IAddress) -> None:
        """A client has got the answer."""
        _log.info(
            "answered the ACME challenge for {name} to {peer_address}",
            name=canonical(server_name),
            peer_address=address_text(address),
        )
