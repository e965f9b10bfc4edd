"""
``protocol "custom"``: a protocol of your own, without any packaging.

``factory = "package.module:attribute"`` names a plugin, a Twisted protocol
factory, or a callable that returns one.  It gets all other attributes of the
block: a plugin by its configuration class, a callable as keyword arguments.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mtlsgate.config import Remainder
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols.importing import call, resolve


def as_factory(found: object, origin: str) -> IProtocolFactory:
    """
    :param origin: where it came from, for the message.
    :raises ValueError: if it is no protocol factory.
    """
    try:
        verifyObject(IProtocolFactory, found)
    except Invalid:
        raise ValueError(
            f"{origin} is a {type(found).__name__}, not a Twisted protocol factory; for a "
            "Protocol class write Factory.forProtocol(…)"
        ) from None
    return found  # type: ignore[return-value]


@frozen
class CustomConfiguration:
    """
    :ivar factory: what to import, as ``package.module:attribute``.
    :ivar rest: the attributes that belong to what is imported.
    """

    factory: str
    rest: Remainder


@implementer(IProtocolPlugin)
@frozen
class CustomPlugin:
    """The plugin behind ``protocol "custom"``."""

    name: str = "custom"
    configuration: type = CustomConfiguration

    def build(
        self, configuration: CustomConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: the factory that was named, or that what was named made.
        :raises ValueError: if there is none.
        """
        origin = configuration.factory
        found = resolve(origin, environment.directory)
        rest = configuration.rest
        if IProtocolPlugin.providedBy(found):
            arguments = rest.decode(found.configuration)
            return as_factory(
                call(lambda: found.build(arguments, environment), {}, origin),
                f"what {origin} built",
            )
        if IProtocolFactory.providedBy(found) and not isinstance(found, type):
            rest.decode(_Nothing)
            return as_factory(found, origin)
        if callable(found):
            return as_factory(call(found, rest.plain(), origin), f"what {origin} returned")
        return as_factory(found, origin)


@frozen
class _Nothing:
    """A finished factory takes no attributes."""


plugin = CustomPlugin()
