"""
One epoch everywhere: the supervisor loads a configuration, has all workers prepare it,
and lets all of them take over, or none.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.clock import utc_now
from mtlsgate.errors import GateError
from mtlsgate.gate.events import Reload
from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.file_state import Opener, Stamp
from mtlsgate.load.outline import Configured, Outline
from mtlsgate.observe.observers import Observers
from mtlsgate.run.followers import Change, commit_all
from mtlsgate.run.listening import adapt_all, bind_all, keyed, release
from mtlsgate.run.shared_reloads import ReloadListener, SharedReloads
from mtlsgate.run.sockets import Sockets
from mtlsgate.run.threads import InThread
from mtlsgate.text import printable
from mtlsgate.workers.channel import SOCKET, Refused
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.member import Member
from mtlsgate.workers.preparing import Prepared, await_prepared, pair

_log = Logger("mtlsgate.workers")

#: Seconds that the process which loads the configuration may be silent.  Meanwhile no worker
#: is replaced.
PREPARED_WITHIN = 300.0

#: Prepares a part of the supervisor for another epoch; raises GateError.
Follow = Callable[[Configured], Change]


class Epochs:
    """
    The epoch in force, and reloads.

    :ivar outline: of the epoch in force.
    :ivar number: that epoch's; the first is 1.
    :ivar since: when it took over, in the clock's seconds.
    :ivar files: a descriptor of its files.
    :ivar seen: the files that the latest attempt read; dry runs do not count.
    :ivar is_draining: whether the gate is ending.
    """

    def __init__(
        self,
        names: Sequence[str],
        prepared: Prepared,
        outline: Outline,
        bound: Mapping[str, BoundSocket],
        sockets: Sockets,
        crew: Crew,
        observers: Observers,
        follow: Iterable[Follow],
        opener: Opener,
        reactor: Any,
        in_thread: InThread,
        listeners: Iterable[ReloadListener] = (),
    ) -> None:
        """
        :param names: the files and directories of the configuration, absolute.
        :param prepared: the first epoch.
        :param bound: its sockets.
        :param observers: are told of reloads.
        :param follow: prepare other parts that change with the epoch.
        :param opener: opens files for the process that loads the configuration.
        :param listeners: are told when a reload begins and ends.
        """
        assert prepared.files is not None
        self.outline = outline
        self.number = 1
        self.since: float = reactor.seconds()
        self.files = prepared.files
        self.seen: Mapping[Path, Stamp] = prepared.seen
        self._reloads = SharedReloads(
            lambda: self._attempt(self._take_over, is_trial=False), listeners
        )
        self.is_draining = False
        self.bound = dict(bound)
        self._names = names
        self._sockets = sockets
        self._crew = crew
        self._observers = observers
        self._follow = tuple(follow)
        self._opener = opener
        self._reactor = reactor
        self._in_thread = in_thread

    @property
    def last(self) -> Reload | None:
        """The latest reload that was no dry run, or None."""
        return self._reloads.last

    @property
    def lock(self) -> DeferredLock:
        """Held while another epoch takes over, or a worker begins."""
        return self._reloads.lock

    @property
    def sockets(self) -> dict[str, socket.socket]:
        """The listening sockets, by their keys."""
        return {key: one.sock for key, one in self.bound.items()}

    def stop_listening(self) -> None:
        """Release all addresses."""
        self.is_draining = True
        bound, self.bound = self.bound, {}
        release(bound.values())

    def reload(self, *, is_trial: bool = False) -> Deferred[Reload]:
        """
        Load the configuration, and let it take over in all workers if nothing is wrong
        with it.  All calls during a reload share the next one.

        :param is_trial: whether it is a dry run: only tell what would change.
        :returns: the result.  Errors in the file are a result, not a failure.
        """
        if is_trial:
            return self.lock.run(self._attempt, self._trial, is_trial=True)
        return self._reloads.ask()

    def _attempt(self, go_on: Any, *, is_trial: bool) -> Deferred[Reload]:
        return ensureDeferred(self._attempted(go_on, is_trial))

    async def _attempted(self, go_on: Any, is_trial: bool) -> Reload:
        began = self._reactor.seconds()
        try:
            report = await self._loaded(go_on, is_trial)
        except GateError as error:
            lines = str(error).split("\n")
            report = Reload(at=utc_now(), number=self.number, problems=tuple(map(printable, lines)))
        except Exception as error:  # noqa: BLE001 -- the gate goes on
            _log.failure("reloading the configuration failed")
            report = Reload(at=utc_now(), number=self.number, problems=(printable(repr(error)),))
        seconds = self._reactor.seconds() - began
        report = evolve(report, seconds=seconds, is_trial=is_trial)
        self._reloads.ended(report)
        for observer in self._observers.all:
            observer.reloaded(report)
        return report

    async def _loaded(self, go_on: Any, is_trial: bool) -> Reload:
        """:raises GateError: with everything that is wrong."""
        prepared = await self.prepared(self._names)
        if not is_trial:
            self.seen = prepared.seen
        try:
            outline = await self._in_thread(lambda: prepared.outline(self._names))
            report: Reload = await go_on(prepared, outline)
        except BaseException:
            prepared.close()
            raise
        if prepared.files != self.files:
            prepared.close()
        return report

    def prepared(self, names: Sequence[str], *, is_shadow: bool = False) -> Deferred[Prepared]:
        """
        Have a process load a configuration, and keep its files.

        :param names: its files and directories, absolute.
        :param is_shadow: whether it is one for the shadow.
        """
        ours, theirs = pair()
        with theirs:
            try:
                facts = {"names": names, "is_shadow": is_shadow}
                process = self._crew.spawner.order("prepare", facts, (theirs.fileno(),))
            except BaseException:
                ours.close()
                raise

        def wait() -> Prepared:
            with ours:
                ours.settimeout(PREPARED_WITHIN)
                return await_prepared(ours, self._opener)

        def give_up(failure: Failure) -> Failure:
            self._crew.end_process(process)
            return failure

        return self._in_thread(wait).addErrback(give_up)

    async def _take_over(self, prepared: Prepared, outline: Outline) -> Reload:
        """:raises GateError: if not all can take over; then nothing has changed."""
        number, assigned = self.number + 1, dict(keyed(outline.hosts, self._sockets.key_of))
        with ExitStack() as undo:
            bound = bind_all(outline.path, assigned, self._sockets, self.bound)
            undo.callback(release, bound.values())
            changes: list[Change] = []
            for follow in self._follow:
                changes.append(follow(outline))
                undo.callback(changes[-1].discard)
            undo.callback(partial(self._crew.gather, "discard"))
            made = await self._ask_all("prepare", prepared, bound, number=number)
            if self.is_draining:
                raise GateError("the gate is ending")
            undo.pop_all()
        files, self.files = self.files, _taken(prepared)
        Prepared(files, {}).close()
        before, self.outline = self.outline, outline
        self.number, self.since = number, self._reactor.seconds()
        for key in set(self.bound) - set(assigned):
            release([self.bound.pop(key)])
        self.bound |= bound
        adapt_all(self.bound, assigned)
        commit_all(changes)
        await self._all_take_over([member for member, _ in made], number)
        if before.settings.workers != outline.settings.workers:
            _log.warn("workers has changed: that takes effect when the gate is started again")
        return Reload(at=utc_now(), number=number, changes=_changes(made))

    async def _all_take_over(self, members: Sequence[Member], number: int) -> None:
        """End each worker that fails: it must not go on with the epoch before.  Another one
        begins with this epoch."""
        for member, answer in await self._crew.gather("take_over", members, number=number):
            if isinstance(answer, Refused):
                _log.error(
                    "{name} did not take over epoch {number}, and is ended: {why}",
                    name=member.name,
                    number=number,
                    why=str(answer),
                )
                self._crew.kill(member)

    async def _trial(self, prepared: Prepared, outline: Outline) -> Reload:
        made = await self._ask_all("dropped", prepared, {})
        dropped = tuple(line for _, one in made for line in one["dropped"])
        return Reload(at=utc_now(), number=self.number, changes=_changes(made), dropped=dropped)

    async def _ask_all(
        self, name: str, prepared: Prepared, bound: Mapping[str, BoundSocket], **values: object
    ) -> list[tuple[Member, Any]]:
        """:raises GateError: if a worker refuses."""
        running = self._crew.running
        for member in running:
            assert member.channel is not None
            for key, one in bound.items():
                member.channel.give(f"{SOCKET}{key}", one.sock.fileno()).addErrback(_is_gone)
            member.channel.give("files", _taken(prepared)).addErrback(_is_gone)
        made = await self._crew.gather(name, running, **values)
        refused = [(member, one) for member, one in made if isinstance(one, Refused)]
        if refused:
            member, why = refused[0]
            raise GateError(f"{member.name}: {why}")
        return made


def _taken(prepared: Prepared) -> int:
    assert prepared.files is not None
    return prepared.files


def _changes(made: Sequence[tuple[Member, Any]]) -> tuple[str, ...]:
    return tuple(made[0][1]["changes"]) if made else ()


def _is_gone(_: object) -> None:
    """That a worker has ended shows in its answer, too."""
