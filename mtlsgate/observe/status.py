"""
The state of the gate at one moment, as values.

The admin endpoint and ``mtlsgate ctl`` show these values and nothing else.
`mtlsgate.run.status_taker` makes them.  All text in them is safe to print.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from mtlsgate.observe.connection_status import ConnectionStatus, RejectionStatus
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.observe.server_status import ClientGateStatus, ServerStatus
from mtlsgate.observe.shadow_status import ShadowStatus
from mtlsgate.observe.status_value import StatusValue


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
class AgentStatus(StatusValue):
    """
    A stream of a SPIFFE agent.

    :ivar agent: the agent's socket.
    :ivar stream: the call: ``FetchX509SVID`` or ``FetchX509Bundles``.
    :ivar is_up: whether the agent answers it at the moment.
    :ivar updates: how many messages took effect.
    :ivar last: when the last one came; None before any.
    :ivar problem: why nothing comes, or None.
    :ivar names: what was delivered: SPIFFE IDs, or trust domains.
    """

    agent: str
    stream: str
    is_up: bool
    updates: int
    last: datetime | None
    problem: str | None
    names: tuple[str, ...]


@frozen(kw_only=True)
class OrderStatus(StatusValue):
    """
    A certificate of the gate's own that it orders from a CA by ACME.

    :ivar names: the DNS names that it is for.
    :ivar directory: the URL of the CA's directory.
    :ivar until: when the one in use expires; None if there is none.
    :ivar due: when the next one is ordered.
    :ivar tried: when the latest attempt ended; None if there was none.
    :ivar failures: how many attempts have failed since the latest success.
    :ivar problem: why the latest attempt failed, or None.
    """

    names: tuple[str, ...]
    directory: str
    until: datetime | None
    due: datetime
    tried: datetime | None
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
    :ivar agents: the streams of SPIFFE agents.
    :ivar orders: the certificates that it orders from CAs.
    :ivar registries: the stores of devices, in file order.
    :ivar warnings: those of the configuration, in lines.
    :ivar last_reload: the latest reload that was no dry run, or None.
    :ivar sandbox: whether the gate runs in its sandbox, and why not, in words.
    :ivar workers: the processes that take connections; empty if this one does.
    :ivar shadow: the configuration in the shadow, or None.
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
    agents: tuple[AgentStatus, ...] = ()
    orders: tuple[OrderStatus, ...] = ()
    registries: tuple[RegistryStatus, ...] = ()
    warnings: tuple[str, ...]
    last_reload: ReloadStatus | None
    sandbox: str
    workers: tuple[WorkerStatus, ...] = ()
    shadow: ShadowStatus | None = None


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
