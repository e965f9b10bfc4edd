"""
Recognises protocols by their first bytes, to name them in the log.
"""

from __future__ import annotations

import re

from attrs import frozen

from mtlsgate.proxyprotocol import begins_header

#: How many bytes decide: as many as a TLS record's header has, so that a client is
#: named in the same way however its bytes were split.
_TELLING = 5


@frozen
class PlainProtocol:
    """
    What a client speaks instead of TLS.

    :ivar words: what it is, and the remedy if there is one.
    :ivar dialect: the name of the dialect that it belongs to, or None.
    """

    words: str
    dialect: str | None = None


#: A PROXY header comes where TLS should begin.
UNEXPECTED_HEADER = PlainProtocol(
    "a PROXY header where TLS should begin: proxy_protocol is not set, or the header came twice"
)

_HTTP_REQUEST = PlainProtocol("an HTTP request without TLS")


def _in_dialect(what: str, dialect: str) -> PlainProtocol:
    return PlainProtocol(f'this is {what}; set starttls = "{dialect}"', dialect)


def _plain(what: str) -> PlainProtocol:
    return PlainProtocol(f"this is {what} without TLS")


#: A pattern of the first five bytes, and what begins so.
_BEGINNINGS: tuple[tuple[re.Pattern[bytes], PlainProtocol], ...] = tuple(
    (re.compile(pattern, re.DOTALL), found)
    for pattern, found in (
        (rb"GET /|POST |HEAD |PUT /|DELET|OPTIO|PATCH|PRI \*", _HTTP_REQUEST),
        (rb"CONNE", PlainProtocol("an HTTP proxy request without TLS")),
        # PostgreSQL: the length of the message, then the beginning of its code.
        (rb"\0\0\0\x08\x04", _in_dialect("PostgreSQL's SSLRequest or GSSENCRequest", "postgres")),
        (
            rb"\0\0\0\x10\x04",
            PlainProtocol("this is PostgreSQL's CancelRequest without TLS", "postgres"),
        ),
        (
            rb"\0\0(?:\0[\x09-\xff]|[\x01-\x27].)\0",
            PlainProtocol(
                "this is PostgreSQL's StartupMessage without TLS; set sslmode=verify-full in the "
                "client",
                "postgres",
            ),
        ),
        (rb"(?i:EHLO|HELO) ", _in_dialect("SMTP without TLS", "smtp")),
        (rb"SSH-[12]", PlainProtocol("this is SSH")),
        # An array of commands, or PING in one line.
        (rb"\*[1-9][0-9]?\r\n|PING\r", _plain("Redis's protocol")),
        # CONNECT with a length of one byte or two (MQTT 3.1.1 and 5: "MQTT"; 3.1: "MQIsdp").
        (rb"\x10(?:[\0-\x7f]\0[\x04\x06]M|[\x80-\xff][\0-\x7f]\0[\x04\x06])", _plain("MQTT")),
        (rb"AMQP\0", _plain("AMQP")),
        # A message of ASN.1 whose number is 1.
        (rb"\x30[\x05-\x7f]\x02\x01\x01", _plain("LDAP")),
        (rb"\x03\0\0.[\x02-\x40]", _plain("RDP")),
        (rb"<\?xml|<stre", _plain("XML, such as XMPP,")),
    )
)


def plain_protocol(beginning: bytes) -> PlainProtocol | None:
    """
    :param beginning: the first bytes from a client; those after the fifth are ignored.
    :returns: the protocol that begins so, or None.
    """
    telling = bytes(beginning[:_TELLING])
    if len(telling) < _TELLING:
        return None
    if begins_header(telling):
        return UNEXPECTED_HEADER
    for pattern, found in _BEGINNINGS:
        if pattern.match(telling):
            return found
    return None
