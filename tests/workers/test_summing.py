"""
Workers' answers are made one: what is counted of client gates.
"""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from mtlsgate.observe.status import NO_CONNECTIONS, Status
from mtlsgate.workers.summing import sum_status, without_connections
from tests.kits.service import MemoryService

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
