"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtlsgate.testing import Version
from tests.gatekit import VERSIONS, Log, logging
from tests.httpkit import HttpGate, HttpLog, observe, stop_observing


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
def http(log: Log) -> Iterator[HttpGate]:
    """An HTTP gate that is to be configured."""
    captured = HttpLog()
    observe(captured)
    yield HttpGate(log, captured)
    stop_observing(captured)
