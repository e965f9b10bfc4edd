"""
What the gate logs of connections, in words: one event for each that is let in or
turned away, its fields safe to print.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.logger import Logger

from mtlsgate.admission import Pin
from mtlsgate.admission.conditions import Leaf
from mtlsgate.certificates.parsing import MAX_REMEMBERED, UNPARSABLE, remembered, sha256
from mtlsgate.gate.events import AdmittedConnection, ClosedConnection, RejectedConnection, Reload
from mtlsgate.peer import address_text
from mtlsgate.reasons import Reason
from mtlsgate.text import printable

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

    def admitted(self, connection: AdmittedConnection) -> None:
        """Log that a client was let in."""
        peer, pin = connection.admission.peer, connection.admission.pin
        if peer is None:
            _admitted_anyone(connection)
            return
        address = address_text(connection.arrival.address)
        facts = _facts_and_names(peer.leaf)
        _log.info(
            # Put together here: Twisted's own formatting of so many fields costs
            # more than the verdict.
            "{text}",
            text=f"{connection.server}: admitted {address} by rule {peer.rule}: "
            f"subject={facts['subject']} sha256={facts['fingerprint']} tls={peer.tls_version}"
            f"{' resumed' if peer.resumed else ''}",
            server=connection.server,
            connection=connection.arrival.number,
            peer_address=address,
            rule=peer.rule,
            sni=_printable(peer.server_name),
            tls_version=peer.tls_version,
            resumed=peer.resumed,
            **facts,
        )
        if pin is not None and connection.admission.is_first_use:
            _pin_first_used(connection.server, peer.rule, pin)

    def rejected(self, connection: RejectedConnection) -> None:
        """Log that a client was turned away, and at the debug level how to pin it."""
        if self._quiet and connection.is_health_check:
            return
        leaf, rejection = connection.leaf, connection.rejection
        _log.warn(
            _REJECTED if leaf is None else _REJECTED + _REJECTED_LEAF,
            server=connection.server,
            connection=connection.number,
            peer_address=address_text(connection.address),
            reason=rejection.reason.value,
            detail=printable(rejection.detail),
            depth=rejection.depth,
            sni=_printable(connection.server_name),
            tls_version=connection.tls_version,
            **(_NO_FACTS if leaf is None else _facts(leaf)),
        )
        if leaf is not None and is_pinnable(connection):
            _pins_log.debug(
                _PIN_BLOCK,
                server=connection.server,
                peer_address=address_text(connection.address),
                fingerprint=sha256(leaf).hex(),
                # A call, so that it costs nothing where nobody reads this level.
                pin_block=partial(pin_block, leaf),
            )

    def closed(self, connection: ClosedConnection) -> None:
        """Log that the gate ended a connection; what others end is not news."""
        if not connection.by_gate:
            return
        admitted = connection.connection
        peer = admitted.admission.peer
        _closes_log.info(
            _CLOSED,
            server=admitted.server,
            connection=admitted.arrival.number,
            peer_address=address_text(admitted.arrival.address),
            cause=connection.cause.value,
            detail=f": {printable(connection.detail)}" if connection.detail else "",
            rule=admitted.rule,
            **(_NO_FACTS if peer is None else _facts(peer.leaf)),
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


def _admitted_anyone(connection: AdmittedConnection) -> None:
    negotiated = connection.admission.negotiated
    _log.info(
        _ADMITTED_ANYONE,
        server=connection.server,
        connection=connection.arrival.number,
        peer_address=address_text(connection.arrival.address),
        sni=_printable(negotiated.server_name),
        tls_version=negotiated.tls_version,
    )


def _pin_first_used(server: str, rule: str, pin: Pin) -> None:
    _pins_log.info(
        _FIRST_USE,
        server=server,
        rule=rule,
        pin=pin.name,
        fingerprint=pin.digest.hex(),
    )


def is_pinnable(connection: RejectedConnection) -> bool:
    """:returns: whether a pin may be what is wanted, and the leaf is a
    certificate as people pin them: not a stranger's way to fill the log."""
    leaf = connection.leaf
    return (
        leaf is not None
        and connection.rejection.reason in _PINNABLE
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
