"""
Reads PEM (RFC 7468) into blocks of DER.

It works in small steps: a file may have hundreds of megabytes, and a long step would
keep other threads waiting.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Iterator
from typing import NamedTuple

from mtlsgate.errors import CredentialError

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_BLANKS = b" \t\r\n\v\f"
#: How many characters of base64 are decoded in one step; a multiple of 4.
_STEP = 1 << 18


class PemBlock(NamedTuple):
    """
    The position of a block in a text.

    :ivar label: the label in its BEGIN line.
    :ivar begin: where its BEGIN line starts.
    :ivar start: where its content starts.
    :ivar stop: where its content stops.
    :ivar end: where its END line ends.
    """

    label: str
    begin: int
    start: int
    stop: int
    end: int


def ders(data: bytes, labels: Container[str], wanted: str) -> Iterator[tuple[int, int, bytes]]:
    """
    :param data: PEM (one block or many), DER, or base64 of DER.
    :param labels: the allowed labels of PEM blocks.
    :param wanted: what is expected, for messages.
    :returns: for each block its number, the number of blocks, and its DER.
    :raises CredentialError: if the data is none of these.
    """
    if not is_pem(data):
        if not data.strip():
            raise CredentialError("is empty")
        yield 1, 1, data if data[:1] == b"\x30" else whole_base64(data)
        return
    found = blocks(data)
    for number, block in enumerate(found, 1):
        if block[0] not in labels:
            raise CredentialError(
                f"PEM block {number} of {len(found)} is a {block[0]}, not {wanted}"
            )
    for number, block in enumerate(found, 1):
        yield number, len(found), _content(data, PemBlock(*block), number, len(found))


def whole_base64(data: bytes) -> bytes:
    """
    :returns: the decoded content of a file that has only base64.
    :raises CredentialError: if it has anything else.
    """
    try:
        return from_base64(data)
    except ValueError:
        raise CredentialError("is neither PEM nor DER nor base64 of DER") from None


def is_pem(data: bytes) -> bool:
    """:returns: whether the data has a BEGIN line."""
    return _BEGIN in data


def blocks(data: bytes) -> list[tuple[str, int, int, int, int]]:
    """
    :returns: the fields of each `PemBlock`.  Text around blocks is ignored.  BEGIN and
        END lines may be indented and followed by blanks.
    :raises CredentialError: if a BEGIN or END is not part of a complete block.
    """
    # Use plain tuples: the garbage collector does not track them.
    found, begun, ended = list[tuple[str, int, int, int, int]](), 0, 0
    for block in _scan(data):
        if block is None:
            begun += 1
        else:
            found.append(block)
            begun, ended = begun + 1, ended + 1
    if begun == len(found):
        # Each complete block has one END line; find out whether there are more.
        ended = data.count(_END)
    if not begun == ended == len(found):
        raise CredentialError(
            f"the PEM is damaged: {data.count(_BEGIN)} BEGIN lines and {data.count(_END)} END "
            f"lines make {len(found)} whole blocks"
        )
    return found


def whole_blocks(data: bytes) -> list[PemBlock]:
    """:returns: the complete blocks; everything else is ignored."""
    return [PemBlock(*block) for block in _scan(data) if block is not None]


def _scan(data: bytes) -> Iterator[tuple[str, int, int, int, int] | None]:
    """:returns: each complete block, and None for each BEGIN that is not part of one."""
    at = 0
    while (begin := data.find(_BEGIN, at)) >= 0:
        at = begin + len(_BEGIN)
        # A label is a few words on one line.
        label_end = data.find(_DASHES, at, at + 64 + len(_DASHES))
        label = data[at:label_end] if label_end >= 0 else b""
        start = _end_of_line(data, label_end + len(_DASHES)) if _is_label(label) else -1
        stop = data.find(_DASHES, start) if start >= 0 else -1
        closing = _END + label + _DASHES
        if stop < 0 or data[stop : stop + len(closing)] != closing:
            yield None
            continue
        at = stop + len(closing)
        yield label.decode("ascii"), begin, start, stop, at


def _is_label(label: bytes) -> bool:
    return label.replace(b" ", b"").isalnum() and label == label.upper() and label.isascii()


def _end_of_line(data: bytes, at: int) -> int:
    """:returns: where the next line starts; -1 if this line has more than blanks."""
    end = data.find(b"\n", at, at + 256)
    return -1 if end < 0 or data[at:end].strip(_BLANKS) else end + 1


def _content(data: bytes, block: PemBlock, number: int, count: int) -> bytes:
    """
    :returns: the DER in a block.
    :raises CredentialError: if it is not base64.
    """
    # OpenSSL writes RFC 1421 headers into encrypted PKCS#1 keys.
    if data.find(b":", block.start, block.stop) >= 0:
        return b""
    try:
        return from_base64(data, block.start, block.stop)
    except ValueError:
        raise CredentialError(
            f"PEM block {number} of {count} does not parse: its base64 is damaged"
        ) from None


def from_base64(text: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """
    :returns: the decoded text from ``start`` to ``stop``; blanks are ignored.
    :raises ValueError: if it is not base64.
    """
    stop = len(text) if stop is None else stop
    if stop - start <= _STEP:
        return _decoded(text[start:stop].translate(None, _BLANKS))
    decoded, rest = bytearray(), b""
    for at in range(start, stop, _STEP):
        rest += text[at : min(at + _STEP, stop)].translate(None, _BLANKS)
        whole = len(rest) & ~3
        if at + _STEP < stop:
            # Padding is only allowed at the very end.
            if b"=" in rest[:-4]:
                raise ValueError("padding within base64")
            whole = max(0, whole - 4)
        decoded += _decoded(rest[:whole])
        rest = rest[whole:]
    if rest:
        raise ValueError("a piece is missing")
    return bytes(decoded)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
