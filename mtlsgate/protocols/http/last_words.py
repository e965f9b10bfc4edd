"""
What a target said last on a connection that is lost.

A target may answer before it has read a request, and close.  The next write then fails, and
Twisted closes the socket with the answer in it, unread.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IProtocol, ISSLTransport

#: Bytes that are read at most: such an answer is short.
_MOST = 128 * 1024


class LastWords:
    """
    A second descriptor of a connection's socket, to be read when the first is closed.

    :ivar _socket: None where there is none to be had, as with TLS, whose keys are gone by then.
    """

    def __init__(self, transport: Any) -> None:
        """
        :param transport: of the connection.
        """
        self._socket: socket.socket | None = None
        fileno = getattr(transport, "fileno", None)
        if fileno is not None and not _has_tls(transport):
            with suppress(OSError):
                # Without a descriptor to spare there are no last words.
                self._socket = socket.socket(fileno=os.dup(fileno()))

    def read(self) -> bytes:
        """:returns: what is there; never waits for more."""
        data = bytearray()
        if self._socket is not None:
            with suppress(OSError):
                while len(data) < _MOST:
                    piece = self._socket.recv(_MOST, socket.MSG_DONTWAIT)
                    if not piece:
                        break
                    data += piece
        return bytes(data)

    def close(self) -> None:
        """They are of no interest any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _has_tls(transport: Any) -> bool:
    """:returns: whether the socket's bytes are encrypted.  Twisted's own TLS is a protocol on
    the socket's transport, and does not always say that it is TLS."""
    return ISSLTransport.providedBy(transport) or IProtocol.providedBy(transport)
