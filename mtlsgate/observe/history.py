"""
How many clients were admitted and rejected in each minute of the last hour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime

from attrs import define

from mtlsgate.gate.events import AdmittedConnection, ClosedConnection, RejectedConnection, Reload
from mtlsgate.observe.server_status import HistoryStatus, ServerHistory
from mtlsgate.text import printable

#: How many minutes are remembered, the current one included.
MINUTES = 60


@define
class _Minute:
    """
    :ivar number: since the clock's zero.
    """

    number: int
    admitted: int = 0
    rejected: int = 0


class History:
    """
    The observer that counts by server and minute.

    Servers are forgotten an hour after their last client, so that the names of old
    epochs do not stay.

    :ivar _minutes: by server name, the oldest first; minutes without a client are left out.
    """

    def __init__(self, seconds: Callable[[], float], now: Callable[[], datetime]) -> None:
        """
        :param seconds: tells the time in seconds; it never goes back.
        :param now: tells the date.
        """
        self._seconds = seconds
        self._now = now
        self._minutes: dict[str, deque[_Minute]] = {}

    def admitted(self, connection: AdmittedConnection) -> None:
        """Count an admission."""
        self._minute(connection.server).admitted += 1

    def rejected(self, connection: RejectedConnection) -> None:
        """Count a rejection, unless it is a health check that left without a byte."""
        if not connection.is_health_check:
            self._minute(connection.server).rejected += 1

    def closed(self, connection: ClosedConnection) -> None:
        """Nothing to count."""

    def reloaded(self, reload: Reload) -> None:
        """Nothing to count."""

    def _minute(self, server: str) -> _Minute:
        number = int(self._seconds() // 60)
        minutes = self._minutes.get(server)
        if minutes is None:
            minutes = self._minutes[server] = deque(maxlen=MINUTES)
        if not minutes or minutes[-1].number != number:
            minutes.append(_Minute(number))
        return minutes[-1]

    def status(self) -> HistoryStatus:
        """:returns: the last hour, and forgets what is older."""
        current = int(self._seconds() // 60)
        first = current - MINUTES + 1
        for server, minutes in tuple(self._minutes.items()):
            if minutes[-1].number < first:
                del self._minutes[server]
        return HistoryStatus(
            at=self._now(),
            servers=tuple(
                _server(server, minutes, first) for server, minutes in self._minutes.items()
            ),
        )


def _server(name: str, minutes: deque[_Minute], first: int) -> ServerHistory:
    by_number = {one.number: one for one in minutes}
    found = [by_number.get(number, _Minute(number)) for number in range(first, first + MINUTES)]
    return ServerHistory(
        name=printable(name),
        admitted=tuple(one.admitted for one in found),
        rejected=tuple(one.rejected for one in found),
    )
