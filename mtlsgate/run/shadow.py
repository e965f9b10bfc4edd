"""
Has the configuration in the shadow judge every client, too.

It is told of each handshake after the gate has decided, and judges the client a little later.
Whatever happens here, the client does not notice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mtlsgate.admission import Path
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.shadow import (
    JUDGED_AGAIN,
    NotJudged,
    Outcome,
    ShadowVerdict,
    Standing,
)
from mtlsgate.load.addresses import Address
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.identities import supplied
from mtlsgate.load.refresh import with_lists_of
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.observe.shadow_log import log_verdict
from mtlsgate.observe.shadow_tally import ShadowTally
from mtlsgate.run.listening import places_of
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.rejudging import Handover
from mtlsgate.run.shadow_asking import Asked, Asking
from mtlsgate.run.shadow_judging import Seen, ShadowJudge, Unanswered
from mtlsgate.run.shadow_seeing import rejected, seeing
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import printable

_log = Logger("mtlsgate.shadow")

#: For how long clients are judged in one go, and the pause after that, in seconds.  In one go a
#: client costs less than half of what it would cost within its handshake.  Judging takes at most
#: 4 % of the time, however many clients come.
SLICE, PAUSE = 0.002, 0.048
#: How many clients may wait; rejected ones wait only while fewer than half as many do, because
#: anybody can be one.
MOST_WAITING = 10_000


@frozen
class InShadow:
    """
    What is in the shadow.

    :ivar shadow: the configuration.
    :ivar set_by: who has put it there.
    :ivar since: since when clients are counted.
    :ivar judge: judges by it; None if there is something wrong with it.
    :ivar tally: what was counted.
    :ivar out: the numbers of the live connections that would not be admitted.
    """

    shadow: Shadow
    set_by: Literal["settings", "ctl"]
    since: datetime
    judge: ShadowJudge | None
    tally: ShadowTally = field(factory=ShadowTally)
    out: set[int] = field(factory=set)


class Shadowing:
    """
    The observer that has every client judged by the configuration in the shadow.

    :ivar now: what is in the shadow, or None.
    :ivar _arrived: the clients that came since the latest slice.
    :ivar _live: those that were connected when it began.
    :ivar _unverified: those for whom OpenSSL must verify a path.
    :ivar _asking: those about whom its registries are asked.
    :ivar _epoch: the one in force.
    :ivar _seeing: what there is to know of its clients.
    :ivar _connected: the numbers of the connections that are admitted and not over.
    """

    def __init__(
        self,
        epoch: Epoch,
        key_of: Callable[[Address], str],
        clock: IReactorTime,
        observers: Observers,
        agents: Agents,
        registries: Desks,
        now: Callable[[], datetime],
        *,
        tells: bool = True,
    ) -> None:
        """
        :param epoch: the first epoch in force.
        :param key_of: gives an address its key, as listeners have it.
        :param observers: the audit log is told of other verdicts, and those who wait for
            changes of all.
        :param agents: what SPIFFE agents have delivered.
        :param registries: for the shadow alone.
        :param now: returns the time to judge by.
        :param tells: whether it logs what the settings put in the shadow.
        """
        self._tells = tells
        self._arrived = deque[tuple[AdmittedConnection | RejectedConnection, Path | None]]()
        self._live = deque[Entry]()
        self._unverified = deque[Seen]()
        self._connected = set[int]()
        self._key_of = key_of
        self._clock = clock
        self._audit = observers.audit
        self._changes = observers.changes
        self._agents = agents
        self._asking = Asking(registries, self._go_on)
        self._time = now
        self._epoch = epoch
        self._seeing = seeing(epoch, None)
        self._timer: IDelayedCall | None = None
        self._has_failed = False
        self.now: InShadow | None = None
        if epoch.shadow is not None:
            self._put(epoch.shadow, "settings", ())

    # What is in the shadow.

    def follow(self, epoch: Epoch, connections: Iterable[Entry]) -> None:
        """
        Another epoch is in force.  What somebody has put in the shadow stays there.

        :param connections: all there are.
        """
        self._in_force(epoch)
        if self.now is not None and self.now.set_by == "ctl":
            return
        if epoch.shadow is None:
            self._take_away()
        elif self.now is None or not _is_same(self.now.shadow, epoch.shadow):
            self._put(epoch.shadow, "settings", connections)
        elif epoch.shadow.epoch is not None:
            # The files are the same; documents that were fetched may be newer.
            self._go_on_with(self.now, epoch.shadow)

    def _in_force(self, epoch: Epoch) -> None:
        then = None if self.now is None else self.now.shadow.epoch
        self._epoch, self._seeing = epoch, seeing(epoch, then)

    def _go_on_with(self, now: InShadow, shadow: Shadow) -> None:
        """Judge by the same configuration with other documents."""
        self.now = evolve(now, shadow=shadow, judge=self._judge(shadow))
        self._in_force(self._epoch)

    def changed(self, connections: Iterable[Entry]) -> None:
        """The epoch in force has changed something for clients: count from now on."""
        if self.now is not None:
            self._put(self.now.shadow, self.now.set_by, connections)

    def refreshed(self, epoch: Epoch) -> None:
        """The epoch in force goes on with what was fetched or delivered."""
        self._in_force(epoch)
        if self.now is None or self.now.shadow.epoch is None:
            return
        listed = with_lists_of(self.now.shadow.epoch, epoch)
        after = supplied(listed, self._agents, self._time())
        if after is not self.now.shadow.epoch:
            self._go_on_with(self.now, evolve(self.now.shadow, epoch=after))

    def put(self, shadow: Shadow, connections: Iterable[Entry]) -> None:
        """
        Somebody puts a configuration in the shadow.

        :param shadow: without problems.
        :param connections: all there are.
        """
        self._put(shadow, "ctl", connections)

    def end(self) -> None:
        """Somebody ends it.  What the settings name comes back with the next reload."""
        self._take_away()

    def stop(self) -> None:
        """The gate ends."""
        self._take_away()
        self._asking.stop()

    def registry_states(self) -> tuple[RegistryStatus, ...]:
        """:returns: how the registries that the shadow asks are."""
        return self._asking.desks.states()

    def _put(
        self,
        shadow: Shadow,
        set_by: Literal["settings", "ctl"],
        connections: Iterable[Entry],
    ) -> None:
        self._take_away()
        self._has_failed = False
        self.now = InShadow(shadow, set_by, self._time(), self._judge(shadow))
        self._in_force(self._epoch)
        if self.now.judge is not None:
            self._live.extend(one for one in connections if one.admission is not None)
            self._connected = {one.arrival.number for one in self._live}
            self._go_on()
        if self._tells and set_by == "settings" and self.now.judge is not None:
            _log.info(
                "{file} is in the shadow: it judges every client, and changes nothing",
                file=printable(shadow.path),
            )

    def _judge(self, shadow: Shadow) -> ShadowJudge | None:
        if shadow.epoch is None:
            return None
        self._asking.turn_to(shadow.epoch.registries)
        handover = Handover(places_of(shadow.epoch, self._key_of))
        return ShadowJudge(shadow, shadow.epoch, handover, self._asking.desks)

    def _take_away(self) -> None:
        self.now = None
        for queue in (self._arrived, self._live, self._unverified):
            queue.clear()
        self._asking.clear()
        self._connected.clear()

    @property
    def waiting(self) -> int:
        """How many clients are judged later."""
        return len(self._arrived) + len(self._unverified) + len(self._asking)

    # What happens to connections.

    def admitted(self, connection: AdmittedConnection) -> None:
        """Have a client judged that was admitted."""
        if self.now is None or self.now.judge is None:
            return
        try:
            self._connected.add(connection.arrival.number)
            # Ask now what it has sent: later the connection may be gone.
            admission, presented = connection.admission, connection.presented
            sent = self._seeing.sent(connection.server, admission, presented)
            self._come(connection, MOST_WAITING, sent)
        except Exception:  # noqa: BLE001 -- whatever it is, the client must not notice
            self._failed(self.now)

    def rejected(self, connection: RejectedConnection) -> None:
        """Have a client judged that was rejected, if the shadow may see that in another way."""
        if self.now is None or self.now.judge is None:
            return
        if connection.rejection.reason.about in JUDGED_AGAIN:
            self._come(connection, MOST_WAITING // 2)

    def closed(self, connection: ClosedConnection) -> None:
        """A connection is over."""
        if self.now is not None:
            number = connection.connection.arrival.number
            self._connected.discard(number)
            self.now.out.discard(number)

    def reloaded(self, reload: Reload) -> None:
        """Nothing to judge: see `changed`."""

    def _come(
        self,
        connection: AdmittedConnection | RejectedConnection,
        most: int,
        sent: Path | None = None,
    ) -> None:
        """Let a client wait, unless too many do."""
        if self.waiting >= most:
            assert self.now is not None
            self.now.tally.note_not_judged(connection.server, NotJudged.BUSY)
            return
        self._arrived.append((connection, sent))
        self._go_on()

    def _go_on(self, used: float = 0.0) -> None:
        """:param used: how long the slice before took, in seconds."""
        if self._timer is None:
            pause = max(PAUSE, used * PAUSE / SLICE)
            self._timer = self._clock.callLater(pause, self._slice)

    # Judging them.

    def _slice(self) -> None:
        self._timer = None
        began = self._clock.seconds()
        if self._is_more:
            self._changes.happened()
        while self.now is not None and self.now.judge is not None and self._is_more:
            used = self._clock.seconds() - began
            if used >= SLICE:
                # One search may take longer: then the pause is longer, too.
                self._go_on(used)
                return
            try:
                self._step(self.now, self.now.judge)
            except Exception:  # noqa: BLE001 -- there are others
                self._failed(self.now)

    @property
    def _is_more(self) -> bool:
        return bool(self._asking.answered or self._arrived or self._live or self._unverified)

    def _step(self, now: InShadow, judge: ShadowJudge) -> None:
        """Judge one client.  Those for whom a path must be verified come last."""
        found = self._next(judge)
        if found is None:
            return
        client, then = found
        if isinstance(then, Unanswered):
            if self._asking.ask(client, then.questions):
                return
            then = NotJudged.NOT_ASKED
        self._note(now, client.seen, then)

    def _next(self, judge: ShadowJudge) -> tuple[Asked, Standing | NotJudged | Unanswered] | None:
        """:returns: the next client and its verdict; None if there is nothing to judge yet."""
        if self._asking.answered:
            client = self._asking.answered.popleft()
            return client, judge.searched(client.seen, self._time(), client.given)
        if self._arrived:
            seen = self._seen(*self._arrived.popleft())
            if seen is None:
                return None
            then = judge.at_sight(seen, self._time())
            if then is None:
                self._unverified.append(seen)
                return None
            return Asked(seen), then
        seen = self._connected_one() if self._live else self._unverified.popleft()
        return None if seen is None else (Asked(seen), judge.searched(seen, self._time()))

    def _connected_one(self) -> Seen | None:
        """:returns: the next of those that were connected; None if it is gone, or is not
        admitted yet: then it is judged as it comes in."""
        one = self._live.popleft()
        if one.admission is None or one.ended:
            return None
        sent = self._seeing.sent(one.server, one.admission, one.presented)
        return self._seeing.admitted(one.arrival, one.server, one.admission, sent, is_live=True)

    def _seen(
        self, connection: AdmittedConnection | RejectedConnection, sent: Path | None
    ) -> Seen | None:
        """:returns: a client; None if nothing is to be judged."""
        if isinstance(connection, RejectedConnection):
            return rejected(connection)
        return self._seeing.admitted(
            connection.arrival, connection.server, connection.admission, sent
        )

    def _failed(self, now: InShadow) -> None:
        if not self._has_failed:
            # Log it once: it may happen to every client.
            self._has_failed = True
            _log.failure("{file}: judging a client failed", file=printable(now.shadow.path))
        now.tally.note_not_judged("", NotJudged.INTERNAL_ERROR)

    def _note(self, now: InShadow, seen: Seen, then: Standing | NotJudged) -> None:
        verdict = ShadowVerdict(
            at=self._time(),
            connection=seen.connection,
            address=seen.address,
            leaf=seen.leaf,
            now=seen.now,
            then=then if isinstance(then, Standing) else None,
            not_judged=None if isinstance(then, Standing) else then,
            is_live=seen.is_live,
        )
        outcome = verdict.outcome
        if outcome is Outcome.WOULD_BE_OUT and seen.connection in self._connected:
            now.out.add(seen.connection)
        is_news = now.tally.note(verdict)
        if outcome not in (Outcome.SAME, Outcome.NOT_JUDGED):
            self._audit.shadowed(verdict, now.shadow.path)
        if is_news:
            log_verdict(verdict, now.shadow.path)


def _is_same(one: Shadow, other: Shadow) -> bool:
    """:returns: whether both are of the same files in the same state."""
    return (one.path, one.problems) == (other.path, other.problems) and one.seen == other.seen
