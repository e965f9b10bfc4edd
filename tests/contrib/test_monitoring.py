"""
The alerts and the dashboard ask for metrics, labels and reasons that there are.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from mtlsgate.reasons import Reason
from tests.kits.contrib import CONTRIB
from tests.kits.docs import DOCS

pytestmark = pytest.mark.skipif(not CONTRIB.is_dir(), reason="installed without contrib")

#: What Prometheus adds to every series, and what a histogram's parts have.
ADDED = {"instance", "job", "le"}


def described() -> dict[str, set[str]]:
    """:returns: each metric with its labels, as docs/metrics.md has them; a test holds that
    page and the gate together."""
    text = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(mtlsgate_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        for suffix in suffixes.get(kind, ("",)):
            found[name + suffix] = set(re.findall(r"`(\w+)`", labels)) | ADDED
    return found


def alerts() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((CONTRIB / "prometheus" / "mtlsgate.rules.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONTRIB / "grafana" / "mtlsgate.json").read_text())
    return found


EXPRESSIONS = [rule["expr"] for rule in alerts()] + [
    target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    """Metrics, labels and reasons."""
    known = described()
    names = re.findall(r"\bmtlsgate_\w+", expression)
    assert names or "process_" in expression
    for name in names:
        assert name in known
    for name, matchers in re.findall(r"\b(mtlsgate_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[!=]=?~?\"", matchers)) <= known[name]
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        for label in labels.split(","):
            assert all(label.strip() in known[name] for name in names)
    for reason in re.findall(r'reason(?:=|!=|=~|!~)"([^"]*)"', expression):
        assert set(reason.split("|")) <= {*Reason}
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def test_an_alert_says_what_is_wrong() -> None:
    """In one sentence, with names that its expression has labels for."""
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 12
    for rule in alerts():
        summary = rule["annotations"]["summary"]
        assert summary.endswith(".")
        known = set.union(*(labels for name, labels in described().items() if name in rule["expr"]))
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= known


def test_the_page_has_every_alert() -> None:
    """How-to, Monitoring: each alert, no other, and what to do."""
    text = (DOCS / "how-to" / "monitoring.md").read_text()
    found = re.findall(r"^\| `(Mtlsgate\w+)` \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    assert sorted(found) == sorted(rule["alert"] for rule in alerts())


def test_the_dashboard_is_whole() -> None:
    """Panels of different ids that do not overlap, and variables that the panels use."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    variables = {one["name"] for one in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\}?", " ".join(EXPRESSIONS)))
    assert {name for name in used if name != "labels"} <= variables
