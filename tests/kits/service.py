"""
A service in memory: it loads its configuration from a file, listens on sockets
that nobody can connect to, and reloads.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.acme.steps import Orders
from mtlsgate.clock import utc_now
from mtlsgate.config.urls import Url
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import Observer, Reload
from mtlsgate.gate.listener import BoundSocket, Listener
from mtlsgate.load.addresses import Address, UnixAddress
from mtlsgate.load.epoch import Epoch, Shadow
from mtlsgate.load.loading import Loading, no_collection
from mtlsgate.load.shadow import load_shadow, with_shadow
from mtlsgate.load.state import KeptDocuments
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.certificate_orders import CertificateOrders
from mtlsgate.run.epoch_runner import EpochRunner
from mtlsgate.run.fetcher import Fetcher
from mtlsgate.run.followers import EpochFollower, ObserversFollower
from mtlsgate.run.listening import bind
from mtlsgate.run.names import configured_names
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.reloading import Load, Reloader
from mtlsgate.run.service import GateService
from mtlsgate.run.shadow import Shadowing
from mtlsgate.run.shadow_control import ShadowControl, ShadowFollower
from mtlsgate.run.sockets import Sockets
from mtlsgate.run.status_taker import Process, StatusTaker
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.spiffe.agents import Agents
from mtlsgate.testing import Authority, Client, Credential
from tests.kits.pki import NOW, site
from tests.kits.spiffe import MemoryAgent

ISSUING = 'client_certificate "fleet" {\nca_certificate_file = "issuing.crt"\n}'
PINNED = (
    'client_certificate "pinned" {\nca_certificate_file = "issuing.crt"\n'
    'leaf_certificate_file = "client.crt"\n}'
)
AUDITED = 'settings {\n  audit {\n    file = "audit.log"\n  }\n}\n'

ROOT = Authority.create("Root", organization="Example")
ALICE = ROOT.issue("alice", serial=0xABC, dns_names=["a.example"], uris=["spiffe://td/alice"])
EVE = Authority.create("Other").issue("eve")
#: A rule on the CA of Alice, whose certificates are valid today.
RULE = 'client_certificate "rule" {\n      ca_certificate_file = "ca.crt"\n    }'


def a_server(
    name: str = "door", rules: str = ISSUING, rest: str = "", certificate: str = "server"
) -> str:
    """:returns: a ``server`` block, on a unix socket of its own name."""
    return f"""\
server "{name}" {{
  hosts = ["unix:{name}.sock"]
  {rest}
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "{certificate}.crt"
      private_key_file = "{certificate}.key"
    }}
    {rules}
  }}
}}
"""


def server(name: str = "door", tls: str = RULE, more: str = "") -> str:
    """:returns: a ``server`` block whose certificate is valid today."""
    return a_server(name, tls, more, certificate="s")


def _no_orders() -> Orders:
    raise AssertionError("nothing is ordered")


def service_of(
    epoch: Epoch,
    sockets: Sockets,
    reactor: IReactorTime,
    connections: Connections,
    load: Load,
    observers: Observers | None = None,
    documents: Documents | None = None,
    identities: Identities | None = None,
    shadowing: Shadowing | None = None,
    registries: Desks | None = None,
    orders: Callable[[], Orders] = _no_orders,
) -> GateService:
    """:returns: a service put together as twistd's is, but for what listens and observes."""
    documents, identities = documents or Documents(), identities or Identities()
    observers = observers or Observers(
        counts=Counts(configured_names(epoch)),
        history=History(reactor.seconds, connections.now),
        changes=Changes(reactor),
    )
    shadowing = shadowing or Shadowing(
        epoch,
        sockets.key_of,
        reactor,
        observers,
        identities.delivered,
        Desks.of(reactor),
        connections.now,
    )
    follower = ShadowFollower(shadowing, connections)
    followers: list[EpochFollower] = [ObserversFollower(observers), follower]
    bound = bind(epoch, sockets)
    runner = EpochRunner(
        epoch,
        bound,
        sockets,
        reactor,
        connections,
        followers,
        registries=registries,
        refreshed=shadowing.refreshed,
    )
    reloader = Reloader(runner, load, maybeDeferred, [follower])
    upkeep = Upkeep(runner, reloader.refresh, reactor, maybeDeferred, lambda: 0.5)
    fetcher = Fetcher(upkeep, documents.download, str)
    agents = AgentWatch(upkeep, identities.delivered, identities.agents.__getitem__)
    ordering = CertificateOrders(upkeep, orders)
    return GateService(runner, reloader, observers, fetcher, agents, shadowing, ordering)


