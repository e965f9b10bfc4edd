"""
From a block's attributes to the connections to its targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mtlsgate.interfaces import IProtocolEnvironment
from mtlsgate.protocols.http.configuration import HttpConfiguration, HttpTarget
from mtlsgate.protocols.http.shared_pool import Http2TargetFactory, SharedPool
from mtlsgate.protocols.http.target_check import PathCheck
from mtlsgate.protocols.http.target_check_http2 import CheckKeeper, Http2PathCheck
from mtlsgate.protocols.http.target_pool import TargetPool
from mtlsgate.protocols.http.target_side import Pool
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.checks import ConnectCheck, HealthChecker
from mtlsgate.upstream.state import TargetState
from mtlsgate.upstream.targets import Listed

#: The names of versions in ALPN.
_ALPN = {"1.1": b"http/1.1", "2": b"h2"}


def pool_of(configuration: HttpConfiguration, environment: IProtocolEnvironment) -> Pool:
    """
    :returns: the connections to the block's targets.
    :raises Misconfigured: if the targets cannot be had.
    """
    clock = environment.reactor
    targets = configuration.targets()
    backends = configuration.backends(
        [Listed(one.target.target, one.weight, one.is_backup) for one in targets],
        environment,
        alpn=[_ALPN[configuration.http_version]],
    )
    checker = _checker(configuration, targets, backends, clock)
    keep, keep_for = configuration.target_connections, configuration.target_keepalive
    if configuration.http_version == "2":
        return SharedPool(
            backends,
            clock,
            keep=keep,
            keep_for=keep_for,
            tls=configuration.tls is not None,
            seconds=configuration.response_timeout,
            checker=checker,
        )
    return TargetPool(
        backends,
        clock,
        keep=keep,
        keep_for=keep_for,
        lenient=configuration.lenient,
        checker=checker,
    )


def _checker(
    configuration: HttpConfiguration,
    targets: Sequence[Listed[HttpTarget]],
    backends: Backends,
    clock: IReactorTime,
) -> HealthChecker | None:
    terms = configuration.health_check
    if terms is None:
        return None
    check: Callable[[TargetState], Deferred[None]]
    if terms.path is None:
        check = ConnectCheck(backends, clock)
        return HealthChecker(backends, check, terms, clock)
    host = configuration.host
    hosts = {
        one.target.target: one.target.authority if host is None else host.encode("ascii")
        for one in targets
    }
    path = terms.path.encode("ascii")
    if configuration.http_version == "2":
        factory = Http2TargetFactory(
            CheckKeeper(), clock, tls=configuration.tls is not None, seconds=terms.timeout
        )
        check = Http2PathCheck(backends, factory, path, terms.status, hosts)
    else:
        check = PathCheck(backends, clock, path, terms.status, hosts)
    return HealthChecker(backends, check, terms, clock)
