"""
A worker: takes connections, and does what the supervisor says.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import random
from typing import Any, cast

from attrs import define, frozen
from twisted.application.reactors import installReactor
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clock import utc_now
from mtlsgate.config import model
from mtlsgate.errors import START, GateError
from mtlsgate.gate.coroutines import later
from mtlsgate.gate.listener import FEW, BoundSocket
from mtlsgate.gate.registry import Registry
from mtlsgate.load.addresses import Address, HostError
from mtlsgate.load.epoch import Epoch, Loading, no_collection
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.snapshot import Snapshot
from mtlsgate.load.state import KeptDocuments
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.connection_status import ConnectionSelection
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.event_log import EventLog, LogOutput, Turns
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.log_stream import PlainStream
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.owner import NOBODY_ELSE
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.run.control import Control
from mtlsgate.run.deadline_watch import DeadlineWatch
from mtlsgate.run.download import Downloader, why_not
from mtlsgate.run.ending import end
from mtlsgate.run.epoch_diff import epoch_diff
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.event_loop import ReactorChoice
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.followers import Change, ObserversFollower
from mtlsgate.run.loader import let_go_of_the_first, spare_the_collector
from mtlsgate.run.log_output import line_maker
from mtlsgate.run.names import configured_names
from mtlsgate.run.preparing import discard, needs_preparing, prepare
from mtlsgate.run.reactor_lag import ReactorLag
from mtlsgate.run.reloading import Reloader, dropped_by
from mtlsgate.run.sandbox import Sandbox, choose_sandbox, make_directories
from mtlsgate.run.sandbox_rights import Allowed, home_of
from mtlsgate.run.service import GateService
from mtlsgate.run.signals import SignalService
from mtlsgate.run.sockets import PlainSocket, Sockets
from mtlsgate.run.status_taker import Process, StatusTaker
from mtlsgate.run.threads import OwnThread
from mtlsgate.upstream.state import TargetStates
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import Channel, Handler, connect
from mtlsgate.workers.marked_lines import OfWorker
from mtlsgate.workers.naming import name_process
from mtlsgate.workers.remote import RemoteGate

_log = Logger("mtlsgate.workers")

#: What `ps` and `top` show.
_NAME = "mtlsgate-worker"
#: What precedes the key of a socket that is passed.
SOCKET = "socket:"


@frozen(kw_only=True)
class Order:
    """
    What the supervisor tells a new worker.

    :ivar index: which worker it is, from 0.
    :ivar workers: how many there are.
    :ivar secret: of the board, in hex.
    :ivar names: the files and directories of the configuration, absolute.
    :ivar run: identifies this run of the gate in the audit log.
    :ivar config: the configuration, for people.
    :ivar started: when the gate started, as RFC 3339 has it.
    :ivar epoch: the number of the epoch in force.
    :ivar tells: whether it logs what an epoch has and where it listens.
    :ivar passed: the names of the sockets that the service manager passed.
    :ivar to_journal: whether systemd's journal gets the log.
    :ivar reactor: the short name of its reactor, if one was asked for.
    """

    index: int
    workers: int
    secret: str
    names: Sequence[str]
    run: str
    config: str
    started: str
    epoch: int
    tells: bool
    passed: Sequence[str]
    to_journal: bool
    reactor: str | None


def work(order: Order, descriptors: Sequence[int]) -> None:
    """
    Work until the supervisor says to end, or is gone.

    :param descriptors: of the channel, the log, the board and the files.
    """
    channel, log, board, files = descriptors
    name_process(_NAME)
    if order.reactor is not None:
        installReactor(order.reactor)
    loader = WorkerLoader(order.names)
    try:
        epoch = loader.load(files)
        sandbox = _sandbox(epoch, loader)
    except GateError as error:
        _begin_log(None, order, log, cast(Turns, loader.choice.get()))
        _log.critical("{problem}", problem=str(error))
        raise SystemExit(1) from None
    spare_the_collector()
    reactor = loader.choice.get()
    _begin_log(epoch.settings.log, order, log, cast(Turns, reactor))
    # Before anything starts a thread: those that run already would not be in it.
    sandbox.privilegedStartService()
    shared = Board(board, order.workers, bytes.fromhex(order.secret))
    worker = Worker(order, epoch, shared, reactor, loader, sandbox)
    connect(socket.socket(fileno=channel), worker.channel, reactor)
    handlers = {signal.SIGTERM: worker.end, signal.SIGINT: _nothing}
    signals = SignalService(handlers, reactor)
    signals.privilegedStartService()
    signals.startService()
    for ignored in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(ignored, signal.SIG_IGN)
    reactor.run()
    worker.observers.audit.close()


def _nothing() -> None:
    """The supervisor answers this signal."""


class WorkerLoader:
    """
    Loads epochs from the files that the supervisor passes.

    :ivar choice: chooses the reactor, at the first.
    :ivar remote: the gate as protocols see it.
    :ivar seen: the files of the latest, with their state when they were read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """:param names: the files and directories of the configuration, absolute."""
        self.choice = ReactorChoice()
        self.remote = RemoteGate()
        self.seen: dict[Path, Stamp] = {}
        self._names = names
        self._states = TargetStates()
        self._kept = KeptDocuments()

    def load(self, files: int) -> Epoch:
        """
        :param files: a descriptor of the files, which is closed.
        :raises GateError: with everything that is wrong with them.
        """
        source, self.seen = Snapshot(files), {}
        os.close(files)
        with no_collection():
            loading = Loading(
                self._names,
                seen=self.seen,
                reactor=self.choice,
                gate=lambda: self.remote,
                source=source,
                target_states=self._states,
                kept=self._kept,
            )
            return loading.epoch()


