"""
Reloads the configuration: one attempt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.errors import GateError
from mtlsgate.gate.coroutines import later
from mtlsgate.gate.events import LiveConnection, Reload
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.peer import address_text
from mtlsgate.run.epoch_diff import epoch_diff
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.preparing import discard, needs_preparing, prepare
from mtlsgate.run.selftest import self_test
from mtlsgate.run.shared_reloads import ReloadListener, SharedReloads
from mtlsgate.run.threads import InThread
from mtlsgate.text import loggable, printable

_log = Logger("mtlsgate.service")

#: Loads the configuration, or raises `GateError`; gets whether it is a dry run.
Load = Callable[[bool], Epoch]


@frozen
class _Loaded:
    """
    An epoch that could take over.

    :ivar epoch: the epoch.
    :ivar changes: the differences from the epoch in force, in lines.
    """

    epoch: Epoch
    changes: tuple[str, ...]


class Reloader:
    """
    Loads epochs, and lets them take over; a dry run only tells what would change.

    :ivar _reloads: lets one attempt run at a time.
    """

    def __init__(
        self,
        runner: EpochRunner,
        load: Load,
        in_thread: InThread,
        listeners: Iterable[ReloadListener] = (),
    ) -> None:
        """
        :param runner: what an epoch takes over.
        :param load: loads the configuration.
        :param in_thread: runs it in a thread.
        :param listeners: are told when a reload begins and ends.
        """
        self._reloads = SharedReloads(
            lambda: self._attempt(self._reload, is_trial=False), listeners
        )
        self._runner = runner
        self._load = load
        self._in_thread = in_thread

    @property
    def last(self) -> Reload | None:
        """The latest reload that was no dry run, or None."""
        return self._reloads.last

    def reload(self, *, is_trial: bool = False) -> Deferred[Reload]:
        """
        Load the configuration, and let it take over if nothing is wrong with it.

        One reload runs at a time.  All calls during a reload share the next one.

        :param is_trial: whether it is a dry run: only tell what would change.
        :returns: the result.  Errors in the file are a result, not a failure.
        """
        if is_trial:
            return self._reloads.lock.run(self._attempt, self._trial, is_trial=True)
        return self._reloads.ask()

    def refresh(self, change: Callable[[Epoch], Epoch]) -> Deferred[tuple[str, ...]]:
        """
        Let the epoch in force go on with another document that was fetched.

        :param change: makes the epoch with the document; called in a thread.
        :returns: what changes for clients, in lines.  Fails with what `change` raises.
        """
        return self._reloads.lock.run(refresh, self._runner, change, self._in_thread)

    def _attempt(
        self, go_on: Callable[[_Loaded], Reload | Deferred[Reload]], *, is_trial: bool
    ) -> Deferred[Reload]:
        began = self._runner.connections.clock.seconds()

        def tell(report: Reload) -> Reload:
            seconds = self._runner.connections.clock.seconds() - began
            return self._tell(evolve(report, seconds=seconds, is_trial=is_trial))

        loading: Deferred[_Loaded] = self._in_thread(lambda: self._loaded(is_trial))
        made: Deferred[Reload] = loading.addCallback(go_on)
        return made.addErrback(self._failed).addCallback(tell)

    def _loaded(self, is_trial: bool) -> _Loaded:
        epoch = self._load(is_trial)
        self_test(epoch)
        # In the thread, because many pins or long revocation lists take a while.
        return _Loaded(epoch, epoch_diff(self._runner.epoch, epoch))

    def _reload(self, loaded: _Loaded) -> Reload | Deferred[Reload]:
        if not needs_preparing(loaded.epoch):
            return self._take_over(loaded)
        prepared: Deferred[Reload] | None = later(self._prepared(loaded))
        assert prepared is not None
        return prepared

    async def _prepared(self, loaded: _Loaded) -> Reload:
        await prepare(loaded.epoch, self._runner.epoch)
        try:
            return self._take_over(loaded)
        except BaseException:
            await discard(loaded.epoch)
            raise

    def _take_over(self, loaded: _Loaded) -> Reload:
        runner = self._runner
        runner.take_over(loaded.epoch)
        return Reload(at=runner.connections.now(), number=runner.number, changes=loaded.changes)

    def _failed(self, failure: Failure) -> Reload:
        if not failure.check(GateError):
            _log.failure("reloading the configuration failed", failure=failure)
        lines = str(failure.value) if failure.check(GateError) else repr(failure.value)
        problems = tuple(map(printable, lines.split("\n")))
        runner = self._runner
        return Reload(at=runner.connections.now(), number=runner.number, problems=problems)

    def _trial(self, loaded: _Loaded) -> Deferred[Reload]:
        runner = self._runner

        def told(dropped: tuple[str, ...]) -> Reload:
            return Reload(
                at=runner.connections.now(),
                number=runner.number,
                changes=loaded.changes,
                dropped=dropped,
            )

        return dropped_by(runner, loaded.epoch).addCallback(told)

    def _tell(self, report: Reload) -> Reload:
        self._reloads.ended(report)
        self._runner.connections.tell_reloaded(report)
        return report


def refresh(
    runner: EpochRunner, change: Callable[[Epoch], Epoch], in_thread: InThread
) -> Deferred[tuple[str, ...]]:
    """
    Let the epoch in force go on with another document that was fetched.

    :param change: makes the epoch with the document; called in a thread.
    :returns: what changes for clients, in lines.  Fails with what `change` raises.
    """
    before = runner.epoch

    def made() -> _Loaded:
        after = change(before)
        if after is not before:
            self_test(after)
        return _Loaded(after, epoch_diff(before, after))

    def take(loaded: _Loaded) -> tuple[str, ...] | Deferred[tuple[str, ...]]:
        if runner.epoch is not before:
            # Another epoch took over meanwhile.
            return refresh(runner, change, in_thread)
        if loaded.epoch is not before:
            runner.refresh(loaded.epoch)
        return loaded.changes

    return in_thread(made).addCallback(take)


def dropped_by(runner: EpochRunner, epoch: Epoch) -> Deferred[tuple[str, ...]]:
    """:returns: the clients that an epoch would not admit, in lines."""
    dropped: list[str] = []

    def look() -> Iterator[None]:
        for one, why in runner.handover(epoch).dropped(runner.connections):
            if why is not None:
                dropped.append(_dropped(one, why))
            yield

    # One client a step: ten thousand take seconds.
    return runner.cooperator.coiterate(look()).addCallback(lambda _: tuple(dropped))


def _dropped(one: LiveConnection, why: Rejection) -> str:
    """:returns: whom it would drop, and why; written like a line of the log."""
    facts = [f"connection={one.arrival.number}"]
    peer = None if one.admission is None else one.admission.peer
    if peer is not None:
        facts += [f"subject={loggable(subject_of(peer.certificates[0]))}", f"sha256={peer.sha256}"]
    address, detail = address_text(one.arrival.address), loggable(why.detail)
    return printable(f"{one.server}: {address}: {why.reason}: {detail} [{' '.join(facts)}]")
