"""
``protocol "asyncio"``: an asyncio protocol, or a coroutine for each connection.
"""

from __future__ import annotations

from asyncio import BaseProtocol
from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction, isfunction, ismethod
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory
from zope.interface import implementer

from mtlsgate.config import Located, Misconfigured
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolNeeds, IProtocolPlugin
from mtlsgate.protocols.aio.context import FactoryServer, is_to_be_made
from mtlsgate.protocols.aio.factory import AsyncioServer, MakeProtocol, handled_by
from mtlsgate.protocols.aio.streams import Handle
from mtlsgate.protocols.importing import resolve


@frozen
class AsyncioConfiguration:
    """
    :ivar factory: makes an `asyncio.Protocol` for each connection, or what makes such a
        factory first, as ``package.module:attribute``.
    :ivar handler: a coroutine function that gets the client, a reader and a writer.
    :ivar alpn: the application protocols that clients may negotiate by ALPN, the
        preferred one first.
    """

    factory: Located[str] | None = None
    handler: Located[str] | None = None
    alpn: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield what does not go together."""
        if (self.factory is None) == (self.handler is None):
            name = None if self.factory is None else "handler"
            yield name, "set exactly one of factory and handler"
        if not all(name.isascii() and 0 < len(name) < 256 for name in self.alpn):
            yield "alpn", "alpn: each name must be of 1 to 255 ASCII characters"


@implementer(IProtocolPlugin, IProtocolNeeds)
@frozen
class AsyncioPlugin:
    """The plugin behind ``protocol "asyncio"``."""

    name: str = "asyncio"
    configuration: type = AsyncioConfiguration

    def needs_asyncio(self, configuration: AsyncioConfiguration) -> bool:
        """:returns: True."""
        return True

    def runs_user_code(self, configuration: AsyncioConfiguration) -> bool:
        """:returns: True."""
        return True

    def reads(self, configuration: AsyncioConfiguration) -> tuple[str, ...]:
        """:returns: nothing: what the user's code reads is not known."""
        return ()

    def connects_to(self, configuration: AsyncioConfiguration) -> tuple[int, ...]:
        """:returns: nothing: what the user's code connects to is not known."""
        return ()

    def build(
        self, configuration: AsyncioConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: the factory of connections.
        :raises Misconfigured: at the attribute that names what cannot be had.
        """
        reactor, server, alpn = environment.reactor, environment.server, configuration.alpn
        if configuration.handler is not None:
            handle = _handler(configuration.handler, environment)
            return AsyncioServer(handled_by(handle, server), reactor, server, alpn)
        assert configuration.factory is not None
        named = configuration.factory
        found = _imported(named, environment, "factory")
        if is_to_be_made(found):
            return FactoryServer(found, named.value, reactor, server, alpn)
        if not callable(found):
            text = f"factory: {named.value} is a {type(found).__name__}, not what makes a protocol"
            raise Misconfigured(named.at, text)
        retire = getattr(found, "retire", None)
        return AsyncioServer(_protocol_of(found, named.value), reactor, server, alpn, retire)


def _handler(named: Located[str], environment: IProtocolEnvironment) -> Handle:
    found = _imported(named, environment, "handler")
    # An object may be called as well.
    called = found if isfunction(found) or ismethod(found) else getattr(found, "__call__", found)  # noqa: B004
    if not iscoroutinefunction(called):
        text = f"handler: {named.value} is not a coroutine function (async def)"
        raise Misconfigured(named.at, text)
    return cast(Handle, found)


def _protocol_of(factory: Callable[[], BaseProtocol], name: str) -> MakeProtocol:
    def make(loop: object) -> BaseProtocol:
        made = factory()
        if not hasattr(made, "connection_made"):
            raise TypeError(f"{name} made a {type(made).__name__}, not an asyncio protocol")
        return made

    return make


def _imported(name: Located[str], environment: IProtocolEnvironment, attribute: str) -> Any:
    try:
        return resolve(name.value, environment.directory)
    except ValueError as error:
        raise Misconfigured(name.at, f"{attribute}: {error}") from error


plugin = AsyncioPlugin()
