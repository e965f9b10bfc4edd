"""
A gate in memory, loaded from a file, with the audit log and the metrics it keeps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.gate.events import Reload
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import load
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.run.listening import bind
from mtlsgate.run.names import configured_names
from mtlsgate.run.status_taker import Process, Snapshots
from mtlsgate.testing import Authority, Client, Credential
from tests.kits.pki import NOW
from tests.kits.service import service_of

ROOT = Authority.create("Root", organization="Example")
ALICE = ROOT.issue("alice", serial=0xABC, dns_names=["a.example"], uris=["spiffe://td/alice"])
EVE = Authority.create("Other").issue("eve")


RULE = 'client_certificate "rule" {\n      ca_certificate_file = "ca.crt"\n    }'


def server(name: str = "door", tls: str = RULE, more: str = "") -> str:
    """:returns: a server on a socket of its own name, by default with a rule on the CA."""
    return f"""\
server "{name}" {{
  hosts = ["unix:{name}.sock"]
  {more}
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "s.crt"
      private_key_file = "s.key"
    }}
    {tls}
  }}
}}
"""


AUDITED = 'settings {\n  audit {\n    file = "audit.log"\n  }\n}\n'


class MemoryGate:
    """
    :ivar service: the gate, running.
    :ivar reactor: what it runs in.
    :ivar told: its metrics.
    """

    def __init__(self, directory: Path, text: str) -> None:
        self.directory = directory
        own = ROOT.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
        for name, content in (("ca.crt", ROOT.pem), ("s.crt", own.pem), ("s.key", own.key_pem)):
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o600)
        self.reactor = MemoryReactorClock()
        self.configure(text)
        epoch = load(self.config)
        audit = AuditLog()
        audit.turn_to(audit.prepare(epoch.path, epoch.settings.audit))
        observers = Observers(
            audit=audit,
            log=HumanLog(epoch.settings.quiet),
            counts=Counts(configured_names(epoch)),
            recent=RecentRejections(epoch.settings.quiet),
        )
        self.service = service_of(
            epoch,
            bind(epoch, self.reactor),
            self.reactor,
            Registry(self.reactor, observers.all),
            lambda is_trial: load(self.config),
            observers,
        )
        process = Process(version="1", config=self.config, started=NOW, began=0.0)
        taker = Snapshots(self.service, process)
        self.told = Metrics(observers.counts, taker.state)
        self.service.startService()

    @property
    def config(self) -> str:
        return str(self.directory / "gate.hcl")

    def configure(self, text: str) -> None:
        (self.directory / "gate.hcl").write_text(text)

    def reload(self, text: str, *, is_trial: bool = False) -> Reload:
        """:returns: what came of another configuration, once it has taken over."""
        self.configure(text)
        found: list[Reload] = []
        self.service.reloader.reload(is_trial=is_trial).addCallback(found.append)
        self.reactor.pump([0, 0, 0])
        [report] = found
        return report

    def arrive(
        self, credential: Credential | None = None, socket: str = "door", **more: Any
    ) -> Client:
        """:returns: a client that has said nothing yet."""
        factory = next(
            one[1]
            for one in reversed(self.reactor.unixServers)
            if one[0].endswith(f"{socket}.sock")
        )
        return Client(factory, credential, clock=self.reactor, **more)

    def connect(self, credential: Credential | None, socket: str = "door", **more: Any) -> Client:
        """:returns: a client whose handshake is over."""
        client = self.arrive(credential, socket, **more)
        client.handshake()
        return client

    def lines(self, name: str = "audit.log") -> list[dict[str, Any]]:
        """:returns: the audit log."""
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]

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
