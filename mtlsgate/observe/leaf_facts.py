"""
The names in a leaf, as fields of an audit line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from attrs import frozen

from mtlsgate.certificates.alternative_names import AlternativeNames
from mtlsgate.certificates.certificate import MAX_REMEMBERED, UNPARSABLE, Certificate
from mtlsgate.certificates.server_names import canonical
from mtlsgate.observe.capped import Capped, encode


@frozen
class LeafFacts:
    """
    The names of a leaf, as JSON.

    :ivar text: the fields without the braces around them.
    :ivar is_cut: whether something was left out.
    """

    text: str
    is_cut: bool


@lru_cache(MAX_REMEMBERED)
def facts_of_admitted(leaf: Certificate) -> LeafFacts:
    # Leaves of strangers are not cached: they could fill the memory.
    return facts_of(leaf)


def facts_of(leaf: Certificate, most: int | None = None) -> LeafFacts:
    """:param most: bytes of a leaf whose names are read, or None."""
    capped = Capped()
    fields: dict[str, object] = dict.fromkeys(_LEAF_FIELDS)
    for name, read in _LEAF_FIELDS.items():
        try:
            fields[name] = capped.text(read(leaf))
        except UNPARSABLE:
            # The reason of the rejection says so.
            continue
    fields |= dict.fromkeys(_NAME_FIELDS)
    if most is not None and len(leaf.der) > most:
        capped.is_cut = True
        return LeafFacts(encode(fields)[1:-1], True)
    for name, read_names in _NAME_FIELDS.items():
        try:
            fields[name] = capped.texts(read_names(leaf.names))
        except UNPARSABLE:
            continue
    return LeafFacts(encode(fields)[1:-1], capped.is_cut)


_LEAF_FIELDS: dict[str, Callable[[Certificate], str]] = {
    "subject": lambda leaf: leaf.subject.rfc4514_string(),
    "issuer": lambda leaf: leaf.issuer.rfc4514_string(),
    "serial": lambda leaf: f"{leaf.serial_number:x}",
    "fingerprint": lambda leaf: leaf.sha256.hex(),
    "not_after": lambda leaf: leaf.not_after.isoformat()[:-6] + "Z",
}
_NAME_FIELDS: dict[str, Callable[[AlternativeNames], Iterable[str]]] = {
    "dns_names": lambda names: map(canonical, names.dns),
    "uris": lambda names: names.uris,
    "email_addresses": lambda names: names.emails,
    "ip_addresses": lambda names: map(str, names.ips),
}
NO_FACTS = LeafFacts(encode(dict.fromkeys((*_LEAF_FIELDS, *_NAME_FIELDS)))[1:-1], False)
