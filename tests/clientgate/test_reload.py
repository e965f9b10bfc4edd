"""
Reloading: what becomes of a client gate's connections when another configuration takes over.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from mtlsgate.certificates.certificate import view
from mtlsgate.gate.events import ClosedConnection, RejectedConnection
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Cause, Reason
from mtlsgate.run.epoch_diff import epoch_diff
from mtlsgate.run.rejudging import Handover, InForce
from mtlsgate.testing import Authority
from mtlsgate.upstream.tls import TlsClient
from tests.kits.clientgate import CA, TARGET, Chain, handover, settle, tls_client
from tests.kits.pki import site
from tests.kits.service import MemoryService
from tests.kits.upstream import MemoryServer, ScriptedEndpoint


def another(before: Chain, **options: object) -> Handover:
    """:returns: an epoch whose client gate differs in this."""
    return handover(Chain(MemoryServer(TARGET, before.clock), before.clock, **options))  # type: ignore[arg-type]


@pytest.fixture
def chain() -> Chain:
    """A client gate with a target in memory."""
    clock = Clock()
    return Chain(MemoryServer(TARGET, clock), clock)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "other.example:8443"}, Reason.TARGET_REMOVED),
        ({"tls": tls_client(anchors=(Authority.create("New CA"),))}, Reason.UNKNOWN_CA),
        ({"tls": tls_client(server_name="other.example")}, Reason.WRONG_SERVER_NAME),
        ({"tls": TlsClient((), pins=(view(CA.issue("x").certificate),))}, Reason.LEAF_MISMATCH),
        ({"uids": frozenset({1})}, Reason.UID_NOT_ALLOWED),
    ],
    ids=["another target", "another CA", "another name", "another pin", "another user"],
)
def test_what_would_not_be_made_now_ends(
    change: dict[str, object], reason: Reason, chain: Chain
) -> None:
    """The detail has the reason."""
    program = chain.connect(1000)
    settle(chain, another(chain, **change))
    program.read()
    assert program.is_over
    closed = chain.told.events[-1]
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is Cause.NO_LONGER_ADMITTED
    assert closed.detail.startswith(f"{reason}: ")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tls": tls_client(credential=Authority.create("X").issue("renewed"))},
        {"tls": tls_client(anchors=(CA, Authority.create("New CA")))},
        {"uids": frozenset({1000, 1})},
    ],
    ids=["nothing", "another client certificate", "one more CA", "one more user"],
)
def test_what_would_be_made_now_stays(change: dict[str, object], chain: Chain) -> None:
    """And goes on by the new terms."""
    program = chain.connect(1000)
    terms = Terms(idle_timeout=5)
    settle(chain, another(chain, terms=terms, **change))
    program.send(b"still there")
    assert chain.server.received == b"still there"
    [entry] = chain.connections
    assert entry.terms == terms


def test_keep_keeps_all(chain: Chain) -> None:
    """With on_reload = "keep" only the end of the listener ends connections."""
    program = chain.connect()
    kept = another(chain, name="other.example:1", terms=Terms(judged_on_reload=False))
    settle(chain, kept)
    program.send(b"still there")
    assert chain.server.received == b"still there"
    settle(chain, Handover([]))
    program.read()
    assert program.is_over


def test_revoke_grace_gives_time(chain: Chain) -> None:
    """A connection that the new configuration rejects ends after revoke_grace."""
    program = chain.connect()
    settle(chain, another(chain, name="other.example:1", terms=Terms(revoke_grace=5.0)))
    program.send(b"a moment")
    assert chain.server.received == b"a moment"
    chain.clock.advance(5)
    program.read()
    assert program.is_over


def test_a_dry_run_names_what_would_end(chain: Chain) -> None:
    """And ends nothing."""
    program = chain.connect()
    [(_, why)] = another(chain, name="other.example:1").dropped(chain.connections)
    assert why is not None
    assert why.reason is Reason.TARGET_REMOVED
    [(_, why)] = another(chain).dropped(chain.connections)
    assert why is None
    [(_, why)] = Handover([]).dropped(chain.connections)
    assert why is not None
    program.send(b"still there")
    assert chain.server.received == b"still there"


def test_the_configuration_in_force_decides_when_the_target_answers() -> None:
    """If another takes over while a target is dialled, its rules count for the connection."""
    clock, line = Clock(), ScriptedEndpoint()
    target = MemoryServer(TARGET, clock)
    line.hangs = True
    in_force = InForce(Handover([]))
    chain = Chain(line, clock, judging=in_force)
    in_force.turn_to(handover(chain))
    program = chain.connect()
    in_force.turn_to(another(chain, name="other.example:1"))
    [(waiting, factory)] = line.waiting
    target.connect(factory).addCallback(waiting.callback)
    target.pump()
    program.read()
    assert program.is_over
    assert target.received == b""
    [event] = chain.told.events
    assert isinstance(event, RejectedConnection)
    assert event.rejection.reason is Reason.TARGET_REMOVED


CLIENT = """
client "redis" {
  hosts  = ["unix:c.sock"]
  target = "%s"
  tls {
    server_ca_certificate_file = "ca.crt"
    client_certificate_file = "client.crt"
    client_private_key_file = "client.key"
  }
}
"""


def test_a_service_of_client_gates(tmp_path: Path) -> None:
    """It listens, shows its state, and says what a reload changed."""
    service = MemoryService(tmp_path, CLIENT % "gate.example:8443")
    assert service.listens() == ["c.sock"]
    [status] = service.taker.take().service.clients
    assert status.hosts == ("unix:c.sock",)
    assert len(status.listening) == 1
    assert [one.address for one in status.targets] == ["gate.example:8443"]
    assert [one.kind for one in status.deadlines] == ["client_certificate", "target_ca"]
    assert b'mtlsgate_client_certificate_expiry_timestamp_seconds{server="redis"}' in (
        service.told.exposition()
    )
    report = service.reload(CLIENT % "other.example:8443")
    assert report.problems == ()
    [change] = report.changes
    assert change == (
        "client redis: connects to other.example:8443, and no longer to gate.example:8443"
    )
    assert service.listens() == ["c.sock"]


def test_every_change_is_named(tmp_path: Path) -> None:
    """A reload tells what is different in a client gate."""
    here = site(tmp_path)
    text = (CLIENT % "gate.example:1").replace("ca.crt", "root.crt")
    before = here.load(text)
    for old, new, line in (
        ("client.", "server.", "another client certificate"),
        ("c.sock", "d.sock", "listens on unix:d.sock, and no longer on unix:c.sock"),
        ("root.crt", "issuing.crt", "other CAs or pins for its targets"),
        ("tls {", 'tls {\nserver_name = "x"', "another server_name"),
        ("tls {", "allow_uids = [0]\ntls {", "other allow_uids"),
        ("tls {", "max_connections = 1\ntls {", "other limits"),
    ):
        changed = here.load(text.replace(old, new))
        assert epoch_diff(before, changed) == (f"client redis: {line}",)
    added = text + text.replace('"redis"', '"more"').replace("c.sock", "e.sock")
    assert epoch_diff(before, here.load(added)) == ("client more: added",)
    assert epoch_diff(here.load(added), before) == ("client more: removed",)
