"""
Warns when a deadline comes near while the gate runs.

What is near when a configuration is loaded is a warning of that load.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from twisted.logger import Logger

from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import Expiry, Kind
from mtlsgate.run.regular import RegularService
from mtlsgate.text import printable

_log = Logger("mtlsgate.deadlines")

#: Seconds between two looks.
INTERVAL = 60.0

_WORDS = {
    Kind.SERVER_CERTIFICATE: "a certificate of the server expires",
    Kind.CA: "a CA expires",
    Kind.PIN: "a pin expires or is retired",
    Kind.PIN_NOT_BEFORE: "a pin begins to count",
    Kind.CRL: "a revocation list is to be replaced by",
    Kind.CLIENT_CERTIFICATE: "the client certificate expires",
    Kind.TARGET_CA: "a target's CA expires",
    Kind.TARGET_PIN: "a target's pin expires",
}


class DeadlineWatch(RegularService):
    """
    Looks at the deadlines of the epoch in force.

    :ivar _expiries: those of the last look.  Not the epoch, which is to be freed.
    :ivar _said: the deadlines that were near at the last look.
    """

    def __init__(
        self, epoch: Callable[[], Epoch], now: Callable[[], datetime], reactor: Any
    ) -> None:
        """
        :param epoch: tells the epoch in force.
        :param now: tells the time that certificates are judged by.
        """
        super().__init__(INTERVAL, reactor)
        self._in_force = epoch
        self._now = now
        self._expiries: tuple[Expiry, ...] | None = None
        self._said: set[tuple[Expiry, datetime | None]] = set()

    def look(self) -> None:
        """Log the deadlines that have come near since the last look."""
        now, expiries = self._now(), self._in_force().expiries
        near = {(one, one.next(now)) for one in expiries if one.is_due(now)}
        if expiries is self._expiries:
            for one, at in sorted(near - self._said, key=_order):
                assert at is not None
                rule = "" if one.rule is None else f"rule {one.rule}: "
                text = f"{one.server}: {rule}{_WORDS[one.kind]} {at:%Y-%m-%d %H:%M:%SZ}"
                _log.warn(
                    "{text}",
                    text=printable(text),
                    server=one.server,
                    rule=one.rule,
                    kind=one.kind.value,
                    at=at,
                )
        self._expiries, self._said = expiries, near


def _order(found: tuple[Expiry, datetime | None]) -> tuple[str, str, str]:
    one, _ = found
    return one.server, one.rule or "", one.kind.value
