"""
Connections and rejections, as values, and which of them a status lists.

All text in them is safe to print.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from mtlsgate.observe.status_value import StatusValue

#: How many connections a status has at most. Making it blocks the gate.
MOST_CONNECTIONS = 1000


@frozen(kw_only=True)
class ConnectionStatus(StatusValue):
    """
    One connection.

    :ivar number: its number, counted from the start of the gate.
    :ivar state: ``handshake``, ``admitted``, or ``closing`` when the gate closes it.
    :ivar server: the server's name; before it is known, the address.
    :ivar rule: the rule by which it is admitted now, or None.
    :ivar pin: the name of the pin by which it is, or None.
    :ivar address: the client's.
    :ivar target: for a client gate, the target it is connected to; or None.
    :ivar uid: for a client gate's unix socket, the user whose program it is; or None.
    :ivar subject: of its leaf, or None; for a client gate, of the target's.
    :ivar sha256: of that leaf, or None.
    :ivar not_after: when that leaf's validity ends, or None.
    :ivar since: when it arrived.
    :ivar seconds: how long ago that was.
    :ivar received: bytes that the client sent to the application.
    :ivar sent: bytes that the application sent to the client.
    :ivar idle: seconds without a byte, known where there is an ``idle_timeout``
        and to a quarter of it; or None.
    :ivar server_name: the name the client asked for (SNI), or None.
    :ivar tls_version: or None while it is not known.
    :ivar cipher: or None while it is not known.
    :ivar resumed: whether it resumed a session.
    """

    number: int
    state: str
    server: str
    rule: str | None
    pin: str | None
    address: str
    target: str | None
    uid: int | None
    subject: str | None
    sha256: str | None
    not_after: datetime | None
    since: datetime
    seconds: float
    received: int
    sent: int
    idle: float | None
    server_name: str | None
    tls_version: str | None
    cipher: str | None
    resumed: bool


@frozen(kw_only=True)
class PresentedLeaf(StatusValue):
    """
    What a client presented, whether or not it holds the key.  Of a leaf that is
    uncommonly large, all but the digest is None or empty.

    :ivar sha256: its fingerprint, 64 lower-case hex digits.
    :ivar subject: as RFC 4514 has it.
    :ivar issuer: likewise.
    :ivar serial_number: in hex.
    :ivar not_before: when its validity begins.
    :ivar not_after: when it ends.
    :ivar dns_names: of the subject alternative name.
    :ivar uris: likewise.
    """

    sha256: str
    subject: str | None = None
    issuer: str | None = None
    serial_number: str | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()


@frozen(kw_only=True)
class RejectionStatus(StatusValue):
    """
    A rejected connection.

    :ivar id: names it among the latest.
    :ivar at: when.
    :ivar number: the connection's number; None if it was closed on arrival.
    :ivar server: the server's name; if it was not known yet, the address.
    :ivar address: the client's.
    :ivar reason: one of `mtlsgate.reasons.Reason`.
    :ivar detail: the particulars, in one line.
    :ivar depth: of the certificate that is the cause, or None.
    :ivar server_name: the name the client asked for (SNI), or None.
    :ivar tls_version: or None.
    :ivar seconds: from its arrival to the rejection.
    :ivar leaf: the leaf it presented, or None.
    :ivar pin_block: HCL that pins the leaf, if that may be the remedy.
    """

    id: int
    at: datetime
    number: int | None
    server: str
    address: str
    reason: str
    detail: str
    depth: int | None
    server_name: str | None
    tls_version: str | None
    seconds: float
    leaf: PresentedLeaf | None
    pin_block: str | None


@frozen(kw_only=True)
class ConnectionSelection:
    """
    Which connections a status lists, lowest number first.

    :ivar after: only those with a higher number.
    :ivar limit: at most so many.
    :ivar server: only those of that server; None for all.
    """

    after: int = 0
    limit: int = MOST_CONNECTIONS
    server: str | None = None


#: Selects no connection.
NO_CONNECTIONS = ConnectionSelection(limit=0)
