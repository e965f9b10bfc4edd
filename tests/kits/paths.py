"""CAs that stand in for each other, and how often OpenSSL is asked for a path."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from mtlsgate.testing import Authority
from mtlsgate.tls import judge, paths

ROOT = Authority.create("Root")
UPPER = ROOT.intermediate("Upper")
LOWER = UPPER.intermediate("Lower")
LEAF = LOWER.issue("leaf", dns_names=["leaf.example"])

Calls = list[tuple[int, int]]


def count_searches(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """:returns: from now on gets the numbers of intermediates and of anchors each time
    OpenSSL is asked for a path outside its handshakes."""
    whole, found = paths.verified_path, Calls()

    def count(leaf: Any, intermediates: Any, anchors: Any, *rest: Any) -> Any:
        found.append((len(intermediates), len(anchors)))
        return whole(leaf, intermediates, anchors, *rest)

    for module in (judge, paths):
        monkeypatch.setattr(module, "verified_path", count)
    return found


def certificates(*those: Authority) -> list[x509.Certificate]:
    return [one.certificate for one in those]


def renewed(authority: Authority, **options: Any) -> Authority:
    """:returns: a root of the same name and key."""
    name = authority.certificate.subject
    return Authority.create(subject=name, key=authority.private_key, **options)
