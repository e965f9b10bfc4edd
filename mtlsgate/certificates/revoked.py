"""
The entries of a revocation list (RFC 5280, 5.1.2.6).

There may be a million.  They are kept as bytes with a small table of positions.  The
table is built in small steps, so that other threads can run.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from mtlsgate.certificates import der
from mtlsgate.certificates.certificate import Extension, extensions_in
from mtlsgate.certificates.der import Element, MalformedDer
from mtlsgate.errors import CredentialError

_REASON, _INVALIDITY_DATE = b"\x55\x1d\x15", b"\x55\x1d\x18"
_CERTIFICATE_ISSUER = b"\x55\x1d\x1d"

#: The names of reasons in RFC 5280, 5.3.1.
_REASONS = {
    0: "unspecified",
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    6: "certificateHold",
    8: "removeFromCRL",
    9: "privilegeWithdrawn",
    10: "aACompromise",
}
_REMOVED = 8

#: The smallest entry: a serial number of one octet, and a UTCTime.
_SMALLEST_ENTRY = 2 + 3 + 15


class Revoked(NamedTuple):
    """
    One entry.

    :ivar serial: the revoked serial number.
    :ivar date: since when; None if that cannot be read.  It is revoked all the same.
    :ivar reason: why, in RFC 5280's spelling.
    """

    serial: int
    date: datetime | None
    reason: str

    @property
    def is_removal(self) -> bool:
        """Whether it cancels an earlier entry; only a delta CRL may do that."""
        return self.reason == _REASONS[_REMOVED]


class RevokedCertificates:
    """
    The entries of one list.

    :ivar _places: a hash table with open addressing: the position of an entry in
        the bytes, or 0.
    """

    def __init__(self, entries: Element | None, is_delta: bool = False) -> None:
        """
        :param entries: the revokedCertificates, if there are any.
        :param is_delta: whether the list may cancel earlier entries.
        :raises CredentialError: if an entry cannot be fully applied.
        """
        self._data = b"" if entries is None else entries.data
        self._span = (0, 0) if entries is None else (entries.content, entries.stop)
        self._is_delta = is_delta
        most = (self._span[1] - self._span[0]) // _SMALLEST_ENTRY
        self._mask = (1 << (2 * most).bit_length()) - 1
        self._places = array("I", bytes(4 * (self._mask + 1)))
        self._count = self._fill()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Revoked]:
        at, stop = self._span
        while at < stop:
            entry = der.read(self._data, at, stop)
            yield _entry(entry)
            at = entry.end

    def __contains__(self, serial: int) -> bool:
        return self.find(serial) is not None

    def find(self, serial: int) -> Revoked | None:
        """:returns: the entry for a serial number, or None."""
        content = _content_of(serial)
        slot = hash(content) & self._mask
        while place := self._places[slot]:
            entry = der.read(self._data, place, self._span[1])
            if der.integer(next(entry.children()), "a serial number") == serial:
                return _entry(entry)
            slot = (slot + 1) & self._mask
        return None

    def _fill(self) -> int:
        data, places, mask = self._data, self._places, self._mask
        at, stop = self._span
        count, checked = 0, set[bytes]()
        while at < stop:
            # Read the usual entry, with short lengths, in place.
            if data[at : at + 1] == b"0" and data[at + 1] < 0x80 and data[at + 2 : at + 3] == b"\2":
                end = at + 2 + data[at + 1]
                serial_end = at + 4 + data[at + 3]
                content = data[at + 4 : serial_end]
                date_end = serial_end + 2 + data[serial_end + 1] if serial_end < end else end + 1
            else:
                date_end = end = 0
            if not date_end or date_end > end or end > stop or _is_padded(content):
                end, content, extensions = _odd_entry(data, at, stop)
            else:
                extensions = data[date_end:end]
            # Most entries have the same few extensions: check each only once.
            if extensions and extensions not in checked:
                _check_entry(extensions, self._is_delta)
                if len(extensions) < 64 and len(checked) < 1024:
                    checked.add(extensions)
            slot = hash(content) & mask
            while places[slot]:
                slot = (slot + 1) & mask
            places[slot] = at
            count += 1
            at = end
        return count


def _is_padded(content: bytes) -> bool:
    return len(content) != 1 and content[:1] in (b"", b"\0", b"\xff")


def _odd_entry(data: bytes, at: int, stop: int) -> tuple[int, bytes, bytes]:
    """:returns: where the entry ends, the normalized content of its serial number, and
    its extensions."""
    entry = der.read(data, at, stop).expect(der.SEQUENCE, "an entry")
    parts = tuple(entry.children())
    if len(parts) not in (2, 3):
        raise MalformedDer("an entry is of another form")
    serial = der.integer(parts[0], "a serial number")
    return entry.end, _content_of(serial), parts[2].encoded if len(parts) == 3 else b""


def _content_of(serial: int) -> bytes:
    length = (serial if serial >= 0 else ~serial).bit_length() // 8 + 1
    return serial.to_bytes(length, "big", signed=True)


def _entry(entry: Element) -> Revoked:
    serial, date, *extensions = entry.children()
    try:
        when = der.time(date, "a date")
    except MalformedDer:
        when = None
    reason = 0
    for one in extensions_in(extensions[0]) if extensions else ():
        if one.kind == _REASON:
            reason = _reason(one)
    return Revoked(
        der.integer(serial, "a serial number"), when, _REASONS.get(reason, f"code {reason}")
    )


def _reason(extension: Extension) -> int:
    try:
        return der.integer(der.only(extension.value, der.ENUMERATED, "a reason"), "a reason")
    except MalformedDer:
        # Without a readable reason the entry still revokes.
        return 0


def _check_entry(extensions: bytes, is_delta: bool) -> None:
    for one in extensions_in(der.only(extensions, der.SEQUENCE, "the extensions of an entry")):
        if one.kind == _CERTIFICATE_ISSUER:
            raise CredentialError("is an indirect CRL: one by the CA itself is needed")
        if one.kind == _REASON:
            if _reason(one) == _REMOVED and not is_delta:
                raise CredentialError("has an entry removeFromCRL, as only a delta CRL may")
        elif one.critical and one.kind != _INVALIDITY_DATE:
            raise CredentialError(
                f"has an entry with the critical extension {der.dotted(one.kind)}, which is "
                "not supported"
            )
