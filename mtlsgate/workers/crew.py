"""
The workers, as the supervisor sees them: starts them, watches them, and starts others
in their place.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.errors import GateError
from mtlsgate.workers.backoff import Backoff
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import SOCKET, Channel, Handler, Refused, WorkerGone, connect
from mtlsgate.workers.first_attempts import FirstAttempts
from mtlsgate.workers.gathering import gathered
from mtlsgate.workers.log_relay import LogRelay
from mtlsgate.workers.member import Member
from mtlsgate.workers.spawning import Spawner

_log = Logger("mtlsgate.workers")

#: Seconds between two questions whether a worker is alive, and after how many of
#: silence it is called silent, and ended.
PING_EVERY, SILENT_AFTER, KILLED_AFTER = 5.0, 15.0, 60.0
#: Seconds that somebody waits for the answers of all workers.
PATIENCE = 2.0
#: Seconds that a worker may take to begin.
BEGIN_WITHIN = 300.0


class InForce(Protocol):
    """The epoch in force, for workers that start."""

    @property
    def lock(self) -> DeferredLock:
        """Held while another epoch takes over, or a worker begins."""

    def order(self, index: int, *, tells: bool) -> Mapping[str, Any]:
        """:returns: what a new worker is told."""

    @property
    def files(self) -> int:
        """A descriptor of the files of the epoch."""

    @property
    def sockets(self) -> Mapping[str, socket.socket]:
        """The listening sockets, by their keys."""

    @property
    def shadow(self) -> tuple[str | None, int | None]:
        """What somebody has put in the shadow, see `Shadows`, and a descriptor of its
        files."""


class Crew:
    """
    All workers.

    :ivar members: by their indexes.
    :ivar first_attempts: whether they begin when the gate is started.
    :ivar is_ending: whether nobody is replaced any more.
    """

    def __init__(
        self,
        size: int,
        board: Board,
        reactor: Any,
        relay: Callable[[str], object],
        lost: Callable[[Member], object],
        new_spawner: Callable[..., Spawner] = Spawner,
    ) -> None:
        """
        :param relay: gets what workers log, in lines.
        :param lost: called before a worker's process is forgotten.
        :param new_spawner: as `Spawner`.
        """
        self.members = [Member(index, Backoff(reactor.seconds)) for index in range(size)]
        self.first_attempts = FirstAttempts(size)
        self.is_ending = False
        self.spawner = new_spawner(reactor, self._started, self._ended)
        self._board = board
        self._reactor = reactor
        self._handlers: Mapping[str, Handler] = {}
        self._relay = relay
        self._lost = lost
        self._in_force: InForce | None = None
        self._all_ready: list[Deferred[None]] = []
        self._waiting: list[Deferred[None]] = []
        self._looked: float = reactor.seconds()
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor

    def start(
        self, in_force: InForce, handlers: Mapping[str, Handler], orders: socket.socket
    ) -> None:
        """
        :param in_force: the epoch in force, now and later.
        :param handlers: answer the workers' questions.
        :param orders: of the process that forks workers.
        """
        self._in_force, self._handlers = in_force, handlers
        self.spawner.adopt(orders)
        for member in self.members:
            self._bring_up(member)
        self._pinging.start(PING_EVERY, now=False)

    # What they are.

    @property
    def running(self) -> list[Member]:
        """Those that take connections."""
        return [one for one in self.members if one.state == "running"]

    @property
    def not_ready(self) -> str | None:
        """Why none of them accepts connections, in a few words, or None."""
        if any(one.restarts < 1 and one.state in ("starting", "waiting") for one in self.members):
            looping = [one for one in self.members if one.backoff.is_looping]
            return self.looping if looping and not self.running else "starting"
        if not self.running:
            return self.looping or "no worker runs"
        said = [one.not_ready for one in self.running]
        return said[0] if all(said) else None

    @property
    def looping(self) -> str | None:
        """Which of them keep ending, in a few words, or None."""
        names = [one.name for one in self.members if one.backoff.is_looping]
        return f"{' and '.join(names)} cannot be kept running: see the log" if names else None

    # One of them.

    def _bring_up(self, member: Member) -> None:
        if self.is_ending:
            return
        assert self._in_force is not None
        self._in_force.lock.run(self._begin, member)

    def _begin(self, member: Member) -> Deferred[None] | None:
        if self.is_ending:
            return None
        assert self._in_force is not None
        member.restarts += 1
        member.state, member.since = "starting", self._reactor.seconds()
        member.heard, member.pid = member.since, None
        tells = member.index == 0 and member.restarts == 0
        try:
            channel = self._order(member, self._in_force.order(member.index, tells=tells))
        except (WorkerGone, OSError) as error:
            _log.error("{name} cannot be started: {why}", name=member.name, why=str(error))
            self._later(member, had_run=False)
            return None
        for key, one in self._in_force.sockets.items():
            channel.give(f"{SOCKET}{key}", one.fileno()).addErrback(_is_told_elsewhere)
        shadow, files = self._in_force.shadow
        if files is not None:
            channel.give("files", files).addErrback(_is_told_elsewhere)
        told = {} if shadow is None else {"shadow": shadow}
        begun = channel.ask("begin", **told).addTimeout(BEGIN_WITHIN, self._reactor)
        return begun.addCallbacks(
            lambda _: self._runs(member), lambda failure: self._failed(member, failure)
        )

    def _order(self, member: Member, facts: Mapping[str, Any]) -> Channel:
        """:raises WorkerGone: if no process can be started now."""
        assert self._in_force is not None
        ours, theirs = socket.socketpair()
        log, their_log = socket.socketpair()
        with theirs, their_log:
            channel = Channel(self._handlers, lambda: self._gone(member, channel))
            try:
                member.number = self.spawner.order(
                    "work",
                    facts,
                    (
                        theirs.fileno(),
                        their_log.fileno(),
                        self._board.descriptor,
                        self._in_force.files,
                    ),
                )
            except BaseException:
                ours.close()
                log.close()
                raise
        member.channel = channel
        connect(ours, channel, self._reactor)
        log.setblocking(False)
        with log:
            self._reactor.adoptStreamConnection(log.fileno(), socket.AF_UNIX, LogRelay(self._relay))
        return channel

    def _runs(self, member: Member) -> None:
        self.first_attempts.ended(member.index)
        member.state = "draining" if self.is_ending else "running"
        member.backoff.runs()
        self._ask_how(member)
        if self.is_ending:
            member.ask("drain").addErrback(_is_told_elsewhere)
        if all(one.state == "running" for one in self.members):
            ready, self._all_ready = self._all_ready, []
            for waiting in ready:
                waiting.callback(None)

    def _failed(self, member: Member, failure: Failure) -> None:
        if failure.check(Refused):
            if self.first_attempts.awaits(member.index):
                self.first_attempts.ended(member.index, str(failure.value))
            else:
                _log.error("{name} cannot begin: {why}", name=member.name, why=str(failure.value))
        elif failure.check(TimeoutError):
            _log.error("{name} does not begin", name=member.name)
        self.kill(member)

    def kill(self, member: Member) -> None:
        """End a worker's process at once; another one takes its place."""
        self.end_process(member.number)
        if member.channel is not None:
            # If the spawner that forked it is gone, only this makes it end.
            member.channel.cut()

    def end_process(self, number: int) -> None:
        """:param number: from `Spawner.order`, of a process that may have ended."""
        with suppress(WorkerGone):
            self.spawner.kill(number)

    def _started(self, number: int, process: int) -> None:
        for member in self.members:
            if member.number == number:
                member.pid = process

    def _ended(self, number: int, status: int) -> None:
        for member in self.members:
            if member.number == number and status != 0:
                how = f"with status {status}" if status > 0 else f"by {_signal_name(-status)}"
                _log.warn("{name} ended {how}", name=member.name, how=how)

    def _gone(self, member: Member, channel: Channel) -> None:
        """A worker's process has ended."""
        if member.channel is not channel:
            return
        had_run = member.state in ("running", "draining")
        self._lost(member)
        member.channel, member.pid, member.state = None, None, "waiting"
        self._board.clear(member.index)
        if self.is_ending:
            self._look_for_the_last()
        else:
            self._later(member, had_run=had_run)

    def _later(self, member: Member, *, had_run: bool) -> None:
        self.first_attempts.ended(member.index)
        member.state = "waiting"
        delay = member.backoff.died(had_run=had_run)
        if delay:
            _log.warn(
                "{name} keeps ending: another one starts in {delay:.0f} s",
                name=member.name,
                delay=delay,
            )
        self._reactor.callLater(delay, self._bring_up, member)

    # All of them.

    def gather(
        self, name: str, members: Iterable[Member] | None = None, **values: object
    ) -> Deferred[list[tuple[Member, Any]]]:
        """
        Ask all that run.

        :returns: see `gathered`.
        """
        asked = self.running if members is None else members
        return gathered(asked, name, values, self._reactor)

    def ask_all(self, name: str, **values: object) -> Deferred[list[tuple[Member, Any]]]:
        """
        Ask all that have connections, for somebody who waits.

        :returns: as `gather`, but those that do not answer soon are left out, too.
        """
        asked = [
            one
            for one in self.members
            if one.state in ("running", "draining") and not self.is_silent(one)
        ]
        return gathered(asked, name, values, self._reactor, PATIENCE)

    def all_ready(self) -> Deferred[None]:
        """:returns: fires when all of them run."""
        if all(one.state == "running" for one in self.members):
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._all_ready.append(waiting)
        return waiting

    def drain(self) -> Deferred[None]:
        """
        Let all connections end, and the workers.

        :returns: fires when no worker is left.
        """
        if not self.is_ending:
            self.is_ending = True
            for member in self.running:
                member.state = "draining"
                member.ask("drain").addErrback(_is_told_elsewhere)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._look_for_the_last()
        return waiting

    def close_all(self) -> None:
        """End all connections at once."""
        for member in self.members:
            if member.channel is not None:
                member.ask("close_all").addErrback(_is_told_elsewhere)

    def _look_for_the_last(self) -> None:
        if any(one.channel is not None for one in self.members):
            return
        for one in self.members:
            self.first_attempts.ended(one.index)
        if self._pinging.running:
            self._pinging.stop()
        self.spawner.stop()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    def _ping(self) -> None:
        before, now = self._looked, self._reactor.seconds()
        self._looked = now
        if now - before >= SILENT_AFTER:
            # This process was stopped, and maybe all of them, as a frozen container's are.
            for member in self.members:
                member.heard = now
        for member in self.members:
            if member.channel is None or member.state == "starting":
                continue
            silent = now - member.heard
            if silent >= KILLED_AFTER:
                _log.error(
                    "{name} has not answered for {silent:.0f} s: it is ended",
                    name=member.name,
                    silent=silent,
                )
                self.kill(member)
            elif not member.is_asked:
                self._ask_how(member)

    def _ask_how(self, member: Member) -> None:
        assert member.channel is not None
        member.is_asked = True
        member.ask("ping").addBoth(self._heard, member, member.channel)

    def _heard(self, said: object, member: Member, channel: Channel) -> None:
        member.is_asked = False
        if member.channel is channel:
            member.heard = self._reactor.seconds()
            member.not_ready = said if isinstance(said, str) else None

    def is_silent(self, member: Member) -> bool:
        """:returns: whether a worker has not answered for a while."""
        silent: float = self._reactor.seconds() - member.heard
        return silent >= SILENT_AFTER


def _is_told_elsewhere(failure: Failure) -> None:
    """What a worker's end means is in `Crew._gone`."""
    if not failure.check(GateError):
        _log.failure("a worker failed", failure=failure)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
