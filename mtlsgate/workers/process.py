"""
The process of a worker, from its beginning to its end.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from typing import Any, cast

from twisted.application.reactors import installReactor
from twisted.logger import Logger, globalLogBeginner

from mtlsgate.config import model
from mtlsgate.errors import START, GateError
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.event_log import EventLog, LogOutput, Turns
from mtlsgate.observe.log_stream import PlainStream
from mtlsgate.observe.owner import NOBODY_ELSE
from mtlsgate.run.loader import spare_the_collector
from mtlsgate.run.log_output import line_maker
from mtlsgate.run.sandbox import Sandbox, choose_sandbox, make_directories
from mtlsgate.run.sandbox_rights import Allowed, home_of
from mtlsgate.run.signals import SignalService
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import Channel, connect
from mtlsgate.workers.marked_lines import OfWorker
from mtlsgate.workers.naming import name_process
from mtlsgate.workers.order import Order
from mtlsgate.workers.passed import WorkerLoader
from mtlsgate.workers.worker import Worker

_log = Logger("mtlsgate.workers")

#: What `ps` and `top` show.
_NAME = "mtlsgate-worker"


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
        reactor = loader.choice.get()
        _begin_log(None, order, log, cast(Turns, reactor))
        _refuse(channel, error, reactor)
        return
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


def _refuse(descriptor: int, error: GateError, reactor: Any) -> None:
    """Tell the supervisor why this worker cannot begin, until it is ended."""

    def begin(**_: object) -> None:
        raise error

    channel = Channel({"begin": begin}, reactor.stop)
    connect(socket.socket(fileno=descriptor), channel, reactor)
    reactor.run()


def _nothing() -> None:
    """The supervisor answers this signal."""


def _sandbox(epoch: Epoch, loader: WorkerLoader) -> Sandbox:
    """:raises GateError: if there is to be one, and the kernel has none."""
    make_directories(epoch, NOBODY_ELSE)
    allowed = Allowed.by(epoch.reach_with_shadow, loader.seen, (), home_of(os.geteuid()))
    return Sandbox(choose_sandbox(epoch, None), allowed)


def _begin_log(block: model.Log | None, order: Order, descriptor: int, reactor: Turns) -> None:
    block = block or model.Log(at=START)
    stream = os.fdopen(descriptor, "w", errors="backslashreplace")
    made = line_maker(block.format, to_journal=order.to_journal)
    lines = OfWorker(made, order.index + 1, is_json=block.format == "json")
    log = EventLog(LogOutput(PlainStream(stream), lines, block.level), reactor)
    globalLogBeginner.beginLoggingTo([log])