@frozen
class Identities:
    """
    SPIFFE agents, in memory.

    :ivar agents: by their sockets.
    :ivar delivered: what they have delivered.
    """

    agents: Mapping[str, MemoryAgent] = field(factory=dict)
    delivered: Agents = field(factory=Agents)


@frozen
class Documents:
    """
    What can be fetched, without a network.

    :ivar found: by URL what is there: a document, or why there is none; a list of those
        that are waited for.
    :ivar asked: the URLs that were asked for, in order.
    :ivar kept: what was fetched.
    """

    found: dict[str, bytes | Exception] = field(factory=dict)
    asked: list[str] = field(factory=list)
    waiting: list[Deferred[bytes]] = field(factory=list)
    kept: KeptDocuments = field(factory=KeptDocuments)

    def download(self, url: Url, request: bytes | None = None) -> Deferred[bytes]:
        self.asked.append(url.text)
        found = self.found.get(url.text)
        if isinstance(found, Exception):
            return fail(found)
        if found is not None:
            return succeed(found)
        self.waiting.append(Deferred())
        return self.waiting[-1]


class MemorySocket:
    """
    A socket that nobody can connect to.

    :ivar is_closed: whether it is given back.
    """

    family = socket.AF_UNIX
    is_closed = False

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def sock(self) -> Any:
        return self

    def getsockname(self) -> str:
        return self._name

    def fileno(self) -> int:
        return -1

    def accept(self) -> tuple[socket.socket, str]:
        raise BlockingIOError

    def close(self) -> None:
        self.is_closed = True


class MemorySockets(Sockets):
    """
    Sockets that nobody can connect to.

    :ivar taken: the keys of those that were taken, in order.
    :ivar made: the sockets, likewise.
    """

    def __init__(self, *, tcp: bool = True) -> None:
        """:param tcp: whether those of TCP are real."""
        super().__init__()
        self._tcp = tcp
        self.taken: list[str] = []
        self.made: list[MemorySocket] = []

    def take(self, address: Address) -> BoundSocket:
        if self._tcp and not isinstance(address, UnixAddress):
            return super().take(address)
        self.taken.append(str(address))
        self.made.append(MemorySocket(str(address)))
        return self.made[-1]


