"""
What ``allow`` and ``deny`` blocks ask of a leaf, and whether it holds.

Pure, like all of admission.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from mtlsgate.admission.facts import Facts, facts_of
from mtlsgate.admission.patterns import (
    DnsPattern,
    UriPattern,
    dns_keys,
    dns_pattern,
    spiffe_pattern,
    uri_keys,
    uri_pattern,
)
from mtlsgate.certificates.parsing import MAX_REMEMBERED, sha256
from mtlsgate.certificates.server_names import canonical

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


#: Networks are found by their first so many bits, and their multiples.
_STEPS = {4: 8, 6: 16}


@frozen
class NetworkPattern:
    """
    Addresses in CIDR notation.

    :ivar network: which.
    """

    network: Network

    def matches(self, value: Address, wide: bool = False) -> bool:
        """:param value: an address."""
        return value in self.network

    @property
    def key(self) -> Hashable:
        """One of `_network_keys` of each address in it."""
        length = self.network.prefixlen
        rest = length % _STEPS[self.network.version]
        return _leading_bits(self.network.network_address, length - rest)


def _network_keys(value: Address) -> Iterator[Hashable]:
    for length in range(0, value.max_prefixlen + 1, _STEPS[value.version]):
        yield _leading_bits(value, length)


def _leading_bits(address: Address, length: int) -> Hashable:
    return address.version, length, int(address) >> (address.max_prefixlen - length)


Pattern = DnsPattern | UriPattern | NetworkPattern


@frozen(slots=False)
class Leaf:
    """
    A leaf, and the values that conditions look at, each worked out on first use.
    They follow from its bytes alone: `leaf_of` remembers them.

    :ivar certificate: the leaf.
    """

    certificate: x509.Certificate

    @cached_property
    def facts(self) -> Facts:
        """What it is judged by, whatever the rules say.  Of what does not parse
        there are none."""
        return facts_of(self.certificate)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the DER, 32 bytes; also of what does not parse."""
        return sha256(self.certificate)

    @cached_property
    def _keys(self) -> dict[str, frozenset[Hashable]]:
        return {}

    def keys(self, attribute: str) -> frozenset[Hashable]:
        """
        :param attribute: of an ``allow`` block.
        :returns: of every `Clause` on it that holds, at least one of the keys.
        """
        if attribute not in self._keys:
            values = self.values(attribute)
            patterns = _PATTERN_KEYS.get(attribute, lambda value: ())
            self._keys[attribute] = frozenset(values).union(*map(patterns, values))
        return self._keys[attribute]

    @cached_property
    def _alternative_name(self) -> x509.SubjectAlternativeName:
        extensions = self.certificate.extensions
        try:
            return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return x509.SubjectAlternativeName(())

    def values(self, attribute: str, wide: bool = False) -> tuple[Hashable, ...]:
        """
        :param attribute: of an ``allow`` or ``deny`` block.
        :param wide: whether values count that only a ``deny`` takes for such.
        :returns: what the leaf has of it, in the form that `Clause` compares.
        """
        if wide and attribute == "spiffe_ids":
            return self.uris()
        return _ATTRIBUTES[attribute].of(self)

    def subject_values(self, oid: ObjectIdentifier) -> tuple[str, ...]:
        """:returns: the subject's values of one kind, such as its common names."""
        found = self.certificate.subject.get_attributes_for_oid(oid)
        return tuple(str(one.value) for one in found)

    def dns_names(self) -> tuple[str, ...]:
        """:returns: the canonical DNS names of the subject alternative name, only."""
        return tuple(map(canonical, self._alternative_name.get_values_for_type(x509.DNSName)))

    def uris(self) -> tuple[str, ...]:
        """:returns: the URIs of the subject alternative name."""
        return tuple(self._alternative_name.get_values_for_type(x509.UniformResourceIdentifier))

    def email_addresses(self) -> tuple[str, ...]:
        """:returns: the email addresses of the subject alternative name."""
        return tuple(self._alternative_name.get_values_for_type(x509.RFC822Name))

    def ip_addresses(self) -> tuple[Address, ...]:
        """:returns: the single IP addresses of the subject alternative name."""
        found = self._alternative_name.get_values_for_type(x509.IPAddress)
        return tuple(one for one in found if isinstance(one, Address))

    def spiffe_ids(self) -> tuple[str, ...]:
        """:returns: the SPIFFE ID, which must be the only URI (SPIFFE X509-SVID, 2)."""
        uris = self.uris()
        return uris if len(uris) == 1 and uris[0].startswith("spiffe://") else ()

    def spki_sha256(self) -> str:
        """:returns: SHA-256 of the SubjectPublicKeyInfo (RFC 7469, 2.4), in hex."""
        key = self.certificate.public_key()
        digest = hashes.Hash(hashes.SHA256())
        digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        return digest.finalize().hex()