def _sandbox(epoch: Epoch, loader: WorkerLoader) -> Sandbox:
    """:raises GateError: if there is to be one, and the kernel has none."""
    make_directories(epoch, NOBODY_ELSE)
    allowed = Allowed.by(epoch.reach, loader.seen, (), home_of(os.geteuid()))
    return Sandbox(choose_sandbox(epoch, None), allowed)


def _begin_log(block: model.Log | None, order: Order, descriptor: int, reactor: Turns) -> None:
    block = block or model.Log(at=START)
    stream = os.fdopen(descriptor, "w", errors="backslashreplace")
    made = line_maker(block.format, to_journal=order.to_journal)
    lines = OfWorker(made, order.index + 1, is_json=block.format == "json")
    log = EventLog(LogOutput(PlainStream(stream), lines, block.level), reactor)
    globalLogBeginner.beginLoggingTo([log])


class PassedSockets(Sockets):
    """
    The sockets that the supervisor listens on, too.

    :ivar _by_key: those that nobody has taken yet.
    """

    def __init__(self, passed: Iterable[str]) -> None:
        """:param passed: the names of those that the service manager passed to it."""
        super().__init__(names=passed)
        self._by_key: dict[str, socket.socket] = {}

    def add(self, key: str, descriptor: int) -> None:
        """:param descriptor: belongs to this object from now on."""
        before = self._by_key.pop(key, None)
        if before is not None:
            before.close()
        self._by_key[key] = found = socket.socket(fileno=descriptor)
        found.setblocking(False)

    def take_all(self) -> dict[str, BoundSocket]:
        """:returns: all that nobody has taken, by their keys."""
        found, self._by_key = self._by_key, {}
        return {key: PlainSocket(one) for key, one in found.items()}

    def take_keyed(self, key: str, address: Address) -> BoundSocket:
        """:raises HostError: if the supervisor does not listen there."""
        if key not in self._by_key:
            raise HostError(f"the supervisor does not listen on {key}: reload again")
        return PlainSocket(self._by_key.pop(key))


@define
class _Staged:
    """
    An epoch that is prepared.

    :ivar number: the epoch's.
    :ivar change: lets it take over.
    """

    number: int
    change: Change


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
        registry = Registry(
            reactor,
            self.observers.all,
            numbers=board.numbers(),
            new_tally=partial(board.tally, order.index),
        )
        self._sockets = PassedSockets(order.passed)
        self._runner = runner = EpochRunner(
            epoch,
            {},
            self._sockets,
            reactor,
            registry,
            [ObserversFollower(self.observers)],
            number=order.epoch,
            tells=order.tells,
            accepts=FEW,
        )
        self._loader = loader
        self._reactor = reactor
        self._in_thread = OwnThread(reactor)
        self._files: int | None = None
        self._load = sandbox.guarded(self._load_files, lambda: loader.seen)
        # It only lets documents that are fetched take effect.
        reloader = Reloader(runner, self._load, self._in_thread)
        lag = ReactorLag(reactor)
        fetcher = Fetcher(
            lambda: runner.epoch,
            lambda: runner.number,
            reloader.refresh,
            Downloader(reactor),
            why_not,
            reactor,
            self._in_thread,
            registry.now,
            random,
        )
        self._gate = GateService(runner, reloader, self.observers, fetcher)
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
        self._control = Control(self._taker, self._metrics, self._in_thread, self.end)
        self._staged: _Staged | None = None
        deadlines = DeadlineWatch(lambda: runner.epoch, registry.now, reactor)
        self._services: list[Service] = [fetcher, lag]
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
            "drain": self._drain,
            "close_all": self._runner.close_all,
            "rotate": self.observers.audit.rotate,
            "ping": lambda: self._gate.not_ready,
        }
        self.channel = Channel(handlers, self.end, self._passed)
        loader.remote.attach(self.channel)

    def end(self) -> None:
        """Let connections end, and then the process; the second time at once.  Also if
        the supervisor is gone: its addresses must not stay taken."""
        end(self._runner, self._reactor)

    def _passed(self, name: str, descriptor: int) -> None:
        if name.startswith(SOCKET):
            self._sockets.add(name.removeprefix(SOCKET), descriptor)
            return
        if self._files is not None:
            os.close(self._files)
        self._files = descriptor

    # The first epoch.

    def _begin(self) -> Deferred[None] | None:
        """:raises GateError: if it cannot listen, or not write the audit log."""
        epoch = self._runner.epoch
        if needs_preparing(epoch):
            return later(self._prepared_first(epoch))
        self._listen()
        return None

    async def _prepared_first(self, epoch: Epoch) -> None:
        await prepare(epoch, None)
        self._listen()

    def _listen(self) -> None:
        epoch, audit = self._runner.epoch, self.observers.audit
        audit.turn_to(audit.prepare(epoch.path, epoch.settings.audit))
        self._runner.listen(self._sockets.take_all())
        self._runner.start()
        Service.startService(self._gate)
        for one in self._services:
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
        self._staged = _Staged(number, self._runner.prepare(epoch))
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

        self._staged = _Staged(number, Change(change.commit, undo))
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

    def _drain(self) -> None:
        if not self._runner.is_draining:
            self.end()
