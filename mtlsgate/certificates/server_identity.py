"""
Checks a server's identity: what is wrong with its certificate's path, in words, and
whether the certificate is for its name (RFC 9525).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)

from mtlsgate.certificates.alternative_names import AlternativeNames
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate

#: X509_V_ERR_… to what is wrong.
_PATH_PROBLEMS = {
    1: "OpenSSL did not judge it to the end",
    7: "the signature is not the issuer's",
    9: "not yet valid",
    10: "expired",
    18: "self-signed, and not in {trust}",
    19: "the chain ends in a CA that is not in {trust}",
    20: "the issuer is unknown, neither in {trust} nor sent along",
    23: "revoked",
    24: "the issuer is not a CA",
    25: "more intermediates than the CA allows",
    26: "not meant for TLS servers (extended key usage)",
    34: "a critical extension that OpenSSL does not know",
    47: "a name that the CA is not allowed to certify",
    48: "a name that the CA is not allowed to certify",
    66: "the key is too weak",
    67: "the CA's key is too weak",
    68: "the signature's digest is too weak",
    79: "the issuer is not a CA, or an invalid one",
}

#: How many of a certificate's names are listed; the others are counted.
_NAMES = 5


def as_address(text: str) -> str | None:
    """:returns: the IP address without its zone; None if the text is not an address."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """:returns: whether what is sent to a host stays on this machine."""
    address = as_address(host)
    if address is None:
        return host.lower().removesuffix(".") == "localhost"
    return ipaddress.ip_address(address).is_loopback


def path_problem(number: int, trust: str) -> str:
    """
    :param number: X509_V_ERR_….
    :param trust: the name of the place that has the trusted CAs.
    :returns: what is wrong with the certificate, in words.
    """
    words = _PATH_PROBLEMS.get(number, f"OpenSSL's verification error {number}")
    return words.format(trust=trust)


def name_problem(certificate: Certificate, name: str) -> str | None:
    """
    :param name: the DNS name or IP address that the server should have.
    :returns: why the certificate is not for this name (RFC 9525), or None.  The
        common name is ignored.
    """
    address = as_address(name)
    try:
        wanted = DNS_ID(name) if address is None else IPAddress_ID(address)
        patterns = list(_patterns(certificate.names))
        verify_service_identity(patterns, obligatory_ids=[wanted], optional_ids=[])
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


def _patterns(names: AlternativeNames) -> Iterator[DNSPattern | IPAddressPattern]:
    for name in names.dns:
        yield DNSPattern.from_bytes(name.encode())
    yield from map(IPAddressPattern, names.ips)


def _names(certificate: Certificate) -> list[str]:
    """:returns: the first DNS names and IP addresses, and how many more there are."""
    found = certificate.readable_names
    names = [*found.dns, *map(str, found.ips)]
    return names if len(names) <= _NAMES else [*names[:_NAMES], f"{len(names) - _NAMES} more"]
