"""
The public names have types that a user's mypy sees, without a plugin of mypy's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kits.programs import run

pytestmark = pytest.mark.slow

USE = """
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.server import Request, Site
from typing import assert_type

from mtlsgate import (
    Allow,
    ConfigError,
    Deny,
    Gate,
    Pin,
    Registry,
    Rule,
    VerifiedPeer,
    verified_peer,
)


def use(certificate: x509.Certificate, request: Request, until: datetime, site: Site) -> None:
    rules = [
        Rule(
            "fleet",
            ca=["ca.crt", certificate, b"-----BEGIN"],
            allow=[Allow(spiffe_ids=["spiffe://a/b"])],
            deny=(Deny(sha256=("ab",)),),
            crl="ca.crl",
            max_depth=1,
            registry=Registry("redis://127.0.0.1", on_outage="last_known", max_staleness="1m"),
        ),
        Rule("laptop", leaf=Path("laptop.crt"), pin=[Pin("b", certificate, retire_after=until)]),
    ]
    try:
        gate = Gate(
            certificate=("server.crt", "server.key"),
            rules=rules,
            idle_timeout=timedelta(minutes=5),
            revoke_grace="0s",
            authorize=lambda peer: True,
        )
    except ConfigError as error:
        print(error.problems[0].text)
        return
    gate.reload(rules=rules[:1], max_connections=5)
    gate.endpoint(reactor, "tcp:8443").listen(Factory.forProtocol(Protocol))
    gate.endpoint(reactor, "tcp:8443").listen(site).addCallback(lambda port: port.getHost())
    assert_type(Gate.from_config("gate.hcl", server="devices"), Gate)
    peer = verified_peer(request)
    assert_type(peer, VerifiedPeer | None)
    if peer is not None:
        assert_type(peer.rule, str)
        assert_type(peer.dns_names, tuple[str, ...])


"""
WRONG = {
    'Rule("a", cas="x")': "call-arg",
    'Rule("a", max_depth="1")': "arg-type",
    'Allow(dns_names=["a"], spiffe=["b"])': "call-arg",
    'Gate(certificate="server.crt")': "arg-type",
    'Gate(certificate=("a", "b"), max_conections=1)': "call-arg",
    'Gate(certificate=("a", "b"), max_connections="1")': "arg-type",
    "verified_peer()": "call-arg",
}


def test_a_users_mypy_sees_them(tmp_path: Path) -> None:
    """Right use has no error under --strict; each mistake has the one expected."""
    lines = USE + "".join(f"{text}\n" for text in WRONG)
    (tmp_path / "use.py").write_text(lines)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nshow_error_codes = true\n")
    _, said = run(sys.executable, "-m", "mypy", "use.py", cwd=tmp_path)
    first = lines.count("\n") - len(WRONG) + 1
    found = [line for line in said.splitlines() if ": error: " in line]
    expected = [
        (f"use.py:{first + number}: error: ", f"[{code}]")
        for number, code in enumerate(WRONG.values())
    ]
    assert len(found) == len(expected), said
    for line, (begin, end) in zip(found, expected, strict=True):
        assert line.startswith(begin), said
        assert line.endswith(end), said
