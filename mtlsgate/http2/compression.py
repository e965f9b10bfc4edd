"""
HPACK (RFC 7541) with bounds: what a header block may become, and what is kept of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder

from mtlsgate.http.fields import Line

#: The first bit of a field that is in the table; a number that goes on in further bytes.
_INDEXED, _LONG = 0x80, 0xFF
_KNOWN = 16
#: What a change of the table's size begins with (RFC 7541, 6.3).
_UPDATE = 0x20
_MAX_UPDATES = 4


class _CompressionFault(ProtocolError):
    """A header block that is not one (RFC 9113, 4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class _TooLong(ProtocolError):
    """Header fields that are far more than the limit: what HPACK made of few bytes."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class FieldDecoder(Decoder):
    """
    Keeps the fields for `heads`, which reads them as those of HTTP/1.1 are read.

    :ivar fields: of the last header block.
    :ivar _known: the fields of blocks that came since the table changed: a client that asks for
        the same again sends the same few bytes.
    """

    fields: Sequence[Line] = ()

    def __init__(self, max_header_list_size: int, *, keeps_status: bool = False) -> None:
        """:param keeps_status: whether ``h2`` has to know interim responses."""
        super().__init__(max_header_list_size)
        self._keeps_status = keeps_status
        self._known: dict[bytes, Sequence[Line]] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        """:returns: what ``h2`` has a use for: nothing, but the status of a response."""
        known = self._known.get(data)
        if known is None:
            known = self._decode(data)
            # RFC 7541, 6.1: a byte for each field, which is in the table.  Anything else may
            # change the table.
            if not data or min(data) < _INDEXED or max(data) == _LONG or len(self._known) >= _KNOWN:
                self._known.clear()
            else:
                self._known[data] = known
        self.fields = known
        return known[:1] if self._keeps_status else ()

    def _decode(self, data: bytes) -> Sequence[Line]:
        _check_updates(data)
        try:
            return [(one[0], one[1]) for one in super().decode(data, raw=True)]
        except OversizedHeaderListError:
            raise _TooLong("the header fields of a request are far too long") from None
        except (HPACKError, IndexError) as error:
            raise _CompressionFault("a header block cannot be decoded") from error


def _check_updates(data: bytes) -> None:
    """
    Look at the changes of the table's size, which begin a block.  Two say all that there is to
    say (RFC 7541, 4.2); a block of nothing else would cost much and count as no field.
    """
    place = count = 0
    while data[place : place + 1] and data[place] & 0xE0 == _UPDATE:
        count += 1
        if count > _MAX_UPDATES:
            raise _CompressionFault("a header block changes the table's size again and again")
        more = data[place] & 0x1F == 0x1F
        place += 1
        while more and data[place : place + 1]:
            more = data[place] >= 0x80
            place += 1


class FieldEncoder(Encoder):
    """
    Keeps nothing of a response in a table.

    So no response tells anything of another by its size, a connection needs no memory for it, and
    the same field is always the same bytes, which need not be worked out again.

    :ivar _fields: those of the next header block.
    """

    _fields: Sequence[Line] = ()

    def stage(self, fields: Sequence[Line]) -> None:
        """:param fields: of the header block that ``h2`` asks for next, which would look at each
        of them several times."""
        self._fields = fields

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """:returns: a header block of the fields that were staged."""
        block = b"".join(map(_encoded, self._fields))
        if self.header_table.resized:
            # The client changed its size, which comes first.
            return super().encode(()) + block
        return block


def _encoded(field: Line) -> bytes:
    name, value = field
    if len(name) + len(value) > _SHORT or name == b"set-cookie":
        return _encode(name, value)
    return _remembered(name, value)


def _encode(name: bytes, value: bytes) -> bytes:
    # The third says that it is not to be indexed.
    return Encoder().encode([(name, value, True)])


#: Longer ones are seldom the same again.
_SHORT = 64
_remembered = lru_cache(2048)(_encode)
