"""
PEM (RFC 7468): text to blocks of DER.

It is read in small steps, because a file may be hundreds of megabytes and no
step may keep the other threads waiting.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Iterator
from typing import NamedTuple

from mtlsgate.errors import CredentialError

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_BLANKS = b" \t\r\n\v\f"
#: So many characters of base64 are decoded in one step; a multiple of 4.
_STEP = 1 << 18


class Block(NamedTuple):
    """
    :ivar label: what its BEGIN line says it is.
    :ivar text: all of it, from BEGIN to END.
    :ivar body: the lines between.
    """

    label: str
    text: bytes
    body: bytes


def ders(data: bytes, labels: Container[str], wanted: str) -> list[bytes]:
    """
    :param data: PEM (one block or many), DER, or base64 of DER.
    :param labels: what PEM blocks may be called.
    :param wanted: what they should be, for messages.
    :returns: the DER of each.
    :raises CredentialError: if it is none of these.
    """
    if not data.strip():
        raise CredentialError("is empty")
    if not is_pem(data):
        return [data if data[:1] == b"\x30" else whole_base64(data)]
    found = blocks(data)
    for number, block in enumerate(found, 1):
        if block.label not in labels:
            raise CredentialError(
                f"PEM block {number} of {len(found)} is a {block.label}, not {wanted}"
            )
    # A loop, and not a call that runs through: other threads get their turn.
    return [content(block, number, len(found)) for number, block in enumerate(found, 1)]


def whole_base64(data: bytes) -> bytes:
    """
    :returns: what a file of base64 alone stands for.
    :raises CredentialError: if it is something else.
    """
    try:
        return from_base64(data)
    except ValueError:
        raise CredentialError("is neither PEM nor DER nor base64 of DER") from None


def is_pem(data: bytes) -> bool:
    """:returns: whether there is a BEGIN line in it."""
    return _BEGIN in data


def blocks(data: bytes) -> list[Block]:
    """
    :returns: each block; the text around them is ignored.  A BEGIN or END line
        may be indented, and blanks may follow it.
    :raises CredentialError: if any BEGIN or END is not part of a whole block.
    """
    found = whole_blocks(data)
    begun, ended = data.count(_BEGIN), data.count(_END)
    if not begun == ended == len(found):
        raise CredentialError(
            f"the PEM is damaged: {begun} BEGIN lines and {ended} END lines make "
            f"{len(found)} whole blocks"
        )
    return found


def whole_blocks(data: bytes) -> list[Block]:
    """:returns: each whole block; what else there is is ignored."""
    return list(_blocks(data))


def _blocks(data: bytes) -> Iterator[Block]:
    at = 0
    while (begin := data.find(_BEGIN, at)) >= 0:
        at = begin + len(_BEGIN)
        label_end = data.find(_DASHES, at)
        if label_end < 0:
            return
        label = data[at:label_end]
        # A label is a few words on one line; five dashes may be far away.
        if len(label) > 64 or not _is_label(label):
            continue
        body = _end_of_line(data, label_end + len(_DASHES))
        end = data.find(_DASHES, body)
        if body < 0 or end < 0:
            continue
        closing = _END + label + _DASHES
        if data[end : end + len(closing)] != closing:
            at = end
            continue
        at = end + len(closing)
        yield Block(label.decode("ascii"), data[begin:at], data[body:end])


def _is_label(label: bytes) -> bool:
    return label.replace(b" ", b"").isalnum() and label == label.upper() and label.isascii()


def _end_of_line(data: bytes, at: int) -> int:
    """:returns: where the next line starts; -1 if there is more on this one than blanks."""
    end = data.find(b"\n", at, at + 256)
    return -1 if end < 0 or data[at:end].strip(_BLANKS) else end + 1


def content(block: Block, number: int, count: int) -> bytes:
    """
    :param number: of the block, for messages.
    :param count: how many there are.
    :returns: the DER in it.
    :raises CredentialError: if it is not base64.
    """
    # RFC 1421 headers are what OpenSSL writes in encrypted PKCS#1 keys.
    if b":" in block.body:
        return b""
    try:
        return from_base64(block.body)
    except ValueError:
        raise CredentialError(
            f"PEM block {number} of {count} does not parse: its base64 is damaged"
        ) from None


def from_base64(text: bytes) -> bytes:
    """
    :returns: what the text stands for; blanks count for nothing.
    :raises ValueError: if it is not base64.
    """
    if len(text) <= _STEP:
        return _decoded(text.translate(None, _BLANKS))
    decoded, rest = list[bytes](), b""
    for start in range(0, len(text), _STEP):
        rest += text[start : start + _STEP].translate(None, _BLANKS)
        whole = len(rest) & ~3
        # The padding must be at the very end, so the last piece waits for its turn.
        if start + _STEP < len(text):
            if b"=" in rest[:whole]:
                # Unless blanks are all that follows, this is no base64.
                whole = 0
                if len(rest) > 2 * _STEP:
                    raise ValueError("padding within base64")
            decoded.append(_decoded(rest[:whole]))
            rest = rest[whole:]
    return b"".join((*decoded, _decoded(rest)))


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
