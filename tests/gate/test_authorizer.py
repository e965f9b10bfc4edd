from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.connection import Connection
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.testing import Authority, Version
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule
from tests.kits.pki import Site, server

CA = Authority.create("Root")
ALICE, EVE = CA.issue("alice"), Authority.create("Other").issue("eve")
FAILED, REFUSED = rejected(Reason.AUTHORIZER_FAILED), rejected(Reason.NOT_AUTHORIZED)


def asking(log: Log, ask: Callable[[IVerifiedPeer], object], timeout: float = 5.0) -> MemoryGate:
    return MemoryGate((rule(ca=CA),), log, authorizer=Authorizer("ask", ask, timeout))


async def coroutine(answer: object) -> object:
    return answer


async def failing() -> bool:
    raise LookupError("secret")


def raising(peer: IVerifiedPeer) -> bool:
    raise LookupError("secret")


@pytest.mark.parametrize(
    ("ask", "verdict"),
    [
        (lambda peer: True, admitted()),
        (lambda peer: succeed(True), admitted()),
        (lambda peer: coroutine(True), admitted()),
        (lambda peer: False, REFUSED),
        (lambda peer: succeed(False), REFUSED),
        (lambda peer: coroutine(False), REFUSED),
        (lambda peer: None, FAILED),
        (lambda peer: 1, FAILED),
        (lambda peer: "yes", FAILED),
        (lambda peer: succeed(1), FAILED),
        (lambda peer: coroutine(None), FAILED),
    ],
)
def test_only_true_admits(
    log: Log, version: Version, ask: Callable[[IVerifiedPeer], object], verdict: object
) -> None:
    """True lets in, and nothing else does, whatever it counts for."""
    assert asking(log, ask).try_in(ALICE, version) == verdict


@pytest.mark.parametrize(
    "ask", [raising, lambda peer: failing(), lambda peer: fail(LookupError("secret"))]
)
def test_an_exception_rejects_and_is_logged(
    log: Log, version: Version, ask: Callable[[IVerifiedPeer], object]
) -> None:
    """... keep out; the log has them, the rejection their kind alone."""
    assert asking(log, ask).try_in(ALICE, version) == FAILED
    log.expect_failure(LookupError)
    assert log.only["detail"] == "ask failed: LookupError"


def test_it_is_asked_about_whom_the_rules_admit_alone(log: Log, version: Version) -> None:
    asked: list[IVerifiedPeer] = []

    def ask(peer: IVerifiedPeer) -> bool:
        asked.append(peer)
        return True

    gate = asking(log, ask)
    assert gate.try_in(EVE, version) == rejected(Reason.UNKNOWN_CA, 0)
    assert gate.try_in(None, version).reason is Reason.NO_CERTIFICATE
    assert asked == []
    gate.try_in(ALICE, version)
    [peer] = asked
    assert (peer.sha256, peer.rule) == (ALICE.sha256, "rule")
    assert IVerifiedPeer.providedBy(peer)


def test_the_application_waits_for_the_answer(log: Log, version: Version) -> None:
    """What the client sent meanwhile is delivered then, whole and in order."""
    answer: Deferred[bool] = Deferred()
    gate = asking(log, lambda peer: answer)
    client = gate.connect(ALICE, version)
    for number in range(20):
        client.send(b"%03d " % number * 1000)
    assert gate.recorder.protocols == []
    assert log.events == []
    answer.callback(True)
    sent = b"".join(b"%03d " % number * 1000 for number in range(20))
    assert client.receive() == sent
    assert gate.verdict() == admitted()


@pytest.mark.parametrize("answer", [True, False])
def test_what_waits_is_bounded(log: Log, version: Version, answer: bool) -> None:
    """A client that goes on sending is not read from while the authorizer thinks."""
    waiting: Deferred[bool] = Deferred()
    gate = asking(log, lambda peer: waiting)
    client = gate.connect(ALICE, version)
    for _ in range(50):
        client.send(b"x" * 16_000)
    [entry] = gate.entrance.connections
    assert sum(entry.traffic) <= 64 * 1024
    waiting.callback(answer)
    assert len(client.receive()) == (800_000 if answer else 0)


def test_an_answer_that_comes_too_late(log: Log, version: Version) -> None:
    """... is none.  The handshake's own time limit does not count meanwhile."""
    cancelled: list[Any] = []
    gate = asking(log, lambda peer: Deferred(cancelled.append), timeout=30.0)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    gate.clock.advance(29)
    client.pump()
    assert log.events == []
    gate.clock.advance(2)
    client.pump()
    assert gate.verdict() == FAILED
    assert len(cancelled) == 1
    gate.check_turned_away(client)


