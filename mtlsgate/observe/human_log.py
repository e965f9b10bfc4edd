"""
What the gate logs of connections, in words: one event for each that is let in or
turned away, its fields safe to print.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.logger import Logger

from mtlsgate.admission import Pin
from mtlsgate.admission.conditions import Leaf
from mtlsgate.certificates.parsing import MAX_REMEMBERED, UNPARSABLE, remembered, sha256
from mtlsgate.gate.connection import Ending, Refusal, Reload, Visit
from mtlsgate.peer import address_text
from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.tls.handshake import GateConnection

_log = Logger("mtlsgate.gate")
_closes_log = Logger("mtlsgate.closes")
_reloads_log = Logger("mtlsgate.reloads")
#: What is not about one connection's admission or rejection.
_pins_log = Logger("mtlsgate.pins")

_ADMITTED_ANYONE = "{server}: admitted {peer_address} without a certificate: tls={tls_version}"
_FIRST_USE = "{server}: pin {pin} of rule {rule} is used for the first time: sha256={fingerprint}"
_NOT_RELOADED = "the configuration is not loaded anew: epoch {epoch} stays in force"
_RELOADED = "epoch {epoch} is in force, loaded in {seconds:.2f} s"
_CLOSED = (
    "{server}: closed {peer_address}: {cause}{detail} [subject={subject} sha256={fingerprint}]"
)
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


class HumanLog:
    """
    The observer that writes to Twisted's log, in words.

    :ivar _quiet: whether to say nothing of connections that come and go without
        a byte, as health checks do.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def set_quiet(self, quiet: bool) -> None:
        """:param quiet: whether to leave out connections that come and go without a byte."""
        self._quiet = quiet

    def admitted(self, visit: Visit) -> None:
        """Log that a client was let in."""
        peer = visit.peer
        if peer is None:
            _admitted_anyone(visit)
            return
        address, facts = address_text(visit.address), _facts_and_names(peer.leaf)
        _log.info(
            # Put together here: Twisted's own formatting of so many fields costs
            # more than the verdict.
            "{text}",
            text=f"{visit.server}: admitted {address} by rule {peer.rule}: "
            f"subject={facts['subject']} sha256={facts['fingerprint']} tls={peer.tls_version}"
            f"{' resumed' if peer.resumed else ''}",
            server=visit.server,
            connection=visit.number,
            peer_address=address,
            rule=peer.rule,
            sni=_printable(peer.server_name),
            tls_version=peer.tls_version,
            resumed=peer.resumed,
            **facts,
        )

    def rejected(self, refusal: Refusal) -> None:
        """Log that a client was turned away, and at the debug level how to pin it."""
        if self._quiet and refusal.is_health_check:
            return
        leaf, rejection = refusal.leaf, refusal.rejection
        _log.warn(
            _REJECTED if leaf is None else _REJECTED + _REJECTED_LEAF,
            server=refusal.server,
            connection=None if refusal.visit is None else refusal.visit.number,
            peer_address=address_text(refusal.address),
            reason=rejection.reason.value,
            detail=printable(rejection.detail),
            depth=rejection.depth,
            sni=_printable(refusal.server_name),
            tls_version=refusal.tls_version,
            **(_NO_FACTS if leaf is None else _facts(leaf)),
        )
        if leaf is not None and is_pinnable(refusal):
            _pins_log.debug(
                _PIN_BLOCK,
                server=refusal.server,
                peer_address=address_text(refusal.address),
                fingerprint=sha256(leaf).hex(),
                # A call, so that it costs nothing where nobody reads this level.
                pin_block=partial(pin_block, leaf),
            )

    def ended(self, ending: Ending) -> None:
        """Log that the gate ended a connection; what others end is not news."""
        visit = ending.visit
        if visit.cause is None:
            return
        _closes_log.info(
            _CLOSED,
            server=visit.server,
            connection=visit.number,
            peer_address=address_text(visit.address),
            cause=ending.cause.value,
            detail=f": {printable(ending.detail)}" if ending.detail else "",
            rule=None if visit.peer is None else visit.peer.rule,
            **(_NO_FACTS if visit.peer is None else _facts(visit.peer.leaf)),
        )

    def reloaded(self, reload: Reload) -> None:
        """Log what came of loading the configuration anew."""
        if reload.is_trial:
            return
        if reload.problems:
            for problem in reload.problems:
                _reloads_log.error("{problem}", problem=printable(problem))
            _reloads_log.error(_NOT_RELOADED, epoch=reload.number, problems=len(reload.problems))
            return
        for change in reload.changes:
            _reloads_log.info("{change}", change=printable(change))
        _reloads_log.info(_RELOADED, epoch=reload.number, seconds=reload.seconds)


def _admitted_anyone(visit: Visit) -> None:
    assert visit.transport is not None
    connection = cast(GateConnection, visit.transport.getHandle())
    _log.info(
        _ADMITTED_ANYONE,
        server=visit.server,
        connection=visit.number,
        peer_address=address_text(visit.address),
        sni=_printable(connection.server_name),
        tls_version=connection.get_protocol_version_name(),
    )


def pin_first_used(server: str, rule: str, pin: Pin) -> None:
    """Log that a pin with a name was used for the first time."""
    _pins_log.info(
        _FIRST_USE,
        server=server,
        rule=rule,
        pin=pin.name,
        fingerprint=pin.digest.hex(),
    )


def is_pinnable(refusal: Refusal) -> bool:
    """:returns: whether a pin may be what is wanted, and the leaf is a
    certificate as people pin them: not a stranger's way to fill the log."""
    leaf = refusal.leaf
    return (
        leaf is not None
        and refusal.rejection.reason in _PINNABLE
        and len(leaf.tbs_certificate_bytes) <= _MAX_PINNABLE
    )


def pin_block(leaf: x509.Certificate) -> str:
    """:returns: HCL that pins a leaf, in one line."""
    der = b64encode(leaf.public_bytes(Encoding.DER)).decode("ascii")
    return f'pin "{sha256(leaf).hex()[:16]}" {{ leaf_certificate = "{der}" }}'


def _printable(name: str | None) -> str | None:
    return None if name is None else printable(name)


_NO_FACTS = dict.fromkeys(("subject", "issuer", "serial", "fingerprint"))


@remembered
def _facts(leaf: x509.Certificate) -> Mapping[str, str | None]:
    """:returns: the fields of a log event that name a leaf, safe to print."""
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
def _facts_and_names(leaf: x509.Certificate) -> Mapping[str, str | list[str] | None]:
    """:returns: the fields of a log event that name an admitted leaf, and hold its names."""
    names = Leaf(leaf)
    return {
        **_facts(leaf),
        "dns_names": [printable(name) for name in names.dns_names()],
        "uris": [printable(name) for name in names.uris()],
    }
