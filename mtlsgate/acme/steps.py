"""
The next step for one wanted certificate, if it is time for one.

Several processes may share a storage: the one that has locked it takes the step, after it
has looked again whether another has taken it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from attrs import frozen

from mtlsgate.acme.schedule import REFUSED, UNREACHABLE, Life, Progress
from mtlsgate.acme.storage import parse_kept
from mtlsgate.acme.wanted import WantedCertificate
from mtlsgate.errors import CredentialError, GateError
from mtlsgate.text import printable


class OrderFailed(GateError):
    """
    There is no certificate.  The text says why, in one line.

    :ivar first: the delay after a first failure of this kind.
    :ivar asked: how long the CA asks to wait, or None.
    """

    def __init__(
        self, text: str, first: timedelta = REFUSED, asked: timedelta | None = None
    ) -> None:
        super().__init__(text)
        self.first = first
        self.asked = asked


@frozen
class Suggestion:
    """
    When a CA wants a certificate to be renewed (RFC 9773).

    :ivar at: when, aware; None if it does not say.
    :ivar again: after which time to ask again.
    """

    at: datetime | None
    again: timedelta


class Orders(Protocol):
    """Talks to CAs; blocks.  `mtlsgate.acme.ordering` does."""

    def order(self, wanted: WantedCertificate) -> None:
        """
        Get a certificate with a new key, and keep it.

        :raises OrderFailed: if there is none.
        """

    def suggestion(self, wanted: WantedCertificate, certificate: bytes) -> Suggestion:
        """
        :param certificate: the certificate that there is, in PEM.
        :returns: when the CA wants it to be renewed.  What fails counts as no answer.
        """


class Outcome(Enum):
    """What a step was."""

    #: It was not time, or another process is at it.
    NONE = "none"
    ORDERED = "ordered"
    FAILED = "failed"
    ASKED = "asked"


def is_time(progress: Progress, life: Life | None, now: datetime) -> bool:
    """:returns: whether there is something to do: to order, or to ask the CA when."""
    if progress.due(life, now) <= now:
        return True
    return life is not None and life.counts(now) and progress.may_ask(now)


def life_of(wanted: WantedCertificate) -> Life | None:
    """
    :returns: when the certificate in the storage is valid; None if it has none that can be
        used.
    :raises CredentialError: if it cannot be read.
    """
    data = wanted.storage.certificate(wanted.file_name)
    if data is None:
        return None
    try:
        leaf = parse_kept(data).chain[0]
    except CredentialError:
        return None
    return Life(leaf.not_before, leaf.not_after)


def latest(one: Progress, another: Progress) -> Progress:
    """:returns: the progress with the later attempt; the first if that is the same."""
    if one.tried is None or (another.tried is not None and another.tried > one.tried):
        return another
    return one


def take_step(
    wanted: WantedCertificate,
    known: Progress,
    orders: Orders,
    now: Callable[[], datetime],
    random: Callable[[], float],
    *,
    is_hasty: bool = False,
    begins: Callable[[], object] = lambda: None,
) -> tuple[Outcome, Progress]:
    """
    Order the certificate if it is due, or ask the CA when it will be.  Blocks.

    :param known: what this process knows of its orders.
    :param now: tells the time, aware.
    :param random: tells a number from 0 to 1.
    :param is_hasty: whether an operator waits, see `Progress.hastened`.
    :param begins: is told before something is ordered.
    :returns: what was done, and what is known afterwards.
    """
    storage, name = wanted.storage, wanted.file_name
    try:
        with storage.locked() as is_locked:
            if not is_locked:
                return Outcome.NONE, known
            # If it could not be written, this process knows more than the file.
            progress = latest(storage.progress(name), known)
            plan = progress.hastened() if is_hasty else progress
            life = life_of(wanted)
            if plan.due(life, now()) <= now():
                # If this cannot be kept, nor can a certificate.
                storage.put_progress(name, progress)
                begins()
                outcome, progress = _order(wanted, progress, orders, now, random)
            elif is_time(plan, life, now()):
                found = orders.suggestion(wanted, storage.certificate(name) or b"")
                outcome, progress = (
                    Outcome.ASKED,
                    progress.asked(found.at, found.again, now()),
                )
            else:
                return Outcome.NONE, progress
            storage.put_progress(name, progress)
            return outcome, progress
    except (OSError, CredentialError) as error:
        text = getattr(error, "strerror", None) or str(error)
        problem = OrderFailed(f"the storage fails: {printable(text)}", UNREACHABLE)
        return Outcome.FAILED, _failed(known, problem, now, random)


def _order(
    wanted: WantedCertificate,
    progress: Progress,
    orders: Orders,
    now: Callable[[], datetime],
    random: Callable[[], float],
) -> tuple[Outcome, Progress]:
    try:
        orders.order(wanted)
    except OrderFailed as failed:
        return Outcome.FAILED, _failed(progress, failed, now, random)
    return Outcome.ORDERED, progress.succeeded(now())


def _failed(
    progress: Progress,
    failed: OrderFailed,
    now: Callable[[], datetime],
    random: Callable[[], float],
) -> Progress:
    return progress.failed(
        str(failed), now(), first=failed.first, asked=failed.asked, random=random()
    )
