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

from cryptography import x509
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Pin, Rejection
from mtlsgate.certificates.parsing import sha256
from mtlsgate.gate.connection import Ending, Observer, Refusal, Reload, Terms, Visit
from mtlsgate.gate.deadlines import Deadlines
from mtlsgate.gate.limits import Tally, source_of
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.tls.server import utc_now

_log = Logger("mtlsgate.connections")

#: How many times within its time limit an idle connection is looked at.
_LOOKS = 4


class Connections:
    """
    Those of one gate.

    :ivar clock: for durations.
    :ivar observers: who is told what happens.
    :ivar arrivals: how many there have been, those included that limits kept out.
    :ivar _visits: all that are not over, by their numbers.
    :ivar _tallies: by the names of servers, which outlive epochs.
    :ivar _waiting: who waits for all to be over.
    :ivar _expiring: by when they are to end, in seconds since 1970.
    :ivar _idling: by when to look whether they are idle, in the clock's seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        observers: Iterable[Observer] = (),
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """
        :param clock: for durations.
        :param observers: who is told what happens.
        :param now: the time that certificates are judged by.
        """
        self.clock = clock
        self.observers = tuple(observers)
        self.now = now
        self.arrivals = 0
        self._visits: dict[int, Visit] = {}
        self._tallies: dict[str, Tally] = {}
        self._numbers = count(1)
        self._waiting: list[Deferred[None]] = []
        self._expiring = Deadlines[_Appointment](self._stands)
        self._idling = Deadlines[_Appointment](self._stands)

    def __iter__(self) -> Iterator[Visit]:
        """All connections, admitted or not, in the order in which they came."""
        return iter(tuple(self._visits.values()))

    def __len__(self) -> int:
        return len(self._visits)

    def get(self, number: int) -> Visit | None:
        """:returns: the connection of that number, if it is not over."""
        return self._visits.get(number)

    @property
    def tallies(self) -> dict[str, Tally]:
        """What is counted, by the names of servers."""
        return self._tallies

    def arrive(self, place: str, server: str, terms: Terms, address: IAddress) -> Visit | None:
        """
        :returns: the connection; None if a limit keeps it out, which observers
            have then been told.
        """
        self.arrivals += 1
        source = source_of(address)
        tally, began, at = self._tally(server), self.clock.seconds(), self.now()
        refusal = tally.refuse_arrival(terms.limits, source, began)
        if refusal is not None:
            self._tell_rejected(Refusal(at=at, server=server, address=address, rejection=refusal))
            return None
        number = next(self._numbers)
        visit = Visit(number, place, server, address, began, at, terms, source)
        self._visits[number] = visit
        tally.arrived(source)
        return visit

    def move(
        self, visit: Visit, server: str, terms: Terms, address: IAddress | None = None
    ) -> bool:
        """
        Count a connection as another server's, now that it is known whose it is.

        :param address: the client's, if it turned out to be another.
        :returns: whether it stays; if not, a limit of that server keeps it out,
            which observers have then been told, and it is over.
        """
        self._tally(visit.server).ended(visit.source, None, admitted=False)
        if address is not None:
            visit.address, visit.source = address, source_of(address)
        tally = self._tally(server)
        tally.arrived(visit.source)
        visit.server, visit.terms, visit.received_in_handshake = server, terms, 0
        refusal = tally.refuse_arrival(terms.limits, visit.source, self.clock.seconds(), here=1)
        if refusal is None:
            return True
        self.reject(visit, refusal)
        self.leave(visit)
        return False

    def _tally(self, server: str) -> Tally:
        tally = self._tallies.get(server)
        if tally is None:
            tally = self._tallies[server] = Tally()
        return tally

    def refuse_admission(self, visit: Visit, peer: VerifiedPeer | None) -> Rejection | None:
        """:returns: why a verified client cannot stay, or None."""
        tally = self._tallies[visit.server]
        return tally.refuse_admission(visit.terms.limits, _identity(peer))

    def admit(self, visit: Visit, peer: VerifiedPeer | None, pin: Pin | None = None) -> None:
        """Count a connection as admitted, and see to its end."""
        visit.peer, visit.identity, visit.pin = peer, _identity(peer), pin
        visit.admitted_at = self.clock.seconds()
        self._tallies[visit.server].admitted(visit.identity)
        self._see_to_the_end_of(visit)
        failed = self._tell(lambda observer: observer.admitted(visit))
        if failed is not None:
            # Nobody comes in who might not stand in the audit log.
            raise failed

    def _see_to_the_end_of(self, visit: Visit) -> None:
        if visit.peer is not None and visit.terms.close_on_expiry:
            at, _ = _end(visit.peer, visit.pin)
            self._expiring.add(at, (visit.number, visit._generation))
        if visit.terms.idle_timeout is not None:
            visit._traffic = (sum(visit.traffic), self.clock.seconds())
            self._look_again(visit, visit.terms.idle_timeout)

    def _look_again(self, visit: Visit, limit: float) -> None:
        at = self.clock.seconds() + limit / _LOOKS
        self._idling.add(at, (visit.number, visit._generation))

    def adopt(self, visit: Visit, server: str, terms: Terms, pin: Pin | None) -> None:
        """Hold an admitted connection to what another epoch says."""
        _no_longer_revoked(visit)
        if (visit.server, visit.terms, visit.pin) == (server, terms, pin):
            return
        if visit.server != server:
            self._tally(visit.server).ended(visit.source, visit.identity, admitted=True)
            tally = self._tally(server)
            tally.arrived(visit.source)
            tally.admitted(visit.identity)
        visit.server, visit.terms, visit.pin = server, terms, pin
        visit._generation += 1
        self._see_to_the_end_of(visit)

    def revoke(self, visit: Visit, grace: float, cause: Cause, detail: str) -> None:
        """:param grace: seconds after which to end the connection, if it is not
        adopted before; one that was to be ended sooner still is."""
        if visit.reprieve is not None:
            grace = min(grace, visit.reprieve.getTime() - self.clock.seconds())
        _no_longer_revoked(visit)
        if grace <= 0:
            self.close(visit, cause, detail)
        else:
            visit.reprieve = self.clock.callLater(grace, self.close, visit, cause, detail)

    def reject(
        self,
        visit: Visit,
        rejection: Rejection,
        *,
        leaf: x509.Certificate | None = None,
        server_name: str | None = None,
        tls_version: str | None = None,
    ) -> None:
        """Tell that a connection is turned away; it ends by itself.  Of one that
        the gate ended, that is told and not what it looks like from inside."""
        if visit.cause is not None:
            detail = f": {visit.detail}" if visit.detail else ""
            rejection = Rejection(Reason.CLOSED_BY_GATE, f"{visit.cause}{detail}")
        self._tell_rejected(
            Refusal(
                at=self.now(),
                server=visit.server,
                address=visit.address,
                rejection=rejection,
                visit=visit,
                leaf=leaf,
                server_name=server_name,
                tls_version=tls_version,
                seconds=self.clock.seconds() - visit.began,
            )
        )

    def leave(self, visit: Visit) -> None:
        """Count a connection no more."""
        self._count_out(visit)
        self._tell_if_none()

    def _count_out(self, visit: Visit) -> None:
        visit.ended, visit.abort = True, None
        _no_longer_revoked(visit)
        del self._visits[visit.number]
        self._tallies[visit.server].ended(
            visit.source, visit.identity, admitted=visit.admitted_at is not None
        )

    def _tell_if_none(self) -> None:
        if not self._visits:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def gone(self) -> Deferred[None]:
        """:returns: fires when there is no connection."""
        if not self._visits:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def end(self, visit: Visit, why: Failure, received: int, sent: int) -> None:
        """A connection is over."""
        self._count_out(visit)
        if visit.admitted_at is not None:
            self._tell_ended(visit, why, received, sent)
        # Last, for whoever waits for this may end what observers need.
        self._tell_if_none()

    def _tell_ended(self, visit: Visit, why: Failure, received: int, sent: int) -> None:
        assert visit.admitted_at is not None
        ending = Ending(
            at=self.now(),
            visit=visit,
            cause=visit.cause or _cause(visit, why),
            detail=visit.detail,
            seconds=self.clock.seconds() - visit.admitted_at,
            received=received,
            sent=sent,
        )
        self._tell(lambda observer: observer.ended(ending))

    def close(self, visit: Visit, cause: Cause, detail: str = "") -> None:
        """End a connection at once; closing it twice is once."""
        if visit.ended or visit.cause is not None:
            return
        visit.cause, visit.detail = cause, detail
        if visit.abort is not None:
            try:
                visit.abort()
            except Exception:  # noqa: BLE001 -- there are others to be ended
                _log.failure("{server}: a connection cannot be ended", server=visit.server)
                # So that it is tried again when there is another cause.
                visit.cause, visit.detail = None, ""

    def sweep(self) -> None:
        """End what has expired or been idle; to be called every second or so."""
        for number, _ in self._expiring.due(self.now().timestamp()):
            visit = self._visits[number]
            assert visit.peer is not None
            self.close(visit, _end(visit.peer, visit.pin)[1])
        for number, _ in self._idling.due(self.clock.seconds()):
            self._look_whether_idle(self._visits[number])

    def _stands(self, appointment: _Appointment) -> bool:
        number, generation = appointment
        visit = self._visits.get(number)
        return visit is not None and visit._generation == generation

    def _look_whether_idle(self, visit: Visit) -> None:
        limit, now = visit.terms.idle_timeout, self.clock.seconds()
        assert limit is not None
        before, since = visit._traffic
        total = sum(visit.traffic)
        if total != before:
            visit._traffic = (total, now)
        elif now - since >= limit:
            self.close(visit, Cause.IDLE_TIMEOUT, f"no byte for {limit:g} s")
            return
        self._look_again(visit, limit)

    def tell_reloaded(self, reload: Reload) -> None:
        """Tell observers that the configuration was loaded anew, or not."""
        self._tell(lambda observer: observer.reloaded(reload))

    def _tell_rejected(self, refusal: Refusal) -> None:
        self._tell(lambda observer: observer.rejected(refusal))

    def _tell(self, tell: Callable[[Observer], None]) -> Exception | None:
        """
        Tell every observer; one that fails, as none must, keeps nothing from the
        others, and does not keep a connection from being over.

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


