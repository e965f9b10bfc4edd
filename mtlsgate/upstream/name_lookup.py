"""
Looking up the names of targets, each once at a time.

Twisted looks names up in the reactor's ten threads.  If a name server is silent, each
lookup keeps one of them busy for half a minute, and the process cannot end before.  So
each lookup has a thread of its own, and all connections to a target that begin
meanwhile wait for one lookup.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from threading import Thread
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

_log = Logger("mtlsgate.targets")

#: The module of the resolver that a reactor has if nobody installed another.
_DEFAULT = "twisted.internet._resolver"

_Key = tuple[str, int, tuple[type[IAddress], ...] | None, str]


@implementer(IHostnameResolver)
class SharedLookups:
    """
    A resolver that looks a name up once for all who ask meanwhile.

    :ivar _underway: the lookups that are not complete.
    """

    def __init__(self, reactor: Any) -> None:
        """
        :param reactor: if somebody installed another resolver in it
            (`IReactorPluggableNameResolver`), that one looks the names up.
        """
        self._reactor = reactor
        self._underway: dict[_Key, _Lookup] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """:returns: the lookup (`IHostnameResolver`); it cannot be cancelled."""
        types = None if addressTypes is None else tuple(addressTypes)
        key = (hostName, portNumber, types, transportSemantics)
        lookup = self._underway.get(key)
        if lookup is not None:
            lookup.receivers.append(resolutionReceiver)
            return lookup
        lookup = self._underway[key] = _Lookup(hostName, self._underway, key)
        lookup.receivers.append(resolutionReceiver)
        resolver = self._reactor.nameResolver
        if type(resolver).__module__ == _DEFAULT:
            _in_thread(self._reactor, lookup, key)
        else:
            resolver.resolveHostName(lookup, hostName, portNumber, addressTypes, transportSemantics)
        return lookup


def _in_thread(reactor: Any, receiver: _Lookup, key: _Key) -> None:
    """Look up a name as the system does, in a thread that ends with the process."""
    name, port, types, _ = key

    def found(addresses: Sequence[IAddress]) -> None:
        for address in addresses:
            if types is None or isinstance(address, types):
                receiver.addressResolved(address)
        receiver.resolutionComplete()

    def run() -> None:
        try:
            answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            # Without addresses whoever dials says that there are none.
            answers = []
        reactor.callFromThread(found, [_address(one[-1]) for one in answers])

    try:
        Thread(target=run, name="mtlsgate-lookup", daemon=True).start()
    except RuntimeError as error:
        # The system has no thread left: the next attempt looks it up anew.
        _log.error("{name} cannot be looked up: {why}", name=name, why=str(error))
        receiver.resolutionComplete()


def _address(written: tuple[Any, ...]) -> IAddress:
    kind = IPv6Address if ":" in written[0] else IPv4Address
    return kind("TCP", *written)


@implementer(IHostResolution, IResolutionReceiver)
class _Lookup:
    """
    One lookup.

    :ivar name: the name.
    :ivar receivers: who gets the addresses.
    """

    def __init__(self, name: str, underway: dict[_Key, _Lookup], key: _Key) -> None:
        self.name = name
        self.receivers: list[IResolutionReceiver] = []
        self._addresses: list[IAddress] = []
        self._underway = underway
        self._key = key

    def cancel(self) -> None:
        """Do nothing: others may wait for it."""

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The resolver has begun."""

    def addressResolved(self, address: IAddress) -> None:
        """An address was found."""
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        """Tell everybody who waits."""
        self._underway.pop(self._key, None)
        for receiver in self.receivers:
            receiver.resolutionBegan(self)
            for address in self._addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()
