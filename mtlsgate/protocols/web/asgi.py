"""
Runs an ASGI application: ``protocol "web" { asgi = … }``.

uvicorn's protocols speak HTTP and WebSocket with the clients.  Nothing else in this
package imports uvicorn.
"""

from __future__ import annotations

import inspect
import time
from typing import Any, cast

from attrs import fields
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from uvicorn import Config
from uvicorn.server import ServerState
from zope.interface import implementer

from mtlsgate.config import Located
from mtlsgate.gate.coroutines import later
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.server import served_names
from mtlsgate.http.sides import HttpClient
from mtlsgate.interfaces import IPreparable, IProtocolEnvironment
from mtlsgate.protocols.aio.factory import AsyncioServer
from mtlsgate.protocols.importing import call, describe
from mtlsgate.protocols.web.access import AccessLog, host_and_port
from mtlsgate.protocols.web.asgi_connection import AsgiConnection, AsgiWebSocket
from mtlsgate.protocols.web.asgi_lifespan import Lifespan
from mtlsgate.protocols.web.asgi_logging import Application, LoggedApplication, Scope, logger_for
from mtlsgate.protocols.web.asgi_scope import PEER
from mtlsgate.protocols.web.configuration import (
    LIFESPAN_TIMEOUT,
    MAX_REQUESTS,
    WebConfiguration,
)

_log = Logger("mtlsgate.web")

#: The most bytes that the parser gets at once: so many requests, sent ahead, wait.
_PIECE = 2**14


def asgi_server(
    named: Located[str],
    application: Any,
    configuration: WebConfiguration,
    environment: IProtocolEnvironment,
) -> AsgiServer:
    """
    :param named: what the configuration says.
    :param application: what that is.
    :returns: the factory of connections.
    :raises ValueError: with one line, if it is no ASGI application.
    """
    if not callable(application):
        kind = type(application).__name__
        raise ValueError(f"asgi: {named.value} is a {kind}, not an ASGI application")
    if _is_factory(application):
        application = call(application, {}, named.value)
        if not callable(application):
            kind = type(application).__name__
            text = f"what {named.value} returned is a {kind}, not an ASGI application"
            raise ValueError(f"asgi: {text}")
    return AsgiServer(application, configuration, environment)


def _is_factory(application: Any) -> bool:
    """:returns: whether it is called without arguments, and returns an application."""
    try:
        inspect.signature(application).bind()
    except (TypeError, ValueError):
        return False
    return True


