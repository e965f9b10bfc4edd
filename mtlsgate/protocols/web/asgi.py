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
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from uvicorn import Config
from uvicorn.server import ServerState

from mtlsgate.config import Located
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.server import served_names
from mtlsgate.http.sides import HttpClient
from mtlsgate.interfaces import IProtocolEnvironment
from mtlsgate.protocols.aio.prepared import START_TIMEOUT, PreparedServer, Run
from mtlsgate.protocols.importing import call, describe
from mtlsgate.protocols.web.access import AccessLog, host_and_port
from mtlsgate.protocols.web.asgi_connection import AsgiConnection
from mtlsgate.protocols.web.asgi_lifespan import Lifespan
from mtlsgate.protocols.web.asgi_logging import Application, LoggedApplication, Scope, logger_for
from mtlsgate.protocols.web.asgi_scope import PEER
from mtlsgate.protocols.web.asgi_websocket import AsgiWebSocket
from mtlsgate.protocols.web.configuration import (
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


class AsgiServer(PreparedServer):
    """
    The factory of connections to an ASGI application.

    :ivar config: uvicorn's configuration.
    :ivar state: what its connections share.
    :ivar application: the application, and what logs its requests.
    :ivar limits: what clients are held to.
    :ivar logger: for what uvicorn says.
    :ivar serves: whether a host is one of the server's names; None if it declares none.
    :ivar max_requests: how many requests may be underway.
    :ivar retired: whether connections should end.
    :ivar _date: the second of the time that answers have.
    """

    def __init__(
        self,
        application: Any,
        configuration: WebConfiguration,
        environment: IProtocolEnvironment,
    ) -> None:
        reactor, name = environment.reactor, environment.server
        super().__init__(self._connection, reactor, name, ["http/1.1"], None, _PIECE)
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
        self._date = 0

    def _connection(self, loop: object) -> AsgiConnection:
        return AsgiConnection(self, cast(Any, loop))

    @property
    def app_state(self) -> dict[str, Any]:
        """What the application put into its state when it started."""
        return self.run.state if isinstance(self.run, Lifespan) else {}

    # The application's life.

    @property
    def told(self) -> object:
        """The application, and what its block says, wherever that stands."""
        return self._own_application, _said(self._configuration)

    def new_run(self) -> Run:
        """:returns: a lifespan of the application."""
        timeout = self._configuration.lifespan_timeout or START_TIMEOUT
        return Lifespan(self.config, self.logger, self.name, timeout)

    def startFactory(self) -> None:
        """Take connections."""
        self.retired = False
        super().startFactory()

    def retire(self) -> None:
        """End connections after what is underway on them."""
        self.retired = True
        super().retire()

    def stopFactory(self) -> None:
        """The last connection has ended."""
        self.retire()
        super().stopFactory()

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
