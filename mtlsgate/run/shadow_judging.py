"""
Judges clients by the configuration in the shadow.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Admitted, Path, Rejection
from mtlsgate.admission.listings import Answers, Question
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.registries import NOTHING_GIVEN, Givens, Registries, judged
from mtlsgate.gate.shadow import BY_SOMEBODY_ASKED, NotJudged, Standing
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.servers import LoadedServer
from mtlsgate.reasons import Reason
from mtlsgate.run.rejudging import Handover
from mtlsgate.tls.forecast import Forecast

#: How many verdicts on paths that OpenSSL searched are kept, and for how many seconds.
_MOST_KEPT, _KEPT_FOR = 2000, 300.0
#: Rejections for want of a revocation list, which may be one that is fetched.
_FOR_WANT_OF_LIST = (Reason.CRL_MISSING, Reason.CRL_EXPIRED)

#: A server, a path, and what the client has sent.
_Key = tuple[int, Path, Path | None]


@frozen(kw_only=True)
class Seen:
    """
    A client as the gate has seen it.

    :ivar connection: the number of its connection, or None.
    :ivar listener: the key of the listener that it connected to.
    :ivar server_name: the name that it asked for, or None.
    :ivar tls_version: as ``TLSv1.3``; None if it is not known.
    :ivar address: its address.
    :ivar path: its certificates, the leaf first; empty if it has shown none.
    :ivar flags: with which OpenSSL has verified the path; 0 if it has not.
    :ivar sent: what it has sent; None if that is not known.
    :ivar now: where it stands.
    :ivar is_live: whether it was connected before the shadow began.
    """

    connection: int | None
    listener: str
    server_name: str | None
    tls_version: str | None
    address: IAddress
    path: Path
    flags: int
    sent: Path | None = None
    now: Standing
    is_live: bool = False

    @property
    def leaf(self) -> Certificate | None:
        """Its certificate, or None."""
        return self.path[0] if self.path else None


@frozen
class Unanswered:
    """
    What registries must be asked before there is a verdict.

    :ivar questions: the questions, at least one.
    """

    questions: tuple[Question, ...]


class ShadowJudge:
    """
    Judges clients by one configuration, as a handshake with it would.

    :ivar shadow: the configuration.
    :ivar epoch: what was loaded of it.
    :ivar handover: its servers, by the addresses that they listen on.
    """

    def __init__(
        self, shadow: Shadow, epoch: Epoch, handover: Handover, registries: Registries
    ) -> None:
        """:param registries: the configuration's."""
        self._registries = registries
        self.shadow = shadow
        self.epoch = epoch
        self.handover = handover
        self._forecasts = {id(one.gate): _forecast(one) for one in epoch.servers}
        self._fetching = {id(one.gate) for one in epoch.servers if _fetches_lists(one)}
        self._searched = OrderedDict[_Key, tuple[Admitted | Rejection, datetime]]()

    def at_sight(
        self, seen: Seen, now: datetime, given: Givens = NOTHING_GIVEN
    ) -> Standing | NotJudged | Unanswered | None:
        """
        :param now: the time to judge by, aware.
        :param given: what registries have said of the client.
        :returns: where a client would stand, or why that is not known; None if a path
            must be verified to tell, see `searched`.
        """
        server = self.handover.server_for(seen.listener, seen.server_name)
        if isinstance(server, Rejection):
            return Standing(server="", rejection=server)
        is_by_asked = seen.now.rejection is not None and (
            seen.now.rejection.reason.about in BY_SOMEBODY_ASKED
        )
        if is_by_asked and server.model.authorize is not None:
            return NotJudged.NOT_ASKED
        forecast = self._forecasts[id(server.gate)]
        if forecast is None:
            return Standing(server=server.gate.name)
        rejection = _before_certificate(server, seen)
        if rejection is not None:
            return Standing(server=server.gate.name, rejection=rejection)
        verdict = forecast.at_sight(seen.path, seen.flags, now, seen.sent) or self._kept(
            server, seen, now
        )
        if verdict is None:
            return None
        return self._answered(server, forecast, seen, verdict, now, given)

    def searched(
        self, seen: Seen, now: datetime, given: Givens = NOTHING_GIVEN
    ) -> Standing | NotJudged | Unanswered:
        """As `at_sight`, but verify a path if necessary, which takes as long as a handshake."""
        found = self.at_sight(seen, now, given)
        if found is not None:
            return found
        server = self.handover.server_for(seen.listener, seen.server_name)
        assert isinstance(server, LoadedServer)
        forecast = self._forecasts[id(server.gate)]
        assert forecast is not None
        verdict = forecast.searched(seen.path, now, seen.sent)
        self._searched[id(server.gate), seen.path, seen.sent] = verdict, now
        if len(self._searched) > _MOST_KEPT:
            self._searched.popitem(last=False)
        return self._answered(server, forecast, seen, verdict, now, given)

    def _answered(
        self,
        server: LoadedServer,
        forecast: Forecast,
        seen: Seen,
        verdict: Admitted | Rejection,
        now: datetime,
        given: Givens,
    ) -> Standing | NotJudged | Unanswered:
        """
        :param verdict: the one for which no registry was asked.
        :returns: the one with what they say.
        """
        if isinstance(verdict, Rejection) or not verdict.questions:
            return self._standing(server, verdict)
        unasked = verdict

        def judge(answers: Answers) -> Admitted | Rejection:
            if not answers:
                return unasked
            return (
                forecast.judge.policy.confirmed(unasked, now, answers)
                or forecast.at_sight(seen.path, seen.flags, now, seen.sent, answers)
                or forecast.searched(seen.path, now, seen.sent, answers)
            )

        found = judged(judge, partial(self._registries.answers, given=given))
        if found.open:
            return Unanswered(found.open)
        return self._standing(server, found.verdict)

    def _kept(self, server: LoadedServer, seen: Seen, now: datetime) -> Admitted | Rejection | None:
        key = id(server.gate), seen.path, seen.sent
        found = self._searched.get(key)
        if found is None:
            return None
        verdict, at = found
        age = (now - at).total_seconds()
        if 0 <= age <= _KEPT_FOR:
            if isinstance(verdict, Rejection):
                return verdict
            judge = server.gate.context.judge
            assert judge is not None
            still = judge.still(verdict.path)
            if still is not None:
                return still
        del self._searched[key]
        return None

    def _standing(
        self, server: LoadedServer, verdict: Admitted | Rejection
    ) -> Standing | NotJudged:
        name = server.gate.name
        if isinstance(verdict, Admitted):
            return Standing(server=name, rule=verdict.rule.name)
        if verdict.reason is Reason.REGISTRY_UNAVAILABLE:
            return NotJudged.NOT_ASKED
        if verdict.reason is Reason.BUNDLE_MISSING:
            return NotJudged.NOT_FETCHED
        if verdict.reason in _FOR_WANT_OF_LIST and id(server.gate) in self._fetching:
            return NotJudged.NOT_FETCHED
        return Standing(server=name, rejection=verdict)


def _before_certificate(server: LoadedServer, seen: Seen) -> Rejection | None:
    policy = server.gate.context.policy
    if policy.min_version == "1.3" and seen.tls_version == "TLSv1.2":
        return Rejection(Reason.UNSUPPORTED_TLS, "it speaks TLS 1.2, where TLS 1.3 is demanded")
    if not seen.path:
        return Rejection(Reason.NO_CERTIFICATE, "it has shown no certificate so far")
    return None


def _forecast(server: LoadedServer) -> Forecast | None:
    context = server.gate.context
    if context.judge is None:
        return None
    return Forecast(context.judge, always_ask_twice=context.policy.always_ask_twice)


def _fetches_lists(server: LoadedServer) -> bool:
    policy = server.gate.context.admission
    rules = () if policy is None else policy.rules
    return any(one.revocation is not None and one.revocation.fetched for one in rules)
