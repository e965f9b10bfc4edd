"""
The CA names in a server's CertificateRequest.

Clients choose their certificate by these names.  Without names a client may offer
any certificate.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtlsgate.admission import Rule, authorities_of, lone_pins_of
from mtlsgate.certificates.names import Name

#: In bytes.  Java and SChannel refuse longer handshake messages; OpenSSL accepts 100 KiB.
LONGEST_MESSAGE = 32 * 1024
#: The most bytes that the rest of the message takes: header and signature algorithms.
_REST = 256


def ca_names(rules: Iterable[Rule]) -> tuple[Name, ...]:
    """
    :returns: the names of the rules' CAs, and of the issuers of pins without a CA,
        without duplicates.  The issuers are needed because a client may offer only
        certificates whose issuer is named (RFC 8446, 4.2.4).
    """
    given = tuple(rules)
    subjects = (one.subject for one in authorities_of(given))
    issuers = (one.issuer for one in lone_pins_of(given))
    return tuple({name.der: name for name in (*subjects, *issuers)}.values())


def message_size(names: Iterable[Name]) -> int:
    """:returns: the possible length of a CertificateRequest with these names, in bytes."""
    return _REST + sum(2 + len(name.der) for name in names)