def test_a_client_that_goes_away_meanwhile(log: Log, version: Version) -> None:
    """The question is withdrawn, and an answer that comes all the same changes nothing."""
    for cancel in (None, lambda waiting: None):
        waiting: Deferred[bool] = Deferred(cancel)
        gate = asking(log, lambda peer, waiting=waiting: waiting)  # type: ignore[misc]
        client = gate.connect(ALICE, version)
        client.send(b"knock")
        events = len(log.events)
        client.reset()
        assert gate.verdict(events) == rejected(Reason.PEER_GONE, None)
        if not waiting.called:
            waiting.callback(True)
        assert gate.recorder.protocols == []
        assert len(gate.entrance.connections) == 0
        assert gate.clock.getDelayedCalls() == []


def _refuses_to_be_cancelled(waiting: Deferred[bool]) -> None:
    raise RuntimeError("cannot be cancelled")


def _says_yes_when_cancelled(waiting: Deferred[bool]) -> None:
    waiting.callback(True)


async def _tries_again(waiting: list[Deferred[bool]]) -> bool:
    while True:
        try:
            waiting.append(Deferred())
            return await waiting[-1]
        except Exception:  # noqa: BLE001 -- as people write it
            continue


STUBBORN: list[tuple[Callable[[IVerifiedPeer], object], list[type[BaseException]]]] = [
    (lambda peer: Deferred(_refuses_to_be_cancelled), [RuntimeError]),
    (lambda peer: Deferred(_says_yes_when_cancelled), []),
    (lambda peer: succeed(None).addCallback(lambda _: Deferred(_says_yes_when_cancelled)), []),
    (lambda peer: _tries_again([]), []),
]


@pytest.mark.parametrize(("ask", "failures"), STUBBORN)
def test_the_time_limit_needs_no_consent(
    log: Log,
    version: Version,
    ask: Callable[[IVerifiedPeer], object],
    failures: list[type[BaseException]],
) -> None:
    """Whatever an authorizer makes of being cancelled, the client goes when time is up."""
    gate = asking(log, ask)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    gate.clock.advance(6)
    client.pump()
    log.expect_failure(*failures)
    assert gate.verdict() == FAILED
    assert log.only["detail"] == "ask did not answer within 5 s"
    gate.check_turned_away(client)
    assert len(gate.entrance.connections) == 0


@pytest.mark.parametrize(("ask", "failures"), STUBBORN)
def test_going_away_needs_no_consent(
    log: Log,
    version: Version,
    ask: Callable[[IVerifiedPeer], object],
    failures: list[type[BaseException]],
) -> None:
    """... and one that goes away meanwhile is counted no more."""
    gate = asking(log, ask)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    client.reset()
    log.expect_failure(*failures)
    assert gate.verdict() == rejected(Reason.PEER_GONE, None)
    assert gate.recorder.protocols == []
    assert len(gate.entrance.connections) == 0
    assert gate.clock.getDelayedCalls() == []


def test_an_answer_after_time_is_up(log: Log, version: Version) -> None:
    """... lets nobody in, however it comes about."""
    waiting: list[Deferred[bool]] = []
    gate = asking(log, lambda peer: _tries_again(waiting))
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    gate.clock.advance(6)
    waiting[-1].callback(True)
    client.pump()
    assert gate.verdict() == FAILED
    gate.check_turned_away(client)


def test_an_answer_for_whom_the_gate_ends(log: Log, version: Version) -> None:
    """... in the same turn of the reactor does not let it in after all."""
    waiting: Deferred[bool] = Deferred()
    gate = asking(log, lambda peer: waiting)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    [entry] = gate.entrance.connections
    gate.entrance.connections.close(entry, Cause.CLOSED_BY_OPERATOR)
    waiting.callback(True)
    client.pump()
    assert gate.recorder.protocols == []
    assert gate.verdict() == rejected(Reason.CLOSED_BY_GATE, None)
    assert len(gate.entrance.connections) == 0


