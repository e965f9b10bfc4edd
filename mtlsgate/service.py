"""
The Twisted service that listens.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.epoch import Epoch, LoadedServer
from mtlsgate.errors import GateError
from mtlsgate.gate import GateFactory
from mtlsgate.hosts import HostError, adopt, endpoint_of
from mtlsgate.overview import describe
from mtlsgate.peer import address_text

_log = Logger("mtlsgate.service")


class ListenError(GateError):
    """A server that cannot listen where it should, in one line."""


@frozen
class Listener:
    """
    One endpoint that is ready to listen.

    :ivar server: for whom.
    :ivar endpoint: where.
    :ivar text: where, as logs say it before the port is known.
    """

    server: LoadedServer
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
        for server in epoch.servers:
            for host in server.hosts:
                for address in host.addresses:
                    bound.append(address.bind())
        return tuple(_listeners(epoch, iter(bound), reactor))
    except HostError as error:
        for one in bound:
            one.close()
        raise ListenError(f"{epoch.path}: {error}") from error


def _listeners(epoch: Epoch, bound: Iterator[socket.socket], reactor: object) -> Iterable[Listener]:
    for server in epoch.servers:
        for host in server.hosts:
            for address in host.addresses:
                yield Listener(server, adopt(next(bound), reactor), str(address))
            if host.endpoint is not None:
                yield Listener(server, endpoint_of(host.endpoint, reactor), host.endpoint)


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
        for server in self.epoch.servers:
            factory = GateFactory(server.gate, self._reactor)
            mine = [one for one in self._listeners if one.server is server]
            where = [self._listen_on(one, factory) for one in mine]
            _log.info("{description}", description=describe(server, where))

    def _listen_on(self, listener: Listener, factory: GateFactory) -> str:
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
