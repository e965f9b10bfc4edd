"""
One client gate, as a value.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attrs import frozen

from mtlsgate.admission import Rejection
from mtlsgate.gate.events import Destination
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Reason
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.checks import HealthChecker
from mtlsgate.upstream.targets import Target
from mtlsgate.upstream.tls import TlsClient


@frozen(eq=False)
class ClientGate:
    """
    One client gate, ready to listen.

    :ivar name: its name in logs.
    :ivar targets: where it connects.
    :ivar backends: connects to the next reachable target.
    :ivar tls: verifies targets, and shows the client certificate.
    :ivar terms: the terms of its connections.
    :ivar uids: the users who may connect; None means everybody.
    :ivar now: returns the time to judge certificates by.
    :ivar checker: checks the targets, or None.
    """

    name: str
    targets: tuple[Target, ...]
    backends: Backends
    tls: TlsClient
    terms: Terms
    uids: frozenset[int] | None
    now: Callable[[], datetime]
    checker: HealthChecker | None = None

    def refuse_user(self, uid: int | None, pid: int | None) -> Rejection | None:
        """
        :param uid: the user whose program connects; None if the system does not say.
        :param pid: the program's process.
        :returns: why it may not connect, or None.
        """
        if self.uids is None or uid in self.uids:
            return None
        who = "an unknown user" if uid is None else f"uid {uid} (process {pid})"
        return Rejection(Reason.UID_NOT_ALLOWED, f"{who} is not in allow_uids")

    def refuse(self, destination: Destination) -> Rejection | None:
        """
        Judge a connection of an earlier epoch.

        :returns: why this gate would not make it now, or None.
        """
        rejection = self.refuse_user(destination.uid, destination.pid)
        if rejection is not None:
            return rejection
        target = next((one for one in self.targets if one.text == destination.target), None)
        if target is None:
            return Rejection(
                Reason.TARGET_REMOVED, f"{destination.target} is no longer one of its targets"
            )
        return self.tls.refuse(destination.path, target.host, self.now())
