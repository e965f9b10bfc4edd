"""
Reads a header of either version from the first bytes of a connection.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.proxyprotocol import v1, v2
from mtlsgate.proxyprotocol.header import Header, Malformed

_TLS_HANDSHAKE = 22
_TELLING = 5


@frozen
class NoHeader:
    """
    There is no valid header.

    :ivar detail: what is wrong, without the sender's own text.
    """

    detail: str


def begins_header(data: bytes) -> bool:
    """:returns: whether the first five bytes begin a header of either version."""
    beginning = data[:_TELLING]
    return len(beginning) == _TELLING and any(
        one.startswith(beginning) for one in (v1.SIGNATURE, v2.SIGNATURE)
    )


class HeaderReader:
    """
    Takes bytes as they come until the header is complete.

    :ivar rest: the bytes after the complete header.
    :ivar _received: the bytes so far.  They are never more than the longest header
        plus one piece.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._received = bytearray()
        self._outcome: Header | NoHeader | None = None

    def feed(self, data: bytes) -> Header | NoHeader | None:
        """
        :param data: the next bytes, any number of them.
        :returns: None while more bytes are needed.  The result depends only on
            the bytes, not on how they were split, and later bytes do not change it.
        """
        if isinstance(self._outcome, Header):
            self.rest += data
        elif self._outcome is None:
            self._received += data
            try:
                self._outcome = self._header()
            except Malformed as error:
                self._outcome = NoHeader(str(error))
            if self._outcome is not None:
                self._received = bytearray()
        return self._outcome

    def _header(self) -> Header | None:
        received = self._received
        for signature, parse in ((v1.SIGNATURE, v1.parse_v1), (v2.SIGNATURE, v2.parse_v2)):
            beginning = received[: len(signature)]
            if not signature.startswith(beginning):
                continue
            found = parse(received) if len(beginning) == len(signature) else None
            if found is None:
                return None
            header, end = found
            self.rest = bytes(received[end:])
            return header
        raise Malformed(
            "TLS began without a PROXY header before it"
            if received[0] == _TLS_HANDSHAKE
            else "what arrived is no PROXY header"
        )
