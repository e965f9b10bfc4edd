"""
Rules and pins as values, and the verdict that admits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from attrs import Factory, evolve, field, frozen
from cryptography import x509

from mtlsgate.admission.bundles import Bundle
from mtlsgate.admission.conditions import Condition
from mtlsgate.admission.devices import Device
from mtlsgate.admission.key_kinds import RegistryName
from mtlsgate.admission.listings import Question
from mtlsgate.admission.revocation import Revocation
from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.certificate import Certificate, view, views


def _der(certificate: Certificate | x509.Certificate | bytes) -> bytes:
    return certificate if isinstance(certificate, bytes) else view(certificate).der


@frozen
class Pin:
    """
    A leaf that a rule compares byte for byte.

    It stores only the bytes: a parsed certificate takes seven times the memory.

    :ivar der: the leaf's DER.
    :ivar name: the label of its ``pin`` block, or None.
    :ivar not_before: the instant from which the pin is valid, or None.
    :ivar retire_after: the instant after which it is no longer valid, or None.
    :ivar digest: SHA-256 of the leaf's DER, 32 bytes.
    """

    der: bytes = field(alias="certificate", converter=_der, repr=False)
    name: str | None = None
    not_before: datetime | None = None
    retire_after: datetime | None = None
    digest: bytes = field(
        init=False, eq=False, default=Factory(lambda self: self.certificate.sha256, takes_self=True)
    )

    @property
    def certificate(self) -> Certificate:
        """The leaf, parsed again on each access."""
        return Certificate(self.der)


def _pins(given: Iterable[Pin | Certificate | x509.Certificate]) -> tuple[Pin, ...]:
    return tuple(one if isinstance(one, Pin) else Pin(one) for one in given)


@frozen
class Rule:
    """
    One ``client_certificate`` block.

    :ivar name: the block's label; without a label ``#2`` for the second block.
    :ivar authorities: the path must run through one of these CAs; empty if the
        rule names no CA.
    :ivar pins: the client's leaf must be byte-equal to one of these; empty if
        the rule accepts any leaf of its CAs.  A bare certificate becomes a pin
        without a name or dates.
    :ivar allow: if there are any, at least one must match.
    :ivar deny: none of these may match.
    :ivar max_depth: the highest number of intermediates allowed, or None.
    :ivar revocation: the CRLs to check the path against, or None.
    :ivar registry: must list the client as active, or None.
    :ivar bundles: the trust domains, if the rule names such instead of CAs; their CAs are
        its `authorities`.
    """

    name: str
    authorities: tuple[Certificate, ...] = field(default=(), converter=views)
    pins: tuple[Pin, ...] = field(default=(), converter=_pins)
    allow: tuple[Condition, ...] = ()
    deny: tuple[Condition, ...] = ()
    max_depth: int | None = None
    revocation: Revocation | None = None
    bundles: tuple[Bundle, ...] = ()
    registry: RegistryName | None = None
    #: The digests of the CAs.
    authority_digests: frozenset[bytes] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: frozenset(one.sha256 for one in self.authorities), takes_self=True
        ),
    )
    #: The CAs by their digests, in the order given.
    authority_by_digest: Mapping[bytes, Certificate] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(
            lambda self: {one.sha256: one for one in self.authorities}, takes_self=True
        ),
    )
    _pins_by_digest: Mapping[bytes, tuple[Pin, ...]] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: _by_digest(self.pins), takes_self=True),
    )

    @property
    def asks(self) -> bool:
        """Whether its verdict may depend on a registry."""
        return self.registry is not None or any(one.registry for one in self.deny)

    @property
    def demands_ca(self) -> bool:
        """Whether the path must run through a CA; also while none has been delivered."""
        return bool(self.authorities or self.bundles)

    def with_bundles(self, bundles: tuple[Bundle, ...]) -> Rule:
        """:returns: the same rule with what was delivered of its trust domains."""
        return evolve(self, bundles=bundles, authorities=authorities_in(bundles))

    @property
    def pin_digests(self) -> Iterable[bytes]:
        """The digests of the pins."""
        return self._pins_by_digest.keys()

    def pins_of(self, digest: bytes) -> tuple[Pin, ...]:
        """:returns: the rule's pins with this digest."""
        return self._pins_by_digest.get(digest, ())


def authorities_in(bundles: Iterable[Bundle]) -> tuple[Certificate, ...]:
    """:returns: the CAs of all of them, each once."""
    return tuple(dict.fromkeys(ca for one in bundles for ca in one.authorities))


def _by_digest(pins: Iterable[Pin]) -> dict[bytes, tuple[Pin, ...]]:
    found: dict[bytes, tuple[Pin, ...]] = {}
    for pin in pins:
        found[pin.digest] = (*found.get(pin.digest, ()), pin)
    return found


_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@frozen
class Admitted:
    """
    A verdict: admitted.

    :ivar rule: the first rule in file order that admits.
    :ivar path: the path that it admits, leaf first; only the leaf if the rule
        names no CA.
    :ivar pin: the pin that the leaf matched, or None if the rule has no pins.
    :ivar questions: what registries must have been asked before the verdict counts.
    :ivar device: what the rule's registry knows of the client, or None.
    """

    rule: Rule
    path: Path
    pin: Pin | None = None
    questions: tuple[Question, ...] = ()
    device: Device | None = None

    @property
    def attributes(self) -> Mapping[str, str]:
        """What the application is told of the device."""
        return _NO_ATTRIBUTES if self.device is None else self.device.attributes


def authorities_of(rules: Iterable[Rule]) -> tuple[Certificate, ...]:
    """:returns: the CAs of all rules without duplicates, in file order."""
    found: dict[bytes, Certificate] = {}
    for rule in rules:
        found.update(rule.authority_by_digest)
    return tuple(found.values())


def lone_pins_of(rules: Iterable[Rule]) -> tuple[Certificate, ...]:
    """:returns: the pins of rules without a CA, without duplicates, in file
    order.  Such a pin is its own anchor."""
    lone = {pin.digest: pin.der for rule in rules if not rule.demands_ca for pin in rule.pins}
    return tuple(map(Certificate, lone.values()))


def missing_bundles(rules: Iterable[Rule]) -> list[Rejection]:
    """:returns: for each trust domain without a bundle, why nobody of it is admitted."""
    found = (bundle.missing for rule in rules for bundle in rule.bundles)
    return [one for one in found if one is not None]
