"""
What ``mtlsgate ctl shadow`` prints.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from mtlsgate.ctl import shadow
from mtlsgate.observe.shadow_status import ShadowReport
from mtlsgate.run.shadow import PAUSE
from mtlsgate.testing import Authority
from tests.kits.gate import Log
from tests.kits.service import ALICE, EVE, ROOT, RULE, MemoryService, server, today

BOB = ROOT.issue("bob")
WITHOUT_BOB = 'deny { common_names = ["bob"] }\n' + RULE
HOSTILE = "[bold]x[/bold] :smile: \x1b[31m\u202e"


def shown(what: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=1000, markup=False, highlight=False, emoji=False).print(what)
    return output.getvalue()


def put(running: MemoryService, text: str) -> str:
    """:returns: what is printed when a configuration is put in the shadow."""
    running.site.write("next.hcl", text)
    found: list[Any] = []
    running.shadow.put("next.hcl").addCallback(found.append)
    running.reactor.advance(PAUSE)
    return shown(shadow.put(found[0].to_dict()))


def facts(running: MemoryService) -> dict[str, Any]:
    running.reactor.advance(PAUSE)
    found: list[ShadowReport | None] = []
    running.shadow.report().addCallback(found.append)
    running.reactor.pump([0.0] * 20)
    assert found[0] is not None
    told: dict[str, Any] = found[0].to_dict()
    return told


def test_a_report_is_what_a_person_needs(tmp_path: Path, log: Log) -> None:
    """Who, by which rule, why, how often, and what else would happen."""
    running = today(tmp_path, server())
    running.enter(BOB)
    running.enter(ALICE)
    put(running, server(tls=WITHOUT_BOB, more='authorize = "none:such"'))
    running.enter(BOB)
    text = shown(shadow.report(facts(running)))
    assert "1 handshake and 2 connected clients judged, of 2 different clients" in text
    assert "server door: another deny" in text
    assert "a reload would close 2 connections" in text
    assert "Who would be out: 2 verdicts" in text
    [row] = [line for line in text.splitlines() if "CN=bob" in line]
    assert row.split()[:7] == ["CN=bob", "127.0.0.1:50000", "door", "rule", "rule", "denied", "2"]
    assert "server door: authorize none:such is not asked" in text
    assert "nobody would notice" not in text
    short = shown(shadow.status(facts(running)))
    assert "would be out: 2; would be in: 0; not judged: 0 (ctl shadow report)" in short


def test_a_report_counts_by_rule_and_reason(tmp_path: Path, log: Log) -> None:
    """A list of clients alone would not tell what most of them have in common."""
    running = today(tmp_path, server())
    short = RULE.replace("\n    }", '\n      allow { common_names = ["alice"] }\n    }')
    put(running, server(tls=f'deny {{ common_names = ["bob"] }}\n{short}'))
    for who in (BOB, ROOT.issue("carl"), ROOT.issue("dora"), ALICE):
        running.enter(who)
    lines = shown(shadow.report(facts(running))).splitlines()
    place = next(n for n, one in enumerate(lines) if one.startswith("Who would be out: 3 verdicts"))
    assert [one.rstrip() for one in lines[place + 1 : place + 3]] == [
        "  2 of server door: now rule rule, then not_allowed",
        "  1 of server door: now rule rule, then denied",
    ]


def test_a_report_without_news(tmp_path: Path, log: Log) -> None:
    """It says that nobody would notice, and which rules nobody has used."""
    running = today(tmp_path, server())
    second = RULE.replace('"rule"', '"second"')
    assert "is in the shadow: it judges every client from now on" in put(
        running, server(tls=f"{RULE}\n{second}")
    )
    running.enter(BOB)
    running.handshake(EVE)
    text = shown(shadow.report(facts(running)))
    assert "nobody would notice so far" in text
    assert "Nobody has used so far:\n  server door, rule second" in text


def test_the_same_configuration_is_said_to_be_the_same(tmp_path: Path, log: Log) -> None:
    """As after it was put in place."""
    running = today(tmp_path, server())
    assert "it changes nothing for clients" in put(running, server())
    text = shown(shadow.report(facts(running)))
    assert "no difference from the configuration in force" in text


def test_nothing_is_there() -> None:
    """... and that is said in words."""
    for what in (shadow.status(None), shadow.report(None), shadow.ended({"ended": False})):
        assert shown(what) == "nothing is in the shadow\n"
    assert shown(shadow.ended({"ended": True})) == "nothing is in the shadow any more\n"


def test_a_broken_one_says_why(tmp_path: Path, log: Log) -> None:
    """Also in the report."""
    (tmp_path / "next.hcl").write_text("server {")
    running = today(tmp_path, 'settings { shadow = "next.hcl" }\n' + server())
    for what in (shadow.status, shadow.report):
        text = shown(what(facts(running)))
        assert "next.hcl, named by settings, judges nobody:\n  " in text
        assert "next.hcl:1:8: syntax: " in text


def test_a_long_list_is_cut(tmp_path: Path, log: Log) -> None:
    """And says how many verdicts are not shown."""
    running = today(tmp_path, server())
    put(running, server(tls='client_authentication = "none"'))
    authority = Authority.create()
    for number in range(25):
        running.handshake(authority.issue(f"stranger {number}"))
    told = facts(running)
    text = shown(shadow.report(told))
    assert text.count("CN=stranger") == 20
    assert "and 5 verdicts on others, or earlier ones" in text
    assert shown(shadow.report(told, wide=True)).count("CN=stranger") == 25


@pytest.mark.parametrize("what", [shadow.report, shadow.status])
def test_names_are_neither_markup_nor_commands(what: Any, tmp_path: Path, log: Log) -> None:
    """What a certificate or a file says is shown as it stands there, and no more."""
    running = today(tmp_path, server())
    put(running, server(tls=WITHOUT_BOB))
    running.enter(BOB)
    told = facts(running)
    told["status"]["file"] = told["clients"][0]["subject"] = HOSTILE
    told["changes"] = told["not_counted"] = [HOSTILE]
    told["uses"] = [{"server": HOSTILE, "rule": HOSTILE, "count": 0}]
    for name in ("address", "server", "rule", "reason_then", "server_then"):
        told["clients"][0][name] = HOSTILE
    text = shown(what(told))
    assert "[bold]x[/bold] :smile: \\x1b[31m\\u202e" in text
    assert all(line.isprintable() for line in text.splitlines())
