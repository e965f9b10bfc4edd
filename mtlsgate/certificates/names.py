"""
Distinguished names: read leniently, compared as in RFC 5280 (7.1).

Two names are the same if their `Name.key` is equal.  Case, spaces and string types
make no difference.  All comparisons of names use this key.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from attrs import frozen

from mtlsgate.certificates import der
from mtlsgate.certificates.der import MalformedDer

COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT = b"\x55\x04\x03", b"\x55\x04\x0a", b"\x55\x04\x0b"

#: Short names of attributes (RFC 4514, 3).
SHORT_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}
_ESCAPED = re.compile(r'[\\"+,;<>\0]')

#: Longer values are compared without normalization, because it takes more than linear
#: time.  X.520 allows 64 characters for most attributes.
_MAX_NORMALIZED = 512
#: Characters that are ignored when names are compared (RFC 4518, 2.2).
_IGNORED = re.compile(
    "[\u00ad\u034f\u1806\u180b-\u180d\u200b-\u200f\u202a-\u202e\u2060-\u2063\ufe00-\ufe0f\ufeff\ufffc]"
)

#: The encodings of the string types.  As in OpenSSL, bad encodings are refused, but
#: types with one octet a character may have characters that they should not have.
_ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x14: "latin-1",  # T61String: its own character set is dead
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
}


class NamePart(NamedTuple):
    """
    One attribute of a name.

    :ivar kind: the content of its object identifier.
    :ivar tag: the type of its value.
    :ivar value: the content of its value.
    """

    kind: bytes
    tag: int
    value: bytes

    @property
    def text(self) -> str | None:
        """The value; None if it cannot be decoded reliably."""
        encoding = _ENCODINGS.get(self.tag)
        if encoding is None:
            return None
        try:
            return self.value.decode(encoding)
        except UnicodeDecodeError:
            return None

    @property
    def key(self) -> Hashable:
        """A key that is equal for equal attributes."""
        text = self.text
        # Unreadable values are equal only if all their bytes are.
        value = (self.tag, self.value) if text is None else _prepared(text)
        return self.kind, value

    def written(self, short_names: Mapping[str, str]) -> str:
        """:returns: the attribute as RFC 4514 (2.3 and 2.4) writes it."""
        dotted = der.dotted(self.kind)
        text = self.text
        value = f"#{self.value.hex()}" if text is None else _escaped(text)
        return f"{short_names.get(dotted, dotted)}={value}"


@frozen(slots=False, repr=False)
class Name:
    """
    A distinguished name, parsed on first use.  Compare names by their `key`.

    :ivar der: its DER.
    """

    der: bytes

    @cached_property
    def parts(self) -> tuple[tuple[NamePart, ...], ...]:
        """
        Its relative distinguished names, the most general first.

        :raises Malformed: if it is not a name.
        """
        return tuple(_parts(self.der))

    @cached_property
    def key(self) -> Hashable:
        """
        A key that is equal for equal names (RFC 5280, 7.1).

        :raises Malformed: if it is not a name.
        """
        # The attributes of one part form a set.
        return tuple(
            part[0].key if len(part) == 1 else frozenset(one.key for one in part)
            for part in self.parts
        )

    @property
    def is_empty(self) -> bool:
        """Whether it has no attribute at all."""
        return not self.parts

    def attributes(self, kind: bytes) -> tuple[NamePart, ...]:
        """
        :param kind: the content of an object identifier, such as `COMMON_NAME`.
        :returns: its attributes of that kind, the most general first.
        """
        return tuple(one for part in self.parts for one in part if one.kind == kind)

    def rfc4514_string(self, short_names: Mapping[str, str] = SHORT_NAMES) -> str:
        """
        :param short_names: names for attributes, by their dotted identifiers.
        :returns: the name for people; values that are not text are in hex.
        """
        return ",".join(
            "+".join(one.written(short_names) for one in part) for part in reversed(self.parts)
        )


def bearing(name: Name) -> bytes:
    """:returns: the DER of an empty certificate with this subject.  OpenSSL accepts a
    name only in this form."""
    algorithm = der.tlv(der.SEQUENCE, der.tlv(der.OBJECT_IDENTIFIER, der.oid("1.3.101.112")))
    key = der.tlv(der.SEQUENCE, algorithm + der.tlv(der.BIT_STRING, bytes(33)))
    time = der.tlv(der.UTC_TIME, b"000101000000Z")
    parts = (
        der.tlv(der.INTEGER, b"\1"),
        algorithm,
        name.der,
        der.tlv(der.SEQUENCE, time + time),
        name.der,
        key,
    )
    content = der.tlv(der.SEQUENCE, b"".join(parts))
    return der.tlv(der.SEQUENCE, content + algorithm + der.tlv(der.BIT_STRING, bytes(65)))


def _parts(encoded: bytes) -> Iterator[tuple[NamePart, ...]]:
    for part in der.only(encoded, der.SEQUENCE, "a name").children():
        yield tuple(_attributes(part.expect(der.SET, "a part of a name")))


def _attributes(part: der.Element) -> Iterator[NamePart]:
    for one in part.children():
        pair = tuple(one.expect(der.SEQUENCE, "an attribute of a name").children())
        if len(pair) != 2:
            raise MalformedDer("an attribute of a name is no pair of kind and value")
        kind, value = pair
        kind.expect(der.OBJECT_IDENTIFIER, "the kind of an attribute of a name")
        yield NamePart(kind.value, value.tag, value.value)


def _prepared(text: str) -> str:
    """:returns: a form that is equal for strings that differ only in case and spaces
    (based on RFC 4518)."""
    if not text.isascii():
        text = _IGNORED.sub("", text)
        if len(text) <= _MAX_NORMALIZED:
            folded = unicodedata.normalize("NFKC", text).casefold()
            text = unicodedata.normalize("NFKC", folded)
    return " ".join(text.casefold().split())


def _escaped(text: str) -> str:
    """:returns: the value as RFC 4514 (2.4) writes it."""
    escaped = _ESCAPED.sub(lambda found: "\\00" if found[0] == "\0" else "\\" + found[0], text)
    if escaped[:1] == "#" or (escaped[:1] == " " and len(text) > 1):
        escaped = "\\" + escaped
    if escaped[-1:] == " ":
        escaped = escaped[:-1] + "\\ "
    return escaped