@lru_cache(MAX_REMEMBERED)
def leaf_of(certificate: x509.Certificate) -> Leaf:
    """:returns: the leaf, with all that was worked out of it before."""
    return Leaf(certificate)


@frozen
class Clause:
    """
    One attribute of an ``allow`` or ``deny`` block: any value will do.

    :ivar attribute: its name.
    :ivar written: the values as written, for messages.
    :ivar exact: those that match exactly.
    :ivar patterns: the others.
    """

    attribute: str
    written: tuple[str, ...]
    exact: frozenset[Hashable]
    patterns: tuple[Pattern, ...]

    @property
    def keys(self) -> frozenset[Hashable]:
        """Of which the leaf has one (`Leaf.keys`) wherever the clause holds, unless
        it is read widely."""
        return self.exact.union(pattern.key for pattern in self.patterns)

    def holds(self, leaf: Leaf, wide: bool = False) -> bool:
        """
        :param wide: whether to read patterns and odd names so that they match
            rather than not.
        :returns: whether the leaf has one of the values.
        """
        values = leaf.values(self.attribute, wide)
        return not self.exact.isdisjoint(values) or any(
            pattern.matches(value, wide)  # type: ignore[arg-type]
            for pattern in self.patterns
            for value in values
        )


@frozen
class Condition:
    """
    One ``allow`` or ``deny`` block: every attribute stated must hold.

    :ivar clauses: at least one.
    """

    clauses: tuple[Clause, ...]

    def allows(self, leaf: Leaf) -> bool:
        """:returns: whether all of it is so of the leaf, beyond doubt."""
        return all(clause.holds(leaf) for clause in self.clauses)

    def denies(self, leaf: Leaf) -> bool:
        """:returns: whether all of it is so of the leaf, in the widest reading."""
        return all(clause.holds(leaf, wide=True) for clause in self.clauses)


@frozen
class _Attribute:
    """
    :ivar read: from a value as written to what is compared, or to a pattern.
    :ivar of: the same of a leaf.
    """

    read: Callable[[str], Hashable]
    of: Callable[[Leaf], tuple[Hashable, ...]]


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
        raise ValueError(f"is no IP address or network: {error}") from None
    if network.prefixlen == 0:
        raise ValueError("would match everything")
    return NetworkPattern(network)


def _name(value: str) -> x509.Name:
    _text(value)
    try:
        return x509.Name.from_rfc4514_string(value)
    except ValueError:
        raise ValueError('is no RFC 4514 name: write it as "CN=Issuing CA,O=Example"') from None


def _subject(oid: ObjectIdentifier) -> _Attribute:
    return _Attribute(_text, lambda leaf: leaf.subject_values(oid))


_ATTRIBUTES: Mapping[str, _Attribute] = {
    "common_names": _subject(NameOID.COMMON_NAME),
    "organizations": _subject(NameOID.ORGANIZATION_NAME),
    "organizational_units": _subject(NameOID.ORGANIZATIONAL_UNIT_NAME),
    "dns_names": _Attribute(lambda text: dns_pattern(_text(text)), Leaf.dns_names),
    "uris": _Attribute(lambda text: uri_pattern(_text(text)), Leaf.uris),
    "email_addresses": _Attribute(_text, Leaf.email_addresses),
    "ip_addresses": _Attribute(_address, Leaf.ip_addresses),
    "spiffe_ids": _Attribute(spiffe_pattern, Leaf.spiffe_ids),
    "sha256": _Attribute(_fingerprint, lambda leaf: (leaf.digest.hex(),)),
    "spki_sha256": _Attribute(_key_pin, lambda leaf: (leaf.spki_sha256(),)),
    "serial_numbers": _Attribute(_serial, lambda leaf: (leaf.certificate.serial_number,)),
    "issuers": _Attribute(_name, lambda leaf: (leaf.certificate.issuer,)),
}


#: From a value to the keys of all patterns that match it.
_PATTERN_KEYS: Mapping[str, Callable[[Any], Iterable[Hashable]]] = {
    "dns_names": dns_keys,
    "ip_addresses": _network_keys,
    "uris": uri_keys,
    "spiffe_ids": uri_keys,
}


def read_value(attribute: str, text: str) -> Hashable:
    """
    :param attribute: of an ``allow`` or ``deny`` block.
    :param text: one of its values, as written.
    :returns: what `Leaf.values` gives of an equal leaf, or a pattern.
    :raises ValueError: if it is no such value, or would match everything.
    """
    return _ATTRIBUTES[attribute].read(text)


def clause(attribute: str, values: Mapping[str, Hashable]) -> Clause:
    """
    :param values: what `read_value` made of each value, by the value as written.
    """
    patterns = tuple(one for one in values.values() if isinstance(one, Pattern))
    exact = frozenset(one for one in values.values() if not isinstance(one, Pattern))
    return Clause(attribute, tuple(values), exact, patterns)
