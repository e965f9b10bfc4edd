"""
Who was let in, as a value.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from mtlsgate.certificates.parsing import sha256
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer
from mtlsgate.text import address_text as address_text

__all__ = ["TlsFacts", "VerifiedPeer"]


@implementer(IVerifiedPeer)
@frozen(slots=False)
class VerifiedPeer:
    """
    A verified client, as `IVerifiedPeer` documents it.

    Made when the handshake ended; what takes parsing is parsed on first use.
    """

    path: tuple[x509.Certificate, ...]
    rule: str
    address: IAddress
    server_name: str | None
    tls_version: str
    cipher: str
    group: str | None
    alpn: str | None
    resumed: bool = False

    @property
    def leaf(self) -> x509.Certificate:
        """The client's certificate."""
        return self.path[0]

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 fingerprint of the leaf, 64 lower-case hex digits."""
        return sha256(self.leaf).hex()

    @cached_property
    def subject(self) -> str:
        """The leaf's subject as an RFC 4514 string."""
        return self.leaf.subject.rfc4514_string()

    @cached_property
    def issuer(self) -> str:
        """The leaf's issuer as an RFC 4514 string."""
        return self.leaf.issuer.rfc4514_string()

    @property
    def common_name(self) -> str | None:
        """The last, most specific common name of the subject, or None."""
        names = self.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[-1].value) if names else None

    @cached_property
    def _alternative_name(self) -> x509.SubjectAlternativeName:
        try:
            return self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return x509.SubjectAlternativeName(())

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS names of the subject alternative name; never the common name."""
        return tuple(self._alternative_name.get_values_for_type(x509.DNSName))

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs of the subject alternative name."""
        return tuple(self._alternative_name.get_values_for_type(x509.UniformResourceIdentifier))

    @property
    def email_addresses(self) -> tuple[str, ...]:
        """The email addresses of the subject alternative name."""
        return tuple(self._alternative_name.get_values_for_type(x509.RFC822Name))

    @property
    def ip_addresses(self) -> tuple[str, ...]:
        """The IP addresses of the subject alternative name."""
        return tuple(map(str, self._alternative_name.get_values_for_type(x509.IPAddress)))

    @property
    def spiffe_id(self) -> str | None:
        """The SPIFFE ID, which must be the leaf's only URI (SPIFFE X509-SVID, 2), or None."""
        match self.uris:
            case (uri,) if uri.startswith("spiffe://"):
                return uri
        return None

    @property
    def serial(self) -> int:
        """The leaf's serial number."""
        return self.leaf.serial_number

    @property
    def not_before(self) -> datetime:
        """When the leaf's validity begins."""
        return self.leaf.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """When the leaf's validity ends."""
        return self.leaf.not_valid_after_utc

    def to_dict(self) -> dict[str, object]:
        """
        :returns: all of it as what JSON can hold, in Couper's field names where
            Couper has them; times as RFC 3339, the serial number in hex.
        """
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "common_name": self.common_name,
            "dns_names": list(self.dns_names),
            "uris": list(self.uris),
            "email_addresses": list(self.email_addresses),
            "ip_addresses": list(self.ip_addresses),
            "spiffe_id": self.spiffe_id,
            "serial_number": f"{self.serial:x}",
            "fingerprint_sha256": self.sha256,
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "rule": self.rule,
            "server_name": self.server_name,
            "tls_version": self.tls_version,
            "cipher": self.cipher,
            "group": self.group,
            "alpn": self.alpn,
            "resumed": self.resumed,
            "address": address_text(self.address),
        }


@implementer(ITlsFacts)
@frozen
class TlsFacts:
    """What a handshake agreed on, as `ITlsFacts` documents it."""

    server_name: str | None
    tls_version: str
    cipher: str
    certificate: x509.Certificate | None = None
