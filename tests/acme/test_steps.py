"""One step for one certificate: who takes it, and what is known afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtlsgate.acme.schedule import ASK_EVERY, REFUSED, SHORTEST, Progress
from mtlsgate.acme.steps import OrderFailed, Outcome, is_time, life_of, take_step
from mtlsgate.acme.storage import Storage
from mtlsgate.acme.wanted import WantedCertificate
from tests.kits.acme import MemoryCa

BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Here:
    """A storage, a CA, and the time."""

    def __init__(self, directory: Path) -> None:
        self.now = BEGIN
        self.ca = MemoryCa(lambda: self.now)
        self.wanted = WantedCertificate(
            directory="https://ca.example/dir",
            names=("gate.example",),
            storage=Storage(directory / "acme"),
        )
        self.begun = 0

    def step(self, known: Progress | None = None, *, is_hasty: bool = False) -> Outcome:
        def begins() -> None:
            self.begun += 1

        outcome, self.progress = take_step(
            self.wanted,
            Progress() if known is None else known,
            self.ca,
            lambda: self.now,
            lambda: 0.5,
            is_hasty=is_hasty,
            begins=begins,
        )
        return outcome

    @property
    def kept(self) -> Progress:
        return self.wanted.storage.progress(self.wanted.file_name)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_life_of_a_certificate(here: Here) -> None:
    """Ordered, asked about, renewed: each at its time and no other."""
    assert here.step() is Outcome.ORDERED
    here.now += SHORTEST
    assert here.step() is Outcome.ASKED
    assert here.step() is Outcome.NONE
    here.now += ASK_EVERY
    assert here.step() is Outcome.ASKED
    here.now = BEGIN + 60 * DAY - timedelta(seconds=1)
    here.step()
    assert len(here.ca.ordered) == here.begun == 1
    first = here.wanted.storage.certificate(here.wanted.file_name)
    here.now += timedelta(seconds=1)
    assert here.step() is Outcome.ORDERED
    assert here.wanted.storage.certificate(here.wanted.file_name) != first
    life = life_of(here.wanted)
    assert life is not None
    assert life.begins == here.now
    assert here.begun == 2


def test_who_has_locked_the_storage_orders_and_nobody_else(here: Here) -> None:
    during: list[Outcome] = []
    here.ca.during = lambda: during.append(here.step())
    assert here.step() is Outcome.ORDERED
    assert during == [Outcome.NONE]
    # Another process looks again, under the lock, before it does the same.
    assert here.step(Progress()) is not Outcome.ORDERED
    assert len(here.ca.ordered) == 1


def test_failures_outlive_the_process(here: Here) -> None:
    here.ca.refusal = OrderFailed("rateLimited: too many", asked=7 * DAY)
    assert here.step() is Outcome.FAILED
    assert here.kept.problem == "rateLimited: too many"
    assert here.kept.failures == 1
    here.now += 6 * DAY
    assert here.step(Progress(), is_hasty=True) is Outcome.NONE
    here.now += DAY
    assert here.step(Progress()) is Outcome.FAILED
    assert here.kept.failures == 2


def test_an_operator_who_waits_is_served_earlier(here: Here) -> None:
    here.ca.refusal = OrderFailed("no")
    for _ in range(6):
        here.step()
        here.now = here.progress.due(None, here.now)
    here.step()
    here.now += timedelta(minutes=20)
    assert here.step() is Outcome.NONE
    assert here.step(is_hasty=True) is Outcome.FAILED


def test_a_storage_that_cannot_be_written_asks_no_ca(here: Here) -> None:
    """A certificate that cannot be kept would be ordered again and again."""
    here.wanted.storage.directory.write_text("a file")
    assert here.step() is Outcome.FAILED
    assert here.ca.ordered == []
    assert "the storage fails" in (here.progress.problem or "")
    waits = here.progress.due(None, here.now)
    assert waits > here.now
    # The process knows it though nobody could write it down.
    assert here.step(here.progress) is Outcome.FAILED
    assert here.progress.failures == 2


def test_what_could_not_be_written_is_known_all_the_same(here: Here) -> None:
    here.ca.refusal = OrderFailed("no")
    here.step()
    known = here.progress
    here.wanted.storage.put_progress(here.wanted.file_name, Progress())
    assert here.step(known) is Outcome.NONE
    assert here.progress == known


@pytest.mark.parametrize("text", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_certificate_is_ordered_again(here: Here, text: bytes) -> None:
    here.wanted.storage.put_certificate(here.wanted.file_name, text)
    assert here.step() is Outcome.ORDERED


def test_an_expired_one_is_ordered_again_and_the_ca_is_not_asked_about_it(here: Here) -> None:
    """RFC 9773, 4.3: clients must not ask about a certificate that has expired."""
    here.step()
    here.now += 91 * DAY
    assert is_time(here.kept, life_of(here.wanted), here.now)
    assert here.step() is Outcome.ORDERED
    assert here.ca.asked == 0


def test_the_delay_is_of_the_kind_of_failure(here: Here) -> None:
    here.ca.refusal = OrderFailed("no", first=timedelta(seconds=7))
    here.step()
    assert here.progress.wait == here.now + timedelta(seconds=7)
    assert timedelta(seconds=7) < REFUSED
