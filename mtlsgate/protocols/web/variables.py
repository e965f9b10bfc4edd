"""
What a WSGI environ says of a connection and its client, in the words of
Apache's mod_ssl.

https://httpd.apache.org/docs/2.4/mod/mod_ssl.html#envvars
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer

#: What mod_ssl calls the parts of a name.
_PARTS = {
    NameOID.COUNTRY_NAME: "C",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COMMON_NAME: "CN",
    NameOID.TITLE: "T",
    NameOID.INITIALS: "I",
    NameOID.GIVEN_NAME: "G",
    NameOID.SURNAME: "S",
    x509.ObjectIdentifier("2.5.4.13"): "D",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "Email",
}

#: What OpenSSL calls them in a whole name, where that is not what RFC 4514 does.
_SHORT_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STREET_ADDRESS: "street",
    NameOID.TITLE: "title",
    NameOID.INITIALS: "initials",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
    NameOID.JURISDICTION_COUNTRY_NAME: "jurisdictionC",
    NameOID.JURISDICTION_LOCALITY_NAME: "jurisdictionL",
    NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME: "jurisdictionST",
    x509.ObjectIdentifier("2.5.4.13"): "description",
}


def connection_variables(peer: IVerifiedPeer | None, tls: ITlsFacts | None) -> dict[str, object]:
    """
    :param peer: the client, or None where the server asks for no certificate.
    :param tls: what its handshake agreed on, or None.
    :returns: what stays the same for as long as the connection lasts.
    """
    told: dict[str, object] = {
        "HTTPS": "on",
        "SSL_PROTOCOL": "" if tls is None else tls.tls_version,
        "SSL_CIPHER": "" if tls is None else tls.cipher,
        "SSL_TLS_SNI": escaped((tls and tls.server_name) or ""),
        "SSL_CLIENT_VERIFY": "NONE",
        "mtlsgate.peer": peer,
    }
    if peer is not None:
        told["SSL_CLIENT_VERIFY"] = "SUCCESS"
        told["SSL_SESSION_RESUMED"] = "Resumed" if peer.resumed else "Initial"
        told.update(_path_variables(peer.path))
        told |= _numbered("SSL_CLIENT_SAN_DNS", tuple(map(escaped, peer.dns_names)))
        told |= _numbered("SSL_CLIENT_SAN_Email", tuple(map(escaped, peer.email_addresses)))
    return told


def days_left(until: datetime, now: datetime | None = None) -> str:
    """:returns: SSL_CLIENT_V_REMAIN: days, the one that has begun counted in full."""
    left = until - (now or datetime.now(UTC))
    return str(max(left.days + 1, 0))


@lru_cache(maxsize=256)
def _path_variables(path: tuple[x509.Certificate, ...]) -> Mapping[str, object]:
    leaf, *issuers = path
    return {
        "SSL_CLIENT_CERT": _pem(leaf),
        "SSL_CLIENT_M_VERSION": str(leaf.version.value + 1),
        "SSL_CLIENT_M_SERIAL": _serial(leaf.serial_number),
        "SSL_CLIENT_V_START": _time(leaf.not_valid_before_utc),
        "SSL_CLIENT_V_END": _time(leaf.not_valid_after_utc),
        "SSL_CLIENT_S_DN": distinguished_name(leaf.subject),
        "SSL_CLIENT_I_DN": distinguished_name(leaf.issuer),
        **dict(_parts("SSL_CLIENT_S_DN_", leaf.subject)),
        **dict(_parts("SSL_CLIENT_I_DN_", leaf.issuer)),
        **_numbered("SSL_CLIENT_CERT_CHAIN", tuple(map(_pem, issuers))),
    }


def distinguished_name(name: x509.Name) -> str:
    """:returns: a name as OpenSSL prints it by RFC 2253: the last part first,
    ASCII alone."""
    text = name.rfc4514_string(_SHORT_NAMES)
    return "".join(one if " " <= one <= "~" else _hex(one) for one in text)


def _parts(prefix: str, name: x509.Name) -> Iterator[tuple[str, str]]:
    """Yield the parts that mod_ssl has a name for; a second one of a kind ends
    in ``_1``, a third in ``_2``."""
    seen: Counter[str] = Counter()
    for attribute in name:
        part = _PARTS.get(attribute.oid)
        if part is not None and isinstance(attribute.value, str):
            number = f"_{seen[part]}" if seen[part] else ""
            seen[part] += 1
            yield f"{prefix}{part}{number}", escaped(attribute.value)


def _numbered(prefix: str, values: tuple[str, ...]) -> dict[str, str]:
    return {f"{prefix}_{number}": value for number, value in enumerate(values)}


def escaped(text: str) -> str:
    """:returns: a name as mod_ssl writes it, each control character as ``\\0A`` and a
    backslash as two: what is after a NUL counts, too."""
    doubled = text.replace("\\", "\\\\")
    return wsgi_string("".join(_hex(one) if _is_control(one) else one for one in doubled))


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f"


def wsgi_string(text: str) -> str:
    """:returns: the text's UTF-8 as PEP 3333 has bytes: each of them a character."""
    return text.encode("utf-8", "backslashreplace").decode("latin-1")


def _hex(character: str) -> str:
    return "".join(f"\\{octet:02X}" for octet in character.encode("utf-8", "backslashreplace"))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _serial(number: int) -> str:
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _time(when: datetime) -> str:
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return f"{months[when.month - 1]} {when.day:2} {when:%H:%M:%S} {when.year} GMT"
