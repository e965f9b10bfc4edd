"""
When a certificate is ordered, and what is known of earlier attempts.  Pure.

A certificate is renewed when two thirds of its life are over, or when the CA suggests it
(ARI, RFC 9773).  After failures the delays grow: CAs limit how often one may try, and
Let's Encrypt allows five failed validations of a name an hour.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from attrs import evolve, frozen

#: The delay after the first failure if the CA refused, or could not be reached.  Each
#: further failure doubles it.
REFUSED = timedelta(minutes=5)
UNREACHABLE = timedelta(seconds=30)
#: The longest delay after a failure, if the CA does not ask for a longer one.
LONGEST = timedelta(hours=1)
#: The most that a CA may ask for.
LONGEST_OF_CA = timedelta(days=30)
#: A restart or a reload may try again after this time: the operator may have mended it.
HASTENED = timedelta(minutes=15)
#: The shortest time from a certificate to the next order.
SHORTEST = timedelta(minutes=1)
#: The time between two questions to the CA when to renew, if it says nothing else, and the
#: bounds of what it may say (RFC 9773, 4.3).
ASK_EVERY = timedelta(hours=6)
ASK_AT_LEAST, ASK_AT_MOST = timedelta(minutes=1), timedelta(days=1)


@frozen
class Life:
    """
    When a certificate begins and ends to be valid, aware.
    """

    begins: datetime
    ends: datetime

    def counts(self, now: datetime) -> bool:
        """:returns: whether it is valid now."""
        return self.begins <= now.replace(microsecond=0) <= self.ends

    def renewal(self, suggested: datetime | None = None) -> datetime:
        """
        :param suggested: when the CA wants it to be renewed, or None.
        :returns: when it is renewed.
        """
        length = self.ends - self.begins
        if suggested is None:
            return self.begins + length * 2 / 3
        # Whatever the CA says, a tenth of its life is left for failures.
        return min(suggested, self.ends - length / 10)


@frozen(kw_only=True)
class Progress:
    """
    What is known of one certificate's orders.

    :ivar tried: when the latest attempt ended; None if there was none.
    :ivar failures: how many have failed since the latest success.
    :ivar problem: why the latest failed, in one line, or None.
    :ivar wait: there is no attempt before this instant, or None.
    :ivar ca_wait: likewise, because the CA said so.
    :ivar suggested: when the CA wants the certificate to be renewed, or None.
    :ivar ask: when to ask the CA for that next; None for now.
    """

    tried: datetime | None = None
    failures: int = 0
    problem: str | None = None
    wait: datetime | None = None
    ca_wait: datetime | None = None
    suggested: datetime | None = None
    ask: datetime | None = None

    def due(self, life: Life | None, now: datetime) -> datetime:
        """
        :param life: of the certificate that there is, or None.
        :returns: when the next one is ordered.
        """
        wanted = now if life is None or not life.counts(now) else life.renewal(self.suggested)
        waits = [one for one in (self.wait, self.ca_wait) if one is not None]
        return max([wanted, *waits])

    def may_ask(self, now: datetime) -> bool:
        """:returns: whether to ask the CA when to renew."""
        return self.ask is None or now >= self.ask

    def succeeded(self, now: datetime) -> Progress:
        """:returns: the progress after a certificate has come."""
        return Progress(tried=now, wait=now + SHORTEST)

    def failed(
        self,
        problem: str,
        now: datetime,
        *,
        first: timedelta,
        asked: timedelta | None,
        random: float,
    ) -> Progress:
        """
        :param problem: why, in one line.
        :param first: the delay after a first failure of this kind.
        :param asked: how long the CA asks to wait, or None.
        :param random: from 0 to 1: gates that failed together must not try together.
        :returns: the progress after a failure.
        """
        delay = min(first * 2 ** min(self.failures, 10), max(first, LONGEST))
        spread = 0.9 + 0.2 * random
        return evolve(
            self,
            tried=now,
            failures=self.failures + 1,
            problem=problem,
            wait=now + delay * spread,
            ca_wait=None if asked is None else now + min(asked, LONGEST_OF_CA),
        )

    def asked(self, suggested: datetime | None, again: timedelta, now: datetime) -> Progress:
        """
        :param suggested: when the CA wants it to be renewed; None if it does not say.
        :param again: after which time to ask it again.
        """
        pause = min(max(again, ASK_AT_LEAST), ASK_AT_MOST)
        return evolve(self, suggested=suggested, ask=now + pause)

    def hastened(self) -> Progress:
        """:returns: the progress for an operator who has just restarted the gate or
        changed something.  What the CA asked for stays."""
        if self.tried is None or self.wait is None or self.failures == 0:
            return self
        return evolve(self, wait=min(self.wait, self.tried + HASTENED))
