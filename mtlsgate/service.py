"""
The Twisted service that listens.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.dispatch import DispatchingFactory, ServerChoice
from mtlsgate.epoch import Epoch, LoadedServer
from mtlsgate.errors import GateError
from mtlsgate.gate import GateFactory
from mtlsgate.hosts import HostError, SocketAddress, adopt, endpoint_of
from mtlsgate.names import first_by_name
from mtlsgate.overview import describe
from mtlsgate.peer import address_text
from mtlsgate.proxied import behind_proxies

_log = Logger("mtlsgate.service")


class ListenError(GateError):
    """A server that cannot listen where it should, in one line."""


@frozen
class Listener:
    """
    One endpoint that is ready to listen.

    :ivar servers: for whom; several share it by their names.
    :ivar endpoint: where.
    :ivar text: where, as logs say it before the port is known.
    """

    servers: tuple[LoadedServer, ...]
    endpoint: IStreamServerEndpoint
    text: str


def bind(epoch: Epoch, reactor: object) -> tuple[Listener, ...]:
    """
    Take every address before anything runs, so that one that is taken is a
    plain message to the person who starts the gate.

    :raises ListenError: if an address cannot be had; those that could be are
        given back.
    """
    bound: list[socket.socket] = []
    try:
        places = _places(epoch)
        for address, _ in places:
            if isinstance(address, SocketAddress):
                bound.append(address.bind())
        sockets = iter(bound)
        return tuple(
            Listener(
                tuple(servers),
                adopt(next(sockets), reactor)
                if isinstance(address, SocketAddress)
                else endpoint_of(address, reactor),
                str(address),
            )
            for address, servers in places
        )
    except HostError as error:
        for one in bound:
            one.close()
        raise ListenError(f"{epoch.path}: {error}") from error


def _places(epoch: Epoch) -> list[tuple[SocketAddress | str, list[LoadedServer]]]:
    """:returns: every address and endpoint, with the servers that share it; of
    port 0 each has its own."""
    places: dict[tuple[SocketAddress | str, int], list[LoadedServer]] = {}
    for server in epoch.servers:
        for host in server.hosts:
            for address in host.addresses or (host.text,):
                alone = isinstance(address, SocketAddress) and address.port == 0
                places.setdefault((address, len(places) if alone else -1), []).append(server)
    return [(address, servers) for (address, _), servers in places.items()]


class GateService(Service):
    """
    Listens for every server of an epoch.

    :ivar epoch: what is run.
    """

    def __init__(self, epoch: Epoch, listeners: Iterable[Listener], reactor: IReactorTime) -> None:
        """
        :param listeners: what `bind` made of the epoch.
        :param reactor: for time limits.
        """
        self.epoch = epoch
        self._listeners = tuple(listeners)
        self._reactor = reactor
        self._ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """Listen, before privileges are dropped."""
        if not self._ports:
            self._listen()

    def startService(self) -> None:
        """Listen, if that has not happened yet."""
        super().startService()
        if not self._ports:
            self._listen()

    def stopService(self) -> Deferred[list[None]]:
        """Accept no more connections."""
        super().stopService()
        ports, self._ports = self._ports, []
        stopped = [port.stopListening() for port in ports]
        return gatherResults([one for one in stopped if one is not None])

    def _listen(self) -> None:
        for problem in self.epoch.warnings:
            _log.warn("{problem}", problem=str(problem))
        factories = {
            id(server): GateFactory(server.gate, self._reactor) for server in self.epoch.servers
        }
        where: dict[int, list[str]] = {id(server): [] for server in self.epoch.servers}
        for listener in self._listeners:
            admitting = [(server, factories[id(server)]) for server in listener.servers]
            [first, *others] = listener.servers
            factory = behind_proxies(
                self._factory(listener.text, admitting),
                listener.text if others else first.model.name,
                first.proxies,
                self.epoch.handshake_timeout,
                self._reactor,
            )
            address = self._listen_on(listener, factory)
            for server in listener.servers:
                where[id(server)].append(address)
        for server in self.epoch.servers:
            _log.info("{description}", description=describe(server, where[id(server)]))

    def _factory(
        self, name: str, servers: Sequence[tuple[LoadedServer, GateFactory]]
    ) -> IProtocolFactory:
        (first, factory), *_ = servers
        shared = any(server.model.server_names for server, _ in servers)
        if not shared and first.model.tls.resumption is None:
            return factory
        # Of a TLS 1.2 session OpenSSL tells the name that it was begun with, and
        # not the one asked for now, so where sessions resume it is read before.
        choice = ServerChoice(
            name if shared else first.model.name,
            first_by_name(
                ([name.value for name in server.model.server_names], factory)
                for server, factory in servers
            ),
            next(
                (factory for server, factory in servers if server.model.default_server),
                None if shared else factory,
            ),
            self.epoch.handshake_timeout,
        )
        return DispatchingFactory(choice, self._reactor)

    def _listen_on(self, listener: Listener, factory: IProtocolFactory) -> str:
        ports: list[IListeningPort] = []
        failures: list[Failure] = []
        listener.endpoint.listen(factory).addCallbacks(ports.append, failures.append)
        match ports, failures:
            case [], [failure]:
                # Not an exception that twistd would print with a traceback.
                text = f"cannot listen on {listener.text}: {failure.getErrorMessage()}"
                _log.critical("{text}", text=text)
                raise SystemExit(f"{self.epoch.path}: {text}")
            case [port], []:
                self._ports.append(port)
                return address_text(port.getHost())
            case _:
                raise TypeError(f"the endpoint {listener.text} does not listen at once")
