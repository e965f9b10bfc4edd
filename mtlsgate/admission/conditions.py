"""
The ``allow`` and ``deny`` blocks of a rule, and whether a leaf matches them.

``allow`` blocks match strictly: a doubtful value does not match.  ``deny``
blocks match widely: a doubtful or unreadable value matches.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mtlsgate.admission.key_kinds import RegistryName
from mtlsgate.admission.patterns import (
    DnsPattern,
    UriPattern,
    dns_keys,
    dns_pattern,
    spiffe_pattern,
    uri_keys,
    uri_pattern,
)
from mtlsgate.certificates.alternative_names import DNS, EMAIL, IP, URI, Address
from mtlsgate.certificates.certificate import MAX_REMEMBERED, UNPARSABLE, Certificate
from mtlsgate.certificates.names import COMMON_NAME, ORGANIZATION, ORGANIZATIONAL_UNIT, Name
from mtlsgate.certificates.server_names import canonical
from mtlsgate.certificates.signatures import fingerprints
from mtlsgate.text import safe_line

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


#: The index looks networks up by prefixes of these lengths in bits, and multiples.
_STEPS = {4: 8, 6: 16}


@frozen
class NetworkPattern:
    """
    A network in CIDR notation.

    :ivar network: the network.
    """

    network: Network

    def matches(self, value: Address, wide: bool = False) -> bool:
        """:param value: an address."""
        return value in self.network

    @property
    def key(self) -> Hashable:
        """The index key.  `_network_keys` yields it for every address in the network."""
        length = self.network.prefixlen
        rest = length % _STEPS[self.network.version]
        return _leading_bits(self.network.network_address, length - rest)


def _network_keys(value: Address) -> Iterator[Hashable]:
    for length in range(0, value.max_prefixlen + 1, _STEPS[value.version]):
        yield _leading_bits(value, length)


def _leading_bits(address: Address, length: int) -> Hashable:
    return address.version, length, int(address) >> (address.max_prefixlen - length)


Pattern = DnsPattern | UriPattern | NetworkPattern


class Unreadable:
    """A value of the leaf that cannot be read.  Every ``deny`` block matches it;
    no ``allow`` block does."""

    def __repr__(self) -> str:
        return "unreadable"


UNREADABLE = Unreadable()


@frozen(slots=False)
class Leaf:
    """
    A leaf, and its values that conditions look at.

    Each value is worked out on first use.  Values depend only on the leaf's
    bytes, so `leaf_of` can cache them.

    :ivar certificate: the leaf.
    """

    certificate: Certificate

    @cached_property
    def _values(self) -> dict[tuple[str, bool], tuple[Hashable, ...]]:
        return {}

    @cached_property
    def _keys(self) -> dict[str, frozenset[Hashable]]:
        return {}

    def values(self, attribute: str, wide: bool = False) -> tuple[Hashable, ...]:
        """
        :param attribute: an attribute of ``allow`` and ``deny`` blocks.
        :param wide: whether to add values that count only for ``deny``.
        :returns: the leaf's values, in the form that `Clause` compares.
        """
        if (attribute, wide) not in self._values:
            self._values[attribute, wide] = tuple(_values(self.certificate, attribute, wide))
        return self._values[attribute, wide]

    def keys(self, attribute: str) -> frozenset[Hashable]:
        """
        :param attribute: an attribute of ``allow`` blocks.
        :returns: index keys.  They include at least one key of each `Clause` on
            this attribute that matches the leaf.
        """
        if attribute not in self._keys:
            values = self.values(attribute)
            patterns = _PATTERN_KEYS.get(attribute, lambda value: ())
            self._keys[attribute] = frozenset(values).union(*map(patterns, values))
        return self._keys[attribute]


@lru_cache(MAX_REMEMBERED)
def leaf_of(certificate: Certificate) -> Leaf:
    """:returns: the leaf, with the values that earlier calls worked out."""
    return Leaf(certificate)


def _values(leaf: Certificate, attribute: str, wide: bool) -> Iterator[Hashable]:
    try:
        for value in _ATTRIBUTES[attribute].of(leaf, wide):
            if value is not UNREADABLE or wide:
                yield value
    except UNPARSABLE:
        if wide:
            yield UNREADABLE


def _subject_values(kind: bytes) -> Callable[[Certificate, bool], Iterator[Hashable]]:
    def values(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
        for one in leaf.subject.attributes(kind):
            yield UNREADABLE if one.text is None else one.text

    return values


def _dns_names(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield from map(canonical, leaf.names.dns)
    if leaf.names.unreadable(DNS):
        yield UNREADABLE


def _uris(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield from leaf.names.uris
    if leaf.names.unreadable(URI):
        yield UNREADABLE


def _email_addresses(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield from leaf.names.emails
    if leaf.names.unreadable(EMAIL):
        yield UNREADABLE


def _ip_addresses(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield from leaf.names.ips
    if leaf.names.unreadable(IP):
        yield UNREADABLE


def _spiffe_ids(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    # A leaf with several URIs has no SPIFFE ID; a deny still looks at each of them.
    if wide:
        yield from _uris(leaf, wide)
    elif leaf.names.spiffe_id is not None:
        yield leaf.names.spiffe_id


def _fingerprints(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    # The client can re-encode the signature and so change the fingerprint.  A
    # deny must match all encodings.
    found = fingerprints(leaf) if wide else (leaf.sha256,)
    return (digest.hex() for digest in found)


def key_fingerprints(leaf: Certificate) -> Iterator[str]:
    """SHA-256 of the SubjectPublicKeyInfo (RFC 7469, 2.4), in hex: of the leaf's
    own bytes, and of the usual encoding that tools print."""
    yield hashlib.sha256(leaf.spki).hexdigest()
    with suppress(*UNPARSABLE):
        key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        yield hashlib.sha256(key).hexdigest()


def _key_fingerprints(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    return key_fingerprints(leaf)


def _serial_numbers(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield leaf.serial_number


def _issuers(leaf: Certificate, wide: bool) -> Iterator[Hashable]:
    yield leaf.issuer.key


@frozen
class Clause:
    """
    One attribute of an ``allow`` or ``deny`` block.  It matches if one of its
    values matches.

    :ivar attribute: its name.
    :ivar written: the values as written, for messages.
    :ivar exact: the values that must be equal.
    :ivar patterns: the values that are patterns.
    """

    attribute: str
    written: tuple[str, ...]
    exact: frozenset[Hashable]
    patterns: tuple[Pattern, ...]

    @property
    def keys(self) -> frozenset[Hashable]:
        """Index keys.  A leaf that matches strictly has one of them in `Leaf.keys`."""
        return self.exact.union(pattern.key for pattern in self.patterns)

    def matches(self, leaf: Leaf, wide: bool = False) -> bool:
        """
        :param wide: whether doubtful values match.
        :returns: whether the leaf has one of the values.
        """
        values = leaf.values(self.attribute, wide)
        if UNREADABLE in values:
            return True
        return not self.exact.isdisjoint(values) or any(
            pattern.matches(value, wide)  # type: ignore[arg-type]
            for pattern in self.patterns
            for value in values
        )


@frozen
class Condition:
    """
    One ``allow`` or ``deny`` block.  It matches if all its attributes match.

    :ivar clauses: at least one, unless there is a registry.
    :ivar registry: of a ``deny`` block: must list the leaf as well; or None.
    """

    clauses: tuple[Clause, ...]
    registry: RegistryName | None = None

    def allows(self, leaf: Leaf) -> bool:
        """:returns: whether the block matches the leaf strictly, as ``allow``."""
        return all(clause.matches(leaf) for clause in self.clauses)

    def denies(self, leaf: Leaf) -> bool:
        """:returns: whether the block matches the leaf widely, as ``deny``, without asking
        a registry."""
        return self.registry is None and self.denies_if_listed(leaf)

    def denies_if_listed(self, leaf: Leaf) -> bool:
        """:returns: whether all that the block says of the certificate matches the leaf
        widely."""
        return all(clause.matches(leaf, wide=True) for clause in self.clauses)


@frozen
class _Attribute:
    """
    :ivar read: turns a written value into the value to compare, or a pattern.
    :ivar of: takes a leaf and whether to match widely; yields the leaf's values.
    """

    read: Callable[[str], Hashable]
    of: Callable[[Certificate, bool], Iterator[Hashable]]


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("is no SHA-256 fingerprint: 64 hex digits, with or without colons")
    return digits


def _key_pin(value: str) -> str:
    try:
        return _fingerprint(value)
    except ValueError:
        pass
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ValueError("is no SHA-256 of a public key: 64 hex digits, or base64 of 32 bytes")
    return digest.hex()


def _serial(value: str) -> int:
    digits = value.replace(":", "")
    if not re.fullmatch(r"-?[0-9A-Fa-f]{1,64}", digits):
        raise ValueError("is no serial number: write it in hex, with or without colons")
    return int(digits, 16)


def _address(value: str) -> Address | NetworkPattern:
    try:
        if "/" not in value:
            return ipaddress.ip_address(value)
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"is no IP address or network: {safe_line(error)}") from None
    if network.prefixlen == 0:
        raise ValueError("would match everything")
    return NetworkPattern(network)


def _name(value: str) -> Hashable:
    _text(value)
    try:
        return Name(x509.Name.from_rfc4514_string(value).public_bytes()).key
    except ValueError:
        raise ValueError('is no RFC 4514 name: write it as "CN=Issuing CA,O=Example"') from None


_ATTRIBUTES: Mapping[str, _Attribute] = {
    "common_names": _Attribute(_text, _subject_values(COMMON_NAME)),
    "organizations": _Attribute(_text, _subject_values(ORGANIZATION)),
    "organizational_units": _Attribute(_text, _subject_values(ORGANIZATIONAL_UNIT)),
    "dns_names": _Attribute(lambda text: dns_pattern(_text(text)), _dns_names),
    "uris": _Attribute(lambda text: uri_pattern(_text(text)), _uris),
    "email_addresses": _Attribute(_text, _email_addresses),
    "ip_addresses": _Attribute(_address, _ip_addresses),
    "spiffe_ids": _Attribute(spiffe_pattern, _spiffe_ids),
    "sha256": _Attribute(_fingerprint, _fingerprints),
    "spki_sha256": _Attribute(_key_pin, _key_fingerprints),
    "serial_numbers": _Attribute(_serial, _serial_numbers),
    "issuers": _Attribute(_name, _issuers),
}


#: For each attribute with patterns: from a value to the keys of all matching patterns.
_PATTERN_KEYS: Mapping[str, Callable[[Any], Iterable[Hashable]]] = {
    "dns_names": dns_keys,
    "ip_addresses": _network_keys,
    "uris": uri_keys,
    "spiffe_ids": uri_keys,
}


#: What is compared as it is written: a star stands for itself.
_EXACT = frozenset({"common_names", "organizations", "organizational_units", "email_addresses"})


def is_meant_as_pattern(attribute: str, text: str) -> bool:
    """
    :returns: whether a value looks like a pattern where there are none.  A name such as
        ``*.example.com`` may be one of a certificate.
    """
    return attribute in _EXACT and "*" in text and not text.startswith("*.")


def read_value(attribute: str, text: str) -> Hashable:
    """
    :param attribute: an attribute of ``allow`` and ``deny`` blocks.
    :param text: one of its values, as written.
    :returns: a value to compare with `Leaf.values`, or a pattern.
    :raises ValueError: if the text is not such a value, or would match everything.
    """
    return _ATTRIBUTES[attribute].read(text)


def clause(attribute: str, values: Mapping[str, Hashable]) -> Clause:
    """
    :param values: what `read_value` returned for each value, by the value as written.
    """
    patterns = tuple(one for one in values.values() if isinstance(one, Pattern))
    exact = frozenset(one for one in values.values() if not isinstance(one, Pattern))
    return Clause(attribute, tuple(values), exact, patterns)
