"""
Finding a header of either version in what a proxy sends first.
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
    :ivar detail: what is wrong; nothing in it is the sender's own text.
    """

    detail: str


def begins_header(data: bytes) -> bool:
    """:returns: whether the first five bytes are a header's, of either version."""
    beginning = data[:_TELLING]
    return len(beginning) == _TELLING and any(
        one.startswith(beginning) for one in (v1.SIGNATURE, v2.SIGNATURE)
    )


class HeaderReader:
    """
    Takes the bytes as they come until the header is whole.

    :ivar rest: once it is, what came after it.
    :ivar _received: what came before that; never longer than the longest
        header and what came in one piece with its end.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._received = bytearray()
        self._outcome: Header | NoHeader | None = None

    def feed(self, data: bytes) -> Header | NoHeader | None:
        """
        :param data: the next bytes, as many as there are.
        :returns: None while more is needed.  The outcome then depends on the
            bytes alone and not on how they came, and later ones do not change it.
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
