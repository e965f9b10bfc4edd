"""
The test of an epoch before it takes over: the gate connects to itself as clients
that must be rejected.

Each server is tried, in memory, without a certificate, with one of an unknown
CA that has the name of a configured one, and for each rule with pins as a
stranger who sends a pin along.  If one of them is admitted, the epoch is not used.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import suppress

from attrs import evolve, frozen
from cryptography import x509
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from mtlsgate.errors import GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.terms import Terms
from mtlsgate.load.epoch import Epoch
from mtlsgate.text import printable
from mtlsgate.tls.memory_client import Client


class SelfTestError(GateError):
    """An epoch that would admit a client it must reject; in lines."""


@frozen
class Intruder:
    """
    A client that must be rejected.

    :ivar words: what it does, for the message.
    :ivar credential: what it presents, or None.
    :ivar chain: the certificates it sends along.
    """

    words: str
    credential: Credential | None = None
    chain: tuple[x509.Certificate, ...] = ()


def self_test(epoch: Epoch) -> None:
    """:raises SelfTestError: if a client is admitted that must be rejected."""
    problems = [
        printable(f"{epoch.path}: {server.model.heading}: the self-test got in {words}")
        for server in epoch.servers
        for words in holes(server.gate)
    ]
    if problems:
        raise SelfTestError("\n".join(problems))


def holes(server: GateServer) -> Iterator[str]:
    """:returns: the intruders that are admitted."""
    policy = server.context.admission
    for intruder in () if policy is None else intruders(policy):
        if _gets_in(server, intruder):
            yield intruder.words


def intruders(policy: AdmissionPolicy) -> Iterator[Intruder]:
    """:returns: the clients that try a server."""
    yield Intruder("without a certificate")
    stranger, seen = self_signed("self-test"), set[Hashable]()
    for rule in policy.rules:
        for authority in rule.authorities[:1]:
            name = authority.subject.key
            if name not in seen:
                seen.add(name)
                # Names that cryptography cannot read cannot be forged with it.
                with suppress(*UNPARSABLE):
                    yield _namesake(rule, authority)
        if rule.pins:
            with suppress(*UNPARSABLE):
                pin = rule.pins[0].certificate.x509
                yield Intruder(
                    f"as a stranger who sends the pin of rule {rule.name} along", stranger, (pin,)
                )


def _namesake(rule: Rule, authority: Certificate) -> Intruder:
    forged = Authority.create(subject=authority.x509.subject)
    return Intruder(
        f"with an unknown CA that has the name of the CA of rule {rule.name}",
        forged.issue("self-test"),
        (forged.certificate,),
    )


class _Nobody(Factory):
    """Stands for the application, and records whether it was reached."""

    noisy = False
    reached = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        self.reached = True
        return Protocol()


def _gets_in(server: GateServer, intruder: Intruder) -> bool:
    application, clock = _Nobody(), Clock()
    # Without limits and observers: the test leaves no trace.
    alone = evolve(server, application=application, terms=Terms(), authorizer=None)
    entrance = Entrance.of(alone, Connections(clock))
    client = Client(entrance, intruder.credential, clock=clock, chain=intruder.chain)
    client.send(b"self-test")
    client.reset()
    return application.reached
