"""
The comparison with the gate's peers, but for the measuring: what is run, and
what becomes of the figures.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from mtlsgate.commands.init import write_setup
from mtlsgate.load.loading import load
from tests.kits.programs import program

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="installed without benchmarks")


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark, which is a script with modules beside it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("peers")
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture
def place(peers: ModuleType, tmp_path: Path) -> Any:
    """Where servers run, with what they need there."""
    write_setup(tmp_path, days=365, hosts=(), clients=("client",), now=datetime.now(UTC))
    (tmp_path / "files").mkdir()
    parts = [(tmp_path / f"server.{part}").read_bytes() for part in ("key", "crt")]
    (tmp_path / "server.pem").write_bytes(b"".join(parts))
    port, backend = (sys.modules["peers_servers"].free_port() for _ in range(2))
    return peers.Place(tmp_path, port, backend)


def planned(peers: ModuleType, place: Any, name: str) -> Any:
    plan = peers.plan(name, place)
    for file, text in plan.files.items():
        (place.directory / file).write_text(text)
    return plan


def measured(peers: ModuleType, **speeds: list[float]) -> Any:
    """A comparison in which servers were that fast, turn by turn, on half a core."""
    report = sys.modules["peers_report"]
    floor = report.Floor("gate", ("nginx", "HAProxy", "Hitch"), 0.5)
    comparison = report.Comparison("echo", "echoes", "echo", 1, tuple(speeds), (floor,))
    turns = {name: [report.Turn(speed, 2.0, 1.0) for speed in its] for name, its in speeds.items()}
    return report.Measured(comparison, turns)


# What is run


@pytest.mark.parametrize("name", ["gate", "web, WSGI", "web, files", "http"])
@pytest.mark.parametrize("logged", [False, True])
def test_the_gates_configurations_load(
    peers: ModuleType, place: Any, name: str, logged: bool
) -> None:
    place = peers.Place(place.directory, place.port, place.backend, logged)
    planned(peers, place, name)
    (config,) = place.directory.glob("*-[0-9]*.hcl")
    epoch = load(str(config))
    assert epoch.warnings == ()
    assert len(epoch.servers) == 1


@pytest.mark.parametrize(
    ("name", "needs", "options"),
    [("HAProxy", "haproxy", ["-c"]), ("nginx, http", "nginx", ["-t"])],
)
def test_the_peers_take_their_configurations(
    peers: ModuleType, place: Any, name: str, needs: str, options: list[str]
) -> None:
    program(needs)
    command, *rest = planned(peers, place, name).command
    done = subprocess.run(
        [command, *options, *rest], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_servers_listen_on_loopback_alone_and_demand_certificates(
    peers: ModuleType, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["peers_plans"], "installed", lambda name: name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    demand = re.compile(
        "ssl_verify_client on|verify required|verifyChain = yes|client-verify = required"
        "|--ssl-cert-reqs=2|--verify-mode=CERT_REQUIRED"
    )
    for name in (
        *peers.PEERS,
        *(one for one in peers.WEBS if one not in sys.modules["peers_plans"].GATES),
    ):
        plan = peers.plan(name, place)
        text = "\n".join([*plan.files.values(), *plan.command])
        assert demand.search(text), name
        assert "127.0.0.1" in text
        assert not re.search(r"0\.0\.0\.0|\*:|\[::\]", text)


def test_what_is_not_installed_is_left_out(
    peers: ModuleType, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["peers_plans"], "installed", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    there = [
        name
        for name in dict.fromkeys((*peers.PROXIES, *peers.WEBS))
        if peers.plan(name, place) is not None
    ]
    assert there == ["gate", "web, WSGI", "web, files", "http"]


def test_floors_are_of_servers_that_are_compared(peers: ModuleType) -> None:
    for one in peers.COMPARISONS:
        for floor in one.floors:
            assert {floor.mine, *floor.against} <= set(one.servers)


# What becomes of the figures


def test_a_ratio_is_that_of_neighbouring_turns(peers: ModuleType) -> None:
    """A machine that was slower for a while was so for both."""
    one = measured(peers, gate=[50.0, 5.0, 60.0], nginx=[100.0, 10.0, 100.0])
    found = peers.ratios([one])
    assert "| 0.50 (0.50 to 0.55) | 0.50 (0.50 to 0.55) " in found
    assert one.speed("gate") == 50.0
    assert one.pace("nginx") == 35.0


def test_speed_is_by_the_servers_own_time(peers: ModuleType) -> None:
    """And what was done by the clock is said beside it."""
    report = sys.modules["peers_report"]
    quick, busy = report.Turn(100.0, 1.0, 0.25), report.Turn(100.0, 2.0, 0.5)
    assert report.ratio([quick] * 2, [busy] * 2).median == 2.0
    busier = report.Turn(100.0, 4.0, 0.25)
    assert report.ratio([quick] * 2, [busier] * 2).median == 1.0
    assert report.ratio([quick] * 2, [busier] * 2, report.by_the_clock).median == 4.0


def test_a_floor_is_about_the_best_of_those_that_are_there(peers: ModuleType) -> None:
    one = measured(peers, gate=[50.0] * 3, nginx=[80.0] * 3, HAProxy=[110.0] * 3)
    (verdict,) = peers.judge(one)
    assert (verdict.against, verdict.missed, str(verdict)) == ("HAProxy", True, "missed")
    (verdict,) = peers.judge(measured(peers, gate=[50.0] * 3, nginx=[100.0] * 3))
    assert (verdict.against, verdict.missed, str(verdict)) == ("nginx", False, "reached")
    (verdict,) = peers.judge(measured(peers, gate=[50.0] * 3))
    assert (verdict.against, verdict.missed, str(verdict)) == (None, False, "not measured")


def test_tables_are_markdown(peers: ModuleType) -> None:
    one = measured(peers, gate=[1234.0] * 2, nginx=[9.876] * 2)
    for table in (peers.speeds([one]), peers.ratios([one]), peers.floors([one])):
        head, line, *rows = table.splitlines()
        assert rows
        assert {row.count("|") for row in (head, line, *rows)} == {head.count("|")}
        assert set(line) == {"|", "-"}
    assert "| 1,234; 617 " in peers.speeds([one])
    assert "| 9.88; 4.94 " in peers.speeds([one])


def test_the_plot_says_in_words_what_it_shows(peers: ModuleType) -> None:
    """And its bars are as long as their figures are large."""
    one = measured(peers, gate=[50.0] * 2, nginx=[100.0] * 2)
    panels = peers.panels([one], {"gate": 30.0, "nginx": 45.0})
    root = ElementTree.fromstring(peers.svg("a < b", "and so on", panels))
    assert root.get("role") == "img"
    described = {child.get("id"): child.text for child in root if child.get("id")}
    assert root.get("aria-labelledby", "").split() == list(described) == ["title", "desc"]
    assert described["title"] == "a < b"
    assert "echoes: gate 50.0, nginx 100" in str(described["desc"])
    assert "KB per idle connection: gate 30.0, nginx 45.0" in str(described["desc"])
    style = root.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    texts = [one.text for one in root.iter(f"{SVG}text")]
    for word in ("gate", "nginx", "50.0", "100", "30.0", "45.0", "echoes"):
        assert word in texts
    paper, *bars = root.iter(f"{SVG}rect")
    assert (paper.get("class"), paper.get("width")) == ("paper", root.get("width"))
    widths = [float(bar.get("width", "")) for bar in bars]
    assert widths[0] / widths[1] == pytest.approx(0.5, abs=0.01)
    assert widths[2] / widths[3] == pytest.approx(2 / 3, abs=0.01)
    for bar in bars:
        assert float(bar.get("x", "")) + float(bar.get("width", "")) < float(root.get("width", ""))


@pytest.mark.parametrize("name", ["http", "web, files"])
def test_the_gates_of_the_comparison_of_http_2_load(
    peers: ModuleType, place: Any, name: str
) -> None:
    """They offer HTTP/2, and ask for no certificate, which h2load does not have."""
    http2 = importlib.import_module("http2")
    words = {"directory": place.directory, "port": place.port, "backend": place.backend}
    command = http2.command(name, words)
    config = Path(command[-1].removeprefix("--config="))
    (server,) = load(str(config)).servers
    assert server.gate.context.admission is None
    assert server.gate.context.policy.alpn == (b"h2", b"http/1.1")
