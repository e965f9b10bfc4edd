"""
Carries bytes between OpenSSL in memory and a socket until the connection is over.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from attrs import frozen
from OpenSSL import SSL

from mtlsgate.probe.outcome import Ending
from mtlsgate.text import quoted
from mtlsgate.tls.openssl_errors import last_reason

#: The types of TLS records that a server may send first: alert and handshake.
_FIRST_RECORDS = b"\x15\x16"
_CHUNK = 2**16


@frozen
class ConversationEnd:
    """
    The connection is over.

    :ivar ending: how it ended.
    :ivar detail: more about it.
    """

    ending: Ending
    detail: str = ""


class Conversation:
    """
    Carries bytes between OpenSSL and the socket.

    :ivar connection: OpenSSL's side, in memory.
    """

    def __init__(self, connection: SSL.Connection, transport: socket.socket) -> None:
        self.connection = connection
        self._transport = transport
        #: Whether the server has been found to speak TLS.
        self._is_tls = False
        #: Whether sending failed with a reset; receiving then does not report it again.
        self._was_reset = False

    def end_of(self, step: Callable[[], object], seconds: float) -> ConversationEnd | None:
        """
        :param step: an OpenSSL call; repeated until it succeeds.
        :param seconds: how long that may take.
        :returns: how the connection ended before that, or None if the call succeeded.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                step()
                return None
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                return ConversationEnd(Ending.CLOSED)
            except SSL.Error as error:
                return ConversationEnd(Ending.FAILED, reason(error))
            finally:
                self._flush()
            if (end := self._feed(deadline - time.monotonic())) is not None:
                return end

    def _flush(self) -> None:
        try:
            while True:
                self._transport.sendall(self.connection.bio_read(_CHUNK))
        except SSL.WantReadError:
            pass
        except OSError as error:
            # A server that closes may have sent the reason before: read that first.
            self._was_reset |= isinstance(error, ConnectionResetError)

    def _feed(self, seconds: float) -> ConversationEnd | None:
        """:returns: how the connection ended; None if more bytes came."""
        if seconds <= 0:
            return ConversationEnd(Ending.TIMEOUT)
        self._transport.settimeout(seconds)
        try:
            data = self._transport.recv(_CHUNK)
        except TimeoutError:
            return ConversationEnd(Ending.TIMEOUT)
        except OSError:
            return ConversationEnd(Ending.RESET)
        if not data:
            return ConversationEnd(Ending.RESET if self._was_reset else Ending.CUT)
        if not self._is_tls and data[0] not in _FIRST_RECORDS:
            line = data.splitlines()[0][:60].decode("latin-1")
            return ConversationEnd(Ending.NOT_TLS, f"it began with {quoted(line)}")
        self._is_tls = True
        self.connection.bio_write(data)
        return None


def converse(session: Conversation, timeout: float, wait: float) -> tuple[ConversationEnd, bool]:
    """:returns: how it ended, and whether the handshake was complete."""
    connection = session.connection
    if (end := session.end_of(connection.do_handshake, timeout)) is not None:
        return end, False
    end = session.end_of(lambda: connection.recv(1), wait) or ConversationEnd(Ending.DATA)
    # Leave politely, so that no gate logs a failure.
    session.end_of(connection.shutdown, wait)
    return ConversationEnd(Ending.SILENCE) if end.ending is Ending.TIMEOUT else end, True


def reason(error: SSL.Error) -> str:
    """:returns: OpenSSL's description of the error."""
    return last_reason(error) or type(error).__name__
