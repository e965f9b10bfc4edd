"""
One program's connection through a client gate, from accept to close.

It is dialled and verified first; until then the program's bytes stay in its socket.
A program whose connection cannot be made sees a reset.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.admission import Path, Rejection
from mtlsgate.clientgate.gate import ClientGate
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission, Destination
from mtlsgate.reasons import Cause, Reason
from mtlsgate.text import printable
from mtlsgate.tls.openssl_errors import TlsError
from mtlsgate.upstream.backends import Dialled, FailedAttempt, Unreachable
from mtlsgate.upstream.relay import Relay, RelayEnd, RelayLimits
from mtlsgate.upstream.state import TargetUse
from mtlsgate.upstream.verified import TargetTransport, refusal

_log = Logger("mtlsgate.clientgate")

#: Why no connection was made at all, if others say more.
_UNREACHED = (Reason.TARGET_UNREACHABLE, Reason.TARGET_TIMEOUT)


class LocalConnection(RelayEnd):
    """
    The program's end.

    :ivar entry: its entry in `Connections`.
    :ivar _target: the target's end; None until it is verified.
    :ivar _dialling: the pending connection attempt, or None.
    :ivar _is_rejected: whether `Connections` has been told that there is no connection.
    """

    _target: TargetEnd | None = None
    _dialling: Deferred[None] | None = None
    _is_rejected = False

    def __init__(
        self,
        gate: ClientGate,
        connections: Connections,
        entry: Entry,
        refuse_now: Callable[[Destination], Rejection | None],
        uid: int | None,
        pid: int | None,
    ) -> None:
        """
        :param refuse_now: says why a connection may no longer be used, or None.
        :param uid: the user whose program it is; None if the system does not say.
        :param pid: the program's process, likewise.
        """
        super().__init__(Relay(connections.clock, RelayLimits(), lambda _: None))
        self.entry = entry
        self._gate = gate
        self._connections = connections
        self._refuse_now = refuse_now
        self._uid = uid
        self._pid = pid

    # For `Connections`.

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes the program has sent to the target, and got from it."""
        return (0, 0) if self._target is None else self._target.traffic

    def presented(self) -> Path:
        """:returns: nothing: programs have no certificates."""
        return ()

    def abortConnection(self) -> None:
        """Reset the program's connection, and so the target's."""
        self.transport.abortConnection()

    # Dialling.

    def connectionMade(self) -> None:
        """Dial, if the program's user may; what it sends meanwhile stays in its socket."""
        super().connectionMade()
        self.transport.pauseProducing()
        self.relay.client = self
        rejection = self._gate.refuse_user(self._uid, self._pid)
        if rejection is not None:
            self._reject(rejection)
            return
        dialling = self._gate.backends.dial(_TargetFactory(self))
        self._dialling = dialling.addCallbacks(self._reached, self._not_reached)
        self._dialling.addErrback(self.failed)

    def _reached(self, dialled: Dialled) -> None:
        target = dialled.protocol
        assert isinstance(target, TargetEnd)
        self._dialling = None
        target.reached(dialled)
        if self.lost:
            target.reset()
            return
        try:
            self._admit(target)
        except Exception:
            target.reset()
            raise

    def _admit(self, target: TargetEnd) -> None:
        transport, connections = target.transport, self._connections
        assert isinstance(transport, TargetTransport)
        destination = Destination(
            target=target.name, path=transport.server_path, uid=self._uid, pid=self._pid
        )
        rejection = self._refuse_now(destination) or connections.admit(
            self.entry,
            Admission(
                peer=None,
                identity=None,
                pin=None,
                negotiated=transport.negotiated,
                since=connections.clock.seconds(),
                destination=destination,
            ),
        )
        if rejection is not None:
            target.reset()
            self._reject(rejection)
            return
        self._target = target
        self.relay.join(self, target)

    def _not_reached(self, failure: Failure) -> None:
        self._dialling = None
        if failure.check(CancelledError):
            return
        failure.trap(Unreachable)
        assert isinstance(failure.value, Unreachable)
        worst = _most_telling(failure.value.attempts)
        self._reject(Rejection(worst.reason, str(failure.value)))

    def failed(self, failure: Failure) -> None:
        """Give up the connection after an exception."""
        _log.failure("{server}: connecting failed", failure, server=self.entry.server)
        self._reject(Rejection(Reason.INTERNAL_ERROR, "connecting failed"))

    def _reject(self, rejection: Rejection) -> None:
        self._is_rejected = True
        self._connections.reject(self.entry, rejection)
        self.reset()

    # The end.

    def target_refused(self, detail: str) -> None:
        """The target refused the verified connection before it sent a byte."""
        self._connections.close(self.entry, Cause.REFUSED_BY_TARGET, detail)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up the target's connection, too."""
        super().connectionLost(reason)
        if self._dialling is not None:
            self._dialling.cancel()

    def over(self, reason: Failure) -> None:
        """Tell `Connections` that the program's connection is over."""
        entry, target = self.entry, self._target
        if target is None and not self._is_rejected:
            text = "the program went away before its target was connected"
            self._connections.reject(entry, Rejection(Reason.PEER_GONE, text))
        by_target = target is not None and target.is_first
        self._connections.end(entry, reason, *self.traffic, by_application=by_target)


class TargetEnd(RelayEnd):
    """
    The target's end.

    :ivar name: the target, as it was written.
    :ivar is_first: whether the target ended its stream before the program did.
    :ivar _use: counts the connection, once the target is known.
    """

    name = ""
    is_first = False
    _use: TargetUse | None = None

    def __init__(self, client: LocalConnection) -> None:
        super().__init__(client.relay)
        self._client = client

    def reached(self, dialled: Dialled) -> None:
        """:param dialled: this connection."""
        self.name, self._use = dialled.target.text, dialled.use
        if self.lost:
            dialled.use.end()

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes were sent to the target, and received from it."""
        transport = self.transport
        return transport.traffic if isinstance(transport, TargetTransport) else (0, 0)

    def readConnectionLost(self) -> None:
        """The target sends no more."""
        self.is_first = not self._client.finished
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so if the target refused the connection."""
        if self._use is not None:
            self._use.end()
        _, received = self.traffic
        if not received and not self.finished and not self._client.lost:
            self._client.target_refused(f"{printable(self.name)}: {_refusal(reason)}")
        super().connectionLost(reason)


def _refusal(reason: Failure) -> str:
    """:returns: why a target left before it sent a byte."""
    if isinstance(reason.value, TlsError):
        return printable(refusal(reason.value))
    return (
        "it ended the connection before it sent a byte; in TLS 1.3 a target that rejects the "
        "client certificate may do that: its log says why"
    )


def _most_telling(attempts: tuple[FailedAttempt, ...]) -> FailedAttempt:
    """:returns: the first attempt that reached its target, or else the first."""
    reached = (one for one in attempts if one.reason not in _UNREACHED)
    return next(reached, attempts[0])


@implementer(IProtocolFactory)
@frozen
class _TargetFactory:
    """Builds the target's end for one connection."""

    _client: LocalConnection

    def buildProtocol(self, addr: IAddress) -> TargetEnd:
        return TargetEnd(self._client)

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass
