"""
What the gate logs of connections: one event for each that is let in or turned
away, its fields safe to print.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtlsgate.admission import Pin, Rejection, Rule
from mtlsgate.admission.conditions import Leaf
from mtlsgate.credentials import MAX_REMEMBERED, UNPARSABLE, sha256
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.reasons import Reason
from mtlsgate.text import printable

_log = Logger("mtlsgate.gate")
#: What is not about one connection's admission or rejection.
_pins_log = Logger("mtlsgate.pins")

_ADMITTED_ANYONE = "{server}: admitted {peer_address} without a certificate: tls={tls_version}"
_FIRST_USE = "{server}: pin {pin} of rule {rule} is used for the first time: sha256={fingerprint}"
_REJECTED = "{server}: rejected {peer_address}: {reason}: {detail}"
_REJECTED_LEAF = (
    " [depth={depth} subject={subject} issuer={issuer} serial={serial} sha256={fingerprint}]"
)
#: One line that is HCL from "pin" on.
_PIN_BLOCK = (
    "{server}: to pin the client rejected from {peer_address}, put into its rule: {pin_block()}"
)
#: Rejections after which a pin may be what is wanted.
_MAX_PINNABLE = 4096
_PINNABLE = (Reason.LEAF_MISMATCH, Reason.UNKNOWN_CA)


def admitted(server: str, peer: VerifiedPeer) -> None:
    """Log that a verified client was let in."""
    address, facts = address_text(peer.address), _facts(peer.leaf)
    _log.info(
        # Put together here: Twisted's own formatting of so many fields costs
        # more than the verdict.
        "{text}",
        text=f"{server}: admitted {address} by rule {peer.rule}: "
        f"subject={facts['subject']} sha256={facts['fingerprint']} tls={peer.tls_version}"
        f"{' resumed' if peer.resumed else ''}",
        server=server,
        peer_address=address,
        rule=peer.rule,
        sni=_printable(peer.server_name),
        tls_version=peer.tls_version,
        resumed=peer.resumed,
        **facts,
        **_names(peer.leaf),
    )


def admitted_anyone(
    server: str, address: IAddress, server_name: str | None, tls_version: str
) -> None:
    """Log that a client was let in where no certificate is asked for."""
    _log.info(
        _ADMITTED_ANYONE,
        server=server,
        peer_address=address_text(address),
        sni=_printable(server_name),
        tls_version=tls_version,
    )


def pin_first_used(server: str, rule: Rule, pin: Pin) -> None:
    """Log that a pin with a name was used for the first time."""
    _pins_log.info(
        _FIRST_USE,
        server=server,
        rule=rule.name,
        pin=pin.name,
        fingerprint=pin.digest.hex(),
    )


def rejected(
    server: str,
    address: IAddress,
    rejection: Rejection,
    *,
    leaf: x509.Certificate | None = None,
    sni: str | None = None,
    tls_version: str | None = None,
) -> None:
    """Log that a client was turned away, and at the debug level how to pin it."""
    _log.warn(
        _REJECTED if leaf is None else _REJECTED + _REJECTED_LEAF,
        server=server,
        peer_address=address_text(address),
        reason=rejection.reason.value,
        detail=printable(rejection.detail),
        depth=rejection.depth,
        sni=_printable(sni),
        tls_version=tls_version,
        **_facts(leaf),
    )
    if leaf is not None and rejection.reason in _PINNABLE and _is_small(leaf):
        _pins_log.debug(
            _PIN_BLOCK,
            server=server,
            peer_address=address_text(address),
            fingerprint=sha256(leaf).hex(),
            # A call, so that it costs nothing where nobody reads this level.
            pin_block=partial(_pin_block, leaf),
        )


def _is_small(leaf: x509.Certificate) -> bool:
    """Whether it is a certificate as people pin them, and not a stranger's way
    to fill the log."""
    return len(leaf.tbs_certificate_bytes) <= _MAX_PINNABLE


def _pin_block(leaf: x509.Certificate) -> str:
    der = b64encode(leaf.public_bytes(Encoding.DER)).decode("ascii")
    return f'pin "{sha256(leaf).hex()[:16]}" {{ leaf_certificate = "{der}" }}'


def _printable(name: str | None) -> str | None:
    return None if name is None else printable(name)


@lru_cache(MAX_REMEMBERED)
def _facts(leaf: x509.Certificate | None) -> Mapping[str, str | None]:
    """:returns: the fields of a log event that name a leaf, safe to print."""
    if leaf is None:
        return {"subject": None, "issuer": None, "serial": None, "fingerprint": None}
    return {
        "subject": _name(leaf, "subject"),
        "issuer": _name(leaf, "issuer"),
        "serial": f"{leaf.serial_number:x}",
        "fingerprint": sha256(leaf).hex(),
    }


def _name(leaf: x509.Certificate, which: Literal["subject", "issuer"]) -> str:
    try:
        name: x509.Name = getattr(leaf, which)
        return printable(name.rfc4514_string())
    except UNPARSABLE:
        return "(does not parse)"


@lru_cache(MAX_REMEMBERED)
def _names(leaf: x509.Certificate) -> Mapping[str, list[str]]:
    """:returns: the fields of a log event that hold an admitted leaf's names."""
    names = Leaf(leaf)
    return {
        "dns_names": [printable(name) for name in names.dns_names()],
        "uris": [printable(name) for name in names.uris()],
    }
