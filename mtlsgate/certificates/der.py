"""
A small DER reader (X.690), enough for certificates and CRLs.

It is as lenient as OpenSSL: lengths may be longer than needed or indefinite, and any
octet except zero is TRUE.  Bad input raises `MalformedDer` and nothing else.  Only what
is asked for is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER = 0x01, 0x02, 0x03, 0x04, 0x06
ENUMERATED, UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x0A, 0x17, 0x18, 0x30, 0x31

_CONSTRUCTED = 0x20
#: How deeply values of indefinite length may be nested.
_MAX_DEPTH = 16


class MalformedDer(ValueError):
    """Bytes that cannot be read.  The text names the part, never the bytes."""


class Element(NamedTuple):
    """
    One value, as a position in the bytes and not a copy.

    :ivar tag: its identifier octets, as one number.
    :ivar data: the bytes that contain it.
    :ivar start: where its identifier starts.
    :ivar content: where its content starts.
    :ivar stop: where its content ends.
    :ivar end: where the next value starts.
    """

    tag: int
    data: bytes
    start: int
    content: int
    stop: int
    end: int

    @property
    def value(self) -> bytes:
        """The content."""
        return self.data[self.content : self.stop]

    @property
    def encoded(self) -> bytes:
        """The whole value, with tag and length."""
        return self.data[self.start : self.end]

    def children(self) -> Iterator[Element]:
        """:returns: the values in it, in order."""
        at, stop, data = self.content, self.stop, self.data
        while at < stop:
            child = read(data, at, stop)
            yield child
            at = child.end

    def expect(self, tag: int, what: str) -> Element:
        """
        :returns: itself.
        :raises Malformed: if it has another tag.
        """
        if self.tag != tag:
            raise MalformedDer(f"{what} is of another type")
        return self


def read(data: bytes, at: int, stop: int, depth: int = 0) -> Element:
    """
    :param at: where the value starts.
    :param stop: where it must end at the latest.
    """
    start = at
    try:
        tag = data[at]
        length = data[at + 1]
        at += 2
        if tag & 0x1F == 0x1F:
            # The tag number has several octets; no value that is needed has that.
            at -= 1
            while length & 0x80:
                tag = tag << 8 | length
                at += 1
                length = data[at]
                if at - start > 5:
                    raise MalformedDer("a tag is too long")
            tag = tag << 8 | length
            length = data[at + 1]
            at += 2
        if length == 0x80:
            return _indefinite(data, tag, start, at, stop, depth)
        if length > 0x80:
            octets = length & 0x7F
            # OpenSSL allows leading zeros, but there is a limit.
            if octets > 16 or at + octets > stop:
                raise MalformedDer("a length is too long")
            length = int.from_bytes(data[at : at + octets], "big")
            at += octets
    except IndexError:
        raise MalformedDer("it ends too early") from None
    end = at + length
    if end > stop:
        raise MalformedDer("a value is longer than what it is in")
    return Element(tag, data, start, at, end, end)


def _indefinite(data: bytes, tag: int, start: int, at: int, stop: int, depth: int) -> Element:
    """Find the two zero octets that end a value of indefinite length."""
    first_octet = tag
    while first_octet > 0xFF:
        first_octet >>= 8
    if not first_octet & _CONSTRUCTED or depth == _MAX_DEPTH:
        raise MalformedDer("a length is indefinite where it must not be")
    content = at
    while data[at : at + 2] != b"\0\0":
        at = read(data, at, stop, depth + 1).end
    if at + 2 > stop:
        raise MalformedDer("it ends too early")
    return Element(tag, data, start, content, at, at + 2)


def only(data: bytes, tag: int, what: str) -> Element:
    """
    :returns: the only value in the bytes.
    :raises Malformed: if it has another tag, or if more data follows.
    """
    element = read(data, 0, len(data)).expect(tag, what)
    if element.end != len(data):
        raise MalformedDer(f"{what} is followed by other data")
    return element


def integer(element: Element, what: str) -> int:
    """:returns: the value of an INTEGER or ENUMERATED."""
    if element.tag not in (INTEGER, ENUMERATED) or element.content == element.stop:
        raise MalformedDer(f"{what} is not an integer")
    return int.from_bytes(element.value, "big", signed=True)


def boolean(element: Element, what: str) -> bool:
    """:returns: the value of a BOOLEAN; in BER, every octet except zero is TRUE."""
    if element.tag & 0x1F != BOOLEAN or element.stop - element.content != 1:
        raise MalformedDer(f"{what} is not a boolean")
    return element.data[element.content] != 0


def bits(element: Element, what: str) -> bytes:
    """:returns: the octets of a BIT STRING; the first bit is the highest one."""
    if element.tag & 0x1F != BIT_STRING or element.content == element.stop:
        raise MalformedDer(f"{what} is not a bit string")
    unused = element.data[element.content]
    octets = element.data[element.content + 1 : element.stop]
    if unused > 7 or (unused and not octets):
        raise MalformedDer(f"{what} is not a bit string")
    if not unused:
        return octets
    # Clear the unused bits (X.690, 11.2.1).
    return octets[:-1] + bytes([octets[-1] & (0xFF << unused & 0xFF)])


def time(element: Element, what: str) -> datetime:
    """
    :returns: the instant, aware.  Only the forms of RFC 5280 (4.1.2.5) are
        accepted: with seconds, and in UTC.
    """
    text = element.value
    short = element.tag == UTC_TIME
    if not short and element.tag != GENERALIZED_TIME:
        raise MalformedDer(f"{what} is no time")
    digits = text[:-1]
    if len(digits) != (12 if short else 14) or not digits.isdigit() or text[-1:] != b"Z":
        raise MalformedDer(f"{what} is no time of the form that RFC 5280 demands")
    if short:
        digits = (b"19" if digits[:2] >= b"50" else b"20") + digits
    try:
        return datetime(
            int(digits[:4]),
            int(digits[4:6]),
            int(digits[6:8]),
            int(digits[8:10]),
            int(digits[10:12]),
            int(digits[12:]),
            tzinfo=UTC,
        )
    except ValueError:
        raise MalformedDer(f"{what} is no time that exists") from None


def tlv(tag: int, content: bytes) -> bytes:
    """:returns: a value with its tag and length."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


@lru_cache(1024)
def dotted(identifier: bytes) -> str:
    """
    :param identifier: the content of an OBJECT IDENTIFIER.
    :returns: the identifier in dotted notation.
    """
    arcs, value = list[int](), 0
    if len(identifier) > 64:
        raise MalformedDer("an object identifier is too long")
    for octet in identifier:
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    if not arcs or identifier[-1] & 0x80:
        raise MalformedDer("an object identifier ends too early")
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def oid(text: str) -> bytes:
    """:returns: the content of an OBJECT IDENTIFIER from its dotted notation."""
    first, second, *rest = map(int, text.split("."))
    return b"".join(map(_arc, (40 * first + second, *rest)))


def _arc(value: int) -> bytes:
    octets = [value & 0x7F]
    while value := value >> 7:
        octets.append(value & 0x7F | 0x80)
    return bytes(reversed(octets))
