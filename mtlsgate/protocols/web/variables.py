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

from cryptography.x509.oid import NameOID

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.der import dotted
from mtlsgate.certificates.names import SHORT_NAMES, Name
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer

#: What mod_ssl calls the parts of a name.
_PARTS = {
    NameOID.COUNTRY_NAME.dotted_string: "C",
    NameOID.STATE_OR_PROVINCE_NAME.dotted_string: "ST",
    NameOID.LOCALITY_NAME.dotted_string: "L",
    NameOID.ORGANIZATION_NAME.dotted_string: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME.dotted_string: "OU",
    NameOID.COMMON_NAME.dotted_string: "CN",
    NameOID.TITLE.dotted_string: "T",
    NameOID.INITIALS.dotted_string: "I",
    NameOID.GIVEN_NAME.dotted_string: "G",
    NameOID.SURNAME.dotted_string: "S",
    "2.5.4.13": "D",
    NameOID.USER_ID.dotted_string: "UID",
    NameOID.EMAIL_ADDRESS.dotted_string: "Email",
}

#: What OpenSSL calls them in a whole name, where that is not what RFC 4514 does.
_SHORT_NAMES = {
    NameOID.EMAIL_ADDRESS.dotted_string: "emailAddress",
    NameOID.SERIAL_NUMBER.dotted_string: "serialNumber",
    NameOID.STREET_ADDRESS.dotted_string: "street",
    NameOID.TITLE.dotted_string: "title",
    NameOID.INITIALS.dotted_string: "initials",
    NameOID.GIVEN_NAME.dotted_string: "GN",
    NameOID.SURNAME.dotted_string: "SN",
    NameOID.PSEUDONYM.dotted_string: "pseudonym",
    NameOID.POSTAL_CODE.dotted_string: "postalCode",
    NameOID.DN_QUALIFIER.dotted_string: "dnQualifier",
    NameOID.GENERATION_QUALIFIER.dotted_string: "generationQualifier",
    NameOID.BUSINESS_CATEGORY.dotted_string: "businessCategory",
    NameOID.ORGANIZATION_IDENTIFIER.dotted_string: "organizationIdentifier",
    NameOID.JURISDICTION_COUNTRY_NAME.dotted_string: "jurisdictionC",
    NameOID.JURISDICTION_LOCALITY_NAME.dotted_string: "jurisdictionL",
    NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME.dotted_string: "jurisdictionST",
    "2.5.4.13": "description",
}


def connection_variables(peer: IVerifiedPeer | None, tls: ITlsFacts | None) -> dict[str, object]:
    """
    :param peer: the client, or None where the server asks for no certificate.
    :param tls: what its handshake agreed on, or None.
    :returns: the variables that do not change while the connection lasts.
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
        told.update(_path_variables(peer.certificates))
        told |= _numbered("SSL_CLIENT_SAN_DNS", tuple(map(escaped, peer.dns_names)))
        told |= _numbered("SSL_CLIENT_SAN_Email", tuple(map(escaped, peer.email_addresses)))
    return told


def days_left(until: datetime, now: datetime | None = None) -> str:
    """:returns: SSL_CLIENT_V_REMAIN: the days left, today included."""
    left = until - (now or datetime.now(UTC))
    return str(max(left.days + 1, 0))


@lru_cache(maxsize=256)
def _path_variables(path: tuple[Certificate, ...]) -> Mapping[str, object]:
    leaf, *issuers = path
    return {
        "SSL_CLIENT_CERT": _pem(leaf),
        "SSL_CLIENT_M_VERSION": str(leaf.version),
        "SSL_CLIENT_M_SERIAL": _serial(leaf.serial_number),
        "SSL_CLIENT_V_START": _time(leaf.not_before),
        "SSL_CLIENT_V_END": _time(leaf.not_after),
        "SSL_CLIENT_S_DN": distinguished_name(leaf.subject),
        "SSL_CLIENT_I_DN": distinguished_name(leaf.issuer),
        **dict(_parts("SSL_CLIENT_S_DN_", leaf.subject)),
        **dict(_parts("SSL_CLIENT_I_DN_", leaf.issuer)),
        **_numbered("SSL_CLIENT_CERT_CHAIN", tuple(map(_pem, issuers))),
    }


def distinguished_name(name: Name) -> str:
    """:returns: a name as OpenSSL prints it by RFC 2253: the last part first,
    ASCII alone."""
    text = name.rfc4514_string(SHORT_NAMES | _SHORT_NAMES)
    return "".join(one if " " <= one <= "~" else _hex(one) for one in text)


def _parts(prefix: str, name: Name) -> Iterator[tuple[str, str]]:
    """Yield the parts that mod_ssl has a name for; a second one of a kind ends
    in ``_1``, a third in ``_2``."""
    seen: Counter[str] = Counter()
    for attribute in (one for part in name.parts for one in part):
        part, text = _PARTS.get(dotted(attribute.kind)), attribute.text
        if part is not None and text is not None:
            number = f"_{seen[part]}" if seen[part] else ""
            seen[part] += 1
            yield f"{prefix}{part}{number}", escaped(text)


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


def _pem(certificate: Certificate) -> str:
    return certificate.pem.decode("ascii")


def _serial(number: int) -> str:
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _time(when: datetime) -> str:
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return f"{months[when.month - 1]} {when.day:2} {when:%H:%M:%S} {when.year} GMT"
