"""
How the gate is at one moment, as values.

Every number and name that the admin endpoint and ``mtlsgate ctl`` show is in
here; a view adds none of its own.  `mtlsgate.run.status_taker` takes them.  Text in it is
safe to print.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
from attrs import frozen

#: How many connections a status has at most: the gate waits meanwhile.
MOST_CONNECTIONS = 1000


@frozen(kw_only=True)
class StatusValue:
    """The base of all parts of a status."""

    def to_dict(self) -> dict[str, Any]:
        """:returns: all of it as what JSON can hold; times as RFC 3339."""
        return attrs.asdict(self, value_serializer=_plain)


def _plain(_instance: object, _attribute: object, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


@frozen(kw_only=True)
class CertificateStatus(StatusValue):
    """
    A certificate of the configuration.

    :ivar subject: as RFC 4514 has it.
    :ivar sha256: its fingerprint, 64 lower-case hex digits.
    :ivar not_after: when its validity ends.
    :ivar days_left: until then, in whole days; negative once it is over.
    """

    subject: str
    sha256: str
    not_after: datetime
    days_left: int


@frozen(kw_only=True)
class DeadlineStatus(StatusValue):
    """
    When the first thing of a kind ceases, or begins, to count.

    :ivar kind: ``server_certificate``, ``ca``, ``pin`` (it expires or is retired),
        ``pin_not_before`` (it begins to count) or ``crl`` (it is to be replaced).
    :ivar rule: whose it is, or None if it is the server's own.
    :ivar at: when.
    :ivar days_left: until then, in whole days; negative once it has passed.
    :ivar is_due: whether it is near: 30 days, or a tenth of a revocation list's period.
    """

    kind: str
    rule: str | None
    at: datetime
    days_left: int
    is_due: bool


@frozen(kw_only=True)
class RuleStatus(StatusValue):
    """
    One rule.

    :ivar name: its label, or ``#2`` for the second where it has none.
    :ivar description: what it demands, in one line.
    :ivar authorities: its CAs.
    :ivar pins: how many leaves it pins.
    :ivar pins_days_left: until the first of them expires or is retired, or None.
    :ivar crl_days_left: until its first revocation list is to be replaced, or None.
    """

    name: str
    description: str
    authorities: tuple[CertificateStatus, ...]
    pins: int
    pins_days_left: int | None
    crl_days_left: int | None


@frozen(kw_only=True)
class LimitStatus(StatusValue):
    """
    What one server allows, as the configuration's attributes of the same names
    say; None is without limit.
    """

    max_connections: int | None
    max_connections_per_ip: int | None
    max_connections_per_identity: int | None
    max_handshakes: int | None
    handshakes_per_second_per_ip: float | None
    handshake_bytes: int | None
    handshake_timeout: float
    idle_timeout: float | None


@frozen(kw_only=True)
class ServerStatus(StatusValue):
    """
    One server.

    :ivar name: its name in logs.
    :ivar protocol: what is behind it.
    :ivar hosts: where it is to listen, as the configuration says.
    :ivar listening: where it does; empty while the gate drains.
    :ivar server_names: the names (SNI) that it answers to; empty for all.
    :ivar client_authentication: ``required``, or ``none`` where anyone comes in.
    :ivar rules: in file order.
    :ivar certificates: what it shows of itself.
    :ivar deadlines: of its certificates, CAs, pins and revocation lists, the first of
        each kind and rule; the earliest first.
    :ivar admitted: how many clients are connected.
    :ivar handshakes: how many connections are not admitted yet.
    :ivar limits: what it allows.
    """

    name: str
    protocol: str
    hosts: tuple[str, ...]
    listening: tuple[str, ...]
    server_names: tuple[str, ...]
    client_authentication: str
    rules: tuple[RuleStatus, ...]
    certificates: tuple[CertificateStatus, ...]
    deadlines: tuple[DeadlineStatus, ...]
    admitted: int
    handshakes: int
    limits: LimitStatus


@frozen(kw_only=True)
class ReloadStatus(StatusValue):
    """
    An attempt to load the configuration anew.

    :ivar at: when.
    :ivar succeeded: whether the new epoch took over; of a trial, whether it would.
    :ivar is_trial: whether it was only to tell what would change.
    :ivar epoch: the number of the epoch in force since.
    :ivar seconds: that it took.
    :ivar problems: why not, in lines.
    :ivar changes: what is different from the epoch before, in lines.
    :ivar dropped: of a trial, which clients would be dropped, in lines.
    """

    at: datetime
    succeeded: bool
    is_trial: bool
    epoch: int
    seconds: float
    problems: tuple[str, ...]
    changes: tuple[str, ...]
    dropped: tuple[str, ...]


@frozen(kw_only=True)
class ServiceStatus(StatusValue):
    """
    The gate as a whole.

    :ivar version: of mtlsgate.
    :ivar pid: of its process.
    :ivar started: when.
    :ivar uptime: in seconds.
    :ivar config: the configuration file.
    :ivar epoch: the number of the epoch in force; the first is 1.
    :ivar epoch_age: in seconds.
    :ivar ready: whether it accepts connections.
    :ivar not_ready: why not, or None.
    :ivar draining: whether it ends.
    :ivar admitted: how many clients are connected.
    :ivar handshakes: how many connections are not admitted yet.
    :ivar rejected: how many connections were turned away since it started.
    :ivar servers: in file order.
    :ivar warnings: of the configuration, in lines.
    :ivar last_reload: the last attempt that was no trial, or None.
    """

    version: str
    pid: int
    started: datetime
    uptime: float
    config: str
    epoch: int
    epoch_age: float
    ready: bool
    not_ready: str | None
    draining: bool
    admitted: int
    handshakes: int
    rejected: int
    servers: tuple[ServerStatus, ...]
    warnings: tuple[str, ...]
    last_reload: ReloadStatus | None


@frozen(kw_only=True)
class ConnectionStatus(StatusValue):
    """
    One connection.

    :ivar number: its own, since the gate was started.
    :ivar state: ``handshake``, ``admitted``, or ``closing`` once the gate ends it.
    :ivar server: whose it is; where that is not known yet, the address.
    :ivar rule: that admitted it, or None.
    :ivar pin: the name of the pin that did, or None.
    :ivar address: the client's.
    :ivar subject: of its leaf, or None.
    :ivar sha256: of its leaf, or None.
    :ivar not_after: when its leaf's validity ends, or None.
    :ivar since: when it came.
    :ivar seconds: since then.
    :ivar received: bytes that the client sent to the application.
    :ivar sent: bytes that it got from it.
    :ivar idle: seconds without a byte, known where there is an ``idle_timeout``
        and to a quarter of it; or None.
    :ivar server_name: that the client asked for, or None.
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
    A connection that was turned away.

    :ivar at: when.
    :ivar number: the connection's, or None if it was closed as it came.
    :ivar server: whose it was; where that was not known yet, the address.
    :ivar address: the client's.
    :ivar reason: of `mtlsgate.reasons`.
    :ivar detail: in one line.
    :ivar depth: of the certificate that gave cause, or None.
    :ivar server_name: that the client asked for, or None.
    :ivar tls_version: or None.
    :ivar seconds: from its arrival.
    :ivar leaf: what it presented, or None.
    :ivar pin_block: HCL that pins the leaf, where that may be what is wanted.
    """

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
    Which connections a status has, lowest number first.

    :ivar after: those with a higher number.
    :ivar limit: how many.
    :ivar server: of that server, or None for all.
    """

    after: int = 0
    limit: int = MOST_CONNECTIONS
    server: str | None = None


@frozen(kw_only=True)
class Status(StatusValue):
    """
    All of it, at one moment.

    :ivar at: when.
    :ivar service: the gate as a whole.
    :ivar connections: as selected.
    :ivar next: where the next selection begins (its ``after``), or None if
        these are the last.
    :ivar rejections: the latest first.
    """

    at: datetime
    service: ServiceStatus
    connections: tuple[ConnectionStatus, ...]
    next: int | None
    rejections: tuple[RejectionStatus, ...]


#: Selects no connection.
NO_CONNECTIONS = ConnectionSelection(limit=0)
