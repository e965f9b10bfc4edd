"""
Makes one answer of those of all workers.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from attrs import evolve
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mtlsgate.observe.connection_status import ConnectionSelection
from mtlsgate.observe.recent_rejections import KEPT
from mtlsgate.observe.registry_status import sum_registries
from mtlsgate.observe.server_status import (
    ClientGateStatus,
    HistoryStatus,
    ServerHistory,
    ServerStatus,
    TargetStatus,
)
from mtlsgate.observe.status import AgentStatus, ServiceStatus, Status
from mtlsgate.workers.shadow_summing import sum_shadows

#: Gauges that count something, so that the sum of all workers' is meant.
_SUMMED = frozenset(
    {
        "mtlsgate_live_connections",
        "mtlsgate_handshakes_in_progress",
        "mtlsgate_target_connections",
        "mtlsgate_registry_remembered",
    }
)
#: What is counted from the start on.
_COUNTED = ("counter", "histogram", "summary")
#: Of each process by itself.
_OF_PROCESS = "process_"

#: Samples by their names and labels.
Counted = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families_of(text: str) -> list[Metric]:
    """:returns: the metrics of one process."""
    return list(text_string_to_metric_families(text))


def counters_of(families: Iterable[Metric]) -> Counted:
    """:returns: what must not be lost when the process ends: its counters and histograms."""
    return {
        _key(sample): sample.value
        for family in families
        if family.type in _COUNTED and not family.name.startswith(_OF_PROCESS)
        for sample in family.samples
    }


def added(one: Counted, other: Counted) -> Counted:
    """:returns: the sums."""
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in one.keys() | other.keys()}


def sum_metrics(
    by_worker: Mapping[str, Sequence[Metric]], gone: Counted, own: Sequence[Metric]
) -> list[Metric]:
    """
    :param by_worker: the metrics of each worker, by its number.
    :param gone: the counters of processes that have ended.
    :param own: the supervisor's, which count instead of the workers' of the same names.
    :returns: the metrics of the whole: counters and histograms are added, and so are
        gauges of connections; of other gauges the greatest counts.  The metrics of
        processes have a label ``worker``.
    """
    instead = {family.name for family in own}
    merged: dict[str, tuple[Metric, Counted]] = {}
    for number, families in by_worker.items():
        for family in families:
            if family.name in instead and not family.name.startswith(_OF_PROCESS):
                continue
            _, samples = merged.setdefault(family.name, (family, {}))
            _merge(family, number, samples)
    servers = {dict(key[1]).get("server") for _, samples in merged.values() for key in samples}
    for key, value in gone.items():
        name, labels = key
        kept = merged.get(_family_name(name))
        # A server that a reload has removed is forgotten by the workers, too.
        if kept is not None and dict(labels).get("server") in servers:
            kept[1][key] = kept[1].get(key, 0.0) + value
    found = [_filled(family, samples) for family, samples in merged.values()]
    for family in own:
        if family.name.startswith(_OF_PROCESS):
            labelled: Counted = {}
            _merge(family, "supervisor", labelled)
            of_workers = merged.get(family.name)
            if of_workers is None:
                found.append(_filled(family, labelled))
            else:
                found.remove(next(one for one in found if one.name == family.name))
                found.append(_filled(family, of_workers[1] | labelled))
        else:
            found.append(family)
    return found


def _merge(family: Metric, number: str, samples: Counted) -> None:
    for sample in family.samples:
        if family.name.startswith(_OF_PROCESS):
            samples[sample.name, (*_key(sample)[1], ("worker", number))] = sample.value
            continue
        key = _key(sample)
        is_sum = family.type in _COUNTED or family.name in _SUMMED
        before = samples.get(key)
        if before is None:
            samples[key] = sample.value
        else:
            samples[key] = before + sample.value if is_sum else max(before, sample.value)


def _filled(family: Metric, samples: Counted) -> Metric:
    made = Metric(family.name, family.documentation, family.type)
    made.samples = [Sample(name, dict(labels), value) for (name, labels), value in samples.items()]
    return made


def _key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    return sample.name, tuple(sample.labels.items())


def _family_name(sample: str) -> str:
    """:returns: the family of a counter's or histogram's sample."""
    for ending in ("_total", "_bucket", "_count", "_sum", "_created"):
        if sample.endswith(ending):
            return sample.removesuffix(ending)
    return sample


def sum_status(found: Sequence[Status], selection: ConnectionSelection) -> Status:
    """
    :param found: the status of each worker, at least one; each with that selection.
    :returns: the status of all of them: of the first, but with the sums of what is
        counted, the connections of all in the order of their numbers, and the latest
        rejections of all.
    """
    first = found[0]
    connections = sorted(
        (one for status in found for one in status.connections), key=lambda one: one.number
    )[: selection.limit]
    is_more = any(status.next is not None for status in found) or (
        sum(len(status.connections) for status in found) > len(connections)
    )
    rejections = sorted(
        (one for status in found for one in status.rejections),
        key=lambda one: one.at,
        reverse=True,
    )
    return evolve(
        first,
        service=_sum_service([status.service for status in found]),
        connections=tuple(connections),
        next=connections[-1].number if is_more and connections else None,
        rejections=tuple(rejections[:KEPT]),
    )


def _sum_service(found: Sequence[ServiceStatus]) -> ServiceStatus:
    servers = [server for service in found for server in service.servers]
    clients = [client for service in found for client in service.clients]
    by_name: dict[str, tuple[int, int]] = {}
    for service in found:
        for server in service.servers:
            admitted, handshakes = by_name.get(server.name, (0, 0))
            by_name[server.name] = admitted + server.admitted, handshakes + server.handshakes
    return evolve(
        found[0],
        shadow=sum_shadows([one.shadow for one in found if one.shadow is not None]),
        admitted=sum(one.admitted for one in found),
        handshakes=sum(one.handshakes for one in found),
        rejected=sum(one.rejected for one in found),
        agents=_sum_agents(found),
        registries=sum_registries(one.registries for one in found),
        servers=tuple(
            evolve(
                server,
                admitted=by_name[server.name][0],
                handshakes=by_name[server.name][1],
                targets=_sum_targets(server.targets, _targets_of(server.name, servers)),
            )
            for server in found[0].servers
        ),
        clients=tuple(
            evolve(
                client,
                connected=sum(one.connected for one in clients if one.name == client.name),
                dialling=sum(one.dialling for one in clients if one.name == client.name),
                targets=_sum_targets(client.targets, _targets_of(client.name, clients)),
            )
            for client in found[0].clients
        ),
    )


def _sum_agents(found: Sequence[ServiceStatus]) -> tuple[AgentStatus, ...]:
    """:returns: the streams of each worker in one: one that is down for any of them is down."""
    by_stream: dict[tuple[str, str], list[AgentStatus]] = {}
    for service in found:
        for agent in service.agents:
            by_stream.setdefault((agent.agent, agent.stream), []).append(agent)
    return tuple(
        evolve(
            next((one for one in agents if not one.is_up), agents[0]),
            updates=sum(one.updates for one in agents),
        )
        for agents in by_stream.values()
    )


def _targets_of(
    name: str, found: Iterable[ServerStatus | ClientGateStatus]
) -> Mapping[str, list[TargetStatus]]:
    """:returns: what each worker knows of the targets of a server, by their addresses."""
    by_address: dict[str, list[TargetStatus]] = {}
    for one in found:
        if one.name == name:
            for target in one.targets:
                by_address.setdefault(target.address, []).append(target)
    return by_address


def _sum_targets(
    targets: Iterable[TargetStatus], found: Mapping[str, list[TargetStatus]]
) -> tuple[TargetStatus, ...]:
    return tuple(sum_target(found[one.address]) for one in targets)


def sum_target(found: Sequence[TargetStatus]) -> TargetStatus:
    """
    :param found: what each worker knows of a target.
    :returns: the same in one: it is up if a worker that tried it found it up.
    """
    known = [one for one in found if one.is_known] or found
    up = any(one.up for one in known)
    down_since = [one.down_since for one in found if one.down_since is not None]
    return evolve(
        found[0],
        up=up,
        is_known=any(one.is_known for one in found),
        down_since=None if up else min(down_since, default=None),
        last_error=next((one.last_error for one in found if one.last_error is not None), None),
        last_dial=next((one.last_dial for one in found if one.last_dial is not None), None),
        dials=sum(one.dials for one in found),
        seconds_dialling=sum(one.seconds_dialling for one in found),
        failures=sum(one.failures for one in found),
        in_use=sum(one.in_use for one in found),
    )


def sum_history(at: datetime, found: Sequence[HistoryStatus]) -> HistoryStatus:
    """:returns: the last hour of all workers."""
    by_name: dict[str, list[ServerHistory]] = {}
    for history in found:
        for server in history.servers:
            by_name.setdefault(server.name, []).append(server)
    return HistoryStatus(
        at=at,
        servers=tuple(
            ServerHistory(
                name=name,
                admitted=tuple(map(sum, zip(*(one.admitted for one in servers), strict=True))),
                rejected=tuple(map(sum, zip(*(one.rejected for one in servers), strict=True))),
            )
            for name, servers in sorted(by_name.items())
        ),
    )


def without_connections(service: ServiceStatus) -> ServiceStatus:
    """:returns: the same of a gate to which nobody is connected."""
    return evolve(
        service,
        admitted=0,
        handshakes=0,
        servers=tuple(evolve(one, admitted=0, handshakes=0) for one in service.servers),
        clients=tuple(evolve(one, connected=0, dialling=0) for one in service.clients),
    )
