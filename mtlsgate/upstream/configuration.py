"""
What all protocols that connect to targets have in their blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from attrs import frozen

from mtlsgate.config import Duration, Located, Misconfigured
from mtlsgate.interfaces import IProtocolEnvironment
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.checks import HealthCheck
from mtlsgate.upstream.rotation import Balance
from mtlsgate.upstream.targets import Listed, Target, parse_targets, refuse_plaintext
from mtlsgate.upstream.tls import TargetTls, TlsClient

T = TypeVar("T")

#: For how many seconds an unreachable target is skipped, by default.
RETRY_AFTER = 10.0


@frozen(kw_only=True)
class DialAttributes:
    """
    Where to connect to, and how to choose.

    :ivar target: one target, or a list of them.
    :ivar balance: how one of several targets is chosen.
    :ivar retry_after: for how many seconds an unreachable target is skipped; None for
        the default.
    :ivar connect_timeout: how long each target may take to answer, including TLS.
    :ivar health_check: how targets are checked; None if they are not.
    """

    target: Located[Any]
    balance: Balance = "round_robin"
    retry_after: Duration | None = None
    connect_timeout: Duration = 5.0
    health_check: HealthCheck | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for each problem of the whole block."""
        if self.health_check is not None and self.retry_after is not None:
            yield (
                "retry_after",
                "retry_after has no effect with a health_check: a target that is down is used "
                "again when a check succeeds",
            )

    def parsed(self, parse: Callable[[str], T]) -> list[Listed[T]]:
        """
        :param parse: parses one target; raises ValueError if it is wrong.
        :returns: at least one entry.
        :raises Misconfigured: if one of them cannot be meant.
        """
        try:
            return parse_targets(self.target.value, parse)
        except ValueError as error:
            raise Misconfigured(self.target.at, f"target: {error}") from None

    def connector(
        self,
        targets: Sequence[Listed[Target]],
        environment: IProtocolEnvironment,
        tls: TlsClient | None,
    ) -> Backends:
        """
        :param targets: the targets.
        :param environment: of the server.
        :param tls: speaks TLS to the targets.
        :returns: connects to the targets.
        :raises Misconfigured: if the targets cannot be had.
        """
        try:
            return Backends(
                targets,
                environment.reactor,
                server=environment.server,
                states=environment.target_states,
                tls=tls,
                connect_timeout=self.connect_timeout,
                retry_after=RETRY_AFTER if self.retry_after is None else self.retry_after,
                balance=self.balance,
                is_checked=self.health_check is not None,
            )
        except ValueError as error:
            raise Misconfigured(self.target.at, f"target: {error}") from None


@frozen(kw_only=True)
class TargetAttributes(DialAttributes):
    """
    Where to connect to, and how.

    :ivar unsafe_target: whether plaintext may leave the machine.
    :ivar tls: speaks TLS to the target.
    """

    unsafe_target: bool = False
    tls: TargetTls | None = None

    def listed(
        self, parse: Callable[[str], T], target_of: Callable[[T], Target]
    ) -> list[Listed[T]]:
        """
        :param parse: parses one target; raises ValueError if it is wrong.
        :param target_of: returns the place to connect to.
        :returns: at least one entry.
        :raises Misconfigured: if one of them cannot be meant.
        """
        listed = self.parsed(parse)
        try:
            if self.tls is None and not self.unsafe_target:
                for one in listed:
                    refuse_plaintext(target_of(one.target))
        except ValueError as error:
            raise Misconfigured(self.target.at, f"target: {error}") from None
        return listed

    def backends(
        self,
        targets: Sequence[Listed[Target]],
        environment: IProtocolEnvironment,
        alpn: Sequence[bytes] = (),
    ) -> Backends:
        """
        :param targets: the targets.
        :param environment: of the server.
        :param alpn: the application protocols to offer to targets, with ``tls``.
        :returns: connects to the targets.
        :raises Misconfigured: if the targets cannot be had.
        """
        tls = None if self.tls is None else self.tls.client(environment, alpn)
        return self.connector(targets, environment, tls)
