"""
What an operator can do with a gate of several workers: the supervisor asks all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.task import deferLater
from zope.interface import implementer

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clock import utc_now
from mtlsgate.interfaces import IGate
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection
from mtlsgate.observe.server_status import HistoryStatus, PeriodStatus
from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.observe.status import ReloadStatus, ServiceStatus, Status, WorkerStatus
from mtlsgate.observe.status_value import StatusValue, value_of
from mtlsgate.run.operator_acts import OperatorActs
from mtlsgate.run.status_taker import Process, reload_status
from mtlsgate.text import printable
from mtlsgate.workers.channel import Handler, Refused, WorkerGone
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.epochs import Epochs
from mtlsgate.workers.exposition import Exposition
from mtlsgate.workers.ledger import Ledger
from mtlsgate.workers.member import Member
from mtlsgate.workers.remote import Told, explained, leaf_of
from mtlsgate.workers.shadow_summing import sum_reports
from mtlsgate.workers.shadows import Shadows
from mtlsgate.workers.summing import sum_history, sum_status, without_connections

#: Seconds between two looks whether something has changed at a worker.
_LOOK_EVERY = 1.0


@implementer(IGate)
@frozen
class SupervisorControl:
    """
    The running gate, as `IGate` documents it.

    :ivar crew: the workers.
    :ivar epochs: the epoch in force.
    :ivar changes: what it notices by itself.
    :ivar _acts: tells of what the operator does.
    """

    crew: Crew
    epochs: Epochs
    changes: Changes
    _acts: OperatorActs
    _process: Process
    _ledger: Ledger
    _exposition: Exposition
    _end: Callable[[], object]
    _reactor: Any
    _shadows: Shadows

    @property
    def not_ready(self) -> str | None:
        """Why it accepts no connections, in a few words, or None."""
        return "draining" if self.epochs.is_draining else self.crew.not_ready

    def status(self, selection: ConnectionSelection = NO_CONNECTIONS) -> Deferred[Status]:
        """:returns: the state of all workers now."""
        asked = self.crew.ask_all(
            "status",
            after=selection.after,
            limit=selection.limit,
            server=selection.server,
        )
        return asked.addCallback(self._status, selection)

    def _status(self, told: list[tuple[Member, Any]], selection: ConnectionSelection) -> Status:
        answers = {
            member.index: (value_of(Status, one["status"]), float(one["cpu_seconds"]))
            for member, one in told
            if not isinstance(one, Refused)
        }
        found = [status for status, _ in answers.values()]
        for index, (status, _) in answers.items():
            self._ledger.rejected[index] = status.service.rejected
        if found:
            size = len(self.crew.members)
            whole = sum_status(
                [_with_ids(status, index, size) for index, (status, _) in answers.items()],
                selection,
            )
            self._ledger.service = whole.service
        else:
            whole = Status(
                at=utc_now(),
                service=self._without_workers(),
                connections=(),
                next=None,
                rejections=(),
            )
        workers = tuple(self._worker(one, answers.get(one.index)) for one in self.crew.members)
        return evolve(whole, service=self._service(whole.service, workers))

    def _without_workers(self) -> ServiceStatus:
        if self._ledger.service is not None:
            return without_connections(self._ledger.service)
        return ServiceStatus(
            version=self._process.version,
            pid=os.getpid(),
            started=self._process.started,
            uptime=0.0,
            config=printable(self._process.config),
            epoch=1,
            epoch_age=0.0,
            ready=False,
            not_ready=None,
            draining=False,
            admitted=0,
            handshakes=0,
            rejected=0,
            servers=(),
            clients=(),
            sandbox="off: no worker runs",
            warnings=(),
            last_reload=None,
        )

    def _service(self, service: ServiceStatus, workers: tuple[WorkerStatus, ...]) -> ServiceStatus:
        why, clock, last = self.not_ready, self._reactor.seconds(), self.epochs.last
        return evolve(
            service,
            pid=os.getpid(),
            uptime=clock - self._process.began,
            epoch=self.epochs.number,
            epoch_age=clock - self.epochs.since,
            ready=why is None,
            not_ready=why,
            draining=self.epochs.is_draining,
            rejected=self._ledger.rejected_before + sum(self._ledger.rejected.values()),
            last_reload=None if last is None else reload_status(last),
            workers=workers,
        )

    def _worker(self, member: Member, told: tuple[Status, float] | None) -> WorkerStatus:
        is_silent = member.channel is not None and self.crew.is_silent(member)
        return WorkerStatus(
            number=member.index + 1,
            pid=member.pid,
            state="silent" if is_silent and member.state == "running" else member.state,
            uptime=None if member.channel is None else self._reactor.seconds() - member.since,
            admitted=0 if told is None else told[0].service.admitted,
            handshakes=0 if told is None else told[0].service.handshakes,
            cpu_seconds=0.0 if told is None else told[1],
            restarts=max(0, member.restarts),
        )

    def exposition(self) -> Deferred[tuple[str, bytes]]:
        """:returns: the media type of the metrics, and the metrics."""
        return self._exposition.of_all()

    def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
        """
        Reload.

        :returns: the result.
        """
        if not is_trial:
            self._acts.reload(who)
        return self.epochs.reload(is_trial=is_trial).addCallback(reload_status)

    def shadow_report(self) -> Deferred[ShadowReport | None]:
        """:returns: what the configuration in the shadow has found out; None if there is
        none."""

        def summed(told: list[tuple[Member, Any]]) -> ShadowReport | None:
            found = [one for one in _answers(told) if one is not None]
            return sum_reports([value_of(ShadowReport, one) for one in found])

        return self.crew.ask_all("shadow_report").addCallback(summed)

    def put_in_shadow(self, file: str, who: str) -> Deferred[ShadowAttempt]:
        """
        Let another configuration judge every client, too.

        :param file: its path on this machine.
        """
        return self._shadows.put(file).addCallback(self._acts.put_in_shadow, who)

    def end_shadow(self, who: str) -> Deferred[bool]:
        """
        Let no other configuration judge clients any more.

        :returns: whether one did.
        """

        def told(ended: list[tuple[Member, Any]]) -> bool:
            files = (one for one in _answers(ended) if one is not None)
            return self._acts.end_shadow(next(files, None), who)

        return self._shadows.end().addCallback(told)

    def drain(self, who: str) -> None:
        """Accept no more connections, wait for the others, and exit; twice is once."""
        if not self.epochs.is_draining:
            self._acts.drain(who)
            self._end()

    def close(self, number: int, who: str) -> Deferred[bool]:
        """
        Close a connection.

        :returns: whether it existed.
        """
        asked = self.crew.ask_all("close", number=number, who=who)
        return asked.addCallback(lambda told: any(one is True for _, one in told))

    def eject(self, sha256: str, who: str) -> Deferred[int]:
        """
        Close all connections of a client, by its leaf's fingerprint.

        :returns: how many there were.
        """
        asked = self.crew.ask_all("eject", sha256=sha256, who=who)

        def count(told: list[tuple[Member, Any]]) -> int:
            found = sum(map(int, _answers(told)))
            if found:
                self._acts.eject(sha256, who)
            return found

        return asked.addCallback(count)

    def history(self) -> Deferred[HistoryStatus]:
        """:returns: the last hour."""
        return self.crew.ask_all("history").addCallback(
            lambda told: sum_history(
                utc_now(), [value_of(HistoryStatus, one) for one in _answers(told)]
            )
        )

    def changed(self, after: int, seconds: float) -> Deferred[int]:
        """:returns: fires with the number of changes so far, once that is another one."""
        return ensureDeferred(self._changed(after, seconds))

    async def _changed(self, after: int, seconds: float) -> int:
        until = self._reactor.seconds() + seconds
        while True:
            told = await self.crew.ask_all("changed")
            # An ended worker's are missing: that is another number, too.
            number = self.changes.number + sum(map(int, _answers(told)))
            if number != after or self._reactor.seconds() >= until:
                return number
            await deferLater(self._reactor, _LOOK_EVERY)

    def periods(self) -> Deferred[tuple[PeriodStatus, ...]]:
        """:returns: when certificates, pins and lists begin and end to count."""
        return self._ask_one("periods").addCallback(
            lambda told: tuple(value_of(PeriodStatus, one) for one in told)
        )

    def explain(
        self, chain: tuple[Certificate, ...], server: str | None, at: datetime | None
    ) -> Deferred[tuple[Told, ...]]:
        """:returns: the verdicts of that server, or of all that judge their clients."""
        return explained(self._ask_one, chain, server, at)

    def rejected_leaf(self, id: int) -> Deferred[tuple[str, Certificate] | None]:
        """:returns: the server and the leaf of one of the latest rejections, or None."""
        own, index = divmod(id, len(self.crew.members))
        asked = self.crew.gather("rejected_leaf", [self.crew.members[index]], id=own)
        return asked.addCallback(lambda told: leaf_of(next(iter(_answers(told)), None)))

    @property
    def _members(self) -> list[Member]:
        """Those that have connections."""
        return [one for one in self.crew.members if one.state in ("running", "draining")]

    def _ask_one(self, name: str, **values: object) -> Deferred[Any]:
        """:returns: the answer of one worker; it fails with `WorkerGone` if there is none."""
        for one in self._members:
            if not self.crew.is_silent(one):
                return one.ask(name, **values)
        return fail(WorkerGone("no worker runs"))

    def handlers(self) -> Mapping[str, Handler]:
        """:returns: what answers the questions of workers' protocols."""

        def status(**values: Any) -> Deferred[Any]:
            selection = ConnectionSelection(**values)
            return self.status(selection).addCallback(lambda found: found.to_dict())

        def exposition() -> Deferred[Any]:
            return self.exposition().addCallback(lambda told: (told[0], told[1].decode()))

        def reload(who: str, is_trial: bool) -> Deferred[Any]:
            return self.reload(who, is_trial=is_trial).addCallback(lambda found: found.to_dict())

        def rejected_leaf(id: int) -> Deferred[Any]:
            return self.rejected_leaf(id).addCallback(
                lambda found: None if found is None else (found[0], found[1].der.hex())
            )

        return {
            "status": status,
            "exposition": exposition,
            "reload": reload,
            "shadow_report": lambda: self.shadow_report().addCallback(_facts),
            "put_in_shadow": lambda **said: self.put_in_shadow(**said).addCallback(_facts),
            "end_shadow": self.end_shadow,
            "drain": self.drain,
            "close": self.close,
            "eject": self.eject,
            "history": lambda: self.history().addCallback(lambda found: found.to_dict()),
            "changed": self.changed,
            "periods": lambda: self._ask_one("periods"),
            "explain": lambda **values: self._ask_one("explain", **values),
            "rejected_leaf": rejected_leaf,
        }


def _facts(value: StatusValue | None) -> dict[str, Any] | None:
    return None if value is None else value.to_dict()


def _answers(told: list[tuple[Member, Any]]) -> list[Any]:
    return [one for _, one in told if not isinstance(one, Refused)]


def _with_ids(status: Status, index: int, size: int) -> Status:
    """:returns: the same, with rejections that no other worker's are called like."""
    return evolve(
        status,
        rejections=tuple(evolve(one, id=one.id * size + index) for one in status.rejections),
    )


def process_of(config: str, reactor: Any) -> Process:
    """:returns: what is known of this process, which starts now."""
    return Process(
        version=version("mtlsgate"), config=config, started=utc_now(), began=reactor.seconds()
    )
