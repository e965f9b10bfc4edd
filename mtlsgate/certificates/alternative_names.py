"""
Subject alternative names; only this module reads them.

Each kind is read separately, so that a bad name that nobody asks for does no harm.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

from attrs import frozen

from mtlsgate.certificates import der
from mtlsgate.certificates.der import Element, MalformedDer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# The tags of the kinds of general name (RFC 5280, 4.2.1.6).
EMAIL, DNS, DIRECTORY, URI, IP = 0x81, 0x82, 0xA4, 0x86, 0x87


@frozen(slots=False, repr=False)
class AlternativeNames:
    """
    The names of one certificate.  Each kind is read on first use.  Malformed names
    are left out; `unreadable` tells whether there are any.

    :ivar names: all names, of every kind.
    """

    names: tuple[Element, ...] = ()

    @cached_property
    def dns(self) -> tuple[str, ...]:
        """The DNS names, as written."""
        return tuple(self._texts(DNS))

    @cached_property
    def uris(self) -> tuple[str, ...]:
        """The URIs."""
        return tuple(self._texts(URI))

    @cached_property
    def emails(self) -> tuple[str, ...]:
        """The email addresses."""
        return tuple(self._texts(EMAIL))

    @cached_property
    def ips(self) -> tuple[Address, ...]:
        """The IP addresses."""
        return tuple(
            ipaddress.ip_address(one.value) for one in self._of(IP) if len(one.value) in (4, 16)
        )

    @property
    def uri_count(self) -> int:
        """How many URIs there are, those that cannot be read included."""
        return sum(1 for _ in self._of(URI))

    @property
    def spiffe_id(self) -> str | None:
        """The SPIFFE ID, which must be the only URI (SPIFFE X509-SVID, 2), or None."""
        if self.uri_count != 1 or not self.uris:
            return None
        return self.uris[0] if self.uris[0].startswith("spiffe://") else None

    def unreadable(self, kind: int) -> bool:
        """
        :param kind: a tag, such as `DNS`.
        :returns: whether some names of that kind cannot be read.
        """
        read = {DNS: self.dns, URI: self.uris, EMAIL: self.emails, IP: self.ips}[kind]
        return sum(1 for _ in self._of(kind)) != len(read)

    def _of(self, kind: int) -> Iterator[Element]:
        return (one for one in self.names if one.tag == kind)

    def _texts(self, kind: int) -> Iterator[str]:
        for one in self._of(kind):
            # Names should be ASCII; what is not even UTF-8 is left out.
            with suppress(UnicodeDecodeError):
                yield one.value.decode("utf-8")


def general_names(encoded: bytes, what: str) -> tuple[Element, ...]:
    """
    :param encoded: a GeneralNames value.
    :param what: what the names belong to, for messages.
    :returns: the names.
    :raises Malformed: if it is not a GeneralNames value.
    """
    names = tuple(der.only(encoded, der.SEQUENCE, what).children())
    if any(one.tag & 0xC0 != 0x80 for one in names):
        raise MalformedDer(f"{what} holds what is no name")
    return names
