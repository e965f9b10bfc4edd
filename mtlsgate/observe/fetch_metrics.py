"""
The metrics of what the gate fetches: documents, and what SPIFFE agents deliver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from mtlsgate.observe.metric_families import counter, gauge
from mtlsgate.observe.status import AgentStatus, FetchStatus


def fetch_metrics(fetches: Iterable[FetchStatus]) -> Iterator[Metric]:
    """:returns: the metrics of the documents that are fetched."""
    # URLs may differ in their queries only, which nobody sees: the worst of them counts.
    failures: dict[str, float] = {}
    fetched: dict[str, float] = {}
    until: dict[str, float] = {}
    for one in fetches:
        failures[one.url] = max(one.failures, failures.get(one.url, 0))
        for found, at in ((fetched, one.fetched), (until, one.until)):
            if at is not None:
                found[one.url] = min(at.timestamp(), found.get(one.url, at.timestamp()))
    yield gauge(
        "mtlsgate_fetch_failures",
        "Attempts to fetch a document that have failed since it came last.",
        ("url",),
        failures,
    )
    yield gauge(
        "mtlsgate_fetched_timestamp_seconds",
        "When a document came last, in seconds since 1970; missing before.",
        ("url",),
        fetched,
    )
    yield gauge(
        "mtlsgate_fetched_until_timestamp_seconds",
        "When the document in force ends, in seconds since 1970; missing if there is none.",
        ("url",),
        until,
    )


def agent_metrics(agents: Sequence[AgentStatus]) -> Iterator[Metric]:
    """:returns: the metrics of what SPIFFE agents deliver."""
    yield gauge(
        "mtlsgate_spiffe_stream_down",
        "Whether a SPIFFE agent does not answer this call at the moment.",
        ("agent", "stream"),
        {(one.agent, one.stream): not one.is_up for one in agents},
    )
    yield counter(
        "mtlsgate_spiffe_updates_total",
        "Messages of a SPIFFE agent that took effect.",
        ("agent", "stream"),
        {(one.agent, one.stream): one.updates for one in agents},
    )
