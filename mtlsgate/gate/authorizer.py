"""
The authorizer: user code that has the last word on clients that the rules admit.

It can only restrict, never grant.  Any answer other than True rejects the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.gate.coroutines import NeedsAsyncio, later
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.reasons import Reason
from mtlsgate.text import printable

_log = Logger("mtlsgate.authorization")


@frozen
class Authorizer:
    """
    The code to ask.

    :ivar name: its name in the configuration.
    :ivar ask: takes an `IVerifiedPeer`; returns True or False, or a Deferred,
        coroutine or asyncio future with one of them.
    :ivar timeout: how many seconds an answer may take.
    """

    name: str
    ask: Callable[[IVerifiedPeer], object]
    timeout: float

    def objection(
        self, peer: IVerifiedPeer, clock: IReactorTime
    ) -> Rejection | Deferred[Rejection | None] | None:
        """
        :returns: why the client is rejected, or None; or a Deferred with one of
            them, which never fails.  Cancel it if the client leaves.
        """
        end = clock.seconds() + self.timeout
        try:
            answer = self.ask(peer)
            deferred = later(answer)
        except Exception:  # noqa: BLE001 -- it is not ours; it costs this client alone
            return self._failed(Failure())
        if deferred is not None:
            return self._in_time(deferred, clock, end)
        # A blocking authorizer also blocks timers, so check the time here.
        return self._too_late() if clock.seconds() > end else self._judged(answer)

    def _in_time(
        self, answer: Deferred[object], clock: IReactorTime, end: float
    ) -> Deferred[Rejection | None]:
        """
        :param end: after this time an answer is too late.
        :returns: the result, from the answer or because there was none in time.
            When time is up or the client leaves, the result is final.  The
            authorizer is cancelled, but it may ignore that and answer later.
        """
        heard: Deferred[Rejection | None] = Deferred(lambda _: give_up(self._unheard()))

        def give_up(rejection: Rejection) -> None:
            conclude(rejection)
            try:
                answer.cancel()
            except Exception:  # noqa: BLE001 -- it is not ours, and is not waited for any more
                _log.failure("{name} failed when it was cancelled", name=self.name)

        def conclude(objection: Rejection | None) -> None:
            if limit.active():
                limit.cancel()
            if not heard.called:
                heard.callback(objection)

        def judge(objection: Rejection | None) -> None:
            # The timer may fire late, after the answer.
            conclude(self._too_late() if clock.seconds() > end else objection)

        limit = clock.callLater(max(0.0, end - clock.seconds()), lambda: give_up(self._too_late()))
        answer.addCallbacks(self._judged, self._failed).addCallback(judge)
        return heard

    def _too_late(self) -> Rejection:
        return Rejection(
            Reason.AUTHORIZER_FAILED, f"{self.name} did not answer within {self.timeout:g} s", 0
        )

    def _unheard(self) -> Rejection:
        return Rejection(Reason.AUTHORIZER_FAILED, f"{self.name} was not heard to the end", 0)

    def _judged(self, answer: object) -> Rejection | None:
        if answer is True:
            return None
        if answer is False:
            return Rejection(Reason.NOT_AUTHORIZED, f"{self.name} says no", 0)
        return Rejection(
            Reason.AUTHORIZER_FAILED,
            f"{self.name} answered with a {type(answer).__name__}, not with True or False",
            0,
        )

    def _failed(self, failure: Failure) -> Rejection:
        if failure.check(CancelledError, asyncio.CancelledError):
            return self._unheard()
        _log.failure("{name} failed", failure=failure, name=self.name)
        why = printable(type(failure.value).__name__)
        if isinstance(failure.value, NeedsAsyncio):
            why = str(failure.value)
        return Rejection(Reason.AUTHORIZER_FAILED, f"{self.name} failed: {why}", 0)
