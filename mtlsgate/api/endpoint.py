"""
Listening in a Twisted application: a gate's endpoint, and the port that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, evolve, field, frozen
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
from mtlsgate.api.reading import PythonReport
from mtlsgate.clock import monotonic
from mtlsgate.errors import NOWHERE, GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.load.address_conflicts import Occupant, refuse_overlaps
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.fetches import combined
from mtlsgate.load.identities import wanted
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.listening import bind
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.reloading import refresh
from mtlsgate.run.sockets import Sockets
from mtlsgate.run.threads import OwnThread
from mtlsgate.run.upkeep import Upkeep


@define
class Running:
    """The ports of one gate."""

    _ports: list[GatePort] = field(factory=list, init=False)

    def add(self, port: GatePort) -> None:
        """:param port: a port that listens now."""
        self._ports = [*self._still_there(), port]

    def take_over(self, built: Built) -> None:
        """
        Let every port use the gate as it is now.

        :raises ConfigError: if one of them cannot.  Then nothing has changed.
        """
        epochs = [(port, port.epoch(self, built)) for port in self._still_there()]
        for port, epoch in epochs:
            port.take_over(epoch)

    def _still_there(self) -> list[GatePort]:
        return [port for port in self._ports if not port.is_over]


@frozen(eq=False)
class Member:
    """
    One gate of a port, with its application.

    :ivar running: the ports of that gate.
    :ivar built: returns the gate as it is now.
    :ivar application: gets its verified connections.
    """

    running: Running
    built: Callable[[], Built] = field(repr=False)
    application: IProtocolFactory | Factory[Any]

    def epoch(self, hosts: tuple[str, ...]) -> Epoch:
        """:raises ConfigError: if the gate cannot listen there."""
        return self.built().epoch(hosts, self.application)


def epoch_of(members: Iterable[tuple[Built, Any]], hosts: tuple[str, ...]) -> Epoch:
    """
    :param members: gates, each with its application.
    :returns: one epoch with all of them, listening on these hosts.
    :raises ConfigError: if they cannot share these hosts.
    """
    first, *others = (built.epoch(hosts, application) for built, application in members)
    servers = [server for epoch in (first, *others) for server in epoch.servers]
    report = PythonReport(first.path)
    refuse_overlaps([(Occupant.of_server(one.model), one.hosts) for one in servers], report)
    names = [server.gate.name for server in servers]
    for name in {name for name in names if names.count(name) > 1}:
        report.error(NOWHERE, "", f"two gates are called {name!r}: give each a name of its own")
    addresses = [one for server in servers for host in server.hosts for one in host.addresses]
    if len(servers) > 1 and any(getattr(one, "port", None) == 0 for one in addresses):
        report.error(NOWHERE, "", "gates cannot share port 0: each would get a port of its own")
    if len(servers) > 1 and any(wanted(epoch) for epoch in (first, *others)):
        # Each gate keeps what was delivered to it.
        text = "a gate with SPIFFE identities cannot share its hosts: listen on others"
        report.error(NOWHERE, "", text)
    registries: dict[str, LoadedRegistry] = {}
    for one in (one for epoch in (first, *others) for one in epoch.registries):
        if registries.setdefault(one.name, one) != one:
            text = f"two registries are called {one.name!r}: give each a name of its own"
            report.error(NOWHERE, "", text)
    report.raise_errors()
    return evolve(
        first,
        registries=tuple(registries.values()),
        servers=tuple(servers),
        warnings=tuple(one for epoch in (first, *others) for one in epoch.warnings),
        expiries=tuple(one for epoch in (first, *others) for one in epoch.expiries),
        fetches=combined(one for epoch in (first, *others) for one in epoch.fetches),
    )


@implementer(IListeningPort)
class GatePort:
    """A listening gate; or several, chosen by the name that a client asks for."""

    def __init__(
        self,
        runner: EpochRunner,
        fetcher: Fetcher,
        agents: AgentWatch,
        hosts: tuple[str, ...],
        members: tuple[Member, ...],
    ) -> None:
        """
        :param runner: listens.
        :param fetcher: fetches revocation lists.
        :param agents: asks SPIFFE agents.
        :param hosts: the addresses, as written.
        :param members: the gates.
        """
        self._runner = runner
        self._fetcher = fetcher
        self._agents = agents
        self._hosts = hosts
        self._members = members
        self._address = runner.listening_on()[0]

    def startListening(self) -> None:
        """It listens already (`IListeningPort`)."""

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more connections.  Existing ones go on and are still watched: they end
        when the certificate expires, or when a reload rejects the client.

        :returns: a Deferred that fires when the address is free.
        """
        stopped = self._runner.stop_accepting()
        self._runner.connections.gone().addCallback(lambda _: self._stop())
        return stopped

    def _stop(self) -> None:
        self._runner.stop()
        self._fetcher.stopService()
        self._agents.stopService()

    def fetch(self) -> None:
        """Fetch what the gate needs, and ask the agents that it needs, if any."""
        if self._runner.epoch.fetches and not self._fetcher.running:
            self._fetcher.startService()
        if wanted(self._runner.epoch) and not self._agents.running:
            self._agents.startService()

    def getHost(self) -> IAddress:
        """:returns: the address that it listens on; the first, if there are several."""
        return self._address

    @property
    def is_over(self) -> bool:
        """Whether it accepts no more, and the last connection has ended."""
        return self._runner.is_draining and not len(self._runner.connections)

    def epoch(self, changed: Running, built: Built) -> Epoch:
        """
        :param changed: the ports of the gate that changes.
        :param built: that gate after the change.
        :raises ConfigError: if the port cannot use it.
        """
        members = [
            (built if one.running is changed else one.built(), one.application)
            for one in self._members
        ]
        return epoch_of(members, self._hosts)

    def take_over(self, epoch: Epoch) -> None:
        """:raises GateError: if the application fails to start."""
        if self._runner.is_draining:
            self._runner.judge_by(epoch)
        else:
            self._runner.take_over(epoch)
        self.fetch()


@implementer(IStreamServerEndpoint)
@frozen(eq=False)
class GateEndpoint:
    """
    Listens with a gate in front of the application.

    :ivar hosts: the addresses to listen on.
    """

    _running: Running = field(repr=False)
    _built: Callable[[], Built] = field(repr=False)
    _beside: tuple[Member, ...] = field(repr=False)
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
        members = (Member(self._running, self._built, application), *self._beside)
        epoch = epoch_of([(one.built(), one.application) for one in members], self.hosts)
        reactor, sockets = monotonic(self._reactor), Sockets.of_process()
        registries = Desks.of(reactor)
        observers = [HumanLog(epoch.settings.quiet)]
        connections = Connections(reactor, observers, registries=registries)
        bound = bind(epoch, sockets)
        runner = EpochRunner(epoch, bound, sockets, reactor, connections, registries=registries)
        try:
            runner.listen()
        except GateError:
            runner.stop_accepting()
            raise
        runner.start()
        in_thread, agents = OwnThread(reactor), self._built().agents

        def go_on(change: Callable[[Epoch], Epoch]) -> Deferred[tuple[str, ...]]:
            return refresh(runner, change, in_thread)

        upkeep = Upkeep(runner, go_on, reactor, in_thread)
        port = GatePort(
            runner,
            Fetcher.of(upkeep),
            AgentWatch.of(upkeep, agents),
            self.hosts,
            members,
        )
        port.fetch()
        for one in members:
            one.running.add(port)
        return port
