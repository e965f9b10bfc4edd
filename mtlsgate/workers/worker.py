"""
A worker: takes connections, and does what the supervisor says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clock import utc_now
from mtlsgate.errors import GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.coroutines import later
from mtlsgate.gate.listener import FEW
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.identities import wanted
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.connection_status import ConnectionSelection
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.observe.shadow_status import ShadowAttempt
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.certificate_orders import CertificateOrders
from mtlsgate.run.control import Control
from mtlsgate.run.deadline_watch import DeadlineWatch
from mtlsgate.run.ending import end
from mtlsgate.run.epoch_diff import epoch_diff
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.followers import Change, ObserversFollower
from mtlsgate.run.loader import let_go_of_the_first
from mtlsgate.run.names import configured_names
from mtlsgate.run.preparing import discard, needs_preparing, prepare
from mtlsgate.run.reactor_lag import ReactorLag
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.registries.words import WordsInShadow
from mtlsgate.run.reloading import Reloader, dropped_by
from mtlsgate.run.sandbox import Sandbox
from mtlsgate.run.service import GateService
from mtlsgate.run.shadow import Shadowing
from mtlsgate.run.shadow_control import ShadowControl, ShadowFollower
from mtlsgate.run.status_taker import Process, StatusTaker
from mtlsgate.run.threads import OwnThread
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import SOCKET, Channel, Handler
from mtlsgate.workers.order import Order
from mtlsgate.workers.passed import PassedSockets, WorkerLoader

#: Seconds that a new worker waits for SPIFFE agents before it takes connections.
FIRST_ANSWERS = 1.0


@define
class _Staged:
    """
    An epoch that is prepared.

    :ivar number: the epoch's.
    :ivar change: lets it take over.
    :ivar changes: what it changes for clients, in lines.
    """

    number: int
    change: Change
    changes: tuple[str, ...]


class Worker:
    """
    Does what the supervisor says.

    :ivar channel: to the supervisor.
    :ivar observers: are told what happens to connections.
    """

    def __init__(
        self,
        order: Order,
        epoch: Epoch,
        board: Board,
        reactor: Any,
        loader: WorkerLoader,
        sandbox: Sandbox,
    ) -> None:
        """:param loader: loads later epochs."""
        self.observers = Observers(
            audit=AuditLog(run=order.run, epoch=order.epoch),
            log=HumanLog(epoch.settings.quiet),
            counts=Counts(configured_names(epoch)),
            recent=RecentRejections(epoch.settings.quiet),
            history=History(reactor.seconds, utc_now),
            changes=Changes(reactor),
        )
        self._sockets = PassedSockets(order.passed)
        shadowing = Shadowing(
            epoch,
            self._sockets.key_of,
            reactor,
            self.observers,
            loader.agents,
            Desks.of(reactor, utc_now, WordsInShadow()),
            utc_now,
            tells=order.tells,
        )
        registries = Desks.of(reactor)
        connections = Connections(
            reactor,
            (*self.observers.all, shadowing),
            registries=registries,
            numbers=board.numbers(),
            new_tally=partial(board.tally, order.index),
        )
        self._follower = ShadowFollower(shadowing, connections)
        self._runner = runner = EpochRunner(
            epoch,
            {},
            self._sockets,
            reactor,
            connections,
            [ObserversFollower(self.observers), self._follower],
            registries=registries,
            number=order.epoch,
            tells=order.tells,
            accepts=FEW,
            refreshed=shadowing.refreshed,
        )
        self._loader = loader
        self._reactor = reactor
        self._in_thread = OwnThread(reactor)
        self._files: int | None = None
        self._load = sandbox.guarded(self._load_files, lambda: loader.seen)
        # It only lets documents that are fetched take effect.
        reloader = Reloader(runner, self._load, self._in_thread)
        lag = ReactorLag(reactor)
        upkeep = Upkeep(runner, reloader.refresh, reactor, self._in_thread)
        fetcher, orders = Fetcher.of(upkeep), CertificateOrders.of(upkeep)
        # Each worker asks for itself: keys never leave the process that uses them.
        self._agents = agents = AgentWatch.of(upkeep, loader.agents)
        self._gate = GateService(
            runner, reloader, self.observers, fetcher, agents, shadowing, orders
        )
        process = Process(
            version=version("mtlsgate"),
            config=order.config,
            started=datetime.fromisoformat(order.started),
            began=reactor.seconds(),
            lag=lag.seconds,
            sandbox=lambda: sandbox.status,
        )
        self._taker = StatusTaker(self._gate, process)
        self._metrics = Metrics(self.observers.counts, self._taker.state)
        load_shadow = sandbox.guarded_shadow(self._load_shadow)
        self._shadow = ShadowControl(
            shadowing, runner, load_shadow, self._in_thread, order.names[0]
        )
        self._control = Control(self._taker, self._metrics, self._in_thread, self.end, self._shadow)
        self._tried: tuple[Shadow, ShadowAttempt] | None = None
        self._staged: _Staged | None = None
        deadlines = DeadlineWatch(lambda: runner.epoch, connections.now, reactor)
        self._services: list[Service] = [fetcher, agents, orders, lag]
        if order.index == 0:
            # One is enough to warn.
            self._services.append(deadlines)
        handlers: Mapping[str, Handler] = {
            "begin": self._begin,
            "prepare": self._prepare,
            "take_over": self._take_over,
            "discard": self._discard,
            "dropped": self._dropped,
            "status": self._status,
            "exposition": self._exposition,
            "close": self._control.close,
            "eject": self._control.eject_untold,
            "history": lambda: self._control.history().to_dict(),
            "periods": self._periods,
            "explain": self._explain,
            "rejected_leaf": self._rejected_leaf,
            "changed": lambda: self.observers.changes.number,
            "drain": self.end,
            "close_all": self._runner.close_all,
            "rotate": self.observers.audit.rotate,
            "ping": lambda: self._gate.not_ready,
            "prepare_shadow": self._prepare_shadow,
            "take_shadow": self._take_shadow,
            "end_shadow": self._shadow.end,
            "shadow_report": self._shadow_report,
        }
        self.channel = Channel(handlers, self.end, self._passed)
        loader.remote.attach(self.channel)

    def end(self) -> None:
        """Let connections end, and then the process.  Also if the supervisor is gone: its
        addresses must not stay taken."""
        # Not at once the second time: a service manager sends SIGTERM to all processes, and
        # the supervisor says it, too.  It has `close_all` for that.
        if not self._runner.is_draining:
            end(self._runner, self._reactor)

    def _passed(self, name: str, descriptor: int) -> None:
        if name.startswith(SOCKET):
            self._sockets.add(name.removeprefix(SOCKET), descriptor)
            return
        if self._files is not None:
            os.close(self._files)
        self._files = descriptor

    # The first epoch.

    def _begin(self, shadow: str | None = None) -> Deferred[None] | None:
        """
        :param shadow: what somebody has put in the shadow, whose files were passed: its
            path; "" if somebody has ended it.
        :raises GateError: if it cannot listen, or not write the audit log.
        """
        epoch = self._runner.epoch
        if shadow == "":
            self._shadow.end()
        if shadow or needs_preparing(epoch) or wanted(epoch):
            return later(self._prepared_first(epoch, shadow))
        self._listen()
        return None

    async def _prepared_first(self, epoch: Epoch, shadow: str | None) -> None:
        if shadow:
            await self._shadow.put_again(Path(shadow))
        if needs_preparing(epoch):
            await prepare(epoch, None)
        if wanted(epoch):
            # The others have an identity: a new worker does not turn their clients away.
            self._agents.startService()
            await self._agents.first_answers(FIRST_ANSWERS)
        self._listen()

    def _listen(self) -> None:
        epoch, audit = self._runner.epoch, self.observers.audit
        audit.turn_to(audit.prepare(epoch.path, epoch.settings.audit))
        self._runner.listen(self._sockets.take_all())
        self._runner.start()
        Service.startService(self._gate)
        for one in self._services:
            if not one.running:
                one.startService()

    # Later ones.

    def _load_files(self, is_trial: bool) -> Epoch:
        files, self._files = self._files, None
        if files is None:
            raise GateError("the supervisor passed no files")
        return self._loader.load(files)

    def _loading(self, *, is_trial: bool) -> Deferred[tuple[Epoch, tuple[str, ...]]]:
        before = self._runner.epoch

        def load() -> tuple[Epoch, tuple[str, ...]]:
            let_go_of_the_first()
            epoch = self._load(is_trial)
            return epoch, epoch_diff(before, epoch)

        return self._in_thread(load)

    def _prepare(self, number: int) -> Deferred[dict[str, object]]:
        """:raises GateError: if the epoch cannot take over."""
        self._discard()
        return self._loading(is_trial=False).addCallback(self._stage, number)

    def _stage(
        self, loaded: tuple[Epoch, tuple[str, ...]], number: int
    ) -> dict[str, object] | Deferred[dict[str, object]]:
        epoch, changes = loaded
        if needs_preparing(epoch):
            staging: Deferred[dict[str, object]] | None = later(
                self._stage_prepared(epoch, changes, number)
            )
            assert staging is not None
            return staging
        self._staged = _Staged(number, self._runner.prepare(epoch), changes)
        return {"changes": changes}

    async def _stage_prepared(
        self, epoch: Epoch, changes: tuple[str, ...], number: int
    ) -> dict[str, object]:
        await prepare(epoch, self._runner.epoch)
        try:
            change = self._runner.prepare(epoch)
        except BaseException:
            await discard(epoch)
            raise

        def undo() -> None:
            change.discard()
            later(discard(epoch))

        self._staged = _Staged(number, Change(change.commit, undo), changes)
        return {"changes": changes}

    def _take_over(self, number: int) -> None:
        staged, self._staged = self._staged, None
        if staged is None or staged.number != number:
            raise GateError(f"epoch {number} is not prepared")
        if self._runner.is_draining:
            staged.change.discard()
            return
        self.observers.audit.follow(number)
        staged.change.commit()
        self._follower.changed(staged.changes)

    def _discard(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            staged.change.discard()

    def _dropped(self) -> Deferred[dict[str, object]]:
        """Tell what an epoch would change."""

        def judge(loaded: tuple[Epoch, tuple[str, ...]]) -> Deferred[dict[str, object]]:
            epoch, changes = loaded
            return dropped_by(self._runner, epoch).addCallback(
                lambda dropped: {"changes": changes, "dropped": dropped}
            )

        return self._loading(is_trial=True).addCallback(judge)

    # What is tried in the shadow.

    def _load_shadow(self, path: Path) -> Shadow:
        files, self._files = self._files, None
        if files is None:
            return Shadow(str(path), None, ("the supervisor passed no files",))
        return self._loader.shadow(path, files)

    def _prepare_shadow(self, path: str) -> Deferred[dict[str, Any]]:
        def prepared(found: tuple[Shadow, ShadowAttempt]) -> dict[str, Any]:
            self._tried = found
            return found[1].to_dict()

        return self._shadow.prepare(Path(path)).addCallback(prepared)

    def _take_shadow(self) -> None:
        tried, self._tried = self._tried, None
        if tried is not None:
            self._shadow.take(tried)

    def _shadow_report(self) -> Deferred[dict[str, Any] | None]:
        return self._shadow.report().addCallback(
            lambda report: None if report is None else report.to_dict()
        )

    # Questions and commands.

    def _status(self, after: int, limit: int, server: str | None) -> dict[str, object]:
        selection = ConnectionSelection(after=after, limit=limit, server=server)
        used = os.times()
        return {
            "status": self._taker.take(selection).to_dict(),
            "cpu_seconds": used.user + used.system,
            "not_ready": self._gate.not_ready,
        }

    def _exposition(self) -> str:
        return self._metrics.exposition().decode()

    def _periods(self) -> Deferred[list[dict[str, Any]]]:
        return self._control.periods().addCallback(lambda found: [one.to_dict() for one in found])

    def _explain(
        self, chain: Sequence[str], server: str | None, at: str | None
    ) -> Deferred[list[dict[str, object]]]:
        moment = None if at is None else datetime.fromisoformat(at)
        certificates = tuple(Certificate(bytes.fromhex(one)) for one in chain)
        explaining = self._control.explain(certificates, server, moment)
        return explaining.addCallback(lambda found: [one.to_dict() for one in found])

    def _rejected_leaf(self, id: int) -> tuple[str, str] | None:
        found = self._control.rejected_leaf(id)
        return None if found is None else (found[0], found[1].der.hex())
