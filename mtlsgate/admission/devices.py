"""
Devices: what a registry knows of a client, and the keys by which it finds one.

A registry is a store of devices that many gates share.  This module is pure; the stores
are in `mtlsgate.registry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from attrs import field, frozen

from mtlsgate.admission.conditions import key_fingerprints
from mtlsgate.admission.key_kinds import KeyKind as KeyKind
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.names import COMMON_NAME
from mtlsgate.certificates.server_names import canonical
from mtlsgate.certificates.signatures import fingerprints

#: The longest key, in characters.  No registry has a device with a longer one.
LONGEST_KEY = 512


class DeviceState(StrEnum):
    """Whether a device may come in."""

    ACTIVE = "active"
    DENIED = "denied"


def _frozen(given: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(given))


@frozen
class Device:
    """
    What a registry knows of one device.

    :ivar key: what it is found by: a digest as 64 lower-case hex digits, or a name.
    :ivar state: whether it may come in.
    :ivar not_before: when it may come in first, aware; None for no beginning.
    :ivar not_after: the last instant at which it may, aware; None for no end.
    :ivar note: for people.
    :ivar attributes: for the application.
    :ivar problem: why what a store has cannot be understood; the device is denied then.
        Empty otherwise.
    """

    key: str
    state: DeviceState = DeviceState.ACTIVE
    not_before: datetime | None = None
    not_after: datetime | None = None
    note: str = ""
    attributes: Mapping[str, str] = field(factory=dict, converter=_frozen, hash=False)
    problem: str = ""

    @classmethod
    def unreadable(cls, key: str, problem: str) -> Device:
        """
        :param problem: why what a store has of it cannot be understood, in one line.
        :returns: a device that is listed, and denied.
        """
        return cls(key, DeviceState.DENIED, problem=problem)


def keys_of(leaf: Certificate, kind: KeyKind, wide: bool = False) -> tuple[str, ...]:
    """
    :param wide: whether to return every key that could mean this client, as ``deny``
        needs: a client can code its signature in another way, and so change its
        fingerprint; a leaf with several URIs has no SPIFFE ID, but means each of them.
    :returns: the keys by which a registry may know a client, without duplicates.  None
        if the certificate has no such name.  What cannot be a key is left out, see
        `is_key`.
    """
    return tuple(dict.fromkeys(key for key in _keys(leaf, kind, wide) if is_key(key)))


def is_key(text: str) -> bool:
    """:returns: whether a device may have this key: printable, and not too long."""
    return 0 < len(text) <= LONGEST_KEY and text.isprintable()


def _keys(leaf: Certificate, kind: KeyKind, wide: bool) -> Iterator[str]:
    match kind:
        case KeyKind.IDENTITY:
            yield leaf.identity.hex()
        case KeyKind.SHA256:
            for digest in fingerprints(leaf) if wide else (leaf.sha256,):
                yield digest.hex()
        case KeyKind.SPKI_SHA256:
            yield from key_fingerprints(leaf)
        case KeyKind.SPIFFE_ID:
            if wide:
                # A leaf with several URIs has no SPIFFE ID; deny looks at each of them.
                yield from leaf.readable_names.uris
            elif (spiffe_id := leaf.readable_names.spiffe_id) is not None:
                yield spiffe_id
        case KeyKind.COMMON_NAME:
            for name in leaf.subject.attributes(COMMON_NAME):
                if name.text is not None:
                    yield name.text
        case KeyKind.DNS_NAME:
            for dns_name in leaf.readable_names.dns:
                yield canonical(dns_name)
                if wide:
                    # As whoever denies it may have copied it from the certificate.
                    yield dns_name
