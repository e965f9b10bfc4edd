"""
The stages of a connection, and which may follow which.

`mtlsgate.gate.connection` follows this table::

    stage           holds                         for at most            leads to
    --------------  ----------------------------  ---------------------  ----------------------
    ACCEPTED        nothing                       one call               PROXY_HEADER, STARTTLS,
                                                                         CLIENT_HELLO, HANDSHAKE
    PROXY_HEADER    the header, 64 KiB            handshake_timeout      STARTTLS, CLIENT_HELLO,
                                                                         HANDSHAKE
    STARTTLS        a message, 10 KB              handshake_timeout      CLIENT_HELLO, HANDSHAKE
    CLIENT_HELLO    the hello, 256 KiB            handshake_timeout      HANDSHAKE, CHALLENGE
    CHALLENGE       TLS, handshake_bytes          handshake_timeout      CLOSING
    HANDSHAKE       TLS, handshake_bytes          handshake_timeout      REGISTRY, AUTHORIZER,
                                                                         APPLICATION
    REGISTRY        what came with the handshake  the registry's         AUTHORIZER, APPLICATION
                                                  timeout, a few times
    AUTHORIZER      what came with the handshake  authorize_timeout      REGISTRY, APPLICATION
    APPLICATION     what the application lets     its own limits         CLOSING
    CLOSING         an alert, or what the         the kernel takes it,   OVER
                    application has written       or handshake_timeout
    OVER            nothing

In CHALLENGE the client is a CA that validates a name of the gate (`mtlsgate.tls.challenge`).

Every stage also leads to CLOSING and to OVER: a client can be rejected, and a
connection can be lost, at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType


class Stage(Enum):
    """A stage of a connection."""

    ACCEPTED = "accepted"
    PROXY_HEADER = "PROXY header"
    STARTTLS = "STARTTLS"
    CLIENT_HELLO = "ClientHello"
    CHALLENGE = "ACME challenge"
    HANDSHAKE = "handshake"
    REGISTRY = "registry"
    AUTHORIZER = "authorizer"
    APPLICATION = "application"
    CLOSING = "closing"
    OVER = "over"


_END = (Stage.CLOSING, Stage.OVER)

#: The stages that may follow each stage.  The only way to the application is through
#: the handshake.
TRANSITIONS: Mapping[Stage, frozenset[Stage]] = MappingProxyType(
    {
        Stage.ACCEPTED: frozenset(
            (Stage.PROXY_HEADER, Stage.STARTTLS, Stage.CLIENT_HELLO, Stage.HANDSHAKE, *_END)
        ),
        Stage.PROXY_HEADER: frozenset((Stage.STARTTLS, Stage.CLIENT_HELLO, Stage.HANDSHAKE, *_END)),
        Stage.STARTTLS: frozenset((Stage.CLIENT_HELLO, Stage.HANDSHAKE, *_END)),
        Stage.CLIENT_HELLO: frozenset((Stage.HANDSHAKE, Stage.CHALLENGE, *_END)),
        Stage.CHALLENGE: frozenset(_END),
        Stage.HANDSHAKE: frozenset((Stage.REGISTRY, Stage.AUTHORIZER, Stage.APPLICATION, *_END)),
        Stage.REGISTRY: frozenset((Stage.AUTHORIZER, Stage.APPLICATION, *_END)),
        Stage.AUTHORIZER: frozenset((Stage.REGISTRY, Stage.APPLICATION, *_END)),
        Stage.APPLICATION: frozenset(_END),
        Stage.CLOSING: frozenset((Stage.OVER,)),
        Stage.OVER: frozenset(),
    }
)

#: The rejection's detail when a client leaves.  In the handshake OpenSSL may know more.
GONE: Mapping[Stage, str] = MappingProxyType(
    {
        Stage.ACCEPTED: "it went away as it came",
        Stage.PROXY_HEADER: "it went away before its PROXY header was whole",
        Stage.STARTTLS: "the client went away before it asked for TLS",
        Stage.CLIENT_HELLO: "the client went away before its ClientHello was whole",
        Stage.CHALLENGE: "the CA went away in the handshake of its ACME challenge",
        Stage.HANDSHAKE: "the client went away in the handshake",
        Stage.REGISTRY: "the client went away while a registry was asked",
        Stage.AUTHORIZER: "the client went away while the authorizer was asked",
    }
)

#: The rejection's detail when a client takes too long.
LATE: Mapping[Stage, str] = MappingProxyType(
    {
        Stage.PROXY_HEADER: "no whole PROXY header after {:g} s",
        Stage.STARTTLS: "the client did not ask for TLS within {:g} s",
        Stage.CLIENT_HELLO: "no whole ClientHello after {:g} s",
        Stage.CHALLENGE: "the handshake of an ACME challenge was not complete after {:g} s",
        Stage.HANDSHAKE: "the handshake was not complete after {:g} s",
    }
)
