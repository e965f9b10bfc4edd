"""
``protocol "whoami"``: HTTP that tells clients who the gate takes them for.
"""

from __future__ import annotations

import json
from typing import cast

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.web.pages import errorPage, notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin, IVerifiedPeer


class WhoAmI(Resource):
    """``GET /`` answers the verified peer as JSON; null where the server asks
    for no certificate."""

    isLeaf = False

    def getChild(self, path: bytes, request: Request) -> IResource:
        """:returns: itself for ``/``, else 404."""
        return self if path == b"" and not request.postpath else notFound()

    def render(self, request: Request) -> bytes | int:
        """:returns: what the method's own function answers, else 405."""
        if request.method in (b"GET", b"HEAD"):
            return cast("bytes | int", super().render(request))
        # twisted.web's own answer to other methods is deprecated by itself.
        request.setHeader(b"allow", b"GET, HEAD")
        refusal = errorPage(405, "Method Not Allowed", "This answers to GET and HEAD.")
        return cast("bytes | int", refusal.render(request))

    def render_GET(self, request: Request) -> bytes:
        """:returns: the peer as JSON."""
        assert request.channel is not None
        peer = IVerifiedPeer(request.channel.transport, None)
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        known = None if peer is None else peer.to_dict()
        return json.dumps(known, indent=2).encode() + b"\n"


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
        site = Site(WhoAmI(), reactor=environment.reactor)
        site.noisy = False
        return site


plugin = WhoAmIPlugin()
