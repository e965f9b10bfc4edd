"""
Certificates of every hostile shape, signed by CAs that the gate knows, and
rules of every kind to present them to.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from attrs import evolve
from cryptography.x509 import DNSName, NameConstraints

from mtlsgate.admission import Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.testing import Authority
from tests.kits.forgery import object_identifier, raw, tlv
from tests.kits.gate import condition, rule
from tests.kits.revocation import crl, der

ROOT = Authority.create("Root")
NARROW = Authority.create(
    "Narrow", name_constraints=NameConstraints([DNSName("in.example")], [DNSName("x.in.example")])
)
#: The one that these shapes are made for.
HOLDER = ROOT.issue("holder")
KEY = HOLDER.private_key

SAN, POLICIES, CONSTRAINTS = "2.5.29.17", "2.5.29.32", "2.5.29.30"
USAGE, BASIC, PURPOSE = "2.5.29.15", "2.5.29.19", "2.5.29.37"


def name(*values: bytes, tag: int = 0x0C, oid: str = "2.5.4.3") -> bytes:
    """:returns: a distinguished name."""
    parts = (tlv(0x30, object_identifier(oid) + tlv(tag, value)) for value in values)
    return tlv(0x30, b"".join(tlv(0x31, part) for part in parts))


def names(*those: bytes, tag: int = 0x82) -> tuple[str, bytes]:
    """:returns: a subject alternative name; of DNS names, if not said."""
    return SAN, tlv(0x30, b"".join(tlv(tag, one) for one in those))


def time(text: str, tag: int = 0x18) -> bytes:
    return tlv(tag, text.encode())


NOW, THEN = time("250101000000Z", 0x17), time("490101000000Z", 0x17)


def policies(number: int) -> tuple[str, bytes]:
    """:returns: so many certificate policies."""
    each = (tlv(0x30, object_identifier(f"1.3.6.1.4.1.{one}")) for one in range(number))
    return POLICIES, tlv(0x30, b"".join(each))


def nested(depth: int, tag: int = 0x30) -> bytes:
    value = b""
    for _ in range(depth):
        value = tlv(tag, value)
    return value


EMPTY = tlv(0x30, b"")
LONG = [b"%d.in.example" % number for number in range(4000)]
#: One SPKI that says it is an RSA key of the given numbers.
RSA = tlv(0x30, object_identifier("1.2.840.113549.1.1.1") + b"\x05\x00")


def rsa_spki(modulus: int, exponent: int) -> bytes:
    both = b"".join(
        tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))
        for number in (modulus, exponent)
    )
    return tlv(0x30, RSA + tlv(0x03, b"\0" + tlv(0x30, both)))


SHAPES: dict[str, dict[str, Any]] = {
    "sound": {},
    # Subjects.
    "empty subject": {"subject": EMPTY},
    "empty subject, SAN": {"subject": EMPTY, "extensions": [names(b"a.example")]},
    "empty common name": {"subject": name(b"")},
    "NUL in subject": {"subject": name(b"holder\0.example")},
    "latin-1 as PrintableString": {"subject": name(b"\xff\xfe", tag=0x13)},
    "T61String": {"subject": name(b"\xe9\x00\xff", tag=0x14)},
    "BMPString, odd length": {"subject": name(b"\0a\0", tag=0x1E)},
    "BMPString, surrogates": {"subject": name(b"\xd8\0\xdc\0\xd8\0", tag=0x1E)},
    "UniversalString": {"subject": name(b"\0\0\0a\xff\xff\xff\xff", tag=0x1C)},
    "NULL as name": {"subject": name(b"", tag=0x05)},
    "SEQUENCE as name": {"subject": name(b"\x02\x01\x01", tag=0x30)},
    "BIT STRING as name": {"subject": name(b"\0\xff", tag=0x03)},
    "INTEGER as name": {"subject": name(b"\1", tag=0x02)},
    "overlong UTF-8": {"subject": name(b"\xc0\x80\xe0\x80\xaf")},
    "UTF-8 surrogates": {"subject": name(b"\xed\xa0\x80")},
    "bidi and joiners": {"subject": name("\u202eevil\u2066\u200d\ufeff".encode())},
    "combining": {"subject": name(("e" + "\u0301" * 2000).encode())},
    "1000 attributes": {"subject": name(*[b"x"] * 1000)},
    "long common name": {"subject": name(b"x" * 60_000)},
    "country of one letter": {"subject": name(b"x", tag=0x13, oid="2.5.4.6")},
    # Subject alternative names.
    "64 KB of SANs": {"extensions": [names(*LONG)]},
    "one long SAN": {"extensions": [names(b"a." * 30_000 + b"example")]},
    "NUL in SAN": {"extensions": [names(b"holder.example\0.evil.example")]},
    "empty SAN": {"extensions": [(SAN, EMPTY)]},
    "empty DNS name": {"extensions": [names(b"")]},
    "UTF-8 in DNS name": {"extensions": [names("h\u00f6lder.example".encode())]},
    "control characters": {"extensions": [names(b"a\r\n\x1b[31m")]},
    "IP of 3 octets": {"extensions": [names(b"abc", tag=0x87)]},
    "IP network": {"extensions": [names(bytes(8), tag=0x87)]},
    "other name": {"extensions": [names(object_identifier("1.2.3") + b"\xa0\x00", tag=0xA0)]},
    "X.400 address": {"extensions": [names(b"", tag=0xA3)]},
    "directory name": {"extensions": [names(name(b"\xff"), tag=0xA4)]},
    "registered id": {"extensions": [names(b"\x2a\x03", tag=0x88)]},
    "bad email": {"extensions": [names(b"\xff@@", tag=0x81)]},
    "odd URIs": {"extensions": [names(b"spiffe://", b"spiffe://a/../..", b"%00", tag=0x86)]},
    "unknown general name": {"extensions": [names(b"x", tag=0x9E)]},
    "SAN of another type": {"extensions": [(SAN, b"\x02\x01\x01")]},
    "SAN and trailing octets": {"extensions": [(SAN, names(b"a.example")[1] + b"\0")]},
    # Serial numbers.
    "negative serial": {"serial": b"\xff"},
    "zero serial": {"serial": b"\0"},
    "empty serial": {"serial": b""},
    "huge serial": {"serial": b"\x7f" * 4000},
    "serial of 21 octets": {"serial": b"\0" + b"\xff" * 20},
    "padded serial": {"serial": b"\0\0\0\1"},
    # Times.
    "year 0000": {"validity": (time("00000101000000Z"), THEN)},
    "year 9999": {"validity": (NOW, time("99991231235959Z"))},
    "GeneralizedTime in 2025": {"validity": (time("20250101000000Z"), THEN)},
    "fractions": {"validity": (NOW, time("20490101000000.5Z"))},
    "offset": {"validity": (NOW, time("20490101000000+0100"))},
    "no seconds": {"validity": (time("2501010000Z", 0x17), THEN)},
    "month 13": {"validity": (NOW, time("20491301000000Z"))},
    "February 30": {"validity": (NOW, time("20490230000000Z"))},
    "leap second": {"validity": (NOW, time("490630235960Z", 0x17))},
    "ends before it begins": {"validity": (THEN, NOW)},
    "no time": {"validity": (time("", 0x17), time("", 0x18))},
    "times of another type": {"validity": (b"\x02\x01\x01", b"\x02\x01\x01")},
    # Extensions.
    "duplicate extensions": {"extensions": [names(b"a.example"), names(b"b.example")]},
    "unknown critical": {"extensions": [("!1.2.3.4", b"\x05\x00")]},
    "unknown": {"extensions": [("1.2.3.4", b"\xff" * 50_000)]},
    "1000 unknown": {"extensions": [(f"1.2.3.{one}", b"") for one in range(1000)]},
    "name constraints": {"extensions": [("!" + CONSTRAINTS, tlv(0x30, tlv(0xA0, EMPTY)))]},
    "4096 policies": {"extensions": [policies(4096)]},
    "4096 critical policies": {"extensions": [("!" + POLICIES, policies(4096)[1])]},
    "policy twice": {"extensions": [(POLICIES, tlv(0x30, policies(1)[1][2:] * 2))]},
    "policies of another type": {"extensions": [(POLICIES, b"\x05\x00")]},
    "empty key usage": {"extensions": [(USAGE, b"\x03\x01\x00")]},
    "key usage of another type": {"extensions": [(USAGE, b"\x05\x00")]},
    "long key usage": {"extensions": [(USAGE, tlv(0x03, b"\0" + b"\xff" * 5000))]},
    "empty purposes": {"extensions": [(PURPOSE, EMPTY)]},
    "5000 purposes": {"extensions": [(PURPOSE, tlv(0x30, b"\x06\x02\x2a\x03" * 5000))]},
    "purposes of another type": {"extensions": [(PURPOSE, b"\xff")]},
    "CA of negative length": {"extensions": [("!" + BASIC, bytes.fromhex("30060101ff0201ff"))]},
    "CA of huge length": {
        "extensions": [("!" + BASIC, tlv(0x30, b"\1\1\xff\2\x09" + b"\x7f" * 9))]
    },
    "boolean of 2": {"extensions": [("!" + BASIC, bytes.fromhex("3003010102"))]},
    "empty key identifier": {"extensions": [("2.5.29.35", EMPTY)]},
    "key identifier of another type": {"extensions": [("2.5.29.35", b"\x05\x00")]},
    "deep nesting": {"extensions": [("1.2.3.4", nested(5000))]},
    "deep names": {"extensions": [(SAN, tlv(0x30, tlv(0xA4, nested(5000))))]},
    "bad CRL points": {"extensions": [("2.5.29.31", tlv(0x30, b"\x30\x02\xa0\x00" * 1000))]},
    "bad SCTs": {"extensions": [("1.3.6.1.4.1.11129.2.4.2", tlv(0x04, b"\xff\xff\0"))]},
    "proxy": {
        "extensions": [("!1.3.6.1.5.5.7.1.14", bytes.fromhex("300c300a06082b06010505071501"))]
    },
    "addresses": {"extensions": [("!1.3.6.1.5.5.7.1.7", bytes.fromhex("30060404" + "0000ffff"))]},
    # The certificate itself.
    "version 1": {"version": b""},
    "version 2": {"version": b"\xa0\x03\x02\x01\x01"},
    "version 99": {"version": b"\xa0\x03\x02\x01\x63"},
    "version -1": {"version": b"\xa0\x03\x02\x01\xff"},
    "more after the extensions": {"more": b"\xa4\x00"},
    # Keys that are not the holder's, and no keys.
    "RSA of 16 kbit": {"spki": rsa_spki((1 << 16384) - 1, 65537)},
    "RSA of 64 kbit": {"spki": rsa_spki((1 << 65536) - 1, 65537)},
    "RSA, huge exponent": {"spki": rsa_spki((1 << 3072) - 1, (1 << 3071) - 1)},
    "RSA, exponent 1": {"spki": rsa_spki((1 << 2048) - 1, 1)},
    "RSA, even": {"spki": rsa_spki(1 << 2048, 2)},
    "RSA, zero": {"spki": rsa_spki(0, 0)},
    "no key": {"spki": tlv(0x30, RSA + b"\x03\x01\x00")},
    "unknown kind of key": {
        "spki": tlv(0x30, tlv(0x30, b"\x06\x02\x2a\x03") + b"\x03\x02\x00\x01")
    },
    "point not on the curve": {
        "spki": bytes.fromhex(
            "3059301306072a8648ce3d020106082a8648ce3d030107034200" + "04" + "11" * 64
        )
    },
    "point at infinity": {
        "spki": bytes.fromhex("3019301306072a8648ce3d020106082a8648ce3d03010703020000")
    },
}


@cache
def shaped(shape: str, issuer: str = "Root") -> bytes:
    return raw(NARROW if issuer == "Narrow" else ROOT, KEY, **SHAPES[shape])


KINDS = {
    "common_names": "x",
    "organizations": "x",
    "organizational_units": "x",
    "dns_names": "*.x.example",
    "uris": "https://x.example/**",
    "email_addresses": "x@x.example",
    "ip_addresses": "192.0.2.0/24",
    "spiffe_ids": "spiffe://x.example/*",
    "sha256": "00" * 32,
    "spki_sha256": "00" * 32,
    "serial_numbers": "1234",
    "issuers": "CN=x",
}


@cache
def rules() -> dict[str, list[Rule]]:
    """Rules of every kind, on both CAs."""
    those = [ROOT, NARROW]
    everyone = rule("everyone", those)
    now = datetime.now(UTC)
    lists = [one for ca in those for one in parse_crls(der(crl(ca, now=now)))]
    every = [condition(**{kind: [value]}) for kind, value in KINDS.items()]
    lower = ROOT.intermediate("Lower")
    return {
        "CA": [everyone],
        "allow": [evolve(rule(str(one), those), allow=(one,)) for one in every],
        "deny": [evolve(everyone, deny=tuple(every))],
        "CRL": [evolve(everyone, revocation=Revocation(tuple(lists)), max_depth=1)],
        "pinned": [rule("pin", those, HOLDER), rule("lower", lower)],
    }


MODES: dict[str, dict[str, Any]] = {
    "strict": {},
    "compatible": {"strict": False},
    "double": {"always_ask_twice": True},
}
