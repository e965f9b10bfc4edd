"""
What rules are made of, as values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.admission.conditions import Condition
from mtlsgate.admission.revocation import Revocation
from mtlsgate.admission.verdicts import Path
from mtlsgate.certificates.parsing import parse_again, sha256


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@frozen
class Pin:
    """
    A leaf that is admitted as it is, byte for byte.  A certificate is what it
    is made of, but not what it keeps: parsed, those of a fleet would take seven
    times the memory.

    :ivar der: the leaf.
    :ivar name: the label of its ``pin`` block, or None.
    :ivar not_before: the instant from which on it counts, or None.
    :ivar retire_after: the instant after which it no longer counts, or None.
    :ivar digest: SHA-256 of the leaf's DER, 32 bytes.
    """

    der: bytes = field(alias="certificate", converter=_der, repr=False)
    name: str | None = None
    not_before: datetime | None = None
    retire_after: datetime | None = None
    digest: bytes = field(init=False, eq=False)

    @digest.default
    def _digest(self) -> bytes:
        return hashlib.sha256(self.der).digest()

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf, parsed anew each time."""
        return parse_again([self.der])[0]


def _pins(given: Iterable[Pin | x509.Certificate]) -> tuple[Pin, ...]:
    return tuple(one if isinstance(one, Pin) else Pin(one) for one in given)


@frozen
class Rule:
    """
    What one ``client_certificate`` block demands.

    :ivar name: the block's label, or ``#2`` for the second block where it has none.
    :ivar authorities: the CAs, one of which the path must run through; empty
        where the rule names none.
    :ivar pins: the leaves, one of which the client's must be byte-equal to;
        empty where any leaf of the CAs will do.  Bare certificates are taken
        for pins without a name or an end.
    :ivar allow: of which one must hold, where there are any.
    :ivar deny: of which none may hold.
    :ivar max_depth: the number of intermediates at most, or None.
    :ivar revocation: what judges the path by CRLs, or None.
    """

    name: str
    authorities: tuple[x509.Certificate, ...] = ()
    pins: tuple[Pin, ...] = field(default=(), converter=_pins)
    allow: tuple[Condition, ...] = ()
    deny: tuple[Condition, ...] = ()
    max_depth: int | None = None
    revocation: Revocation | None = None
    #: The digests of the CAs, and the CAs and the pins by theirs.
    _digests: frozenset[bytes] = field(init=False, repr=False, eq=False)
    _authorities: Mapping[bytes, x509.Certificate] = field(init=False, repr=False, eq=False)
    _pins: Mapping[bytes, tuple[Pin, ...]] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        pins: dict[bytes, tuple[Pin, ...]] = {}
        for pin in self.pins:
            pins[pin.digest] = (*pins.get(pin.digest, ()), pin)
        authorities = {sha256(one): one for one in self.authorities}
        object.__setattr__(self, "_digests", frozenset(authorities))
        object.__setattr__(self, "_authorities", authorities)
        object.__setattr__(self, "_pins", pins)

    @property
    def pin_digests(self) -> Iterable[bytes]:
        """The digests of the pins."""
        return self._pins.keys()

    @property
    def authority_digests(self) -> frozenset[bytes]:
        """The digests of the CAs."""
        return self._digests

    @property
    def authority_by_digest(self) -> Mapping[bytes, x509.Certificate]:
        """The CAs by their digests, in the order given."""
        return self._authorities

    def pins_of(self, digest: bytes) -> tuple[Pin, ...]:
        """:returns: the rule's pins that are the leaf of this digest."""
        return self._pins.get(digest, ())


@frozen
class Admitted:
    """
    A verdict: let in.

    :ivar rule: the first rule in file order that holds.
    :ivar path: the path on which it holds, leaf first; the leaf alone where
        the rule names no CA.
    :ivar pin: the rule's pin that the leaf is, or None where it has no pins.
    """

    rule: Rule
    path: Path
    pin: Pin | None = None


def authorities_of(rules: Iterable[Rule]) -> tuple[x509.Certificate, ...]:
    """:returns: the CAs of the rules, each once, in file order."""
    found: dict[bytes, x509.Certificate] = {}
    for rule in rules:
        found.update(rule.authority_by_digest)
    return tuple(found.values())


def lone_pins_of(rules: Iterable[Rule]) -> tuple[x509.Certificate, ...]:
    """:returns: the pins of the rules without a CA, which are their own
    anchors, each once, in file order."""
    lone = {pin.digest: pin.der for rule in rules if not rule.authorities for pin in rule.pins}
    return parse_again(lone.values())
