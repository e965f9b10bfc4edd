"""
A verified client, as a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property

from attrs import evolve, field, frozen
from cryptography import x509
from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from mtlsgate.certificates.alternative_names import AlternativeNames
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.certificates.names import COMMON_NAME
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer
from mtlsgate.text import address_text as address_text

__all__ = ["TlsFacts", "VerifiedPeer"]


@implementer(IVerifiedPeer)
@frozen(slots=False)
class VerifiedPeer:
    """
    A verified client, as `IVerifiedPeer` documents it.

    It is made when the handshake ends.  Fields are parsed on first use.
    """

    #: The verified path as the gate reads it, leaf first; see `leaf` and `path`.
    certificates: tuple[Certificate, ...] = field(alias="path", converter=views)
    rule: str
    address: IAddress
    server_name: str | None
    tls_version: str
    cipher: str
    group: str | None
    alpn: str | None
    resumed: bool = False
    #: What the registry of its rule knows of it, for the application; empty without one.
    attributes: Mapping[str, str] = field(factory=dict, hash=False)

    def by(
        self, path: tuple[Certificate, ...], rule: str, attributes: Mapping[str, str]
    ) -> VerifiedPeer:
        """
        :param attributes: what the registry of the rule knows of the client.
        :returns: the client as it is admitted by a rule on a path.
        """
        if (path, rule, attributes) == (self.certificates, self.rule, self.attributes):
            return self
        return evolve(self, path=path, rule=rule, attributes=attributes)

    @cached_property
    def leaf(self) -> x509.Certificate:
        """
        The client's certificate.

        :raises ValueError: if it has a field that `cryptography` cannot read.  All
            other attributes still work.
        """
        return self.certificates[0].x509

    @cached_property
    def path(self) -> tuple[x509.Certificate, ...]:
        """
        The verified path, leaf first.

        :raises ValueError: as `leaf`.
        """
        return tuple(one.x509 for one in self.certificates)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 fingerprint of the leaf, 64 lower-case hex digits."""
        return self.certificates[0].sha256.hex()

    @property
    def identity(self) -> bytes:
        """The SHA-256 digest of what the leaf's issuer signed.  A client can change
        its certificate's fingerprint, but not its identity."""
        return self.certificates[0].identity

    @cached_property
    def subject(self) -> str:
        """The leaf's subject as an RFC 4514 string."""
        return self.certificates[0].subject.rfc4514_string()

    @cached_property
    def issuer(self) -> str:
        """The leaf's issuer as an RFC 4514 string."""
        return self.certificates[0].issuer.rfc4514_string()

    @property
    def common_name(self) -> str | None:
        """The last, most specific common name of the subject, or None."""
        names = self.certificates[0].subject.attributes(COMMON_NAME)
        return names[-1].text if names else None

    @property
    def _names(self) -> AlternativeNames:
        return self.certificates[0].readable_names

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The DNS names of the subject alternative name; never the common name."""
        return self._names.dns

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs of the subject alternative name."""
        return self._names.uris

    @property
    def email_addresses(self) -> tuple[str, ...]:
        """The email addresses of the subject alternative name."""
        return self._names.emails

    @property
    def ip_addresses(self) -> tuple[str, ...]:
        """The IP addresses of the subject alternative name."""
        return tuple(map(str, self._names.ips))

    @property
    def spiffe_id(self) -> str | None:
        """The SPIFFE ID, which must be the leaf's only URI (SPIFFE X509-SVID, 2), or None."""
        return self._names.spiffe_id

    @property
    def serial(self) -> int:
        """The leaf's serial number."""
        return self.certificates[0].serial_number

    @property
    def not_before(self) -> datetime:
        """When the leaf's validity begins."""
        return self.certificates[0].not_before

    @property
    def not_after(self) -> datetime:
        """When the leaf's validity ends."""
        return self.certificates[0].not_after

    def to_dict(self) -> dict[str, object]:
        """
        :returns: all of it, ready for JSON, with Couper's field names where Couper
            has them; times as RFC 3339, the serial number in hex.
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
            "attributes": dict(self.attributes),
            "address": address_text(self.address),
        }


@implementer(ITlsFacts)
@frozen
class TlsFacts:
    """What a handshake agreed on, as `ITlsFacts` documents it."""

    server_name: str | None
    tls_version: str
    cipher: str
    certificate: Certificate | None = None
