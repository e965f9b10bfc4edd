"""
``protocol "whoami"``: HTTP that tells clients who the gate takes them for.
"""

from __future__ import annotations

import json
from typing import cast

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin, IVerifiedPeer


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
        assert request.channel is not None
        peer = IVerifiedPeer(request.channel.transport, None)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        known = None if peer is None else peer.to_dict()
        return json.dumps(known, indent=2).encode() + b"\n"


class WhoAmISite(Site):
    """The factory of its connections."""

    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: HTTP/1.1 alone.  In twisted.web's HTTP/2, which there is as soon as
        anything installs h2, a request does not know whose connection it came on."""
        return [b"http/1.1"]


def _refusal(request: Request, status: int, text: bytes) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return text


@frozen
class WhoAmIConfiguration:
    """No attributes."""


@implementer(IProtocolPlugin)
@frozen
class WhoAmIPlugin:
    """The plugin behind ``protocol "whoami"``."""

    name: str = "whoami"
    configuration: type = WhoAmIConfiguration

    def build(
        self, configuration: WhoAmIConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: a twisted.web site of one resource."""
        return WhoAmISite(WhoAmI(), reactor=environment.reactor)


plugin = WhoAmIPlugin()
