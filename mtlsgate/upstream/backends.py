"""
Connecting to one of several targets, and knowing which of them are up.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import partial

from attrs import frozen
from twisted.internet import error
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.upstream.greeted import NotGreeted, greeted
from mtlsgate.upstream.rotation import Balance, Member, Rotation
from mtlsgate.upstream.state import TargetState, TargetStates, TargetUse
from mtlsgate.upstream.targets import Listed, Target
from mtlsgate.upstream.tls import TlsClient
from mtlsgate.upstream.verified import HandshakeFailed, NotReady

_log = Logger("mtlsgate.targets")

#: Failures after which the next target is tried.  Any other failure is the caller's,
#: for example a factory that builds no protocol.
_FAILURES = (
    error.ConnectError,
    error.ConnectingCancelledError,
    error.DNSLookupError,
    error.ConnectionClosed,
    HandshakeFailed,
    NotGreeted,
    OSError,
)

#: Errors of this machine, and of no target: no descriptors, memory or ports are left.
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)

_TIMEOUTS = (TimeoutError, error.TimeoutError, error.TCPTimedOutError)


@frozen
class FailedAttempt:
    """
    A target that could not be reached.

    :ivar problem: the failure, in words.
    :ivar reason: the same, from the closed vocabulary.
    :ivar is_own: whether this machine is the cause and not the target, for example
        because file descriptors are scarce.
    """

    target: Target
    problem: str
    reason: Reason = Reason.TARGET_UNREACHABLE
    is_own: bool = False

    @property
    def timed_out(self) -> bool:
        """Whether it did not answer in time."""
        return self.reason is Reason.TARGET_TIMEOUT

    def __str__(self) -> str:
        return f"{printable(self.target.text)}: {self.problem}"


class Unreachable(Exception):
    """
    No target could be reached.  The text says why, for each target.

    :ivar attempts: the failed attempts in order, at least one.
    """

    def __init__(self, attempts: Sequence[FailedAttempt]) -> None:
        super().__init__("; ".join(map(str, attempts)))
        self.attempts = tuple(attempts)

    @property
    def timed_out(self) -> bool:
        """Whether all attempts timed out."""
        return all(one.timed_out for one in self.attempts)


@frozen
class Dialled:
    """
    A connection to a target.

    :ivar protocol: the connected protocol.
    :ivar target: the target.
    :ivar use: counts the connection; whoever gets it ends it.
    """

    protocol: IProtocol
    target: Target
    use: TargetUse


class IHasTargets(Interface):
    """A protocol's factory that connects to targets.  Status, metrics and readiness tell of
    them."""

    backends = Attribute("The targets, a `Backends`.")


@implementer(IStreamClientEndpoint)
class Backends:
    """
    An endpoint that connects to the next reachable target.

    :ivar server: the server's name, for the log.
    :ivar rotation: the targets and their states.
    :ivar is_checked: whether something checks the targets: then only a check finds a
        target up again.
    """

    def __init__(
        self,
        targets: Sequence[Listed[Target]],
        reactor: object,
        *,
        server: str = "",
        states: TargetStates | None = None,
        tls: TlsClient | None = None,
        connect_timeout: float = 5.0,
        retry_after: float = 10.0,
        balance: Balance = "round_robin",
        is_checked: bool = False,
        clock: IReactorTime | None = None,
        endpoint: Callable[[Target, object, float], IStreamClientEndpoint] = Target.endpoint,
    ) -> None:
        """
        :param targets: the targets, at least one.
        :param reactor: makes the connections.
        :param server: the server's name.
        :param states: what is known of targets; by default nothing is.
        :param tls: speaks TLS to the targets.
        :param connect_timeout: seconds to connect to each target, including TLS
            and a greeting that is waited for.
        :param retry_after: for how many seconds a failed target is skipped, if nothing
            checks the targets.
        :param balance: how a target is chosen.
        :param clock: by default the reactor.
        :param endpoint: makes the endpoint for a target.
        :raises ValueError: in one line, if a target cannot be dialled in this way.
        """
        self._clock: IReactorTime = reactor if clock is None else clock  # type: ignore[assignment]
        self._tls = tls
        self._connect_timeout = connect_timeout
        self.server = server
        self.is_checked = is_checked
        known = TargetStates() if states is None else states
        # Two spellings may mean one target.
        first = {one.target: one for one in reversed(targets)}
        members = [
            Member(known.of(server, one.target), one.weight, one.is_backup)
            for one in targets
            if first[one.target] is one
        ]
        self.rotation = Rotation(members, None if is_checked else retry_after, balance)
        self._endpoints: dict[Target, IStreamClientEndpoint] = {}
        for target in first:
            self._endpoints[target] = endpoint(target, reactor, connect_timeout)
            self._wrapped(target, b"")

    @property
    def tls(self) -> TlsClient | None:
        """What speaks TLS to the targets, or None."""
        return self._tls

    @property
    def trust(self) -> int:
        """Differs if targets are verified in another way than before: connections that were
        made then are not to be used again."""
        return 0 if self._tls is None else self._tls.version

    @property
    def states(self) -> tuple[TargetState, ...]:
        """The targets' states, in the order of the configuration."""
        return tuple(one.state for one in self.rotation.members)

    @property
    def is_ready(self) -> bool:
        """Whether a target is up.  Before the first check none is; where nothing checks,
        one that is not known to be down counts, and one that is due to be tried again."""
        if self.is_checked:
            return any(state.is_up for state in self.states)
        now = self.now()
        return any(self.rotation.is_usable(state, now) for state in self.states)

    def reachable(self, state: TargetState) -> None:
        """Note that a target answered."""
        since = state.answered()
        if since is not None:
            _log.info(
                "{server}: target {target} is up again after {seconds:.3g} s",
                server=self.server,
                target=printable(state.target.text),
                seconds=self.now() - since,
            )

    def unreachable(self, state: TargetState, problem: str) -> None:
        """
        Note that a target failed.

        :param problem: why, in words.
        """
        if state.failed(self.now(), problem):
            _log.warn(
                "{server}: target {target} is down: {problem}",
                server=self.server,
                target=printable(state.target.text),
                problem=problem,
            )

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        :returns: the connected protocol; fails with `Unreachable`
            (`IStreamClientEndpoint`).
        """
        # Nobody tells when this connection is over.
        return self.dial(factory).addCallback(_uncounted)

    def dial(
        self, factory: IProtocolFactory, preface: bytes = b"", first: TargetState | None = None
    ) -> Deferred[Dialled]:
        """
        :param preface: bytes to send before anything else, even before TLS.  The
            protocol must not write until it is returned.
        :param first: the target to try first; by default the rotation's next.
        :returns: the connected protocol and its target; fails with `Unreachable`.
            Cancelling it stops the current attempt.
        """
        return _Dialling(self, factory, preface, first).outcome

    def attempt(
        self, state: TargetState, factory: IProtocolFactory, preface: bytes
    ) -> Deferred[IProtocol]:
        """:returns: the protocol, connected in time to this target only."""
        began = self.now()

        def connected(protocol: IProtocol) -> IProtocol:
            state.dialled(self.now() - began)
            return protocol

        dialling = self._wrapped(state.target, preface).connect(factory).addCallback(connected)
        if preface and self._tls is None:
            dialling.addCallback(_say, preface)
        dialling.addCallback(greeted)
        if dialling.called and not dialling.paused:
            # It connected at once, as on the same machine: no timer is needed.
            return dialling
        return dialling.addTimeout(self._connect_timeout, self._clock, _timed_out)

    def _wrapped(self, target: Target, preface: bytes) -> IStreamClientEndpoint:
        endpoint = self._endpoints[target]
        if self._tls is None:
            return endpoint
        return self._tls.wrap(endpoint, target.host, preface)

    def describe(self, target: Target, failure: Failure) -> FailedAttempt:
        """
        :returns: the failed attempt, described in words.
        :raises Exception: the failure's own, if it is not the target's fault.
        """
        failure.trap(*_FAILURES, TimeoutError)
        cause = failure.value
        if isinstance(cause, _TIMEOUTS):
            text = f"no answer within {self._connect_timeout:g} s"
            return FailedAttempt(target, text, Reason.TARGET_TIMEOUT)
        if isinstance(cause, HandshakeFailed):
            is_own = isinstance(cause, NotReady)
            return FailedAttempt(target, printable(str(cause)), cause.rejection.reason, is_own)
        is_own = _errno_of(cause) in _OWN
        return FailedAttempt(target, printable(words_of(cause)), is_own=is_own)

    def now(self) -> float:
        """:returns: the clock's time."""
        return self._clock.seconds()


