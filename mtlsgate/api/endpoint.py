"""
Listening in a Twisted application: a gate's endpoint, and the port that it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer

from mtlsgate.api.building import Built
from mtlsgate.clock import monotonic
from mtlsgate.errors import GateError
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.listening import bind
from mtlsgate.run.sockets import Sockets


@implementer(IListeningPort)
class GatePort:
    """
    A gate that listens.

    :ivar application: what verified connections are handed to.
    """

    def __init__(
        self, runner: EpochRunner, hosts: tuple[str, ...], application: IProtocolFactory
    ) -> None:
        """
        :param runner: listens.
        :param hosts: where, as a person writes it.
        """
        self.application = application
        self._runner = runner
        self._hosts = hosts
        self._address = runner.listening_on()[0]

    def startListening(self) -> None:
        """It listens already (`IListeningPort`)."""

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more connections.  Those there are go on, still watched: a client
        leaves when its certificate expires, or when a reload rejects it.

        :returns: fires when the address is free.
        """
        stopped = self._runner.stop_accepting()
        self._runner.registry.gone().addCallback(lambda _: self._runner.stop())
        return stopped

    def getHost(self) -> IAddress:
        """:returns: the address that it listens on; the first, if there are several."""
        return self._address

    @property
    def is_over(self) -> bool:
        """Whether it accepts no more, and the last connection is gone."""
        return self._runner.is_draining and not len(self._runner.registry)

    def epoch(self, built: Built) -> Epoch:
        """:raises ConfigError: if the gate cannot listen where this port does."""
        return built.epoch(self._hosts, self.application)

    def take_over(self, epoch: Epoch) -> None:
        """:raises GateError: if the application fails to start."""
        if self._runner.is_draining:
            self._runner.judge_by(epoch)
        else:
            self._runner.take_over(epoch)


@define
class Running:
    """The ports of one gate."""

    _ports: list[GatePort] = field(factory=list, init=False)

    def add(self, port: GatePort) -> None:
        """:param port: that listens now."""
        self._ports = [*self._still_there(), port]

    def take_over(self, built: Built) -> None:
        """
        Let every port follow the gate.

        :raises ConfigError: if one of them cannot.  Nothing has changed then.
        """
        epochs = [(port, port.epoch(built)) for port in self._still_there()]
        for port, epoch in epochs:
            port.take_over(epoch)

    def _still_there(self) -> list[GatePort]:
        return [port for port in self._ports if not port.is_over]


@implementer(IStreamServerEndpoint)
@frozen
class GateEndpoint:
    """
    Listens with a gate before the application.

    :ivar hosts: where.
    """

    _gate: Callable[[], Built] = field(repr=False)
    _running: Running = field(repr=False)
    _reactor: Any = field(repr=False)
    hosts: tuple[str, ...]

    def listen(  # type: ignore[override]  # in types that need no plugin of mypy's
        self, protocolFactory: IProtocolFactory | Factory[Any]
    ) -> Deferred[GatePort]:
        """
        :param protocolFactory: the application's; its ``buildProtocol`` is called for
            verified connections only.
        :returns: the port.  Fails with `GateError` if it cannot listen.
        """
        try:
            return succeed(self._listen(protocolFactory))
        except Exception:  # noqa: BLE001 -- an endpoint's errors come by its Deferred
            return fail()

    def _listen(self, application: IProtocolFactory | Factory[Any]) -> GatePort:
        epoch = self._gate().epoch(self.hosts, application)
        reactor, sockets = monotonic(self._reactor), Sockets.of_process()
        registry = Registry(reactor, [HumanLog(epoch.settings.quiet)])
        bound = bind(epoch, sockets)
        runner = EpochRunner(epoch, bound, sockets, reactor, registry)
        try:
            runner.listen()
        except GateError:
            runner.stop_accepting()
            raise
        runner.start()
        port = GatePort(runner, self.hosts, application)
        self._running.add(port)
        return port
