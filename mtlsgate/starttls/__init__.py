"""
STARTTLS: protocols whose clients ask for TLS in plaintext first.

A `Dialect` is the way of one protocol.  Its `Negotiation` reads what a client sends
before TLS and says what to answer, until TLS begins or the client is refused.  This
package is pure: bytes in, bytes and values out.

Nothing that a client says before TLS is used afterwards.  In all dialects bytes behind
the request for TLS are a reason to refuse the client: they are not protected, and
software that kept them for later took an attacker's commands for the client's
(CVE-2011-0411, CVE-2021-23214, CVE-2021-23222).
"""

from mtlsgate.starttls.dialects import DIALECTS, Dialect
from mtlsgate.starttls.greetings import Greeting, GreetingReader, NoGreeting
from mtlsgate.starttls.negotiation import Negotiation, NoUpgrade, Turn, Upgrade
from mtlsgate.starttls.recognition import UNEXPECTED_HEADER, PlainProtocol, plain_protocol

__all__ = [
    "DIALECTS",
    "UNEXPECTED_HEADER",
    "Dialect",
    "Greeting",
    "GreetingReader",
    "Negotiation",
    "NoGreeting",
    "NoUpgrade",
    "PlainProtocol",
    "Turn",
    "Upgrade",
    "plain_protocol",
]
