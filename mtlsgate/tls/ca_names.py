"""
The names of CAs that a server puts into its CertificateRequest.

A client chooses its certificate by them.  Without any it may offer what it has.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtlsgate.admission import Rule, authorities_of, lone_pins_of
from mtlsgate.certificates.names import Name

#: In bytes.  Java and SChannel refuse a longer handshake message; OpenSSL takes 100 KiB.
LONGEST_MESSAGE = 32 * 1024
#: At most what the message holds besides: its header, and the signature algorithms.
_REST = 256


def ca_names(rules: Iterable[Rule]) -> tuple[Name, ...]:
    """
    :returns: the names of the rules' CAs, and of the issuers of pins without a CA,
        since a client may not offer a certificate whose issuer is not named (RFC
        8446, 4.2.4).  Each once.
    """
    given = tuple(rules)
    subjects = (one.subject for one in authorities_of(given))
    issuers = (one.issuer for one in lone_pins_of(given))
    return tuple({name.der: name for name in (*subjects, *issuers)}.values())


def message_size(names: Iterable[Name]) -> int:
    """:returns: how long a CertificateRequest with these names may be, in bytes."""
    return _REST + sum(2 + len(name.der) for name in names)
