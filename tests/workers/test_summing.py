"""
One answer of those of all workers.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from prometheus_client.core import GaugeMetricFamily

from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection
from mtlsgate.observe.server_status import HistoryStatus, ServerHistory
from mtlsgate.observe.status import Status
from mtlsgate.observe.status_value import value_of
from mtlsgate.workers.summing import (
    added,
    counters_of,
    families_of,
    sum_history,
    sum_metrics,
    sum_status,
    without_connections,
)
from tests.kits.pki import NOW, pki
from tests.kits.service import EVE, MemoryService, a_server

ONE = """\
# HELP mtlsgate_handshakes_total Verdicts.
# TYPE mtlsgate_handshakes_total counter
mtlsgate_handshakes_total{reason="",result="admitted",server="door"} 3.0
# HELP mtlsgate_live_connections Now.
# TYPE mtlsgate_live_connections gauge
mtlsgate_live_connections{server="door"} 2.0
# HELP mtlsgate_accepting_paused Whether.
# TYPE mtlsgate_accepting_paused gauge
mtlsgate_accepting_paused 0.0
# HELP mtlsgate_epoch Number.
# TYPE mtlsgate_epoch gauge
mtlsgate_epoch 7.0
# HELP process_open_fds Open.
# TYPE process_open_fds gauge
process_open_fds 12.0
"""
OTHER = ONE.replace(" 3.0", " 4.0").replace(" 2.0", " 5.0").replace("paused 0.0", "paused 1.0")


def values(texts: dict[str, str], gone: str = "", own: bool = False) -> dict[str, float]:
    """:returns: the samples of the sum, by their names and labels."""
    supervisor = [GaugeMetricFamily("mtlsgate_epoch", "Number.", 8)] if own else []
    families = sum_metrics(
        {number: families_of(text) for number, text in texts.items()},
        counters_of(families_of(gone)),
        supervisor,
    )
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_and_connections_are_added_and_other_gauges_are_not() -> None:
    """What is the same everywhere stays; what is wrong anywhere shows."""
    assert values({"1": ONE, "2": OTHER}) == {
        "mtlsgate_handshakes_total  admitted door": 7.0,
        "mtlsgate_live_connections door": 7.0,
        "mtlsgate_accepting_paused": 1.0,
        "mtlsgate_epoch": 7.0,
        "process_open_fds 1": 12.0,
        "process_open_fds 2": 12.0,
    }


def test_the_supervisors_own_figures_count_instead_of_the_workers() -> None:
    """Reloads are counted once."""
    assert values({"1": ONE}, own=True)["mtlsgate_epoch"] == 8.0


def test_counters_never_fall_when_a_worker_ends() -> None:
    """Prometheus would take that for a restart, and count twice."""
    assert values({"2": OTHER}, gone=ONE)["mtlsgate_handshakes_total  admitted door"] == 7.0
    both = added(counters_of(families_of(ONE)), counters_of(families_of(OTHER)))
    assert list(both.values()) == [7.0]


def test_a_server_that_is_gone_is_forgotten() -> None:
    """Also what workers that have ended counted of it."""
    gone = ONE.replace('"door"', '"removed"')
    assert "mtlsgate_handshakes_total  admitted removed" not in values({"1": ONE}, gone=gone)


def test_one_status_of_two(tmp_path: Path) -> None:
    """Connections in the order of their numbers, a page of them; sums; the latest rejections."""
    service = MemoryService(tmp_path, a_server())
    client = pki().client
    for _ in range(2):
        service.enter(client)
    service.handshake(EVE)
    selection = ConnectionSelection(limit=3)
    first = value_of(Status, service.taker.take(selection).to_dict())
    assert first == service.taker.take(selection)
    second = evolve(
        first,
        connections=tuple(evolve(one, number=one.number + 10) for one in first.connections),
    )
    whole = sum_status([second, first], selection)
    assert [one.number for one in whole.connections] == [1, 2, 11]
    assert whole.next == 11
    assert (whole.service.admitted, whole.service.servers[0].admitted) == (4, 4)
    assert (whole.service.rejected, len(whole.rejections)) == (2, 2)
    assert without_connections(whole.service).servers[0].admitted == 0


def test_one_history_of_two() -> None:
    """Minute by minute."""

    def history(*names: str) -> HistoryStatus:
        servers = [ServerHistory(name=one, admitted=(0, 1), rejected=(2, 0)) for one in names]
        return HistoryStatus(at=NOW, servers=tuple(servers))

    whole = sum_history(NOW, [history("a", "b"), history("b")])
    assert [(one.name, one.admitted, one.rejected) for one in whole.servers] == [
        ("a", (0, 1), (2, 0)),
        ("b", (0, 2), (4, 0)),
    ]


CLIENT = """
client "redis" {
  hosts  = ["unix:c.sock"]
  target = "gate.example:8443"
  tls {
    server_ca_certificate_file = "ca.crt"
    client_certificate_file = "client.crt"
    client_private_key_file = "client.key"
  }
}
"""


def test_connections_of_client_gates_are_summed(tmp_path: Path) -> None:
    """Those of all workers; and none, if no worker runs."""
    whole = MemoryService(tmp_path, CLIENT).taker.take()

    def of_worker(connected: int, dialling: int) -> Status:
        [client] = whole.service.clients
        client = evolve(client, connected=connected, dialling=dialling)
        return evolve(whole, service=evolve(whole.service, clients=(client,)))

    found = sum_status([of_worker(2, 1), of_worker(5, 0)], NO_CONNECTIONS).service
    [client] = found.clients
    assert (client.connected, client.dialling) == (7, 1)
    [client] = without_connections(found).clients
    assert (client.connected, client.dialling) == (0, 0)
