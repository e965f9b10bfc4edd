"""Fixtures for tests of registries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.redis import Server, key, server

# Its assertions are tests.
pytest.register_assert_rewrite("tests.kits.store_contract")


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    """A Redis of the module's own."""
    with server() as running:
        yield running


@pytest.fixture
def pump(alone: Server) -> None:
    """Nothing but the pump is in that Redis, and it has no users of its own."""
    alone.do("FLUSHALL")
    alone.do("ACL DELUSER", "gate", "clerk")
    alone.do("HSET", key("pump"), "state", "active")