class MemoryService:
    """
    :ivar site: its directory.
    :ivar service: the running service.
    :ivar reactor: what it runs in.
    :ivar now: tells the wall clock's time; a test may move it.
    :ivar taker: takes its status.
    :ivar told: its metrics.
    :ivar shadow: puts configurations in the shadow.
    :ivar reloads: what came of each reload.
    """

    def __init__(
        self,
        directory: Path,
        text: str,
        *,
        observers: Sequence[Observer] = (),
        now: Callable[[], datetime] = lambda: NOW,
        documents: Documents | None = None,
        identities: Identities | None = None,
        registries: Callable[[IReactorTime, Callable[[], datetime]], Desks] | None = None,
        orders: Callable[[], Orders] = _no_orders,
    ) -> None:
        """
        :param text: the configuration.
        :param orders: makes what talks to CAs.
        :param registries: makes those that the service asks.
        :param observers: beside the service's own.
        :param documents: what can be fetched.
        :param identities: the SPIFFE agents.
        """
        self.documents = documents or Documents()
        self.identities = identities or Identities()
        self.site = site(directory)
        own = ROOT.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
        for name, content in (("ca.crt", ROOT.pem), ("s.crt", own.pem), ("s.key", own.key_pem)):
            self.site.write(name, content)
        self.reactor = MemoryReactorClock()
        self.sockets = MemorySockets()
        self.now = now
        self.configure(text)
        epoch = self._load()
        audit = AuditLog()
        audit.turn_to(audit.prepare(epoch.path, epoch.settings.audit))
        observing = Observers(
            audit=audit,
            log=HumanLog(epoch.settings.quiet),
            counts=Counts(configured_names(epoch)),
            recent=RecentRejections(epoch.settings.quiet),
            history=History(self.reactor.seconds, lambda: self.now()),
            changes=Changes(self.reactor),
        )
        self.registries = None if registries is None else registries(self.reactor, self.now)
        of_shadow = Desks.of if registries is None else registries
        shadowing = Shadowing(
            epoch,
            self.sockets.key_of,
            self.reactor,
            observing,
            self.identities.delivered,
            of_shadow(self.reactor, self.now),
            lambda: self.now(),
        )
        self.connections = Connections(
            self.reactor,
            (*observing.all, shadowing, *observers),
            lambda: self.now(),
            registries=self.registries,
        )
        self.service = service_of(
            epoch,
            self.sockets,
            self.reactor,
            self.connections,
            self._load,
            observing,
            self.documents,
            self.identities,
            shadowing,
            self.registries,
            orders,
        )
        self.shadow = ShadowControl(
            shadowing, self.service.runner, self._load_shadow, maybeDeferred, str(self.site.config)
        )
        process = Process(version="1", config=str(self.site.config), started=NOW, began=0.0)
        self.taker = StatusTaker(self.service, process)
        self.told = Metrics(observing.counts, self.taker.state)
        self.reloads: list[Reload] = []
        self.service.privilegedStartService()
        self.service.startService()

    def _load(self, is_trial: bool = False) -> Epoch:
        config = str(self.site.config)
        with no_collection():
            epoch = Loading(config, self._surroundings()).epoch()
        return with_shadow(epoch, config, self._surroundings())

    def _load_shadow(self, path: Path) -> Shadow:
        return load_shadow(path, self._surroundings())

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            environ={},
            now=lambda: self.now(),
            kept=self.documents.kept,
            agents=self.identities.delivered,
        )

    def configure(self, text: str) -> None:
        """Write the configuration."""
        self.site.write("gate.hcl", text)

    def reload(self, text: str | None = None, *, is_trial: bool = False) -> Reload:
        """:param text: the configuration's, from now on."""
        if text is not None:
            self.configure(text)
        found: list[Reload] = []
        self.service.reloader.reload(is_trial=is_trial).addCallback(found.append)
        # What judges live connections again goes on in the reactor's time.
        self.reactor.pump([0.0] * 20)
        [report] = found
        self.reloads.append(report)
        return report

    def listens(self) -> list[str]:
        """:returns: the sockets that were taken, in order."""
        return [key.removeprefix("unix:") for key in self.sockets.taken]

    def listener(self, name: str = "door") -> Listener:
        """:returns: what listens for a server."""
        return self.service.runner.listeners[f"unix:{name}.sock"]

    def connect(self, who: Credential | None = None, name: str = "door", **options: Any) -> Client:
        """:returns: a client that has said nothing yet."""
        return Client(self.listener(name), who, clock=self.reactor, **options)

    def handshake(self, who: Credential | None, name: str = "door", **options: Any) -> Client:
        """:returns: a client whose handshake is over, admitted or not."""
        client = self.connect(who, name, **options)
        client.handshake()
        return client

    def enter(self, who: Credential, name: str = "door", **options: Any) -> Client:
        """:returns: a client that was admitted."""
        client = self.connect(who, name, **options)
        client.send(b"knock")
        assert client.receive() == b"knock"
        return client

    def audited(self, name: str = "audit.log") -> list[dict[str, Any]]:
        """:returns: what the audit log holds."""
        return [json.loads(line) for line in (self.site.directory / name).read_text().splitlines()]

    def metrics(self) -> dict[str, float]:
        """:returns: each sample as Prometheus would name it."""
        families = text_string_to_metric_families(self.told.exposition().decode())
        found: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            labels = ",".join(f'{name}="{sample.labels[name]}"' for name in sorted(sample.labels))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
        return found

    def stop(self) -> list[None]:
        """:returns: gets an item when the service has stopped."""
        stopped: list[None] = []
        self.service.stopService().addCallback(stopped.append)
        return stopped


def today(directory: Path, text: str) -> MemoryService:
    """:returns: a service whose clock tells today's time."""
    return MemoryService(directory, text, now=utc_now)