#: A connection's number, and the generation of the terms under which it was
#: noted.  Not the connection: what is over is to be gone at once.
_Appointment = tuple[int, int]


def _identity(peer: VerifiedPeer | None) -> bytes | None:
    return None if peer is None else sha256(peer.leaf)


def _no_longer_revoked(visit: Visit) -> None:
    if visit.reprieve is not None and visit.reprieve.active():
        visit.reprieve.cancel()
    visit.reprieve = None


def _end(peer: VerifiedPeer, pin: Pin | None) -> tuple[float, Cause]:
    """:returns: from when on the client's certificate, or its pin, no longer
    counts, whichever comes first, in seconds since 1970."""
    # Validity counts in whole seconds, both ends included (RFC 5280, 4.1.2.5).
    expired = peer.not_after.timestamp() + 1
    retired = None if pin is None or pin.retire_after is None else pin.retire_after.timestamp()
    if retired is None or retired >= expired:
        return expired, Cause.CERTIFICATE_EXPIRED
    return retired, Cause.PIN_RETIRED


def _cause(visit: Visit, why: Failure) -> Cause:
    if visit.is_left:
        return Cause.APPLICATION
    is_clean = isinstance(why.value, ConnectionDone)
    return Cause.CLIENT if is_clean else Cause.CONNECTION_LOST
