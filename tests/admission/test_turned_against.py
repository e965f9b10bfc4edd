"""Who must go although a reload lets it stay: registries have changed their mind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.admission.listings import (
    NOT_HEARD,
    REMOVED,
    Answer,
    Question,
    Unavailable,
    turned_against,
)
from mtlsgate.reasons import Reason

NOW = datetime(2027, 1, 1, tzinfo=UTC)
AWAY = Unavailable("away for more than 300 s")
ACTIVE = Device("device")
DENIED = Device("device", DeviceState.DENIED)
OVER = Device("device", not_after=NOW - timedelta(hours=1))


def after(was: Answer, answer: Answer, for_deny: bool) -> Reason | None:
    question = Question("devices", ("device",), for_deny)
    found = turned_against({question: was}, {question: answer}, NOW)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("was", "answer", "reason"),
    [
        ((ACTIVE,), (ACTIVE,), None),
        ((ACTIVE,), (DENIED,), Reason.REGISTRY_DENIED),
        ((ACTIVE,), (), Reason.NOT_REGISTERED),
        ((ACTIVE,), AWAY, Reason.REGISTRY_UNAVAILABLE),
        ((ACTIVE,), REMOVED, None),
        # It came in while it was listed; when that ends is for its lifetime to say.
        ((OVER,), (OVER,), None),
        ((OVER,), (DENIED,), Reason.REGISTRY_DENIED),
        (NOT_HEARD, (DENIED,), Reason.REGISTRY_DENIED),
        (NOT_HEARD, (), Reason.NOT_REGISTERED),
        (NOT_HEARD, (ACTIVE,), None),
        # Another rule admitted it.
        ((), (DENIED,), None),
        ((DENIED,), (), None),
        (AWAY, (DENIED,), None),
    ],
)
def test_of_a_registry_that_must_list_it(
    was: Answer, answer: Answer, reason: Reason | None
) -> None:
    """Only what was in its favour can turn against it."""
    assert after(was, answer, for_deny=False) is reason


@pytest.mark.parametrize(
    ("was", "answer", "reason"),
    [
        ((), (), None),
        ((), (ACTIVE,), Reason.REGISTRY_DENIED),
        ((), AWAY, Reason.REGISTRY_UNAVAILABLE),
        ((), REMOVED, None),
        (NOT_HEARD, (DENIED,), Reason.REGISTRY_DENIED),
        (NOT_HEARD, (), None),
    ],
)
def test_of_a_registry_that_deny_names(was: Answer, answer: Answer, reason: Reason | None) -> None:
    """Whoever is listed there must go, in whatever state."""
    assert after(was, answer, for_deny=True) is reason
