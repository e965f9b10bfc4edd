"""
The dialects, by their names in a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import frozen

from mtlsgate.starttls import greetings, postgres
from mtlsgate.starttls.greetings import GreetingReader
from mtlsgate.starttls.imap import imap_negotiation
from mtlsgate.starttls.negotiation import Negotiation
from mtlsgate.starttls.postgres import PostgresNegotiation
from mtlsgate.starttls.smtp import smtp_negotiation


@frozen
class Dialect:
    """
    How the clients of one protocol ask for TLS.

    :ivar name: its name in a configuration.
    :ivar negotiate: begins a connection's exchange before TLS.  It takes the server's
        name, in ASCII, for the greeting.
    :ivar target_greeting: makes a reader of a target's greeting; None if targets do not
        speak first.
    :ivar alpn: the application protocols that its clients may offer in TLS.
    """

    name: str
    negotiate: Callable[[str], Negotiation]
    target_greeting: Callable[[], GreetingReader] | None = None
    alpn: tuple[bytes, ...] = ()


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        one.name: one
        for one in (
            Dialect("postgres", PostgresNegotiation, alpn=postgres.ALPN),
            Dialect("smtp", smtp_negotiation, greetings.smtp_greeting),
            Dialect("imap", imap_negotiation, greetings.imap_greeting),
        )
    }
)
