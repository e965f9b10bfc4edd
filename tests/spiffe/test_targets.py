"""Targets that are workloads, and the gate as one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mtlsgate.certificates.certificate import views
from mtlsgate.clock import utc_now
from mtlsgate.gate.events import ClosedConnection, RejectedConnection
from mtlsgate.load.identities import wanted
from mtlsgate.load.overview import overview
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.rejudging import Handover
from mtlsgate.spiffe.agents import Agents, SvidSource
from mtlsgate.spiffe.messages import read_svids
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.testing import Authority, Credential, RecordingFactory, Version
from mtlsgate.upstream.tls import TlsClient
from mtlsgate.upstream.verified import HandshakeFailed, NotReady, NotVerified
from mtlsgate.upstream.workloads import Workloads
from tests.kits.clientgate import Chain, handover, settle
from tests.kits.gate import VERSIONS, Log, condition
from tests.kits.pki import NOW, Site, site
from tests.kits.spiffe import svid_message
from tests.kits.svids import AGENT, OTHER, PLANTS, svid
from tests.kits.upstream import MemoryServer

ORDERS, GATE = "spiffe://plants.example/orders", "spiffe://plants.example/gate"


class Delivered:
    """What an agent has delivered, and a client that goes by it."""

    def __init__(self, *ids: str) -> None:
        self.agents = Agents()
        self.ahead = timedelta(0)
        workloads = Workloads(
            self.agents,
            SvidSource(AGENT),
            AGENT,
            "plants.example",
            condition(spiffe_ids=ids or (ORDERS,)),
            lambda: utc_now() + self.ahead,
        )
        self.client = TlsClient((), workloads=workloads)

    def own(self, credential: Credential) -> None:
        self.agents.put_svids(AGENT, read_svids(svid_message((GATE, credential))))

    def trust(self, *authorities: Authority) -> None:
        bundle = views(one.certificate for one in authorities)
        self.agents.put_bundles(AGENT, {"plants.example": bundle})


@pytest.fixture
def delivered(log: Log) -> Delivered:
    made = Delivered()
    made.own(svid(GATE))
    made.trust(PLANTS)
    return made


def call(
    client: TlsClient, credential: Credential, version: Version | None = None
) -> tuple[MemoryServer, object]:
    """:returns: a target that asks for a certificate, and what came of a connection to it."""
    server = MemoryServer(credential, Clock(), version, ask=True)
    outcome: list[object] = []
    dialling = client.wrap(server, "orders.internal").connect(RecordingFactory())
    dialling.addBoth(outcome.append)
    if server.transport is not None:
        server.pump()
    [found] = outcome
    return server, getattr(found, "value", found)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_target_is_known_by_its_spiffe_id(delivered: Delivered, version: Version) -> None:
    """Its DNS name does not count; it is only asked for by that."""
    own = svid(GATE)
    delivered.own(own)
    server, protocol = call(delivered.client, svid(ORDERS), version)
    assert not isinstance(protocol, HandshakeFailed), protocol
    assert server.client == own.certificate
    assert server.asked_for == "orders.internal"


IMPOSTORS: dict[str, tuple[Callable[[], Credential], Reason, str]] = {
    "another workload": (
        lambda: svid("spiffe://plants.example/press/7"),
        Reason.WRONG_SERVER_NAME,
        f"it is not {ORDERS}: it is spiffe://plants.example/press/7",
    ),
    "another trust domain": (
        lambda: svid("spiffe://other.example/orders"),
        Reason.WRONG_SERVER_NAME,
        "it is spiffe://other.example/orders",
    ),
    "its name by another CA": (
        lambda: svid(ORDERS, OTHER),
        Reason.UNKNOWN_CA,
        "the bundle of its trust domain",
    ),
    "no SPIFFE ID": (
        lambda: PLANTS.issue("x", dns_names=["orders.internal"], usages=["server_auth"]),
        Reason.SVID_INVALID,
        "has no URI",
    ),
    "two": (
        lambda: svid(uris=[ORDERS, "spiffe://plants.example/x"]),
        Reason.SVID_INVALID,
        "has 2 URIs",
    ),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", IMPOSTORS)
def test_who_is_another_gets_nothing(delivered: Delivered, case: str, version: Version) -> None:
    make, reason, words = IMPOSTORS[case]
    server, error = call(delivered.client, make(), version)
    assert isinstance(error, NotVerified)
    assert error.rejection.reason is reason
    assert words in error.rejection.detail
    assert server.client is None


def test_a_pattern_stays_in_its_trust_domain(log: Log) -> None:
    made = Delivered("spiffe://plants.example/orders/*")
    made.own(svid(GATE))
    made.trust(PLANTS)
    _, found = call(made.client, svid("spiffe://plants.example/orders/2"))
    assert not isinstance(found, HandshakeFailed)
    _, found = call(made.client, svid("spiffe://plants.example/orders"))
    assert isinstance(found, NotVerified)


def test_nobody_is_connected_to_without_identity_or_bundle(log: Log) -> None:
    """It is not the target's fault, and no byte is sent."""
    made = Delivered()
    for step, reason in (
        (lambda: None, Reason.BUNDLE_MISSING),
        (lambda: made.trust(PLANTS), Reason.NO_CLIENT_CERTIFICATE),
        (lambda: made.own(svid(GATE)), None),
        (lambda: made.trust(), Reason.BUNDLE_MISSING),
        (lambda: made.trust(PLANTS), None),
        (lambda: made.agents.take_away(AGENT, Stream.SVIDS), Reason.NO_CLIENT_CERTIFICATE),
        (lambda: made.own(svid(GATE)), None),
    ):
        step()
        server, found = call(made.client, svid(ORDERS))
        if reason is None:
            assert not isinstance(found, HandshakeFailed)
        else:
            assert isinstance(found, NotReady)
            assert found.rejection.reason is reason
            assert server.transport is None
    made.ahead = timedelta(days=366)
    _, found = call(made.client, svid(ORDERS))
    assert isinstance(found, NotReady)
    assert "X.509-SVID expired at" in str(found)


