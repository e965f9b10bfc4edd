"""
Says whether a certificate would be admitted and why, without a connection:
``mtlsgate explain``, and the console.

The same code judges the chain as in a handshake.  Hints besides the verdict come from
`mtlsgate.admission.near_miss`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime

from attrs import frozen

from mtlsgate.admission import Admitted, Rejection, Rule
from mtlsgate.admission.listings import question_of
from mtlsgate.admission.near_miss import near_misses
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.server import GateServer
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.text import printable, quoted
from mtlsgate.tls.handshake_checks import tls_versions


@frozen
class RuleOpinion:
    """
    One rule's verdict on a chain.

    :ivar rule: the rule.
    :ivar verdict: the verdict as if it were the only rule.
    :ivar hints: what the chain lacks, the likeliest first.
    """

    rule: Rule
    verdict: Admitted | Rejection
    hints: tuple[str, ...]


@frozen
class Explanation:
    """
    A server's verdict on a chain.

    :ivar server: the server's name.
    :ivar leaf: the chain's leaf.
    :ivar verdict: the verdict that a handshake at that time would give.
    :ivar offered: the TLS versions that the server offers.
    :ivar tls_versions: the TLS versions with which the client is admitted; empty if it
        is rejected.
    :ivar opinions: each rule's verdict, in file order.
    """

    server: str
    leaf: Certificate
    verdict: Admitted | Rejection
    offered: tuple[str, ...]
    tls_versions: tuple[str, ...]
    opinions: tuple[RuleOpinion, ...]

    @property
    def admitted(self) -> bool:
        """Whether the client would be admitted."""
        return isinstance(self.verdict, Admitted)

    def to_dict(self) -> dict[str, object]:
        """:returns: all of it, ready for JSON."""
        return {
            "server": self.server,
            "subject": subject_of(self.leaf),
            "fingerprint_sha256": self.leaf.sha256.hex(),
            **_verdict(self.verdict),
            "tls_versions": list(self.tls_versions),
            "rules": [
                {"rule": one.rule.name, **_verdict(one.verdict), "hints": list(one.hints)}
                for one in self.opinions
            ],
        }

    def lines(self) -> Iterator[str]:
        """:returns: all of it in words."""
        yield f"{self.server}: {subject_of(self.leaf)} sha256={self.leaf.sha256.hex()}"
        yield f"  {_words(self.verdict)}"
        if self.tls_versions == ("1.3",) and "1.2" in self.offered:
            yield "    only with TLS 1.3: TLS 1.2 cannot use its key"
        for one in self.opinions:
            yield f"  rule {printable(one.rule.name)}: {_words(one.verdict)}"
            for hint in one.hints:
                yield f"    {hint}"


def _verdict(verdict: Admitted | Rejection) -> dict[str, object]:
    if isinstance(verdict, Admitted):
        found: dict[str, object] = {"admitted": True, "by": verdict.rule.name}
        if verdict.questions:
            found["registries"] = [
                {"registry": one.registry, "keys": list(one.keys)} for one in verdict.questions
            ]
        return found
    return {
        "admitted": False,
        "reason": verdict.reason.value,
        "depth": verdict.depth,
        "detail": verdict.detail,
    }


def _words(verdict: Admitted | Rejection) -> str:
    if isinstance(verdict, Admitted):
        return f"admitted by rule {printable(verdict.rule.name)}{_conditions(verdict)}"
    depth = "" if verdict.depth is None else f" at depth {verdict.depth}"
    return f"rejected: {verdict.reason}{depth}: {printable(verdict.detail)}"


def _conditions(verdict: Admitted) -> str:
    """:returns: what registries must say, which are not asked here."""
    rule = verdict.rule
    asked = None if rule.registry is None else question_of(rule.registry, verdict.path[0])
    found = [
        f"registry {quoted(one.registry)} "
        + ("lists it as active" if one == asked else "does not list it")
        for one in dict.fromkeys(verdict.questions)
    ]
    return f", if {' and '.join(found)}" if found else ""


def explain(server: GateServer, chain: tuple[Certificate, ...], at: datetime) -> Explanation:
    """
    :param server: a server that judges clients.
    :param chain: as a client would present it, the leaf first.
    :param at: the time to judge by.
    """
    steps = explaining(server, chain, at)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            explanation: Explanation = stop.value
            return explanation


def explaining(
    server: GateServer, chain: tuple[Certificate, ...], at: datetime
) -> Generator[None, None, Explanation]:
    """
    The same in steps, one for each rule: there may be thousands.
    """
    judge = server.context.judge
    assert judge is not None
    verdict = judge.on_chain(chain, at)
    opinions: list[RuleOpinion] = []
    for rule, one in judge.by_rule(chain, at):
        hints = () if isinstance(one, Admitted) else _hints(rule, chain, at)
        opinions.append(RuleOpinion(rule, one, hints))
        yield
    offered = ("1.3",) if server.context.policy.min_version == "1.3" else ("1.2", "1.3")
    versions: tuple[str, ...] = ()
    if isinstance(verdict, Admitted):
        versions = tuple(one for one in offered if one in tls_versions(chain[0]))
    return Explanation(server.name, chain[0], verdict, offered, versions, tuple(opinions))


def _hints(rule: Rule, chain: tuple[Certificate, ...], at: datetime) -> tuple[str, ...]:
    return tuple(dict.fromkeys(near_misses(rule, chain, at)))
