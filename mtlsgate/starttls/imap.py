"""
IMAP's STARTTLS (RFC 9051, 6.2.1).

The server greets first.  Until TLS begins, nobody can log in (LOGINDISABLED).
Afterwards the client asks for the capabilities anew, and the server does not greet
again.
"""

from __future__ import annotations

import re

from mtlsgate.reasons import Reason
from mtlsgate.starttls.lines import LineNegotiation
from mtlsgate.starttls.negotiation import NoUpgrade, Turn, Upgrade

_CAPABILITIES = b"CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED"

#: A tag, a command, and its arguments.  A tag is returned to the client, so nothing
#: else may be taken for one (RFC 9051, 9: tag).
_COMMAND = re.compile(
    rb"(?P<tag>[^\x00-\x20(){%*\"\\+\x7f-\xff]{1,32}) (?P<name>[A-Za-z]+)(?: .*)?"
)


def imap_negotiation(_: str = "") -> LineNegotiation:
    """:returns: a new exchange before TLS."""
    return LineNegotiation(
        "imap",
        b"* OK [%s] ready\r\n" % _CAPABILITIES,
        _answer,
        lambda text: b"* BYE %s\r\n" % text,
    )


def _answer(line: bytes) -> Turn:
    command = _COMMAND.fullmatch(line)
    if command is None:
        return Turn(b"* BAD no command\r\n")
    tag = command["tag"]
    match command["name"].upper():
        case b"CAPABILITY":
            return Turn(b"* %s\r\n%s OK done\r\n" % (_CAPABILITIES, tag))
        case b"NOOP":
            return Turn(b"%s OK done\r\n" % tag)
        case b"STARTTLS":
            return Turn(b"%s OK begin TLS\r\n" % tag, Upgrade())
        case b"LOGOUT":
            return Turn(
                b"* BYE goodbye\r\n%s OK done\r\n" % tag,
                NoUpgrade(Reason.STARTTLS_REQUIRED, "the client left without STARTTLS"),
            )
    # PRIVACYREQUIRED: RFC 5530.
    return Turn(b"%s NO [PRIVACYREQUIRED] send STARTTLS first\r\n" % tag)
