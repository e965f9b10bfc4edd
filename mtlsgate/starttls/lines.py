"""
The exchange before TLS in protocols of lines: SMTP and IMAP.
"""

from __future__ import annotations

from collections.abc import Callable

from mtlsgate.reasons import Reason
from mtlsgate.starttls.negotiation import NoUpgrade, Turn, Upgrade
from mtlsgate.starttls.recognition import plain_protocol

#: The longest line, in bytes.  SMTP allows 512 (RFC 5321, 4.5.3.1.4); IMAP's ID command
#: may be longer.
MAX_LINE = 2048
#: How many commands a client may send before it asks for TLS.
MAX_COMMANDS = 20

_TLS_HANDSHAKE = 22


class LineNegotiation:
    """
    Reads a client's commands, one a line, until it asks for TLS.

    :ivar greeting: what to send before the client says anything.
    :ivar _received: the bytes of the current line so far.
    :ivar _commands: how many commands came.
    """

    def __init__(
        self,
        dialect: str,
        greeting: bytes,
        answer: Callable[[bytes], Turn],
        refusal: Callable[[bytes], bytes],
    ) -> None:
        """
        :param dialect: the protocol's name.
        :param answer: takes a line without its end; returns what comes of it.
        :param refusal: makes a protocol's last words out of a text.
        """
        self.greeting = greeting
        self._dialect = dialect
        self._answer = answer
        self._refusal = refusal
        self._received = bytearray()
        self._commands = 0

    def feed(self, data: bytes) -> Turn:
        """:returns: what comes of the bytes; see `Negotiation`."""
        self._received += data
        said = bytearray()
        while True:
            turn = self._next()
            said += turn.answer
            if turn.outcome is not None or not turn.answer:
                return Turn(bytes(said), turn.outcome)

    def _next(self) -> Turn:
        """:returns: what comes of the next line; nothing if it is not complete."""
        received = self._received
        if not self._commands and received:
            refused = self._foreign()
            if refused is not None:
                return Turn(outcome=refused)
        end = received.find(b"\n")
        if (len(received) if end < 0 else end) > MAX_LINE:
            return self._refuse(Reason.STARTTLS_ERROR, f"a line of more than {MAX_LINE} bytes")
        if end < 0:
            return Turn()
        if not received[:end].endswith(b"\r"):
            return self._refuse(Reason.STARTTLS_ERROR, "a line that does not end with CR LF")
        line = bytes(received[: end - 1])
        del received[: end + 1]
        self._commands += 1
        if self._commands > MAX_COMMANDS:
            return self._refuse(
                Reason.STARTTLS_REQUIRED, f"the client sent {MAX_COMMANDS} commands and no STARTTLS"
            )
        turn = self._answer(line)
        if isinstance(turn.outcome, Upgrade) and received:
            return self._refuse(
                Reason.STARTTLS_INJECTION, "unencrypted bytes came behind the STARTTLS command"
            )
        return turn

    def _foreign(self) -> NoUpgrade | None:
        """:returns: why a client is refused whose first bytes are another protocol's."""
        if self._received[0] == _TLS_HANDSHAKE:
            return NoUpgrade(
                Reason.STARTTLS_ERROR,
                "the client began TLS without STARTTLS: it needs a server without starttls",
            )
        other = plain_protocol(bytes(self._received))
        if other is None or other.dialect == self._dialect:
            return None
        return NoUpgrade(Reason.NOT_TLS, other.words)

    def _refuse(self, reason: Reason, detail: str) -> Turn:
        return Turn(self._refusal(detail.encode("ascii")), NoUpgrade(reason, detail))
