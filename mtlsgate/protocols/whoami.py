"""
``protocol "whoami"``: HTTP that tells clients who the gate takes them for.
"""

from __future__ import annotations

import json
from typing import cast

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.resources import ResourceRequest, ResourceServer
from mtlsgate.http.server import served_names
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols.needs import NeedsNothing

_LIMITS = HttpLimits(
    head_size=16 * 1024,
    body_size=64 * 1024,
    first_timeout=60.0,
    head_timeout=10.0,
    body_timeout=10.0,
    idle_timeout=60.0,
    send_timeout=60.0,
    close_timeout=60.0,
    refused_timeout=15.0,
)


class WhoAmI(Resource):
    """``GET /`` answers the verified peer as JSON; null where the server asks
    for no certificate.  Anything else is 404 or 405."""

    isLeaf = True

    def render(self, request: Request) -> bytes | int:
        """:returns: what the method's own function answers, or why there is none."""
        if request.path != b"/":
            return _refusal(request, 404, b"There is nothing but / here.\n")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"allow", b"GET, HEAD")
            return _refusal(request, 405, b"This answers to GET and HEAD.\n")
        return cast("bytes | int", super().render(request))

    def render_GET(self, request: Request) -> bytes:
        """:returns: the peer as JSON."""
        assert isinstance(request, ResourceRequest)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        peer = request.peer()
        known = None if peer is None else peer.to_dict()
        return json.dumps(known, indent=2).encode() + b"\n"


def _refusal(request: Request, status: int, text: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return text


@frozen
class WhoAmIConfiguration:
    """No attributes."""


@implementer(IProtocolPlugin)
@frozen
class WhoAmIPlugin(NeedsNothing):
    """The plugin behind ``protocol "whoami"``."""

    name: str = "whoami"
    configuration: type = WhoAmIConfiguration

    def build(
        self, configuration: WhoAmIConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: an HTTP server of one resource."""
        return ResourceServer(WhoAmI(), _LIMITS, environment.reactor, served_names(environment))


plugin = WhoAmIPlugin()
