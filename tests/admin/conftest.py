"""A running gate, and its admin endpoint, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.admin import Endpoint, Running, running_handle
from tests.kits.gate import Log


@pytest.fixture
def running(tmp_path: Path, log: Log) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def endpoint(running: Running) -> Endpoint:
    """On a unix socket."""
    return Endpoint(running_handle(running), clock=running.clock)
