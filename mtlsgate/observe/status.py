"""
The state of the gate at one moment, as values.

The admin endpoint and ``mtlsgate ctl`` show these values and nothing else.
`mtlsgate.run.status_taker` makes them.  All text in them is safe to print.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs
from attrs import frozen

#: How many connections a status has at most. Making it blocks the gate.
MOST_CONNECTIONS = 1000


@frozen(kw_only=True)
class StatusValue:
    """The base of all parts of a status."""

    def to_dict(self) -> dict[str, Any]:
        """:returns: the same for JSON; times as RFC 3339."""
        return attrs.asdict(self, value_serializer=_plain)


T = TypeVar("T", bound=StatusValue)


def value_of(kind: type[T], told: Mapping[str, Any]) -> T:
    """
    :param told: what `StatusValue.to_dict` returned, also after JSON.
    :returns: the value.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], one) for name, one in told.items()})


def _value(hint: Any, told: Any) -> Any:
    if told is None:
        return None
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(arguments[0], one) for one in told)
    if arguments:
        # X | None
        [hint] = [one for one in arguments if one is not type(None)]
        return _value(hint, told)
    if hint is datetime:
        return datetime.fromisoformat(told)
    return value_of(hint, told) if issubclass(hint, StatusValue) else told


def _plain(_instance: object, _attribute: object, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


@frozen(kw_only=True)
class CertificateStatus(StatusValue):
    """
    A certificate of the configuration.

    :ivar subject: as RFC 4514 has it.
    :ivar sha256: its fingerprint, 64 lower-case hex digits.
    :ivar not_after: when its validity ends.
    :ivar days_left: whole days until then; negative when it has passed.
    """

    subject: str
    sha256: str
    not_after: datetime
    days_left: int


@frozen(kw_only=True)
class DeadlineStatus(StatusValue):
    """
    When the first item of a kind stops, or begins, to count.

    :ivar kind: ``server_certificate``, ``ca``, ``pin`` (it expires or is retired),
        ``pin_not_before`` (it begins to count) or ``crl`` (it is to be replaced); of a
        client gate ``client_certificate``, ``target_ca`` or ``target_pin``.
    :ivar rule: the rule that it belongs to; None if it is the server's own.
    :ivar at: when.
    :ivar days_left: whole days until then; negative when it has passed.
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

    :ivar name: its label; without one, its number, as ``#2``.
    :ivar description: what it requires, in one line.
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
class TargetStatus(StatusValue):
    """
    One target of a server or a client gate.

    :ivar address: as in the configuration.
    :ivar up: whether it is up, as far as known: false after an attempt to connect or a
        check that failed.
    :ivar is_known: whether there was any attempt or check.
    :ivar down_since: when it went down, or None.
    :ivar last_error: why the latest failure failed; None before any.
    :ivar last_dial: seconds that the latest connection took to make, TLS included; or None.
    :ivar dials: how many connections were made.
    :ivar seconds_dialling: how long they took, all together.
    :ivar failures: how many attempts and checks have failed.
    :ivar in_use: open connections, or requests that it has not answered.
    :ivar weight: its share.
    :ivar backup: whether it is used only while no other is up.
    """

    address: str
    up: bool
    is_known: bool
    down_since: datetime | None
    last_error: str | None
    last_dial: float | None
    dials: int
    seconds_dialling: float
    failures: int
    in_use: int
    weight: int
    backup: bool


@frozen(kw_only=True)
class ServerStatus(StatusValue):
    """
    One server.

    :ivar name: its name in logs.
    :ivar protocol: the name of the protocol behind it.
    :ivar hosts: where to listen, as in the configuration.
    :ivar listening: the addresses it listens on; empty while the gate drains.
    :ivar server_names: the names (SNI) that it answers to; empty for all.
    :ivar client_authentication: ``required``, or ``none`` if everybody is admitted.
    :ivar rules: in file order.
    :ivar certificates: its own.
    :ivar deadlines: of its certificates, CAs, pins and revocation lists, the first of
        each kind and rule; the earliest first.
    :ivar admitted: how many clients are connected.
    :ivar handshakes: how many connections are not admitted yet.
    :ivar limits: its limits.
    :ivar targets: where its protocol connects; empty if nowhere.
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
    targets: tuple[TargetStatus, ...]


@frozen(kw_only=True)
class ClientGateStatus(StatusValue):
    """
    One client gate.

    :ivar name: its name in logs.
    :ivar hosts: where to listen, as in the configuration.
    :ivar listening: the addresses it listens on; empty while the gate drains.
    :ivar targets: where it connects.
    :ivar certificates: its own; empty if it shows none.
    :ivar authorities: the CAs to verify targets by; empty for the system's.
    :ivar pins: how many targets' certificates it pins.
    :ivar deadlines: of its certificate and of the targets' CAs and pins; the earliest
        first.
    :ivar connected: how many programs are connected to a target.
    :ivar dialling: how many wait for a target.
    :ivar max_connections: how many may be connected; None is without limit.
    :ivar max_handshakes: how many may wait, likewise.
    :ivar idle_timeout: in seconds, or None.
    """

    name: str
    hosts: tuple[str, ...]
    listening: tuple[str, ...]
    targets: tuple[TargetStatus, ...]
    certificates: tuple[CertificateStatus, ...]
    authorities: tuple[CertificateStatus, ...]
    pins: int
    deadlines: tuple[DeadlineStatus, ...]
    connected: int
    dialling: int
    max_connections: int | None
    max_handshakes: int | None
    idle_timeout: float | None


@frozen(kw_only=True)
class ReloadStatus(StatusValue):
    """
    A reload, or an attempt at one.

    :ivar at: when.
    :ivar succeeded: whether the new epoch took over; for a dry run, whether it would.
    :ivar is_trial: whether it was a dry run.
    :ivar epoch: the number of the epoch in force after it.
    :ivar seconds: how long it took.
    :ivar problems: why it failed, in lines.
    :ivar changes: the differences from the epoch before, in lines.
    :ivar dropped: for a dry run, which clients it would drop, in lines.
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
class FetchStatus(StatusValue):
    """
    A document that the gate fetches by itself, such as a revocation list.

    :ivar url: where it comes from, without the URL's query.
    :ivar until: when the one in force ends; None if there is none.
    :ivar fetched: when it came last; None if it has not come since the start.
    :ivar failures: how many attempts have failed since.
    :ivar problem: why the latest attempt failed, or None.
    """

    url: str
    until: datetime | None
    fetched: datetime | None
    failures: int
    problem: str | None


@frozen(kw_only=True)
class WorkerStatus(StatusValue):
    """
    One worker of several.

    :ivar number: its number, from 1.
    :ivar pid: of its process; None if there is none now.
    :ivar state: ``starting``, ``running``, ``silent`` (it does not answer), ``draining``,
        or ``waiting`` until another is started.
    :ivar uptime: of its process, in seconds; None if there is none.
    :ivar admitted: how many clients are connected to it.
    :ivar handshakes: how many of its connections are not admitted yet.
    :ivar cpu_seconds: how much CPU time its process has used.
    :ivar restarts: how often another one was started in its place.
    """

    number: int
    pid: int | None
    state: str
    uptime: float | None
    admitted: int
    handshakes: int
    cpu_seconds: float
    restarts: int


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
    :ivar draining: whether it is shutting down.
    :ivar admitted: how many clients are connected.
    :ivar handshakes: how many connections are not admitted yet.
    :ivar rejected: how many connections were rejected since the start.
    :ivar servers: in file order.
    :ivar clients: the client gates, in file order.
    :ivar fetches: the documents that it fetches by itself.
    :ivar warnings: those of the configuration, in lines.
    :ivar last_reload: the latest reload that was no dry run, or None.
    :ivar sandbox: whether the gate runs in its sandbox, and why not, in words.
    :ivar workers: the processes that take connections; empty if this one does.
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
    clients: tuple[ClientGateStatus, ...]
    fetches: tuple[FetchStatus, ...] = ()
    warnings: tuple[str, ...]
    last_reload: ReloadStatus | None
    sandbox: str
    workers: tuple[WorkerStatus, ...] = ()


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
class ServerHistory(StatusValue):
    """
    What a server's clients met in the last hour.

    :ivar name: the server's name; the address for clients whose server was not known.
    :ivar admitted: how many were admitted in each minute, the oldest first.
    :ivar rejected: likewise.
    """

    name: str
    admitted: tuple[int, ...]
    rejected: tuple[int, ...]


@frozen(kw_only=True)
class HistoryStatus(StatusValue):
    """
    The last hour, by minutes.

    :ivar at: when; the last minute is the current one.
    :ivar servers: those that had a client.
    """

    at: datetime
    servers: tuple[ServerHistory, ...]


@frozen(kw_only=True)
class PeriodStatus(StatusValue):
    """
    When something of the configuration counts.

    :ivar kind: ``server_certificate``, ``ca``, ``pin`` or ``crl``.
    :ivar server: the server's name.
    :ivar rule: the rule it belongs to; None for the server's own certificates.
    :ivar name: the pin's name; otherwise the subject, or a list's issuer.
    :ivar sha256: the certificate's fingerprint; None for a list.
    :ivar begins: from when it counts.
    :ivar ends: until when.
    """

    kind: str
    server: str
    rule: str | None
    name: str
    sha256: str | None
    begins: datetime
    ends: datetime


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


@frozen(kw_only=True)
class Status(StatusValue):
    """
    The whole gate at one moment.

    :ivar at: when.
    :ivar service: the gate as a whole.
    :ivar connections: those that were selected.
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
