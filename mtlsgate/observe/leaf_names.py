"""
The names in a certificate, for people: safe to print, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.text import printable

T = TypeVar("T")

#: Stands for a name that does not parse.
UNREADABLE = "(does not parse)"


def subject_of(certificate: Certificate) -> str:
    """:returns: the subject, as RFC 4514 has it."""
    return read(lambda: printable(certificate.subject.rfc4514_string()), UNREADABLE)


def issuer_of(certificate: Certificate) -> str:
    """:returns: the issuer, as RFC 4514 has it."""
    return read(lambda: printable(certificate.issuer.rfc4514_string()), UNREADABLE)


def read(what: Callable[[], T], otherwise: T) -> T:
    """
    :param what: reads something in a certificate, much of which is parsed on first use.
    :returns: what it returns, or the other value if that does not parse.
    """
    try:
        return what()
    except UNPARSABLE:
        return otherwise
