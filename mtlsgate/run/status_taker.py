"""
Takes the status of the service.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from itertools import islice

from attrs import field, frozen

from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import LiveConnection, Reload
from mtlsgate.load.readiness import all_backends
from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection, ConnectionStatus
from mtlsgate.observe.counts import Durations
from mtlsgate.observe.expiry_metrics import Expiring
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.observe.metrics import ServiceState
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.observe.shadow_metrics import ShadowState
from mtlsgate.observe.status import ReloadStatus, ServiceStatus, Status
from mtlsgate.peer import address_text
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.gate_status import GateStatuses, target_statuses
from mtlsgate.run.names import configured_names
from mtlsgate.run.service import GateService
from mtlsgate.run.shadow import InShadow
from mtlsgate.run.shadow_report import shadow_status
from mtlsgate.text import printable


@frozen(kw_only=True)
class Process:
    """
    What is known of the process.

    :ivar version: the version of mtlsgate.
    :ivar config: the absolute path of the configuration.
    :ivar started: when it started, as a date.
    :ivar began: the same in the clock's seconds.
    :ivar lag: how late its reactor was.
    :ivar sandbox: tells whether it runs in its sandbox, and why not.
    """

    version: str
    config: str
    started: datetime
    began: float
    lag: Durations = field(factory=Durations)
    sandbox: Callable[[], str] = lambda: "off"


@frozen
class StatusTaker:
    """
    Takes the status of a service.

    :ivar service: the service.
    :ivar process: the process it runs in.
    """

    service: GateService
    process: Process

    @property
    def _runner(self) -> EpochRunner:
        return self.service.runner

    @property
    def _connections(self) -> Connections:
        return self.service.runner.connections

    def state(self) -> ServiceState:
        """:returns: what the metrics need to know of the service now."""
        runner, audit = self._runner, self.service.observers.audit
        now, clock = self._connections.now(), self._connections.clock.seconds()
        return ServiceState(
            names=configured_names(runner.epoch),
            arrivals=self._connections.arrivals,
            tallies=self._connections.tallies,
            connections=self._connections,
            epoch=runner.number,
            epoch_age=clock - runner.since,
            last_reload=self.service.reloader.last,
            expiring=tuple(
                Expiring(kind=one.kind.value, server=one.server, rule=one.rule, at=at)
                for one in runner.epoch.expiries
                if (at := one.next(now)) is not None
            ),
            fetches=self.service.fetcher.states(),
            agents=self.service.agents.states(),
            orders=self.service.orders.states(),
            registries=registries_of(runner),
            is_accepting_paused=runner.is_accepting_paused,
            is_draining=runner.is_draining,
            is_audit_failing=audit.is_failing,
            lost_lines=audit.lost,
            reactor_lag=self.process.lag,
            shadow=_shadow_state(self.service.shadowing.now),
            targets=tuple(
                (name, one)
                for name, backends in all_backends(runner.epoch.servers, runner.epoch.clients)
                for one in target_statuses(backends, now, clock)
            ),
        )

    def take(self, selection: ConnectionSelection = NO_CONNECTIONS) -> Status:
        """
        :param selection: which connections to list.
        :returns: the state of the gate now.
        """
        now = self._connections.now()
        connections, after = self._selected(selection)
        return Status(
            at=now,
            service=self._status(now),
            connections=connections,
            next=after,
            rejections=tuple(self.service.observers.recent),
        )

    def _selected(
        self, selection: ConnectionSelection
    ) -> tuple[tuple[ConnectionStatus, ...], int | None]:
        if not selection.limit:
            return (), None
        clock = self._connections.clock.seconds()
        found = (
            one
            for one in self._connections
            if one.arrival.number > selection.after and selection.server in (None, one.server)
        )
        chosen = list(islice(found, selection.limit))
        is_last = next(found, None) is None
        return (
            tuple(_connection(one, clock) for one in chosen),
            None if is_last else chosen[-1].arrival.number,
        )

    def _status(self, now: datetime) -> ServiceStatus:
        runner, process = self._runner, self.process
        recent, shadow = self.service.observers.recent, self.service.shadowing.now
        clock = self._connections.clock.seconds()
        last = self.service.reloader.last
        why = self.service.not_ready
        tallies = self._connections.tallies
        gates = GateStatuses(runner.epoch, runner.addresses(), tallies, now, clock)
        return ServiceStatus(
            version=process.version,
            # Not earlier: a daemon changes its number.
            pid=os.getpid(),
            started=process.started,
            uptime=clock - process.began,
            config=printable(process.config),
            sandbox=printable(process.sandbox()),
            epoch=runner.number,
            epoch_age=clock - runner.since,
            ready=why is None,
            not_ready=why,
            draining=runner.is_draining,
            admitted=sum(tally.counts["admitted"] for tally in tallies.values()),
            handshakes=sum(tally.counts["handshakes"] for tally in tallies.values()),
            rejected=recent.count,
            servers=gates.servers(),
            clients=gates.clients(),
            fetches=self.service.fetcher.states(),
            agents=self.service.agents.states(),
            orders=self.service.orders.states(),
            registries=registries_of(runner),
            warnings=tuple(map(str, runner.epoch.warnings)),
            last_reload=None if last is None else reload_status(last),
            shadow=None if shadow is None else shadow_status(shadow),
        )


def _shadow_state(now: InShadow | None) -> ShadowState:
    if now is None:
        return ShadowState()
    is_judging = now.judge is not None
    return ShadowState(is_judging=is_judging, is_broken=not is_judging, counts=now.tally.counts)


def reload_status(reload: Reload) -> ReloadStatus:
    """:returns: the result of a reload."""
    return ReloadStatus(
        at=reload.at,
        succeeded=not reload.problems,
        is_trial=reload.is_trial,
        epoch=reload.number,
        seconds=reload.seconds,
        problems=tuple(map(printable, reload.problems)),
        changes=tuple(map(printable, reload.changes)),
        dropped=tuple(map(printable, reload.dropped)),
    )


def registries_of(runner: EpochRunner) -> tuple[RegistryStatus, ...]:
    """:returns: how each registry is."""
    return () if runner.registries is None else runner.registries.states()


def _connection(connection: LiveConnection, clock: float) -> ConnectionStatus:
    arrival, admission = connection.arrival, connection.admission
    peer = None if admission is None else admission.peer
    pin = None if admission is None else admission.pin
    leaf = None if admission is None else admission.leaf
    destination = None if admission is None else admission.destination
    negotiated = None if admission is None else admission.negotiated
    received, sent = connection.traffic
    quiet_since = connection.quiet_since
    state = "handshake" if admission is None else "admitted"
    return ConnectionStatus(
        number=arrival.number,
        state=state if connection.closing is None else "closing",
        server=printable(connection.server),
        rule=None if peer is None else printable(peer.rule),
        pin=_printable(None if pin is None else pin.name),
        address=printable(address_text(arrival.address)),
        target=None if destination is None else printable(destination.target),
        uid=None if destination is None else destination.uid,
        subject=None if leaf is None else subject_of(leaf),
        sha256=None if leaf is None else leaf.sha256.hex(),
        not_after=None if leaf is None else leaf.not_after,
        since=arrival.at,
        seconds=clock - arrival.began,
        received=received,
        sent=sent,
        idle=None if quiet_since is None else clock - quiet_since,
        server_name=_printable(None if negotiated is None else negotiated.server_name),
        tls_version=None if negotiated is None else negotiated.tls_version,
        cipher=None if negotiated is None else negotiated.cipher,
        resumed=negotiated is not None and negotiated.resumed,
    )


def _printable(text: str | None) -> str | None:
    return None if text is None else printable(text)
