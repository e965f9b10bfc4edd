"""
The gate as the protocols in a worker see it: they ask the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.interfaces import IGate
from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection
from mtlsgate.observe.server_status import HistoryStatus, PeriodStatus
from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.observe.status import ReloadStatus, Status
from mtlsgate.observe.status_value import value_of
from mtlsgate.workers.channel import Channel

_log = Logger("mtlsgate.workers")


@frozen
class Told:
    """
    What another process has told of something.

    :ivar facts: as JSON has it.
    """

    facts: dict[str, object]

    def to_dict(self) -> dict[str, object]:
        """:returns: all of it, ready for JSON."""
        return self.facts


def leaf_of(told: tuple[str, str] | None) -> tuple[str, Certificate] | None:
    """
    :param told: a server and a leaf, as another process tells them.
    """
    return None if told is None else (told[0], Certificate(bytes.fromhex(told[1])))


def explained(
    ask: Callable[..., Deferred[Any]],
    chain: tuple[Certificate, ...],
    server: str | None,
    at: datetime | None,
) -> Deferred[tuple[Told, ...]]:
    """
    :param ask: asks another process.
    :returns: the verdicts of that server, or of all that judge their clients.
    """
    moment = None if at is None else at.isoformat()
    ders = [one.der.hex() for one in chain]
    asked = ask("explain", chain=ders, server=server, at=moment)
    return asked.addCallback(lambda told: tuple(map(Told, told)))


@implementer(IGate)
@define
class RemoteGate:
    """
    Asks the supervisor.

    :ivar _channel: to the supervisor; None before the worker runs.
    """

    _channel: Channel | None = None

    def attach(self, channel: Channel) -> None:
        """Ask there from now on."""
        self._channel = channel

    @property
    def not_ready(self) -> str | None:
        """Why this worker accepts no connections, in a few words, or None."""
        return "starting" if self._channel is None else None

    def status(self, selection: ConnectionSelection = NO_CONNECTIONS) -> Deferred[Status]:
        """:returns: the state of all workers now."""
        asked = self._ask(
            "status", after=selection.after, limit=selection.limit, server=selection.server
        )
        return asked.addCallback(lambda told: value_of(Status, told))

    def exposition(self) -> Deferred[tuple[str, bytes]]:
        """:returns: the media type of the metrics, and the metrics."""
        return self._ask("exposition").addCallback(lambda told: (told[0], told[1].encode()))

    def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
        """
        Reload.

        :returns: the result.
        """
        asked = self._ask("reload", who=who, is_trial=is_trial)
        return asked.addCallback(lambda told: value_of(ReloadStatus, told))

    def shadow_report(self) -> Deferred[ShadowReport | None]:
        """:returns: what the configuration in the shadow has found out; None if there is
        none."""
        return self._ask("shadow_report").addCallback(
            lambda told: None if told is None else value_of(ShadowReport, told)
        )

    def put_in_shadow(self, file: str, who: str) -> Deferred[ShadowAttempt]:
        """
        Let another configuration judge every client, too.

        :param file: its path on this machine.
        """
        asked = self._ask("put_in_shadow", file=file, who=who)
        return asked.addCallback(lambda told: value_of(ShadowAttempt, told))

    def end_shadow(self, who: str) -> Deferred[bool]:
        """
        Let no other configuration judge clients any more.

        :returns: whether one did.
        """
        return self._ask("end_shadow", who=who)

    def drain(self, who: str) -> None:
        """Accept no more connections, wait for the others, and exit; twice is once."""
        self._ask("drain", who=who).addErrback(
            lambda failure: _log.failure("the supervisor cannot be told to drain", failure)
        )

    def close(self, number: int, who: str) -> Deferred[bool]:
        """
        Close a connection.

        :returns: whether it existed.
        """
        return self._ask("close", number=number, who=who)

    def eject(self, sha256: str, who: str) -> Deferred[int]:
        """
        Close all connections of a client, by its leaf's fingerprint.

        :returns: how many there were.
        """
        return self._ask("eject", sha256=sha256, who=who)

    def history(self) -> Deferred[HistoryStatus]:
        """:returns: the last hour."""
        return self._ask("history").addCallback(lambda told: value_of(HistoryStatus, told))

    def changed(self, after: int, seconds: float) -> Deferred[int]:
        """:returns: fires with the number of changes so far, once that is another one."""
        return self._ask("changed", after=after, seconds=seconds)

    def periods(self) -> Deferred[tuple[PeriodStatus, ...]]:
        """:returns: when certificates, pins and lists begin and end to count."""
        return self._ask("periods").addCallback(
            lambda told: tuple(value_of(PeriodStatus, one) for one in told)
        )

    def explain(
        self, chain: tuple[Certificate, ...], server: str | None, at: datetime | None
    ) -> Deferred[tuple[Told, ...]]:
        """:returns: the verdicts of that server, or of all that judge their clients."""
        return explained(self._ask, chain, server, at)

    def rejected_leaf(self, id: int) -> Deferred[tuple[str, Certificate] | None]:
        """:returns: the server and the leaf of one of the latest rejections, or None."""
        return self._ask("rejected_leaf", id=id).addCallback(leaf_of)

    def _ask(self, name: str, **values: object) -> Deferred[Any]:
        if self._channel is None:
            raise LookupError("no gate is running")
        return self._channel.ask(name, **values)
