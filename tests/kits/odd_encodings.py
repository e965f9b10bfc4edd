"""
Certificates that OpenSSL takes, although a field that nobody needs is odd.

Each is what `tests.kits.forgery.raw` makes of it.
"""

from __future__ import annotations

from typing import Any

from tests.kits.forgery import object_identifier, tlv
from tests.kits.hostile import NOW, SAN, THEN, name, names, nested, time

POINTS, POLICIES, SEQUENCE = "2.5.29.31", "2.5.29.32", 0x30
#: The CPS and the user notice of a policy (RFC 5280, 4.2.1.4).
NOTICE = object_identifier("1.3.6.1.5.5.7.2.2")


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, b"".join(parts))


def policy(*qualifiers: bytes) -> tuple[str, bytes]:
    """:returns: one certificate policy."""
    known = object_identifier("1.3.6.1.4.1.1")
    return POLICIES, sequence(sequence(known, sequence(*qualifiers)))


def notice(text: bytes, tag: int) -> bytes:
    return sequence(NOTICE, sequence(tlv(tag, text)))


def subject_key(oid: str, tag: int, value: bytes) -> dict[str, Any]:
    return {"subject": name(value, tag=tag, oid=oid)}


#: Leaves.
LEAVES: dict[str, dict[str, Any]] = {
    # Names.
    "PrintableString with an asterisk": {"subject": name(b"*.corp.example", tag=0x13)},
    "PrintableString with an at sign": {"subject": name(b"ops@corp.example", tag=0x13)},
    "PrintableString with an underscore": {"subject": name(b"device_7", tag=0x13)},
    "PrintableString with an ampersand": {"subject": name(b"Smith & Sons", tag=0x13)},
    "PrintableString in Latin-1": {"subject": name(b"M\xfcller", tag=0x13)},
    "T61String in Latin-1": {"subject": name(b"M\xfcller", tag=0x14)},
    "IA5String in Latin-1": {"subject": name(b"M\xfcller", tag=0x16)},
    "NumericString with letters": {"subject": name(b"device", tag=0x12)},
    "BMPString": {"subject": name("device".encode("utf-16-be"), tag=0x1E)},
    "UniversalString": {"subject": name("device".encode("utf-32-be"), tag=0x1C)},
    "unique identifier": subject_key("2.5.4.45", 0x03, b"\0\1\2"),
    "country of one letter": subject_key("2.5.4.6", 0x13, b"D"),
    "country of three letters": subject_key("2.5.4.6", 0x13, b"DEU"),
    "empty country": subject_key("2.5.4.6", 0x13, b""),
    "long common name": {"subject": name(b"x" * 300)},
    "SEQUENCE as a name": {"subject": name(b"\x02\x01\x01", tag=SEQUENCE)},
    # Alternative names.
    "X.400 address": {"extensions": [names(sequence(), tag=0xA3)]},
    "EDI party name": {"extensions": [names(tlv(0xA1, tlv(0x0C, b"x")), tag=0xA5)]},
    "registered identifier": {"extensions": [names(b"\x2a\x03", tag=0x88)]},
    "directory name in Latin-1": {"extensions": [names(name(b"\xff", tag=0x13), tag=0xA4)]},
    "DNS name in Latin-1": {"extensions": [names(b"m\xfcller.example")]},
    "DNS name in UTF-8": {"extensions": [names("müller.example".encode())]},
    "DNS name with blanks": {"extensions": [names(b" a b ")]},
    "email in Latin-1": {"extensions": [names(b"m\xfc@example.org", tag=0x81)]},
    "URI in Latin-1": {"extensions": [names(b"urn:m\xfc", tag=0x86)]},
    "URI without a scheme": {"extensions": [names(b"::", tag=0x86)]},
    "IP address of three octets": {"extensions": [names(b"abc", tag=0x87)]},
    "other name": {
        "extensions": [
            names(object_identifier("1.3.6.1.4.1.311.20.2.3") + tlv(0xA0, b"\x0c\x01x"), tag=0xA0)
        ]
    },
    # Extensions.
    "critical FALSE spelt out": {"extensions": [("=" + SAN, names(b"a.example")[1])]},
    "point with an odd URI": {
        "extensions": [(POINTS, sequence(sequence(tlv(0xA0, tlv(0xA0, tlv(0x86, b"\xff"))))))]
    },
    "point relative to its issuer": {
        "extensions": [
            (
                POINTS,
                sequence(
                    sequence(
                        tlv(0xA0, tlv(0xA1, sequence(object_identifier("2.5.4.3"), b"\x13\x01*")))
                    )
                ),
            )
        ]
    },
    "notice in Latin-1": {"extensions": [policy(notice(b"M\xfcller", 0x1A))]},
    "notice in BMPString": {"extensions": [policy(notice(b"\0x", 0x1E))]},
    "notice in IA5String": {"extensions": [policy(notice(b"x", 0x16))]},
    "long notice": {"extensions": [policy(notice(b"x" * 500, 0x0C))]},
    "unknown qualifier": {
        "extensions": [policy(sequence(object_identifier("1.2.3.4"), b"\x02\x01\x01"))]
    },
    "no qualifiers": {"extensions": [policy()]},
    "authority information of another type": {"extensions": [("1.3.6.1.5.5.7.1.1", b"\x05\x00")]},
    "authority information with an odd name": {
        "extensions": [
            (
                "1.3.6.1.5.5.7.1.1",
                sequence(sequence(object_identifier("1.3.6.1.5.5.7.48.1"), tlv(0x86, b"\xff"))),
            )
        ]
    },
    "SCTs of another type": {"extensions": [("1.3.6.1.4.1.11129.2.4.2", b"\x05\x00")]},
    "Netscape comment in Latin-1": {
        "extensions": [("2.16.840.1.113730.1.13", tlv(0x16, b"M\xfcller"))]
    },
    "alternative name of the issuer": {"extensions": [("2.5.29.18", b"\x05\x00")]},
    "subject information of another type": {"extensions": [("1.3.6.1.5.5.7.1.11", b"\x05\x00")]},
    "freshest CRL of another type": {"extensions": [("2.5.29.46", b"\x05\x00")]},
    "TLS feature of another type": {"extensions": [("1.3.6.1.5.5.7.1.24", b"\x05\x00")]},
    "qualified statements of another type": {"extensions": [("1.3.6.1.5.5.7.1.3", b"\x05\x00")]},
    "validity of the key": {"extensions": [("2.5.29.16", b"\x05\x00")]},
    "Microsoft's template of another type": {"extensions": [("1.3.6.1.4.1.311.21.7", b"\x05\x00")]},
    "private extension that is no DER": {"extensions": [("1.2.3.4", b"\xff\xff")]},
    "private extension, deeply nested": {"extensions": [("1.2.3.4", nested(2000))]},
    "empty private extension": {"extensions": [("1.2.3.4", b"")]},
    # The certificate itself.
    "GeneralizedTime before 2050": {"validity": (time("20250101000000Z"), THEN)},
    "GeneralizedTime for both": {"validity": (time("20250101000000Z"), time("20490101000000Z"))},
    "the last second of all": {"validity": (NOW, time("99991231235959Z"))},
}
#: Subjects that OpenSSL cannot read either.
UNREADABLE: dict[str, dict[str, Any]] = {
    "BMPString of odd length": {"subject": name(b"\0a\0", tag=0x1E)},
    "UTF-8 that is none": {"subject": name(b"\xff\xfe")},
    "NULL as a name": {"subject": name(b"", tag=0x05)},
}
#: ... that keep to the profile only if nobody is strict.
LOOSE_LEAVES: dict[str, dict[str, Any]] = {
    "negative serial number": {"serial": b"\xff"},
    "serial number 0": {"serial": b"\0"},
    "serial number of 40 octets": {"serial": b"\x7f" * 40},
    "subject that is empty": {
        "subject": sequence(),
        "extensions": [names(b"a.example")],
    },
    "key identifier of the issuer by name alone": {
        "extensions": [("2.5.29.35", sequence())],
    },
    "key usage with unused bits": {"extensions": [("2.5.29.15", b"\x03\x02\x00\xa0")]},
}
