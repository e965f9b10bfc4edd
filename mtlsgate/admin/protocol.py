"""
``protocol "admin"``: the admin endpoint for clients that the gate itself verified.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.resource import AdminResource
from mtlsgate.admin.site import AdminSite
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin


@frozen
class AdminConfiguration:
    """No attributes."""


@implementer(IProtocolPlugin)
@frozen
class AdminPlugin:
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
        return AdminSite(AdminResource(environment.gate, guard), environment.reactor)


plugin = AdminPlugin()
