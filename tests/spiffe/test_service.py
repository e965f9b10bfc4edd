"""The service with an agent, in memory: what is delivered takes effect, and what is not."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from mtlsgate.clock import utc_now
from mtlsgate.ctl import tables
from mtlsgate.gate.connections import Connections
from mtlsgate.load.identities import supplied
from mtlsgate.load.loading import load
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.agent_watch import AgentWatch
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.spiffe.agents import Agents
from mtlsgate.spiffe.messages import read_bundles, read_svids
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.gate import VERSIONS, Log
from tests.kits.pki import site
from tests.kits.service import Identities, MemoryService, MemorySockets, service_of
from tests.kits.spiffe import MemoryAgent, Served, bundle_message, pb, svid_message
from tests.kits.svids import AGENT, OTHER, PLANTS, svid

GATE, SECOND = "spiffe://plants.example/gate", "spiffe://plants.example/second"

CERTIFICATE = f'server_certificate {{\nspiffe = "unix:{AGENT}"\n}}'
RULE = 'client_certificate "mesh" {\nspiffe_trust_domain = "plants.example"\n}'


def config(certificate: str = CERTIFICATE, rule: str = RULE, more: str = "") -> str:
    return f"""
{more}
server "door" {{
  hosts = ["unix:door.sock"]
  protocol "echo" {{}}
  tls {{
    {certificate}
    {rule}
  }}
}}
"""


@define(eq=False)
class Running:
    """
    A service and its agent.

    :ivar own: the X.509-SVID of the gate.
    """

    directory: Path
    text: str = field(factory=config)
    agent: MemoryAgent = field(factory=MemoryAgent)
    own: Credential = field(factory=lambda: svid(GATE))
    ahead: timedelta = timedelta(0)
    service: MemoryService = field(init=False)

    @service.default
    def _made(self) -> MemoryService:
        made = MemoryService(
            self.directory,
            self.text,
            now=lambda: utc_now() + self.ahead,
            identities=Identities({AGENT: self.agent}),
        )
        made.service.agents.startService()
        return made

    def pass_seconds(self, seconds: float = 1.0) -> None:
        self.service.reactor.pump([seconds / 20] * 20)

    def call(self, method: str) -> Served:
        """:returns: the agent's side of a call that it has accepted."""
        served = self.agent.the(method)
        if not served.is_accepted:
            served.accept()
        return served

    def deliver(self, *svids: tuple[str, Credential]) -> None:
        self.call("FetchX509SVID").send(svid_message(*(svids or ((GATE, self.own),))))
        self.pass_seconds()

    def trust(self, *authorities: Authority, **others: Sequence[Authority]) -> None:
        bundles: dict[str, Sequence[Authority]] = {"plants.example": authorities}
        bundles |= {name.replace("_", "."): each for name, each in others.items()}
        self.call("FetchX509Bundles").send(bundle_message(bundles))
        self.pass_seconds()

    @property
    def not_ready(self) -> str | None:
        return self.service.service.not_ready

    def enter(self, who: Credential | None = None, version: Version | None = None) -> Client:
        bounds = {} if version is None else {"min_version": version, "max_version": version}
        return self.service.enter(who or svid(), **bounds)

    def refuse(self, who: Credential | None = None) -> Reason:
        """:returns: why a client is rejected."""
        client = self.service.connect(who or svid())
        client.send(b"knock")
        assert client.receive() == b""
        assert client.disconnected
        return Reason(next(iter(self.service.service.observers.recent)).reason)


Said = Callable[[], str]


