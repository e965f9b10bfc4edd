"""
Servers that share an address, one of them by a wildcard: which hosts the
connections of each are for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.gate import Log
from tests.kits.pki import pki
from tests.kits.service import MemoryService, a_server
from tests.kits.web import parse

HTTP = 'protocol "http" {\n target = "127.0.0.1:1"\n retry_after = "1s"\n}'


@pytest.mark.parametrize("shared", [True, False])
def test_a_wildcard_is_not_for_another_servers_names(
    tmp_path: Path, log: Log, shared: bool
) -> None:
    """SNI would not have led there, so that Host cannot either; unless the other server
    is at another address."""
    wild = a_server("wild", rest='server_names = ["*.example"]')
    exact = a_server("exact", rest='server_names = ["B.example", "c.other"]')
    if shared:
        exact = exact.replace("unix:exact.sock", "unix:wild.sock")
    text = (wild + exact).replace('protocol "echo" {}', HTTP)
    running = MemoryService(tmp_path, text)
    factory = running.service.runner.epoch.servers[0].gate.application
    serves = factory.serves  # type: ignore[attr-defined]
    assert serves("b.example") is not shared
    assert serves("x.example")
    assert not serves("c.other")
    client = running.connect(pki().client, "wild", server_name="a.example")
    client.handshake()
    if shared:
        client.send(b"GET / HTTP/1.1\r\nHost: b.example:8443\r\n\r\n")
        (answer,) = parse(client.receive())
        assert answer.status == 421
    client.close()
