"""
Resumed sessions: judged again, by now and by the rules in force, or not resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from attrs import evolve
from OpenSSL import SSL
from twisted.internet.task import Clock

from mtlsgate.admission import AdmissionPolicy, Pin, Rejection, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.reasons import Reason
from mtlsgate.run.listening import Place, entrance_of, places_of
from mtlsgate.testing import Authority, Client, Credential, Session, Version, self_signed
from mtlsgate.tls import full_handshakes
from mtlsgate.tls.full_handshakes import FullHandshakes
from mtlsgate.tls.handshake import Handshake
from mtlsgate.tls.judge import Judge
from mtlsgate.tls.server import GateContext, TlsPolicy
from mtlsgate.tls.trust import openssl_certificate
from tests.kits.gate import (
    Log,
    MemoryGate,
    Verdict,
    admitted,
    condition,
    localhost,
    openssl_x509,
    rejected,
    rule,
    server_authority,
    server_credential,
)
from tests.kits.pki import NOW, site
from tests.kits.revocation import crl, der

NOT_RESUMABLE = rejected(Reason.NOT_RESUMABLE, None)
#: All that ends in these tests ends within a session's lifetime.
SOON = datetime.now(UTC) + timedelta(minutes=20)
LIFETIME = 3600.0

ROOT = Authority.create("Root")
MIDDLE = ROOT.intermediate("Middle")
ALICE = MIDDLE.issue("alice", dns_names=["alice.example"], uris=["spiffe://td/alice"])
BOB = MIDDLE.issue("bob")


class Time:
    """The time that certificates are judged by."""

    def __init__(self) -> None:
        self.passed = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.passed


@pytest.fixture
def time() -> Time:
    return Time()


def opened(log: Log, time: Time, *rules: Rule, **options: Any) -> MemoryGate:
    """:returns: a door at which sessions resume."""
    return MemoryGate(rules, log, now=time, **{"session_lifetime": LIFETIME, **options})


def session_of(client: Client) -> Session:
    """:returns: what the client can offer next time."""
    session = client.session
    assert session is not None
    return session


def begin(gate: MemoryGate, who: Credential, version: Version, **options: Any) -> Session:
    """:returns: the session of a client that was let in by a full handshake."""
    client = gate.connect(who, version, **options)
    assert gate.judge(client).rule is not None
    assert not client.resumed
    [event] = gate.log.events
    assert event["resumed"] is False
    gate.log.events.clear()
    return session_of(client)


def resume(
    gate: MemoryGate,
    session: Session,
    version: Version,
    who: Credential | None = None,
    **options: Any,
) -> Verdict:
    """Offer a session.  :returns: the verdict on the client, who did resume it."""
    client = gate.connect(who, version, session=session, **options)
    verdict = gate.judge(client)
    assert client.resumed
    if verdict.rule is not None:
        peer = gate.recorder.protocols[-1].peer
        assert peer is not None
        assert peer.resumed
        assert gate.log.only["resumed"] is True
    gate.log.events.clear()
    return verdict


def test_off_by_default(log: Log, version: Version, time: Time) -> None:
    """A session is nothing, and the client shakes hands in full."""
    gate = opened(log, time, rule(ca=ROOT), session_lifetime=None)
    first = gate.connect(ALICE, version)
    assert gate.judge(first) == admitted()
    again = gate.connect(ALICE, version, session=first.session)
    assert gate.judge(again) == admitted()
    assert not again.resumed
    assert [event["resumed"] for event in log.events] == [False, False]


def test_a_resumed_client_is_the_same_peer(log: Log, version: Version, time: Time) -> None:
    """It is the same peer by the same rule, and both say that it resumed."""
    gate = opened(log, time, rule("other", ROOT, BOB), rule("mine", ROOT))
    session = begin(gate, ALICE, version, server_name="localhost")
    for _ in range(3):
        verdict = resume(gate, session, version, ALICE, server_name="localhost")
        assert verdict == admitted("mine")
    first, *_, last = (protocol.peer for protocol in gate.recorder.protocols)
    assert first is not None
    assert last is not None
    before, now = (IVerifiedPeer(peer).to_dict() for peer in (first, last))
    assert (before.pop("resumed"), now.pop("resumed")) == (False, True)
    # TLS 1.3 agrees on a new group each time.
    assert {**before, "group": None} == {**now, "group": None}
    assert first.path == last.path == (*ALICE.chain, ROOT.certificate)


CA_PIN = openssl_x509()
LEAVES = [
    (ALICE, rule(ca=ROOT)),
    (ALICE, rule(ca=MIDDLE)),
    (ALICE, rule(ca=ROOT, pins=ALICE)),
    (ALICE, rule(pins=ALICE)),
    (CA_PIN, rule(pins=CA_PIN)),
    (ALICE, evolve(rule(ca=ROOT), allow=(condition(dns_names=["alice.example"]),))),
    (ALICE, evolve(rule(ca=ROOT), max_depth=1)),
]


@pytest.mark.parametrize("options", [{}, {"always_ask_twice": True}, {"strict": False}])
@pytest.mark.parametrize(("who", "one"), LEAVES)
def test_every_kind_of_rule(
    log: Log, version: Version, time: Time, who: Credential, one: Rule, options: Any
) -> None:
    """Whoever comes in comes in again."""
    gate = opened(log, time, one, **options)
    assert resume(gate, begin(gate, who, version), version) == admitted()


def test_after_a_late_verdict(log: Log, version: Version, time: Time) -> None:
    """Also on a path that OpenSSL did not choose."""
    lower = MIDDLE.intermediate("Lower")
    leaf = lower.issue("leaf")
    gate = opened(log, time, rule("low", lower, lower.issue("x")), rule("root", ROOT))
    assert resume(gate, begin(gate, leaf, version), version) == admitted("root")


def lists(*revoked: Credential | Authority, until: datetime | None = None) -> Revocation:
    """:returns: what the two CAs say of those that they issued."""
    made = (
        crl(issuer, revoked, now=datetime.now(UTC), next_update=until) for issuer in (ROOT, MIDDLE)
    )
    return Revocation(tuple(one for each in made for one in parse_crls(der(each))))


def ends() -> dict[str, tuple[Credential, Rule, Verdict]]:
    """A client, the rule it comes in by, and why it does not come in again after `SOON`."""
    short = MIDDLE.issue("short", not_after=SOON)
    own = self_signed("own", not_after=SOON)
    below = ROOT.intermediate("Below", not_after=SOON)
    root = Authority.create("Short", not_after=SOON)
    retired = Pin(ALICE.certificate, "old", retire_after=SOON)
    listed = evolve(rule(ca=ROOT), revocation=lists(until=SOON))
    return {
        "leaf expired": (short, rule(ca=ROOT), rejected(Reason.EXPIRED)),
        "pinned leaf expired": (short, rule(ca=ROOT, pins=short), rejected(Reason.EXPIRED)),
        "own anchor expired": (own, rule(pins=own), rejected(Reason.EXPIRED)),
        "intermediate expired": (below.issue("a"), rule(ca=ROOT), rejected(Reason.EXPIRED, 1)),
        "configured CA expired": (below.issue("a"), rule(ca=below), rejected(Reason.EXPIRED, 1)),
        "root expired": (root.issue("a"), rule(ca=root), rejected(Reason.EXPIRED, 1)),
        "pin retired": (
            ALICE,
            Rule("rule", (ROOT.certificate,), (retired,)),
            rejected(Reason.PIN_RETIRED),
        ),
        "lone pin retired": (ALICE, Rule("rule", (), (retired,)), rejected(Reason.PIN_RETIRED)),
        "CRL expired": (ALICE, listed, rejected(Reason.CRL_EXPIRED)),
    }


@pytest.mark.parametrize("kind", ends())
def test_judged_at_the_moment_it_resumes(log: Log, version: Version, time: Time, kind: str) -> None:
    """What ended since the full handshake has ended for a resumed session, too, and
    the time it counts by is the gate's."""
    who, one, expected = ends()[kind]
    gate = opened(log, time, one)
    session = begin(gate, who, version)
    assert resume(gate, session, version) == admitted()
    time.passed = timedelta(minutes=30)
    assert resume(gate, session, version) == expected
    time.passed = timedelta(minutes=1)
    assert resume(gate, session, version) == admitted()


