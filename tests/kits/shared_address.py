"""Several servers in memory that share one address."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from twisted.internet.task import Clock

from mtlsgate.admission import Rule
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.gate import Log, MemoryGate, Verdict, rule, server_credential

TIMEOUT = 7.5

CA_A, CA_B = Authority.create("A"), Authority.create("B")

ALICE, BOB = CA_A.issue("alice"), CA_B.issue("bob")


@frozen(eq=False)
class Address:
    """
    Servers that share an address.

    :ivar gates: each with its rules, by the names it declares; the one without
        a name is the default server.
    """

    log: Log
    gates: dict[str, MemoryGate]
    clock: Clock = field(factory=Clock)
    connections: Connections = field(init=False)

    entrance: Entrance = field(init=False)

    @connections.default
    def _connections(self) -> Connections:
        return Connections(self.clock, [HumanLog()])

    @entrance.default
    def _entrance(self) -> Entrance:
        return Entrance(
            "",
            "shared",
            [(names.split(), gate.server) for names, gate in self.gates.items()],
            self.connections,
            otherwise=self.gates[""].server if "" in self.gates else None,
            reads_hello=True,
        )

    def connect(
        self,
        credential: Credential | None,
        version: Version | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Client:
        bounds = {} if version is None else {"min_version": version, "max_version": version}
        return Client(
            self.entrance, credential, clock=self.clock, server_name=name, **(bounds | options)
        )

    def reached(self) -> list[str]:
        """:returns: the names of the servers whose application was reached, once each time."""
        return [names for names, gate in self.gates.items() for _ in gate.recorder.protocols]

    def verdict(self) -> Verdict:
        """:returns: what the one event says, which is then forgotten."""
        [event] = self.log.events
        self.log.events.clear()
        reason = event.get("reason")
        return Verdict(
            event.get("rule"), None if reason is None else Reason(reason), event.get("depth")
        )

    def judge(self, client: Client) -> Verdict:
        """Go on with a client to its end, or until it is in."""
        before = len(self.reached())
        client.send(b"knock")
        verdict = self.verdict()
        if verdict.reason is None:
            assert len(self.reached()) == before + 1
            assert client.receive() == b"knock"
        else:
            assert len(self.reached()) == before
            assert not client.established
            assert client.disconnected
            assert client.receive() == b""
        return verdict

    def try_in(self, *args: Any, **options: Any) -> Verdict:
        return self.judge(self.connect(*args, **options))


def address(log: Log, default: bool = False, **options: Any) -> Address:
    """:returns: server A, server B, and a default server that admits both's clients."""
    clock = Clock()

    def gate(name: str, rules: list[Rule], certificate: str) -> MemoryGate:
        credentials = [server_credential(certificate)]
        return MemoryGate(
            rules,
            log,
            clock=clock,
            credentials=credentials,
            handshake_timeout=TIMEOUT,
            **options,
        )

    gates = {
        "a.example": gate("a", [rule("A", CA_A)], "a.example"),
        "*.w.example x.v.example": gate("b", [rule("B", CA_B)], "*.w.example"),
        "one.w.example": gate("c", [rule("C", [CA_A, CA_B])], "one.w.example"),
    }
    if default:
        gates[""] = gate("d", [rule("D", [CA_A, CA_B])], "default.example")
    return Address(log, gates, clock)
