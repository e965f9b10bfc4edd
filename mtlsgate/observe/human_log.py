"""
The log of connections, in words: one event for each admission and each rejection.
Its fields are safe to print.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice

from twisted.logger import Logger

from mtlsgate.admission import Pin
from mtlsgate.certificates.certificate import MAX_REMEMBERED, Certificate
from mtlsgate.certificates.server_names import canonical
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    Destination,
    RejectedConnection,
    Reload,
)
from mtlsgate.observe.event_lines import WHOLE_TEXT
from mtlsgate.observe.leaf_names import UNREADABLE, issuer_of, read, subject_of
from mtlsgate.peer import address_text
from mtlsgate.reasons import Cause, Reason
from mtlsgate.text import MAX_LOGGED, cut, loggable, printable

_log = Logger("mtlsgate.gate")
_closes_log = Logger("mtlsgate.closes")
_reloads_log = Logger("mtlsgate.reloads")
#: For events about pins.
_pins_log = Logger("mtlsgate.pins")

_FIRST_USE = "{server}: pin {pin} of rule {rule} is used for the first time: sha256={fingerprint}"
_NOT_RELOADED = "the configuration was not reloaded: epoch {epoch} stays in force"
_RELOADED = "epoch {epoch} is in force, loaded in {seconds:.2f} s"
#: How many names of each kind an event has at most.
_MAX_NAMES = 32
#: Reasons of rejections that a pin may be the remedy for.
_MAX_PINNABLE = 4096
_PINNABLE = (Reason.LEAF_MISMATCH, Reason.UNKNOWN_CA)


class HumanLog:
    """
    Writes to Twisted's log, in words.

    :ivar _quiet: whether to leave out connections that come and go without a byte,
        as health checks do.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def set_quiet(self, quiet: bool) -> None:
        """:param quiet: whether to leave out connections that come and go without a byte."""
        self._quiet = quiet

    def admitted(self, connection: AdmittedConnection) -> None:
        """Log that a client was admitted."""
        peer, pin = connection.admission.peer, connection.admission.pin
        if connection.is_logged:
            _admitted(connection)
        if peer is not None and pin is not None and connection.admission.is_first_use:
            _pin_first_used(connection.server, peer.rule, pin)

    def rejected(self, connection: RejectedConnection) -> None:
        """Log that a client was rejected; at the debug level also how to pin it."""
        if self._quiet and connection.is_health_check:
            return
        leaf, rejection = connection.leaf, connection.rejection
        address, detail = address_text(connection.address), loggable(rejection.detail)
        facts = _NO_FACTS if leaf is None else _facts(leaf)
        text = f"{connection.server}: rejected {address}: {rejection.reason.value}: {detail}"
        if leaf is not None:
            text += (
                f" [depth={rejection.depth} subject={facts['subject']} issuer={facts['issuer']} "
                f"serial={facts['serial']} sha256={facts['fingerprint']}]"
            )
        _log.warn(
            WHOLE_TEXT,
            text=text,
            server=connection.server,
            connection=connection.number,
            peer_address=address,
            reason=rejection.reason.value,
            detail=detail,
            depth=rejection.depth,
            sni=_loggable(connection.server_name),
            tls_version=connection.tls_version,
            **facts,
        )
        if leaf is not None and is_pinnable(connection):
            block = pin_block(leaf)
            _pins_log.debug(
                WHOLE_TEXT,
                text=f"{connection.server}: to pin the client rejected from {address}, "
                # HCL from here on, in one line.
                f"put into its rule: {block}",
                server=connection.server,
                peer_address=address,
                fingerprint=facts["fingerprint"],
                pin_block=block,
            )

    def closed(self, connection: ClosedConnection) -> None:
        """Log that the gate closed a connection. What others close is not logged."""
        if not connection.by_gate:
            return
        admitted = connection.connection
        leaf, address = admitted.admission.leaf, address_text(admitted.arrival.address)
        facts = _NO_FACTS if leaf is None else _facts(leaf)
        detail = f": {loggable(connection.detail)}" if connection.detail else ""
        # Somebody must look after this; the others are business as usual.
        is_fault = connection.cause is Cause.REFUSED_BY_TARGET
        (_closes_log.warn if is_fault else _closes_log.info)(
            WHOLE_TEXT,
            text=f"{admitted.server}: closed {address}: {connection.cause.value}{detail} "
            f"[subject={facts['subject']} sha256={facts['fingerprint']}]",
            server=admitted.server,
            connection=admitted.arrival.number,
            peer_address=address,
            cause=connection.cause.value,
            detail=detail,
            rule=admitted.rule,
            **facts,
        )

    def reloaded(self, reload: Reload) -> None:
        """Log the result of a reload."""
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


