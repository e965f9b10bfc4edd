"""
An mTLS gate for Twisted: verified TLS clients, and no others, reach the protocol
behind it.

In an application of your own, begin with `Gate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtlsgate.api.gate import Gate as Gate
    from mtlsgate.api.values import Allow as Allow
    from mtlsgate.api.values import Deny as Deny
    from mtlsgate.api.values import Pin as Pin
    from mtlsgate.api.values import Registry as Registry
    from mtlsgate.api.values import Rule as Rule
    from mtlsgate.api.values import Svid as Svid
    from mtlsgate.api.verified import verified_peer as verified_peer
    from mtlsgate.errors import ConfigError as ConfigError
    from mtlsgate.peer import VerifiedPeer as VerifiedPeer

__all__ = [
    "Allow",
    "ConfigError",
    "Deny",
    "Gate",
    "Pin",
    "Registry",
    "Rule",
    "Svid",
    "VerifiedPeer",
    "verified_peer",
]

_MODULES = {
    "Allow": "mtlsgate.api.values",
    "ConfigError": "mtlsgate.errors",
    "Deny": "mtlsgate.api.values",
    "Gate": "mtlsgate.api.gate",
    "Pin": "mtlsgate.api.values",
    "Registry": "mtlsgate.api.values",
    "Rule": "mtlsgate.api.values",
    "Svid": "mtlsgate.api.values",
    "VerifiedPeer": "mtlsgate.peer",
    "verified_peer": "mtlsgate.api.verified",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use.  Commands and plugins import this package,
    and many need neither Twisted nor OpenSSL."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