class _Dialling:
    """
    One call of `Backends.dial`.

    :ivar outcome: fires with the result.
    """

    def __init__(
        self,
        backends: Backends,
        factory: IProtocolFactory,
        preface: bytes,
        first: TargetState | None = None,
    ) -> None:
        self._backends = backends
        self._factory = factory
        self._preface = preface
        self._first = first
        self._attempts: list[FailedAttempt] = []
        self._underway: Deferred[None] | None = None
        self._cancelled = False
        self.outcome: Deferred[Dialled] = Deferred(self._cancel)
        self._next()

    def _cancel(self, _: object) -> None:
        self._cancelled = True
        if self._underway is not None:
            self._underway.cancel()

    def _next(self) -> None:
        backends = self._backends
        tried = [one.target for one in self._attempts]
        state, self._first = self._first, None
        if state is None:
            state = backends.rotation.choose(backends.now(), tried)
        if state is None:
            self.outcome.errback(Unreachable(self._attempts))
            return
        use = TargetUse(state)
        underway = backends.attempt(state, self._factory, self._preface)
        self._underway = underway.addCallbacks(
            partial(self._connected, use), partial(self._failed, use)
        ).addErrback(self._broken)

    def _connected(self, use: TargetUse, protocol: IProtocol) -> None:
        backends, state = self._backends, use.state
        if not backends.is_checked or state.is_up is None:
            backends.reachable(state)
        self.outcome.callback(Dialled(protocol, state.target, use))

    def _failed(self, use: TargetUse, failure: Failure) -> None:
        use.end()
        if self._cancelled:
            return
        backends, state = self._backends, use.state
        attempt = backends.describe(state.target, failure)
        if not attempt.is_own:
            backends.unreachable(state, attempt.problem)
        self._attempts.append(attempt)
        self._next()

    def _broken(self, failure: Failure) -> None:
        if not self.outcome.called:
            self.outcome.errback(failure)


