"""
What a registry finds a device by.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class KeyKind(StrEnum):
    """What a registry finds a device by."""

    IDENTITY = "identity"
    SHA256 = "sha256"
    SPKI_SHA256 = "spki_sha256"
    SPIFFE_ID = "spiffe_id"
    COMMON_NAME = "common_name"
    DNS_NAME = "dns_name"


@frozen(cache_hash=True)
class RegistryName:
    """
    A registry, as a rule names it.

    :ivar label: of its block.
    :ivar kind: what it finds a client by.
    """

    label: str
    kind: KeyKind