@pytest.fixture
def said(log: Log) -> Iterator[Said]:
    """:returns: tells what was logged so far; that nothing failed is checked as well."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace", "").startswith("mtlsgate"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    yield lambda: "\n".join(lines)
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]


@pytest.fixture
def running(tmp_path: Path, said: Said) -> Running:
    return Running(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gate_comes_up_when_the_agent_has_delivered(running: Running, version: Version) -> None:
    assert running.not_ready == "waiting for an X.509-SVID"
    assert running.refuse() is Reason.NO_SERVER_CERTIFICATE
    running.deliver()
    assert running.not_ready == "waiting for the bundle of plants.example"
    assert running.refuse() is Reason.BUNDLE_MISSING
    running.trust(PLANTS)
    assert running.not_ready is None
    client = running.enter(version=version)
    assert client.server_certificate == running.own.certificate
    assert running.service.service.runner.number == 1


def test_an_agent_that_comes_later(tmp_path: Path, said: Said) -> None:
    """The gate listens, says what it waits for, and is ready when the agent is there."""
    running = Running(tmp_path, agent=MemoryAgent(is_up=False))
    assert running.not_ready == "waiting for an X.509-SVID"
    assert "no X.509-SVID from the agent at" in said()
    assert "no such file or directory; there is none" in said()
    running.pass_seconds(30)
    assert said().count("no X.509-SVID from the agent at") == 1
    running.agent.is_up = True
    running.pass_seconds(6)
    running.deliver()
    running.trust(PLANTS)
    assert running.not_ready is None
    assert "the agent at /run/spire/agent.sock answers FetchX509SVID again" in said()
    running.enter()


def test_an_agent_that_answers_one_call_again_is_asked_the_other(running: Running) -> None:
    """It may have waited for seconds until it asks again."""
    running.deliver()
    running.trust(PLANTS)
    for _ in range(8):
        running.agent.the("FetchX509SVID").drop()
        running.pass_seconds(10)
    running.agent.the("FetchX509SVID").drop()
    running.call("FetchX509Bundles").drop()
    running.pass_seconds(0.2)
    assert [one.method for one in running.agent.open] == ["FetchX509Bundles"]
    running.call("FetchX509Bundles").send(bundle_message({"plants.example": [PLANTS]}))
    assert {one.method for one in running.agent.open} == {"FetchX509Bundles", "FetchX509SVID"}


def test_a_new_svid_serves_new_handshakes(running: Running) -> None:
    running.deliver()
    running.trust(PLANTS)
    before = running.enter()
    after = svid(GATE)
    running.deliver((GATE, after))
    assert running.enter().server_certificate == after.certificate
    before.send(b"still here")
    assert before.receive() == b"still here"
    assert (
        running.service.metrics()[
            'mtlsgate_spiffe_updates_total{agent="/run/spire/agent.sock",stream="FetchX509SVID"}'
        ]
        == 2
    )


def test_a_bundle_that_loses_a_ca_ends_who_depended_on_it(running: Running, said: Said) -> None:
    old, new = PLANTS, Authority.create("new")
    running.deliver()
    running.trust(old, new)
    stays, goes = running.enter(svid(authority=new)), running.enter(svid(authority=old))
    running.trust(new)
    assert goes.disconnected
    assert not stays.disconnected
    stays.send(b"here")
    assert stays.receive() == b"here"
    assert running.refuse(svid(authority=old)) is Reason.UNKNOWN_CA
    assert f"{Cause.NO_LONGER_ADMITTED}" in said()
    assert "bundle of plants.example: CAs added: 0, removed: 1" in said()
    # All CAs are gone: nobody stays, and the gate says that it is not ready.
    running.trust()
    assert stays.disconnected
    assert running.refuse() is Reason.BUNDLE_MISSING
    assert running.not_ready == "waiting for the bundle of plants.example"


def test_a_trust_domain_that_is_taken_away(running: Running) -> None:
    """A message says everything: what is not in it is gone."""
    running.deliver()
    running.trust(PLANTS)
    client = running.enter()
    running.call("FetchX509Bundles").send(bundle_message({"other.example": [OTHER]}))
    running.pass_seconds()
    assert client.disconnected
    assert running.refuse() is Reason.BUNDLE_MISSING


def test_what_was_delivered_stays_while_the_agent_is_away(running: Running, said: Said) -> None:
    running.deliver()
    running.trust(PLANTS)
    client = running.enter()
    running.agent.is_up = False
    for served in running.agent.open:
        served.drop()
    running.pass_seconds(60)
    assert running.not_ready is None
    running.enter()
    assert not client.disconnected
    assert "it closed the connection; what it has delivered stays in force until" in said()
    assert "those that it has delivered stay in force" in said()
    down = 'mtlsgate_spiffe_stream_down{agent="/run/spire/agent.sock",stream="FetchX509SVID"}'
    assert running.service.metrics()[down] == 1
    # Until it expires.
    running.ahead = timedelta(days=366)
    assert running.not_ready == "the X.509-SVID has expired"
    assert running.refuse(svid(days=800)) is Reason.NO_SERVER_CERTIFICATE
    running.agent.is_up = True
    running.pass_seconds(6)
    running.deliver((GATE, svid(GATE, days=800)))
    assert running.service.metrics()[down] == 0
    running.trust(PLANTS)
    running.enter(svid(days=800))


def test_a_message_that_must_not_be_used_changes_nothing(running: Running, said: Said) -> None:
    running.deliver()
    running.trust(PLANTS)
    for method, message, why in (
        ("FetchX509SVID", b"", "what came has no X.509-SVID"),
        ("FetchX509SVID", b"\xff", "what came is no message"),
        ("FetchX509Bundles", b"", "what came has no bundle"),
        ("FetchX509Bundles", b"\x12\x02\x0a\x00", "which is no trust domain"),
    ):
        opened = len(running.agent.served)
        running.call(method).send(message)
        running.pass_seconds()
        assert why in said()
        assert len(running.agent.served) > opened
        running.enter()
    [svids, bundles] = running.service.taker.take().service.agents[::-1]
    assert (svids.stream, bundles.stream) == ("FetchX509SVID", "FetchX509Bundles")
    assert svids.problem == "what came is no message of the Workload API"
    assert svids.names == (GATE,)
    assert not svids.is_up
    assert bundles.names == ("plants.example",)


def test_revocation_lists_of_an_agent_are_said_to_be_unused(running: Running, said: Said) -> None:
    running.deliver()
    running.trust(PLANTS)
    assert "revocation lists" not in said()
    message = bundle_message({"plants.example": [PLANTS]}) + pb(1, b"a list")
    running.call("FetchX509Bundles").send(message)
    running.pass_seconds()
    assert "sends revocation lists, which are not used" in said()
    running.enter()


def test_a_gate_that_is_not_entitled_any_more_stops(running: Running, said: Said) -> None:
    running.deliver()
    running.trust(PLANTS)
    client = running.enter()
    running.call("FetchX509SVID").end(7, "no identity issued")
    running.pass_seconds(0.01)
    assert running.refuse() is Reason.NO_SERVER_CERTIFICATE
    assert not client.disconnected
    assert "is not entitled to its X.509-SVID any more" in said()
    running.call("FetchX509Bundles").end(7, "no identity issued")
    running.pass_seconds(0.01)
    assert client.disconnected
    assert "PermissionDenied: no identity issued; the rules that need them" in said()


def test_what_is_read_after_it_was_taken_away_does_not_count(running: Running, said: Said) -> None:
    """A message is read in a thread; meanwhile the agent may say that it was the last."""
    reading: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def in_thread(function: Callable[[], Any], /) -> Deferred[Any]:
        reading.append((function, Deferred()))
        return reading[-1][1]

    service, agent, agents = running.service.service, MemoryAgent(), Agents()
    reactor, refresh = running.service.reactor, service.reloader.refresh
    upkeep = Upkeep(service.runner, refresh, reactor, in_thread)
    watch = AgentWatch(upkeep, agents, lambda _: agent)
    watch.startService()
    served = agent.the("FetchX509SVID")
    served.accept()
    served.send(svid_message((GATE, running.own)))
    served.end(7, "no identity issued")
    [(function, read)] = reading
    read.callback(function())
    assert agents.svids(AGENT) == ()
    watch.stopService()


def test_two_messages_in_a_row_both_take_effect(running: Running) -> None:
    running.deliver()
    bundles = running.call("FetchX509Bundles")
    new = Authority.create("new")
    bundles.send(bundle_message({"plants.example": [PLANTS]}))
    bundles.send(bundle_message({"plants.example": [new]}))
    running.enter(svid(authority=new))
    assert running.refuse() is Reason.UNKNOWN_CA


def test_one_of_several_svids_is_chosen_by_its_name(tmp_path: Path, said: Said) -> None:
    named = f'server_certificate {{\nspiffe = "unix:{AGENT}"\nspiffe_id = "{SECOND}"\n}}'
    running = Running(tmp_path, config(named))
    second = svid(SECOND)
    running.trust(PLANTS)
    running.deliver()
    assert running.refuse() is Reason.NO_SERVER_CERTIFICATE
    assert f"has delivered no {SECOND}, but {GATE}" in said()
    running.deliver((GATE, running.own), (SECOND, second))
    assert running.enter().server_certificate == second.certificate


def test_federated_trust_domains(tmp_path: Path, said: Said) -> None:
    rule = RULE.replace("}", 'spiffe_federated = ["other.example"]\n}')
    running = Running(tmp_path, config(rule=rule))
    running.deliver()
    running.trust(PLANTS)
    there = svid("spiffe://other.example/x", OTHER)
    running.enter()
    # Another trust domain's trouble does not keep this one's workloads out.
    assert running.not_ready is None
    assert "has delivered no bundle of other.example: nobody of it is admitted" in said()
    assert running.refuse(there) is Reason.BUNDLE_MISSING
    running.trust(PLANTS, other_example=[OTHER])
    running.enter(there)
    assert running.refuse(svid(authority=OTHER)) is Reason.WRONG_TRUST_DOMAIN


def test_a_reload_goes_on_with_what_was_delivered(running: Running) -> None:
    running.deliver()
    running.trust(PLANTS)
    client = running.enter()
    report = running.service.reload(config(more="settings {\n  max_connections = 9\n}"))
    assert report.problems == ()
    running.enter()
    assert not client.disconnected
    assert running.service.service.runner.number == 2
    assert len(running.agent.open) == 2
    # An agent that nobody needs any more is left alone.
    rule = 'client_certificate "rule" {\n      ca_certificate_file = "ca.crt"\n    }'
    files = 'server_certificate {\npublic_key_file = "s.crt"\nprivate_key_file = "s.key"\n}'
    assert running.service.reload(config(files, rule)).problems == ()
    running.pass_seconds(2)
    assert running.agent.open == []
    assert client.disconnected
    # Nor is anything kept that it has delivered: what comes back later may be out of date.
    assert running.service.identities.delivered.svids(AGENT) == ()
    assert running.service.reload(config()).problems == ()
    assert running.not_ready == "waiting for an X.509-SVID"


def test_who_waits_for_the_first_answers_does_not_wait_in_vain(tmp_path: Path, said: Said) -> None:
    """A new worker takes connections when it has an identity; if the agent is away at once, and
    if it is silent after the time that it was given."""
    ended: list[str] = []

    def wait(running: Running, name: str) -> None:
        waiting = running.service.service.agents.first_answers(5.0)
        waiting.addCallback(lambda _: ended.append(name))

    running = Running(tmp_path)
    wait(running, "answered")
    running.deliver()
    assert ended == []
    running.trust(PLANTS)
    assert ended == ["answered"]
    wait(running, "had it")
    assert ended.pop() == "had it"
    wait(Running(tmp_path, agent=MemoryAgent(is_up=False)), "away")
    assert ended.pop() == "away"
    silent = Running(tmp_path, agent=MemoryAgent(is_silent=True))
    wait(silent, "silent")
    silent.service.reactor.advance(4.9)
    assert ended == ["answered"]
    silent.service.reactor.advance(0.2)
    assert ended.pop() == "silent"
    running.pass_seconds(2)
    assert ended == ["answered"]


def test_what_comes_before_the_gate_listens_is_there_when_it_does(
    tmp_path: Path, said: Said
) -> None:
    site(tmp_path)
    agents, reactor = Agents(), MemoryReactorClock()
    (tmp_path / "gate.hcl").write_text(config())
    epoch = load(str(tmp_path / "gate.hcl"), {}, utc_now, agents=agents)
    connections = Connections(reactor, [HumanLog()])
    service = service_of(epoch, MemorySockets(), reactor, connections, lambda _: epoch)
    own = svid(GATE)
    agents.put_svids(AGENT, read_svids(svid_message((GATE, own))))
    agents.put_bundles(AGENT, read_bundles(bundle_message({"plants.example": [PLANTS]})))
    service.runner.refresh(supplied(epoch, agents, utc_now()))
    service.runner.listen()
    client = Client(service.runner.listeners["unix:door.sock"], svid(), clock=reactor)
    client.send(b"knock")
    assert client.receive() == b"knock"
    assert client.server_certificate == own.certificate


def test_status_and_log_never_show_a_key(running: Running, said: Said) -> None:
    running.deliver()
    running.trust(PLANTS)
    running.enter()
    key = running.own.private_key.private_numbers().private_value  # type: ignore[union-attr]
    everything = (
        said() + repr(running.service.taker.take()) + repr(running.service.service.runner.epoch)
    )
    assert f"{key:x}" not in everything
    assert str(key) not in everything
    assert "PRIVATE" not in everything


def test_the_status_says_how_the_agent_is(running: Running) -> None:
    running.deliver()
    [svids] = [
        one for one in running.service.taker.take().service.agents if one.stream == "FetchX509SVID"
    ]
    assert svids.is_up
    assert svids.updates == 1
    assert svids.problem is None
    status = running.service.taker.take().service
    [own] = status.servers[0].certificates
    assert own.sha256 == running.own.sha256
    assert [one.kind for one in status.servers[0].deadlines] == ["server_certificate"]


def test_ctl_status_says_what_is_wrong_with_an_agent(running: Running) -> None:
    """And nothing of one that answers."""

    def shown() -> str:
        facts = running.service.taker.take().service.to_dict()
        output = io.StringIO()
        Console(file=output, width=300, markup=False, highlight=False).print(tables.status(facts))
        return output.getvalue()

    running.deliver()
    running.trust(PLANTS)
    assert "agent" not in shown()
    running.call("FetchX509SVID").end(14, "shutting down")
    assert (
        f"no FetchX509SVID from the agent at {AGENT}: Unavailable: shutting down; in force: {GATE}"
    ) in shown()
    running.pass_seconds()
    running.agent.the("FetchX509SVID").refuse(7, "no identity issued")
    assert "PermissionDenied: no identity issued; there is none in force" in shown()


@pytest.mark.parametrize("key", ["sharp", "weak"])
def test_an_svid_that_openssl_refuses_is_refused_before_it_counts(
    running: Running, said: Said, key: str
) -> None:
    """Or else it would take the server down."""
    running.deliver()
    running.trust(PLANTS)
    weak = rsa.generate_private_key(65537, 1024 if key == "weak" else 2048)
    other = svid(GATE, key=weak)
    running.deliver((GATE, other))
    shown = running.enter().server_certificate
    if key == "weak":
        assert "that OpenSSL refuses: ee key too small" in said()
        assert shown == running.own.certificate
    else:
        assert shown == other.certificate
