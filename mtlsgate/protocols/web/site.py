"""
The server behind ``protocol "web"``: resources, and one log event for each request.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.resources import ResourceExchange, ResourceRequest, ResourceServer
from mtlsgate.http.server import ONLY_HTTP_1, Versions
from mtlsgate.http.sides import HttpClient
from mtlsgate.protocols.web.access import AccessLog, address_of, texts


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


class BodilessRequest(WebRequest):
    """A request whose body means nothing, and is not kept: not even in a temporary file."""

    def gotLength(self, length: int | None) -> None:
        """Have an empty body."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Drop it."""


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
        self._access_log = AccessLog(name, access_log)

    def log(self, request: ResourceRequest) -> None:
        """Log a request that was answered."""
        if not self._access_log.is_on:
            return
        client, seconds = request.channel.client, self.clock.seconds() - request.began
        self._access_log.answered(
            address_of(client.address),
            client.peer,
            texts(request.method, request.path),
            request.code,
            request.sentLength,
            seconds,
        )

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """Log a request that no resource heard of."""
        self._access_log.refused(client, head, refusal)


class FileSite(WebSite):
    """A site of files: a request's body has no say in what is sent."""

    request_factory = BodilessRequest
