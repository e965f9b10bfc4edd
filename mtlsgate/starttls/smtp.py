"""
SMTP's STARTTLS (RFC 3207).

The server greets first.  Until TLS begins, only the commands that RFC 3207, 4, names
are answered, and all others are told to begin with STARTTLS.  Afterwards the client
begins anew with EHLO, and the server does not greet again.
"""

from __future__ import annotations

from mtlsgate.reasons import Reason
from mtlsgate.starttls.lines import LineNegotiation
from mtlsgate.starttls.negotiation import NoUpgrade, Turn, Upgrade


def smtp_negotiation(name: str) -> LineNegotiation:
    """
    :param name: the server's name in its greeting.
    :returns: a new exchange before TLS.
    """
    host = name.encode("ascii")

    def answer(line: bytes) -> Turn:
        verb, _, parameter = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                return Turn(b"250-%s\r\n250 STARTTLS\r\n" % host)
            case b"HELO":
                return Turn(b"250 %s\r\n" % host)
            case b"NOOP" | b"RSET":
                return Turn(b"250 2.0.0 ok\r\n")
            case b"STARTTLS" if parameter.strip():
                return Turn(b"501 5.5.4 STARTTLS takes no parameter\r\n")
            case b"STARTTLS":
                return Turn(b"220 2.0.0 begin TLS\r\n", Upgrade())
            case b"QUIT":
                return Turn(
                    b"221 2.0.0 goodbye\r\n",
                    NoUpgrade(Reason.STARTTLS_REQUIRED, "the client left without STARTTLS"),
                )
        return Turn(b"530 5.7.0 send STARTTLS first\r\n")

    return LineNegotiation(
        "smtp", b"220 %s ESMTP\r\n" % host, answer, lambda text: b"421 4.7.0 %s\r\n" % text
    )
