"""
The server behind ``protocol "web"``: resources, and one log event for each request.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource

from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal, own_body
from mtlsgate.http.resources import ResourceExchange, ResourceRequest, ResourceServer
from mtlsgate.http.server import ONLY_HTTP_1, Versions
from mtlsgate.http.sides import HttpClient
from mtlsgate.text import loggable

_log = Logger("mtlsgate.web")


class WebRequest(ResourceRequest):
    """
    A request.

    :ivar _paced: whether `finish` unregisters its producer.
    """

    _paced = False

    def pace(self) -> None:
        """Let the producer stay registered until the response is finished."""
        self._paced = True

    def finish(self) -> None:
        """Complete the response."""
        if self._paced and self.channel is not None:
            self.unregisterProducer()
        super().finish()


class WebSite(ResourceServer):
    """
    The factory of connections.

    :ivar name: the server's, for logs.
    """

    request_factory: Callable[[ResourceExchange], WebRequest] = WebRequest

    def __init__(
        self,
        resource: IResource,
        limits: HttpLimits,
        clock: IReactorTime,
        serves: Callable[[str], bool] | None = None,
        *,
        name: str,
        access_log: bool,
        versions: Versions = ONLY_HTTP_1,
        max_form_size: int = 0,
    ) -> None:
        """
        :param access_log: whether to log an event for each request.
        """
        super().__init__(
            resource, limits, clock, serves, versions=versions, max_form_size=max_form_size
        )
        self.name = name
        self._access_log = access_log

    def log(self, request: ResourceRequest) -> None:
        """Log a request that was answered."""
        if self._access_log:
            seconds = self.clock.seconds() - request.began
            self._log_one(
                request.channel.client,
                (request.method, request.path),
                request.code,
                request.sentLength,
                seconds,
            )

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """Log a request that no resource heard of."""
        if self._access_log:
            asked = (b"-", b"-")
            if head is not None:
                asked = head.method, head.target.partition(b"?")[0]
            size = len(own_body(refusal.status))
            self._log_one(client, asked, refusal.status, size, 0.0, refusal.cause)

    def _log_one(
        self,
        client: HttpClient,
        asked: tuple[bytes, bytes],
        status: int,
        size: int,
        seconds: float,
        cause: str | None = None,
    ) -> None:
        peer = client.peer
        facts = {} if peer is None else {"rule": peer.rule, "fingerprint": peer.sha256}
        method, path = (loggable(one.decode("latin-1")) for one in asked)
        address = _text(client.address)
        _log.info(
            # Formatted here, because Twisted's own formatting costs more.
            "{text}",
            text=f"{self.name}: {address} {method} {path} {status} {size}"
            + (f" rule={peer.rule} sha256={peer.sha256}" if peer is not None else "")
            + (f": {cause}" if cause is not None else ""),
            server=self.name,
            peer_address=address,
            method=method,
            path=path,
            status=status,
            bytes=size,
            seconds=seconds,
            cause=cause,
            **facts,
        )


def _text(address: IAddress) -> str:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return "unix"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
