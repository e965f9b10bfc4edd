"""
Asking a person's own code about a client that the rules admit.

It can keep a client out that the rules let in, and never the other way round.
Whatever it does but answer True keeps the client out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.reasons import Reason
from mtlsgate.text import printable

_log = Logger("mtlsgate.authorization")


@frozen
class Authorizer:
    """
    Who is asked.

    :ivar name: as the configuration names it.
    :ivar ask: from an `IVerifiedPeer` to True or False, or to a Deferred or
        coroutine of that.
    :ivar timeout: seconds that an answer may take.
    """

    name: str
    ask: Callable[[IVerifiedPeer], object]
    timeout: float

    def objection(
        self, peer: IVerifiedPeer, clock: IReactorTime
    ) -> Rejection | Deferred[Rejection | None] | None:
        """
        :returns: why the client may not come in, or None; or a Deferred of
            that, which never fails.  Cancel it if the client is gone.
        """
        end = clock.seconds() + self.timeout
        try:
            answer = self.ask(peer)
            if isinstance(answer, Coroutine):
                answer = ensureDeferred(answer)
        except Exception:  # noqa: BLE001 -- it is not ours; it costs this client alone
            return self._failed(Failure())
        if isinstance(answer, Deferred):
            return self._in_time(answer, clock, end)
        # It kept everybody waiting, so no timer could go off meanwhile.
        return self._too_late() if clock.seconds() > end else self._judged(answer)

    def _in_time(
        self, answer: Deferred[object], clock: IReactorTime, end: float
    ) -> Deferred[Rejection | None]:
        """
        :param end: when the answer comes too late.
        :returns: what is made of the answer, or of none in time.  When time is up,
            or the client gone, that is final: the answer is cancelled then, but
            not every authorizer can be, and a coroutine may just try again.
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
            # The timer may be as late as the answer.
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
        if failure.check(CancelledError):
            return self._unheard()
        _log.failure("{name} failed", failure=failure, name=self.name)
        text = f"{self.name} failed: {printable(type(failure.value).__name__)}"
        return Rejection(Reason.AUTHORIZER_FAILED, text, 0)