def policies() -> dict[str, tuple[AdmissionPolicy, Verdict]]:
    """Rules that came into force since, and what they say of Alice."""
    here, by_name = rule(ca=ROOT), condition(dns_names=["alice.example"])
    nobody = condition(common_names=["nobody"])

    def one(changed: Rule, *deny: Any) -> AdmissionPolicy:
        return AdmissionPolicy((changed,), deny)

    return {
        "denied": (one(here, by_name), rejected(Reason.DENIED)),
        "denied by rule": (one(evolve(here, deny=(by_name,))), rejected(Reason.DENIED)),
        "not allowed": (one(evolve(here, allow=(nobody,))), rejected(Reason.NOT_ALLOWED)),
        "not pinned": (one(rule(ca=ROOT, pins=BOB)), rejected(Reason.LEAF_MISMATCH)),
        "too deep": (one(evolve(here, max_depth=0)), rejected(Reason.PATH_TOO_LONG, 2)),
        "other CA": (one(rule(ca=Authority.create())), rejected(Reason.UNKNOWN_CA, 2)),
        "revoked": (one(evolve(here, revocation=lists(ALICE))), rejected(Reason.REVOKED)),
        "revoked CA": (one(evolve(here, revocation=lists(MIDDLE))), rejected(Reason.REVOKED, 1)),
        "no CRL": (one(evolve(here, revocation=Revocation(()))), rejected(Reason.CRL_MISSING)),
    }


