"""
Which encoding of a file a client takes (RFC 9110, 12.5.3): pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_MEMBER = re.compile(
    rb"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*"
    rb"(?:;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?",
    re.IGNORECASE,
)
_ALSO = {b"x-gzip": b"gzip"}


def choose(accepted: Sequence[bytes], offered: Collection[bytes]) -> bytes | None:
    """
    :param accepted: the values of ``Accept-Encoding``.
    :param offered: the encodings there are, the preferred one first.
    :returns: the encoding that the client likes best; None for none at all.
    """
    weights = _weights(accepted)
    otherwise = weights.get(b"*", 0.0)
    best, best_weight = None, weights.get(b"identity", 0.0)
    for encoding in offered:
        weight = weights.get(encoding, otherwise)
        if weight > best_weight or (best is None and weight == best_weight > 0):
            best, best_weight = encoding, weight
    return best


def _weights(accepted: Sequence[bytes]) -> dict[bytes, float]:
    """:returns: how much each is liked; what is malformed is not liked at all."""
    weights: dict[bytes, float] = {}
    for member in b",".join(accepted).split(b","):
        found = _MEMBER.fullmatch(member)
        if found is not None:
            name = found[1].lower()
            weights[_ALSO.get(name, name)] = 1.0 if found[2] is None else float(found[2])
    return weights
