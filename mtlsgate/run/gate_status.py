"""
The status of the gates of an epoch: their rules, certificates, deadlines and targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import attrs
from attrs import field, frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.limits import Tally
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import Expiry, Kind
from mtlsgate.load.overview import describe_rule
from mtlsgate.load.readiness import backends_of
from mtlsgate.load.servers import LoadedServer
from mtlsgate.load.timeline import Period, periods_of, periods_of_client
from mtlsgate.observe.leaf_names import subject_of
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
from mtlsgate.text import printable
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.rotation import Member


@frozen
class GateStatuses:
    """
    Makes the status of the gates of an epoch, at one moment.

    :ivar epoch: the epoch.
    :ivar addresses: where its gates listen, by the `id` of each.
    :ivar tallies: what is counted of live connections, by gate.
    :ivar now: the time that certificates are judged by, aware.
    :ivar clock: the same moment in the clock's seconds.
    """

    epoch: Epoch
    addresses: Mapping[int, Sequence[str]]
    tallies: Mapping[str, Tally]
    now: datetime
    clock: float
    _expiries: Mapping[tuple[Kind, str, str | None], Expiry] = field(init=False)

    @_expiries.default
    def _by_place(self) -> Mapping[tuple[Kind, str, str | None], Expiry]:
        return {(one.kind, one.server, one.rule): one for one in self.epoch.expiries}

    def servers(self) -> tuple[ServerStatus, ...]:
        """:returns: the status of each server."""
        return tuple(map(self._server, self.epoch.servers))

    def clients(self) -> tuple[ClientGateStatus, ...]:
        """:returns: the status of each client gate."""
        return tuple(map(self._client, self.epoch.clients))

    def _server(self, server: LoadedServer) -> ServerStatus:
        model, gate, policy = server.model, server.gate, server.gate.context.policy
        tally = self.tallies.get(gate.name, Tally())
        limits = attrs.asdict(gate.terms.limits)
        return ServerStatus(
            name=printable(gate.name),
            protocol=printable(model.protocol.name),
            hosts=tuple(printable(host.text) for host in server.hosts),
            listening=tuple(map(printable, self.addresses.get(id(server), ()))),
            server_names=tuple(printable(name.value) for name in model.server_names),
            client_authentication=model.tls.client_authentication,
            rules=tuple(
                RuleStatus(
                    name=printable(rule.name),
                    description=describe_rule(rule),
                    authorities=tuple(_certificate(one, self.now) for one in rule.authorities),
                    pins=len(rule.pins),
                    pins_days_left=self._days_left(Kind.PIN, gate.name, rule.name),
                    crl_days_left=self._days_left(Kind.CRL, gate.name, rule.name),
                )
                for rule in (policy.admission.rules if policy.admission else ())
            ),
            certificates=tuple(_certificate(one.chain[0], self.now) for one in policy.credentials),
            deadlines=_deadlines(self._expiries.values(), gate.name, self.now),
            admitted=tally.counts["admitted"],
            handshakes=tally.counts["handshakes"],
            limits=LimitStatus(
                **limits,
                handshake_timeout=gate.handshake_timeout,
                idle_timeout=gate.terms.idle_timeout,
            ),
            targets=target_statuses(backends_of(server), self.now, self.clock),
        )

    def _client(self, client: LoadedClient) -> ClientGateStatus:
        gate = client.gate
        tally = self.tallies.get(gate.name, Tally())
        tls, limits = gate.tls, gate.terms.limits
        own = () if tls.credential is None else tls.credential.chain[:1]
        return ClientGateStatus(
            name=printable(gate.name),
            hosts=tuple(printable(host.text) for host in client.hosts),
            listening=tuple(map(printable, self.addresses.get(id(client), ()))),
            targets=target_statuses(gate.backends, self.now, self.clock),
            certificates=tuple(_certificate(one, self.now) for one in own),
            authorities=tuple(_certificate(one, self.now) for one in tls.anchors or ()),
            pins=len(tls.pins),
            deadlines=_deadlines(self._expiries.values(), gate.name, self.now),
            connected=tally.counts["admitted"],
            dialling=tally.counts["handshakes"],
            max_connections=limits.max_connections,
            max_handshakes=limits.max_handshakes,
            idle_timeout=gate.terms.idle_timeout,
        )

    def _days_left(self, kind: Kind, server: str, rule: str) -> int | None:
        expiry = self._expiries.get((kind, server, rule))
        at = None if expiry is None else expiry.next(self.now)
        return None if at is None else (at - self.now).days


def target_statuses(
    backends: Backends | None, now: datetime, clock: float
) -> tuple[TargetStatus, ...]:
    """
    :param now: the moment, aware.
    :param clock: the same in the clock's seconds.
    :returns: the status of each target.
    """
    members = () if backends is None else backends.rotation.members
    return tuple(_target(one, now, clock) for one in members)


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
            rule=None if one.rule is None else printable(one.rule),
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
