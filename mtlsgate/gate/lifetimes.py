"""
When connections end: when the certificate expires, the pin is retired, or the
connection is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from mtlsgate.admission.devices import Device
from mtlsgate.deadlines import Deadlines
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission
from mtlsgate.reasons import Cause, Reason

#: How often a connection is checked within its idle timeout.
_LOOKS = 4

#: A connection's number, and the generation of its terms.  It does not refer to the
#: connection, which must be freed when it is over.
_Appointment = tuple[int, int]


class Close(Protocol):
    """Ends a connection."""

    def __call__(
        self, entry: Entry, cause: Cause, detail: str = "", reason: Reason | None = None
    ) -> None: ...


class Lifetimes:
    """
    Watches admitted connections and ends them when their time is up.

    :ivar _entries: the connections that are not over, by their numbers.
    :ivar _expiring: when connections must end, in seconds since 1970.
    :ivar _idling: when to check whether connections are idle, in the clock's seconds.
    """

    def __init__(
        self,
        entries: Mapping[int, Entry],
        clock: IReactorTime,
        now: Callable[[], datetime],
        close: Close,
    ) -> None:
        """
        :param entries: the connections that are not over, by their numbers.
        :param clock: measures durations.
        :param now: returns the time to judge certificates by.
        :param close: ends a connection.
        """
        self._entries = entries
        self._clock = clock
        self._now = now
        self._close = close
        self._expiring = Deadlines[_Appointment](self._stands)
        self._idling = Deadlines[_Appointment](self._stands)

    def watch(self, entry: Entry, admission: Admission) -> None:
        """
        Watch a connection under its current terms.  Appointments made under earlier
        terms become void.
        """
        if admission.peer is not None and entry.terms.close_on_expiry:
            at, _ = _end(admission)
            self._expiring.add(at, (entry.arrival.number, entry.generation))
        if entry.terms.idle_timeout is not None:
            entry.last_traffic = (sum(entry.traffic), self._clock.seconds())
            self._look_again(entry, entry.terms.idle_timeout)

    def sweep(self) -> None:
        """End connections that have expired or are idle.  Call it about every second."""
        for number, _ in self._expiring.due(self._now().timestamp()):
            entry = self._entries[number]
            admission = entry.admission
            assert admission is not None
            _, cause = _end(admission)
            self._close(entry, cause, *_why(cause, admission.device))
        for number, _ in self._idling.due(self._clock.seconds()):
            self._look(self._entries[number])

    def _stands(self, appointment: _Appointment) -> bool:
        number, generation = appointment
        entry = self._entries.get(number)
        return entry is not None and entry.generation == generation

    def _look_again(self, entry: Entry, limit: float) -> None:
        at = self._clock.seconds() + limit / _LOOKS
        self._idling.add(at, (entry.arrival.number, entry.generation))

    def _look(self, entry: Entry) -> None:
        limit, now = entry.terms.idle_timeout, self._clock.seconds()
        assert limit is not None
        before, since = entry.last_traffic
        total = sum(entry.traffic)
        if total != before:
            entry.last_traffic = (total, now)
        elif now - since >= limit:
            self._close(entry, Cause.IDLE_TIMEOUT, f"no byte for {limit:g} s")
            return
        self._look_again(entry, limit)


def _end(admission: Admission) -> tuple[float, Cause]:
    """
    :returns: when the client's certificate, its pin or its listing in a registry becomes
        invalid, whichever comes first, in seconds since 1970; and which it is.
    """
    peer, pin, device = admission.peer, admission.pin, admission.device
    assert peer is not None
    # A certificate is valid until the end of its last second (RFC 5280, 4.1.2.5).
    ends = [(peer.not_after.timestamp() + 1, Cause.CERTIFICATE_EXPIRED)]
    if pin is not None and pin.retire_after is not None:
        ends.append((pin.retire_after.timestamp(), Cause.PIN_RETIRED))
    if device is not None and device.not_after is not None:
        ends.append((device.not_after.timestamp(), Cause.NO_LONGER_ADMITTED))
    return min(ends, key=itemgetter(0))


def _why(cause: Cause, device: Device | None) -> tuple[str, Reason | None]:
    """:returns: the detail, and why the client is no longer admitted."""
    if cause is not Cause.NO_LONGER_ADMITTED or device is None or device.not_after is None:
        return "", None
    reason = Reason.NOT_REGISTERED
    return f"{reason}: it was listed until {device.not_after.isoformat()}", reason