@implementer(IPreparable)
class AsgiServer(AsyncioServer):
    """
    The factory of connections to an ASGI application.

    :ivar config: uvicorn's configuration.
    :ivar state: what its connections share.
    :ivar application: the application, and what logs its requests.
    :ivar limits: what clients are held to.
    :ivar clock: the reactor.
    :ivar logger: for what uvicorn says.
    :ivar serves: whether a host is one of the server's names; None if it declares none.
    :ivar max_requests: how many requests may be underway.
    :ivar retired: whether connections should end.
    :ivar _lifespan: the application's run, from `prepare` on.
    :ivar _date: the second of the time that answers have.
    :ivar _ending: keeps the process until the application has ended.
    """

    def __init__(
        self,
        application: Any,
        configuration: WebConfiguration,
        environment: IProtocolEnvironment,
    ) -> None:
        reactor, name = environment.reactor, environment.server
        super().__init__(self._connection, reactor, name, ["http/1.1"], None, _PIECE)
        self.clock = reactor
        self.limits = configuration.limits
        self.logger = logger_for(name)
        self.serves = served_names(environment)
        self.max_requests = configuration.max_requests or MAX_REQUESTS
        self.retired = False
        self.config = _uvicorn(application, configuration)
        self.state = ServerState()
        self._own_application = application
        self._configuration = configuration
        self._access_log = AccessLog(name, configuration.access_log)
        loaded = cast(Application, self.config.loaded_app)
        self.application = (
            LoggedApplication(loaded, self._answered, reactor.seconds)
            if configuration.access_log
            else loaded
        )
        self._lifespan: Lifespan | None = None
        self._date = 0
        self._ending: Ending | None = None

    def _connection(self, loop: object) -> AsgiConnection:
        return AsgiConnection(self, cast(Any, loop))

    @property
    def app_state(self) -> dict[str, Any]:
        """What the application put into its state when it started."""
        return {} if self._lifespan is None else self._lifespan.state

    # The application's life.

    async def prepare(self, before: object) -> None:
        """
        Start the application; one that was started as this configuration says goes on.

        :raises LifespanFailed: if it fails, or takes too long.
        """
        if isinstance(before, AsgiServer) and before.says_the_same(self):
            lifespan = before.lifespan
        else:
            timeout = self._configuration.lifespan_timeout or LIFESPAN_TIMEOUT
            lifespan = Lifespan(self.config, self.logger, self.name, timeout)
            await lifespan.begin()
        self._lifespan = lifespan.use()

    @property
    def lifespan(self) -> Lifespan:
        """The application's run."""
        assert self._lifespan is not None
        return self._lifespan

    def says_the_same(self, other: AsgiServer) -> bool:
        """:returns: whether it runs, and the other one says the same of the same application."""
        return (
            self._lifespan is not None
            and self._own_application is other._own_application
            and _said(self._configuration) == _said(other._configuration)
        )

    async def discard(self) -> None:
        """It never takes connections: end the application."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.leave()

    def startFactory(self) -> None:
        """Take connections.  The process does not end before the application does."""
        self.retired = False
        if self._lifespan is not None and IReactorCore.providedBy(self.clock):
            self._ending = Ending(self.clock)

    def retire(self) -> None:
        """End connections after what is underway on them."""
        self.retired = True
        super().retire()

    def stopFactory(self) -> None:
        """The last connection has ended: end the application."""
        self.retire()
        ending, self._ending = self._ending, None
        if self._lifespan is not None:
            ended = later(self.discard())
            assert ended is not None
            ended.addErrback(self._failed_to_end)
            if ending is not None:
                ended.addCallback(ending.is_over)

    def _failed_to_end(self, failure: Failure) -> None:
        _log.failure("{server}: the application failed to end", failure=failure, server=self.name)

    # For connections.

    def keep_date(self) -> None:
        """See to it that answers have the time, to the second (RFC 9110, 6.6.1)."""
        now = int(time.time())
        if now != self._date:
            self._date = now
            self.state.default_headers[:] = [(b"date", datetimeToString(now))]

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """Log a request that the application did not hear of."""
        self._access_log.refused(client, head, refusal)

    def _answered(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        """Log a request that the application answered."""
        self._access_log.answered(
            host_and_port(*(scope["client"] or (None, None))),
            scope[PEER],
            (scope.get("method", "GET"), scope["raw_path"].decode("latin-1")),
            status,
            size,
            seconds,
        )


class Ending:
    """
    Keeps the process until an application has ended.

    :ivar _ended: fires then.
    :ivar _is_awaited: whether the process waits for it already.
    """

    def __init__(self, reactor: IReactorCore) -> None:
        self._reactor = reactor
        self._ended: Deferred[None] = Deferred()
        self._is_awaited = False
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._wait)

    def _wait(self) -> Deferred[None]:
        self._is_awaited = True
        return self._ended

    def is_over(self, _: object) -> None:
        """The application has ended."""
        if not self._is_awaited:
            self._reactor.removeSystemEventTrigger(self._trigger)
        self._ended.callback(None)


def _uvicorn(application: Any, configuration: WebConfiguration) -> Config:
    """
    :returns: uvicorn's configuration.
    :raises ValueError: if it does not take the application.
    """
    limits = configuration.limits
    config = Config(
        application,
        http=AsgiConnection,
        ws=AsgiWebSocket,
        ws_max_size=limits.body_size,
        log_config=None,
        # Whoever connects is who the gate says.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=cast(int, limits.idle_timeout),
    )
    try:
        config.load()
    except (Exception, SystemExit) as error:
        raise ValueError(f"asgi: uvicorn does not take it: {describe(error)}") from error
    return config


def _said(configuration: WebConfiguration) -> list[object]:
    """:returns: what a block says, wherever that stands."""
    values = [getattr(configuration, one.name) for one in fields(WebConfiguration)]
    return [one.value if isinstance(one, Located) else one for one in values]