def test_what_is_delivered_counts_for_the_next_connection(delivered: Delivered) -> None:
    new = Authority.create("new")
    _, found = call(delivered.client, svid(ORDERS, new))
    assert isinstance(found, NotVerified)
    delivered.trust(PLANTS, new)
    own = svid(GATE, new)
    delivered.own(own)
    server, found = call(delivered.client, svid(ORDERS, new))
    assert not isinstance(found, HandshakeFailed)
    assert server.client == own.certificate
    delivered.trust(new)
    _, found = call(delivered.client, svid(ORDERS))
    assert isinstance(found, NotVerified)


def test_a_client_gates_connection_ends_with_the_ca_of_its_target(delivered: Delivered) -> None:
    """Judged as at a reload; a new X.509-SVID changes nothing for it."""
    clock = Clock()
    chain = Chain(MemoryServer(svid(ORDERS), clock), clock, tls=delivered.client)
    program = chain.connect()
    epoch: Handover = handover(chain)
    delivered.own(svid(GATE))
    settle(chain, epoch)
    program.send(b"still there")
    assert chain.server.received == b"still there"
    for authorities, reason in (((OTHER,), Reason.UNKNOWN_CA), ((), Reason.BUNDLE_MISSING)):
        delivered.trust(*authorities)
        settle(chain, epoch)
        program.read()
        assert program.is_over
        closed = chain.told.events[-1]
        assert isinstance(closed, ClosedConnection)
        assert closed.cause is Cause.NO_LONGER_ADMITTED
        assert closed.detail.startswith(f"{reason}: ")
        delivered.trust(PLANTS)
        program = chain.connect()
    delivered.trust()
    program = chain.connect()
    rejected = chain.told.events[-1]
    assert isinstance(rejected, RejectedConnection)
    assert rejected.rejection.reason is Reason.BUNDLE_MISSING
    assert all(one.is_up is not False for one in chain.gate.backends.states)


# The configuration.


@pytest.fixture
def here(tmp_path: Path) -> Site:
    return site(tmp_path)


def client(*tls: str) -> str:
    """:returns: a client gate with these lines in its ``tls`` block, from line 5 on."""
    lines = "\n".join(tls)
    return (
        f'client "redis" {{\nhosts = ["127.0.0.1:0"]\ntarget = "r.internal:1"\n'
        f"tls {{\n{lines}\n}}\n}}\n"
    )


SOCKET = f'spiffe = "unix:{AGENT}"'
IDS = f'server_spiffe_ids = ["{ORDERS}"]'


def test_an_epoch_says_what_it_needs(here: Site) -> None:
    epoch = here.load(client(SOCKET, IDS, 'spiffe_socket = "unix:///other.sock"'))
    assert wanted(epoch) == {(AGENT, Stream.SVIDS), ("/other.sock", Stream.BUNDLES)}
    [gate] = epoch.clients
    assert gate.gate.tls.credential is None
    assert gate.gate.tls.anchors == ()
    assert epoch.warnings == ()
    lines = "\n".join(overview(epoch, NOW))
    assert f"connects to r.internal:1 as the agent at {AGENT} says" in lines
    assert f"client certificate  the agent at {AGENT} delivers it" in lines
    assert "target's CAs        the agent at /other.sock delivers them" in lines
    files = client(SOCKET, 'server_ca_certificate_file = "root.crt"')
    assert wanted(here.load(files)) == {(AGENT, Stream.SVIDS)}


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ([SOCKET], "4:1: tls: no CA to verify"),
        ([IDS], "5:1: tls: no agent delivers the bundle"),
        (
            [SOCKET, IDS, 'server_ca_certificate_file = "root.crt"'],
            "server_ca_certificate_file and server_spiffe_ids are mutually exclusive",
        ),
        (
            [SOCKET, IDS, 'client_certificate_file = "client.crt"'],
            "client_certificate_file and spiffe are mutually exclusive",
        ),
        ([SOCKET, 'server_spiffe_ids = ["spiffe://*/x"]'], "a pattern never crosses trust domains"),
        (
            [SOCKET, 'server_spiffe_ids = ["spiffe://a.b/x", "spiffe://c.d/x"]'],
            "a.b and c.d are two trust domains",
        ),
        (['spiffe = "tcp:127.0.0.1:1"', IDS], "where another program may answer"),
        (['spiffe = "agent.sock"', IDS], "is no socket of an agent"),
        ([f'spiffe_id = "{GATE}"', IDS], "spiffe_id needs spiffe"),
        (
            [f'spiffe_socket = "unix:{AGENT}"', 'server_ca_certificate_file = "root.crt"'],
            "spiffe_socket needs server_spiffe_ids",
        ),
    ],
)
def test_mistakes_are_told_with_the_remedy(here: Site, tls: Sequence[str], problem: str) -> None:
    assert any(problem in one for one in here.problems(client(*tls))), here.problems(client(*tls))
