"""What tests of several workers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.probe import write_demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``mtlsgate init`` writes, on ports of the system's choice."""
    return write_demo(tmp_path_factory.mktemp("demo"))