def test_nothing_is_kept_of_whom_the_application_declines(log: Log, version: Version) -> None:
    """... though the authorizer let it in, and it goes on sending."""

    class Declining(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    authorizer = Authorizer("ask", lambda peer: succeed(True), 5.0)
    gate = MemoryGate((rule(ca=CA),), log, application=Declining(), authorizer=authorizer)
    client = gate.connect(ALICE, version, answer_close=False)
    for _ in range(20):
        client.send(b"x" * 16_000)
    [entry] = gate.entrance.connections
    assert isinstance(entry.connection, Connection)
    assert entry.connection._written == []
    gate.clock.advance(11)
    client.pump()
    assert client.disconnected


def test_resumed_sessions_are_asked_about(log: Log, version: Version) -> None:
    answers = [True, False]
    gate = MemoryGate(
        (rule(ca=CA),),
        log,
        session_lifetime=60.0,
        authorizer=Authorizer("ask", lambda peer: answers.pop(0), 5.0),
    )
    first = gate.connect(ALICE, version)
    assert gate.judge(first) == admitted()
    session = first.session
    assert session is not None
    events = len(log.events)
    again = gate.connect(ALICE, session=session)
    again.send(b"knock")
    assert gate.verdict(events) == REFUSED
    assert answers == []


def test_nothing_is_left_behind(log: Log) -> None:
    clock = Clock()
    authorizer = Authorizer("ask", lambda peer: succeed(True), 5.0)
    authorizer.objection(cast(IVerifiedPeer, object()), clock)
    assert clock.getDelayedCalls() == []


# In the configuration

MODULE = """
from zope.interface import implementer
from mtlsgate.interfaces import IAuthorizer

def function(peer): return True

@implementer(IAuthorizer)
class Plugin:
    def authorize(self, peer): return False

plugin = Plugin()
number = 5
"""


def with_authorize(value: str, rest: str = "") -> str:
    return server().replace("hosts =", f'authorize = "{value}"\n{rest}hosts =', 1)


@pytest.mark.parametrize(("name", "answer"), [("function", True), ("plugin", False)])
def test_what_it_may_name(here: Site, name: str, answer: bool) -> None:
    """A callable, or what provides IAuthorizer."""
    here.write("authorizing.py", MODULE)
    [loaded] = here.load(with_authorize(f"authorizing:{name}")).servers
    authorizer = loaded.gate.authorizer
    assert authorizer is not None
    assert authorizer.ask(None) is answer  # type: ignore[arg-type]
    assert authorizer.timeout == 5.0
    [loaded] = here.load(
        with_authorize(f"authorizing:{name}", 'authorize_timeout = "250ms"\n')
    ).servers
    assert loaded.gate.authorizer is not None
    assert loaded.gate.authorizer.timeout == 0.25


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            "authorizing:Plugin",
            '"authorizing:Plugin" is a class; name a function or what provides IAuthorizer',
        ),
        (
            "authorizing:number",
            '"authorizing:number" is a int; name a function or what provides IAuthorizer',
        ),
        ("authorizing:other", "authorizing has no attribute other"),
        (
            "nowhere:x",
            "no module named nowhere: install it, or put it beside the configuration",
        ),
        (
            "nobody",
            'no authorizer "nobody"; write "package.module:function", or install one that '
            "announces itself",
        ),
    ],
)
def test_what_it_may_not_name(here: Site, value: str, problem: str) -> None:
    here.write("authorizing.py", MODULE)
    [found] = here.problems(with_authorize(value))
    assert found == f"2:13: server: authorize: {problem}"


def test_nobody_to_ask_about(here: Site) -> None:
    text = with_authorize("authorizing:function").replace(
        'client_certificate { ca_certificate_file = "issuing.crt" }',
        'client_authentication = "none"',
    )
    here.write("authorizing.py", MODULE)
    [found] = here.problems(text)
    assert "authorize is asked about verified clients" in found


def test_a_time_limit_for_nobody(here: Site) -> None:
    text = server().replace("hosts =", 'authorize_timeout = "1s"\nhosts =', 1)
    [found] = here.problems(text)
    assert "has no effect without authorize" in found


@pytest.mark.parametrize("kind", ["plain", "fired", "coroutine"])
@pytest.mark.parametrize(("seconds", "verdict"), [(3.0, FAILED), (1.0, admitted())])
def test_an_answer_that_keeps_everybody_waiting(
    log: Log, version: Version, kind: str, seconds: float, verdict: object
) -> None:
    """... for longer than the time limit comes too late, though no timer could go off."""
    gates: list[MemoryGate] = []

    def ask(peer: IVerifiedPeer) -> object:
        gates[0].clock.rightNow += seconds
        return {"plain": True, "fired": succeed(True), "coroutine": coroutine(True)}[kind]

    gates.append(asking(log, ask, timeout=1.0))
    with warnings.catch_warnings():
        # A coroutine that is not asked for is never awaited.
        warnings.simplefilter("ignore", RuntimeWarning)
        assert gates[0].try_in(ALICE, version) == verdict


def test_an_answer_and_the_end_of_its_time_at_once() -> None:
    """A reactor that was busy meanwhile may come to the answer first."""
    clock, answer = Clock(), Deferred[object]()
    authorizer = Authorizer("ask", lambda peer: answer, 1.0)
    heard = authorizer.objection(cast(IVerifiedPeer, None), clock)
    assert isinstance(heard, Deferred)
    found: list[Any] = []
    heard.addCallback(found.append)
    clock.rightNow += 2.0
    answer.callback(True)
    [rejection] = found
    assert rejection.reason is Reason.AUTHORIZER_FAILED
    assert clock.getDelayedCalls() == []