@pytest.mark.parametrize("kind", policies())
def test_judged_by_the_rules_in_force(log: Log, version: Version, time: Time, kind: str) -> None:
    """Whatever the rules were when the session began."""
    gate = opened(log, time, rule(ca=ROOT))
    session = begin(gate, ALICE, version)
    in_force = gate.server.context.judge
    assert in_force is not None
    in_force.policy, expected = policies()[kind]
    assert resume(gate, session, version) == expected


def test_the_other_rule(log: Log, version: Version, time: Time) -> None:
    """Where a pin is retired, another rule that holds lets the session in."""
    pin = Pin(ALICE.certificate, "old", retire_after=SOON)
    gate = opened(log, time, Rule("pin", (MIDDLE.certificate,), (pin,)), rule("ca", MIDDLE))
    session = begin(gate, ALICE, version)
    assert resume(gate, session, version) == admitted("pin")
    time.passed = timedelta(minutes=30)
    assert resume(gate, session, version) == admitted("ca")


def test_a_forgotten_session_does_not_resume(
    log: Log, version: Version, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are remembered for so many clients; for the others nothing resumes."""
    monkeypatch.setattr(full_handshakes, "MAX_REMEMBERED", 2)
    gate = opened(log, time, rule(ca=ROOT))
    clients = [ROOT.issue(str(number)) for number in range(3)]
    sessions = [begin(gate, one, version) for one in clients]
    assert resume(gate, sessions[0], version) == NOT_RESUMABLE
    assert [resume(gate, one, version) for one in sessions[1:]] == [admitted()] * 2
    # A full handshake is remembered again, in the place of the oldest.
    again = begin(gate, clients[0], version)
    assert resume(gate, again, version) == admitted()
    assert resume(gate, sessions[1], version) == NOT_RESUMABLE
    assert gate.server.context.judge is not None
    assert len(gate.server.context.judge._begun) == 2


def test_the_lifetime_counts_from_the_full_handshake(
    log: Log, version: Version, time: Time
) -> None:
    """It counts from the full handshake, however often the session is renewed by
    resuming it; OpenSSL's tickets are told the same."""
    gate = opened(log, time, rule(ca=ROOT))
    assert [one.get_timeout() for one in gate.server.context._contexts] == [3600]
    client = gate.connect(ALICE, version)
    assert gate.judge(client) == admitted()
    for minutes in (20, 40, 59):
        time.passed = timedelta(minutes=minutes)
        client = gate.connect(None, version, session=session_of(client))
        assert gate.judge(client) == admitted()
        assert client.resumed
    time.passed = timedelta(minutes=61)
    log.events.clear()
    assert resume(gate, session_of(client), version) == NOT_RESUMABLE


@pytest.mark.parametrize("who", [None, BOB, self_signed("stranger")])
def test_what_a_session_proves(
    log: Log, version: Version, time: Time, who: Credential | None
) -> None:
    """To resume takes the session's secret, which the holder of the leaf's key agreed
    on with the gate and which stands in no ticket that travels.  Who has it is taken for
    the one who began the session, whatever certificate they may have besides, and is
    judged and logged as that one."""
    gate = opened(log, time, rule(ca=ROOT, pins=ALICE))
    session = begin(gate, ALICE, version)
    client = gate.connect(who, version, session=session)
    assert gate.judge(client) == admitted()
    assert client.resumed
    assert log.only["fingerprint"] == ALICE.sha256
    assert log.only["resumed"] is True
    peer = gate.recorder.protocols[-1].peer
    assert peer is not None
    assert peer.leaf == ALICE.certificate


def refusals() -> dict[str, tuple[Reason, Callable[[MemoryGate], object], dict[str, Any]]]:
    """A reason that a session does not come in again, what must happen first, and at which gate."""

    def deny(gate: MemoryGate) -> None:
        assert gate.server.context.judge is not None
        gate.server.context.judge.policy = policies()["denied"][0]

    def forget(gate: MemoryGate) -> None:
        assert gate.server.context.judge is not None
        gate.server.context.judge._begun = FullHandshakes()

    answers = [True, False]
    authorizer = Authorizer("ask", lambda peer: answers.pop(0), 5.0)
    one_each = Terms(limits=Limits(max_connections_per_identity=1))
    return {
        "denied": (Reason.DENIED, deny, {}),
        "forgotten": (Reason.NOT_RESUMABLE, forget, {}),
        "limit": (Reason.TOO_MANY_OF_IDENTITY, id, {"terms": one_each}),
        "authorizer": (Reason.NOT_AUTHORIZED, id, {"authorizer": authorizer}),
    }


@pytest.mark.parametrize("kind", refusals())
def test_a_rejection_names_the_client(log: Log, version: Version, time: Time, kind: str) -> None:
    """Whoever offers a session presents no certificate: the log has that of its beginning,
    whatever the client is rejected for."""
    reason, change, options = refusals()[kind]
    gate = opened(log, time, rule(ca=ROOT), **options)
    session = begin(gate, ALICE, version)
    change(gate)
    client = gate.connect(None, version, session=session)
    assert gate.judge(client).reason is reason
    assert client.resumed
    assert (log.only["subject"], log.only["issuer"]) == ("CN=alice", "CN=Middle")
    assert " subject=CN=alice " in log.only["text"]


def test_a_rejection_names_the_client_whose_certificate_has_expired(
    log: Log, version: Version, time: Time
) -> None:
    """Likewise."""
    short = MIDDLE.issue("short", not_after=SOON)
    gate = opened(log, time, rule(ca=ROOT))
    session = begin(gate, short, version)
    time.passed = timedelta(minutes=30)
    client = gate.connect(None, version, session=session)
    assert gate.judge(client).reason is Reason.EXPIRED
    assert (log.only["subject"], log.only["fingerprint"]) == ("CN=short", short.sha256)


def test_a_session_of_a_rejected_client(log: Log, version: Version, time: Time) -> None:
    """One that is rejected gets none, also if it is rejected only when its handshake
    is done."""
    lower = MIDDLE.intermediate("Lower")
    leaf = lower.issue("leaf")
    gate = opened(log, time, rule("low", lower, lower.issue("x")), rule("root", ROOT))
    late = gate.connect(leaf, version, chain=[lower.certificate])
    early = gate.connect(self_signed("stranger"), version)
    for client in (late, early):
        assert gate.judge(client).reason is not None
        if client.session is not None:
            verdict = gate.try_in(None, version, session=client.session)
            assert verdict == rejected(Reason.NO_CERTIFICATE, None)


def test_another_context(log: Log, version: Version, time: Time) -> None:
    """Nothing resumes under another configuration, though it be the same one loaded
    again: a full handshake follows, and its verdict."""
    rules = (rule(ca=ROOT, pins=ALICE),)
    gate, equal = opened(log, time, *rules), opened(log, time, *rules)
    changed = opened(log, time, rule(ca=ROOT, pins=BOB))
    session = begin(gate, ALICE, version)
    for another, expected in ((equal, admitted()), (changed, rejected(Reason.LEAF_MISMATCH))):
        client = another.connect(ALICE, version, session=session)
        assert another.judge(client) == expected
        assert not client.resumed
        verdict = another.try_in(None, version, session=session)
        assert verdict == rejected(Reason.NO_CERTIFICATE, None)


def test_several_certificates(log: Log, version: Version, time: Time) -> None:
    """A server that has several names of its own judges sessions under each."""
    names = ["a.example", "b.example"]
    own = [server_credential(name) for name in names]
    pin = Pin(ALICE.certificate, "old", retire_after=SOON)
    gate = opened(log, time, Rule("rule", (ROOT.certificate,), (pin,)), credentials=own)
    trust = [server_authority().certificate]
    sessions = {name: begin(gate, ALICE, version, server_name=name, trust=trust) for name in names}
    for name, session in sessions.items():
        assert resume(gate, session, version, server_name=name) == admitted()
    time.passed = timedelta(minutes=30)
    for name, session in sessions.items():
        assert resume(gate, session, version, server_name=name) == rejected(Reason.PIN_RETIRED)
    assert [one.get_timeout() for one in gate.server.context._contexts] == [3600] * 2


@pytest.mark.parametrize(("first", "second"), [*permutations(["a.example", "b.example", None], 2)])
def test_another_server_name(log: Log, time: Time, first: str | None, second: str | None) -> None:
    """A session begun under one name does not resume under another."""
    gate = opened(log, time, rule(ca=ROOT))
    session = begin(gate, ALICE, "1.3", server_name=first)
    assert resume(gate, session, "1.3", server_name=second) == NOT_RESUMABLE


def test_a_service_reads_names_itself_where_sessions_resume(
    log: Log, version: Version, tmp_path: Any
) -> None:
    """In TLS 1.2 OpenSSL tells the name that the session was begun with, and not the
    one that is asked for now; so it is read before."""
    text = """
    server "x" {{
      hosts = ["127.0.0.1:0"]
      protocol "echo" {{}}
      tls {{
        session_resumption = {}
        server_certificate {{
          public_key_file  = "server.crt"
          private_key_file = "server.key"
        }}
        client_certificate "c" {{ ca_certificate_file = "root.crt" }}
      }}
    }}
    """
    clock = Clock()
    for resumption in ("false", "true"):
        epoch = site(tmp_path).load(text.format(resumption), NOW)
        [place] = places_of(epoch)
        assert isinstance(place, Place)
        assert entrance_of(place, Connections(clock)).reads_hello is (resumption == "true")


def test_session_ids(log: Log, time: Time) -> None:
    """A TLS 1.2 client without tickets does not resume: the gate keeps no sessions."""
    from OpenSSL._util import lib

    gate = opened(log, time, rule(ca=ROOT))
    first = gate.connect(ALICE, "1.2")
    lib.SSL_set_options(first.connection._ssl, SSL.OP_NO_TICKET)
    assert gate.judge(first) == admitted()
    again = gate.connect(ALICE, "1.2", session=first.session)
    assert gate.judge(again) == admitted()
    assert not again.resumed


def test_without_rules_there_is_nothing_to_judge_again(
    log: Log, version: Version, time: Time
) -> None:
    """Where no certificate is asked for there is nothing to judge again."""
    gate = MemoryGate(None, log, session_lifetime=LIFETIME)
    first = gate.connect(ALICE, version)
    gate.judge(first)
    again = gate.connect(None, version, session=first.session)
    gate.judge(again)
    assert again.resumed
    assert gate.recorder.protocols[-1].peer is None


class Bug(Exception):
    """What ours could be."""


def test_a_bug_rejects(
    log: Log, version: Version, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails in judging a session again is a rejection."""
    gate = opened(log, time, rule(ca=ROOT))
    session = begin(gate, ALICE, version)

    def fail(*_: object) -> None:
        raise Bug

    monkeypatch.setattr(Judge, "on_resumed", fail)
    client = gate.connect(None, version, session=session)
    assert gate.judge(client) == rejected(Reason.INTERNAL_ERROR, None)
    log.expect_failure(Bug)


class Unjudged:
    """A connection in which no verify callback ran."""

    server_name = None

    def __init__(self, leaf: Credential | None) -> None:
        self.handshake = Handshake()
        self.leaf = leaf

    def get_peer_certificate(self) -> object:
        return None if self.leaf is None else openssl_certificate(self.leaf.certificate)


@pytest.mark.parametrize("lifetime", [None, LIFETIME])
@pytest.mark.parametrize("leaf", [None, ALICE])
def test_a_handshake_without_a_verdict(lifetime: float | None, leaf: Credential | None) -> None:
    """It lets nobody in, where sessions resume and where they do not."""
    rules = AdmissionPolicy((rule(ca=ROOT),))
    context = GateContext(TlsPolicy((localhost(),), rules, session_lifetime=lifetime))
    verdict = context.conclude(Unjudged(leaf))  # type: ignore[arg-type]
    assert isinstance(verdict, Rejection)
    known = lifetime is not None and leaf is not None
    assert verdict.reason is (Reason.NOT_RESUMABLE if known else Reason.INTERNAL_ERROR)