def _uncounted(dialled: Dialled) -> IProtocol:
    dialled.use.end()
    return dialled.protocol


def _say(protocol: IProtocol, preface: bytes) -> IProtocol:
    """Send the preface."""
    transport: ITransport = protocol.transport  # type: ignore[attr-defined]
    transport.write(preface)
    return protocol


def _timed_out(result: IProtocol | Failure, seconds: float) -> IProtocol | Failure:
    # Endpoints fail with different errors when cancelled: make them all a timeout.
    return Failure(TimeoutError()) if isinstance(result, Failure) else result


def _errno_of(cause: BaseException | None) -> object:
    if isinstance(cause, error.ConnectError):
        return cause.osError
    return cause.errno if isinstance(cause, OSError) else None


def words_of(cause: BaseException | None) -> str:
    """:returns: why a connection failed, in words."""
    match cause:
        case NotGreeted():
            return str(cause)
        case error.ConnectionRefusedError():
            return "connection refused"
        case error.DNSLookupError():
            return "the host name does not resolve"
        case error.NoRouteError():
            return "no route to it"
        case error.ConnectError() if cause.args and cause.args[-1]:
            return str(cause.args[-1]).lower()
        case OSError() if cause.strerror:
            return cause.strerror.lower()
    return f"{type(cause).__name__}: {cause}"