def _admitted(connection: AdmittedConnection) -> None:
    peer, destination = connection.admission.peer, connection.admission.destination
    negotiated, server = connection.admission.negotiated, connection.server
    address = address_text(connection.arrival.address)
    if destination is not None:
        _connected(connection, destination)
        return
    if peer is None:
        _log.info(
            WHOLE_TEXT,
            text=f"{server}: admitted {address} without a certificate: "
            f"tls={negotiated.tls_version}",
            server=server,
            connection=connection.arrival.number,
            peer_address=address,
            sni=_loggable(negotiated.server_name),
            tls_version=negotiated.tls_version,
        )
        return
    facts = _facts_and_names(peer.certificates[0])
    _log.info(
        WHOLE_TEXT,
        text=f"{server}: admitted {address} by rule {peer.rule}: "
        f"subject={facts['subject']} sha256={facts['fingerprint']} tls={peer.tls_version}"
        f"{' resumed' if peer.resumed else ''}",
        server=server,
        connection=connection.arrival.number,
        peer_address=address,
        rule=peer.rule,
        sni=_loggable(peer.server_name),
        tls_version=peer.tls_version,
        resumed=peer.resumed,
        **facts,
    )


def _connected(connection: AdmittedConnection, destination: Destination) -> None:
    """Log that a client gate connected a program to its target."""
    address, target = address_text(connection.arrival.address), printable(destination.target)
    facts, negotiated = _facts(destination.leaf), connection.admission.negotiated
    user = "" if destination.uid is None else f" (uid {destination.uid})"
    _log.info(
        WHOLE_TEXT,
        text=f"{connection.server}: connected {address}{user} to {target}: "
        f"subject={facts['subject']} sha256={facts['fingerprint']} tls={negotiated.tls_version}",
        server=connection.server,
        connection=connection.arrival.number,
        peer_address=address,
        target=target,
        uid=destination.uid,
        sni=_loggable(negotiated.server_name),
        tls_version=negotiated.tls_version,
        **facts,
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
    """:returns: whether a pin may be the remedy. A large leaf is never pinned: strangers
    could fill the log with it."""
    leaf = connection.leaf
    return (
        leaf is not None
        and connection.rejection.reason in _PINNABLE
        and len(leaf.der) <= _MAX_PINNABLE
    )


def pin_block(leaf: Certificate) -> str:
    """:returns: HCL that pins a leaf, in one line."""
    der = b64encode(leaf.der).decode("ascii")
    return f'pin "{leaf.sha256.hex()[:16]}" {{ leaf_certificate = "{der}" }}'


def _loggable(name: str | None) -> str | None:
    return None if name is None else loggable(name)


_NO_FACTS = dict.fromkeys(("subject", "issuer", "serial", "fingerprint"))


def _facts(leaf: Certificate) -> Mapping[str, str | None]:
    """:returns: the fields that identify a leaf, ready for a log line."""
    return {
        "subject": loggable(subject_of(leaf)),
        "issuer": loggable(issuer_of(leaf)),
        "serial": cut(read(lambda: f"{leaf.serial_number:x}", UNREADABLE), MAX_LOGGED),
        "fingerprint": leaf.sha256.hex(),
    }


@lru_cache(MAX_REMEMBERED)
def _facts_and_names(leaf: Certificate) -> Mapping[str, str | list[str] | None]:
    """:returns: the fields that identify an admitted leaf, with its alternative names."""
    names = leaf.readable_names
    return {
        **_facts(leaf),
        "dns_names": [loggable(name) for name in islice(map(canonical, names.dns), _MAX_NAMES)],
        "uris": [loggable(name) for name in islice(names.uris, _MAX_NAMES)],
    }
