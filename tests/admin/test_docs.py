"""
docs/admin.md describes every route and every field of every answer.
"""

from __future__ import annotations

import re

import attrs
import pytest

from mtlsgate.admin.routes import ALL_ROUTES
from mtlsgate.observe import (
    connection_status,
    registry_status,
    server_status,
    shadow_status,
    status,
)
from mtlsgate.observe.status_value import StatusValue
from tests.kits.docs import DOCS

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")


def sections() -> dict[str, str]:
    """:returns: what stands under each heading, of whatever level."""
    parts = re.split(r"^#+ (.*)$", (DOCS / "admin.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(
    ("heading", "facts"),
    [
        ("Status", status.ServiceStatus),
        ("A worker", status.WorkerStatus),
        ("A registry", registry_status.RegistryStatus),
        ("A server", server_status.ServerStatus),
        ("A target", server_status.TargetStatus),
        ("A client gate", server_status.ClientGateStatus),
        ("A rule", server_status.RuleStatus),
        ("A certificate", server_status.CertificateStatus),
        ("A deadline", server_status.DeadlineStatus),
        ("Limits", server_status.LimitStatus),
        ("Connections", connection_status.ConnectionStatus),
        ("Rejections", connection_status.RejectionStatus),
        ("A leaf", connection_status.PresentedLeaf),
        ("History", server_status.HistoryStatus),
        ("History of a server", server_status.ServerHistory),
        ("Periods", server_status.PeriodStatus),
        ("Reload", status.ReloadStatus),
        ("A shadow", shadow_status.ShadowStatus),
        ("Shadow", shadow_status.ShadowReport),
        ("A count", shadow_status.OutcomeCount),
        ("A client in the shadow", shadow_status.ShadowClient),
        ("A use", shadow_status.RuleUse),
        ("An attempt", shadow_status.ShadowAttempt),
    ],
)
def test_every_field_is_described(heading: str, facts: type[StatusValue]) -> None:
    """Each field, under its heading; and no others, in a table."""
    text = sections()[heading]
    names = {one.name for one in attrs.fields(facts)}
    assert {name for name in names if f"`{name}`" in text} == names
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) in (set(), names)


def test_every_route_is_described() -> None:
    """All that there are, with their methods."""
    text = sections()["Routes"]
    routes = re.findall(r"^\| `(\w+ /[^`]*)` \|", text, re.MULTILINE)
    assert routes == [
        "GET /",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /status",
        "GET /connections",
        "GET /rejections",
        "GET /rejections/ID/explain",
        "GET /history",
        "GET /periods",
        "GET /changes",
        "POST /explain",
        "GET /shadow",
        "POST /shadow/put",
        "POST /shadow/end",
        "POST /reload",
        "POST /drain",
        "POST /connections/NUMBER/close",
        "POST /clients/SHA256/eject",
    ]
    assert tuple(route.partition(" ")[2] for route in routes) == ALL_ROUTES
