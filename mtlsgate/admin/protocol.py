"""
``protocol "admin"``: the admin endpoint for clients that the gate itself verified.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.resource import AdminResource
from mtlsgate.admin.routes import ALL_ROUTES, RouteName
from mtlsgate.admin.site import AdminSite
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols.needs import NeedsNothing


@frozen
class AdminConfiguration:
    """
    :ivar routes: which routes clients may use; all by default.
    """

    routes: tuple[RouteName, ...] = ALL_ROUTES

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute, text) for what is wrong with the block."""
        if not self.routes:
            yield "routes", "routes is empty, so nothing would be answered"


@implementer(IProtocolPlugin)
@frozen
class AdminPlugin(NeedsNothing):
    """The plugin behind ``protocol "admin"``."""

    name: str = "admin"
    configuration: type = AdminConfiguration

    def build(
        self, configuration: AdminConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: a site of one resource.
        :raises ValueError: if the server admits clients without a certificate.
        """
        if environment.client_authentication != "required":
            raise ValueError(
                "whoever comes in may end the gate: the server needs client_certificate rules, "
                'not client_authentication = "none"'
            )
        guard = Guard(is_verified=True)
        resource = AdminResource(environment.gate, guard, configuration.routes)
        return AdminSite(resource, environment.reactor)


plugin = AdminPlugin()
