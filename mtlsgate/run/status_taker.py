"""
Takes the status of the service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

import attrs
from attrs import field, frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import LiveConnection, Reload
from mtlsgate.gate.limits import Tally
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import Expiry, Kind
from mtlsgate.load.overview import describe_rule
from mtlsgate.load.readiness import all_backends, backends_of
from mtlsgate.load.servers import LoadedServer
from mtlsgate.load.timeline import Period, periods_of, periods_of_client
from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection, ConnectionStatus
from mtlsgate.observe.counts import Durations
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.observe.metrics import Expiring, ServiceState
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.observe.server_status import (
    CertificateStatus,
    ClientGateStatus,
    DeadlineStatus,
    LimitStatus,
    PeriodStatus,
    RuleStatus,
    ServerStatus,
    TargetStatus,
)
from mtlsgate.observe.shadow_metrics import ShadowState
from mtlsgate.observe.status import ReloadStatus, ServiceStatus, Status
from mtlsgate.peer import address_text
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.names import configured_names
from mtlsgate.run.service import GateService
from mtlsgate.run.shadow import InShadow
from mtlsgate.run.shadow_report import shadow_status
from mtlsgate.text import printable
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.rotation import Member


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
        now = self._connections.now()
        return ServiceState(
            names=configured_names(runner.epoch),
            arrivals=self._connections.arrivals,
            tallies=self._connections.tallies,
            connections=self._connections,
            epoch=runner.number,
            epoch_age=self._connections.clock.seconds() - runner.since,
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
                for one in self._targets(backends, now)
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
        addresses = runner.addresses()
        expiries = {(one.kind, one.server, one.rule): one for one in runner.epoch.expiries}
        tallies = self._connections.tallies.values()
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
            admitted=sum(tally.counts["admitted"] for tally in tallies),
            handshakes=sum(tally.counts["handshakes"] for tally in tallies),
            rejected=recent.count,
            servers=tuple(
                self._server(server, now, addresses, expiries) for server in runner.epoch.servers
            ),
            clients=tuple(
                self._client(client, now, addresses, expiries) for client in runner.epoch.clients
            ),
            fetches=self.service.fetcher.states(),
            agents=self.service.agents.states(),
            orders=self.service.orders.states(),
            registries=registries_of(runner),
            warnings=tuple(map(str, runner.epoch.warnings)),
            last_reload=None if last is None else reload_status(last),
            shadow=None if shadow is None else shadow_status(shadow),
        )

    def _server(
        self,
        server: LoadedServer,
        now: datetime,
        addresses: Mapping[int, Sequence[str]],
        expiries: Mapping[tuple[Kind, str, str | None], Expiry],
    ) -> ServerStatus:
        model, gate, policy = server.model, server.gate, server.gate.context.policy
        tally = self._connections.tallies.get(gate.name, Tally())
        limits = attrs.asdict(gate.terms.limits)
        return ServerStatus(
            name=printable(gate.name),
            protocol=printable(model.protocol.name),
            hosts=tuple(printable(host.text) for host in server.hosts),
            listening=tuple(map(printable, addresses.get(id(server), ()))),
            server_names=tuple(printable(name.value) for name in model.server_names),
            client_authentication=model.tls.client_authentication,
            rules=tuple(
                RuleStatus(
                    name=printable(rule.name),
                    description=describe_rule(rule),
                    authorities=tuple(_certificate(one, now) for one in rule.authorities),
                    pins=len(rule.pins),
                    pins_days_left=_days_left(expiries.get((Kind.PIN, gate.name, rule.name)), now),
                    crl_days_left=_days_left(expiries.get((Kind.CRL, gate.name, rule.name)), now),
                )
                for rule in (policy.admission.rules if policy.admission else ())
            ),
            certificates=tuple(_certificate(one.chain[0], now) for one in policy.credentials),
            deadlines=_deadlines(expiries.values(), gate.name, now),
            admitted=tally.counts["admitted"],
            handshakes=tally.counts["handshakes"],
            limits=LimitStatus(
                **limits,
                handshake_timeout=gate.handshake_timeout,
                idle_timeout=gate.terms.idle_timeout,
            ),
            targets=self._targets(backends_of(server), now),
        )

    def _targets(self, backends: Backends | None, now: datetime) -> tuple[TargetStatus, ...]:
        clock = self._connections.clock.seconds()
        members = () if backends is None else backends.rotation.members
        return tuple(_target(one, now, clock) for one in members)

    def _client(
        self,
        client: LoadedClient,
        now: datetime,
        addresses: Mapping[int, Sequence[str]],
        expiries: Mapping[tuple[Kind, str, str | None], Expiry],
    ) -> ClientGateStatus:
        gate = client.gate
        tally = self._connections.tallies.get(gate.name, Tally())
        tls, limits = gate.tls, gate.terms.limits
        own = () if tls.credential is None else tls.credential.chain[:1]
        return ClientGateStatus(
            name=printable(gate.name),
            hosts=tuple(printable(host.text) for host in client.hosts),
            listening=tuple(map(printable, addresses.get(id(client), ()))),
            targets=self._targets(gate.backends, now),
            certificates=tuple(_certificate(one, now) for one in own),
            authorities=tuple(_certificate(one, now) for one in tls.anchors or ()),
            pins=len(tls.pins),
            deadlines=_deadlines(expiries.values(), gate.name, now),
            connected=tally.counts["admitted"],
            dialling=tally.counts["handshakes"],
            max_connections=limits.max_connections,
            max_handshakes=limits.max_handshakes,
            idle_timeout=gate.terms.idle_timeout,
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


def _target(member: Member, now: datetime, clock: float) -> TargetStatus:
    state = member.state
    since = state.down_since
    return TargetStatus(
        address=printable(state.target.text),
        up=state.is_up is not False,
        is_known=state.is_up is not None,
        down_since=None if since is None else now - timedelta(seconds=clock - since),
        last_error=state.problem,
        last_dial=state.last_seconds,
        dials=state.dials,
        seconds_dialling=state.seconds_dialling,
        failures=state.failures,
        in_use=state.in_use,
        weight=member.weight,
        backup=member.is_backup,
    )


def registries_of(runner: EpochRunner) -> tuple[RegistryStatus, ...]:
    """:returns: how each registry is."""
    return () if runner.registries is None else runner.registries.states()


def period_statuses(epoch: Epoch, now: datetime) -> tuple[PeriodStatus, ...]:
    """:returns: when what an epoch was configured with counts, by its end."""
    periods = [
        *(
            one
            for server in epoch.servers
            for one in periods_of(server.gate.name, server.gate.context.policy, now)
        ),
        *(one for client in epoch.clients for one in periods_of_client(client)),
    ]
    found = [
        PeriodStatus(
            kind=one.kind.value,
            server=printable(one.server),
            rule=_printable(one.rule),
            name=_name_of(one),
            sha256=None if one.certificate is None else one.certificate.sha256.hex(),
            begins=one.begins,
            ends=one.ends,
        )
        for one in periods
    ]
    return tuple(sorted(found, key=lambda one: (one.ends, one.server, one.rule or "")))


def _name_of(period: Period) -> str:
    if period.name is not None:
        return printable(period.name)
    return (
        printable(period.issuer or "")
        if period.certificate is None
        else subject_of(period.certificate)
    )


def _certificate(certificate: Certificate, now: datetime) -> CertificateStatus:
    return CertificateStatus(
        subject=subject_of(certificate),
        sha256=certificate.sha256.hex(),
        not_after=certificate.not_after,
        days_left=(certificate.not_after - now).days,
    )


def _deadlines(
    expiries: Iterable[Expiry], server: str, now: datetime
) -> tuple[DeadlineStatus, ...]:
    found = [
        DeadlineStatus(
            kind=one.kind.value,
            rule=None if one.rule is None else printable(one.rule),
            at=at,
            days_left=(at - now).days,
            is_due=one.is_due(now),
        )
        for one in expiries
        if one.server == server and (at := one.next(now)) is not None
    ]
    return tuple(sorted(found, key=lambda one: (one.at, one.kind, one.rule or "")))


def _days_left(expiry: Expiry | None, now: datetime) -> int | None:
    at = None if expiry is None else expiry.next(now)
    return None if at is None else (at - now).days


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
