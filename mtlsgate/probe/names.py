"""
Whether a server's certificate is that of the name it should have (RFC 9525).
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from mtlsgate.credentials import UNPARSABLE

#: How many of a certificate's names are listed before the rest is counted.
_NAMES = 5


def as_address(text: str) -> str | None:
    """:returns: the IP address without its zone, or None if it is none."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def name_problem(certificate: x509.Certificate, name: str) -> str | None:
    """
    :param name: the DNS name or IP address that the server should have.
    :returns: why the certificate is not that server's (RFC 9525), or None.
        The common name is not looked at.
    """
    verify = (
        verify_certificate_hostname if as_address(name) is None else verify_certificate_ip_address
    )
    try:
        verify(certificate, name)
    except (VerificationError, CertificateError) as error:
        names = _names(certificate)
        if not names:
            return "the certificate has neither DNS name nor IP address (a common name is none)"
        if isinstance(error, VerificationError):
            return f"the certificate is for {', '.join(names)}"
        return f"the certificate's names cannot be used: {error}"
    except UNPARSABLE as error:
        return f"the names cannot be compared: {error}"
    return None


def _names(certificate: x509.Certificate) -> list[str]:
    """:returns: the first names of a certificate whose extensions parse."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = found.get_values_for_type(x509.DNSName)
    names += map(str, found.get_values_for_type(x509.IPAddress))
    return names if len(names) <= _NAMES else [*names[:_NAMES], f"{len(names) - _NAMES} more"]
