"""
A gate in memory, for tests: rules, an application that records, a clock, and
what was logged.

`Door.try_in` is the oracle of all handshake tests.  Whatever a test is about,
it checks of each connection that there is one log event and no unhandled
error, that a rejected client never reached the application and was
disconnected, and that an admitted one was handed over and can talk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal

from attrs import field, frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.admission.conditions import Condition, clause, read_value
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.clock import utc_now
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.terms import Terms
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Credential, RecordingFactory, Version, self_signed
from mtlsgate.tls.server import GateContext, TlsPolicy

VERSIONS: tuple[Version, Version] = ("1.2", "1.3")


@implementer(ILogObserver)
class Log:
    """
    What was logged.

    :ivar events: the gate's own events.
    :ivar failures: exceptions that anyone logged.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.failures: list[type[BaseException]] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self.failures.append(event["log_failure"].type)
        elif event.get("log_namespace", "") == "mtlsgate.gate":
            self.events.append(event)

    @property
    def only(self) -> LogEvent:
        """The one event."""
        [event] = self.events
        return event

    def expect_failure(self, *kinds: type[BaseException]) -> None:
        """Exactly these were logged, and are accounted for."""
        assert self.failures == list(kinds)
        self.failures.clear()


@contextmanager
def logging() -> Iterator[Log]:
    """Capture; at the end no failure may be left over."""
    log = Log()
    globalLogPublisher.addObserver(log)
    try:
        yield log
    finally:
        globalLogPublisher.removeObserver(log)
    assert log.failures == []


@frozen
class Verdict:
    """
    What became of a connection, as the gate logged it.

    :ivar rule: the name of the rule that admitted it, or None.
    :ivar reason: why it was rejected, or None.
    :ivar depth: of the certificate that gave cause, or None.
    """

    rule: str | None = None
    reason: Reason | None = None
    depth: int | None = None


def admitted(rule: str = "rule") -> Verdict:
    return Verdict(rule=rule)


def rejected(reason: Reason, depth: int | None = 0) -> Verdict:
    return Verdict(reason=reason, depth=depth)


@cache
def server_authority() -> Authority:
    return Authority.create("Server CA")


def server_credential(*names: str) -> ServerCredential:
    made = server_authority().issue("server", dns_names=names, usages=["server_auth"])
    return ServerCredential(made.chain, made.private_key)


@cache
def localhost() -> ServerCredential:
    return server_credential("localhost")


def rule(
    name: str = "rule",
    ca: Authority | Sequence[Authority] = (),
    pins: Credential | Sequence[Credential] = (),
) -> Rule:
    """:returns: a rule on those CAs and leaves."""
    authorities = (ca,) if isinstance(ca, Authority) else ca
    leaves = (pins,) if isinstance(pins, Credential) else pins
    return Rule(
        name,
        tuple(one.certificate for one in authorities),
        tuple(one.certificate for one in leaves),
    )


def condition(**attributes: Sequence[str]) -> Condition:
    """:returns: an ``allow`` or ``deny`` block of these attributes."""
    return Condition(
        tuple(
            clause(name, {value: read_value(name, value) for value in values})
            for name, values in attributes.items()
        )
    )


@frozen(eq=False)
class MemoryGate:
    """
    One server in memory.

    :ivar rules: None lets in anyone.
    """

    rules: Sequence[Rule] | None
    log: Log
    application: IProtocolFactory = field(factory=lambda: RecordingFactory(echo=True))
    min_version: Literal["1.2", "1.3"] = "1.2"
    strict: bool = True
    always_ask_twice: bool = False
    deny: Sequence[Condition] = ()
    session_lifetime: float | None = None
    credentials: Sequence[ServerCredential | MissingCredential] = field(
        factory=lambda: (localhost(),)
    )
    alpn: tuple[bytes, ...] = ()
    now: Callable[[], datetime] = utc_now
    handshake_timeout: float = 10.0
    clock: Clock = field(factory=Clock)
    connections: Connections | None = None
    terms: Terms = Terms()
    authorizer: Authorizer | None = None
    server: GateServer = field(init=False)
    entrance: Entrance = field(init=False)

    @server.default
    def _server(self) -> GateServer:
        rules, deny = self.rules, tuple(self.deny)
        policy = TlsPolicy(
            own=tuple(self.credentials),
            admission=None if rules is None else AdmissionPolicy(tuple(rules), deny),
            min_version=self.min_version,
            strict=self.strict,
            always_ask_twice=self.always_ask_twice,
            session_lifetime=self.session_lifetime,
            alpn=self.alpn,
        )
        return GateServer(
            "door",
            GateContext(policy, self.now),
            self.application,
            self.handshake_timeout,
            self.terms,
            self.authorizer,
        )

    @entrance.default
    def _entrance(self) -> Entrance:
        connections = self.connections
        if connections is None:
            connections = Connections(self.clock, [HumanLog()])
        return Entrance.of(self.server, connections)

    @property
    def recorder(self) -> RecordingFactory:
        assert isinstance(self.application, RecordingFactory)
        return self.application

    def connect(
        self, credential: Credential | None, version: Version | None = None, **options: Any
    ) -> Client:
        """:returns: a client that has said nothing yet."""
        bounds = {} if version is None else {"min_version": version, "max_version": version}
        return Client(self.entrance, credential, clock=self.clock, **(bounds | options))

    def try_in(
        self, credential: Credential | None, version: Version | None = None, **options: Any
    ) -> Verdict:
        """Shake hands, send bytes, and see what comes of it."""
        return self.judge(self.connect(credential, version, **options))

    def judge(self, client: Client) -> Verdict:
        """Go on with a client to the end of its handshake."""
        events = len(self.log.events)
        protocols = len(self.recorder.protocols)
        client.send(b"knock")
        verdict = self.verdict(events)
        if verdict.reason is None:
            [protocol] = self.recorder.protocols[protocols:]
            assert client.established
            assert client.receive() == b"knock"
            assert (protocol.peer is None) == (self.rules is None)
        else:
            self.check_turned_away(client, protocols)
        return verdict

    def check_turned_away(self, client: Client, protocols: int = 0) -> None:
        """The application never heard of this client, and it is gone."""
        assert len(self.recorder.protocols) == protocols
        assert not client.established
        assert client.disconnected
        assert client.receive() == b""

    def verdict(self, since: int = 0) -> Verdict:
        """:returns: what the one event since then says."""
        [event] = self.log.events[since:]
        reason = event.get("reason")
        return Verdict(
            event.get("rule"), None if reason is None else Reason(reason), event.get("depth")
        )


def past(days: int = 1) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def openssl_x509(name: str = "device") -> Credential:
    """What ``openssl req -x509`` makes: self-signed, CA:TRUE."""
    return self_signed(name, is_ca=True)
