"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtlsgate.testing import Version
from tests.gatekit import VERSIONS, Log, logging


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
