"""A configuration in the shadow judges every client, too, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.run.shadow import PAUSE
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.gate import VERSIONS, Log
from tests.kits.service import EVE, ROOT, RULE, MemoryService, server, today

BOB = ROOT.issue("bob")
OTHER = Authority.create("Next")
CAROL = OTHER.issue("carol")
NAMED = 'settings {\n  shadow = "next.hcl"\n}\n'
#: Bob is out.
WITHOUT_BOB = 'deny { common_names = ["bob"] }\n' + RULE


def next_one(running: MemoryService, text: str) -> str:
    """Write the next configuration."""
    running.site.write("other.crt", OTHER.pem)
    running.site.write("next.hcl", text)
    return "next.hcl"


def put(running: MemoryService, text: str) -> ShadowAttempt:
    """Put a configuration in the shadow, as ctl does."""
    found: list[ShadowAttempt] = []
    running.shadow.put(next_one(running, text)).addCallback(found.append)
    [attempt] = found
    running.reactor.advance(PAUSE)
    return attempt


def report(running: MemoryService) -> ShadowReport:
    """:returns: what the shadow has found out."""
    found: list[ShadowReport | None] = []
    running.shadow.report().addCallback(found.append)
    running.reactor.pump([0.0] * 20)
    [told] = found
    assert told is not None
    return told


def counts(running: MemoryService) -> dict[tuple[str, str, str], int]:
    """:returns: how many verdicts there were, by outcome, rule and reason."""
    running.reactor.advance(PAUSE)
    return {(one.outcome, one.rule, one.reason): one.count for one in report(running).counts}


def try_in(running: MemoryService, who: Credential | None, version: Version, **more: Any) -> Client:
    """:returns: a client that has tried to talk."""
    client = running.connect(who, min_version=version, max_version=version, **more)
    client.send(b"knock")
    return client


def ca(name: str) -> str:
    """:returns: a rule on a CA."""
    return f'client_certificate "{name}" {{ ca_certificate_file = "{name}.crt" }}'


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (server(), ("same", "rule", "")),
        (server(tls=WITHOUT_BOB), ("would_be_out", "rule", "denied")),
        (server(tls=ca("other")), ("would_be_out", "rule", "unknown_ca")),
        (server(tls=ca("ca")), ("other_rule", "rule", "")),
        (server(tls='client_authentication = "none"'), ("other_rule", "rule", "")),
        (server("elsewhere"), ("would_be_out", "rule", "server_removed")),
        (
            server("elsewhere").replace("unix:elsewhere.sock", "unix:door.sock"),
            ("other_server", "rule", ""),
        ),
    ],
)
def test_a_client_that_is_in(
    tmp_path: Path, log: Log, then: str, expected: tuple[str, str, str], version: Version
) -> None:
    """The report says what would become of it: it stays, by another rule, or is out."""
    running = today(tmp_path, server())
    assert put(running, then).succeeded
    client = try_in(running, BOB, version)
    assert client.receive() == b"knock"
    assert counts(running) == {expected: 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("who", "then", "expected"),
    [
        (CAROL, server(tls=ca("other")), ("would_be_in", "other", "unknown_ca")),
        (CAROL, server(), ("same", "", "")),
        (EVE, server(tls=ca("other")), ("same", "", "")),
        (None, server(), ("same", "", "")),
        (None, server(tls='client_authentication = "none"'), ("would_be_in", "", "no_certificate")),
        (EVE, server(tls='client_authentication = "none"'), ("would_be_in", "", "unknown_ca")),
    ],
)
def test_a_client_that_is_out(
    tmp_path: Path,
    log: Log,
    who: Credential | None,
    then: str,
    expected: tuple[str, str, str],
    version: Version,
) -> None:
    """Who is rejected now is judged, too: it might come in."""
    running = today(tmp_path, server())
    assert put(running, then).succeeded
    client = try_in(running, who, version)
    assert client.receive() == b""
    assert counts(running) == {expected: 1}


def test_denied_now_and_not_then(tmp_path: Path, log: Log) -> None:
    """A client whose path OpenSSL has verified, and a rule has rejected."""
    running = today(tmp_path, server(tls=WITHOUT_BOB))
    put(running, server())
    running.handshake(BOB)
    assert counts(running) == {("would_be_in", "rule", "denied"): 1}
