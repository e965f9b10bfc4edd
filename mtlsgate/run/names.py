"""
The names of an epoch's servers, addresses and rules, for the counts.
"""

from __future__ import annotations

from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.counts import ConfiguredNames
from mtlsgate.run.listening import places_of


def configured_names(epoch: Epoch) -> ConfiguredNames:
    """:returns: the names of its servers, shared addresses and rules."""
    policies = [(server.gate.name, server.gate.context.admission) for server in epoch.servers]
    clients = [client.gate.name for client in epoch.clients]
    return ConfiguredNames(
        servers=frozenset([*(name for name, _ in policies), *clients]),
        shared=frozenset(str(place.address) for place in places_of(epoch) if place.is_shared),
        rules=frozenset(
            (name, rule)
            for name, policy in policies
            for rule in ([one.name for one in policy.rules] if policy else [""])
        )
        | frozenset((name, "") for name in clients),
    )
