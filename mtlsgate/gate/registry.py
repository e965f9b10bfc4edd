"""
Every connection there is, from its arrival to its end.

The one place that knows who is connected: it counts for the limits, ends what
has been idle or outlived its certificate, and tells observers (the log, the
audit log, metrics) what happens.  It outlives epochs.
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

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.clock import utc_now
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
from mtlsgate.gate.slices import Slices
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Cause, Reason

_log = Logger("mtlsgate.connections")


class Registry:
    """
    The connections of one service.

    :ivar clock: for durations.
    :ivar observers: are told what happens.
    :ivar now: the time that certificates are judged by.
    :ivar arrivals: how many connections came, those included that limits kept out.
    :ivar slices: runs what takes long beside the connections that come and go.
    :ivar _entries: all that are not over, by their numbers.
    :ivar _tallies: by the names of servers, which outlive epochs.
    :ivar _waiting: fire when all are over.
    :ivar _lifetimes: ends connections when their time has come.
    """

    def __init__(
        self,
        clock: IReactorTime,
        observers: Iterable[Observer] = (),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        :param clock: for durations.
        :param observers: are told what happens.
        :param now: the time that certificates are judged by.
        """
        self.clock = clock
        self.observers = tuple(observers)
        self.now = now
        self.arrivals = 0
        self.slices = Slices(clock)
        self._entries: dict[int, Entry] = {}
        self._tallies: dict[str, Tally] = {}
        self._numbers = count(1)
        self._waiting: list[Deferred[None]] = []
        self._lifetimes = Lifetimes(self._entries, clock, now, self.close)

    def __iter__(self) -> Iterator[Entry]:
        """All connections, admitted or not, in the order in which they came."""
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, number: int) -> Entry | None:
        """:returns: the connection of that number, if it is not over."""
        return self._entries.get(number)

    @property
    def tallies(self) -> dict[str, Tally]:
        """What is counted, by the names of servers."""
        return self._tallies

    # Coming in.

    def arrive(self, listener: str, server: str, terms: Terms, address: IAddress) -> Entry | None:
        """
        Take note of a connection that was accepted.

        :param listener: the key of the listener it came to.
        :returns: its entry; None if a limit keeps it out, which observers have
            then been told.
        """
        self.arrivals += 1
        self.slices.look()
        source = source_of(address)
        tally, began, at = self._tally(server), self.clock.seconds(), self.now()
        rejection = tally.refuse_arrival(terms.limits, source, began)
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
        tally.arrived(source)
        return entry

    def attach(self, entry: Entry, connection: Endable) -> None:
        """:param connection: what there is to end, from now on."""
        entry.connection = connection

    def move(
        self, entry: Entry, server: str, terms: Terms, address: IAddress | None = None
    ) -> bool:
        """
        Count a handshake as another server's, now that it is known whose it is.

        :param address: the client's, if it turned out to be another.
        :returns: whether it stays; if not, a limit of that server keeps it out,
            which observers have then been told, and it is over.
        """
        self._tally(entry.server).ended(entry.source, None, admitted=False)
        if address is not None:
            entry.arrival = evolve(entry.arrival, address=address)
            entry.source = source_of(address)
        tally = self._tally(server)
        tally.arrived(entry.source)
        entry.server, entry.terms = server, terms
        rejection = tally.refuse_arrival(terms.limits, entry.source, self.clock.seconds(), here=1)
        if rejection is None:
            return True
        self.reject(entry, rejection)
        self.leave(entry)
        return False

    def _tally(self, server: str) -> Tally:
        tally = self._tallies.get(server)
        if tally is None:
            tally = self._tallies[server] = Tally()
        return tally

    def hold(self, entry: Entry, server: str, terms: Terms) -> None:
        """Hold a handshake to what another epoch says, before it is admitted."""
        if entry.server != server:
            self._tally(entry.server).ended(entry.source, None, admitted=False)
            self._tally(server).arrived(entry.source)
        entry.server, entry.terms = server, terms

    def refuse_admission(self, entry: Entry, identity: bytes | None) -> Rejection | None:
        """
        :param identity: the verified client's, or None.
        :returns: why it cannot stay, or None.
        """
        return self._tallies[entry.server].refuse_admission(entry.terms.limits, identity)

    def admit(self, entry: Entry, admission: Admission) -> None:
        """Count a connection as admitted, and see to its end."""
        entry.admission = admission
        self._tallies[entry.server].admitted(admission.identity)
        self._lifetimes.watch(entry, admission)
        admitted = entry.as_admitted(admission)
        failed = self._tell(lambda observer: observer.admitted(admitted))
        if failed is not None:
            # Nobody comes in who might not stand in the audit log.
            raise failed

    def reject(
        self,
        entry: Entry,
        rejection: Rejection,
        *,
        leaf: Certificate | None = None,
        server_name: str | None = None,
        tls_version: str | None = None,
        received: int = 0,
    ) -> None:
        """
        Tell that a connection is turned away; it ends by itself.  If the gate
        ended it, that is told, and not what it looks like from inside.

        :param received: bytes that came.
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
                server_name=server_name,
                tls_version=tls_version,
                seconds=self.clock.seconds() - arrival.began,
                received=received,
            )
        )

    # Staying.

    def adopt(self, entry: Entry, held: Held) -> None:
        """Hold an admitted connection to what another epoch says."""
        admission = entry.admission
        assert admission is not None
        _no_longer_revoked(entry)
        held_to = (entry.server, entry.terms, admission.peer, admission.pin)
        if held_to == (held.server, held.terms, held.peer, held.pin):
            return
        if entry.server != held.server:
            self._tally(entry.server).ended(entry.source, admission.identity, admitted=True)
            tally = self._tally(held.server)
            tally.arrived(entry.source)
            tally.admitted(admission.identity)
        entry.server, entry.terms = held.server, held.terms
        entry.admission = evolve(admission, peer=held.peer, pin=held.pin)
        entry.generation += 1
        self._lifetimes.watch(entry, entry.admission)

    def revoke(self, entry: Entry, grace: float, cause: Cause, detail: str) -> None:
        """
        :param grace: seconds after which to end the connection, unless it is
            adopted before; one that was to be ended sooner still is.
        """
        if entry.reprieve is not None:
            grace = min(grace, entry.reprieve.getTime() - self.clock.seconds())
        _no_longer_revoked(entry)
        if grace <= 0:
            self.close(entry, cause, detail)
        else:
            entry.reprieve = self.clock.callLater(grace, self.close, entry, cause, detail)

    def sweep(self) -> None:
        """End what has expired or been idle; to be called every second or so."""
        self._lifetimes.sweep()

    # Going.

    def close(self, entry: Entry, cause: Cause, detail: str = "") -> None:
        """End a connection at once; closing it twice is once."""
        if entry.ended or entry.closing is not None:
            return
        entry.closing = Closing(cause=cause, detail=detail)
        if entry.connection is not None:
            try:
                entry.connection.abortConnection()
            except Exception:  # noqa: BLE001 -- there are others to be ended
                _log.failure("{server}: a connection cannot be ended", server=entry.server)
                # So that it is tried again when there is another cause.
                entry.closing = None

    def leave(self, entry: Entry) -> None:
        """Count a connection no more."""
        self._count_out(entry)
        self._tell_if_none()

    def end(
        self, entry: Entry, why: Failure, received: int, sent: int, *, by_application: bool = False
    ) -> None:
        """
        A connection is over.

        :param received: bytes that the client sent to the application.
        :param sent: bytes that it got from it.
        :param by_application: whether the application had ended it.
        """
        self._count_out(entry)
        if entry.admission is not None:
            cause = Cause.APPLICATION if by_application else _cause(why)
            self._tell_closed(entry, entry.admission, cause, received, sent)
        # Last, for whoever waits for this may end what observers need.
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
            seconds=self.clock.seconds() - admission.since,
            received=received,
            sent=sent,
        )
        self._tell(lambda observer: observer.closed(closed))

    def _count_out(self, entry: Entry) -> None:
        entry.ended, entry.connection = True, None
        _no_longer_revoked(entry)
        del self._entries[entry.arrival.number]
        self._tallies[entry.server].ended(
            entry.source, entry.identity, admitted=entry.admission is not None
        )

    def _tell_if_none(self) -> None:
        if not self._entries:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def gone(self) -> Deferred[None]:
        """:returns: fires when there is no connection."""
        if not self._entries:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    # Telling.

    def tell_reloaded(self, reload: Reload) -> None:
        """Tell observers that the configuration was loaded anew, or not."""
        self._tell(lambda observer: observer.reloaded(reload))

    def _tell_rejected(self, rejected: RejectedConnection) -> None:
        self._tell(lambda observer: observer.rejected(rejected))

    def _tell(self, tell: Callable[[Observer], None]) -> Exception | None:
        """
        Tell every observer.  None may fail; if one does, the others are told all
        the same, and the connection is over all the same.

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
