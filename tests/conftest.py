"""Fixtures for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from mtlsgate.testing import Version
from tests.kits.aio import Loop, running
from tests.kits.gate import VERSIONS, Log, logging
from tests.kits.http import HttpGate, HttpLog, observe, stop_observing
from tests.kits.pki import Site, site

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    """The TLS version that clients speak: a test that asks for it runs on each."""
    chosen: Version = request.param
    return chosen


@pytest.fixture
def log() -> Iterator[Log]:
    """What the gate logs.  At the end no failure may be unaccounted for."""
    with logging() as captured:
        yield captured


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An asyncio event loop, and gates in it."""
    with running() as found:
        yield found


@pytest.fixture
def http(log: Log) -> Iterator[HttpGate]:
    """An HTTP gate that is to be configured."""
    captured = HttpLog()
    observe(captured)
    yield HttpGate(log, captured)
    stop_observing(captured)


def pytest_xdist_auto_num_workers() -> int:
    """Have one more process than there are processors: tests wait for programs, for a part of
    their time."""
    return len(os.sched_getaffinity(0)) + 1


#: The configuration with which coverage measures what is run.
_MEASURING = pytest.StashKey[str | None]()


def pytest_configure(config: pytest.Config) -> None:
    """Measure the tests, and of the programs that they start those alone that somebody wants
    `measured`: it takes as long as all else that a program does before it listens."""
    is_process_of_a_run = hasattr(config, "workerinput")
    config.stash[_MEASURING] = (
        os.environ.pop("COVERAGE_PROCESS_START", None) if is_process_of_a_run else None
    )


@pytest.fixture
def measured(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what only the real program runs: measure the programs that they start."""
    if (found := pytestconfig.stash[_MEASURING]) is not None:
        monkeypatch.setenv("COVERAGE_PROCESS_START", found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that no process of a run has one of them left
    when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by what is the same in each run, which a digest is not: so the
    processes of a run agree on which tests there are."""
    is_digest = isinstance(val, str) and len(val) >= _DIGEST and " " not in val
    return argname if is_digest or isinstance(val, bytes) else None


#: Characters of a SHA-256 in base64.
_DIGEST = 43


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A place for configurations and the modules beside them, which are
    forgotten afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    yield site(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]
