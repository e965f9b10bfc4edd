"""
All connections, from arrival to end.

Only it knows who is connected.  It counts connections for the limits, ends
those that are idle or whose certificate has expired, and tells observers (the log,
the audit log, metrics) what happens.  It outlives epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import count

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Path, Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clock import utc_now
from mtlsgate.gate.dependents import Dependents
from mtlsgate.gate.entry import Endable, Entry
from mtlsgate.gate.events import (
    Admission,
    Arrival,
    ClosedConnection,
    Closing,
    Observer,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.judging import Held
from mtlsgate.gate.lifetimes import Lifetimes
from mtlsgate.gate.limits import Tally, source_of
from mtlsgate.gate.registries import NoRegistries, Registries, claim_of
from mtlsgate.gate.slices import Slices
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Cause, Reason

_log = Logger("mtlsgate.connections")


class Connections:
    """
    The connections of one service.

    :ivar clock: measures durations.
    :ivar observers: are told what happens.
    :ivar now: returns the time to judge certificates by.
    :ivar arrivals: how many connections came, including those that limits kept out.
    :ivar registries: say what is known of clients.
    :ivar dependents: which admissions depend on what registries say.
    :ivar slices: runs long tasks between the work on connections.
    :ivar _entries: the connections that are not over, by their numbers.
    :ivar _tallies: the counters, by server name; names outlive epochs.
    :ivar _waiting: Deferreds that fire when no connection is left.
    :ivar _lifetimes: ends connections when their time is up.
    """

    def __init__(
        self,
        clock: IReactorTime,
        observers: Iterable[Observer] = (),
        now: Callable[[], datetime] = utc_now,
        numbers: Iterator[int] | None = None,
        new_tally: Callable[[str], Tally] = lambda _: Tally(),
        registries: Registries | None = None,
    ) -> None:
        """
        :param clock: measures durations.
        :param observers: are told what happens.
        :param now: returns the time to judge certificates by.
        :param numbers: of connections; by default from 1.
        :param new_tally: makes the counters of a server, by its name.
        :param registries: say what is known of clients; None if none can be asked.
        """
        self.clock = clock
        self.observers = tuple(observers)
        self.now = now
        self.arrivals = 0
        self.registries: Registries = NoRegistries() if registries is None else registries
        self.dependents = Dependents()
        self.slices = Slices(clock)
        self._entries: dict[int, Entry] = {}
        self._tallies: dict[str, Tally] = {}
        self._numbers = count(1) if numbers is None else numbers
        self._new_tally = new_tally
        self._waiting: list[Deferred[None]] = []
        self._lifetimes = Lifetimes(self._entries, clock, now, self.close)

    def __iter__(self) -> Iterator[Entry]:
        """All connections, admitted or not, in the order in which they came."""
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, number: int) -> Entry | None:
        """:returns: the connection with this number, if it is not over."""
        return self._entries.get(number)

    @property
    def tallies(self) -> dict[str, Tally]:
        """The counters, by server name."""
        return self._tallies

    # Coming in.

    def arrive(self, listener: str, server: str, terms: Terms, address: IAddress) -> Entry | None:
        """
        Register an accepted connection.

        :param listener: the key of its listener.
        :returns: its entry; None if a limit keeps it out.  Observers have then been
            told.
        """
        self.arrivals += 1
        self.slices.look()
        source = source_of(address)
        tally, began, at = self._tally(server), self.clock.seconds(), self.now()
        rejection = tally.arrive(terms.limits, source, began)
        if rejection is not None:
            self._tell_rejected(
                RejectedConnection(at=at, server=server, address=address, rejection=rejection)
            )
            return None
        arrival = Arrival(
            number=next(self._numbers), listener=listener, address=address, at=at, began=began
        )
        entry = Entry(arrival, server, terms, source)
        self._entries[arrival.number] = entry
        return entry

    def attach(self, entry: Entry, connection: Endable) -> None:
        """:param connection: the connection itself, so that `Connections` can end it."""
        entry.connection = connection

    def move(
        self, entry: Entry, server: str, terms: Terms, address: IAddress | None = None
    ) -> bool:
        """
        Count a handshake for its server, when the server becomes known.

        :param address: the client's address, if a PROXY header has told it.
        :returns: whether it stays.  If not, a limit of that server keeps it out:
            observers have been told, and the connection is over.
        """
        self._tally(entry.server).ended(entry.source, None, admitted=False)
        if address is not None:
            entry.arrival = evolve(entry.arrival, address=address)
            entry.source = source_of(address)
        tally = self._tally(server)
        tally.arrived(entry.source)
        entry.server, entry.terms = server, terms
        with tally.elsewhere:
            now = self.clock.seconds()
            rejection = tally.refuse_arrival(terms.limits, entry.source, now, here=1)
        if rejection is None:
            return True
        self.reject(entry, rejection)
        self.leave(entry)
        return False

    def _tally(self, server: str) -> Tally:
        tally = self._tallies.get(server)
        if tally is None:
            tally = self._tallies[server] = self._new_tally(server)
        return tally

    def hold(self, entry: Entry, server: str, terms: Terms) -> None:
        """Apply another epoch's server and terms to a handshake, before admission."""
        if entry.server != server:
            self._tally(entry.server).ended(entry.source, None, admitted=False)
            self._tally(server).arrived(entry.source)
        entry.server, entry.terms = server, terms

    def refuse_admission(self, entry: Entry, identity: bytes | None) -> Rejection | None:
        """
        :param identity: the verified client's identity, or None.
        :returns: why it cannot stay, or None.
        """
        return self._tallies[entry.server].refuse_admission(entry.terms.limits, identity)

    def admit(self, entry: Entry, admission: Admission) -> Rejection | None:
        """
        Count a connection as admitted, and watch its lifetime.

        :returns: why it cannot stay, or None.  Another process may have reached a limit
            since `refuse_admission`.
        """
        tally = self._tallies[entry.server]
        rejection = tally.admit(entry.terms.limits, admission.identity)
        if rejection is not None:
            return rejection
        entry.admission = admission
        if admission.answers:
            self.dependents.add(entry.arrival.number, admission.answers)
        self._lifetimes.watch(entry, admission)
        admitted = entry.as_admitted(admission)
        failed = self._tell(lambda observer: observer.admitted(admitted))
        if failed is not None:
            # Without an audit record the client must not come in.
            raise failed
        return None

    def reject(
        self,
        entry: Entry,
        rejection: Rejection,
        *,
        leaf: Certificate | None = None,
        presented: Path = (),
        server_name: str | None = None,
        tls_version: str | None = None,
        received: int = 0,
    ) -> None:
        """
        Report that a connection is rejected.  The connection ends itself.  If the
        gate had already decided to end it, that reason is reported instead.

        :param presented: see `RejectedConnection.presented`.
        :param received: how many bytes came.
        """
        if entry.closing is not None:
            detail = f": {entry.closing.detail}" if entry.closing.detail else ""
            rejection = Rejection(Reason.CLOSED_BY_GATE, f"{entry.closing.cause}{detail}")
        arrival = entry.arrival
        self.slices.look()
        self._tell_rejected(
            RejectedConnection(
                at=self.now(),
                server=entry.server,
                address=arrival.address,
                rejection=rejection,
                number=arrival.number,
                listener=arrival.listener,
                leaf=leaf,
                presented=presented,
                server_name=server_name,
                tls_version=tls_version,
                seconds=self.clock.seconds() - arrival.began,
                received=received,
            )
        )

    # Staying.

    def adopt(self, entry: Entry, held: Held) -> None:
        """Apply another epoch's server, terms and rule to an admitted connection."""
        admission, number = entry.admission, entry.arrival.number
        assert admission is not None
        _no_longer_revoked(entry)
        if admission.answers != held.answers:
            self.dependents.remove(number, admission.answers)
            self.dependents.add(number, held.answers)
            admission = entry.admission = evolve(admission, answers=held.answers)
        held_to = (entry.server, entry.terms, admission.peer, admission.pin, admission.device)
        if held_to == (held.server, held.terms, held.peer, held.pin, held.device):
            return
        if entry.server != held.server:
            self._tally(entry.server).ended(entry.source, admission.identity, admitted=True)
            tally = self._tally(held.server)
            tally.arrived(entry.source)
            tally.admitted(admission.identity)
        is_elsewhere = (entry.server, entry.terms) != (held.server, held.terms)
        entry.server, entry.terms = held.server, held.terms
        entry.admission = evolve(admission, peer=held.peer, pin=held.pin, device=held.device)
        entry.generation += 1
        self._lifetimes.watch(entry, entry.admission)
        if is_elsewhere:
            # Last: a store may tell of a change meanwhile.
            claim = claim_of(held.server, held.terms, admission.identity)
            self.registries.move(claim, number)

    def revoke(self, entry: Entry, grace: float, why: Rejection) -> None:
        """
        End a connection later, unless an epoch admits it again before that.

        :param grace: how many seconds to wait.  An earlier end stays as it is.
        :param why: why it is no longer admitted.
        """
        if entry.reprieve is not None:
            grace = min(grace, entry.reprieve.getTime() - self.clock.seconds())
        _no_longer_revoked(entry)
        if grace <= 0:
            self.expel(entry, why)
        else:
            entry.reprieve = self.clock.callLater(grace, self.expel, entry, why)

    def sweep(self) -> None:
        """End connections that have expired or are idle.  Call it about every second."""
        self._lifetimes.sweep()

    # Going.

    def expel(self, entry: Entry, why: Rejection) -> None:
        """
        End a connection at once whose client is no longer admitted.

        :param why: why it is not.
        """
        self.close(entry, Cause.NO_LONGER_ADMITTED, f"{why.reason}: {why.detail}", why.reason)

    def close(
        self, entry: Entry, cause: Cause, detail: str = "", reason: Reason | None = None
    ) -> None:
        """End a connection at once.  A second call has no effect."""
        if entry.ended or entry.closing is not None:
            return
        entry.closing = Closing(cause=cause, detail=detail, reason=reason)
        if entry.connection is not None:
            try:
                entry.connection.abortConnection()
            except Exception:  # noqa: BLE001 -- there are others to be ended
                _log.failure("{server}: a connection cannot be ended", server=entry.server)
                # So that another cause can try again.
                entry.closing = None

    def leave(self, entry: Entry) -> None:
        """Stop counting a connection."""
        self._count_out(entry)
        self._tell_if_none()

    def end(
        self, entry: Entry, why: Failure, received: int, sent: int, *, by_application: bool = False
    ) -> None:
        """
        A connection is over.

        :param received: how many bytes the client sent to the application.
        :param sent: how many bytes it got from the application.
        :param by_application: whether the application ended it.
        """
        self._count_out(entry)
        if entry.admission is not None:
            cause = Cause.APPLICATION if by_application else _cause(why)
            self._tell_closed(entry, entry.admission, cause, received, sent)
        # Last: whoever waits for this may close what observers need.
        self._tell_if_none()

    def _tell_closed(
        self, entry: Entry, admission: Admission, cause: Cause, received: int, sent: int
    ) -> None:
        closing = entry.closing or Closing(cause=cause)
        closed = ClosedConnection(
            at=self.now(),
            connection=entry.as_admitted(admission),
            cause=closing.cause,
            detail=closing.detail,
            by_gate=entry.closing is not None,
            reason=closing.reason,
            seconds=self.clock.seconds() - admission.since,
            received=received,
            sent=sent,
        )
        self._tell(lambda observer: observer.closed(closed))

    def _count_out(self, entry: Entry) -> None:
        entry.ended, entry.connection = True, None
        self.registries.give_back(entry.arrival.number)
        _no_longer_revoked(entry)
        del self._entries[entry.arrival.number]
        if entry.admission is not None and entry.admission.answers:
            self.dependents.remove(entry.arrival.number, entry.admission.answers)
        self._tallies[entry.server].ended(
            entry.source, entry.identity, admitted=entry.admission is not None
        )

    def _tell_if_none(self) -> None:
        if not self._entries:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def gone(self) -> Deferred[None]:
        """:returns: a Deferred that fires when no connection is left."""
        if not self._entries:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    # Telling.

    def tell_reloaded(self, reload: Reload) -> None:
        """Tell observers about a reload, or a failed attempt."""
        self._tell(lambda observer: observer.reloaded(reload))

    def _tell_rejected(self, rejected: RejectedConnection) -> None:
        self._tell(lambda observer: observer.rejected(rejected))

    def _tell(self, tell: Callable[[Observer], None]) -> Exception | None:
        """
        Tell every observer.  If one fails, the others are still told, and the
        connection is still over.

        :returns: the first failure, or None.
        """
        first = None
        for observer in self.observers:
            try:
                tell(observer)
            except Exception as error:  # noqa: BLE001 -- see above
                _log.failure("{observer} failed", observer=type(observer).__name__)
                first = first or error
        return first


def _no_longer_revoked(entry: Entry) -> None:
    if entry.reprieve is not None and entry.reprieve.active():
        entry.reprieve.cancel()
    entry.reprieve = None


def _cause(why: Failure) -> Cause:
    return Cause.CLIENT if isinstance(why.value, ConnectionDone) else Cause.CONNECTION_LOST
