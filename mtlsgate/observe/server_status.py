"""
Servers and client gates at one moment, as values; what they were configured with, and their
last hour.

All text in them is safe to print.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from mtlsgate.observe.status_value import StatusValue


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
    :ivar is_due: whether it is near: 30 days or a third of a certificate's life, whichever is
        shorter, or a tenth of a revocation list's period.
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
class PeriodStatus(StatusValue):
    """
    When something of the configuration counts.

    :ivar kind: ``server_certificate``, ``ca``, ``pin`` or ``crl``; for a client gate
        ``client_certificate``, ``target_ca`` or ``target_pin``.
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
