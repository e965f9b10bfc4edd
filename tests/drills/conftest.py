"""What the drills share: a development setup whose gate echoes, and a client of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.drills import Site
from tests.kits.probe import write_demo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """What ``mtlsgate init`` writes, with an echo, on a port of the system's choice."""
    made = Site(write_demo(tmp_path))
    made.change('protocol "whoami" {}', 'protocol "echo" {}')
    return made
