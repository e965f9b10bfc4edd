"""What the drills share: a development setup whose gate echoes, and a client of it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.kits.drills import Site
from tests.kits.fleet import RunningFleet
from tests.kits.probe import write_demo


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A drill with a fleet that fails shows how each of its programs is; one that is not tried
    any more does not."""
    report = yield
    fleet = getattr(item, "funcargs", {}).get("shared")
    is_tried = call.excinfo is None or not call.excinfo.errisinstance(pytest.fail.Exception)
    if report.failed and is_tried and isinstance(fleet, RunningFleet):
        report.sections.append(("the fleet", fleet.diagnosis()))
    return report


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """What ``mtlsgate init`` writes, with an echo, on a port of the system's choice."""
    made = Site(write_demo(tmp_path))
    made.change('protocol "whoami" {}', 'protocol "echo" {}')
    return made
