"""
PostgreSQL's request for TLS (its documentation, "Frontend/Backend Protocol", sections
"SSL Session Encryption" and "Message Formats").

A client begins with an SSLRequest of eight bytes, and the answer ``S`` begins TLS.  It
may ask for GSSAPI encryption before that; ``N`` declines it.  Clients of PostgreSQL 17
may also begin with TLS at once.
"""

from __future__ import annotations

import struct

from mtlsgate.reasons import Reason
from mtlsgate.starttls.negotiation import NoUpgrade, Turn, Upgrade
from mtlsgate.starttls.recognition import plain_protocol

#: What a direct client offers by ALPN.
ALPN = (b"postgresql",)

_TLS_HANDSHAKE = 22
_HEAD = struct.Struct("!II")
_SSL_REQUEST, _GSSENC_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
#: The longest StartupMessage that PostgreSQL takes (MAX_STARTUP_PACKET_LENGTH).
_MAX_STARTUP = 10_000
_MAJOR_VERSION = 3

# SQLSTATE: invalid authorization specification, protocol violation.
_NOT_ENCRYPTED, _VIOLATION = "28000", "08P01"


class PostgresNegotiation:
    """
    Waits for an SSLRequest.

    :ivar _received: the bytes of the current message so far.
    :ivar _is_gss_declined: whether the client has asked for GSSAPI encryption.
    """

    greeting = b""

    def __init__(self, _: str = "") -> None:
        self._received = bytearray()
        self._is_gss_declined = False

    def feed(self, data: bytes) -> Turn:
        """:returns: what comes of the bytes; see `Negotiation`."""
        received = self._received
        received += data
        if received[0] == _TLS_HANDSHAKE:
            return Turn(outcome=Upgrade(bytes(received)))
        if len(received) < _HEAD.size:
            other = plain_protocol(bytes(received))
            if other is not None and other.dialect != "postgres":
                return Turn(outcome=NoUpgrade(Reason.NOT_TLS, other.words))
            return Turn()
        length, code = _HEAD.unpack_from(received)
        if code == _CANCEL_REQUEST:
            # PostgreSQL never answers one.
            return Turn(
                outcome=NoUpgrade(
                    Reason.STARTTLS_REQUIRED,
                    "a CancelRequest without TLS, as clients before PostgreSQL 17 send it",
                )
            )
        if length == _HEAD.size and code in (_SSL_REQUEST, _GSSENC_REQUEST):
            return self._on_request(code)
        if code >> 16 == _MAJOR_VERSION and length <= _MAX_STARTUP:
            return self._on_startup(length)
        other = plain_protocol(bytes(received))
        if other is not None and other.dialect != "postgres":
            return Turn(outcome=NoUpgrade(Reason.NOT_TLS, other.words))
        return Turn(
            outcome=NoUpgrade(Reason.STARTTLS_ERROR, "what arrived is no message of PostgreSQL's")
        )

    def _on_request(self, code: int) -> Turn:
        request = "SSLRequest" if code == _SSL_REQUEST else "GSSENCRequest"
        if len(self._received) > _HEAD.size:
            return Turn(
                _error(_VIOLATION, f"unencrypted data after the {request}"),
                NoUpgrade(
                    Reason.STARTTLS_INJECTION, f"unencrypted bytes came behind the {request}"
                ),
            )
        self._received.clear()
        if code == _SSL_REQUEST:
            return Turn(b"S", Upgrade())
        if self._is_gss_declined:
            return Turn(
                _error(_VIOLATION, "a second GSSENCRequest"),
                NoUpgrade(Reason.STARTTLS_ERROR, "the client sent a GSSENCRequest twice"),
            )
        self._is_gss_declined = True
        return Turn(b"N")

    def _on_startup(self, length: int) -> Turn:
        if len(self._received) < length:
            # An answer to the beginning could be lost when the rest comes.
            return Turn()
        text = "this server requires TLS: set sslmode=verify-full, sslcert and sslkey"
        return Turn(
            _error(_NOT_ENCRYPTED, text),
            NoUpgrade(Reason.STARTTLS_REQUIRED, "a StartupMessage without TLS"),
        )


def _error(code: str, text: str) -> bytes:
    """:returns: an ErrorResponse, which ends the session."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
    body = b"".join(f"{kind}{value}\0".encode() for kind, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body
