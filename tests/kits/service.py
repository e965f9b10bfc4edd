"""
A whole gate in memory: a service that listens on endpoints of a reactor that
is none, loads its configuration from a file, and takes over what it says anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.gate.events import Observer, Reload
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import Epoch, load
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.observers import Observers
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.followers import ObserversFollower
from mtlsgate.run.listening import Listener, bind
from mtlsgate.run.names import configured_names
from mtlsgate.run.reloading import Load, Reloader
from mtlsgate.run.service import GateService
from mtlsgate.testing import Client, Credential
from tests.kits.pki import NOW, site

#: A server on an endpoint; the rules, and what else is in it.
SERVER = """
server "{name}" {{
  hosts = ["unix:{name}.sock"]
  {rest}
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}
    {rules}
  }}
}}
"""
ISSUING = 'client_certificate "fleet" { ca_certificate_file = "issuing.crt" }'
PINNED = (
    'client_certificate "pinned" { ca_certificate_file = "issuing.crt"\n'
    'leaf_certificate_file = "client.crt" }'
)


def a_server(name: str = "door", rules: str = ISSUING, rest: str = "") -> str:
    """:returns: a ``server`` block."""
    return SERVER.format(name=name, rules=rules, rest=rest)


def service_of(
    epoch: Epoch,
    listeners: Sequence[Listener],
    reactor: IReactorTime,
    registry: Registry,
    load: Load,
    observers: Observers | None = None,
) -> GateService:
    """:returns: a service put together as twistd's is, but for what listens and observes."""
    observers = observers or Observers(counts=Counts(configured_names(epoch)))
    followers = [ObserversFollower(observers)]
    runner = EpochRunner(epoch, listeners, reactor, registry, followers)
    return GateService(runner, Reloader(runner, load, maybeDeferred), observers)


class House:
    """
    :ivar service: the running gate.
    :ivar reloads: what came of each attempt to load anew.
    """

    def __init__(self, directory: Path, text: str, *, observers: tuple[Observer, ...] = ()) -> None:
        self.site = site(directory)
        self.reactor = MemoryReactorClock()
        self.now: Callable[[], datetime] = lambda: NOW
        self.site.write("gate.hcl", text)
        epoch = self._load()
        self.registry = Registry(self.reactor, [HumanLog(), *observers], lambda: self.now())
        self.reloads: list[Reload] = []
        self.service = service_of(
            epoch, bind(epoch, self.reactor), self.reactor, self.registry, self._load
        )
        self.service.privilegedStartService()
        self.service.startService()
        for _, factory, *_ in self.reactor.unixServers:
            # As a real port does.
            factory.doStart()

    def _load(self, is_trial: bool = False) -> Epoch:
        return load(str(self.site.config), {}, lambda: self.now())

    def reload(self, text: str | None = None, *, is_trial: bool = False) -> Reload:
        """:param text: the configuration's, from now on."""
        if text is not None:
            self.site.write("gate.hcl", text)
        found: list[Reload] = []
        self.service.reloader.reload(is_trial=is_trial).addCallback(found.append)
        # What judges live connections again goes on in the reactor's time.
        self.reactor.pump([0.0] * 20)
        [report] = found
        self.reloads.append(report)
        return report

    def listens(self) -> list[str]:
        """:returns: the endpoints that were opened, in order."""
        return [Path(str(path)).name for path, *_ in self.reactor.unixServers]

    def factory(self, name: str = "door") -> IProtocolFactory:
        """:returns: what listens for a server."""
        found: list[IProtocolFactory] = [
            factory
            for path, factory, *_ in self.reactor.unixServers
            if Path(str(path)).name == f"{name}.sock"
        ]
        return found[-1]

    def connect(self, who: Credential | None, name: str = "door", **options: object) -> Client:
        """:returns: a client that has said nothing yet."""
        return Client(self.factory(name), who, clock=self.reactor, **options)  # type: ignore[arg-type]

    def enter(self, who: Credential, name: str = "door", **options: object) -> Client:
        """:returns: a client that was let in."""
        client = self.connect(who, name, **options)
        client.send(b"knock")
        assert client.receive() == b"knock"
        return client

    def stop(self) -> list[None]:
        """:returns: gets an item when the service has stopped."""
        stopped: list[None] = []
        self.service.stopService().addCallback(stopped.append)
        return stopped
